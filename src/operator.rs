//! Operator commands: listing the queue and acting on messages.
//!
//! Listing takes no lock. An action is durable before it is reported as done. If another process holds the
//! message, the action becomes a request, which is served when the lock is released.

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

/// The result of an action on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Acted {
    /// The action is done, durably.
    Done,
    /// Another process holds the message; the action is done when it releases the lock.
    Requested,
    /// Another process holds the message, and another request is already waiting.
    OtherWaits,
    /// The message does not exist, or no longer.
    Absent,
    /// The action does not apply to this message, for this reason.
    Refused(String),
    /// A system call failed, for this reason. The message is unchanged; a request may be waiting.
    Failed(String),
}

/// Messages per pair of barriers.
const BATCH: usize = 256;

/// Applies an action to messages, in batches. Returns the result for each.
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
            // An error for one message does not stop the others.
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

/// Whether the action discards a message without keeping it.
fn is_for_good(action: &Action, now: Timestamp) -> bool {
    matches!(action, Action::Discard { until, .. } if *until <= now)
}

/// Forgets a message at once. This is recorded in its block, which needs no disk space, so it works on a full
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

/// Applies an action to locked messages, releases them, and calls `done` for each.
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

/// Serves a request after a message was released, as every holder must: an operator may have left it because
/// this process held the lock. A failure does not change the result of the action; the next run serves the
/// request.
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

/// Makes every message in `deferred/` due that is there because of a failed attempt. Skips messages that wait
/// for their release, messages held by another process (already being attempted), and corrupt ones (the next
/// run handles them).
///
/// # Errors
/// The first error of a message or a bucket; the others are made due regardless.
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

/// Locks a message that a flush makes due. `None` if another process holds it, or if it is not to be flushed.
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
    /// Retries if a message moves between the lookup and the lock.
    const MAX_MOVES: usize = 5;
    for _ in 0..MAX_MOVES {
        let queue = match spool.locate(id)? {
            Located::At(queue) => queue,
            Located::Absent => return Ok(Taken::Not(Acted::Absent)),
            Located::Uncertain(Doubt::Moving) => continue,
            Located::Uncertain(Doubt::Unread(error)) => return Err(error),
        };
        // Not yet, or no longer, in the queue. Locking it would only disturb the process that works on it.
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

/// Leaves a request, then tries the lock once more. If the holder released the lock before the request
/// existed, it did not see the request, and it would wait until the next run.
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

/// Carries out the action, unless the previous holder has done so meanwhile: then the request is gone or
/// replaced. Whether the action applies is checked only after that: once done, it no longer applies.
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
