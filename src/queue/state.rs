//! Where a message stands: the fold of its history over its envelope block.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Action, Event, Handover, Status, Then, What};
use crate::message::{
    Address, Block, EnhancedCode, Envelope, NoticeKind, QueueId, RecipientDsn, Reply, ReversePath,
    Submission,
};

/// A clock that shows so much more than at the message's last event may have been set in between. So
/// much too old may a message be taken for whose clock was behind for a moment.
const LONGEST_STEP: SignedDuration = SignedDuration::from_hours(12);

/// Where a message stands.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The message.
    pub id: QueueId,
    /// Its sender.
    pub sender: ReversePath,
    /// Its recipients, in the envelope's order.
    pub recipients: Vec<RecipientState>,
    /// Attempts of which an end is recorded.
    pub attempts: u32,
    /// When the last of them began.
    pub began: Option<Timestamp>,
    /// Whether an attempt began and nothing is known of its end.
    pub in_use: bool,
    /// Attempts in a row of which none knows the end.
    pub interrupted: u32,
    /// Nothing is left to do, whatever else is said: the message is to be forgotten.
    pub done: bool,
    /// Whether somebody holds it back.
    pub hold: Hold,
    /// Before this time it is not attempted, because its submitter wanted that (RFC 4865); none if
    /// he did not, or an operator has had it tried before.
    pub release: Option<Timestamp>,
    /// Its acceptance, its release, or the retry that released it: by a clock that may have been
    /// ahead. [`State::begins`] is from when its age counts.
    pub begin: Timestamp,
    /// Times before `begin` at which something happened to it, each earlier than the one before.
    /// There are any only if a clock was ahead or went back.
    pub(super) earlier: Vec<Timestamp>,
    /// When something happened to it last, by the clock of that time.
    pub(super) last_event: Option<Timestamp>,
    index: HashMap<Address, usize>,
}

/// Where one recipient stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipientState {
    /// The address.
    pub address: Address,
    /// Of what the sender wants to hear.
    pub dsn: RecipientDsn,
    /// The last outcome, if there was one.
    pub last: Option<Reply>,
    /// By which transport, and when.
    pub last_attempt: Option<(Timestamp, Option<String>)>,
    /// Attempts that ended for this recipient.
    pub attempts: u32,
    /// When the sender is told that it takes long, if it is pending then.
    pub warn: Option<Timestamp>,
    /// When he was told so last.
    pub warned: Option<Timestamp>,
    /// What is to be done about it.
    pub fate: Fate,
}

/// What is to be done about a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is tried at this time.
    Pending {
        /// Due then.
        next: Timestamp,
    },
    /// It has the message. The sender is to be told, if he wants to be.
    Delivered {
        /// When that attempt began.
        since: Timestamp,
        /// Who has it now.
        handover: Handover,
        /// A notice is recorded, or none is to be.
        notified: bool,
    },
    /// It cannot have it. The sender is to be told, unless he does not want to be.
    Failed {
        /// What it failed in: the time at which that attempt began, or of the operator's action.
        since: Timestamp,
        /// Its time was up.
        expired: bool,
        /// A notice is recorded, or none is to be.
        notified: bool,
    },
}

/// Whether somebody holds a message back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Nobody.
    None,
    /// No attempts until then, or until it is thawed.
    Frozen {
        /// Since when.
        since: Timestamp,
        /// When that ends by itself.
        until: Option<Timestamp>,
        /// What happens then.
        then: Then,
        /// Who and why.
        by: super::By,
    },
    /// Out of the queue, forgotten then.
    Discarded {
        /// Since when.
        since: Timestamp,
        /// When.
        until: Timestamp,
        /// Who and why.
        by: super::By,
    },
}

impl State {
    /// A message fresh from acceptance: everybody is due at once, or at its release.
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
        // Who is named twice is one recipient: an outcome is for an address, not for a line.
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

    /// From when its age counts at a time: from [`begin`](State::begin), or, if the clock was ahead
    /// then, from the first thing that happened to it by a clock that was not. If nothing has, it is
    /// new.
    pub fn begins(&self, now: Timestamp) -> Timestamp {
        if self.begin <= now {
            let earliest = self.earlier.last().filter(|_| self.led_here(now));
            return earliest.copied().unwrap_or(self.begin);
        }
        let mut earlier = self.earlier.iter().copied();
        earlier.find(|time| *time <= now).unwrap_or(now)
    }

    /// Whether the time went on from the last event to this one, or was set.
    fn led_here(&self, now: Timestamp) -> bool {
        let last = self.last_event;
        last.is_some_and(|last| now.duration_since(last) <= LONGEST_STEP)
    }

    /// Keeps the times before the one from which the age counts. Once the time has come there by
    /// itself, they were right; if it was set, the clock was behind when they were written.
    fn remember_time(&mut self, at: Timestamp) {
        if at >= self.begin && !self.earlier.is_empty() {
            if self.led_here(at) {
                self.begin = self.earlier.last().copied().unwrap_or(self.begin);
            }
            self.earlier.clear();
        }
        let first = self.earlier.last().copied().unwrap_or(self.begin);
        // What is held until a release that is ahead is not tried, and has no age.
        let is_held = self.release.is_some_and(|release| at < release);
        if at < first && !is_held {
            self.earlier.push(at);
        }
        self.last_event = Some(at);
    }

    /// A message with all that happened to it, as its block and its history say it.
    ///
    /// A recipient for whom the block says that nothing more is to be done is finished, whatever the
    /// history says or has lost.
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

    /// One more thing happened.
    pub fn apply(&mut self, event: &Event) {
        if let What::Fold(fold) = &event.what {
            return self.unfold(fold);
        }
        self.remember_time(event.at);
        match &event.what {
            // It is no event, and was looked at.
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
                    // Nobody is told of what comes from the null sender, whatever stands there.
                    recipient.warn = result.warn.filter(|_| recipient.is_left() && !is_null);
                    // Whoever recorded that a transport lost an answer lived to tell: only
                    // what nobody recorded at the time may have ended its runner.
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
                        // Told late, it is told of all the times until now.
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
                // Who lets a held message go has looked at it. Who tries everything again, every
                // night perhaps, has not, and poison must still be stopped.
                if self.hold != Hold::None {
                    self.interrupted = 0;
                }
                self.hold = Hold::None;
                // A thaw takes back a freeze, and nothing else; who retries it releases it.
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
                // Who failed and nobody can be told of it gets another chance. Where somebody
                // can, he will be: his notice may be staged already.
                let nobody = self.sender == ReversePath::Null;
                for recipient in &mut self.recipients {
                    if recipient.is_left() || nobody && recipient.is_untold() {
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

    /// Changes those that are named, each once, or all. It costs as much as there are names: a message to many has an
    /// event for each few of them.
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

    /// The place of this recipient among all, if it is one.
    pub fn index_of(&self, address: &Address) -> Option<usize> {
        self.index.get(address).copied()
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

    /// When something is to be done about it by itself: the earliest of the next attempts, and of the
    /// times at which the sender is told that it takes long.
    pub fn next_due(&self) -> Option<Timestamp> {
        let pending = |recipient: &&RecipientState| matches!(recipient.fate, Fate::Pending { .. });
        let warn = self.recipients.iter().filter(pending);
        let warn = warn.filter_map(|recipient| recipient.warn).min();
        [self.next_attempt(), warn].into_iter().flatten().min()
    }

    /// The last reply that was not a success, of whoever is not done; if everybody is, of
    /// whoever failed.
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

/// What a sender is told of a recipient that an operator gave up: the operator's reason, and what was last
/// answered. The operator's name is in the history, and is not for the sender.
fn given_up(by: &super::By, last: Option<&Reply>) -> Reply {
    let mut text = "returned to the sender by the postmaster".to_owned();
    if let Some(why) = &by.reason {
        text = format!("{text}: {why}");
    }
    if let Some(last) = last {
        let of = last
            .remote
            .as_ref()
            .map_or(String::new(), |one| format!(" of {one}"));
        text = format!("{text}; the last answer{of} was: {last}");
    }
    Reply::local(EnhancedCode::new(5, 0, 0), text)
}

impl RecipientState {
    /// There is nothing more to do for it. What is not told any more was delivered: a failure is in the
    /// history before it is told.
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

    /// Whether there is nothing more to do for it, neither to deliver nor to tell.
    pub fn is_finished(&self) -> bool {
        !self.is_left() && !self.is_unconfirmed() && !self.is_untold()
    }

    /// Whether it is still to be delivered.
    pub fn is_left(&self) -> bool {
        matches!(self.fate, Fate::Pending { .. })
    }

    /// Whether it has the message, and the sender wants to hear that and has not been told.
    pub fn is_unconfirmed(&self) -> bool {
        matches!(
            self.fate,
            Fate::Delivered {
                notified: false,
                ..
            }
        )
    }

    /// Whether it failed and its sender is to be told and has not been; to the null sender
    /// nobody can tell it.
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
    use crate::message::{Entrance, Submission};

    #[test]
    fn who_is_named_twice_is_one_recipient() {
        let address = Address::parse("a@x").unwrap();
        let envelope = Envelope {
            sender: ReversePath::Null,
            recipients: vec![address.clone(), address],
            submission: Submission::by(Entrance::Active),
        };
        let state = State::new(QueueId::new(Timestamp::UNIX_EPOCH, [1; 10]), &envelope);
        assert_eq!(state.recipients.len(), 1);
    }

    #[test]
    fn a_sender_is_told_what_was_last_answered_and_not_by_whom_it_was_given_up() {
        let by = |reason: Option<&str>| super::super::By {
            by: "root (by sudo: alice)".to_owned(),
            reason: reason.map(str::to_owned),
        };
        let server = Reply::of_server(450, "4.2.0".parse().ok(), "later", "mx.test");
        let own = Reply::local(EnhancedCode::new(4, 4, 1), "cannot connect");
        for (reason, last, told) in [
            (None, None, ""),
            (Some("wrong list"), None, ": wrong list"),
            (
                Some("wrong list"),
                Some(&server),
                ": wrong list; the last answer of mx.test was: 450 4.2.0 later",
            ),
            (
                None,
                Some(&own),
                "; the last answer was: 4.4.1 cannot connect",
            ),
        ] {
            let expected = format!("5.0.0 returned to the sender by the postmaster{told}");
            assert_eq!(given_up(&by(reason), last).to_string(), expected);
        }
    }
}
