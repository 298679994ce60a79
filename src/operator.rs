//! The operator's side: see what is in the queue and why, and act on it.
//!
//! Looking takes no lock. Acting is durable before it reports success; on a message that
//! somebody has in hand it becomes a request that is served as soon as the hand is empty.

mod check;
mod find;
mod row;

use jiff::Timestamp;

use crate::disk;
use crate::message::QueueId;
use crate::queue::{Action, Hold};
use crate::spool::{Claim, Entry, Kept, Place, Posted, Spool, Unreadable, apply};

pub use check::{Finding, Level, check};
pub use find::{Found, find};
pub use row::{RecipientRow, Row, RowStatus, row};

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
            match take(spool, *id, action)? {
                Taken::Entry(entry) => entries.push(*entry),
                Taken::Busy => all.push((*id, request(spool, *id, action, now)?)),
                Taken::Not(acted) => all.push((*id, acted)),
            }
        }
        apply(&mut entries, now, action)?;
        for entry in &entries {
            let (id, by) = (entry.id(), action.by());
            tracing::info!(%id, action = action.as_str(), by = by.by, reason = by.reason, "action");
            all.push((id, Acted::Done));
        }
    }
    Ok(all)
}

/// Makes everything in `deferred/` due. What somebody has in hand is being tried already, and
/// what is corrupt is for the next run to find.
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
                    Ok(entry) => entries.push(entry),
                    Err(Unreadable::Corrupt(..)) => {}
                    Err(Unreadable::Failed(error)) => failed = failed.and(Err(error)),
                }
            }
            apply(&mut entries, now, action)?;
            flushed += entries.len();
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

fn take(spool: &Spool, id: QueueId, action: &Action) -> disk::Result<Taken> {
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
            Ok(entry) => match refusal(&entry, action) {
                Some(why) => Taken::Not(Acted::Refused(why.to_owned())),
                None => Taken::Entry(Box::new(entry)),
            },
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
    let acted = match take(spool, id, action)? {
        Taken::Busy => return Ok(Acted::Requested),
        Taken::Not(acted) => {
            spool.drop_request(id)?;
            acted
        }
        Taken::Entry(entry) => {
            let mut entries = [*entry];
            // Somebody else may have served it between the two.
            if entries[0].request()?.0 {
                apply(&mut entries, now, action)?;
                entries[0].request_served()?;
            }
            Acted::Done
        }
    };
    Ok(acted)
}
