//! A folded history: the state of each recipient, instead of the events that led to it.
//!
//! The history of a message to many recipients, with attempts over days, would grow without limit. When a
//! history has doubled in length since its last fold, its writer folds it. A fold refers to recipients by
//! their index in the envelope, groups the recipients with the same state, and stores each reply once.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Fate;
use super::{Action, Event, Hold, RecipientState, State, What};
use crate::message::{QueueId, Reply};

/// The state that a history results in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// The number of events that the fold replaces.
    pub events: u64,
    /// The time of the first of them.
    pub since: Timestamp,
    /// The notices recorded in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<QueueId>,
    /// Whether they include an action of an operator or a rule, or a notice to the sender.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub acted: bool,
    /// Whether they include a freeze.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began: Option<Timestamp>,
    hold: Hold,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<Timestamp>,
    begin: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_event: Option<Timestamp>,
    replies: Vec<Reply>,
    transports: Vec<String>,
    recipients: Vec<Standing>,
}

/// A group of recipients with the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    /// The indexes of its recipients, as ranges (first, last).
    #[serde(rename = "who")]
    recipients: Vec<(u32, u32)>,
    #[serde(flatten)]
    how: How,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct How {
    fate: Fate,
    attempts: u32,
    /// The index of the last reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<u32>,
    /// When the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    /// The index of the transport of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warn: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warned: Option<Timestamp>,
}

/// Values that are stored once, and referred to by index.
struct Once<'a, T>(HashMap<&'a T, u32>, Vec<T>);

impl<'a, T: Clone + Eq + std::hash::Hash> Once<'a, T> {
    fn new() -> Once<'a, T> {
        Once(HashMap::new(), Vec::new())
    }

    fn place(&mut self, value: &'a T) -> u32 {
        let Once(places, values) = self;
        *places.entry(value).or_insert_with(|| {
            values.push(value.clone());
            u32::try_from(values.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

impl State {
    /// Folds the events that led to this state.
    pub fn fold(&self, events: &[Event]) -> Fold {
        let before = events.first().and_then(|event| match &event.what {
            What::Fold(fold) => Some(fold),
            _ => None,
        });
        let rest = &events[usize::from(before.is_some())..];
        let mut notices = before.map_or(Vec::new(), |fold| fold.notices.clone());
        let (mut acted, mut frozen) =
            before.map_or((false, false), |fold| (fold.acted, fold.frozen));
        for event in rest {
            match &event.what {
                What::Notice { id, .. } => {
                    notices.extend(id);
                    acted = true;
                }
                What::Action(action) => {
                    acted = true;
                    frozen |= matches!(action, Action::Freeze { .. });
                }
                What::Outcome { .. } | What::Fold(_) => {}
            }
        }
        let (mut replies, mut transports) = (Once::new(), Once::new());
        let mut alike: HashMap<How, usize> = HashMap::new();
        let mut recipients: Vec<Standing> = Vec::new();
        for (n, recipient) in (0..).zip(&self.recipients) {
            let how = How {
                fate: recipient.fate,
                attempts: recipient.attempts,
                reply: recipient.last.as_ref().map(|reply| replies.place(reply)),
                at: recipient.last_attempt.as_ref().map(|(at, _)| *at),
                by: (recipient.last_attempt.as_ref())
                    .and_then(|(_, by)| by.as_ref())
                    .map(|by| transports.place(by)),
                warn: recipient.warn,
                warned: recipient.warned,
            };
            let place = *alike.entry(how.clone()).or_insert_with(|| {
                recipients.push(Standing {
                    recipients: Vec::new(),
                    how,
                });
                recipients.len() - 1
            });
            match recipients[place].recipients.last_mut() {
                Some((_, last)) if *last + 1 == n => *last = n,
                _ => recipients[place].recipients.push((n, n)),
            }
        }
        let first = events.first().map_or(self.begin, |event| event.at);
        Fold {
            events: before.map_or(0, |fold| fold.events) + rest.len() as u64,
            since: before.map_or(first, |fold| fold.since),
            notices,
            acted,
            frozen,
            attempts: self.attempts,
            began: self.began,
            hold: self.hold.clone(),
            release: self.release,
            begin: self.begin,
            earlier: self.earlier.clone(),
            last_event: self.last_event,
            replies: replies.1,
            transports: transports.1,
            recipients,
        }
    }

    /// Sets the state to that of a fold. Indexes of recipients, replies or transports that do not exist are
    /// ignored.
    pub(super) fn unfold(&mut self, fold: &Fold) {
        self.attempts = fold.attempts;
        self.began = fold.began;
        self.hold = fold.hold.clone();
        self.release = fold.release;
        self.begin = fold.begin;
        self.earlier.clone_from(&fold.earlier);
        self.last_event = fold.last_event;
        for Standing { recipients, how } in &fold.recipients {
            let place = |n: u32| n as usize;
            let reply = how.reply.and_then(|n| fold.replies.get(place(n)));
            let by = how.by.and_then(|n| fold.transports.get(place(n)));
            for (first, last) in recipients {
                let end = place(*last).saturating_add(1).min(self.recipients.len());
                let Some(some) = self.recipients.get_mut(place(*first)..end) else {
                    continue;
                };
                for recipient in some {
                    *recipient = RecipientState {
                        address: recipient.address.clone(),
                        dsn: recipient.dsn.clone(),
                        last: reply.cloned(),
                        last_attempt: how.at.map(|at| (at, by.cloned())),
                        attempts: how.attempts,
                        warn: how.warn,
                        warned: how.warned,
                        fate: how.fate,
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Address, EnhancedCode, Entrance, Envelope, ReversePath, Submission};
    use crate::queue::{By, Outcome, RecipientResult, Then};

    fn envelope(count: usize) -> Envelope {
        Envelope {
            sender: ReversePath::parse(b"s@z").unwrap(),
            recipients: (0..count)
                .map(|n| Address::parse(&format!("r{n}@x")).unwrap())
                .collect(),
            submission: Submission::by(Entrance::Active),
        }
    }

    fn outcome(at: Timestamp, to: &[Address], text: impl Fn(usize) -> String) -> Event {
        let result = |(n, recipient): (usize, &Address)| {
            let code = EnhancedCode::new(4, 0, 0);
            let Outcome {
                status,
                handover,
                reply,
            } = Outcome::deferred(code, text(n));
            RecipientResult {
                recipient: recipient.clone(),
                status,
                handover,
                reply,
                next: Some(at),
                warn: (n % 3 == 0).then_some(at),
                expired: false,
            }
        };
        let results = to.iter().enumerate().map(result).collect();
        let transport = Some("out".to_owned());
        let what = What::Outcome {
            began: at,
            transport,
            results,
        };
        Event { at, what }
    }

    #[test]
    fn a_folded_history_gives_the_same_state() {
        let at = |n: i64| Timestamp::from_second(1_800_000_000 + 60 * n).unwrap();
        let envelope = envelope(10);
        let id = QueueId::new(at(0), [1; 10]);
        let to = &envelope.recipients;
        let freeze = What::Action(Action::Freeze {
            by: By::rule("why"),
            until: Some(at(9)),
            then: Then::Thaw,
        });
        let notice = What::Notice {
            kind: crate::message::NoticeKind::Delay,
            id: Some(id),
            recipients: to[2..4].to_vec(),
            warn: None,
        };
        let events = [
            outcome(at(1), to, |n| format!("later {}", n % 2)),
            outcome(at(2), &to[3..7], |_| "later".into()),
            Event {
                at: at(3),
                what: notice,
            },
            Event {
                at: at(4),
                what: freeze,
            },
            outcome(at(5), &to[..2], |_| "again".into()),
        ];
        let state = |events: &[Event]| {
            let mut state = State::new(id, &envelope);
            events.iter().for_each(|event| state.apply(event));
            state
        };
        for cut in 0..=events.len() {
            let (old, new) = events.split_at(cut);
            let fold = state(old).fold(old);
            assert_eq!(fold.events, cut as u64);
            assert_eq!((fold.acted, fold.frozen), (cut > 2, cut > 3));
            assert_eq!(fold.notices.len(), usize::from(cut > 2));
            let what = What::Fold(Box::new(fold));
            let mut folded = vec![Event { at: at(6), what }];
            folded.extend_from_slice(new);
            assert_eq!(state(&folded), state(&events), "at {cut}");
            let again = state(&folded).fold(&folded);
            assert_eq!(again.events, events.len() as u64);
            let line = folded[0].line();
            let read: Event = serde_json::from_slice(&line).unwrap();
            assert_eq!(read, folded[0]);
        }
    }

    #[test]
    fn recipients_with_the_same_state_are_grouped() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let envelope = envelope(10_000);
        let mut state = State::new(QueueId::new(at, [1; 10]), &envelope);
        let event = outcome(at, &envelope.recipients[..9_000], |n| {
            if n % 3 == 0 { "three" } else { "others" }.into()
        });
        state.apply(&event);
        let events = [event];
        let fold = state.fold(&events);
        assert_eq!((fold.replies.len(), fold.recipients.len()), (2, 3));
        let what = What::Fold(Box::new(fold));
        let line = Event { at, what }.line();
        let text = String::from_utf8_lossy(&line);
        assert!(text.contains(r#"{"who":[["#), "the stored name: {text}");
        let length = line.len();
        assert!(length < events[0].line().len() / 10, "{length}");
    }

    #[test]
    fn an_index_out_of_range_is_ignored() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let few = envelope(2);
        let id = QueueId::new(at, [1; 10]);
        let many = envelope(5);
        let mut state = State::new(id, &many);
        let events = [outcome(at, &many.recipients, |_| "later".into())];
        state.apply(&events[0]);
        let mut fold = state.fold(&events);
        fold.recipients[0].recipients.push((u32::MAX, 0));
        fold.replies.clear();
        let mut other = State::new(id, &few);
        other.unfold(&fold);
        assert_eq!(other.recipients.len(), 2);
        assert_eq!(other.recipients[1].last, None);
    }
}
