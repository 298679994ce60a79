//! Counts of messages per queue and status, and when the next event is due.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::disk;
use crate::operator::{RowStatus, row};
use crate::spool::{Queue, Spool};

/// The messages in a queue with the same status.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// The queue's name.
    pub queue: &'static str,
    /// What will happen to them.
    pub status: RowStatus,
    /// The number of messages.
    pub messages: usize,
    /// When it happens to the first of them. `None` if the next run takes them, if a process works on them,
    /// or if only an operator can move them.
    pub next: Option<Timestamp>,
}

/// The tallies, and what could not be counted.
#[derive(Debug)]
pub struct Tallied {
    /// In the order in which messages pass through the queues.
    pub tallies: Vec<Tally>,
    /// What could not be read; the number of messages in it is unknown.
    pub unread: Vec<disk::Error>,
}

/// Counts all messages that can be read.
pub fn tally(spool: &Spool, now: Timestamp) -> Tallied {
    let mut listing = spool.listing();
    let mut unread = std::mem::take(&mut listing.unread);
    let mut tallies: BTreeMap<(u8, u8), Tally> = BTreeMap::new();
    for (id, queue) in &listing.messages {
        let view = match spool.view(*id, *queue, &listing) {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            Err(error) => {
                unread.push(error);
                continue;
            }
        };
        let status = row(&view, now).status;
        let tally = tallies
            .entry((way(view.queue), status as u8))
            .or_insert(Tally {
                queue: view.queue.as_str(),
                status,
                messages: 0,
                next: None,
            });
        tally.messages += 1;
        tally.next = [tally.next, due(view.queue)].into_iter().flatten().min();
    }
    Tallied {
        tallies: tallies.into_values().collect(),
        unread,
    }
}

fn way(queue: Queue) -> u8 {
    match queue {
        Queue::New | Queue::Staged => 0,
        Queue::Incoming => 1,
        Queue::Active => 2,
        Queue::Deferred(_) => 3,
        Queue::Frozen(_) => 4,
        Queue::Discarded(_) => 5,
        Queue::Corrupt => 6,
        Queue::Done => 7,
    }
}

fn due(queue: Queue) -> Option<Timestamp> {
    match queue {
        Queue::Deferred(bucket) | Queue::Frozen(bucket) | Queue::Discarded(bucket) => bucket.due(),
        _ => None,
    }
}
