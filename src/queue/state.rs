//! The state of a message: its envelope block with its history applied.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Action, Event, Handover, Status, Then, What};
use crate::message::{
    Address, Block, EnhancedCode, Envelope, NoticeKind, QueueId, RecipientDsn, Reply, ReversePath,
    Submission,
};

/// The longest gap after the last event in which the clock counts as having run on. After a longer gap it
/// may have been set. So if the clock was slow for a moment, the message's age can be too high by at most
/// this much.
const LONGEST_STEP: SignedDuration = SignedDuration::from_hours(12);

/// The state of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The message.
    pub id: QueueId,
    /// Its sender.
    pub sender: ReversePath,
    /// Its recipients, in the envelope's order.
    pub recipients: Vec<RecipientState>,
    /// The number of attempts with a recorded end.
    pub attempts: u32,
    /// When the last of these attempts began.
    pub began: Option<Timestamp>,
    /// Whether an attempt began that has no recorded end.
    pub in_use: bool,
    /// The number of consecutive attempts without a recorded end.
    pub interrupted: u32,
    /// Nothing is left to do, regardless of the other fields; the message is about to be removed.
    pub done: bool,
    /// Whether an operator or a rule holds the message.
    pub hold: Hold,
    /// The time before which no attempt is made, at the submitter's request (RFC 4865). `None` if there was
    /// no request, or if an operator retried the message earlier.
    pub release: Option<Timestamp>,
    /// The time of its acceptance, its release, or the retry that released it, by a clock that may have
    /// been ahead. [`State::begins`] returns the start of its age.
    pub begin: Timestamp,
    /// Times before `begin` at which an event occurred, in descending order. Not empty only if a clock was
    /// ahead or went back.
    pub(super) earlier: Vec<Timestamp>,
    /// The time of the last event, by the clock of that time.
    pub(super) last_event: Option<Timestamp>,
    index: HashMap<Address, usize>,
}

/// The state of one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipientState {
    /// The address.
    pub address: Address,
    /// The DSN parameters.
    pub dsn: RecipientDsn,
    /// The reply of the last outcome, if any.
    pub last: Option<Reply>,
    /// When the last attempt ended, and its transport.
    pub last_attempt: Option<(Timestamp, Option<String>)>,
    /// The number of attempts that ended for this recipient.
    pub attempts: u32,
    /// When a delay notice is due if the recipient is still pending.
    pub warn: Option<Timestamp>,
    /// When the last delay notice was sent.
    pub warned: Option<Timestamp>,
    /// What is left to do.
    pub fate: Fate,
}

/// What is left to do for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The next attempt is made at this time.
    Pending {
        /// When it is due.
        next: Timestamp,
    },
    /// Delivered. The sender is notified if NOTIFY asks for it.
    Delivered {
        /// When the successful attempt began.
        since: Timestamp,
        /// The kind of system that accepted the message.
        handover: Handover,
        /// A notice is recorded, or none is needed.
        notified: bool,
    },
    /// Failed. The sender is notified unless NOTIFY excludes it.
    Failed {
        /// When the failed attempt began, or when the operator acted.
        since: Timestamp,
        /// Its lifetime ended.
        expired: bool,
        /// A notice is recorded, or none is needed.
        notified: bool,
    },
}

/// Whether an operator or a rule holds a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Not held.
    None,
    /// No attempts until a time, or until a thaw.
    Frozen {
        /// When the freeze began.
        since: Timestamp,
        /// When it ends without a thaw.
        until: Option<Timestamp>,
        /// What happens then.
        then: Then,
        /// The actor and the reason.
        by: super::By,
    },
    /// Out of the queue, and deleted at `until`.
    Discarded {
        /// When it was discarded.
        since: Timestamp,
        /// When it is deleted.
        until: Timestamp,
        /// The actor and the reason.
        by: super::By,
    },
}

impl State {
    /// Returns the state of a new message: all recipients are due at once, or at its release.
    pub fn new(id: QueueId, envelope: &Envelope) -> State {
        let Submission { dsn, release, .. } = &envelope.submission;
        let release = *release;
        let begin = release.unwrap_or(id.accepted());
        let fresh = |n: usize, address: &Address| RecipientState {
            address: address.clone(),
            dsn: dsn.of(n),
            last: None,
            last_attempt: None,
            attempts: 0,
            warn: None,
            warned: None,
            fate: Fate::Pending { next: begin },
        };
        // A repeated address is one recipient, because an outcome is for an address, not for a line.
        let mut index = HashMap::with_capacity(envelope.recipients.len());
        let mut recipients = Vec::with_capacity(envelope.recipients.len());
        for (n, address) in envelope.recipients.iter().enumerate() {
            if !index.contains_key(address) {
                index.insert(address.clone(), recipients.len());
                recipients.push(fresh(n, address));
            }
        }
        State {
            id,
            sender: envelope.sender.clone(),
            recipients,
            attempts: 0,
            began: None,
            in_use: false,
            interrupted: 0,
            done: false,
            hold: Hold::None,
            release,
            begin,
            earlier: Vec::new(),
            last_event: None,
            index,
        }
    }

    /// Returns the start of the message's age at `now`. It is [`begin`](State::begin), unless the clock was
    /// ahead then. In that case it is the time of the first event by a clock that was not ahead, or `now`
    /// if there is none.
    pub fn begins(&self, now: Timestamp) -> Timestamp {
        if self.begin <= now {
            let earliest = self.earlier.last().filter(|_| self.led_here(now));
            return earliest.copied().unwrap_or(self.begin);
        }
        let mut earlier = self.earlier.iter().copied();
        earlier.find(|time| *time <= now).unwrap_or(now)
    }

    /// Whether the clock ran on from the last event to `now`, and was not set in between.
    fn led_here(&self, now: Timestamp) -> bool {
        let last = self.last_event;
        last.is_some_and(|last| now.duration_since(last) <= LONGEST_STEP)
    }

    /// Records times before the start of the age. If the clock reaches `begin` by running on, those times
    /// were right. If it was set, it was slow when they were written.
    fn remember_time(&mut self, at: Timestamp) {
        if at >= self.begin && !self.earlier.is_empty() {
            if self.led_here(at) {
                self.begin = self.earlier.last().copied().unwrap_or(self.begin);
            }
            self.earlier.clear();
        }
        let first = self.earlier.last().copied().unwrap_or(self.begin);
        // A message that waits for its release is not attempted and has no age.
        let is_held = self.release.is_some_and(|release| at < release);
        if at < first && !is_held {
            self.earlier.push(at);
        }
        self.last_event = Some(at);
    }

    /// Returns the state of a message from its block and its history.
    ///
    /// A recipient that is finished in the block stays finished, regardless of what the history contains or
    /// has lost.
    pub fn read(block: &Block, events: &[Event]) -> State {
        let mut state = State::new(block.id, &block.envelope);
        events.iter().for_each(|event| state.apply(event));
        for (recipient, _) in (state.recipients.iter_mut())
            .zip(&block.finished)
            .filter(|(_, finished)| **finished)
        {
            recipient.finish(block.id.accepted());
        }
        state.interrupted = block.mark.interrupted.into();
        state.done = block.mark.done;
        state
    }

    /// Applies one more event.
    pub fn apply(&mut self, event: &Event) {
        if let What::Fold(fold) = &event.what {
            return self.unfold(fold);
        }
        self.remember_time(event.at);
        match &event.what {
            // Handled above.
            What::Fold(_) => {}
            What::Outcome {
                began,
                transport,
                results,
            } => {
                let since = *began;
                if self.began.replace(since) != Some(since) {
                    self.attempts += 1;
                }
                let is_null = self.sender == ReversePath::Null;
                for result in results {
                    let Some(n) = self.index.get(&result.recipient) else {
                        continue;
                    };
                    let recipient = &mut self.recipients[*n];
                    recipient.attempts += 1;
                    recipient.last = Some(result.reply.clone());
                    recipient.last_attempt = Some((event.at, transport.clone()));
                    recipient.fate = match (result.status, result.next) {
                        (Status::Delivered, _) => {
                            let passed_on = result.handover == Handover::PassedOn;
                            let told = is_null || passed_on || !recipient.dsn.wants_success();
                            Fate::Delivered {
                                since,
                                handover: result.handover,
                                notified: told,
                            }
                        }
                        (Status::Failed, _) | (_, None) => Fate::Failed {
                            since,
                            expired: result.expired,
                            notified: !is_null && !recipient.dsn.wants_failure(),
                        },
                        (Status::Deferred | Status::Unknown, Some(next)) => Fate::Pending { next },
                    };
                    // The null sender is never notified, regardless of the record.
                    recipient.warn = result.warn.filter(|_| recipient.is_left() && !is_null);
                    // A process that records a lost reply has survived its attempt. Only an attempt without
                    // a record may have ended its runner.
                    if transport.is_some() || result.status != Status::Unknown {
                        self.interrupted = 0;
                    }
                }
            }
            What::Notice {
                kind,
                recipients,
                warn,
                ..
            } => {
                let is_null = self.sender == ReversePath::Null;
                self.each(Some(recipients), |recipient| {
                    match (kind, &mut recipient.fate) {
                        (NoticeKind::Bounce, Fate::Failed { notified, .. })
                        | (NoticeKind::Success, Fate::Delivered { notified, .. }) => {
                            *notified = true;
                        }
                        // A late delay notice covers every threshold passed so far.
                        (NoticeKind::Delay, _) => {
                            recipient.warned = recipient.warn.max(Some(event.at));
                            recipient.warn = warn.filter(|_| recipient.is_left() && !is_null);
                        }
                        _ => {}
                    }
                });
            }
            What::Action(action) => self.act(event.at, action),
        }
    }

    fn act(&mut self, at: Timestamp, action: &Action) {
        match action {
            Action::Retry(_) | Action::Thaw(_) => {
                // An operator releases a held message after examining it. A retry of all messages, perhaps
                // a nightly one, examines none, and a message that crashes its runner must still be
                // stopped.
                if self.hold != Hold::None {
                    self.interrupted = 0;
                }
                self.hold = Hold::None;
                // A thaw only reverses a freeze. A retry also releases the message.
                let before = self.release.filter(|release| *release > at);
                let next = match (before, action) {
                    (Some(release), Action::Thaw(_)) => release,
                    (Some(_), _) => {
                        (self.release, self.begin) = (None, at);
                        self.earlier.clear();
                        at
                    }
                    (None, _) => at,
                };
                // A failed recipient is attempted again if the sender is the null sender, which cannot be
                // notified. Another sender will be notified, because the notice may be staged already.
                let is_null = self.sender == ReversePath::Null;
                for recipient in &mut self.recipients {
                    if recipient.is_left() || is_null && recipient.is_untold() {
                        recipient.fate = Fate::Pending { next };
                    }
                }
            }
            Action::Freeze { by, until, then } => {
                self.hold = Hold::Frozen {
                    since: at,
                    until: *until,
                    then: *then,
                    by: by.clone(),
                };
            }
            Action::Discard { by, until } => {
                self.hold = Hold::Discarded {
                    since: at,
                    until: *until,
                    by: by.clone(),
                };
            }
            Action::Bounce(by) => {
                self.hold = Hold::None;
                let is_null = self.sender == ReversePath::Null;
                for recipient in self
                    .recipients
                    .iter_mut()
                    .filter(|recipient| recipient.is_left())
                {
                    recipient.last = Some(given_up(by, recipient.last.as_ref()));
                    recipient.fate = Fate::Failed {
                        since: at,
                        expired: false,
                        notified: !is_null && !recipient.dsn.wants_failure(),
                    };
                    recipient.warn = None;
                }
            }
        }
    }

    /// Changes the named recipients, each once, or all of them. The cost depends on the number of names
    /// only, because a message to many recipients has one event for every few of them.
    fn each(&mut self, named: Option<&[Address]>, mut change: impl FnMut(&mut RecipientState)) {
        let Some(named) = named else {
            return self.recipients.iter_mut().for_each(change);
        };
        let found = named
            .iter()
            .filter_map(|recipient| self.index.get(recipient).copied());
        let found: BTreeSet<usize> = found.collect();
        for n in found {
            self.recipients.get_mut(n).into_iter().for_each(&mut change);
        }
    }

    /// The index of a recipient in [`recipients`](State::recipients).
    pub fn index_of(&self, address: &Address) -> Option<usize> {
        self.index.get(address).copied()
    }

    /// The state of a recipient.
    pub fn recipient(&self, address: &Address) -> Option<&RecipientState> {
        let n = self.index.get(address)?;
        self.recipients.get(*n)
    }

    /// The earliest next attempt for any pending recipient.
    pub fn next_attempt(&self) -> Option<Timestamp> {
        let next = |recipient: &RecipientState| match recipient.fate {
            Fate::Pending { next } => Some(next),
            _ => None,
        };
        self.recipients.iter().filter_map(next).min()
    }

    /// When the message is due next: the earliest of its next attempts and its delay notices.
    pub fn next_due(&self) -> Option<Timestamp> {
        let pending = |recipient: &&RecipientState| matches!(recipient.fate, Fate::Pending { .. });
        let warn = self.recipients.iter().filter(pending);
        let warn = warn.filter_map(|recipient| recipient.warn).min();
        [self.next_attempt(), warn].into_iter().flatten().min()
    }

    /// The latest reply without success, of recipients that are pending or have a notice due. If there are
    /// none, of failed recipients.
    pub fn last_error(&self) -> Option<&Reply> {
        let open = |recipient: &&RecipientState| recipient.is_left() || recipient.is_untold();
        let any = self.recipients.iter().any(|recipient| open(&recipient));
        self.recipients
            .iter()
            .filter(|recipient| {
                if any {
                    open(recipient)
                } else {
                    !matches!(recipient.fate, Fate::Delivered { .. })
                }
            })
            .filter_map(|recipient| {
                Some((
                    recipient.last_attempt.as_ref().map(|(at, _)| *at),
                    recipient.last.as_ref()?,
                ))
            })
            .max_by_key(|(at, _)| *at)
            .map(|(_, reply)| reply)
    }
}

/// Returns the reply for a recipient that an operator gave up: the operator's reason and the last reply.
/// The operator's name is in the history only; the sender does not see it.
fn given_up(by: &super::By, last: Option<&Reply>) -> Reply {
    let mut text = "returned to the sender by the postmaster".to_owned();
    if let Some(why) = &by.reason {
        text = format!("{text}: {why}");
    }
    if let Some(last) = last {
        let of = last
            .remote
            .as_ref()
            .map_or(String::new(), |remote| format!(" of {remote}"));
        text = format!("{text}; the last answer{of} was: {last}");
    }
    Reply::local(EnhancedCode::new(5, 0, 0), text)
}

impl RecipientState {
    /// Marks the recipient as finished. A pending recipient counts as delivered, because a failure is
    /// recorded in the history before its notice.
    pub(crate) fn finish(&mut self, since: Timestamp) {
        match &mut self.fate {
            Fate::Delivered { notified, .. } | Fate::Failed { notified, .. } => *notified = true,
            Fate::Pending { .. } => {
                self.warn = None;
                self.fate = Fate::Delivered {
                    since,
                    handover: Handover::Final,
                    notified: true,
                };
            }
        }
    }

    /// Whether nothing is left to do, neither a delivery nor a notice.
    pub fn is_finished(&self) -> bool {
        !self.is_left() && !self.is_unconfirmed() && !self.is_untold()
    }

    /// Whether delivery is pending.
    pub fn is_left(&self) -> bool {
        matches!(self.fate, Fate::Pending { .. })
    }

    /// Whether it is delivered and a success notice is due.
    pub fn is_unconfirmed(&self) -> bool {
        matches!(
            self.fate,
            Fate::Delivered {
                notified: false,
                ..
            }
        )
    }

    /// Whether it failed and a notice is due. For the null sender it stays true, because no notice can be
    /// sent.
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
mod tests;
