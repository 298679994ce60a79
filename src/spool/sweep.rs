//! Cleanup of unlocked files in `new/` and `staged/`.

use super::Spool;
use super::draft::Staged;
use super::history_file::write_anew;
use super::layout::{Info, Queue};
use super::locate::Located;
use super::lock::Claim;
use super::verify::Unreadable;
use crate::disk;
use crate::message::{NoticeKind, Origin, QueueId};
use crate::queue::{History, What};

/// The state of the message that a staged notice is about.
enum OfOrigin {
    /// It is in a queue and has not recorded the notice durably, or another process holds it.
    Awaits,
    /// It has recorded the notice, durably.
    Recorded,
    /// It is no longer in a queue.
    Finished,
}

/// Result of sweeping a file in `new/` or `staged/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nothing changed: the file is being written, or is needed where it is.
    Left,
    /// Moved to its queue.
    Moved,
    /// Removed: it was never acknowledged, or it is a notice of a delay that is over.
    Removed,
    /// It did not match its seal or its name, and was quarantined.
    Corrupt,
}

impl Spool {
    /// Removes an unlocked file in `new/`: it was never acknowledged, because a message leaves `new/` before
    /// that. If a power cut during a rename left a second name, taking the lock removes the name in `new/`. A
    /// file that is another, complete message may have been acknowledged, and is quarantined.
    pub fn sweep_new(&self, id: QueueId) -> disk::Result<Swept> {
        match self.lock(Queue::New, id)? {
            Claim::Locked(locked) => match locked.another()? {
                Some(reason) => locked.quarantine(&reason).map(|()| Swept::Corrupt),
                None => locked.remove().map(|()| Swept::Removed),
            },
            Claim::Busy | Claim::Absent | Claim::NotAFile => Ok(Swept::Left),
        }
    }

    /// Handles an unlocked file in `staged/`: moves a notice to its queue if its origin has recorded it or is
    /// finished. Removes a notice of a delay that is over.
    pub fn sweep_staged(&self, id: QueueId) -> disk::Result<Swept> {
        let locked = match self.lock(Queue::Staged, id)? {
            Claim::Locked(locked) => locked,
            Claim::Busy | Claim::Absent | Claim::NotAFile => return Ok(Swept::Left),
        };
        let entry = match locked.read() {
            Ok(entry) => entry,
            Err(Unreadable::Corrupt(locked, reason)) => {
                // Quarantine it: its origin may have recorded it, and would not send another.
                locked.quarantine(&reason)?;
                return Ok(Swept::Corrupt);
            }
            Err(Unreadable::Failed(error)) => return Err(error),
        };
        if let Some(origin) = entry.envelope().submission.origin {
            match (self.origin(origin, id)?, origin.kind) {
                (OfOrigin::Awaits, _) => return Ok(Swept::Left),
                // A finished message is no longer delayed. Also, a killed holder may have staged this notice
                // for recipients that the next holder delivered to, or reported otherwise.
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

    /// Returns the state of a notice's origin. If the origin is in a queue and has not recorded the notice
    /// durably, only its holder may move the notice: otherwise the notice might be staged a second time.
    ///
    /// This reads the origin's history, which is durable before a notice is staged.
    fn origin(&self, origin: Origin, notice: QueueId) -> disk::Result<OfOrigin> {
        let Some((recorded, _)) = self.records(origin.id, notice)? else {
            return Ok(OfOrigin::Finished);
        };
        let queue = match self.locate_for_good(origin.id)? {
            Located::At(queue) => queue,
            // Finished, even if a power cut brought its history back: no holder can send another notice.
            Located::Absent => return Ok(OfOrigin::Finished),
            // Its holder may still send the notice.
            Located::Uncertain(_) => return Ok(OfOrigin::Awaits),
        };
        if !recorded {
            return Ok(OfOrigin::Awaits);
        }
        // The process that wrote the record may have been killed before the sync, or have seen it fail. After
        // the notice has been moved, a power cut must not take the record back.
        match self.lock(queue, origin.id)? {
            Claim::Locked(_locked) => match self.records(origin.id, notice)? {
                Some((true, lines)) => {
                    write_anew(&self.disk, origin.id, &lines)?;
                    Ok(OfOrigin::Recorded)
                }
                Some((false, _)) => Ok(OfOrigin::Awaits),
                None => Ok(OfOrigin::Finished),
            },
            // Another process holds it, or it is moving: leave the notice to the next run.
            Claim::Busy | Claim::Absent | Claim::NotAFile => Ok(OfOrigin::Awaits),
        }
    }

    /// Returns whether a history records a notice, and its complete lines; `None` if there is no history.
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
