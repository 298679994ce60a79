//! What can be tried of a message now: who goes where, for whom nobody is found, whose destination
//! takes nothing at the moment, and whose mail is suspended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::Core;
use super::hops::Gate;
use super::round::Round;
use super::sessions::Open;
use crate::disk;
use crate::message::{Address, EnhancedCode};
use crate::queue::state::Fate;
use crate::queue::step::{failed_attempt, warn_time};
use crate::queue::{Action, Outcome, RecipientState, What};
use crate::spool::{Down, Entry, Hop, Standing};
use crate::transport::Transport;

/// So much later another look is taken at a destination that another process probes.
pub(super) const PROBED_ELSEWHERE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Recipients that share a way out.
pub(super) struct Group {
    pub transport: Arc<dyn Transport>,
    pub hop: Hop,
    /// One transaction after the other.
    pub chunks: VecDeque<Vec<Address>>,
    pub seat: Seat,
    /// The hosts that the first of the transactions has come to.
    pub round: Round,
}

/// How a group gets to its session.
pub(super) enum Seat {
    /// By one that is open.
    Taken(Open),
    /// By opening one.
    Permit(super::hops::Permit),
    /// Its transport keeps no connection.
    Free,
}

/// What is tried of a message, and what is not.
pub(super) struct Plan {
    pub groups: Vec<Group>,
    /// Whose outcome is known without asking anybody.
    pub known: Vec<(Address, Outcome)>,
    pub later: Later,
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
    Turn(Hop),
    /// For a connection of another process.
    Full(Hop),
}

impl Later {
    fn until(&mut self, time: Timestamp) {
        self.until = Some(self.until.map_or(time, |until| until.min(time)));
    }
}

impl Plan {
    /// Who is tried, or has an outcome without that.
    pub fn tried(&self) -> Vec<Address> {
        let groups = self.groups.iter().flat_map(|group| &group.chunks).flatten();
        let known = self.known.iter().map(|(address, _)| address);
        groups.chain(known).cloned().collect()
    }
}

impl Core {
    /// Plans an attempt for these recipients, and takes the places it needs. Runs where it may
    /// block.
    ///
    /// # Errors
    /// If it cannot be known what is suspended: then nobody is tried.
    pub(super) fn plan(&self, entry: &Entry, who: &[usize]) -> disk::Result<Plan> {
        let suspended = self.spool.suspended()?;
        let mut plan = Plan {
            groups: Vec::new(),
            known: Vec::new(),
            later: Later::default(),
        };
        let mut hops: BTreeMap<Hop, Vec<Address>> = BTreeMap::new();
        for n in who {
            let recipient = &entry.state().recipients[*n].address;
            let name = self.transport_for(entry, recipient);
            let transport = name.and_then(|name| self.transports.get(name));
            let destination = transport.map(|transport| transport.destination(recipient));
            let way = (name, destination.as_deref());
            let now = self.now();
            if let Some(one) = self.spool.suspension(&suspended, way, recipient, now) {
                let warn = self.warn_untried(entry, recipient, now);
                if warn.is_some_and(|warn| warn <= now) {
                    plan.known.push((recipient.clone(), held()));
                    continue;
                }
                let again = self.look_again(&one, now);
                plan.later.until(warn.map_or(again, |warn| warn.min(again)));
                plan.later.suspended.insert(one.file);
                continue;
            }
            let Some(name) = name else {
                let outcome = Outcome::deferred(EnhancedCode::new(4, 4, 4), "no route");
                plan.known.push((recipient.clone(), outcome));
                continue;
            };
            let Some(destination) = destination else {
                let text = format!("the configuration has no transport {name:?}");
                let outcome = Outcome::deferred(EnhancedCode::new(4, 3, 5), text);
                plan.known.push((recipient.clone(), outcome));
                continue;
            };
            let hop = Hop {
                transport: name.to_owned(),
                destination,
            };
            hops.entry(hop).or_default().push(recipient.clone());
        }
        for (hop, recipients) in hops {
            if let Some(transport) = self.transports.get(&hop.transport) {
                self.plan_hop(&mut plan, entry, Arc::clone(transport), hop, recipients);
            }
        }
        Ok(plan)
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

    fn plan_hop(
        &self,
        plan: &mut Plan,
        entry: &Entry,
        transport: Arc<dyn Transport>,
        hop: Hop,
        recipients: Vec<Address>,
    ) {
        let most = transport.max_recipients().max(1);
        let chunks: Vec<Vec<Address>> = recipients.chunks(most).map(<[_]>::to_vec).collect();
        let Some(connections) = transport.connections() else {
            // Nothing is saved by one after the other.
            plan.groups.extend(chunks.into_iter().map(|chunk| Group {
                transport: Arc::clone(&transport),
                hop: hop.clone(),
                chunks: [chunk].into(),
                seat: self.sessions.take(&hop).map_or(Seat::Free, Seat::Taken),
                round: Round::new(None),
            }));
            return;
        };
        let seat = match self.sessions.take(&hop) {
            Some(open) => Seat::Taken(open),
            None => {
                let (now, retried) = (self.now(), retried(entry));
                let gate = self.hops.ask(&self.spool, &hop, connections, now, retried);
                match gate {
                    Gate::Open(permit) => Seat::Permit(permit),
                    Gate::Down(down) => {
                        let outcome = words(&down);
                        for one in recipients {
                            match self.put_off(entry, &one, &hop, &outcome, down.probe, now) {
                                Some(until) => plan.later.until(until),
                                // Its time is up, and what happened last is why.
                                None => plan.known.push((one, outcome.clone())),
                            }
                        }
                        return;
                    }
                    Gate::Probed => {
                        let later = now.saturating_add(PROBED_ELSEWHERE).unwrap_or(now);
                        let outcome = Outcome::deferred(EnhancedCode::new(4, 4, 1), "being probed");
                        for one in recipients {
                            let until = self.put_off(entry, &one, &hop, &outcome, later, now);
                            // At the end of its time it is not the probe's result that decides.
                            plan.later.until(until.unwrap_or(later));
                        }
                        return;
                    }
                    Gate::Wait => {
                        plan.later.wait = Some(Wait::Turn(hop));
                        return;
                    }
                    Gate::Full => {
                        plan.later.wait.get_or_insert(Wait::Full(hop));
                        return;
                    }
                }
            }
        };
        plan.groups.push(Group {
            transport,
            hop,
            chunks: chunks.into(),
            seat,
            round: Round::new(retried(entry)),
        });
    }

    /// Until when a recipient waits for a destination that is down until `probe`, for this reason:
    /// never beyond its own last attempt, and never where a run would take it for a clock's
    /// mistake. None if its time is up; or if its sender is to be told by now that it takes long, and
    /// nothing is recorded that he could be told.
    fn put_off(
        &self,
        entry: &Entry,
        recipient: &Address,
        hop: &Hop,
        why: &Outcome,
        probe: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let transport = Some(hop.transport.as_str());
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
