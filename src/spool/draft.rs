//! Acceptance: a message appears in `new/`, whole or not at all.
//!
//! The order of the writes makes this safe; each step gives its reason. The commit points are *accepted*
//! ([`Draft::accept`]) and, for notices, *staged* ([`Draft::stage`]).

use std::path::Path;
use std::sync::Arc;

use super::Spool;
use super::entry::Entry;
use super::keys::KeyLock;
use super::layout::{Info, Queue};
use super::locate::Located;
use super::lock::{Claim, Locked};
use super::reserve;
use super::view::{remove_view, write_view};
use crate::disk::{self, File};
use crate::message::{Entrance, Envelope, QueueId, SealHasher, Submission, block};
use crate::queue::QueueUntil;

/// Octets buffered before a write, so that small messages are written with one call.
const BUFFER: usize = 64 << 10;

/// A message being written. If it is dropped before it is accepted or staged, its files are removed.
#[derive(Debug)]
pub struct Draft {
    spool: Spool,
    id: QueueId,
    envelope: Envelope,
    /// Open and locked until the message is accepted or staged.
    file: Option<File>,
    /// The queue that its name is in.
    queue: Queue,
    /// The envelope block, not yet sealed.
    block: Vec<u8>,
    /// Octets not yet written to the file. The first write puts the block before them.
    buffer: Vec<u8>,
    /// Whether anything has been written to the file.
    is_begun: bool,
    /// There may be no free space: the whole message is written at once, into a file of the reserve.
    is_reserved: bool,
    hasher: SealHasher,
}

/// A message that is whole and durable in `staged/`: a notice not yet recorded by its origin.
#[derive(Debug)]
pub struct Staged {
    locked: Locked,
    /// The queue that it goes to.
    to: Queue,
}

/// Result of [`Spool::stage_notice`].
#[derive(Debug)]
pub enum Staging {
    /// The notice is to be written.
    Fresh(Box<Draft>),
    /// Another process holds the lock; try later.
    Busy,
}

impl Spool {
    /// Begins a message under the first free id.
    pub fn draft(
        &self,
        mut ids: impl FnMut() -> QueueId,
        envelope: &Envelope,
    ) -> disk::Result<Draft> {
        loop {
            if let Some(draft) = self.draft_as(ids(), envelope, false)? {
                return Ok(draft);
            }
        }
    }

    /// Creates and locks the file before writing to it, then checks, as every locker does, that the name
    /// still refers to it: a sweeper may have taken it for a leftover between the two calls. If so, returns
    /// `None`, and the sweeper removes it.
    fn draft_as(
        &self,
        id: QueueId,
        envelope: &Envelope,
        is_reserved: bool,
    ) -> disk::Result<Option<Draft>> {
        let path = Queue::New.path(id);
        let made = if is_reserved {
            reserve::create(&self.disk, &path)
        } else {
            self.disk.create(&path)
        };
        let file = match made {
            Ok(file) => file,
            Err(error) if error.is(nix::errno::Errno::EEXIST) => return Ok(None),
            Err(error) => {
                // The file may have been created although the reply was lost; best effort, as below.
                let _ = self.disk.unlink(&path);
                return Err(error);
            }
        };
        match self.still_ours(&file, &path) {
            Ok(true) => Ok(Some(Draft {
                spool: self.clone(),
                id,
                envelope: envelope.clone(),
                file: Some(file),
                queue: Queue::New,
                block: block::open(id, envelope),
                buffer: Vec::new(),
                is_begun: false,
                is_reserved,
                hasher: SealHasher::new(),
            })),
            Ok(false) => Ok(None),
            Err(error) => {
                // Best effort: the next run sweeps `new/`.
                let _ = self.disk.unlink(&path);
                Err(error)
            }
        }
    }

    fn still_ours(&self, file: &File, path: &Path) -> disk::Result<bool> {
        if !self.disk.try_lock(file)? {
            return Ok(false);
        }
        let ours = self.disk.stat_file(file)?;
        let named = self.disk.stat(path)?;
        Ok(named.is_some_and(|named| named.identity == ours.identity))
    }

    /// Begins a notice. Its id is derived from its cause. The caller holds the origin's lock. A notice that
    /// an earlier holder staged and did not record is written again: that process may have seen a sync fail,
    /// and after that a successful sync proves nothing.
    ///
    /// With `may_use_reserve`, the notice is written to the reserve if there is no other space.
    pub fn stage_notice(
        &self,
        id: QueueId,
        envelope: &Envelope,
        may_use_reserve: bool,
    ) -> disk::Result<Staging> {
        for queue in [Queue::New, Queue::Staged] {
            match self.lock(queue, id)? {
                Claim::Busy => return Ok(Staging::Busy),
                Claim::Locked(locked) => locked.remove()?,
                Claim::NotAFile | Claim::Absent => {}
            }
        }
        // After a power cut, the history of an earlier notice with this id may be back. It would say that
        // this notice is delivered.
        let history = Info::History.path(id);
        if self.disk.stat(&history)?.is_some()
            && let Located::Absent = self.locate_for_good(id)?
        {
            self.disk.unlink(&history)?;
        }
        Ok(match self.draft_as(id, envelope, may_use_reserve)? {
            Some(draft) => Staging::Fresh(Box::new(draft)),
            None => Staging::Busy,
        })
    }
}

impl Draft {
    /// The message's id.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Octets of the message so far, without the block.
    #[cfg(feature = "testing")]
    pub fn size(&self) -> u64 {
        self.hasher.size()
    }

    /// Adds bytes to the message.
    pub fn write(&mut self, bytes: &[u8]) -> disk::Result<()> {
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER && !self.is_reserved {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> disk::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let disk = &self.spool.disk;
        if !std::mem::replace(&mut self.is_begun, true) {
            self.buffer.splice(..0, self.block.iter().copied());
        }
        disk.write_all(file, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the message and makes its file durable, under its name in `new/`.
    fn seal(&mut self) -> disk::Result<()> {
        block::close(&mut self.block, self.hasher.size(), self.hasher.digest());
        // Write the view first: only the acceptor that holds the lock may write it. After that a runner may
        // have finished the message, and it must not get a view again.
        write_view(&self.spool.disk, self.id, &self.envelope);
        if self.is_reserved {
            return self.seal_reserved();
        }
        let was_begun = self.is_begun;
        self.flush()?;
        let Some(file) = &self.file else {
            unreachable!("a draft has its file until it is accepted")
        };
        let disk = &self.spool.disk;
        if was_begun {
            // The seal is a checksum, not a flag: its order among the writes does not matter.
            let line = &self.block[..crate::message::Seal::WIDTH];
            disk.write_all_at(file, line, 0)?;
        }
        disk.sync_file(file)
    }

    fn seal_reserved(&mut self) -> disk::Result<()> {
        let Some(file) = self.file.take() else {
            unreachable!("a draft has its file until it is staged")
        };
        let disk = &self.spool.disk;
        let path = self.queue.path(self.id);
        let bytes = [&self.block[..], &self.buffer].concat();
        let written = reserve::write(disk, file, &path, &bytes);
        let file = match written {
            Ok(file) => file,
            Err(error) => {
                // Best effort: the next run sweeps `new/`.
                let _ = disk.unlink(&path);
                return Err(error);
            }
        };
        // A file of the reserve has been locked since it was claimed, and now `path` names that file.
        disk.try_lock(&file)?;
        let synced = disk.sync_file(&file);
        self.file = Some(file);
        synced
    }

    /// Accepts the message (commit point *accepted*): fsync of the file, rename to its queue, fsync of that
    /// queue's directory. The file is synced first, because a name outside `new/` means that the message is
    /// whole.
    ///
    /// After an error the files are removed, and a later success of the same sync proves nothing. `accepted`
    /// is called at the commit point, before anything else that may take time.
    pub fn accept(mut self, accepted: impl FnOnce()) -> disk::Result<QueueId> {
        let to = entrance(&self.envelope.submission);
        self.seal()?;
        self.enter(to)?;
        accepted();
        self.file = None;
        Ok(self.id)
    }

    /// Like [`accept`](Draft::accept), under a key that no message has (commit point *keyed*).
    ///
    /// The record that names the message becomes durable first: a message accepted without a record would be
    /// accepted again.
    pub fn accept_keyed(mut self, lock: KeyLock, accepted: impl FnOnce()) -> disk::Result<QueueId> {
        let Some(keyed) = self.envelope.submission.key.clone() else {
            return self.accept(accepted);
        };
        let intended = lock.intend(self.id, keyed)?;
        let to = entrance(&self.envelope.submission);
        if let Err(error) = self.seal().and_then(|()| self.enter(to)) {
            // Remove the message first: a record without a message has no effect. A message that cannot be
            // removed keeps the key, as after a kill.
            if self.give_up() {
                intended.take_back();
            }
            return Err(error);
        }
        accepted();
        let lock = intended.count();
        // Release the lock of the message first: the next holder of the key looks at the message.
        self.file = None;
        drop(lock);
        Ok(self.id)
    }

    /// Renames the durable file, and makes its new name durable.
    fn enter(&mut self, to: Queue) -> disk::Result<()> {
        let Some(file) = &self.file else {
            unreachable!("a draft has its file until it is accepted")
        };
        let spool = &self.spool;
        spool.rename_to(file, self.id, self.queue, to)?;
        self.queue = to;
        spool.disk.durable(&[], &[&to.dir()])
    }

    /// Makes the message durable in `staged/` (commit point *staged*), where it stays until its origin has
    /// recorded it.
    pub fn stage(mut self) -> disk::Result<Staged> {
        self.seal()?;
        self.enter(Queue::Staged)?;
        let Some(file) = self.file.take() else {
            unreachable!("a draft has its file until it is staged")
        };
        let locked = Locked {
            spool: self.spool.clone(),
            id: self.id,
            queue: self.queue,
            size: self.block.len() as u64 + self.hasher.size(),
            is_marked: false,
            file: Arc::new(file),
        };
        let to = entrance(&self.envelope.submission);
        Ok(Staged { locked, to })
    }
}

impl Drop for Draft {
    /// Errors are ignored: nothing was acknowledged.
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Draft {
    /// Unlinks the files under the lock, the message file last: the next run removes a message left in
    /// `new/`, with its view. Returns false if the message is left where a run would deliver it.
    fn give_up(&mut self) -> bool {
        let Some(file) = self.file.take() else {
            return true;
        };
        let Draft {
            spool, id, queue, ..
        } = self;
        // If the view cannot be removed now, the message stays in `new/`, or moves back there, and is removed
        // with its view later.
        let is_kept = remove_view(&spool.disk, *id).is_err()
            && spool.rename_to(&file, *id, *queue, Queue::New).is_ok();
        is_kept || spool.disk.unlink(&queue.path(*id)).is_ok() || *queue == Queue::New
    }
}

/// Returns the queue that a message enters from `new/`.
pub(super) fn entrance(submission: &Submission) -> Queue {
    match (submission.release, submission.entrance) {
        (Some(release), _) => Queue::from(QueueUntil::Deferred(release)),
        (None, Entrance::Incoming) => Queue::Incoming,
        (None, Entrance::Active) => Queue::Active,
    }
}

impl Locked {
    /// Removes a message that was never acknowledged, the message file last.
    pub(super) fn remove(self) -> disk::Result<()> {
        let disk = &self.spool.disk;
        remove_view(disk, self.id)?;
        disk.unlink(&self.queue.path(self.id)).map(drop)
    }
}

impl Staged {
    /// Returns a message that another process left in `staged/`.
    pub(super) fn of(entry: Entry) -> Staged {
        let to = entrance(&entry.envelope().submission);
        Staged {
            locked: entry.into_locked(),
            to,
        }
    }

    /// The message.
    pub fn id(&self) -> QueueId {
        self.locked.id
    }

    /// Moves the message to its queue. The rename is not synced: if a power cut reverts it, the message is in
    /// `staged/` again, and the next run moves it on.
    pub fn release(mut self) -> disk::Result<()> {
        self.locked.move_to(self.to)
    }
}
