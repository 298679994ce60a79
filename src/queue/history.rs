//! `history/<id>`: what happened to a message, one JSON object a line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Fold, Handover, Status};
use crate::message::{Address, NoticeKind, QueueId, Reply};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A time as it is written into a history: to the millisecond, because finer is noise to people. Every
/// time that is compared with one of these is cut in the same way, else an action would lie in the future
/// of an attempt that begins in the same millisecond.
pub(crate) fn written(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// What can happen to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// An attempt, or a part of it, ended for these recipients.
    Outcome {
        /// When the attempt began: what has one beginning is one attempt.
        began: Timestamp,
        /// The transport; absent when none was found, or the attempt was interrupted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transport: Option<String>,
        /// One for each recipient.
        results: Vec<RecipientResult>,
    },
    /// A notice about these recipients was stored, or decided against (no id).
    Notice {
        /// What it says.
        kind: NoticeKind,
        /// Its queue id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<QueueId>,
        /// Whom it is about.
        recipients: Vec<Address>,
        /// Of a delay: when the next one is told of, if there is to be one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warn: Option<Timestamp>,
    },
    /// What is above it is no longer there, and came to this. It stands in the first line only.
    Fold(Box<Fold>),
    /// Somebody, or a rule, acted on the message.
    #[serde(untagged)]
    Action(Action),
}

/// What an operator or a rule can do to a message. Also the content of `requests/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Action {
    /// Try it at once.
    Retry(By),
    /// Do not try it, until a time or until it is thawed.
    Freeze {
        /// Who and why.
        #[serde(flatten)]
        by: By,
        /// When that ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// What happens then.
        #[serde(default, skip_serializing_if = "Then::is_thaw")]
        then: Then,
    },
    /// No longer frozen; try it at once.
    Thaw(By),
    /// Take it out of the queue, and forget it at `until`.
    Discard {
        /// Who and why.
        #[serde(flatten)]
        by: By,
        /// Until then it can be taken back.
        until: Timestamp,
    },
    /// Give up on everybody who is left and tell the sender.
    Bounce(By),
}

/// What ends a freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It is tried again.
    #[default]
    Thaw,
    /// It is forgotten: it failed, and there is nobody to tell.
    Discard,
}

impl Then {
    fn is_thaw(&self) -> bool {
        *self == Then::Thaw
    }
}

/// Who did something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// A user's name, or `mailspool` for a rule.
    pub by: String,
    /// The reason given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The outcome for one recipient, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientResult {
    /// The address as it stands in the envelope block.
    pub recipient: Address,
    /// What became of it.
    pub status: Status,
    /// Of what was delivered: who has it now.
    #[serde(default, skip_serializing_if = "Handover::is_final")]
    pub handover: Handover,
    /// In whose words.
    pub reply: Reply,
    /// When it is tried again, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// When the sender is told that it takes long, if it has not got it by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Timestamp>,
    /// It failed because its time was up, not because of this reply.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// The events of one message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
    /// Octets of the file that they take up; what is behind is a torn line, to be cut off.
    pub whole: usize,
}

/// The file cannot be what we wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history: line {line} is damaged")]
pub struct HistoryError {
    line: usize,
}

impl History {
    /// Reads `history/<id>`.
    ///
    /// Only what was written since the last fsync can be torn: the end may be missing, cut off in a line, or
    /// be zeroes in part. So lines up to the first bad one are the history. If a good line follows a bad
    /// one that has no zeroes, the damage is none of a crash's, and the file is not trusted.
    pub fn parse(bytes: &[u8]) -> Result<History, HistoryError> {
        let mut history = History::default();
        let mut bad = None;
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let event = line
                .strip_suffix(b"\n")
                .and_then(|line| serde_json::from_slice(line).ok());
            match (event, bad) {
                (Some(event), None) => {
                    history.events.push(event);
                    history.whole += line.len();
                }
                (Some(_), Some(line)) => return Err(HistoryError { line }),
                (None, _) if line.contains(&0) => break,
                (None, _) => bad = bad.or(Some(number + 1)),
            }
        }
        Ok(history)
    }
}

impl Event {
    /// The event as a line of the file.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl Action {
    /// Who and why.
    pub fn by(&self) -> &By {
        match self {
            Action::Retry(by) | Action::Thaw(by) | Action::Bounce(by) => by,
            Action::Freeze { by, .. } | Action::Discard { by, .. } => by,
        }
    }

    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Action::Retry(_) => "retry",
            Action::Freeze { .. } => "freeze",
            Action::Thaw(_) => "thaw",
            Action::Discard { .. } => "discard",
            Action::Bounce(_) => "bounce",
        }
    }
}

impl By {
    /// A rule of the program itself.
    pub fn rule(reason: impl Into<String>) -> By {
        By {
            by: "mailspool".into(),
            reason: Some(reason.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Outcome;

    fn events() -> Vec<Event> {
        let at: Timestamp = "2026-11-22T14:05:00.5Z".parse().unwrap();
        let address = Address::parse("a@example.org").unwrap();
        let Outcome {
            status,
            handover,
            reply,
        } = Outcome::delivered("250 ok");
        let whats = vec![
            What::Outcome {
                began: at,
                transport: Some("out".into()),
                results: vec![RecipientResult {
                    recipient: address.clone(),
                    status,
                    handover,
                    reply,
                    next: None,
                    warn: None,
                    expired: false,
                }],
            },
            What::Notice {
                kind: NoticeKind::Bounce,
                id: None,
                recipients: vec![address],
                warn: None,
            },
            What::Action(Action::Freeze {
                by: By::rule("why"),
                until: Some(at),
                then: Then::Thaw,
            }),
            What::Action(Action::Retry(By {
                by: "root".into(),
                reason: None,
            })),
        ];
        whats.into_iter().map(|what| Event { at, what }).collect()
    }

    fn file() -> Vec<u8> {
        events().iter().flat_map(Event::line).collect()
    }

    #[test]
    fn events_read_back() {
        let history = History::parse(&file()).unwrap();
        assert_eq!(history.events, events());
        assert_eq!(history.whole, file().len());
    }

    #[test]
    fn a_line_is_what_people_read() {
        let text = String::from_utf8(events().pop().unwrap().line()).unwrap();
        assert_eq!(
            text,
            "{\"at\":\"2026-11-22T14:05:00.5Z\",\"event\":\"retry\",\"by\":\"root\"}\n"
        );
    }

    #[test]
    fn a_torn_end_is_cut_wherever_it_tears() {
        let file = file();
        for end in 0..file.len() {
            let history = History::parse(&file[..end]).unwrap();
            assert!(history.whole <= end);
            assert_eq!(
                history.events.len(),
                file[..end].iter().filter(|b| **b == b'\n').count()
            );
            let mut zeros = file[..end].to_vec();
            zeros.extend([0; 50]);
            assert!(History::parse(&zeros).unwrap().whole <= end);
        }
    }

    #[test]
    fn damage_in_the_middle_is_not_taken_for_a_torn_end() {
        let mut file = file();
        file[3] = b'~';
        assert_eq!(History::parse(&file), Err(HistoryError { line: 1 }));
    }
}
