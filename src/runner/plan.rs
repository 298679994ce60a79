//! What can be tried of a message now: which recipients go to which destination, which have no route, which
//! destinations take nothing at the moment, and which mail is suspended.
//!
//! A plan needs nothing but memory. What a transaction needs (a transport slot, a connection) is taken when
//! its turn comes, so a message to thousands of destinations holds only as many of each as it has jobs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::Core;
use super::chunks::Chunks;
use super::connections::{Gate, PROBED_ELSEWHERE};
use super::group::{Group, PendingGroup, SessionSource};
use super::lanes::WaitReason;
use super::postpone::Postponement;
use super::round::Round;
use super::transport_slots::{SlotAnswer, TransportSlot};
use crate::disk;
use crate::message::{Address, EnhancedCode};
use crate::queue::result::{failed_attempt, warn_time};
use crate::queue::{Action, Outcome, RecipientState, What};
use crate::spool::{Destination, Down, Entry, Standing, Suspended};

/// Which recipients of a message are tried, and which are not.
pub(super) struct AttemptPlan {
    /// Groups that wait for their turn.
    pub pending_groups: VecDeque<PendingGroup>,
    /// Outcomes known without a transaction and not recorded yet.
    pub known: Vec<(Address, Outcome)>,
    pub postponement: Postponement,
    /// Groups without a recipient left. Their sessions are for other messages.
    pub over: Vec<PendingGroup>,
    /// When an operator last retried the message, if it has not been tried since.
    retried: Option<Timestamp>,
}

impl Core {
    /// Plans an attempt for these recipients. May block.
    ///
    /// # Errors
    /// If it cannot be determined what is suspended; then no recipient is tried.
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
            if let Some(suspension) = self.spool.suspension(&suspended, way, recipient, now) {
                self.leave_out(&mut plan, entry, recipient, suspension, now);
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
                    // Successive transactions would share nothing.
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

    /// Leaves out a recipient of suspended mail.
    fn leave_out(
        &self,
        plan: &mut AttemptPlan,
        entry: &Entry,
        recipient: &Address,
        suspension: Standing,
        now: Timestamp,
    ) {
        let warn = self.warn_untried(entry, recipient, now);
        if warn.is_some_and(|warn| warn <= now) {
            plan.known.push((recipient.clone(), held()));
            return;
        }
        let again = self.look_again(&suspension, now);
        plan.postponement
            .until(warn.map_or(again, |warn| warn.min(again)));
        plan.postponement.suspended.insert(suspension.file);
    }

    /// Removes recipients that were suspended after the attempt began. Returns the group if any recipient
    /// is left. A recipient that a host has put off was tried, and what the host said is its outcome.
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
        let found = |recipient: &Address| self.spool.suspension(suspended, on_way, recipient, now);
        if pending.round.is_under_way() {
            let first = pending.chunks.take_first();
            let (put_off, left): (Vec<_>, Vec<_>) = first
                .into_iter()
                .partition(|recipient| found(recipient).is_some());
            plan.known.extend(pending.round.outcomes(put_off));
            if left.is_empty() {
                pending.round = pending.round.anew()
            } else {
                pending.chunks.put_first(left)
            }
        }
        pending.chunks.take_out(|recipient| match found(recipient) {
            Some(suspension) => {
                self.leave_out(plan, entry, recipient, suspension, now);
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

    /// When a message with suspended mail is looked at again: at the end of the suspension, but no later
    /// than it would be if its destination were down.
    fn look_again(&self, suspended: &Standing, now: Timestamp) -> Timestamp {
        let most = [Down::LONGEST, self.retry.longest_delay()];
        let most = most.into_iter().flat_map(|time| now.saturating_add(time));
        let until = most.chain(suspended.until()).min();
        until.unwrap_or(now)
    }

    /// The transport for a recipient at present: the one that the submitter named, otherwise the one that
    /// the routes select.
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

    /// Takes what the next transaction of a group needs. If it is not available, the plan is updated to say
    /// what that means for the recipients. May block.
    pub(super) fn take_slots(
        &self,
        plan: &mut AttemptPlan,
        entry: &Entry,
        mut pending: PendingGroup,
    ) -> Option<(Option<TransportSlot>, Group)> {
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
                        plan.known.extend(pending.give_up());
                        plan.postponement.wait = Some(WaitReason::Turn(pending.destination));
                        return None;
                    }
                    SlotAnswer::Full => {
                        plan.known.extend(pending.give_up());
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
                for recipient in recipients {
                    match self.put_off(entry, recipient, destination, &outcome, down.probe, now) {
                        Some(until) => plan.postponement.until(until),
                        // The recipient's lifetime is over; the destination's last failure is the reason.
                        None => plan.known.push((recipient.clone(), outcome.clone())),
                    }
                }
            }
            Gate::Probed => {
                let later = now.saturating_add(PROBED_ELSEWHERE).unwrap_or(now);
                let outcome = Outcome::deferred(EnhancedCode::new(4, 4, 1), "being probed");
                for recipient in recipients {
                    let until = self.put_off(entry, recipient, destination, &outcome, later, now);
                    // A recipient at the end of its lifetime waits too: "being probed" must not be the outcome
                    // that fails it.
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

    /// Until when a recipient waits for a destination that is down until `probe`. The time is not after the
    /// recipient's own last attempt, nor so far ahead that a run would take it for a clock error. `None` if
    /// the recipient's lifetime is over, or if a delay notice is due and no outcome is recorded that the
    /// notice could report.
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

    /// When a delay notice is due for a recipient that was never tried. Whatever prevents the attempt is
    /// then recorded as its outcome, because the notice has nothing else to report.
    fn warn_untried(
        &self,
        entry: &Entry,
        recipient: &Address,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let is_untried = |recipient: &&RecipientState| recipient.attempts == 0;
        let untried = entry.state().recipient(recipient).filter(is_untried)?;
        warn_time(entry.state(), untried, &self.delays, now)
    }
}

/// When an operator last retried the message, if it has not been tried since.
fn retried(entry: &Entry) -> Option<Timestamp> {
    let last = entry.events().last()?;
    match &last.what {
        What::Action(Action::Retry(_)) => Some(last.at),
        _ => None,
    }
}

/// The outcome for recipients that are not tried because of a suspension. The operator's reason is not
/// disclosed.
fn held() -> Outcome {
    let text = "mail for this destination is held at present";
    Outcome::deferred(EnhancedCode::new(4, 3, 2), text)
}

/// The outcome for recipients that are not tried because their destination is down: its last failure.
fn down_outcome(down: &Down) -> Outcome {
    match EnhancedCode::at_start_of(&down.reply) {
        Some((code, text)) if code.class == 4 => Outcome::deferred(code, text),
        _ => Outcome::deferred(EnhancedCode::new(4, 4, 1), &down.reply),
    }
}
