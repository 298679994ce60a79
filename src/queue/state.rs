//! Where a message stands: the fold of its history over its envelope.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Action, Event, Status, What};
use crate::message::{Address, EnhancedCode, Envelope, QueueId, Reply, ReversePath};

/// Where a message stands.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The message.
    pub id: QueueId,
    /// Its sender.
    pub sender: ReversePath,
    /// Its recipients, in the envelope's order.
    pub recipients: Vec<RecipientState>,
    /// Attempts begun.
    pub attempts: u32,
    /// When the last of them began.
    pub started: Option<Timestamp>,
    /// Attempts in a row that were begun and never ended.
    pub interrupted: u32,
    /// Whether somebody holds it back.
    pub hold: Hold,
    index: HashMap<Address, usize>,
}

/// Where one recipient stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipientState {
    /// The address.
    pub address: Address,
    /// The last outcome, if there was one.
    pub last: Option<Reply>,
    /// By which transport, and when.
    pub last_attempt: Option<(Timestamp, Option<String>)>,
    /// Attempts that ended for this recipient.
    pub attempts: u32,
    /// What is to be done about it.
    pub fate: Fate,
}

/// What is to be done about a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is tried at this time.
    Pending {
        /// Due then.
        next: Timestamp,
    },
    /// An attempt began and nothing is known of its end.
    InFlight,
    /// Nothing: it has the message.
    Delivered,
    /// The sender is to be told, or has been.
    Failed {
        /// What it failed in: the time at which that attempt began, or of the operator's action.
        since: Timestamp,
        /// Its time was up.
        expired: bool,
        /// A notice is recorded.
        notified: bool,
    },
}

/// Whether somebody holds a message back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody.
    None,
    /// No attempts until then, or until it is thawed.
    Frozen {
        /// When it thaws by itself.
        until: Option<Timestamp>,
        /// Who and why.
        by: super::By,
    },
    /// Out of the queue, forgotten then.
    Discarded {
        /// When.
        until: Timestamp,
        /// Who and why.
        by: super::By,
    },
}

impl State {
    /// A message fresh from acceptance: everybody is due at once.
    pub fn new(id: QueueId, envelope: &Envelope) -> State {
        let fresh = |address: &Address| RecipientState {
            address: address.clone(),
            last: None,
            last_attempt: None,
            attempts: 0,
            fate: Fate::Pending {
                next: id.accepted(),
            },
        };
        // Who is named twice is one recipient: an outcome is for an address, not for a line.
        let mut index = HashMap::with_capacity(envelope.recipients.len());
        let mut recipients = Vec::with_capacity(envelope.recipients.len());
        for address in &envelope.recipients {
            if !index.contains_key(address) {
                index.insert(address.clone(), recipients.len());
                recipients.push(fresh(address));
            }
        }
        State {
            id,
            sender: envelope.sender.clone(),
            recipients,
            attempts: 0,
            started: None,
            interrupted: 0,
            hold: Hold::None,
            index,
        }
    }

    /// A message with all that happened to it.
    pub fn with_history(id: QueueId, envelope: &Envelope, events: &[Event]) -> State {
        let mut state = State::new(id, envelope);
        events.iter().for_each(|event| state.apply(event));
        state
    }

    /// One more thing happened.
    pub fn apply(&mut self, event: &Event) {
        match &event.what {
            What::Started { recipients, .. } => {
                self.attempts += 1;
                self.started = Some(event.at);
                self.interrupted += 1;
                let named = recipients.as_deref();
                for recipient in self.pick(named) {
                    if let Fate::Pending { .. } = recipient.fate {
                        recipient.fate = Fate::InFlight;
                    }
                }
            }
            What::Outcome { transport, results } => {
                for result in results {
                    let Some(n) = self.index.get(&result.recipient) else {
                        continue;
                    };
                    let recipient = &mut self.recipients[*n];
                    recipient.attempts += 1;
                    recipient.last = Some(result.reply.clone());
                    recipient.last_attempt = Some((event.at, transport.clone()));
                    recipient.fate = match (result.status, result.next) {
                        (Status::Delivered, _) => Fate::Delivered,
                        (Status::Failed, _) | (_, None) => Fate::Failed {
                            since: self.started.unwrap_or(event.at),
                            expired: result.expired,
                            notified: false,
                        },
                        (Status::Deferred | Status::Unknown, Some(next)) => Fate::Pending { next },
                    };
                    // Whoever recorded that a transport lost an answer lived to tell: only
                    // what nobody recorded at the time may have ended its runner.
                    if transport.is_some() || result.status != Status::Unknown {
                        self.interrupted = 0;
                    }
                }
            }
            What::Notice { recipients, .. } => {
                for recipient in self.pick(Some(recipients)) {
                    if let Fate::Failed { notified, .. } = &mut recipient.fate {
                        *notified = true;
                    }
                }
            }
            What::Action(action) => self.act(event.at, action),
        }
    }

    fn act(&mut self, at: Timestamp, action: &Action) {
        match action {
            Action::Retry(_) | Action::Thaw(_) => {
                // Who lets a held message go has looked at it. Who tries everything again, every
                // night perhaps, has not, and poison must still be stopped.
                if self.hold != Hold::None {
                    self.interrupted = 0;
                }
                self.hold = Hold::None;
                // Who failed and nobody can be told of it gets another chance. Where somebody
                // can, he will be: his notice may be staged already.
                let nobody = self.sender == ReversePath::Null;
                for recipient in &mut self.recipients {
                    if recipient.is_left() || nobody && recipient.is_untold() {
                        recipient.fate = Fate::Pending { next: at };
                    }
                }
            }
            Action::Freeze { by, until } => {
                self.hold = Hold::Frozen {
                    until: *until,
                    by: by.clone(),
                };
            }
            Action::Discard { by, until } => {
                self.hold = Hold::Discarded {
                    until: *until,
                    by: by.clone(),
                };
            }
            Action::Bounce(by) => {
                self.hold = Hold::None;
                let why = by.reason.as_deref().unwrap_or("no reason was given");
                let text = format!("returned to the sender by {}: {why}", by.by);
                let reply = Reply::local(EnhancedCode::new(5, 0, 0), text);
                for recipient in self.recipients.iter_mut().filter(|one| one.is_left()) {
                    recipient.last = Some(reply.clone());
                    recipient.fate = Fate::Failed {
                        since: at,
                        expired: false,
                        notified: false,
                    };
                }
            }
        }
    }

    fn pick<'a>(
        &'a mut self,
        named: Option<&'a [Address]>,
    ) -> Box<dyn Iterator<Item = &'a mut RecipientState> + 'a> {
        match named {
            None => Box::new(self.recipients.iter_mut()),
            Some(named) => {
                let wanted: std::collections::HashSet<usize> = named
                    .iter()
                    .filter_map(|one| self.index.get(one).copied())
                    .collect();
                let all = self.recipients.iter_mut().enumerate();
                Box::new(all.filter_map(move |(n, one)| wanted.contains(&n).then_some(one)))
            }
        }
    }

    /// Where this recipient stands, if it is one.
    pub fn recipient(&self, address: &Address) -> Option<&RecipientState> {
        let n = self.index.get(address)?;
        self.recipients.get(*n)
    }

    /// The earliest next attempt of anybody, if anybody is left.
    pub fn next_attempt(&self) -> Option<Timestamp> {
        let next = |recipient: &RecipientState| match recipient.fate {
            Fate::Pending { next } => Some(next),
            _ => None,
        };
        self.recipients.iter().filter_map(next).min()
    }

    /// The last reply that was not a success, of whoever is not done; if everybody is, of
    /// whoever failed.
    pub fn last_error(&self) -> Option<&Reply> {
        let open = |one: &&RecipientState| one.is_left() || one.is_untold();
        let any = self.recipients.iter().any(|one| open(&one));
        self.recipients
            .iter()
            .filter(|one| {
                if any {
                    open(one)
                } else {
                    one.fate != Fate::Delivered
                }
            })
            .filter_map(|one| {
                Some((
                    one.last_attempt.as_ref().map(|(at, _)| *at),
                    one.last.as_ref()?,
                ))
            })
            .max_by_key(|(at, _)| *at)
            .map(|(_, reply)| reply)
    }
}

impl RecipientState {
    /// Whether it is still to be delivered.
    pub fn is_left(&self) -> bool {
        matches!(self.fate, Fate::Pending { .. } | Fate::InFlight)
    }

    /// Whether it failed and no notice is recorded.
    pub fn is_untold(&self) -> bool {
        matches!(
            self.fate,
            Fate::Failed {
                notified: false,
                ..
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Door, Submission};

    #[test]
    fn who_is_named_twice_is_one_recipient() {
        let address = Address::parse("a@x").unwrap();
        let envelope = Envelope {
            sender: ReversePath::Null,
            recipients: vec![address.clone(), address],
            submission: Submission::by(Door::Active),
        };
        let state = State::new(QueueId::new(Timestamp::UNIX_EPOCH, [1; 10]), &envelope);
        assert_eq!(state.recipients.len(), 1);
    }
}
