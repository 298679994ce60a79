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
use super::places::{self, Seating};
use super::round::Round;
use super::sessions::Open;
use super::transact::ended;
use crate::disk;
use crate::message::{Address, EnhancedCode};
use crate::queue::state::Fate;
use crate::queue::step::{failed_attempt, warn_time};
use crate::queue::{Action, Outcome, RecipientState, What};
use crate::spool::{Destination, Down, Entry, Standing, Suspended};
use crate::transport::Transport;

/// So much later another look is taken at a destination that another process probes.
pub(super) const PROBED_ELSEWHERE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Recipients that share a way out, and whose turn has not come.
pub(super) struct Way {
    pub transport: Arc<dyn Transport>,
    pub destination: Destination,
    /// One transaction after the other.
    pub chunks: Chunks,
    /// What the transaction before left.
    pub seat: Option<Seat>,
    /// The hosts that the first of the transactions has come to.
    pub round: Round,
}

impl Way {
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
    fn let_go(&mut self, plan: &mut Plan) {
        plan.known.extend(self.said());
        if let Some(Seat::Permit(permit)) = self.seat.take() {
            permit.retire();
        }
    }
}

/// A transaction whose turn has come, and what it needs.
pub(super) struct Begun {
    /// Goes before the job does: the message that gets the job may want a place.
    pub place: Option<places::Place>,
    pub job: Job,
    pub group: Group,
}

/// Recipients that share a way out.
pub(super) struct Group {
    pub transport: Arc<dyn Transport>,
    pub destination: Destination,
    /// One transaction after the other.
    pub chunks: Chunks,
    pub seat: Seat,
    /// The hosts that the first of the transactions has come to.
    pub round: Round,
}

/// How a group gets to its session.
pub(super) enum Seat {
    /// By one that is open.
    Taken(Open),
    /// By opening one.
    Permit(super::connections::Permit),
    /// Its transport keeps no connection.
    Free,
}

/// What is tried of a message, and what is not.
pub(super) struct Plan {
    /// Whose turn is to come.
    pub ways: VecDeque<Way>,
    /// Whose outcome is known without asking anybody, and not recorded yet.
    pub known: Vec<(Address, Outcome)>,
    pub later: Later,
    /// On which nobody is left. Their sessions are for other messages.
    pub over: Vec<Way>,
    /// When an operator wanted the message tried, if it has not been since.
    retried: Option<Timestamp>,
}

/// When the rest of a message can be tried.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// Destinations are down, or suspended, until then.
    pub until: Option<Timestamp>,
    /// What suspends some of them, by its files.
    pub suspended: BTreeSet<String>,
    /// It waits for its turn.
    pub wait: Option<Wait>,
}

/// What a message waits for, in its destination's lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// For another message of this process.
    Turn(Destination),
    /// For a connection of another process.
    Full(Destination),
    /// For a place of this hop's transport, all of which are other processes'.
    Places(Destination),
}

impl Later {
    fn until(&mut self, time: Timestamp) {
        self.until = Some(self.until.map_or(time, |until| until.min(time)));
    }
}

impl Core {
    /// Plans an attempt for these recipients. Runs where it may block.
    ///
    /// # Errors
    /// If it cannot be known what is suspended: then nobody is tried.
    pub(super) fn plan(&self, entry: &Entry, who: &[usize]) -> disk::Result<Plan> {
        let suspended = self.spool.suspended()?;
        let mut plan = Plan {
            ways: VecDeque::new(),
            known: Vec::new(),
            later: Later::default(),
            over: Vec::new(),
            retried: retried(entry),
        };
        let mut destinations: BTreeMap<Destination, Vec<Address>> = BTreeMap::new();
        for n in who {
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
                let way = |chunks| Way {
                    transport: Arc::clone(transport),
                    destination: destination.clone(),
                    chunks,
                    seat: None,
                    round: Round::new(plan.retried),
                };
                match transport.connections() {
                    Some(_) => plan.ways.push_back(way(chunks.collect())),
                    // Nothing is saved by one after the other.
                    None => plan
                        .ways
                        .extend(chunks.by_ref().map(|one| way([one].into_iter().collect()))),
                }
            }
        }
        Ok(plan)
    }

    /// Leaves out a recipient whose mail is suspended.
    fn leave_out(
        &self,
        plan: &mut Plan,
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
        plan.later.until(warn.map_or(again, |warn| warn.min(again)));
        plan.later.suspended.insert(one.file);
    }

    /// Leaves out of a way those whose mail has been suspended since the attempt began; the way, if anybody
    /// is left on it. A recipient whom a host has put off was tried, and what it said is known.
    pub(super) fn still_free(
        &self,
        plan: &mut Plan,
        entry: &Entry,
        mut way: Way,
        suspended: &Suspended,
    ) -> Option<Way> {
        if suspended.is_empty() {
            return Some(way);
        }
        let now = self.now();
        let destination = way.destination.clone();
        let on_way = (
            Some(destination.transport.as_str()),
            Some(destination.next_hop.as_str()),
        );
        let found = |one: &Address| self.spool.suspension(suspended, on_way, one, now);
        if way.round.is_under_way() {
            let first = way.chunks.take_first();
            let (put_off, left): (Vec<_>, Vec<_>) =
                first.into_iter().partition(|one| found(one).is_some());
            plan.known.extend(ended(put_off, &way.round));
            if left.is_empty() {
                way.round = way.round.anew()
            } else {
                way.chunks.put_first(left)
            }
        }
        way.chunks.take_out(|one| match found(one) {
            Some(standing) => {
                self.leave_out(plan, entry, one, standing, now);
                true
            }
            None => false,
        });
        if way.chunks.is_empty() {
            plan.over.push(way);
            return None;
        }
        Some(way)
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
    pub(super) fn seat(
        &self,
        plan: &mut Plan,
        entry: &Entry,
        mut way: Way,
    ) -> Option<(Option<places::Place>, Group)> {
        let place = match way.transport.concurrency() {
            None => None,
            Some(most) => {
                match self
                    .places
                    .take(&self.spool, &self.connections, &way.destination, most)
                {
                    Seating::Taken(place) => Some(place),
                    Seating::Wait => {
                        way.let_go(plan);
                        plan.later.wait = Some(Wait::Turn(way.destination));
                        return None;
                    }
                    Seating::Full => {
                        way.let_go(plan);
                        plan.later.wait.get_or_insert(Wait::Places(way.destination));
                        return None;
                    }
                }
            }
        };
        let Way {
            transport,
            destination,
            chunks,
            seat,
            round,
        } = way;
        let session = || self.sessions.take(&destination).map(Seat::Taken);
        let seat = match (seat.or_else(session), transport.connections()) {
            (Some(seat), _) => seat,
            (None, None) => Seat::Free,
            (None, Some(most)) => self.ask(plan, entry, &destination, most, &chunks)?,
        };
        let group = Group {
            transport,
            destination,
            chunks,
            seat,
            round,
        };
        Some((place, group))
    }

    /// Asks for a connection for these recipients.
    fn ask(
        &self,
        plan: &mut Plan,
        entry: &Entry,
        destination: &Destination,
        most: usize,
        recipients: &Chunks,
    ) -> Option<Seat> {
        let now = self.now();
        let recipients = recipients.all();
        match self
            .connections
            .ask(&self.spool, destination, most, now, plan.retried)
        {
            Gate::Open(permit) => return Some(Seat::Permit(permit)),
            Gate::Down(down) => {
                let outcome = words(&down);
                for one in recipients {
                    match self.put_off(entry, one, destination, &outcome, down.probe, now) {
                        Some(until) => plan.later.until(until),
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
                    plan.later.until(until.unwrap_or(later));
                }
            }
            Gate::Wait => plan.later.wait = Some(Wait::Turn(destination.clone())),
            Gate::Full => {
                plan.later
                    .wait
                    .get_or_insert(Wait::Full(destination.clone()));
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
        let untried = |one: &&RecipientState| one.attempts == 0;
        let one = entry.state().recipient(recipient).filter(untried)?;
        warn_time(entry.state(), one, &self.delays, now)
    }

    /// Until when a message rests that has only these recipients left who are due.
    pub(super) fn rest_until(&self, entry: &Entry, until: Timestamp) -> Timestamp {
        let now = self.now();
        let times = |one: &RecipientState| match one.fate {
            Fate::Pending { next } => [Some(next), one.warn],
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
fn words(down: &Down) -> Outcome {
    match EnhancedCode::at_start_of(&down.reply) {
        Some((code, text)) if code.class == 4 => Outcome::deferred(code, text),
        _ => Outcome::deferred(EnhancedCode::new(4, 4, 1), &down.reply),
    }
}
