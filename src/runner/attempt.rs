//! An attempt: recipients grouped by where they go, each group one transaction.
//!
//! As many transactions are in flight as the message has jobs: one, and those that no other
//! message wants. The message is marked as in use before the first begins, and the outcome of each is
//! written before anything else is done with the message. When the run is to end, or an operator wants the
//! message held, taken out or given up, no further one begins: a recipient that was not begun is due as
//! before. What has been suspended by then is left out of further ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::finisher::Finisher;
use super::jobs::{Job, Jobs};
use super::lanes::Candidate;
use super::plan::{
    AttemptPlan, Group, PendingGroup, Postponement, SessionSource, Transaction, WaitReason,
};
use super::scan::NOT_SERVED;
use super::sessions::retire;
use super::steps::{StepResult, log_results};
use super::threads::{Syncs, blocking};
use super::{Core, Error, MessageOutcome};
use crate::disk;
use crate::message::{Address, QueueId};
use crate::queue::step::overdue;
use crate::queue::{
    Action, By, Event, Hold, Outcome, QueueUntil, RecipientResult, RecipientState, Status, Step,
    Then, What, next_step, recipient_result,
};
use crate::spool::{Claim, Entry, Queue, Suspended, refusal};
use crate::transport::{DsnParams, Message, OnUnknown, Transport};

/// Why a message is frozen after an attempt.
const ANSWER_LOST: &str = "the answer to the message was lost; it may have been delivered";

/// What one message did to the run.
#[derive(Debug)]
pub(super) struct MessageReport {
    pub settled: MessageOutcome,
    pub results: Vec<Status>,
    pub notices: Vec<QueueId>,
    /// It waits for its turn with a destination, here.
    pub again: Option<(WaitReason, Candidate)>,
}

/// Ways that are looked at for one that a further job may go.
const MAX_LOOKS: usize = 32;

/// What a candidate leads to.
enum AttemptStart {
    Attempt(Box<Attempt>),
    /// With the job, if it still has it.
    Over(StepResult, Option<Job>),
}

/// An attempt that has begun.
struct Attempt {
    entry: Entry,
    plan: AttemptPlan,
    begun: Vec<Transaction>,
    /// The message's job, if no transaction has it.
    spare: Option<Job>,
    /// Notices that are new in the queue already.
    early: Vec<QueueId>,
}

/// A part of an attempt that has been done where it may block.
struct AttemptProgress {
    entry: Entry,
    plan: AttemptPlan,
    begun: Vec<Transaction>,
    spare: Option<Job>,
    /// Why no further transaction can begin.
    stuck: Option<String>,
    /// An operator wants something done to the message, and no further transaction.
    is_wanted: bool,
}

/// What became of a transaction.
pub(super) struct TransactionResult {
    pub transport: Arc<dyn Transport>,
    /// The transport's name.
    pub name: String,
    pub outcomes: Vec<(Address, Outcome)>,
    /// What is left to do for the same destination.
    pub rest: Option<Group>,
}

/// A transaction's outcomes, as they are recorded.
#[derive(Default)]
struct TransactionOutcomes {
    /// By nobody, if they were known without asking.
    transport: Option<String>,
    outcomes: Vec<(Address, Outcome)>,
    /// A person is to look at the message first.
    freeze: bool,
}

impl TransactionOutcomes {
    fn of(known: Vec<(Address, Outcome)>) -> TransactionOutcomes {
        TransactionOutcomes {
            outcomes: known,
            ..TransactionOutcomes::default()
        }
    }

    fn statuses(&self) -> impl Iterator<Item = Status> {
        self.outcomes.iter().map(|(_, outcome)| outcome.status)
    }
}

impl Core {
    /// Handles one candidate from beginning to end. What may block is done in two parts, one before and
    /// one after what goes over the network.
    pub(super) async fn handle(
        self: Arc<Self>,
        candidate: Candidate,
        finisher: Finisher,
        job: Job,
    ) -> MessageReport {
        let id = candidate.id;
        let mut results = Vec::new();
        let core = Arc::clone(&self);
        let jobs = Arc::clone(job.jobs());
        // The job is given back at the end: what this message leaves to be done comes before the next
        // message.
        let (next, _job) =
            match blocking(Syncs::Seldom, move || core.start_attempt(candidate, job)).await {
                AttemptStart::Attempt(attempt) => self.attempt(*attempt, jobs, &mut results).await,
                AttemptStart::Over(next, job) => (next, job),
            };
        let mut again = None;
        let (settled, notices) = match next {
            StepResult::Over(settled, notices) => (settled, notices),
            StepResult::Waits(queue, wait, notices) => {
                again = Some((wait, Candidate { id, queue }));
                (MessageOutcome::Left, notices)
            }
            StepResult::Finished(has_history, notices) => {
                // With none to take it the next run finishes `done/`.
                let _ = finisher.send((id, has_history));
                (MessageOutcome::Finished, notices)
            }
            // Never behind an attempt: see `after_attempt`.
            StepResult::Attempt(_, _, notices) => (MessageOutcome::Left, notices),
        };
        if again.is_some()
            || matches!(
                settled,
                MessageOutcome::Finished | MessageOutcome::Resting(_)
            )
        {
            self.troubles.succeeded(id);
        }
        MessageReport {
            settled,
            results,
            notices,
            again,
        }
    }

    /// A panic is a mistake of ours, and no message's fault: the message is where it was, and
    /// counts as interrupted.
    pub(super) fn panicked(&self, id: QueueId) -> MessageReport {
        MessageReport {
            settled: self.trouble(id, "the program panicked"),
            results: Vec::new(),
            notices: Vec::new(),
            again: None,
        }
    }

    /// Takes a candidate, and begins its attempt if one is due.
    fn start_attempt(&self, candidate: Candidate, job: Job) -> AttemptStart {
        let (next, job) = match self.take(candidate) {
            StepResult::Attempt(entry, due, notices) => {
                match self.begin(*entry, &due, notices, job) {
                    AttemptStart::Over(next, job) => (next, job),
                    attempt => return attempt,
                }
            }
            other => (other, Some(job)),
        };
        AttemptStart::Over(self.serve_late_request(candidate.id, next), job)
    }

    /// The lock is free now; an operator may have left a wish while it was not. Before the
    /// message is forgotten: what is forgotten has no request.
    fn serve_late_request(&self, id: QueueId, next: StepResult) -> StepResult {
        if let Err(error) = self.serve_request(id) {
            self.without(&error, NOT_SERVED);
        }
        next
    }

    async fn attempt(
        self: &Arc<Self>,
        attempt: Attempt,
        jobs: Arc<Jobs>,
        results: &mut Vec<Status>,
    ) -> (StepResult, Option<Job>) {
        let Attempt {
            mut entry,
            mut plan,
            begun,
            mut spare,
            early,
        } = attempt;
        let id = entry.id();
        let message = Arc::new(Message {
            id,
            sender: entry.envelope().sender.clone(),
            dsn: DsnParams::of(entry.state(), &entry.envelope().submission.dsn).map(Arc::new),
            body: entry.body(),
        });
        let transact = |begun: Transaction| {
            let (core, message) = (Arc::clone(self), Arc::clone(&message));
            async move {
                let Transaction {
                    transport_slot,
                    job,
                    group,
                } = begun;
                let ended = core.transact(&message, group).await;
                drop(transport_slot);
                (job, ended)
            }
        };
        let mut running: FuturesUnordered<_> = begun.into_iter().map(transact).collect();
        let mut ended = TransactionOutcomes::of(std::mem::take(&mut plan.known));
        let (mut stuck, mut is_wanted) = (None, false);
        loop {
            // Before anybody looks whether a job is free: one that is given back then is not missed.
            let freed = jobs.freed();
            if stuck.is_some() || is_wanted || self.begins_nothing(&jobs) {
                self.abandon(&mut plan).await;
                if ended.outcomes.is_empty() {
                    ended = TransactionOutcomes::of(std::mem::take(&mut plan.known));
                }
            }
            let more = !plan.pending_groups.is_empty();
            if running.is_empty() && !more && plan.known.is_empty() {
                break;
            }
            let may_begin = more && (spare.is_some() || jobs.has_further());
            if may_begin || !ended.outcomes.is_empty() {
                let result = std::mem::take(&mut ended);
                results.extend(result.statuses());
                let syncs = if result.statuses().any(|result| result != Status::Deferred) {
                    Syncs::Often
                } else {
                    Syncs::Seldom
                };
                let (core, jobs) = (Arc::clone(self), Arc::clone(&jobs));
                let others = !running.is_empty();
                let advance = move || core.advance(entry, result, plan, spare, others, &jobs);
                let progress = blocking(syncs, advance).await;
                (entry, plan, spare) = (progress.entry, progress.plan, progress.spare);
                stuck = stuck.or(progress.stuck);
                is_wanted |= progress.is_wanted;
                for mut pending in std::mem::take(&mut plan.over) {
                    self.release_session(&mut pending).await;
                }
                running.extend(progress.begun.into_iter().map(transact));
                ended = TransactionOutcomes::of(std::mem::take(&mut plan.known));
                if running.is_empty() || !ended.outcomes.is_empty() {
                    continue;
                }
            }
            tokio::select! {
                Some((job, one)) = running.next() => {
                    // One job is the message's own; another one it keeps for the rest if it may.
                    let keeps = running.is_empty() || one.rest.is_some() && !jobs.is_wanted();
                    spare = keeps.then_some(job);
                    if let Some(group) = one.rest {
                        let mut pending = rest(group);
                        if !keeps {
                            // Others may wait for the connection as well.
                            self.release_session(&mut pending).await;
                        }
                        plan.pending_groups.push_front(pending);
                    }
                    let unknown = |(_, outcome): &(_, Outcome)| outcome.status == Status::Unknown;
                    ended = TransactionOutcomes {
                        freeze: one.transport.on_unknown() == OnUnknown::Freeze
                            && one.outcomes.iter().any(unknown),
                        transport: Some(one.name),
                        outcomes: one.outcomes,
                    };
                }
                () = freed, if more => {}
            }
        }
        // With it the last other owner of the lock: that is to go when the entry does.
        drop(running);
        drop(message);
        results.extend(ended.statuses());
        let core = Arc::clone(self);
        let postponement = plan.postponement;
        let concluded = blocking(syncs_at_the_end(results), move || {
            let (mut entry, why) = if ended.outcomes.is_empty() {
                (entry, None)
            } else {
                core.conclude(entry, ended, true)
            };
            let next = match why.or(stuck) {
                Some(why) => {
                    core.end(&mut entry);
                    StepResult::Over(MessageOutcome::Trouble(why), Vec::new())
                }
                None => core.after_attempt(entry, postponement),
            };
            core.serve_late_request(id, next.with(early))
        });
        (concluded.await, spare)
    }

    /// Whether no further transaction of a message is to begin. A lost answer, for which the message is
    /// frozen, is the trouble of one destination: in this attempt the others still get theirs.
    fn begins_nothing(&self, jobs: &Jobs) -> bool {
        self.is_stopped() || jobs.is_over()
    }

    /// Gives up what has not begun: its recipients are due as before. Those that a host has put off
    /// were tried, and what it said is known.
    async fn abandon(&self, plan: &mut AttemptPlan) {
        if plan.pending_groups.is_empty() {
            return;
        }
        for mut pending in plan.pending_groups.drain(..) {
            plan.known.extend(pending.said());
            pending.round = pending.round.anew();
            self.release_session(&mut pending).await;
        }
        // It is due now, whatever the others wait for.
        plan.postponement = Postponement::default();
    }

    /// Leaves the session of a way to the message that needs it next.
    async fn release_session(&self, pending: &mut PendingGroup) {
        let closing = match pending.source.take() {
            Some(SessionSource::Open(open)) if open.is_second_best => Some(open),
            Some(SessionSource::Open(open)) => {
                self.sessions
                    .keep(pending.destination.clone(), open, self.most_jobs())
            }
            Some(SessionSource::Slot(slot)) if !pending.round.is_under_way() => {
                retire(slot).await;
                None
            }
            other => {
                pending.source = other;
                None
            }
        };
        if let Some(open) = closing {
            open.close().await;
        }
    }

    /// Records a transaction's outcome, and begins what the message has jobs for.
    fn advance(
        &self,
        entry: Entry,
        result: TransactionOutcomes,
        plan: AttemptPlan,
        spare: Option<Job>,
        others: bool,
        jobs: &Arc<Jobs>,
    ) -> AttemptProgress {
        let (mut entry, why) = if result.outcomes.is_empty() {
            (entry, None)
        } else {
            // Even if it could not be recorded: the other transactions are under way, and
            // what becomes of them is recorded, or told, as well.
            self.conclude(entry, result, false)
        };
        let (mut plan, mut spare, mut begun, mut stuck) = (plan, spare, Vec::new(), None);
        let is_wanted = is_wanted(&entry);
        if why.is_none() && !is_wanted && !self.begins_nothing(jobs) {
            match self.begin_some(&mut entry, &mut plan, &mut spare, jobs, Part::Further) {
                Ok(some) => begun = some,
                Err(error) => {
                    let why = error.to_string();
                    self.trouble(entry.id(), &why);
                    stuck = Some(why);
                }
            }
        }
        // A job that found nothing to do is for another message.
        if others || !begun.is_empty() {
            spare = None;
        }
        AttemptProgress {
            entry,
            plan,
            begun,
            spare,
            stuck,
            is_wanted,
        }
    }

    /// Plans the attempt; if any recipient can be tried, moves the message to `active/` and marks it as in
    /// use.
    fn begin(
        &self,
        mut entry: Entry,
        due: &[usize],
        early: Vec<QueueId>,
        job: Job,
    ) -> AttemptStart {
        let trouble = |error: disk::Error, id, early, job| {
            let settled = self.trouble(id, &error.to_string());
            AttemptStart::Over(StepResult::Over(settled, early), job)
        };
        let id = entry.id();
        let mut plan = match self.plan(&entry, due) {
            Ok(plan) => plan,
            Err(error) => return trouble(error, id, early, Some(job)),
        };
        // The destination for which the message was taken comes first.
        if let Some(at) = plan
            .pending_groups
            .iter()
            .position(|pending| pending.destination == *job.destination())
        {
            plan.pending_groups.swap(0, at);
        }
        let jobs = Arc::clone(job.jobs());
        let mut spare = Some(job);
        match self.begin_some(&mut entry, &mut plan, &mut spare, &jobs, Part::First) {
            Ok(begun) if begun.is_empty() && plan.known.is_empty() => {
                AttemptStart::Over(self.postpone(entry, plan.postponement).with(early), spare)
            }
            Ok(begun) => AttemptStart::Attempt(Box::new(Attempt {
                entry,
                plan,
                begun,
                spare,
                early,
            })),
            Err(error) => trouble(error, id, early, spare),
        }
    }

    /// Takes what the next transactions need, for as many as there are jobs for. At least one begins, or no
    /// recipient is left to be tried, if there is a spare job.
    /// What has been suspended since the first part is left out, as at the beginning: an attempt for thousands of
    /// destinations may take hours.
    fn begin_some(
        &self,
        entry: &mut Entry,
        plan: &mut AttemptPlan,
        spare: &mut Option<Job>,
        jobs: &Arc<Jobs>,
        part: Part,
    ) -> disk::Result<Vec<Transaction>> {
        let mut begun = Vec::new();
        let mut looks = 0;
        // The plan has just looked before the first part.
        let suspended = match part {
            Part::First => Suspended::default(),
            Part::Further => self.spool.suspended()?,
        };
        while looks < MAX_LOOKS {
            if spare.is_none() && !jobs.has_further() {
                break;
            }
            let Some(pending) = plan.pending_groups.pop_front() else {
                break;
            };
            let Some(pending) = self.still_free(plan, entry, pending, &suspended) else {
                continue;
            };
            let mut job = match spare.take() {
                Some(job) => job,
                None => match jobs.take_further(&pending.destination, |destination| {
                    self.is_strange(destination)
                }) {
                    Some(job) => job,
                    None => {
                        plan.pending_groups.push_back(pending);
                        looks += 1;
                        continue;
                    }
                },
            };
            job.turn_to(&pending.destination);
            match self.take_slots(plan, entry, pending) {
                Some((transport_slot, group)) => begun.push(Transaction {
                    transport_slot,
                    job,
                    group,
                }),
                None => *spare = Some(job),
            }
        }
        if !begun.is_empty() {
            entry.begin(self.now())?;
        }
        Ok(begun)
    }

    /// The attempt is over. A mark that stays is counted as one interruption.
    fn end(&self, entry: &mut Entry) {
        if let Err(error) = entry.end() {
            tracing::warn!(id = %entry.id(), %error, "it stays marked as in use");
        }
    }

    /// Follows a message on behind an attempt. Those who could not be tried are still due, and
    /// that is no reason to begin anew.
    fn after_attempt(&self, mut entry: Entry, postponement: Postponement) -> StepResult {
        let longest_delay = self.retry.longest_delay();
        // What is finished is in use until it is gone.
        if next_step(entry.state(), self.now(), longest_delay) != Step::Finish {
            self.end(&mut entry);
        }
        match self.follow(entry) {
            StepResult::Attempt(entry, _, notices) => {
                self.postpone(*entry, postponement).with(notices)
            }
            other => other,
        }
    }

    /// A message nobody of whom can be tried now waits here for its turn, or until then.
    /// One that stays until later may take so long that its sender is to be told.
    fn postpone(&self, mut entry: Entry, postponement: Postponement) -> StepResult {
        let Postponement {
            until,
            suspended,
            wait,
        } = postponement;
        if let Some(wait) = wait {
            return StepResult::Waits(entry.queue(), wait, Vec::new());
        }
        let Some(until) = until else {
            // Still more to attempt at the same moment: the next pass.
            return StepResult::Over(MessageOutcome::Left, Vec::new());
        };
        let mut notices = Vec::new();
        if let Some(occasion) = overdue(entry.state(), self.now()) {
            match self.notify_sender(&mut entry, &occasion) {
                Ok(notice) => notices.extend(notice),
                Err(settled) => return StepResult::Over(settled, notices),
            }
        }
        let (id, until) = (entry.id(), self.rest_until(&entry, until));
        let is_down = suspended.is_empty();
        let why = if is_down { "down" } else { "suspended" };
        tracing::debug!(%id, %until, "put off: its destination is {why}");
        let settled = match entry.postpone(until) {
            Ok(()) => MessageOutcome::Resting(QueueUntil::Deferred(until)),
            Err(error) => self.trouble(id, &error.to_string()),
        };
        let queue = entry.queue();
        // The lock goes first: who resumes passes over what is locked, and counts on our look.
        drop(entry);
        if !is_down && !self.are_in_force(&suspended) {
            self.reactivate(id, queue);
        }
        StepResult::Over(settled, notices)
    }

    /// Whether nobody has ended any of these suspensions. If that cannot be known, another look is
    /// taken soon enough.
    fn are_in_force(&self, suspended: &BTreeSet<String>) -> bool {
        let Ok(there) = self.spool.suspended() else {
            return true;
        };
        suspended.iter().all(|file| there.has(file))
    }

    /// Makes due again what was put off for a suspension that is gone. Who has it in hand now looks
    /// himself, and if it cannot be, another look is taken soon enough.
    fn reactivate(&self, id: QueueId, queue: Queue) {
        if let Ok(Claim::Locked(locked)) = self.spool.lock(queue, id)
            && let Ok(mut entry) = locked.read()
            && let Err(error) = entry.activate()
        {
            tracing::warn!(%id, %error, "not made due, although it is no longer suspended");
        }
    }

    /// Records the outcome of a transaction before anything else is done with the
    /// message. Only when no recipient is left there is nothing to record: the rename to `done/`
    /// says it all. Returns why there is something that could not be recorded, if there is.
    ///
    /// Where it is to freeze the message is held back, and that stands before the outcome: with the
    /// outcome alone a kill would leave what may have been delivered to be tried again.
    fn conclude(
        &self,
        mut entry: Entry,
        ending: TransactionOutcomes,
        last: bool,
    ) -> (Entry, Option<String>) {
        let now = self.now();
        let TransactionOutcomes {
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
                recipient_result(
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
        let delivered = results
            .iter()
            .all(|result| result.status == Status::Delivered);
        let what = What::Outcome {
            began: entry.began().unwrap_or(now),
            transport,
            results,
        };
        let event = Event { at: now, what };
        if last && delivered {
            let mut after = entry.state().clone();
            after.apply(&event);
            if after.recipients.iter().all(RecipientState::is_finished) {
                entry.apply_unrecorded(event);
                return (entry, None);
            }
        }
        let recorded = entry
            .record_outcome(event)
            // Held because of an outcome before this one, and that is recorded now as well.
            .and_then(|()| entry.activate());
        let why = recorded
            .err()
            .map(|error| self.not_recorded(&mut entry, &error));
        (entry, why)
    }

    /// A message that is done and could not be renamed to `done/`. That rename was to be the
    /// record of its last outcome; now its block must be. Where there was no room for the name, it is forgotten
    /// where it stands.
    pub(super) fn not_finished(&self, mut entry: Entry, error: &disk::Error) -> MessageOutcome {
        let id = entry.id();
        let said = entry.say_done();
        match &said {
            Ok(()) if !error.is_full() => return self.trouble(id, &error.to_string()),
            // A disk that has no room for that either may take an unlink.
            Err(failed) if !failed.is_full() => {
                return match entry.say_in_history() {
                    Ok(()) => self.trouble(id, &failed.to_string()),
                    Err(error) => self.not_ended(&mut entry, &error),
                };
            }
            _ => {}
        }
        match (entry.forget_here(), said) {
            (Ok(true), _) => MessageOutcome::Finished,
            (Ok(false) | Err(_), Err(full)) => self.not_ended(&mut entry, &full),
            (Ok(false), Ok(())) => self.trouble(id, &error.to_string()),
            (Err(error), Ok(())) => self.trouble(id, &error.to_string()),
        }
    }

    /// The end of a message that nothing could say. If nothing was delivered at the end, as where an operator
    /// discards it, the next run may come to the same end.
    fn not_ended(&self, entry: &mut Entry, error: &disk::Error) -> MessageOutcome {
        if entry.owes_something() {
            MessageOutcome::Trouble(self.not_recorded(entry, error))
        } else {
            self.trouble(entry.id(), &error.to_string())
        }
    }

    /// An outcome that cannot be recorded must not be followed by another attempt: the message
    /// is frozen, by its place alone, and the run stops, unless there was no room: that is no reason for
    /// others to fail. Where it cannot be frozen either it would be delivered again, and so would the others.
    fn not_recorded(&self, entry: &mut Entry, error: &disk::Error) -> String {
        let (id, why) = (entry.id(), error.to_string());
        let held = entry.hold_unrecorded();
        tracing::error!(%id, error = why, "the outcome could not be recorded; frozen");
        if let Err(error) = &held {
            tracing::error!(%id, %error, "nor could it be frozen");
        }
        // Without room other messages can be delivered and recorded.
        if !error.is_full() || held.is_err() {
            self.fail(Error::NotRecorded {
                id,
                why: why.clone(),
            });
        }
        why
    }
}

/// Which part of an attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    First,
    /// Others of the same message, whose turn has come.
    Further,
}

/// Whether an operator wants a message held, taken out or given up. What cannot be read is looked at after the
/// attempt.
fn is_wanted(entry: &Entry) -> bool {
    let action = entry.request().ok().and_then(|(_, action)| action);
    action.is_some_and(|action| {
        let holds = match action {
            Action::Freeze { .. } | Action::Discard { .. } | Action::Bounce(_) => true,
            Action::Retry(_) | Action::Thaw(_) => false,
        };
        holds && refusal(entry, &action).is_none()
    })
}

/// Whether the end of an attempt with these results is synced. The rename to `done/` says that all have it,
/// and deferrals may be lost; a partial outcome is synced, and so is what its sender is told of a failure.
fn syncs_at_the_end(results: &[Status]) -> Syncs {
    let all = |status| results.iter().all(|result| *result == status);
    if all(Status::Delivered) || all(Status::Deferred) {
        Syncs::Seldom
    } else {
        Syncs::Often
    }
}

/// What a transaction has left to do.
fn rest(group: Group) -> PendingGroup {
    PendingGroup {
        transport: group.transport,
        destination: group.destination,
        chunks: group.chunks,
        source: Some(group.source),
        round: group.round,
    }
}
