//! The history of a message, `history/<id>`: one event per line, as a JSON object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Action, Fold, Handover, Status};
use crate::message::{Address, NoticeKind, QueueId, Reply};

/// One event in the history of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// Truncates a time to the milliseconds that a history stores; finer values would only clutter it. A time
/// that is compared with one from a history must be truncated, too. Otherwise an action could lie in the
/// future of an attempt that begins in the same millisecond.
pub(crate) fn written(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// An attempt, or a part of it, ended for these recipients.
    Outcome {
        /// When the attempt began. Outcomes with the same value belong to the same attempt.
        began: Timestamp,
        /// The transport; absent if no route was found, or if the attempt was interrupted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transport: Option<String>,
        /// One result per recipient.
        results: Vec<RecipientResult>,
    },
    /// A notice about these recipients was stored, or suppressed (no id).
    Notice {
        /// The kind of the notice.
        kind: NoticeKind,
        /// The queue id of the notice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<QueueId>,
        /// The recipients that it is about.
        recipients: Vec<Address>,
        /// For a delay notice: when the next one is due, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warn: Option<Timestamp>,
    },
    /// Replaces the events that were before it. Occurs in the first line only.
    Fold(Box<Fold>),
    /// An operator or a rule acted on the message.
    #[serde(untagged)]
    Action(Action),
}

/// The recorded outcome for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientResult {
    /// The address as in the envelope block.
    pub recipient: Address,
    /// The status of the outcome.
    pub status: Status,
    /// For a delivered message: the kind of system that accepted it.
    #[serde(default, skip_serializing_if = "Handover::is_final")]
    pub handover: Handover,
    /// The reply of the destination, or a text of this program.
    pub reply: Reply,
    /// When the next attempt is due, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// When a delay notice is due if the recipient is still pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Timestamp>,
    /// The recipient failed because its lifetime ended, not because of this reply.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// The events of one message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
    /// The length of the complete lines in octets. After it is a torn line, which must be cut off.
    pub whole: usize,
}

/// The file is damaged in a way that no crash causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history: line {line} is damaged")]
pub struct HistoryError {
    line: usize,
}

impl History {
    /// Parses `history/<id>`.
    ///
    /// A crash can tear only what was written since the last fsync: the end may be missing, end within a
    /// line, or contain zeroes. So the history is the lines before the first bad one. If a good line
    /// follows a bad line without zeroes, a crash cannot be the cause, and the file is refused.
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
    /// Formats the event as a line of the file.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{By, Outcome, Then};

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
    fn a_line_is_one_readable_json_object() {
        let text = String::from_utf8(events().pop().unwrap().line()).unwrap();
        assert_eq!(
            text,
            "{\"at\":\"2026-11-22T14:05:00.5Z\",\"event\":\"retry\",\"by\":\"root\"}\n"
        );
    }

    #[test]
    fn a_torn_end_is_cut_off_at_any_octet() {
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
