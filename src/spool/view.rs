//! The view: `info/sender`, `info/recipients` and `info/transport`, which show a message's envelope to
//! people and scripts.
//!
//! Nothing decides by it, nothing of it is synced, and failing to write it refuses no mail. It is written at
//! acceptance. What a power cut or a hand makes of it the first run after a boot mends from the envelope
//! blocks ([`Spool::repair_views`]), and so does `check --repair`.

use std::collections::HashSet;
use std::path::Path;

use jiff::SignedDuration;

use super::layout::{Info, Queue, VIEW};
use super::lock::Claim;
use super::{Doubt, Located, Spool};
use crate::disk::{self, Disk, Kind};
use crate::message::{Envelope, QueueId};

/// Says for which boot the view is complete.
const BOOT: &str = "state/boot";

/// What was accepted so long before the latest message may have been written shortly before a power cut.
const RECENT: SignedDuration = SignedDuration::from_hours(1);

/// How the view of a message differs from its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFault {
    /// The file is not there.
    Missing,
    /// It has other octets.
    Differs,
    /// What has its name is no file.
    NotAFile,
}

fn files(envelope: &Envelope) -> [(Info, String); 3] {
    let view = envelope.view();
    [
        (Info::Sender, view.sender),
        (Info::Recipients, view.recipients),
        (Info::Transport, view.transport),
    ]
}

/// Writes the view of a message whose lock the caller holds. Best effort.
pub(super) fn write_view(disk: &Disk, id: QueueId, envelope: &Envelope) {
    for (info, text) in files(envelope) {
        if let Err(error) = write_one(disk, &info.path(id), text.as_bytes()) {
            tracing::debug!(%id, %error, "{} is not shown", info.dir());
        }
    }
}

/// The file may be there: the ids of notices are used again, and views are written again. The directory may
/// not: what is restored from a backup may lack it.
fn write_one(disk: &Disk, path: &Path, bytes: &[u8]) -> disk::Result<()> {
    let file = match disk.create(path) {
        Err(error) if error.is_absent() => {
            VIEW.iter()
                .try_for_each(|dir| disk.mkdir(Path::new(dir)).map(drop))?;
            disk.create(path)?
        }
        Err(error) if error.is(nix::errno::Errno::EEXIST) => {
            // Never in place: the name may be a link of a hand's.
            disk.unlink(path)?;
            disk.create(path)?
        }
        other => other?,
    };
    disk.write_all(&file, bytes)
}

/// Removes the view of a message. A directory under its name is not ours, and is left alone.
pub(super) fn remove_view(disk: &Disk, id: QueueId) -> disk::Result<()> {
    let mut result = Ok(());
    for info in Info::VIEW {
        match disk.unlink(&info.path(id)) {
            Err(error) if !error.is_wrong_kind() => result = result.and(Err(error)),
            _ => {}
        }
    }
    result
}

impl Spool {
    /// Whether the view knows a message. A hint, for names that are missed while a message moves.
    pub(super) fn is_in_view(&self, id: QueueId) -> disk::Result<bool> {
        Ok(self.disk.stat(&Info::Sender.path(id))?.is_some())
    }

    /// How the view of a message differs from its envelope, in which directories.
    pub fn view_faults(
        &self,
        id: QueueId,
        envelope: &Envelope,
    ) -> disk::Result<Vec<(&'static str, ViewFault)>> {
        let mut faults = Vec::new();
        for (info, text) in files(envelope) {
            let fault = match self.disk.stat(&info.path(id))? {
                None => Some(ViewFault::Missing),
                Some(stat) if stat.kind != Kind::File => Some(ViewFault::NotAFile),
                Some(stat) if stat.size != text.len() as u64 => Some(ViewFault::Differs),
                Some(_) => {
                    let bytes = self.read_info(info, id)?.unwrap_or_default();
                    (bytes != text.as_bytes()).then_some(ViewFault::Differs)
                }
            };
            faults.extend(fault.map(|fault| (info.dir(), fault)));
        }
        Ok(faults)
    }

    /// Writes what is missing or wrong in the view of a message that stands there; false if the message
    /// is not there, is in another process's hand, or cannot be read.
    pub fn repair_view(&self, id: QueueId, queue: Queue) -> disk::Result<bool> {
        // What stands in `done/` is unlinked without its lock, view first.
        if queue == Queue::Done {
            return Ok(false);
        }
        // The lock is held meanwhile, so a finished message gets no view again.
        let Claim::Locked(locked) = self.lock(queue, id)? else {
            return Ok(false);
        };
        let Some(block) = locked.block()? else {
            return Ok(false);
        };
        let faults = self.view_faults(id, &block.envelope)?;
        for (info, text) in files(&block.envelope) {
            let fault = faults.iter().find(|(dir, _)| *dir == info.dir());
            if let Some((_, ViewFault::Missing | ViewFault::Differs)) = fault {
                write_one(&self.disk, &info.path(id), text.as_bytes())?;
            }
        }
        Ok(true)
    }

    /// As [`repair_view`](Spool::mend_view), wherever the message has moved meanwhile; false if it is in
    /// another process's hand, or on the move, and the view does not show it right.
    fn is_shown_again(&self, id: QueueId, queue: Queue) -> disk::Result<bool> {
        /// After an attempt a message rests for a minute.
        const MAX_MOVES: usize = 3;
        let mut queue = queue;
        for _ in 0..MAX_MOVES {
            if self.repair_view(id, queue)? {
                return Ok(true);
            }
            match self.peek(id, queue) {
                // Another process has it in hand: its view may be right all the same.
                Ok(Some(block)) => return Ok(self.view_faults(id, &block.envelope)?.is_empty()),
                // It has no envelope that could be shown.
                Ok(None) => return Ok(true),
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
            match self.locate(id)? {
                Located::At(Queue::Done) | Located::Absent => return Ok(true),
                Located::At(now) => queue = now,
                Located::Uncertain(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Removes what shows a message that is gone; false if it is not gone for certain.
    pub fn remove_stray_view(&self, id: QueueId) -> disk::Result<bool> {
        match self.locate_for_good(id)? {
            Located::Absent => remove_view(&self.disk, id).map(|()| true),
            Located::Uncertain(Doubt::Unread(error)) => Err(error),
            Located::At(_) | Located::Uncertain(Doubt::Moving) => Ok(false),
        }
    }

    /// Once after each boot: writes what is missing, empty or recent in the view from the messages, and
    /// removes what shows a message that is gone. Returns what could not be done. What another process has in
    /// hand is left to the next run, which then looks through all of it again.
    ///
    /// Names are compared, and sizes with nothing. A file that a power cut caught in other ways was written
    /// shortly before it: so only what shows one of the latest messages is read.
    pub fn repair_views(&self) -> Vec<disk::Error> {
        // Where the kernel says nothing, every run looks.
        let boot = disk::boot();
        if !boot.is_empty() && self.is_viewed_since(&boot) {
            return Vec::new();
        }
        let listing = self.listing();
        let mut failed: Vec<disk::Error> = Vec::new();
        let mut shown = HashSet::new();
        let mut whole: Option<HashSet<QueueId>> = None;
        for info in Info::VIEW {
            match self.ids_below(Path::new(info.dir())) {
                Ok(ids) => {
                    let ids: HashSet<QueueId> = ids.into_iter().collect();
                    shown.extend(ids.iter().copied());
                    let before = whole.take();
                    whole = Some(match before {
                        Some(before) => &before & &ids,
                        None => ids,
                    });
                }
                Err(error) => failed.push(error),
            }
        }
        let whole = whole.unwrap_or_default();
        let latest = listing.messages.last().map(|(id, _)| id.accepted());
        let recent = latest.and_then(|latest| latest.checked_sub(RECENT).ok());
        let mut is_complete = listing.unread.is_empty();
        for (id, queue) in &listing.messages {
            shown.remove(id);
            let is_recent = recent.is_some_and(|recent| id.accepted() >= recent);
            let looked = if is_recent || !whole.contains(id) {
                Ok(true)
            } else {
                self.is_empty_in_view(*id)
            };
            let shown_again = looked.and_then(|wrong| {
                if wrong {
                    self.is_shown_again(*id, *queue)
                } else {
                    Ok(true)
                }
            });
            match shown_again {
                Ok(is_shown) => is_complete &= is_shown,
                Err(error) => failed.push(error),
            }
        }
        for id in shown {
            failed.extend(self.remove_stray_view(id).err());
        }
        if failed.is_empty() && is_complete && !boot.is_empty() {
            failed.extend(self.viewed_since(&boot).err());
        }
        failed
    }

    fn is_empty_in_view(&self, id: QueueId) -> disk::Result<bool> {
        for info in Info::VIEW {
            if self
                .disk
                .stat(&info.path(id))?
                .is_none_or(|stat| stat.size == 0)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_viewed_since(&self, boot: &str) -> bool {
        let read = self.disk.read_all(Path::new(BOOT), 4 << 10);
        read.is_ok_and(|bytes| bytes == boot.as_bytes())
    }

    /// Written under its own name: half of it is no boot's, and a kill leaves no other file. Another run may
    /// be at it, and writes the same.
    fn viewed_since(&self, boot: &str) -> disk::Result<()> {
        self.disk.mkdir(Path::new("state"))?;
        let path = Path::new(BOOT);
        self.disk.unlink(path)?;
        match self.disk.create(path) {
            Ok(file) => self.disk.write_all(&file, boot.as_bytes()),
            Err(error) if error.is(nix::errno::Errno::EEXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
