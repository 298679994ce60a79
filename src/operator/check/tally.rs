//! How many messages stand where, and when something happens to them next.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::disk;
use crate::operator::{RowStatus, row};
use crate::spool::{Place, Spool};

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
    for (id, place) in &listing.messages {
        let view = match spool.view(*id, *place, &listing) {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            Err(error) => {
                unread.push(error);
                continue;
            }
        };
        let status = row(&view, now).status;
        let tally = tallies
            .entry((way(view.place), status as u8))
            .or_insert(Tally {
                queue: view.place.as_str(),
                status,
                messages: 0,
                next: None,
            });
        tally.messages += 1;
        tally.next = [tally.next, due(view.place)].into_iter().flatten().min();
    }
    Tallied {
        tallies: tallies.into_values().collect(),
        unread,
    }
}

fn way(place: Place) -> u8 {
    match place {
        Place::New | Place::Staged => 0,
        Place::Incoming => 1,
        Place::Active => 2,
        Place::Deferred(_) => 3,
        Place::Frozen(_) => 4,
        Place::Discarded(_) => 5,
        Place::Corrupt => 6,
        Place::Done => 7,
    }
}

fn due(place: Place) -> Option<Timestamp> {
    match place {
        Place::Deferred(bucket) | Place::Frozen(bucket) | Place::Discarded(bucket) => bucket.due(),
        _ => None,
    }
}
