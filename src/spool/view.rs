//! The view: `info/sender`, `info/recipients` and `info/transport`, which show a message's envelope to people
//! and scripts.
//!
//! No decision depends on the view, nothing in it is synced, and a failure to write it refuses no mail. It is
//! written at acceptance. Damage by a power cut or by hand is repaired from the envelope blocks, by the first
//! run after a boot ([`Spool::repair_views`]) and by `check --repair`.

use std::collections::HashSet;
use std::path::Path;

use jiff::SignedDuration;

use super::Spool;
use super::layout::{BOOT, Info, Queue, STATE, VIEW};
use super::locate::{Doubt, Located};
use super::lock::Claim;
use crate::disk::{self, Disk, Kind};
use crate::message::{Envelope, QueueId};

/// Messages accepted within this time of the latest one may have been written shortly before a power cut.
const RECENT: SignedDuration = SignedDuration::from_hours(1);

/// How the view of a message differs from its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFault {
    /// The file does not exist.
    Missing,
    /// The file has other content.
    Differs,
    /// It is not a regular file.
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

/// Writes the view of a message. The caller holds the message's lock. Best effort.
pub(super) fn write_view(disk: &Disk, id: QueueId, envelope: &Envelope) {
    for (info, text) in files(envelope) {
        if let Err(error) = write_one(disk, &info.path(id), text.as_bytes()) {
            tracing::debug!(%id, %error, "{} is not shown", info.dir());
        }
    }
}

/// Writes a file of the view. It may exist, because notice ids are reused and views are rewritten. The
/// directory may be missing, for example after a restore from a backup.
fn write_one(disk: &Disk, path: &Path, bytes: &[u8]) -> disk::Result<()> {
    let file = match disk.create(path) {
        Err(error) if error.is_absent() => {
            VIEW.iter()
                .try_for_each(|dir| disk.mkdir(Path::new(dir)).map(drop))?;
            disk.create(path)?
        }
        Err(error) if error.is(nix::errno::Errno::EEXIST) => {
            // Never overwrite in place: the name may be a link made by hand.
            disk.unlink(path)?;
            disk.create(path)?
        }
        other => other?,
    };
    disk.write_all(&file, bytes)
}

/// Removes the view of a message. A directory with its name is left alone.
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
    /// Whether the view lists a message. Only a hint, to find messages that moved during a listing.
    pub(super) fn is_in_view(&self, id: QueueId) -> disk::Result<bool> {
        Ok(self.disk.stat(&Info::Sender.path(id))?.is_some())
    }

    /// Returns the directories in which the view of a message differs from its envelope, and how.
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

    /// Repairs the view of a message in a queue. Returns false if the message is not there, cannot be read,
    /// or another process holds it.
    pub fn repair_view(&self, id: QueueId, queue: Queue) -> disk::Result<bool> {
        // Messages in `done/` are unlinked without their lock, view first.
        if queue == Queue::Done {
            return Ok(false);
        }
        // Hold the lock meanwhile, so that a finished message does not get a view again.
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

    /// Like [`repair_view`](Spool::repair_view), wherever the message has moved meanwhile. Returns false if
    /// the view is wrong and the message is moving or another process holds it.
    fn is_shown_again(&self, id: QueueId, queue: Queue) -> disk::Result<bool> {
        /// After an attempt a message rests for a minute.
        const MAX_MOVES: usize = 3;
        let mut queue = queue;
        for _ in 0..MAX_MOVES {
            if self.repair_view(id, queue)? {
                return Ok(true);
            }
            match self.peek(id, queue) {
                // Another process holds it; its view may be correct.
                Ok(Some(block)) => return Ok(self.view_faults(id, &block.envelope)?.is_empty()),
                // It has no valid envelope to show.
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

    /// Removes the view of a message that is gone. Returns false if the message may exist.
    pub fn remove_stray_view(&self, id: QueueId) -> disk::Result<bool> {
        match self.locate_for_good(id)? {
            Located::Absent => remove_view(&self.disk, id).map(|()| true),
            Located::Uncertain(Doubt::Unread(error)) => Err(error),
            Located::At(_) | Located::Uncertain(Doubt::Moving) => Ok(false),
        }
    }

    /// Repairs the view once after each boot: rewrites missing, empty or recent files from the messages, and
    /// removes the views of messages that are gone. Returns the errors. If another process holds a message,
    /// the next run repairs the whole view again.
    ///
    /// Only names are compared, and sizes with zero. Other damage by a power cut affects only files written
    /// shortly before it, so only the views of the latest messages are read.
    pub fn repair_views(&self) -> Vec<disk::Error> {
        // If the kernel does not identify the boot, every run checks.
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

    /// Written directly under its name: a partial boot id matches no boot, and a kill leaves no other file.
    /// Another run may write the same at the same time.
    fn viewed_since(&self, boot: &str) -> disk::Result<()> {
        self.disk.mkdir(Path::new(STATE))?;
        let path = Path::new(BOOT);
        self.disk.unlink(path)?;
        match self.disk.create(path) {
            Ok(file) => self.disk.write_all(&file, boot.as_bytes()),
            Err(error) if error.is(nix::errno::Errno::EEXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
