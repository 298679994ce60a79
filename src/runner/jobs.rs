//! Jobs: a job is the right to one transaction in flight, for any message. A run has a fixed number of
//! jobs.
//!
//! A message in progress has one job from beginning to end. It gets further jobs, for its other
//! destinations, as long as no other message waits for a job. A message that has a job never waits for
//! another: it continues with the one it has, so two messages cannot wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::spool::Destination;
use crate::transport::descriptors_for_copies;

/// Descriptors that a job may need: message, history, slots, a connection or a command's pipes, and a
/// session that is kept after the job.
const DESCRIPTORS_EACH: u64 = 10;

/// Descriptors for everything else: the spool, the runtime, logs, a barrier.
const DESCRIPTORS_BESIDES: u64 = 100;

/// The jobs of a run.
pub(super) struct Jobs {
    most: usize,
    /// No transaction begins after this instant.
    deadline: Option<Instant>,
    counts: Mutex<Counts>,
    freed: Notify,
    /// The same, for the loop that assigns messages to jobs.
    freed_one: Notify,
}

#[derive(Default)]
struct Counts {
    by_destination: HashMap<Destination, usize>,
    all: usize,
    wanted: Wanted,
}

/// What kind of job the waiting messages need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No message waits for a job.
    #[default]
    Nothing,
    /// A job for a destination not known to answer: those destinations have their share of jobs already,
    /// while other jobs are free.
    Strangers,
    /// Any job.
    Any,
}

/// One job, until it is dropped.
pub(super) struct Job {
    jobs: Arc<Jobs>,
    destination: Destination,
}

impl Jobs {
    /// Creates `most` jobs, or fewer if there are not enough descriptors.
    pub fn new(most: usize, deadline: Option<Instant>) -> Arc<Jobs> {
        Arc::new(Jobs {
            most: affordable(most),
            deadline,
            counts: Mutex::default(),
            freed: Notify::new(),
            freed_one: Notify::new(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most jobs for one destination. A quarter of the jobs is withheld from any single destination, so
    /// that one that hangs leaves room for the others.
    fn most_each(&self) -> usize {
        match self.most {
            ..4 => self.most.div_ceil(2),
            most => most - most / 4,
        }
    }

    /// Whether a job is free.
    pub fn has_free(&self) -> bool {
        self.counts().all < self.most
    }

    /// How many jobs are for a destination.
    pub fn count(&self, destination: &Destination) -> usize {
        self.counts().count(destination)
    }

    /// Whether one more job may be for this destination. A strange destination is one not known to answer.
    /// All strange destinations together get half of the jobs, so that a hundred dead hosts leave room for
    /// the others.
    pub fn may_have(
        &self,
        destination: &Destination,
        is_strange: impl Fn(&Destination) -> bool,
    ) -> bool {
        let counts = self.counts();
        self.leaves_room(&counts, destination, is_strange)
    }

    fn leaves_room(
        &self,
        counts: &Counts,
        destination: &Destination,
        is_strange: impl Fn(&Destination) -> bool,
    ) -> bool {
        let strangers = || {
            let strange = counts
                .by_destination
                .iter()
                .filter(|(destination, _)| is_strange(destination));
            strange.map(|(_, count)| count).sum::<usize>()
        };
        counts.count(destination) < self.most_each()
            && (!is_strange(destination) || strangers() < self.most.div_ceil(2))
    }

    /// Takes a job for a message that has none.
    pub fn take(self: &Arc<Jobs>, destination: Destination) -> Job {
        self.counts().add(&destination);
        let jobs = Arc::clone(self);
        Job { jobs, destination }
    }

    /// Takes a further job for a message that has one. Returns `None` while another message needs it.
    pub fn take_further(
        self: &Arc<Jobs>,
        destination: &Destination,
        is_strange: impl Fn(&Destination) -> bool,
    ) -> Option<Job> {
        let mut counts = self.counts();
        let free = match counts.wanted {
            Wanted::Nothing => true,
            Wanted::Strangers => !is_strange(destination),
            Wanted::Any => false,
        };
        if !free || counts.all >= self.most || !self.leaves_room(&counts, destination, is_strange) {
            return None;
        }
        counts.add(destination);
        let (jobs, destination) = (Arc::clone(self), destination.clone());
        Some(Job { jobs, destination })
    }

    /// Whether a message may ask for a further job at all.
    pub fn has_further(&self) -> bool {
        let counts = self.counts();
        counts.all < self.most && counts.wanted != Wanted::Any
    }

    /// Sets what kind of job messages wait for.
    pub fn set_wanted(&self, wanted: Wanted) {
        let before = std::mem::replace(&mut self.counts().wanted, wanted);
        if before != wanted {
            self.freed.notify_waiters();
        }
    }

    /// Whether a message waits for a job.
    pub fn is_wanted(&self) -> bool {
        self.counts().wanted == Wanted::Any
    }

    /// Whether the time limit of the run has passed.
    pub fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The end of the run's time limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns when a job has been released since the last call.
    pub async fn freed_one(&self) {
        self.freed_one.notified().await;
    }

    /// Returns when a job has been released since this future was created.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }
}

impl Counts {
    fn count(&self, destination: &Destination) -> usize {
        self.by_destination
            .get(destination)
            .copied()
            .unwrap_or_default()
    }

    fn add(&mut self, destination: &Destination) {
        self.all += 1;
        *self.by_destination.entry(destination.clone()).or_default() += 1;
    }

    fn remove(&mut self, destination: &Destination) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.by_destination.get_mut(destination) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_destination.remove(destination);
            }
        }
    }
}

impl Job {
    /// The set of jobs that this one belongs to.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// The destination that this job is for.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Assigns the job to another destination.
    pub fn turn_to(&mut self, destination: &Destination) {
        if self.destination != *destination {
            let mut counts = self.jobs.counts();
            counts.remove(&self.destination);
            counts.add(destination);
            self.destination = destination.clone();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.counts().remove(&self.destination);
        self.jobs.freed.notify_waiters();
        self.jobs.freed_one.notify_one();
    }
}

/// Returns `most`, or fewer if the descriptor limit allows only fewer: a message that finds no descriptor
/// left would not be tried.
pub(super) fn affordable(most: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let besides = DESCRIPTORS_BESIDES.saturating_add(descriptors_for_copies(limit));
    let jobs = limit.saturating_sub(besides) / DESCRIPTORS_EACH;
    let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
    if jobs < most {
        tracing::debug!(
            limit,
            most,
            jobs,
            "fewer jobs than wanted: too few descriptors"
        );
    }
    most.min(jobs).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(name: &str) -> Destination {
        Destination {
            transport: "out".into(),
            next_hop: name.into(),
        }
    }

    fn known(_: &Destination) -> bool {
        false
    }

    #[test]
    fn a_message_has_all_jobs_that_no_other_message_wants() {
        let jobs = Jobs::new(3, None);
        let first = jobs.take(destination("a"));
        let second = jobs.take_further(&destination("b"), known);
        let third = jobs.take_further(&destination("c"), known);
        assert!(second.is_some() && third.is_some() && !jobs.has_free());
        assert!(jobs.take_further(&destination("d"), known).is_none());
        drop(third);
        assert!(jobs.has_free() && jobs.has_further());
        jobs.set_wanted(Wanted::Any);
        assert!(jobs.take_further(&destination("d"), known).is_none());
        jobs.set_wanted(Wanted::Strangers);
        assert!(jobs.take_further(&destination("d"), |_| true).is_none());
        drop(jobs.take_further(&destination("d"), known).unwrap());
        jobs.set_wanted(Wanted::Nothing);
        assert!(jobs.take_further(&destination("d"), known).is_some());
        drop(first);
        assert_eq!(jobs.count(&destination("a")), 0);
    }

    #[test]
    fn no_destination_has_all_jobs_and_strangers_have_half() {
        let jobs = Jobs::new(8, None);
        let same: Vec<Job> = (0..8)
            .map_while(|_| jobs.take_further(&destination("a"), known))
            .collect();
        assert_eq!(same.len(), 6);
        drop(same);
        let others: Vec<Job> = (0..8)
            .map_while(|n| jobs.take_further(&destination(&n.to_string()), |_| true))
            .collect();
        assert_eq!(others.len(), 4);
        assert!(jobs.take_further(&destination("a"), known).is_some());
    }

    #[test]
    fn a_job_counts_for_the_destination_it_turned_to() {
        let jobs = Jobs::new(2, None);
        let mut job = jobs.take(destination("a"));
        job.turn_to(&destination("b"));
        assert_eq!(
            (jobs.count(&destination("a")), jobs.count(&destination("b"))),
            (0, 1)
        );
        assert!(jobs.has_free());
    }
}
