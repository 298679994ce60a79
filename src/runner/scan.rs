//! Finds work: requests, leftovers, and everything that is due.

use std::collections::HashSet;

use tokio::sync::mpsc::UnboundedSender;

use super::Core;
use super::lanes::Candidate;
use crate::message::{QueueId, ReversePath};
use crate::queue::Bucket;
use crate::spool::{BucketQueue, Destination, Queue, Swept};

/// Candidates with their lanes, in small batches.
pub(super) type Batch = Vec<(Destination, Candidate)>;

const BATCH: usize = 64;

/// The log text for expired suspensions that cannot be removed. They suspend nothing.
const ENDED: &str = "suspensions that have run out could not be removed";

/// The log text for a directory that cannot be listed.
const NOT_READ: &str = "passed over";

/// The log text for a request that could not be served. It waits, and its message is worked on meanwhile.
pub(super) const NOT_SERVED: &str = "a request could not be served";

/// The log text for a failure to keep the list of messages that wait for their release.
const NO_RELEASES: &str = "each message that waits for its release is looked at by each run";

impl Core {
    /// Does the work that needs no attempt, then sends every message that may be due. May block.
    ///
    /// New messages and those that have waited longest alternate, so that neither a flood of new
    /// mail nor a backlog of old mail can use up a runner's budget alone.
    pub(super) fn scan(&self, known: &HashSet<QueueId>, out: &UnboundedSender<Batch>) {
        let spool = &self.spool;
        match spool.fill_reserve() {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the disk is full: the reserve could not be filled"),
            Err(error) => self.without(&error, "nothing is kept in reserve for a full disk"),
        }
        for id in self.or_unread(spool.requests()) {
            if let Err(error) = self.serve_request(id) {
                self.unread(&error, NOT_SERVED);
            }
        }
        match spool.finish_done() {
            Ok(left) => {
                for error in left {
                    self.unread(&error, "left in done/");
                }
            }
            // They stay in `done/`, where they do no harm.
            Err(error) => self.unread(&error, "done/ could not be finished"),
        }
        self.end_suspensions();
        self.sweep();
        for error in spool.repair_views() {
            // No decision depends on the view.
            self.without(&error, "info/ does not show every message");
        }
        for error in spool.purge_keys(self.now()) {
            // Keys that are kept too long do no harm.
            self.unread(&error, "keys/ could not be tidied up");
        }
        let (mut due, drained) = self.due();
        let mut fresh = Vec::new();
        for queue in [Queue::Incoming, Queue::Active] {
            let ids = self.or_unread(spool.ids_in(queue));
            fresh.extend(ids.into_iter().map(|id| Candidate { id, queue }));
        }
        fresh.sort_by_key(|candidate| candidate.id);
        fresh.retain(|candidate| !known.contains(&candidate.id));
        due.retain(|candidate| !known.contains(&candidate.id));
        self.observe(super::Progress::Found((fresh.len() + due.len()) as u64));
        let (mut fresh, mut due) = (fresh.into_iter(), due.into_iter());
        let mut batch = Batch::new();
        loop {
            let pair = [fresh.next(), due.next()];
            let over = pair.iter().all(Option::is_none);
            for candidate in pair.into_iter().flatten() {
                batch.push((self.lane(candidate), candidate));
            }
            if over || batch.len() >= BATCH {
                // The receiver is closed: the run was stopped.
                if out.send(std::mem::take(&mut batch)).is_err() || over {
                    break;
                }
            }
        }
        // Buckets that were already empty, or that an earlier run emptied.
        for queue in drained {
            if let Err(error) = spool.remove_empty_buckets(&[queue]) {
                self.unread(&error, "an empty bucket could not be removed");
            }
        }
    }

    /// Returns what was read, or the default after a failure, which is reported. The scan goes on.
    fn or_unread<T: Default>(&self, read: crate::disk::Result<T>) -> T {
        read.unwrap_or_else(|error| {
            self.unread(&error, NOT_READ);
            T::default()
        })
    }

    /// Removes expired suspensions. Nothing depends on it: an expired suspension suspends nothing.
    fn end_suspensions(&self) {
        match self.spool.end_suspensions(self.now()) {
            Ok((ended, failed)) => {
                for error in failed {
                    self.unread(&error, ENDED);
                }
                for suspension in ended {
                    let (by, reason) = (&suspension.by.by, &suspension.by.reason);
                    tracing::info!(suspended = %suspension.target, by, reason, "suspension has run out");
                }
            }
            Err(error) => {
                self.unread(&error, ENDED);
            }
        }
    }

    /// Lists the messages in buckets that are due, earliest first, and those buckets.
    fn due(&self) -> (Vec<Candidate>, Vec<Queue>) {
        let (now, longest) = (self.now(), self.retry.longest_delay());
        let (mut due, mut queues) = (Vec::new(), Vec::new());
        let (mut releases, failed) = self.spool.releases();
        if let Some(error) = failed {
            self.without(&error, NO_RELEASES);
        }
        for kept in BucketQueue::ALL {
            for bucket in self.buckets(kept) {
                let open = match kept {
                    BucketQueue::Deferred => bucket.is_open(now, longest),
                    // Hold times have no upper limit: an operator chooses them.
                    BucketQueue::Frozen | BucketQueue::Discarded => {
                        bucket.due().is_some_and(|due| due <= now)
                    }
                };
                if !open {
                    continue;
                }
                let queue = kept.queue(bucket);
                let mut ids = match self.spool.ids_in(queue) {
                    Ok(ids) => ids,
                    Err(error) => {
                        self.unread(&error, NOT_READ);
                        continue;
                    }
                };
                if bucket.due().is_some_and(|due| due > now) {
                    // A time this far ahead is a clock error, or the message is to be released then.
                    releases.take_out(&self.spool, bucket, &mut ids);
                } else {
                    queues.push(queue);
                }
                due.extend(ids.into_iter().map(|id| Candidate { id, queue }));
            }
        }
        if let Err(error) = releases.keep(&self.spool) {
            self.without(&error, NO_RELEASES);
        }
        (due, queues)
    }

    /// The buckets that can be listed.
    fn buckets(&self, kept: BucketQueue) -> Vec<Bucket> {
        let mut unread = Vec::new();
        let buckets = self.spool.buckets_there(kept, &mut unread);
        for error in unread {
            self.unread(&error, NOT_READ);
        }
        buckets
    }

    /// Finishes `new/` and `staged/`. A file that cannot be classified now is left for the next run.
    fn sweep(&self) {
        for queue in [Queue::New, Queue::Staged] {
            let dir = queue.as_str();
            for id in self.or_unread(self.spool.ids_in(queue)) {
                let swept = match queue {
                    Queue::New => self.spool.sweep_new(id),
                    _ => self.spool.sweep_staged(id),
                };
                match swept {
                    Ok(Swept::Left) => {}
                    Ok(Swept::Moved) => tracing::info!(%id, "moved on from {dir}/"),
                    Ok(Swept::Removed) if queue == Queue::New => {
                        tracing::info!(%id, "removed from new/: never accepted");
                    }
                    Ok(Swept::Removed) => {
                        tracing::info!(%id, "removed from staged/: the delay is over");
                    }
                    Ok(Swept::Corrupt) => tracing::error!(%id, "corrupt"),
                    Err(error) => self.unread(&error, "left where it is"),
                }
            }
        }
    }

    /// The lane of a message: the destination of its first recipient. The others may have other
    /// destinations, but one job handles the message. A message that cannot be read is handled when it is
    /// taken.
    pub(super) fn lane(&self, candidate: Candidate) -> Destination {
        if let Some(destination) = self.only_destination() {
            return destination;
        }
        let block = self
            .spool
            .peek(candidate.id, candidate.queue)
            .ok()
            .flatten();
        let envelope = block.map(|block| block.envelope);
        let first = envelope
            .as_ref()
            .and_then(|envelope| envelope.recipients.first());
        let sender = envelope.as_ref().map(|recipient| &recipient.sender);
        let name = first.and_then(|first| {
            let sender = sender.unwrap_or(&ReversePath::Null);
            self.routes.transport_for(sender, first)
        });
        let transport = name.and_then(|name| self.transports.get(name));
        let next_hop = first.and_then(|first| Some(transport?.next_hop(first)));
        Destination {
            transport: name.unwrap_or_default().to_owned(),
            next_hop: next_hop.unwrap_or_default(),
        }
    }

    /// The destination of every message, if it does not depend on the message.
    fn only_destination(&self) -> Option<Destination> {
        let name = self.routes.only_transport()?;
        let next_hop = self.transports.get(name)?.only_next_hop()?;
        Some(Destination {
            transport: name.to_owned(),
            next_hop,
        })
    }

    /// Whether the queue has a message that this process has not seen. `new/` is not counted: the process
    /// that moves a message on from there ensures its attempt.
    pub(super) fn anything_besides(&self, seen: &HashSet<QueueId>) -> bool {
        let queues = [Queue::Incoming, Queue::Active];
        queues.into_iter().any(|queue| {
            let ids = self.or_unread(self.spool.ids_in(queue));
            ids.iter().any(|id| !seen.contains(id))
        })
    }

    /// When the next bucket is due.
    pub(super) fn next_due(&self) -> Option<jiff::Timestamp> {
        let firsts = BucketQueue::ALL.map(|kept| self.buckets(kept).iter().find_map(Bucket::due));
        firsts.into_iter().flatten().min()
    }
}
