//! Makes due what was put off for a reason that is gone.

use jiff::Timestamp;

use crate::disk;
use crate::message::{Address, Envelope, QueueId};
use crate::queue::state::Fate;
use crate::queue::{Hold, State};
use crate::spool::{BucketQueue, Claim, Listing, Queue, Spool, Unreadable};

/// Makes due what was put off although it was due, and has a recipient left whose mail is meant.
/// No event, and nothing is synced: whoever is killed, and a power cut, leave it to be looked at
/// within an hour. What somebody has in hand is brought back by him.
///
/// # Errors
/// Of a message or a bucket that the system would not let us have; the others are made due all the
/// same.
pub fn wake(
    spool: &Spool,
    is_meant: &dyn Fn(&Envelope, &Address) -> bool,
    now: Timestamp,
) -> disk::Result<usize> {
    let (mut woken, mut unread) = (0, Vec::new());
    let listing = Listing::default();
    for bucket in spool.buckets_there(BucketQueue::Deferred, &mut unread) {
        let queue = Queue::Deferred(bucket);
        if bucket.due().is_none_or(|due| due <= now) {
            continue;
        }
        let ids = match spool.ids_in(queue) {
            Ok(ids) => ids,
            Err(error) => {
                unread.push(error);
                continue;
            }
        };
        for id in ids {
            match wake_one(spool, (id, queue), &listing, is_meant, now) {
                Ok(is_woken) => woken += usize::from(is_woken),
                Err(error) => unread.push(error),
            }
        }
        unread.extend(spool.remove_empty_buckets(&[queue]).err());
    }
    unread.into_iter().next().map_or(Ok(woken), Err)
}

fn wake_one(
    spool: &Spool,
    (id, queue): (QueueId, Queue),
    listing: &Listing,
    is_meant: &dyn Fn(&Envelope, &Address) -> bool,
    now: Timestamp,
) -> disk::Result<bool> {
    let waits = |envelope: &Envelope, state: &State| {
        let mut all = state.recipients.iter();
        state.hold == Hold::None
            && all.any(|recipient| {
                let is_due = matches!(recipient.fate, Fate::Pending { next } if next <= now);
                is_due && is_meant(envelope, &recipient.address)
            })
    };
    // Without its lock, and without reading all of it, as most are not meant.
    let view = spool.view(id, queue, listing)?;
    let content = view.and_then(|view| view.content.ok());
    if !content.is_some_and(|content| waits(&content.envelope, &content.state)) {
        return Ok(false);
    }
    let Claim::Locked(locked) = spool.lock(queue, id)? else {
        return Ok(false);
    };
    match locked.read() {
        Ok(mut entry) if waits(entry.envelope(), entry.state()) => entry.activate().map(|()| true),
        // What is corrupt is for the next run to find.
        Ok(_) | Err(Unreadable::Corrupt(..)) => Ok(false),
        Err(Unreadable::Failed(error)) => Err(error),
    }
}
