//! How many messages stand where, and when something happens to them next.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::disk;
use crate::operator::{RowStatus, row};
use crate::spool::{Queue, Spool};

/// The messages of one queue with one status.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// The directory.
    pub queue: &'static str,
    /// What will happen to them.
    pub status: RowStatus,
    /// How many there are.
    pub messages: usize,
    /// When it happens to the first of them. None for those that the next run takes, that
    /// somebody works on, or that only a person can move.
    pub next: Option<Timestamp>,
}

/// The tallies of a queue, and what could not be counted.
#[derive(Debug)]
pub struct Tallied {
    /// In the order of a message's way.
    pub tallies: Vec<Tally>,
    /// What could not be looked at; how many messages are in it is not known.
    pub unread: Vec<disk::Error>,
}

/// Tallies the queue, as far as it can be looked at.
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
