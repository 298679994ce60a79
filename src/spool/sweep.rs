//! What runs find in `new/` and `staged/` and no process has locked.

use super::draft::Staged;
use super::history_file::write_anew;
use super::layout::{Info, Queue};
use super::lock::{Claim, Unreadable};
use super::{Located, Spool};
use crate::disk;
use crate::message::{NoticeKind, Origin, QueueId};
use crate::queue::{History, What};

/// How far the message is that a staged notice is about.
enum OfOrigin {
    /// It is in the queue, and has not recorded the notice, or is in another process's hand.
    Awaits,
    /// It has recorded it, durably.
    Recorded,
    /// It is no longer in the queue.
    Finished,
}

/// What became of a file in `new/` or `staged/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nothing: it is being written, or its time has not come.
    Left,
    /// It is in the queue now.
    Moved,
    /// It was never acknowledged, or told of a delay that is over, and is gone.
    Removed,
    /// It does not match its seal, and is in quarantine.
    Corrupt,
}

impl Spool {
    /// Removes an unlocked file in `new/`: it was never acknowledged, because what is leaves
    /// `new/` before. One that has a second name was caught by a power cut in a rename; taking the lock
    /// removes the name in `new/`. One that is another message, whole, may have been acknowledged.
    pub fn sweep_new(&self, id: QueueId) -> disk::Result<Swept> {
        match self.lock(Queue::New, id)? {
            Claim::Locked(locked) => match locked.another()? {
                Some(reason) => locked.quarantine(&reason).map(|()| Swept::Corrupt),
                None => locked.remove().map(|()| Swept::Removed),
            },
            Claim::Busy | Claim::Absent | Claim::NotAFile => Ok(Swept::Left),
        }
    }

    /// Decides about an unlocked file in `staged/`: a notice is moved to its queue if its origin has
    /// recorded it, or is finished; one of a delay that is over is removed.
    pub fn sweep_staged(&self, id: QueueId) -> disk::Result<Swept> {
        let locked = match self.lock(Queue::Staged, id)? {
            Claim::Locked(locked) => locked,
            Claim::Busy | Claim::Absent | Claim::NotAFile => return Ok(Swept::Left),
        };
        let entry = match locked.read() {
            Ok(entry) => entry,
            Err(Unreadable::Corrupt(locked, reason)) => {
                // Its origin may have recorded it: then it is the only one.
                locked.quarantine(&reason)?;
                return Ok(Swept::Corrupt);
            }
            Err(Unreadable::Failed(error)) => return Err(error),
        };
        if let Some(origin) = entry.envelope().submission.origin {
            match (self.origin(origin, id)?, origin.kind) {
                (OfOrigin::Awaits, _) => return Ok(Swept::Left),
                // A message that is finished is no longer delayed. And this notice may be one that a
                // killed holder staged for recipients that were delivered, or told otherwise, by the
                // next.
                (OfOrigin::Finished, NoticeKind::Delay) => {
                    entry.into_locked().remove()?;
                    return Ok(Swept::Removed);
                }
                (OfOrigin::Recorded | OfOrigin::Finished, _) => {}
            }
        }
        Staged::of(entry).release()?;
        Ok(Swept::Moved)
    }

    /// How far a notice's origin is. If it stands in the queue and has not recorded it, durably,
    /// only its holder may move the notice: it might be staged a second time otherwise.
    ///
    /// The origin's history is asked, which is durable before a notice is staged.
    fn origin(&self, origin: Origin, notice: QueueId) -> disk::Result<OfOrigin> {
        let Some((recorded, _)) = self.records(origin.id, notice)? else {
            return Ok(OfOrigin::Finished);
        };
        let queue = match self.locate_for_good(origin.id)? {
            Located::At(queue) => queue,
            // Finished, whatever a power cut brought back of its history: no holder is left who could
            // tell again.
            Located::Absent => return Ok(OfOrigin::Finished),
            // It may still tell.
            Located::Uncertain(_) => return Ok(OfOrigin::Awaits),
        };
        if !recorded {
            return Ok(OfOrigin::Awaits);
        }
        // The process that wrote the record may have been killed before it was durable, or have seen its
        // sync fail; once the notice is under way a power cut must not take it back.
        match self.lock(queue, origin.id)? {
            Claim::Locked(_locked) => match self.records(origin.id, notice)? {
                Some((true, lines)) => {
                    write_anew(&self.disk, origin.id, &lines)?;
                    Ok(OfOrigin::Recorded)
                }
                Some((false, _)) => Ok(OfOrigin::Awaits),
                None => Ok(OfOrigin::Finished),
            },
            // In another process's hand, or on its way: the next run.
            Claim::Busy | Claim::Absent | Claim::NotAFile => Ok(OfOrigin::Awaits),
        }
    }

    /// Whether a history has a notice's record, and the whole lines of it; none if there is no history.
    fn records(&self, id: QueueId, notice: QueueId) -> disk::Result<Option<(bool, Vec<u8>)>> {
        let Some(mut bytes) = self.read_info(Info::History, id)? else {
            return Ok(None);
        };
        let history = History::parse(&bytes).unwrap_or_default();
        bytes.truncate(history.whole);
        let recorded = history.events.iter().any(|event| match &event.what {
            What::Notice { id, .. } => *id == Some(notice),
            What::Fold(fold) => fold.notices.contains(&notice),
            What::Outcome { .. } | What::Action(_) => false,
        });
        Ok(Some((recorded, bytes)))
    }
}
