//! Submission keys: which submissions must not be accepted twice, and for how long.
//!
//! `keys/new/<hash>` names the message that is about to take a key. `keys/<hour>/<hash>` names the message
//! that has it, in the bucket of the hour in which the key expires. The first record is durable before its
//! message is *accepted*, and is valid while the message is outside `new/`. Then it is renamed into its
//! bucket, where it is valid on its own. No message is forgotten before its record is there, durably. So if
//! the message of a record in `keys/new/` does not exist, it was never accepted. `spool-layout.md` has the
//! argument (commit point *keyed*).
//!
//! All of this happens under the key's lock, a file in `keys/lock/` that exists while it is held. A killed
//! process leaves the file; the next purge removes it.

mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::record::{MOST, Record};
use super::Spool;
use super::layout::{INTENDED_KEYS, KEY_LOCKS, KEYS, Queue, key_bucket};
use super::locate::{Doubt, Located};
use super::lock::Claim;
use crate::disk::{self, File, Kind};
use crate::message::{Keyed, QueueId, SubmissionKey};
use crate::queue::Bucket;

/// How long to wait for another submission of the same key: as long as a barrier may take on a busy disk.
/// After that the key counts as busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the lock is tried while waiting.
const LOOK: Duration = Duration::from_millis(1);

/// A key's lock. Dropping the last clone releases it.
#[derive(Clone, Debug)]
pub struct KeyLock(Arc<Held>);

#[derive(Debug)]
struct Held {
    spool: Spool,
    /// The file name of the key's files.
    hash: String,
    /// Holds the lock.
    _file: File,
}

impl Drop for Held {
    /// Removes the file while the lock is held: a process that opened it meanwhile finds that it has no name.
    /// Best effort: a file that remains is used by the next holder.
    fn drop(&mut self) {
        let path = Path::new(KEY_LOCKS).join(&self.hash);
        let _ = self.spool.disk.unlink(&path);
    }
}

/// Which message has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No message has it.
    None,
    /// This message, which is accepted.
    Message(QueueId),
    /// A message with an unfinished submission, which another process is examining.
    Busy,
}

/// A durable record of a message not yet accepted, under the key's lock.
#[derive(Debug)]
pub(super) struct Intended {
    lock: KeyLock,
    file: File,
    record: Record,
}

impl Spool {
    /// Whether a name, without its directory, is one that a key's files have.
    pub fn is_key_name(name: &str) -> bool {
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        name.len() == 32 && name.bytes().all(is_hex)
    }

    /// Whether a record in a bucket is damaged or in the wrong place. With `remove`, removes it if so.
    pub fn is_damaged_key(&self, path: &Path, remove: bool) -> disk::Result<bool> {
        let hash = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let _lock = if remove {
            match self.try_lock_key(hash)? {
                None => return Ok(false),
                held => held,
            }
        } else {
            None
        };
        let sound = |record: &Record| record.bucket().join(record.keyed.key.hash()) == path;
        let there = self.disk.stat(path)?.is_some();
        let damaged = there && !self.key_record(path)?.as_ref().is_some_and(sound);
        if damaged && remove {
            self.disk.unlink(path)?;
        }
        Ok(damaged)
    }

    /// Returns which message has a key at a time, without taking the key's lock. `None` may be wrong: the
    /// record may still be in `keys/new/`.
    pub fn key_holder(&self, key: &SubmissionKey, at: Timestamp) -> disk::Result<Option<QueueId>> {
        self.counted(&key.hash(), key, at)
    }

    /// Takes the lock of a key. Returns `None` if another process holds it too long.
    pub fn lock_key(&self, key: &SubmissionKey) -> disk::Result<Option<KeyLock>> {
        let end = Instant::now() + self.disk.patience(PATIENCE);
        loop {
            match self.try_lock_key(&key.hash())? {
                None if Instant::now() < end => std::thread::sleep(LOOK),
                other => return Ok(other),
            }
        }
    }

    pub(super) fn try_lock_key(&self, hash: &str) -> disk::Result<Option<KeyLock>> {
        /// The holder removes the file at release, so the name may change between open and lock.
        const MAX_TRIES: usize = 10;
        self.make_keys()?;
        let path = Path::new(KEY_LOCKS).join(hash);
        for _ in 0..MAX_TRIES {
            let file = self.disk.open_append(&path)?;
            if !self.disk.try_lock(&file)? {
                return Ok(None);
            }
            let ours = self.disk.stat_file(&file)?.identity;
            if self
                .disk
                .stat(&path)?
                .is_some_and(|there| there.identity == ours)
            {
                let (spool, hash) = (self.clone(), hash.to_owned());
                let held = Held {
                    spool,
                    hash,
                    _file: file,
                };
                return Ok(Some(KeyLock(Arc::new(held))));
            }
        }
        Ok(None)
    }

    /// Creates the directories: older programs made spools without `keys/`. The directory of the locks is
    /// made after the others are durable, so if it exists, they are.
    fn make_keys(&self) -> disk::Result<()> {
        let (keys, new, locks) = (
            Path::new(KEYS),
            Path::new(INTENDED_KEYS),
            Path::new(KEY_LOCKS),
        );
        if self.disk.stat(locks)?.is_some() {
            return Ok(());
        }
        self.disk.mkdir(keys)?;
        self.disk.mkdir(new)?;
        self.disk.durable(&[], &[Path::new("."), keys])?;
        self.disk.mkdir(locks).map(drop)
    }

    /// Returns the message that has a key by a record in a bucket. If there are two, which only a wrong clock
    /// explains, the later one is returned.
    fn counted(
        &self,
        hash: &str,
        key: &SubmissionKey,
        at: Timestamp,
    ) -> disk::Result<Option<QueueId>> {
        for bucket in self.key_buckets()?.into_iter().rev() {
            let path = key_bucket(bucket).join(hash);
            if let Some(record) = self.key_record(&path)?
                && record.keyed.key == *key
                && record.keyed.until > at
            {
                return Ok(Some(record.id));
            }
        }
        Ok(None)
    }

    /// Returns the buckets of keys, earliest first. A symbolic link with a bucket's name is ignored: it would
    /// lead to files outside the spool.
    fn key_buckets(&self) -> disk::Result<Vec<Bucket>> {
        let names = self.names_in(Path::new(KEYS))?;
        let named = |name: &std::ffi::OsString| name.to_str()?.parse::<Bucket>().ok();
        let mut buckets = Vec::with_capacity(names.len());
        for bucket in names.iter().filter_map(named) {
            let stat = self.disk.stat(&key_bucket(bucket))?;
            if bucket != Bucket::Never && stat.is_some_and(|stat| stat.kind == Kind::Dir) {
                buckets.push(bucket);
            }
        }
        buckets.sort_unstable();
        Ok(buckets)
    }

    /// Reads a record. Returns `None` if it is missing or damaged.
    fn key_record(&self, path: &Path) -> disk::Result<Option<Record>> {
        match self.disk.read_all(path, MOST) {
            Ok(bytes) => Ok(Record::parse(&bytes)),
            Err(error) if error.is_absent() || error.is_wrong_kind() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the record is in its bucket.
    fn is_counted(&self, record: &Record, hash: &str) -> disk::Result<bool> {
        let there = self.key_record(&record.bucket().join(hash))?;
        Ok(there.is_some_and(|there| there.id == record.id))
    }

    /// Before a message is forgotten: moves the record of its key, if any, into its bucket. Returns the
    /// directory that must be durable before the message's files are unlinked, if any; the outer `None` if
    /// another process holds the key's lock.
    pub(super) fn keep_key(&self, id: QueueId) -> disk::Result<Option<Option<PathBuf>>> {
        let block = match self.peek(id, Queue::Done) {
            // Another process has forgotten it.
            Err(error) if error.is_absent() => None,
            other => other?,
        };
        self.keep_key_of(id, block.and_then(|block| block.envelope.submission.key))
    }

    /// Like [`keep_key`](Spool::keep_key), for a message with a known key.
    pub(super) fn keep_key_of(
        &self,
        id: QueueId,
        keyed: Option<Keyed>,
    ) -> disk::Result<Option<Option<PathBuf>>> {
        let Some(keyed) = keyed else {
            return Ok(Some(None));
        };
        let hash = keyed.key.hash();
        let record = Record { id, keyed };
        let dir = Some(record.bucket());
        if self.is_counted(&record, &hash)? {
            return Ok(Some(dir));
        }
        let path = Path::new(INTENDED_KEYS).join(&hash);
        let is_intended = |there: Option<Record>| there.is_some_and(|there| there.id == id);
        if !is_intended(self.key_record(&path)?) {
            // The key has expired, or the record was removed by hand; or it was moved between the two checks.
            let counted = self.is_counted(&record, &hash)?;
            return Ok(Some(dir.filter(|_| counted)));
        }
        let Some(lock) = self.try_lock_key(&hash)? else {
            return Ok(None);
        };
        lock.count(&record)?;
        Ok(Some(dir))
    }

    /// Whether any key is recorded. If not, the messages' keys need not be read. An empty result is reliable:
    /// a record's bucket is made before the record, and is removed if its name may not be durable.
    pub(super) fn has_keys(&self) -> disk::Result<bool> {
        if !self.key_buckets()?.is_empty() {
            return Ok(true);
        }
        Ok(!self.names_in(Path::new(INTENDED_KEYS))?.is_empty())
    }

    /// Forgets expired keys, and removes what killed processes left. Call this after `new/` has been swept.
    /// The cost is proportional to the number of buckets and of removed keys. Returns the errors; the rest is
    /// done regardless.
    pub fn purge_keys(&self, now: Timestamp) -> Vec<disk::Error> {
        let mut failed = Vec::new();
        let mut note = |result: disk::Result<()>| failed.extend(result.err());
        match self.key_buckets() {
            Ok(buckets) => {
                let over = |bucket: &Bucket| bucket.due().is_some_and(|due| due <= now);
                for bucket in buckets.into_iter().filter(over) {
                    note(self.purge_bucket(bucket));
                }
            }
            Err(error) => note(Err(error)),
        }
        match self.names_in(Path::new(INTENDED_KEYS)) {
            Ok(names) => {
                for name in key_names(&names) {
                    note(self.tidy_intended(&name, now));
                }
            }
            Err(error) => note(Err(error)),
        }
        match self.names_in(Path::new(KEY_LOCKS)) {
            Ok(names) => {
                for name in key_names(&names) {
                    // If the lock is free, a killed process left the file: releasing the lock removes it.
                    note(self.try_lock_key(&name).map(drop));
                }
            }
            Err(error) => note(Err(error)),
        }
        failed
    }

    fn purge_bucket(&self, bucket: Bucket) -> disk::Result<()> {
        let dir = key_bucket(bucket);
        for name in key_names(&self.names_in(&dir)?) {
            self.disk.unlink(&dir.join(name))?;
        }
        // No sync before: a name that a power cut brings back belongs to an expired key.
        self.disk.rmdir(&dir).map(drop)
    }

    fn tidy_intended(&self, name: &str, now: Timestamp) -> disk::Result<()> {
        match self.try_lock_key(name)? {
            Some(lock) => lock.tidy(now),
            None => Ok(()),
        }
    }
}

fn key_names(names: &[std::ffi::OsString]) -> Vec<String> {
    let names = names.iter().filter_map(|name| name.to_str());
    let names = names.filter(|name| Spool::is_key_name(name));
    names.map(str::to_owned).collect()
}

impl KeyLock {
    fn intended_path(&self) -> PathBuf {
        Path::new(INTENDED_KEYS).join(&self.0.hash)
    }

    /// Returns which message has the key for a submission at a time.
    pub fn holder(&self, key: &SubmissionKey, at: Timestamp) -> disk::Result<Holder> {
        let end = Instant::now() + self.0.spool.disk.patience(PATIENCE);
        loop {
            match self.look(key, at)? {
                Holder::Busy if Instant::now() < end => std::thread::sleep(LOOK),
                other => return Ok(other),
            }
        }
    }

    fn look(&self, key: &SubmissionKey, at: Timestamp) -> disk::Result<Holder> {
        let Held { spool, hash, .. } = &*self.0;
        // In this order: a record moves from `keys/new/` to a bucket, never back.
        let intended = spool.key_record(&self.intended_path())?;
        if let Some(id) = spool.counted(hash, key, at)? {
            return Ok(Holder::Message(id));
        }
        if let Some(record) =
            intended.filter(|record| record.keyed.key == *key && record.keyed.until > at)
        {
            match spool.locate_settled(record.id)? {
                // The acceptor held this lock before, and was killed or failed.
                Located::At(Queue::New) | Located::Absent => {}
                // It is unknown whether the key is free.
                Located::Uncertain(Doubt::Moving) => return Ok(Holder::Busy),
                Located::Uncertain(Doubt::Unread(error)) => return Err(error),
                // The message is accepted, because it is outside `new/`.
                Located::At(queue) => {
                    if spool.name_again(record.id, queue)? {
                        self.count_later(&record)?;
                        return Ok(Holder::Message(record.id));
                    } else {
                        return Ok(Holder::Busy);
                    }
                }
            }
            // The message may have been finished meanwhile. If so, its record was moved to its bucket first.
            if let Some(id) = spool.counted(hash, key, at)? {
                return Ok(Holder::Message(id));
            }
        }
        spool.disk.unlink(&self.intended_path())?;
        Ok(Holder::None)
    }

    /// Writes the record of a message that is about to be accepted, and its bucket, durably. After the
    /// acceptance no further sync is needed.
    pub(super) fn intend(self, id: QueueId, keyed: Keyed) -> disk::Result<Intended> {
        let spool = &self.0.spool;
        let disk = &spool.disk;
        let record = Record { id, keyed };
        let path = self.intended_path();
        spool.prepare_dir(Path::new(KEYS), record.bucket())?;
        disk.unlink(&path)?;
        let written = disk.create(&path).and_then(|file| {
            disk.write_all(&file, record.text().as_bytes())?;
            disk.durable(&[&file], &[Path::new(INTENDED_KEYS)])?;
            Ok(file)
        });
        match written {
            Ok(file) => Ok(Intended {
                lock: self,
                file,
                record,
            }),
            Err(error) => {
                // Best effort: a record without a message has no effect.
                let _ = disk.unlink(&path);
                Err(error)
            }
        }
    }

    /// Moves the record of an accepted message to its bucket, after making the bucket's name durable.
    fn count(&self, record: &Record) -> disk::Result<()> {
        let Held { spool, hash, .. } = &*self.0;
        let (path, bucket) = (self.intended_path(), record.bucket());
        let file = match spool.disk.open_read(&path) {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        // A power cut during the rename left two names; a rename would keep both.
        if spool.is_counted(record, hash)? {
            return spool.disk.unlink(&path).map(drop);
        }
        spool.prepare_dir(Path::new(KEYS), bucket.clone())?;
        spool.disk.rename(&file, &path, &bucket.join(hash))
    }

    /// Moves the record now if possible. Otherwise the process that forgets the message does it.
    fn count_later(&self, record: &Record) -> disk::Result<()> {
        if let Err(error) = self.count(record) {
            tracing::warn!(id = %record.id, %error, "its key is left in keys/new/");
        }
        Ok(())
    }

    /// Settles a record that a killed process left in `keys/new/`.
    fn tidy(&self, now: Timestamp) -> disk::Result<()> {
        let spool = &self.0.spool;
        let Some(record) = spool.key_record(&self.intended_path())? else {
            // Torn or gone: its message was not accepted.
            return spool.disk.unlink(&self.intended_path()).map(drop);
        };
        match spool.locate_settled(record.id)? {
            _ if record.keyed.until <= now => {}
            // The state of a message that was not found is unknown.
            Located::Uncertain(_) => return Ok(()),
            Located::At(Queue::New) => {}
            // In a bucket the record is valid without its message, so the message's name must be durable
            // first.
            Located::At(queue) => {
                if spool.name_again(record.id, queue)? {
                    return self.count(&record);
                } else {
                    return Ok(());
                }
            }
            // Never accepted; or forgotten, and its record is in its bucket.
            Located::Absent => {}
        }
        spool.disk.unlink(&self.intended_path()).map(drop)
    }
}

impl Intended {
    /// Moves the record to its bucket after the message is accepted. Not synced: if a power cut reverts the
    /// rename, the record is in `keys/new/` and its message exists. Returns the lock.
    pub(super) fn count(self) -> KeyLock {
        let Held { spool, hash, .. } = &*self.lock.0;
        let (path, bucket) = (self.lock.intended_path(), self.record.bucket());
        // If the bucket was purged meanwhile, or made again and not durable, leave the record: it is valid
        // where it is, and no sync is needed now.
        let renamed = match spool.is_durable_bucket(&bucket) {
            Ok(true) => spool.disk.rename(&self.file, &path, &bucket.join(hash)),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = renamed {
            tracing::warn!(%error, "a key is left in keys/new/ for the next run");
        }
        self.lock
    }

    /// Removes the record of a message that was not accepted. Best effort: without the message it has no
    /// effect.
    pub(super) fn take_back(&self) {
        let _ = self.lock.0.spool.disk.unlink(&self.lock.intended_path());
    }
}

impl Spool {
    /// Like [`locate_for_good`](Spool::locate_for_good). If a power cut left the message with two names, one
    /// in `new/` and one later, it is accepted, and the later name is returned.
    fn locate_settled(&self, id: QueueId) -> disk::Result<Located> {
        let located = self.locate_for_good(id)?;
        if let Located::At(Queue::New) = located {
            return match self.lock(Queue::New, id)? {
                // Taking the lock has removed the earlier name, if there were two.
                Claim::Locked(_) => Ok(located),
                Claim::Busy => Ok(Located::Uncertain(Doubt::Moving)),
                Claim::Absent | Claim::NotAFile => self.locate_for_good(id),
            };
        }
        Ok(located)
    }

    /// Makes the name of a message durable. Its acceptor may have been killed before its sync, or the sync
    /// may have failed, so the message is renamed away and back. Returns false if another process holds the
    /// message, or if it was not found.
    ///
    /// In between the message is in `staged/`, from where the next run would move it to its queue.
    fn name_again(&self, id: QueueId, queue: Queue) -> disk::Result<bool> {
        // A finished message is not forgotten before its key is in its bucket.
        if queue == Queue::Done {
            return Ok(true);
        }
        let Claim::Locked(mut locked) = self.lock(queue, id)? else {
            return Ok(false);
        };
        locked.move_to(Queue::Staged)?;
        locked.move_to(queue)?;
        self.disk.durable(&[], &[&queue.dir()])?;
        Ok(true)
    }
}
