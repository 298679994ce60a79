//! Makes messages due again after the reason for their deferral has ended.

use jiff::Timestamp;

use crate::disk;
use crate::message::{Address, Envelope, QueueId};
use crate::queue::state::Fate;
use crate::queue::{Hold, State};
use crate::spool::{BucketQueue, Claim, Listing, Queue, Spool, Unreadable};

/// Makes messages due that were deferred although they were due, if `is_meant` selects one of their waiting
/// recipients. This is not an event, and nothing is synced: after a kill or a power cut, the messages are
/// tried within an hour. A message held by another process is skipped; its holder moves it back.
///
/// # Errors
/// The first error of a message or a bucket; the others are made due regardless.
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
    // Check first without the lock, and without reading the whole message, because most messages are not
    // selected.
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
        // The next run handles a corrupt message.
        Ok(_) | Err(Unreadable::Corrupt(..)) => Ok(false),
        Err(Unreadable::Failed(error)) => Err(error),
    }
}
