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
use crate::queue::step::awaits_release;
use crate::queue::{Action, Hold};
use crate::spool::{Claim, Entry, Kept, Place, Posted, Served, Spool, Unreadable, apply};

pub use check::{Finding, Level, Mend, Tally, check, tally};
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
            match take(spool, *id)? {
                Taken::Entry(entry) => match refusal(&entry, action) {
                    None => entries.push(*entry),
                    Some(why) => {
                        drop(entry);
                        let_go(spool, *id, now);
                        all.push((*id, Acted::Refused(why.to_owned())));
                    }
                },
                Taken::Busy => all.push((*id, request(spool, *id, action, now)?)),
                Taken::Not(acted) => all.push((*id, acted)),
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
/// Of a message that the system would not let us have; the others are made due all the same.
pub fn flush(spool: &Spool, action: &Action, now: Timestamp) -> disk::Result<usize> {
    let mut flushed = 0;
    let mut failed = Ok(());
    for bucket in spool.buckets(Kept::Deferred)? {
        let place = Place::Deferred(bucket);
        for some in spool.ids_in(place)?.chunks(BATCH) {
            let mut entries = Vec::new();
            for id in some {
                let Claim::Locked(locked) = spool.lock(place, *id)? else {
                    continue;
                };
                match locked.read() {
                    Ok(entry) if awaits_release(entry.state(), now) => {}
                    Ok(entry) => entries.push(entry),
                    Err(Unreadable::Corrupt(..)) => {}
                    Err(Unreadable::Failed(error)) => failed = failed.and(Err(error)),
                }
            }
            apply_and_let_go(spool, &mut entries, action, now, |_| flushed += 1)?;
        }
        spool.remove_empty_buckets(&[place])?;
    }
    let by = action.by();
    tracing::info!(flushed, by = by.by, reason = by.reason, "flush");
    failed.map(|()| flushed)
}

enum Taken {
    Entry(Box<Entry>),
    Busy,
    Not(Acted),
}

fn take(spool: &Spool, id: QueueId) -> disk::Result<Taken> {
    /// A message may move between our look and our lock.
    const MOST_MOVES: usize = 5;
    for _ in 0..MOST_MOVES {
        let Some(place) = spool.locate(id)? else {
            return Ok(Taken::Not(Acted::Absent));
        };
        // Not yet, or no longer, in the queue; locking it would only disturb who is at it.
        if let Place::New | Place::Done = place {
            return Ok(Taken::Not(Acted::Absent));
        }
        let locked = match spool.lock(place, id)? {
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

/// Why an action makes no sense for a message.
fn refusal(entry: &Entry, action: &Action) -> Option<&'static str> {
    let state = entry.state();
    let frozen = matches!(state.hold, Hold::Frozen { .. }) || entry.place().as_str() == "frozen";
    let discarded = matches!(state.hold, Hold::Discarded { .. });
    match action {
        Action::Thaw(_) if !frozen => Some("it is not frozen"),
        Action::Freeze { .. } | Action::Bounce(_) | Action::Discard { .. } if discarded => {
            Some("it is discarded already; `mailspool retry` takes it back")
        }
        Action::Bounce(_) if state.sender.mailbox().is_none() => {
            Some("it has the null sender: there is nobody to tell; `mailspool discard` it")
        }
        Action::Bounce(_) if !state.recipients.iter().any(|one| one.is_left()) => {
            Some("nobody is left to bounce it for")
        }
        _ => None,
    }
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
