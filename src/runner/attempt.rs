//! An attempt: recipients grouped by where they go, each group one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::finisher::Finisher;
use super::lanes::Candidate;
use super::plan::{Group, Later, Plan, Wait};
use super::settle::{Next, log_results};
use super::{Core, Error, Settled};
use crate::disk;
use crate::message::{Address, QueueId, Reply};
use crate::queue::state::Fate;
use crate::queue::step::overdue;
use crate::queue::{
    Action, By, Event, Hold, Outcome, RecipientResult, Resting, Status, Then, What, settle,
};
use crate::spool::{Claim, Entry, Place};
use crate::transport::{Message, OnUnknown, Transport, Wishes};

/// Why a message is frozen after an attempt.
const ANSWER_LOST: &str = "the answer to the message was lost; it may have been delivered";

/// What one message did to the run.
#[derive(Debug)]
pub(super) struct Handled {
    pub settled: Settled,
    pub results: Vec<Status>,
    pub notices: Vec<QueueId>,
    /// It waits for its turn with a destination, here.
    pub again: Option<(Wait, Candidate)>,
}

/// What a candidate leads to.
enum Begun {
    /// An attempt, and the notices that are new in the queue already.
    Attempt(Box<Entry>, Plan, Vec<QueueId>),
    Over(Next),
}

/// What became of a transaction.
pub(super) struct Ended {
    pub transport: Arc<dyn Transport>,
    /// The transport's name.
    pub name: String,
    pub outcomes: Vec<(Address, Outcome)>,
    /// What is left to do for the same destination.
    pub rest: Option<Group>,
}

/// A transaction's outcomes, as they are recorded.
#[derive(Default)]
struct Ending {
    /// By nobody, if they were known without asking.
    transport: Option<String>,
    outcomes: Vec<(Address, Outcome)>,
    /// A person is to look at the message first.
    freeze: bool,
}

impl Ending {
    fn of(known: Vec<(Address, Outcome)>) -> Ending {
        Ending {
            outcomes: known,
            ..Ending::default()
        }
    }

    fn statuses(&self) -> impl Iterator<Item = Status> {
        self.outcomes.iter().map(|(_, outcome)| outcome.status)
    }
}

impl Core {
    /// Handles one candidate from beginning to end. What may block is done in two parts, one
    /// before and one behind what goes over the network: a hand-over to another thread costs as
    /// much as a good part of the work.
    pub(super) async fn handle(
        self: Arc<Self>,
        candidate: Candidate,
        finisher: Finisher,
    ) -> Handled {
        let id = candidate.id;
        let mut results = Vec::new();
        let core = Arc::clone(&self);
        let next = match blocking(move || core.set_out(candidate)).await {
            Some(Begun::Attempt(entry, plan, early)) => {
                self.attempt(*entry, plan, early, &mut results).await
            }
            Some(Begun::Over(next)) => Some(next),
            None => None,
        };
        let mut again = None;
        let (settled, notices) = match next {
            Some(Next::Settled(settled, notices)) => (settled, notices),
            Some(Next::Waits(place, wait, notices)) => {
                again = Some((wait, Candidate { id, place }));
                (Settled::Left, notices)
            }
            Some(Next::Finished(left, notices)) => {
                // Nobody to take it: then the next run finishes `done/`.
                let _ = finisher.send((id, left));
                (Settled::Finished, notices)
            }
            // Never behind an attempt: see `go_on`.
            Some(Next::Attempt(_, _, notices)) => (Settled::Left, notices),
            None => return self.panicked(id),
        };
        if again.is_some() || matches!(settled, Settled::Finished | Settled::Resting(_)) {
            self.troubles.succeeded(id);
        }
        Handled {
            settled,
            results,
            notices,
            again,
        }
    }

    /// A panic is a mistake of ours, and no message's fault: the message is where it was, and
    /// counts as interrupted.
    pub(super) fn panicked(&self, id: QueueId) -> Handled {
        Handled {
            settled: self.trouble(id, "the program panicked"),
            results: Vec::new(),
            notices: Vec::new(),
            again: None,
        }
    }

    /// Takes a candidate, and begins its attempt if one is due.
    fn set_out(&self, candidate: Candidate) -> Begun {
        let next = match self.take(candidate) {
            Next::Attempt(entry, who, notices) => match self.begin(*entry, &who, notices) {
                Begun::Over(next) => next,
                attempt => return attempt,
            },
            other => other,
        };
        Begun::Over(self.let_go(candidate.id, next))
    }

    /// The lock is free now; an operator may have left a wish while it was not. Before the
    /// message is forgotten: what is forgotten has no request.
    fn let_go(&self, id: QueueId, next: Next) -> Next {
        if let Err(error) = self.serve_request(id) {
            self.not_served(id, &error);
        }
        next
    }

    async fn attempt(
        self: &Arc<Self>,
        mut entry: Entry,
        plan: Plan,
        early: Vec<QueueId>,
        results: &mut Vec<Status>,
    ) -> Option<Next> {
        let id = entry.id();
        let Plan {
            groups,
            known,
            later,
        } = plan;
        let message = Arc::new(Message {
            id,
            sender: entry.envelope().sender.clone(),
            dsn: Wishes::of(entry.state(), &entry.envelope().submission.dsn).map(Arc::new),
            body: entry.body(),
        });
        let transact = |group: Group| {
            let (core, message) = (Arc::clone(self), Arc::clone(&message));
            async move { core.transact(&message, group).await }
        };
        let mut running: FuturesUnordered<_> = groups.into_iter().map(transact).collect();
        let mut ended = Ending::of(known);
        while !running.is_empty() {
            let result = std::mem::take(&mut ended);
            if !result.outcomes.is_empty() {
                results.extend(result.statuses());
                let core = Arc::clone(self);
                // Even if it could not be recorded: the other transactions are under way, and
                // what becomes of them is recorded, or told, as well.
                let recorded = blocking(move || core.conclude(entry, result, false));
                (entry, _) = recorded.await?;
            }
            if let Some(one) = running.next().await {
                running.extend(one.rest.map(transact));
                let unknown = |(_, outcome): &(_, Outcome)| outcome.status == Status::Unknown;
                ended = Ending {
                    freeze: one.transport.on_unknown() == OnUnknown::Freeze
                        && one.outcomes.iter().any(unknown),
                    transport: Some(one.name),
                    outcomes: one.outcomes,
                };
            }
        }
        // With it the last other owner of the lock: that is to go when the entry does.
        drop(running);
        drop(message);
        results.extend(ended.statuses());
        let core = Arc::clone(self);
        blocking(move || {
            let next = match core.conclude(entry, ended, true) {
                (_, Some(why)) => Next::Settled(Settled::Trouble(why), Vec::new()),
                (entry, None) => core.go_on(entry, later),
            };
            core.let_go(id, next.with(early))
        })
        .await
    }

    /// Plans the attempt; if anybody can be tried, moves the message to `active/` and writes
    /// down that it begins. *No record, no attempt*: there is room for the outcome before
    /// anybody is spoken to.
    fn begin(&self, mut entry: Entry, who: &[usize], early: Vec<QueueId>) -> Begun {
        let plan = match self.plan(&entry, who) {
            Ok(plan) => plan,
            Err(error) => {
                let settled = self.trouble(entry.id(), &error.to_string());
                return Begun::Over(Next::Settled(settled, early));
            }
        };
        let tried = plan.tried();
        if tried.is_empty() {
            return Begun::Over(self.put_back(entry, plan.later).with(early));
        }
        match self.record_start(&mut entry, tried) {
            Ok(()) => Begun::Attempt(Box::new(entry), plan, early),
            Err(error) => {
                let settled = self.trouble(entry.id(), &error.to_string());
                Begun::Over(Next::Settled(settled, early))
            }
        }
    }

    fn record_start(&self, entry: &mut Entry, tried: Vec<Address>) -> disk::Result<()> {
        // An outcome that a killed holder wrote down and did not sync: whoever is left is tried
        // only once it is durable.
        entry.sync()?;
        entry.activate()?;
        let room = |one: &Address| (one.as_str().len() + Reply::MAX_TEXT + 700) as u64;
        entry.open_journal(4096 + tried.iter().map(room).sum::<u64>())?;
        let left = entry
            .state()
            .recipients
            .iter()
            .filter(|one| one.is_left())
            .count();
        let started = What::Started {
            host: self.hostname.clone(),
            pid: std::process::id(),
            recipients: (left > tried.len()).then_some(tried),
        };
        entry.record(self.now(), started)
    }

    /// Follows a message on behind an attempt. Those who could not be tried are still due, and
    /// that is no reason to begin anew.
    fn go_on(&self, entry: Entry, later: Later) -> Next {
        match self.follow(entry) {
            Next::Attempt(entry, _, notices) => self.put_back(*entry, later).with(notices),
            other => other,
        }
    }

    /// A message nobody of whom can be tried now waits here for its turn, or until then.
    /// One that stays until later may take so long that its sender is to be told.
    fn put_back(&self, mut entry: Entry, later: Later) -> Next {
        let Later {
            until,
            suspended,
            wait,
        } = later;
        if let Some(wait) = wait {
            return Next::Waits(entry.place(), wait, Vec::new());
        }
        let Some(until) = until else {
            // Still more to attempt at the same moment: the next pass.
            return Next::Settled(Settled::Left, Vec::new());
        };
        let mut notices = Vec::new();
        if let Some(occasion) = overdue(entry.state(), self.now()) {
            match self.tell(&mut entry, &occasion) {
                Ok(notice) => notices.extend(notice),
                Err(settled) => return Next::Settled(settled, notices),
            }
        }
        let (id, until) = (entry.id(), self.rest_until(&entry, until));
        let is_down = suspended.is_empty();
        let why = if is_down { "down" } else { "suspended" };
        tracing::debug!(%id, %until, "put off: its destination is {why}");
        let settled = match entry.postpone(until) {
            Ok(()) => Settled::Resting(Resting::Deferred(until)),
            Err(error) => self.trouble(id, &error.to_string()),
        };
        let place = entry.place();
        // The lock goes first: who resumes passes over what is locked, and counts on our look.
        drop(entry);
        if !is_down && !self.stand(&suspended) {
            self.bring_back(id, place);
        }
        Next::Settled(settled, notices)
    }

    /// Whether nobody has ended any of these suspensions. If that cannot be known, another look is
    /// taken soon enough.
    fn stand(&self, suspended: &BTreeSet<String>) -> bool {
        let Ok(there) = self.spool.suspended() else {
            return true;
        };
        suspended.iter().all(|file| there.has(file))
    }

    /// Makes due again what was put off for a suspension that is gone. Who has it in hand now looks
    /// himself, and if it cannot be, another look is taken soon enough.
    fn bring_back(&self, id: QueueId, place: Place) {
        if let Ok(Claim::Locked(locked)) = self.spool.lock(place, id)
            && let Ok(mut entry) = locked.read()
            && let Err(error) = entry.activate()
        {
            tracing::warn!(%id, %error, "not made due, although it is no longer suspended");
        }
    }

    /// Records the outcome of a transaction, durably, before anything else is done with the
    /// message. Only when nobody is left there is nothing to record: the rename to `done/`
    /// says it all. Returns why there is something that could not be recorded, if there is.
    ///
    /// Where it is to freeze the message is held back, and that stands before the outcome: with the
    /// outcome alone a kill would leave what may have been delivered to be tried again.
    fn conclude(&self, mut entry: Entry, ending: Ending, last: bool) -> (Entry, Option<String>) {
        let now = self.now();
        let Ending {
            transport,
            outcomes,
            freeze,
        } = ending;
        let results: Vec<RecipientResult> = outcomes
            .into_iter()
            .map(|(recipient, outcome)| {
                // Who was not tried by any has the schedule of the one he would go by.
                let by = transport.as_deref();
                let by = by.or_else(|| self.transport_for(&entry, &recipient));
                settle(
                    entry.state(),
                    &recipient,
                    by,
                    outcome,
                    &*self.retry,
                    &self.delays,
                    now,
                )
            })
            .collect();
        let freezes = freeze && entry.state().hold == Hold::None;
        if freezes {
            let by = By::rule(ANSWER_LOST);
            let (until, then) = (None, Then::Thaw);
            entry.note(now, What::Action(Action::Freeze { by, until, then }));
        }
        let (name, told) = (transport.clone(), results.clone());
        let (entry, why) = self.record_results(entry, now, transport, results, last);
        // Not before it is recorded, for a log may be slow. What could not be recorded has happened
        // all the same.
        log_results(&entry, name.as_deref(), &told, now);
        if freezes {
            tracing::warn!(id = %entry.id(), reason = ANSWER_LOST, "frozen");
        }
        (entry, why)
    }

    fn record_results(
        &self,
        mut entry: Entry,
        now: jiff::Timestamp,
        transport: Option<String>,
        results: Vec<RecipientResult>,
        last: bool,
    ) -> (Entry, Option<String>) {
        let delivered = results.iter().all(|one| one.status == Status::Delivered);
        let what = What::Outcome { transport, results };
        if last && delivered {
            let mut after = entry.state().clone();
            let event = Event { at: now, what };
            after.apply(&event);
            let done = |fate: &Fate| {
                matches!(
                    fate,
                    Fate::Delivered { notified: true, .. } | Fate::Failed { notified: true, .. }
                )
            };
            if after.recipients.iter().all(|one| done(&one.fate)) {
                entry.imagine(event);
                return (entry, None);
            }
            return self.recorded(entry, event);
        }
        self.recorded(entry, Event { at: now, what })
    }

    fn recorded(&self, mut entry: Entry, event: Event) -> (Entry, Option<String>) {
        let recorded = entry
            .record_durably(event.at, event.what)
            // Held because of an outcome before this one, and that is recorded now as well.
            .and_then(|()| entry.activate());
        let why = recorded
            .err()
            .map(|error| self.not_recorded(&mut entry, &error));
        (entry, why)
    }

    /// A message that is done and could not be renamed to `done/`. That rename was to be the
    /// record of its last outcome; now the history must be.
    pub(super) fn not_finished(&self, mut entry: Entry, error: &disk::Error) -> Settled {
        match entry.record_imagined() {
            Ok(()) => self.trouble(entry.id(), &error.to_string()),
            Err(error) => Settled::Trouble(self.not_recorded(&mut entry, &error)),
        }
    }

    /// An outcome that cannot be recorded must not be followed by another attempt: the message
    /// is frozen, by its place alone, and the run stops.
    fn not_recorded(&self, entry: &mut Entry, error: &disk::Error) -> String {
        let (id, why) = (entry.id(), error.to_string());
        let held = entry.hold_unrecorded();
        tracing::error!(%id, error = why, "the outcome could not be recorded; frozen");
        if let Err(error) = held {
            tracing::error!(%id, %error, "nor could it be frozen");
        }
        self.fail(Error::NotRecorded {
            id,
            why: why.clone(),
        });
        why
    }
}

/// Runs what may block on a thread where it may; none if it panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
