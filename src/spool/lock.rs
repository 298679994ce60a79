//! Claiming a message: lock, check that the name still refers to the file, then read and verify.
//!
//! A locked message ([`Locked`]) and a verified one ([`Entry`]) are different types: no operation uses an
//! envelope that was not verified under the lock. Absent, busy, corrupt and failed are four different results
//! everywhere.

use std::sync::Arc;

use super::entry::Entry;
use super::layout::{Info, Queue, history_part, reason_path};
use super::{BucketQueue, Spool};
use crate::disk::{self, Disk, FILE_MODE, File, IN_USE_MODE, Kind, Stat};
use crate::message::block::HEAD;
use crate::message::{Block, QueueId, Seal, SealHasher};
use crate::queue::History;

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

/// Why a locked message could not be read.
#[derive(Debug)]
pub enum Unreadable {
    /// The message is damaged. It can be quarantined with this reason.
    Corrupt(Locked, String),
    /// A system call failed; this says nothing about the message.
    Failed(disk::Error),
}

impl From<disk::Error> for Unreadable {
    fn from(error: disk::Error) -> Unreadable {
        Unreadable::Failed(error)
    }
}

/// Octets of a message file read at once, envelope block included.
const FIRST: usize = 64 << 10;

/// Octets read if only the envelope matters.
pub(super) const LISTED: usize = 4 << 10;

/// The beginning of a message file.
pub(super) struct Head {
    pub block: Block,
    /// Message octets read beyond the block.
    pub message: Vec<u8>,
}

/// Reads the envelope block of a message file of `size` octets, starting with a read of `first` octets.
/// Returns the reason if the block cannot be trusted.
pub(super) fn read_head(
    disk: &Disk,
    file: &File,
    id: QueueId,
    size: u64,
    first: usize,
) -> disk::Result<Result<Head, String>> {
    let head = read_any_head(disk, file, size, first)?;
    Ok(head.and_then(|head| match another(&head.block, id) {
        Some(reason) => Err(reason),
        None => Ok(head),
    }))
}

/// Returns the reason if a block belongs to another message than the file name says.
fn another(block: &Block, id: QueueId) -> Option<String> {
    let says = block.id;
    (says != id).then(|| format!("it is another message: its envelope block says {says}"))
}

fn read_any_head(
    disk: &Disk,
    file: &File,
    size: u64,
    first: usize,
) -> disk::Result<Result<Head, String>> {
    let mut bytes = vec![0; first.max(HEAD)];
    let got = fill(disk, file, &mut bytes, 0)?;
    bytes.truncate(got);
    let seal = match Seal::parse(&bytes) {
        Ok(seal) => seal,
        Err(error) => return Ok(Err(error.to_string())),
    };
    // Check the size first: a block that is partly missing is not read.
    if seal.file_size() != size {
        let sealed = seal.file_size();
        let reason = format!("the message file has {size} octets, the seal says {sealed}");
        return Ok(Err(reason));
    }
    let length = usize::try_from(seal.block).unwrap_or(usize::MAX);
    if bytes.len() < length {
        let have = bytes.len();
        bytes.resize(length, 0);
        let got = fill(disk, file, &mut bytes[have..], have as u64)?;
        bytes.truncate(have + got);
    }
    let message = bytes.split_off(length.min(bytes.len()));
    let block = match Block::parse(&bytes) {
        Ok(block) => block,
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(Ok(Head { block, message }))
}

/// Whether the mode of a message file says that it is in use.
pub(super) fn is_marked(stat: &Stat) -> bool {
    stat.mode & IN_USE_MODE & !FILE_MODE != 0
}

/// Reads until `bytes` is full or the file ends.
fn fill(disk: &Disk, file: &File, bytes: &mut [u8], offset: u64) -> disk::Result<usize> {
    let mut have = 0;
    while have < bytes.len() {
        match disk.read_at(file, &mut bytes[have..], offset + have as u64)? {
            0 => break,
            got => have += got,
        }
    }
    Ok(have)
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

    /// Reads one of a message's other files. Returns `None` if it does not exist.
    pub(super) fn read_info(&self, info: Info, id: QueueId) -> disk::Result<Option<Vec<u8>>> {
        match self.disk.read_all(&info.path(id), info.most()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A history as read from its file.
pub(super) struct Found {
    pub history: History,
    /// Octets of its file; `None` if there is no file.
    pub size: Option<u64>,
}

impl Spool {
    /// Reads the history of a message. Returns the reason if it cannot be trusted: it is damaged, or it has a
    /// second name. This program never makes one, so an append would go to a foreign file.
    pub(super) fn read_history(&self, id: QueueId) -> disk::Result<Result<Found, String>> {
        let path = Info::History.path(id);
        let read = self.disk.open_read(&path).and_then(|file| {
            let stat = self.disk.stat_file(&file)?;
            Ok((stat, self.disk.read_file(&file, Info::History.most())?))
        });
        let (stat, bytes) = match read {
            Ok(read) => read,
            Err(error) if error.is_absent() => {
                let history = History::default();
                let size = None;
                return Ok(Ok(Found { history, size }));
            }
            Err(error) if error.is_wrong_kind() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        if stat.links > 1 {
            // A power cut while a rewritten history is renamed leaves it with both names.
            let part = self.disk.stat(&history_part(id))?;
            if stat.links != 2 || part.is_none_or(|part| part.identity != stat.identity) {
                let names = stat.links;
                return Ok(Err(format!(
                    "its history has {names} names: it is a hard link to a foreign file"
                )));
            }
        }
        Ok(match History::parse(&bytes) {
            Ok(history) => {
                let size = Some(bytes.len() as u64);
                Ok(Found { history, size })
            }
            Err(error) => Err(error.to_string()),
        })
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

    /// Reads the envelope and the history, and checks the seal against every octet. Only under the lock can
    /// no other process change them.
    pub fn read(self) -> Result<Entry, Unreadable> {
        let id = self.id;
        let most = usize::try_from(self.size).unwrap_or(usize::MAX);
        let head = match self.head(most.min(FIRST))? {
            Ok(head) => head,
            Err(reason) => return Err(Unreadable::Corrupt(self, reason)),
        };
        let Head { block, message } = head;
        if self.digest(&block.seal, &message)? != block.seal.message {
            let reason = "the message does not match its seal".to_owned();
            return Err(Unreadable::Corrupt(self, reason));
        }
        let found = match self.spool.read_history(id)? {
            Ok(found) => found,
            Err(reason) => return Err(Unreadable::Corrupt(self, reason)),
        };
        // Keep a small message in memory, so that it need not be read again.
        let bytes = (message.len() as u64 == block.seal.size).then(|| message.into());
        let entry = Entry::new(self, block, bytes, found);
        // The state of a recipient belongs to a single line of the block.
        if entry.state().recipients.len() < entry.envelope().recipients.len() {
            let reason = "its envelope block names a recipient twice".to_owned();
            return Err(Unreadable::Corrupt(entry.into_locked(), reason));
        }
        Ok(entry)
    }

    /// Returns the envelope block, if it can be trusted.
    pub(super) fn block(&self) -> disk::Result<Option<Block>> {
        Ok(self.head(LISTED)?.ok().map(|head| head.block))
    }

    fn head(&self, first: usize) -> disk::Result<Result<Head, String>> {
        read_head(&self.spool.disk, &self.file, self.id, self.size, first)
    }

    /// Returns the reason if this is another message than its name says. If a file system loses a rename, a
    /// name may refer to the inode of a later message.
    pub(super) fn another(&self) -> disk::Result<Option<String>> {
        let head = read_any_head(&self.spool.disk, &self.file, self.size, LISTED)?;
        Ok(head.ok().and_then(|head| another(&head.block, self.id)))
    }

    /// Returns the checksum of the message, of which `begin` has been read.
    fn digest(&self, seal: &Seal, begin: &[u8]) -> disk::Result<u128> {
        let mut hasher = SealHasher::new();
        hasher.update(begin);
        let mut chunk = Vec::new();
        while hasher.size() < seal.size {
            chunk.resize(FIRST, 0);
            let at = seal.block + hasher.size();
            let got = self.spool.disk.read_at(&self.file, &mut chunk, at)?;
            if got == 0 {
                break;
            }
            hasher.update(&chunk[..got]);
        }
        Ok(hasher.digest())
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
