//! Jobs: a transaction in flight is a job, whatever message it is for, and a run has so many.
//!
//! A message in hand has one job from beginning to end, and further ones, for other destinations
//! of its own, as long as no other message waits for a job. A job is never waited for by a message
//! that has one: it goes on with that, so two messages cannot wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::spool::Destination;
use crate::transport::descriptors_for_copies;

/// Descriptors that a job may need: message, history, slots, a connection or a command's pipes, and a
/// session that is kept after it.
const DESCRIPTORS_EACH: u64 = 10;

/// Descriptors for everything else: the spool, the runtime, logs, a barrier.
const DESCRIPTORS_BESIDES: u64 = 100;

/// The jobs of a run.
pub(super) struct Jobs {
    most: usize,
    /// Nothing begins after this.
    deadline: Option<Instant>,
    counts: Mutex<Counts>,
    freed: Notify,
    /// The same, for the one that hands out messages.
    freed_one: Notify,
}

#[derive(Default)]
struct Counts {
    by_destination: HashMap<Destination, usize>,
    all: usize,
    wanted: Wanted,
}

/// What messages wait for that have no job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    /// For nothing that a job would change.
    #[default]
    Nothing,
    /// For a job that strangers may have: those have theirs, and others are free.
    Strangers,
    /// For any job.
    Any,
}

/// One job, until it is dropped.
pub(super) struct Job {
    jobs: Arc<Jobs>,
    destination: Destination,
}

impl Jobs {
    /// So many at once, or as many as there are descriptors for.
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

    /// The most for one destination: one job in four is kept from any single one, so that one that
    /// hangs leaves room for the others.
    fn most_each(&self) -> usize {
        match self.most {
            ..4 => self.most.div_ceil(2),
            most => most - most / 4,
        }
    }

    /// Whether one of them is free.
    pub fn has_free(&self) -> bool {
        self.counts().all < self.most
    }

    /// How many are for a destination.
    pub fn count(&self, destination: &Destination) -> usize {
        self.counts().count(destination)
    }

    /// Whether one more may be for this destination. A stranger is one of which it is not known
    /// whether it answers: all of them together have half of the jobs, so that a hundred dead
    /// hosts leave room for the others.
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

    /// A job for a message that has none.
    pub fn take(self: &Arc<Jobs>, destination: Destination) -> Job {
        self.counts().add(&destination);
        let jobs = Arc::clone(self);
        Job { jobs, destination }
    }

    /// A further job for a message that has one; none while another message wants it.
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

    /// Whether a message may ask for a further one at all.
    pub fn has_further(&self) -> bool {
        let counts = self.counts();
        counts.all < self.most && counts.wanted != Wanted::Any
    }

    /// Messages wait for this.
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

    /// Whether the time of the run is over.
    pub fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// When that is.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns when one has been given back since this was asked last.
    pub async fn freed_one(&self) {
        self.freed_one.notified().await;
    }

    /// Returns when one has been given back since this future was made.
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
    /// The jobs it is one of.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// The destination it is for.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// It is for another destination from now on.
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

/// At most `most`, and not more than the limit of descriptors allows: a message that finds none left
/// would not be tried.
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
    fn a_message_has_all_that_nobody_else_wants() {
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
