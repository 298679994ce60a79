//! Claiming a message: lock, then check that the name still refers to the file.
//!
//! Absent, busy, corrupt and failed are four different results everywhere.

use std::sync::Arc;

use super::Spool;
use super::files::{Head, LISTED, another, is_marked, read_any_head, read_head};
use super::layout::{BucketQueue, Queue, reason_path};
use crate::disk::{self, File, Kind, Stat};
use crate::message::{Block, QueueId};

/// Result of [`Spool::lock`].
#[derive(Debug)]
#[must_use]
pub enum Claim {
    /// The message is not in that queue, or no longer.
    Absent,
    /// Another process holds the lock.
    Busy,
    /// The file is not a regular file.
    NotAFile,
    /// This process holds the lock.
    Locked(Locked),
}

/// A message file that this process has locked. Dropping it releases the lock.
#[derive(Debug)]
pub struct Locked {
    pub(super) spool: Spool,
    pub(super) id: QueueId,
    pub(super) queue: Queue,
    pub(super) file: Arc<File>,
    /// Octets of the file.
    pub(super) size: u64,
    /// The file's mode marks it as in use. Since this process has the lock, the process that marked it was
    /// interrupted.
    pub(super) is_marked: bool,
}

impl Spool {
    /// Locks the message `id` in a queue, without waiting.
    ///
    /// The lock is on the file, not on its name. So after locking, the name must still refer to this file,
    /// and the file must still have a name. If a power cut during a rename left two names, the later one is
    /// valid, and the other is removed.
    pub fn lock(&self, queue: Queue, id: QueueId) -> disk::Result<Claim> {
        let path = queue.path(id);
        let file = match self.disk.open_rw(&path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(Claim::Absent),
            Err(error) if error.is_wrong_kind() => return Ok(Claim::NotAFile),
            Err(error) => return Err(error),
        };
        if !self.disk.try_lock(&file)? {
            return Ok(Claim::Busy);
        }
        let stat = self.disk.stat_file(&file)?;
        if stat.kind != Kind::File {
            return Ok(Claim::NotAFile);
        }
        let same = |other: Stat| other.identity == stat.identity;
        if stat.links == 0 || !self.disk.stat(&path)?.is_some_and(same) {
            return Ok(Claim::Absent);
        }
        if stat.links > 1 && self.keep_latest_name(id, stat.identity)? != Some(queue) {
            return Ok(Claim::Absent);
        }
        Ok(Claim::Locked(Locked {
            spool: self.clone(),
            id,
            queue,
            file: Arc::new(file),
            size: stat.size,
            is_marked: is_marked(&stat),
        }))
    }

    /// Removes all of a message's names but the one in the latest queue, and returns that queue.
    pub(super) fn keep_latest_name(
        &self,
        id: QueueId,
        identity: (u64, u64),
    ) -> disk::Result<Option<Queue>> {
        let mut named = Vec::new();
        for queue in self.queues()? {
            let stat = self.stat_in(queue, id)?;
            if stat.is_some_and(|stat| stat.identity == identity) {
                named.push(queue);
            }
        }
        named.sort_unstable();
        let latest = named.pop();
        for queue in named {
            self.disk.unlink(&queue.path(id))?;
        }
        Ok(latest)
    }

    /// Returns every queue that may hold a message file: the fixed ones and the existing buckets.
    pub(super) fn queues(&self) -> disk::Result<Vec<Queue>> {
        let mut queues = Queue::FIXED.to_vec();
        for kept in BucketQueue::ALL {
            queues.extend(
                self.buckets(kept)?
                    .into_iter()
                    .map(|bucket| kept.queue(bucket)),
            );
        }
        Ok(queues)
    }
}

impl Locked {
    /// The message.
    #[cfg(feature = "testing")]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// The queue that it is in.
    #[cfg(feature = "testing")]
    pub fn queue(&self) -> Queue {
        self.queue
    }

    /// Returns the envelope block, if it can be trusted.
    pub(super) fn block(&self) -> disk::Result<Option<Block>> {
        Ok(self.head(LISTED)?.ok().map(|head| head.block))
    }

    pub(super) fn head(&self, first: usize) -> disk::Result<Result<Head, String>> {
        read_head(&self.spool.disk, &self.file, self.id, self.size, first)
    }

    /// Returns the reason if this is another message than its name says. If a file system loses a rename, a
    /// name may refer to the inode of a later message.
    pub(super) fn another(&self) -> disk::Result<Option<String>> {
        let head = read_any_head(&self.spool.disk, &self.file, self.size, LISTED)?;
        Ok(head.ok().and_then(|head| another(&head.block, self.id)))
    }

    /// Moves the message to `corrupt/`, with the reason beside it, for an operator to examine. The reason is
    /// written first: a message in quarantine always has one. Neither is synced; after a power cut the damage
    /// is found again.
    pub fn quarantine(mut self, reason: &str) -> disk::Result<()> {
        let disk = &self.spool.disk;
        let ours = disk.stat_file(&self.file)?.identity;
        let to = Queue::Corrupt.path(self.id);
        if disk.stat(&to)?.is_some_and(|there| there.identity != ours) {
            // Another file with the same id, placed there by hand. Nothing in quarantine is overwritten.
            return Err(disk.already_there(&to));
        }
        let path = reason_path(self.id);
        disk.unlink(&path)?;
        let file = disk.create(&path)?;
        disk.write_all(&file, format!("{reason}\n").as_bytes())?;
        self.move_to(Queue::Corrupt)
    }

    /// Moves the message to another queue.
    pub(super) fn move_to(&mut self, to: Queue) -> disk::Result<()> {
        self.spool.rename_to(&self.file, self.id, self.queue, to)?;
        self.queue = to;
        Ok(())
    }
}

impl Spool {
    /// Renames a message file from one queue to another. Every move goes through this function.
    pub(super) fn rename_to(
        &self,
        file: &File,
        id: QueueId,
        from: Queue,
        to: Queue,
    ) -> disk::Result<()> {
        /// Retries if another process removes the bucket just after it was made or found.
        const MAX_RACES: usize = 10;
        if from == to {
            return Ok(());
        }
        let (old, new) = (from.path(id), to.path(id));
        let mut races = 0;
        loop {
            let prepared = self.prepare_bucket(&to);
            match prepared.and_then(|()| self.disk.rename(file, &old, &new)) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_absent() && races < MAX_RACES => races += 1,
                Err(error) => return Err(error),
            }
        }
    }
}
