//! The operator's side: see what is in the queue and why, and act on it.
//!
//! Looking takes no lock. Acting is durable before it reports success; on a message that
//! somebody has in hand it becomes a request that is served as soon as the hand is empty.

mod check;
mod find;
mod row;
mod wake;

use jiff::Timestamp;

use crate::disk;
use crate::message::QueueId;
use crate::queue::Action;
use crate::queue::step::awaits_release;
use crate::spool::{
    BucketQueue, Claim, Doubt, Entry, Located, Posted, Queue, Served, Spool, Unreadable, apply,
    refusal,
};

#[cfg(feature = "testing")]
pub use check::Repair;
pub use check::{Finding, Level, Tallied, Tally, check, tally};
pub use find::{Found, find};
pub use row::{HoldRow, RecipientRow, Row, RowStatus, row};
pub use wake::wake;

/// What became of an action on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Acted {
    /// It is done, durably.
    Done,
    /// Somebody has the message in hand; it will be done when the hand is empty.
    Requested,
    /// Somebody has the message in hand, and another request waits already.
    OtherWaits,
    /// There is no such message (any more).
    Absent,
    /// It makes no sense for this message, for this reason.
    Refused(String),
    /// The system would not let us, for this reason. It is where it was; a request may wait.
    Failed(String),
}

/// Messages that are acted on behind one pair of barriers.
const BATCH: usize = 256;

/// Acts on messages, in batches.
pub fn act(
    spool: &Spool,
    ids: &[QueueId],
    action: &Action,
    now: Timestamp,
) -> disk::Result<Vec<(QueueId, Acted)>> {
    let mut all = Vec::with_capacity(ids.len());
    for some in ids.chunks(BATCH) {
        let mut entries = Vec::new();
        for id in some {
            // One that cannot be had is nothing to the others.
            match take(spool, *id) {
                Ok(Taken::Entry(entry)) if is_for_good(action, now) => {
                    all.push((*id, discard_for_good(spool, *entry, action, now)));
                }
                Ok(Taken::Entry(mut entry)) => match refusal(&entry, action) {
                    None => match entry.make_ready(now) {
                        Ok(()) => entries.push(*entry),
                        Err(error) => all.push((*id, failed(error))),
                    },
                    Some(why) => {
                        drop(entry);
                        let_go(spool, *id, now);
                        all.push((*id, Acted::Refused(why.to_owned())));
                    }
                },
                Ok(Taken::Busy) => {
                    let requested = request(spool, *id, action, now);
                    all.push((*id, requested.unwrap_or_else(failed)));
                }
                Ok(Taken::Not(acted)) => all.push((*id, acted)),
                Err(error) => all.push((*id, failed(error))),
            }
        }
        apply_and_let_go(spool, &mut entries, action, now, |id| {
            let by = action.by();
            tracing::info!(%id, action = action.as_str(), by = by.by, reason = by.reason, "action");
            all.push((id, Acted::Done));
        })?;
    }
    Ok(all)
}

/// Whether a message is not to be kept at all.
fn is_for_good(action: &Action, now: Timestamp) -> bool {
    matches!(action, Action::Discard { until, .. } if *until <= now)
}

/// Forgets a message at once. That is written in its block, which needs no room; so it can be done on a full
/// disk.
fn discard_for_good(spool: &Spool, mut entry: Entry, action: &Action, now: Timestamp) -> Acted {
    let id = entry.id();
    let forgotten = entry.say_done().and_then(|()| match entry.finish() {
        Ok(has_history) => {
            drop(entry);
            let left = spool.forget(&[(id, has_history)])?;
            left.into_iter().next().map_or(Ok(()), Err)
        }
        Err(full) if full.is_full() => entry.forget_here().map(drop),
        Err(error) => Err(error),
    });
    let_go(spool, id, now);
    match forgotten {
        Ok(()) => {
            let by = action.by();
            tracing::info!(%id, by = by.by, reason = by.reason, "discarded for good");
            Acted::Done
        }
        Err(error) => failed(error),
    }
}

fn failed(error: disk::Error) -> Acted {
    Acted::Failed(error.to_string())
}

/// Carries an action out on messages in hand, tells of each, and lets go of them.
fn apply_and_let_go(
    spool: &Spool,
    entries: &mut Vec<Entry>,
    action: &Action,
    now: Timestamp,
    done: impl FnMut(QueueId),
) -> disk::Result<()> {
    let applied = apply(entries, now, action);
    let ids: Vec<QueueId> = entries.drain(..).map(|entry| entry.id()).collect();
    ids.iter().for_each(|id| let_go(spool, *id, now));
    applied?;
    ids.into_iter().for_each(done);
    Ok(())
}

/// Looks for a request after a message was let go of, as every holder does: somebody may have
/// left it because we had the message in hand. A failure is not one of what we did, and the next
/// run looks again.
fn let_go(spool: &Spool, id: QueueId, now: Timestamp) {
    match spool.serve_request(id, now) {
        Ok(Served::Nothing | Served::Unreadable) => {}
        Ok(Served::Refused(action, why)) => {
            let (by, action) = (&action.by().by, action.as_str());
            tracing::warn!(%id, action, by, why, "request not served");
        }
        Ok(Served::Done(action)) => {
            let by = action.by();
            let action = action.as_str();
            tracing::info!(%id, action, by = by.by, reason = by.reason, "request served");
        }
        Err(error) => tracing::warn!(%id, %error, "a request could not be served"),
    }
}

/// Makes everything in `deferred/` due that is there because of trouble. What waits for its release
/// is left alone, what somebody has in hand is being tried already, and what is corrupt is for the
/// next run to find.
///
/// # Errors
/// Of a message or a bucket that the system would not let us have; the others are made due all the
/// same.
pub fn flush(spool: &Spool, action: &Action, now: Timestamp) -> disk::Result<usize> {
    let (mut flushed, mut unread) = (0, Vec::new());
    for bucket in spool.buckets_there(BucketQueue::Deferred, &mut unread) {
        let queue = Queue::Deferred(bucket);
        let ids = match spool.ids_in(queue) {
            Ok(ids) => ids,
            Err(error) => {
                unread.push(error);
                continue;
            }
        };
        for some in ids.chunks(BATCH) {
            let mut entries = Vec::new();
            for id in some {
                match flushable(spool, queue, *id, now) {
                    Ok(entry) => entries.extend(entry),
                    Err(error) => unread.push(error),
                }
            }
            apply_and_let_go(spool, &mut entries, action, now, |_| flushed += 1)?;
        }
        unread.extend(spool.remove_empty_buckets(&[queue]).err());
    }
    let by = action.by();
    tracing::info!(flushed, by = by.by, reason = by.reason, "flush");
    unread.into_iter().next().map_or(Ok(flushed), Err)
}

/// A message that a flush makes due, if no process has it in hand.
fn flushable(
    spool: &Spool,
    queue: Queue,
    id: QueueId,
    now: Timestamp,
) -> disk::Result<Option<Entry>> {
    let Claim::Locked(locked) = spool.lock(queue, id)? else {
        return Ok(None);
    };
    match locked.read() {
        Ok(entry) if awaits_release(entry.state(), now) => Ok(None),
        Ok(mut entry) => entry.make_ready(now).map(|()| Some(entry)),
        Err(Unreadable::Corrupt(..)) => Ok(None),
        Err(Unreadable::Failed(error)) => Err(error),
    }
}

enum Taken {
    Entry(Box<Entry>),
    Busy,
    Not(Acted),
}

fn take(spool: &Spool, id: QueueId) -> disk::Result<Taken> {
    /// A message may move between our look and our lock.
    const MAX_MOVES: usize = 5;
    for _ in 0..MAX_MOVES {
        let queue = match spool.locate(id)? {
            Located::At(queue) => queue,
            Located::Absent => return Ok(Taken::Not(Acted::Absent)),
            Located::Uncertain(Doubt::Moving) => continue,
            Located::Uncertain(Doubt::Unread(error)) => return Err(error),
        };
        // Not yet, or no longer, in the queue; locking it would only disturb who is at it.
        if let Queue::New | Queue::Staged | Queue::Done = queue {
            return Ok(Taken::Not(Acted::Absent));
        }
        let locked = match spool.lock(queue, id)? {
            Claim::Absent => continue,
            Claim::NotAFile => return Ok(Taken::Not(Acted::Absent)),
            Claim::Busy => return Ok(Taken::Busy),
            Claim::Locked(locked) => locked,
        };
        return Ok(match locked.read() {
            Ok(entry) => Taken::Entry(Box::new(entry)),
            Err(Unreadable::Corrupt(_, reason)) => {
                Taken::Not(Acted::Refused(format!("it is corrupt: {reason}")))
            }
            Err(Unreadable::Failed(error)) => return Err(error),
        });
    }
    Ok(Taken::Busy)
}

/// Leaves a request, then tries the lock once more: if the holder let go between our first try
/// and the request, he did not see it, and nobody else would until the next run.
fn request(spool: &Spool, id: QueueId, action: &Action, now: Timestamp) -> disk::Result<Acted> {
    if spool.post_request(id, action)? == Posted::Taken {
        return Ok(Acted::OtherWaits);
    }
    let acted = match take(spool, id)? {
        Taken::Busy => return Ok(Acted::Requested),
        Taken::Not(acted) => {
            spool.drop_request(id)?;
            return Ok(acted);
        }
        Taken::Entry(entry) => serve_own(entry, action, now)?,
    };
    let_go(spool, id, now);
    Ok(acted)
}

/// Does what was asked for, unless whoever had the message in hand did so between the two: if
/// another request waits, or none, he has. Whether the action makes sense is asked only then: it
/// makes none any more when it has been done.
fn serve_own(entry: Box<Entry>, action: &Action, now: Timestamp) -> disk::Result<Acted> {
    let (_, waiting) = entry.request()?;
    if waiting.as_ref() != Some(action) {
        return Ok(Acted::Done);
    }
    let refused = refusal(&entry, action);
    let mut entries = [*entry];
    if refused.is_none() {
        apply(&mut entries, now, action)?;
    }
    entries[0].request_served()?;
    Ok(refused.map_or(Acted::Done, |why| Acted::Refused(why.to_owned())))
}
