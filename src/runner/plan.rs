//! What can be tried of a message now: who goes where, for whom nobody is found, whose destination
//! takes nothing at the moment, and whose mail is suspended.
//!
//! A plan costs nothing but memory. What a transaction needs (a place of its transport, a
//! connection) is taken when its turn comes, so a message to thousands of destinations has as
//! many of each as it has jobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::Core;
use super::chunks::Chunks;
use super::connections::Gate;
use super::jobs::Job;
use super::round::Round;
use super::sessions::Open;
use super::transact::ended;
use super::transport_slots::{self, SlotAnswer};
use crate::disk;
use crate::message::{Address, EnhancedCode};
use crate::queue::result::{failed_attempt, warn_time};
use crate::queue::state::Fate;
use crate::queue::{Action, Outcome, RecipientState, What};
use crate::spool::{Destination, Down, Entry, Standing, Suspended};
use crate::transport::Transport;

/// So much later another look is taken at a destination that another process probes.
pub(super) const PROBED_ELSEWHERE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Recipients that share a way out, and whose turn has not come.
pub(super) struct PendingGroup {
    pub transport: Arc<dyn Transport>,
    pub destination: Destination,
    /// One transaction after the other.
    pub chunks: Chunks,
    /// What the transaction before left.
    pub source: Option<SessionSource>,
    /// The hosts that the first of the transactions has come to.
    pub round: Round,
}

impl PendingGroup {
    /// What hosts have said of the recipients that they put off, if no other host is asked for them
    /// now. They were tried, so this is their outcome.
    pub fn said(&mut self) -> Vec<(Address, Outcome)> {
        if self.round.is_under_way() {
            ended(self.chunks.take_first(), &self.round)
        } else {
            Vec::new()
        }
    }

    /// Gives up for now. Runs where it may block.
    fn give_up(&mut self, plan: &mut AttemptPlan) {
        plan.known.extend(self.said());
        if let Some(SessionSource::Slot(slot)) = self.source.take() {
            slot.retire();
        }
    }
}

/// A transaction whose turn has come, and what it needs.
pub(super) struct Transaction {
    /// Goes before the job does: the message that gets the job may want a place.
    pub transport_slot: Option<transport_slots::TransportSlot>,
    pub job: Job,
    pub group: Group,
}

/// Recipients that share a way out.
pub(super) struct Group {
    pub transport: Arc<dyn Transport>,
    pub destination: Destination,
    /// One transaction after the other.
    pub chunks: Chunks,
    pub source: SessionSource,
    /// The hosts that the first of the transactions has come to.
    pub round: Round,
}

/// How a group gets to its session.
pub(super) enum SessionSource {
    /// By one that is open.
    Open(Open),
    /// By opening one.
    Slot(super::connections::ConnectionSlot),
    /// Its transport keeps no connection.
    NoSlot,
}

/// What is tried of a message, and what is not.
pub(super) struct AttemptPlan {
    /// Whose turn is to come.
    pub pending_groups: VecDeque<PendingGroup>,
    /// Whose outcome is known without asking anybody, and not recorded yet.
    pub known: Vec<(Address, Outcome)>,
    pub postponement: Postponement,
    /// On which nobody is left. Their sessions are for other messages.
    pub over: Vec<PendingGroup>,
    /// When an operator wanted the message tried, if it has not been since.
    retried: Option<Timestamp>,
}

/// When the rest of a message can be tried.
#[derive(Debug, Default)]
pub(super) struct Postponement {
    /// Destinations are down, or suspended, until then.
    pub until: Option<Timestamp>,
    /// What suspends some of them, by its files.
    pub suspended: BTreeSet<String>,
    /// It waits for its turn.
    pub wait: Option<WaitReason>,
}

/// What a message waits for, in its destination's lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// For another message of this process.
    Turn(Destination),
    /// For a connection of another process.
    Full(Destination),
    /// For a place of this hop's transport, all of which are other processes'.
    TransportSlot(Destination),
}

impl Postponement {
    fn until(&mut self, time: Timestamp) {
        self.until = Some(self.until.map_or(time, |until| until.min(time)));
    }
}

impl Core {
    /// Plans an attempt for these recipients. Runs where it may block.
    ///
    /// # Errors
    /// If it cannot be known what is suspended: then nobody is tried.
    pub(super) fn plan(&self, entry: &Entry, due: &[usize]) -> disk::Result<AttemptPlan> {
        let suspended = self.spool.suspended()?;
        let mut plan = AttemptPlan {
            pending_groups: VecDeque::new(),
            known: Vec::new(),
            postponement: Postponement::default(),
            over: Vec::new(),
            retried: retried(entry),
        };
        let mut destinations: BTreeMap<Destination, Vec<Address>> = BTreeMap::new();
        for n in due {
            let recipient = &entry.state().recipients[*n].address;
            let name = self.transport_for(entry, recipient);
            let transport = name.and_then(|name| self.transports.get(name));
            let next_hop = transport.map(|transport| transport.next_hop(recipient));
            let way = (name, next_hop.as_deref());
            let now = self.now();
            if let Some(one) = self.spool.suspension(&suspended, way, recipient, now) {
                self.leave_out(&mut plan, entry, recipient, one, now);
                continue;
            }
            let Some(name) = name else {
                let outcome = Outcome::deferred(EnhancedCode::new(4, 4, 4), "no route");
                plan.known.push((recipient.clone(), outcome));
                continue;
            };
            let Some(next_hop) = next_hop else {
                let text = format!("the configuration has no transport {name:?}");
                let outcome = Outcome::deferred(EnhancedCode::new(4, 3, 5), text);
                plan.known.push((recipient.clone(), outcome));
                continue;
            };
            let destination = Destination {
                transport: name.to_owned(),
                next_hop,
            };
            destinations
                .entry(destination)
                .or_default()
                .push(recipient.clone());
        }
        for (destination, recipients) in destinations {
            if let Some(transport) = self.transports.get(&destination.transport) {
                let most = transport.max_recipients().max(1);
                let mut chunks = recipients.chunks(most).map(<[_]>::to_vec);
                let pending = |chunks| PendingGroup {
                    transport: Arc::clone(transport),
                    destination: destination.clone(),
                    chunks,
                    source: None,
                    round: Round::new(plan.retried),
                };
                match transport.connections() {
                    Some(_) => plan.pending_groups.push_back(pending(chunks.collect())),
                    // Nothing is saved by one after the other.
                    None => plan.pending_groups.extend(
                        chunks
                            .by_ref()
                            .map(|chunk| pending([chunk].into_iter().collect())),
                    ),
                }
            }
        }
        Ok(plan)
    }

    /// Leaves out a recipient whose mail is suspended.
    fn leave_out(
        &self,
        plan: &mut AttemptPlan,
        entry: &Entry,
        recipient: &Address,
        one: Standing,
        now: Timestamp,
    ) {
        let warn = self.warn_untried(entry, recipient, now);
        if warn.is_some_and(|warn| warn <= now) {
            plan.known.push((recipient.clone(), held()));
            return;
        }
        let again = self.look_again(&one, now);
        plan.postponement
            .until(warn.map_or(again, |warn| warn.min(again)));
        plan.postponement.suspended.insert(one.file);
    }

    /// Leaves out of a way those whose mail has been suspended since the attempt began; the way, if anybody
    /// is left on it. A recipient whom a host has put off was tried, and what it said is known.
    pub(super) fn still_free(
        &self,
        plan: &mut AttemptPlan,
        entry: &Entry,
        mut pending: PendingGroup,
        suspended: &Suspended,
    ) -> Option<PendingGroup> {
        if suspended.is_empty() {
            return Some(pending);
        }
        let now = self.now();
        let destination = pending.destination.clone();
        let on_way = (
            Some(destination.transport.as_str()),
            Some(destination.next_hop.as_str()),
        );
        let found = |address: &Address| self.spool.suspension(suspended, on_way, address, now);
        if pending.round.is_under_way() {
            let first = pending.chunks.take_first();
            let (put_off, left): (Vec<_>, Vec<_>) =
                first.into_iter().partition(|chunk| found(chunk).is_some());
            plan.known.extend(ended(put_off, &pending.round));
            if left.is_empty() {
                pending.round = pending.round.anew()
            } else {
                pending.chunks.put_first(left)
            }
        }
        pending.chunks.take_out(|chunk| match found(chunk) {
            Some(standing) => {
                self.leave_out(plan, entry, chunk, standing, now);
                true
            }
            None => false,
        });
        if pending.chunks.is_empty() {
            plan.over.push(pending);
            return None;
        }
        Some(pending)
    }

    /// When another look is taken at a message whose mail is suspended: at the end of that, and
    /// never further away than for one whose destination is down.
    fn look_again(&self, suspended: &Standing, now: Timestamp) -> Timestamp {
        let most = [Down::LONGEST, self.retry.longest_delay()];
        let most = most.into_iter().flat_map(|time| now.saturating_add(time));
        let until = most.chain(suspended.until()).min();
        until.unwrap_or(now)
    }

    /// The transport for a recipient, now: what the submitter named, else what the routes say.
    pub(super) fn transport_for<'a>(
        &'a self,
        entry: &'a Entry,
        recipient: &Address,
    ) -> Option<&'a str> {
        let wanted = entry.envelope().submission.transport.as_deref();
        wanted.or_else(|| {
            let sender = &entry.envelope().sender;
            self.routes.transport_for(sender, recipient)
        })
    }

    /// Takes what a way's next transaction needs. If it is not to be had, the plan says what that
    /// means for its recipients. Runs where it may block.
    pub(super) fn take_slots(
        &self,
        plan: &mut AttemptPlan,
        entry: &Entry,
        mut pending: PendingGroup,
    ) -> Option<(Option<transport_slots::TransportSlot>, Group)> {
        let transport_slot = match pending.transport.concurrency() {
            None => None,
            Some(most) => {
                match self.transport_slots.take(
                    &self.spool,
                    &self.connections,
                    &pending.destination,
                    most,
                ) {
                    SlotAnswer::Taken(transport_slot) => Some(transport_slot),
                    SlotAnswer::Wait => {
                        pending.give_up(plan);
                        plan.postponement.wait = Some(WaitReason::Turn(pending.destination));
                        return None;
                    }
                    SlotAnswer::Full => {
                        pending.give_up(plan);
                        plan.postponement
                            .wait
                            .get_or_insert(WaitReason::TransportSlot(pending.destination));
                        return None;
                    }
                }
            }
        };
        let PendingGroup {
            transport,
            destination,
            chunks,
            source,
            round,
        } = pending;
        let session = || self.sessions.take(&destination).map(SessionSource::Open);
        let source = match (source.or_else(session), transport.connections()) {
            (Some(source), _) => source,
            (None, None) => SessionSource::NoSlot,
            (None, Some(most)) => self.ask(plan, entry, &destination, most, &chunks)?,
        };
        let group = Group {
            transport,
            destination,
            chunks,
            source,
            round,
        };
        Some((transport_slot, group))
    }

    /// Asks for a connection for these recipients.
    fn ask(
        &self,
        plan: &mut AttemptPlan,
        entry: &Entry,
        destination: &Destination,
        most: usize,
        recipients: &Chunks,
    ) -> Option<SessionSource> {
        let now = self.now();
        let recipients = recipients.all();
        match self
            .connections
            .ask(&self.spool, destination, most, now, plan.retried)
        {
            Gate::Open(slot) => return Some(SessionSource::Slot(slot)),
            Gate::Down(down) => {
                let outcome = down_outcome(&down);
                for one in recipients {
                    match self.put_off(entry, one, destination, &outcome, down.probe, now) {
                        Some(until) => plan.postponement.until(until),
                        // Its time is up, and what happened last is why.
                        None => plan.known.push((one.clone(), outcome.clone())),
                    }
                }
            }
            Gate::Probed => {
                let later = now.saturating_add(PROBED_ELSEWHERE).unwrap_or(now);
                let outcome = Outcome::deferred(EnhancedCode::new(4, 4, 1), "being probed");
                for one in recipients {
                    let until = self.put_off(entry, one, destination, &outcome, later, now);
                    // At the end of its time it is not the probe's result that decides.
                    plan.postponement.until(until.unwrap_or(later));
                }
            }
            Gate::Wait => plan.postponement.wait = Some(WaitReason::Turn(destination.clone())),
            Gate::Full => {
                plan.postponement
                    .wait
                    .get_or_insert(WaitReason::Full(destination.clone()));
            }
        }
        None
    }

    /// Until when a recipient waits for a destination that is down until `probe`, for this reason:
    /// never beyond its own last attempt, and never where a run would take it for a clock's
    /// mistake. None if its time is up; or if its sender is to be told by now that it takes long, and
    /// nothing is recorded that he could be told.
    fn put_off(
        &self,
        entry: &Entry,
        recipient: &Address,
        destination: &Destination,
        why: &Outcome,
        probe: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let transport = Some(destination.transport.as_str());
        let failed = failed_attempt(entry.state(), recipient, transport, why, now);
        let last = self.retry.last_attempt(&failed);
        if last.is_some_and(|last| last <= now) || self.retry.next_attempt(&failed).is_none() {
            return None;
        }
        let warn = self.warn_untried(entry, recipient, now);
        if warn.is_some_and(|warn| warn <= now) {
            return None;
        }
        let longest = now.saturating_add(self.retry.longest_delay());
        let ends = [Some(probe), last, longest.ok(), warn];
        ends.into_iter().flatten().min()
    }

    /// When the sender is to be told that it takes long, if the recipient was never tried: then what
    /// keeps it from that is recorded as its outcome, for there is nothing else that he could be told.
    fn warn_untried(
        &self,
        entry: &Entry,
        recipient: &Address,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let untried = |recipient: &&RecipientState| recipient.attempts == 0;
        let one = entry.state().recipient(recipient).filter(untried)?;
        warn_time(entry.state(), one, &self.delays, now)
    }

    /// Until when a message rests that has only these recipients left who are due.
    pub(super) fn rest_until(&self, entry: &Entry, until: Timestamp) -> Timestamp {
        let now = self.now();
        let times = |recipient: &RecipientState| match recipient.fate {
            Fate::Pending { next } => [Some(next), recipient.warn],
            _ => [None, None],
        };
        let times = entry.state().recipients.iter().flat_map(times).flatten();
        let next = times.filter(|time| *time > now).min();
        next.map_or(until, |next| next.min(until))
    }
}

/// When an operator last wanted the message tried, if it has not been since.
fn retried(entry: &Entry) -> Option<Timestamp> {
    let last = entry.events().last()?;
    match &last.what {
        What::Action(Action::Retry(_)) => Some(last.at),
        _ => None,
    }
}

/// That mail is suspended, as the outcome for those who were not tried. Why is the operators' own.
fn held() -> Outcome {
    let text = "mail on this way is held for the time being";
    Outcome::deferred(EnhancedCode::new(4, 3, 2), text)
}

/// What happened last at a destination, as the outcome for those who were not tried.
fn down_outcome(down: &Down) -> Outcome {
    match EnhancedCode::at_start_of(&down.reply) {
        Some((code, text)) if code.class == 4 => Outcome::deferred(code, text),
        _ => Outcome::deferred(EnhancedCode::new(4, 4, 1), &down.reply),
    }
}
