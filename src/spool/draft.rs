//! Acceptance: a message comes into being in `new/`, whole or not at all.
//!
//! The order of the writes is what makes it safe; each step says why. The commit points are
//! *accepted* ([`Draft::accept`]) and, for notices, *staged* ([`Draft::stage`]).

use std::path::Path;
use std::sync::Arc;

use super::keys::KeyLock;
use super::layout::{Info, Queue};
use super::lock::{Claim, Locked};
use super::reserve;
use super::view::{remove_view, write_view};
use super::{Entry, Located, Spool};
use crate::disk::{self, File};
use crate::message::{Entrance, Envelope, QueueId, SealHasher, Submission, block};
use crate::queue::QueueUntil;

/// Small messages are written with one call.
const BUFFER: usize = 64 << 10;

/// A message being written. Dropped before it is accepted or staged, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    spool: Spool,
    id: QueueId,
    envelope: Envelope,
    /// Open and locked, until the message is accepted or staged.
    file: Option<File>,
    /// Where its name is.
    queue: Queue,
    /// The envelope block, not sealed yet.
    block: Vec<u8>,
    /// What is not in the file yet: at first the block is in front of it.
    buffer: Vec<u8>,
    /// Whether anything is in the file.
    is_begun: bool,
    /// There may be no room: it is written at once, when it is whole, into a file of the reserve.
    is_reserved: bool,
    hasher: SealHasher,
}

/// A message that is whole and durable in `staged/`: a notice, until its origin has recorded it.
#[derive(Debug)]
pub struct Staged {
    locked: Locked,
    /// Where it is to stand.
    to: Queue,
}

/// What became of the wish to stage a notice.
#[derive(Debug)]
pub enum Staging {
    /// It is to be written.
    Fresh(Box<Draft>),
    /// Another process looks at it at this moment; try later.
    Busy,
}

impl Spool {
    /// Begins a message under the first of the ids that is free.
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

    /// The file is locked before an octet is written, and then looked at again as every locker does:
    /// a sweeper may have taken it for a leftover between the two calls. Then this attempt is over,
    /// and the sweeper tidies up.
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
                // It may have been made although the answer was lost; best effort, as below.
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

    /// Begins a notice, whose id is given by its cause. The caller holds the origin's lock.
    /// One that an earlier holder staged and did not record is written again: that process may have
    /// seen a sync fail, and then a later one that succeeds says nothing.
    ///
    /// One that `may_use_reserve` is written where there is no other room.
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
        // A history that a power cut brought back of a notice with this id would say that this one is
        // delivered.
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

    /// Octets of the message so far.
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

    /// Makes the message whole and its file durable, under the name that it has in `new/`.
    fn seal(&mut self) -> disk::Result<()> {
        block::close(&mut self.block, self.hasher.size(), self.hasher.digest());
        // The view comes first, because only a message that is locked by its acceptor may have its
        // view written: what a runner has finished must not get one again.
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
        // One of the reserve is locked since it was claimed; and then the path is this file.
        disk.try_lock(&file)?;
        let synced = disk.sync_file(&file);
        self.file = Some(file);
        synced
    }

    /// Accepts the message (commit point *accepted*): fsync of the file, rename to its directory, fsync of
    /// that directory. The file comes first, since a name outside `new/` says that the message is whole.
    ///
    /// After an error nothing is left behind, and nothing may be believed: not even a later success of
    /// the same sync. `accepted` is called at the commit point, before anything else that may take time.
    pub fn accept(mut self, accepted: impl FnOnce()) -> disk::Result<QueueId> {
        let to = entrance(&self.envelope.submission);
        self.seal()?;
        self.enter(to)?;
        accepted();
        self.file = None;
        Ok(self.id)
    }

    /// As [`accept`](Draft::accept), under a key that no message has (commit point *keyed*).
    ///
    /// The record that names the message becomes durable first: a message that is accepted without one
    /// would be accepted again.
    pub fn accept_keyed(mut self, lock: KeyLock, accepted: impl FnOnce()) -> disk::Result<QueueId> {
        let Some(keyed) = self.envelope.submission.key.clone() else {
            return self.accept(accepted);
        };
        let intended = lock.intend(self.id, keyed)?;
        let to = entrance(&self.envelope.submission);
        if let Err(error) = self.seal().and_then(|()| self.enter(to)) {
            // First the message: a record without one says nothing. One that cannot be removed has the key, as
            // after a kill.
            if self.give_up() {
                intended.take_back();
            }
            return Err(error);
        }
        accepted();
        let lock = intended.count();
        // The lock of the message goes first: the next holder of the key looks for it.
        self.file = None;
        drop(lock);
        Ok(self.id)
    }

    /// Renames the file, which is durable, and makes its new name durable.
    fn enter(&mut self, to: Queue) -> disk::Result<()> {
        let Some(file) = &self.file else {
            unreachable!("a draft has its file until it is accepted")
        };
        let spool = &self.spool;
        spool.rename_to(file, self.id, self.queue, to)?;
        self.queue = to;
        spool.disk.durable(&[], &[&to.dir()])
    }

    /// Makes the message durable in `staged/` (commit point *staged*), where it waits to be recorded by
    /// its origin.
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
    /// Failures are no news: nothing was acknowledged.
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Draft {
    /// Unlinks what was made, under the lock, the message file last: what is left of it in `new/` the next
    /// run removes, with its view. False if the message is left where a run would deliver it.
    fn give_up(&mut self) -> bool {
        let Some(file) = self.file.take() else {
            return true;
        };
        let Draft {
            spool, id, queue, ..
        } = self;
        // A view that cannot be removed now goes with the message, which stays in `new/`, or goes back there.
        let is_kept = remove_view(&spool.disk, *id).is_err()
            && spool.rename_to(&file, *id, *queue, Queue::New).is_ok();
        is_kept || spool.disk.unlink(&queue.path(*id)).is_ok() || *queue == Queue::New
    }
}

/// Where a message goes from `new/`.
pub(super) fn entrance(submission: &Submission) -> Queue {
    match (submission.release, submission.entrance) {
        (Some(release), _) => Queue::from(QueueUntil::Deferred(release)),
        (None, Entrance::Incoming) => Queue::Incoming,
        (None, Entrance::Active) => Queue::Active,
    }
}

impl Locked {
    /// Removes a message that was never acknowledged, its file last.
    pub(super) fn remove(self) -> disk::Result<()> {
        let disk = &self.spool.disk;
        remove_view(disk, self.id)?;
        disk.unlink(&self.queue.path(self.id)).map(drop)
    }
}

impl Staged {
    /// A message that another process left in `staged/`.
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

    /// Moves the message to its queue. The rename is not synced: a power cut that takes it back
    /// leaves the message in `staged/`, and the next run moves it on.
    pub fn release(mut self) -> disk::Result<()> {
        self.locked.move_to(self.to)
    }
}
