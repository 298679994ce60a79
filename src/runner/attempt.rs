//! An attempt: the due recipients, grouped by destination. Each group is delivered in transactions.
//!
//! As many transactions are in flight as the message has jobs: its own job, and further jobs that no other
//! message needs. The message is marked as in use before the first transaction begins, and each outcome is
//! written before anything else is done with the message. When the run is to end, or an operator wants the
//! message frozen, discarded or bounced, no further transaction begins: a recipient without a transaction
//! stays due. Recipients suspended in the meantime are left out of further transactions.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::finisher::Finisher;
use super::group::Transaction;
use super::jobs::{Job, Jobs};
use super::lanes::{Candidate, WaitReason};
use super::plan::AttemptPlan;
use super::postpone::Postponement;
use super::record::TransactionOutcomes;
use super::scan::NOT_SERVED;
use super::steps::StepResult;
use super::threads::{Syncs, blocking};
use super::{Core, MessageOutcome};
use crate::disk;
use crate::message::QueueId;
use crate::queue::{Action, Outcome, Status, Step, next_step};
use crate::spool::{Entry, Suspended, refusal};
use crate::transport::{DsnParams, Message, OnUnknown};

/// What handling one message led to.
#[derive(Debug)]
pub(super) struct MessageReport {
    pub settled: MessageOutcome,
    pub results: Vec<Status>,
    pub notices: Vec<QueueId>,
    /// Set if the message waits in this process for its turn with a destination.
    pub again: Option<(WaitReason, Candidate)>,
}

/// How many pending groups are examined to find one that a further job may take.
const MAX_LOOKS: usize = 32;

/// What a candidate leads to.
enum AttemptStart {
    Attempt(Box<Attempt>),
    /// No attempt. Includes the job, if the message still has it.
    Over(StepResult, Option<Job>),
}

/// An attempt that has begun.
struct Attempt {
    entry: Entry,
    plan: AttemptPlan,
    begun: Vec<Transaction>,
    /// The message's own job, if no transaction uses it.
    spare: Option<Job>,
    /// Notices that were queued before the attempt.
    early: Vec<QueueId>,
}

/// The state of an attempt after a blocking part of it.
struct AttemptProgress {
    entry: Entry,
    plan: AttemptPlan,
    begun: Vec<Transaction>,
    spare: Option<Job>,
    /// Why no further transaction can begin.
    stuck: Option<String>,
    /// An operator's request for the message allows no further transaction.
    is_wanted: bool,
}

impl Core {
    /// Handles one candidate from beginning to end. Blocking work is done in two parts: one before and one
    /// after the network transactions.
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
        // The job is released at the end, so that what this message leaves to do comes before the next
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
                // If the finisher is gone, the next run finishes `done/`.
                let _ = finisher.send((id, has_history));
                (MessageOutcome::Finished, notices)
            }
            // Never happens after an attempt: see `after_attempt`.
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

    /// Reports a panic. A panic is a bug of this program, not a fault of the message: the message is where
    /// it was, and counts as interrupted.
    pub(super) fn panicked(&self, id: QueueId) -> MessageReport {
        MessageReport {
            settled: self.trouble(id, "the program panicked"),
            results: Vec::new(),
            notices: Vec::new(),
            again: None,
        }
    }

    /// Locks a candidate, and begins its attempt if one is due.
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

    /// Serves a request that an operator left while the message was locked. Must run before the message is
    /// forgotten: a forgotten message has no request.
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
            // Create this future before checking for a free job, so that a job released in between is not
            // missed.
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
                Some((job, result)) = running.next() => {
                    // One job is the message's own. Another job is kept for the rest of the group if no
                    // message waits for it.
                    let keeps = running.is_empty() || result.rest.is_some() && !jobs.is_wanted();
                    spare = keeps.then_some(job);
                    if let Some(group) = result.rest {
                        let mut pending = group.pending();
                        if !keeps {
                            // Other messages may wait for the connection too.
                            self.release_session(&mut pending).await;
                        }
                        plan.pending_groups.push_front(pending);
                    }
                    let unknown = |(_, outcome): &(_, Outcome)| outcome.status == Status::Unknown;
                    ended = TransactionOutcomes {
                        freeze: result.transport.on_unknown() == OnUnknown::Freeze
                            && result.outcomes.iter().any(unknown),
                        transport: Some(result.name),
                        outcomes: result.outcomes,
                    };
                }
                () = freed, if more => {}
            }
        }
        // The message holds the last other reference to the lock. The lock must be released together with
        // the entry.
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

    /// Whether no further transaction of a message is to begin. An outcome left unknown by a lost answer,
    /// which freezes the message, does not count: it concerns one destination, and in this attempt the
    /// others still get theirs.
    fn begins_nothing(&self, jobs: &Jobs) -> bool {
        self.is_stopped() || jobs.is_over()
    }

    /// Gives up the groups that still wait for their turn: their recipients stay due. Recipients that a
    /// host has put off were tried, and what the host said is their outcome.
    async fn abandon(&self, plan: &mut AttemptPlan) {
        if plan.pending_groups.is_empty() {
            return;
        }
        for mut pending in plan.pending_groups.drain(..) {
            plan.known.extend(pending.said());
            pending.round = pending.round.anew();
            self.release_session(&mut pending).await;
        }
        // The message is due now, whatever the other recipients wait for.
        plan.postponement = Postponement::default();
    }

    /// Records a transaction's outcomes, and begins as many further transactions as the message has jobs
    /// for.
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
            // Also after a failure to record: the other transactions are under way, and their outcomes are
            // recorded, or reported, as well.
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
        // A job without a transaction is for another message.
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

    /// Plans the attempt. If any recipient can be tried, moves the message to `active/` and marks it as in
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
        // Start with the destination for which the message was taken.
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

    /// Takes the slots and sessions for the next transactions, for as many as there are jobs. If there is a
    /// spare job, at least one transaction begins, unless no recipient is left to be tried.
    ///
    /// Recipients suspended since the first part are left out here as in the plan, because an attempt for
    /// thousands of destinations may take hours.
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
        // The plan has just checked the suspensions.
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

    /// Removes the mark of an attempt that is over. A mark that stays is counted as an interruption.
    fn end(&self, entry: &mut Entry) {
        if let Err(error) = entry.end() {
            tracing::warn!(id = %entry.id(), %error, "it stays marked as in use");
        }
    }

    /// Follows a message's steps after an attempt. Recipients that could not be tried are still due, but
    /// that must not begin another attempt.
    fn after_attempt(&self, mut entry: Entry, postponement: Postponement) -> StepResult {
        let longest_delay = self.retry.longest_delay();
        // A finished message keeps its mark until it is gone.
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
}

/// The part of an attempt that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    First,
    /// Later groups of the same message.
    Further,
}

/// Whether an operator's request wants a message frozen, discarded or bounced. A request that cannot be
/// read is handled after the attempt.
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

/// Whether the end of an attempt with these results is synced. It is not if all recipients were delivered,
/// because the rename to `done/` records that, nor if all were deferred, because deferrals may be lost. A
/// partial outcome is synced, and so is a failure, because its sender is notified.
fn syncs_at_the_end(results: &[Status]) -> Syncs {
    let all = |status| results.iter().all(|result| *result == status);
    if all(Status::Delivered) || all(Status::Deferred) {
        Syncs::Seldom
    } else {
        Syncs::Often
    }
}
