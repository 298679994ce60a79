//! Submission keys: what must not be accepted twice, and for how long.
//!
//! `keys/new/<hash>` names the id that is about to have a key, `keys/<hour>/<hash>` the one that
//! has it, in the bucket of the hour in which that ends. The first is durable before its message is
//! *accepted*; it counts if its message stands outside `new/`. Then it is
//! renamed into its bucket, where it counts by itself. No message is forgotten before its key is
//! there, durably. So of a record in `keys/new/` whose message is nowhere, the message never was
//! accepted. `spool-layout.md` has the argument (commit point *keyed*).
//!
//! All that is done under the key's lock, a file in `keys/lock/` that is there as long as it is
//! held, or until somebody tidies up behind a process that was killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::layout::{INTENDED_KEYS, KEY_LOCKS, KEYS, Queue};
use super::lock::Claim;
use super::{Doubt, Located, Spool};
use crate::disk::{self, File, Kind};
use crate::message::key::parse_time;
use crate::message::{Keyed, QueueId, SubmissionKey};
use crate::queue::Bucket;

/// So long somebody else's submission of the same key is waited for: as long as a barrier may
/// take on a busy disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// So often it is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// No record is longer.
const MOST: u64 = 4 << 10;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    id: QueueId,
    keyed: Keyed,
}

/// A key's lock. Dropping the last clone lets it go.
#[derive(Clone, Debug)]
pub struct KeyLock(Arc<Held>);

#[derive(Debug)]
struct Held {
    spool: Spool,
    /// The name of the key's files.
    hash: String,
    /// Has the lock.
    _file: File,
}

impl Drop for Held {
    /// The file goes while the lock is held: who opened it meanwhile finds that it has no name any
    /// more. Best effort: one that stays is taken by whoever comes next.
    fn drop(&mut self) {
        let path = Path::new(KEY_LOCKS).join(&self.hash);
        let _ = self.spool.disk.unlink(&path);
    }
}

/// Who has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// This message, which is accepted.
    Message(QueueId),
    /// A message whose submission was cut off, and which somebody looks at at this moment.
    Busy,
}

/// A record that is durable, of a message that is not accepted yet, under the key's lock.
#[derive(Debug)]
pub(super) struct Intended {
    lock: KeyLock,
    file: File,
    record: Record,
}

impl Record {
    fn text(&self) -> String {
        let Record { id, keyed } = self;
        let Keyed { key, until } = keyed;
        let lines = format!("id: {id}\nuntil: {until}\nkey: {key}\n");
        format!("{lines}sum: xxh128 {:032x}\n", xxh3_128(lines.as_bytes()))
    }

    /// What is torn is no record.
    fn parse(bytes: &[u8]) -> Option<Record> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split('\n');
        let mut value = |name| lines.next()?.strip_prefix(name);
        let id = value("id: ")?.parse().ok()?;
        let until = parse_time(value("until: ")?)?;
        let key = SubmissionKey::from_xtext(value("key: ")?)?;
        let record = Record {
            id,
            keyed: Keyed { key, until },
        };
        (record.text() == text).then_some(record)
    }

    fn bucket(&self) -> PathBuf {
        bucket_of(self.keyed.until)
    }
}

/// The bucket of what ends at a time, one for each hour.
fn bucket_of(until: Timestamp) -> PathBuf {
    Path::new(KEYS).join(Bucket::for_hour(until).to_string())
}

impl Spool {
    /// Whether a name, without its directory, is one that a key's files have.
    pub fn is_key_name(name: &str) -> bool {
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        name.len() == 32 && name.bytes().all(is_hex)
    }

    /// Whether the record of a key in a bucket says nothing, or not what its place says; with
    /// `remove`, such a one is removed.
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

    /// Who has a key at a time, as far as that can be said without its lock: that nobody has it
    /// may be wrong.
    pub fn key_holder(&self, key: &SubmissionKey, at: Timestamp) -> disk::Result<Option<QueueId>> {
        self.counted(&key.hash(), key, at)
    }

    /// Takes the lock of a key; none if somebody has it for too long.
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
        /// Whoever lets go removes the file.
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

    /// Spools that older programs made have no `keys/`. The directory of the locks is made when
    /// the others are durable: who finds it finds that.
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

    /// The message that has a key by a record that counts by itself. Of two, which only a clock
    /// that was wrong explains, the later.
    fn counted(
        &self,
        hash: &str,
        key: &SubmissionKey,
        at: Timestamp,
    ) -> disk::Result<Option<QueueId>> {
        for bucket in self.key_buckets()?.into_iter().rev() {
            let path = Path::new(KEYS).join(bucket.to_string()).join(hash);
            if let Some(record) = self.key_record(&path)?
                && record.keyed.key == *key
                && record.keyed.until > at
            {
                return Ok(Some(record.id));
            }
        }
        Ok(None)
    }

    /// The buckets of keys, earliest first. A link with a bucket's name is none: it would lead us
    /// to files that are not in this spool.
    fn key_buckets(&self) -> disk::Result<Vec<Bucket>> {
        let names = self.names_in(Path::new(KEYS))?;
        let named = |name: &std::ffi::OsString| name.to_str()?.parse::<Bucket>().ok();
        let mut buckets = Vec::with_capacity(names.len());
        for bucket in names.iter().filter_map(named) {
            let stat = self.disk.stat(&Path::new(KEYS).join(bucket.to_string()))?;
            if bucket != Bucket::Never && stat.is_some_and(|stat| stat.kind == Kind::Dir) {
                buckets.push(bucket);
            }
        }
        buckets.sort_unstable();
        Ok(buckets)
    }

    /// Reads a record; none if there is none, or none that can be believed.
    fn key_record(&self, path: &Path) -> disk::Result<Option<Record>> {
        match self.disk.read_all(path, MOST) {
            Ok(bytes) => Ok(Record::parse(&bytes)),
            Err(error) if error.is_absent() || error.is_wrong_kind() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the record stands in its bucket.
    fn is_counted(&self, record: &Record, hash: &str) -> disk::Result<bool> {
        let there = self.key_record(&record.bucket().join(hash))?;
        Ok(there.is_some_and(|there| there.id == record.id))
    }

    /// Before a message is forgotten: has the record of its key, if there is one, stand where it
    /// counts by itself. Returns the directory that must be durable before anything of the message
    /// goes, if there is one; none at all if somebody has the key in hand.
    pub(super) fn keep_key(&self, id: QueueId) -> disk::Result<Option<Option<PathBuf>>> {
        let block = match self.peek(id, Queue::Done) {
            // Another process has forgotten it.
            Err(error) if error.is_absent() => None,
            other => other?,
        };
        self.keep_key_of(id, block.and_then(|block| block.envelope.submission.key))
    }

    /// The same for a message that has this key, if it has one.
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
            // Its time is over, or a hand removed it; or it was moved between our two looks.
            let counted = self.is_counted(&record, &hash)?;
            return Ok(Some(dir.filter(|_| counted)));
        }
        let Some(lock) = self.try_lock_key(&hash)? else {
            return Ok(None);
        };
        lock.count(&record)?;
        Ok(Some(dir))
    }

    /// Whether any key is remembered at all: if not, no message need be asked for its own. The bucket of a
    /// record is made before the record, but it is removed when its name may not be durable.
    pub(super) fn has_keys(&self) -> disk::Result<bool> {
        if !self.key_buckets()?.is_empty() {
            return Ok(true);
        }
        Ok(!self.names_in(Path::new(INTENDED_KEYS))?.is_empty())
    }

    /// Forgets keys whose time is over, and tidies up behind processes that were killed. To be
    /// called after `new/` has been looked through. Costs the number of buckets, and of keys that
    /// go. Returns what could not be done; the rest is done all the same.
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
                    // What is not locked was left by a process that was killed: it goes with our lock.
                    note(self.try_lock_key(&name).map(drop));
                }
            }
            Err(error) => note(Err(error)),
        }
        failed
    }

    fn purge_bucket(&self, bucket: Bucket) -> disk::Result<()> {
        let dir = Path::new(KEYS).join(bucket.to_string());
        for name in key_names(&self.names_in(&dir)?) {
            self.disk.unlink(&dir.join(name))?;
        }
        // Not synced before: should a name come back, it is of a key whose time is over.
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

    /// Which message has the key for a submission at a time.
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
        // In this order: a record goes from there to a bucket, and never back.
        let intended = spool.key_record(&self.intended_path())?;
        if let Some(id) = spool.counted(hash, key, at)? {
            return Ok(Holder::Message(id));
        }
        if let Some(record) = intended.filter(|one| one.keyed.key == *key && one.keyed.until > at) {
            match spool.locate_settled(record.id)? {
                // Its acceptor, which had the lock that we have, was killed, or failed.
                Located::At(Queue::New) | Located::Absent => {}
                // That the key is free cannot be said.
                Located::Uncertain(Doubt::Moving) => return Ok(Holder::Busy),
                Located::Uncertain(Doubt::Unread(error)) => return Err(error),
                // It is accepted, or it would not be there.
                Located::At(queue) => {
                    if spool.name_again(record.id, queue)? {
                        self.count_later(&record)?;
                        return Ok(Holder::Message(record.id));
                    } else {
                        return Ok(Holder::Busy);
                    }
                }
            }
            // It may have been finished meanwhile; then its record was brought there first.
            if let Some(id) = spool.counted(hash, key, at)? {
                return Ok(Holder::Message(id));
            }
        }
        spool.disk.unlink(&self.intended_path())?;
        Ok(Holder::Nobody)
    }

    /// Writes the record of a message that is about to be accepted, durably, and its bucket: once the
    /// message is accepted nothing is waited for.
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
                // Best effort: a record whose message is nowhere says nothing.
                let _ = disk.unlink(&path);
                Err(error)
            }
        }
    }

    /// Brings the record of a message that is accepted to its bucket, whose name is made durable
    /// first.
    fn count(&self, record: &Record) -> disk::Result<()> {
        let Held { spool, hash, .. } = &*self.0;
        let (path, bucket) = (self.intended_path(), record.bucket());
        let file = match spool.disk.open_read(&path) {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        // Caught by a power cut between two names: a rename would leave both.
        if spool.is_counted(record, hash)? {
            return spool.disk.unlink(&path).map(drop);
        }
        spool.prepare_dir(Path::new(KEYS), bucket.clone())?;
        spool.disk.rename(&file, &path, &bucket.join(hash))
    }

    /// The same where it need not be now: whoever forgets the message sees to it.
    fn count_later(&self, record: &Record) -> disk::Result<()> {
        if let Err(error) = self.count(record) {
            tracing::warn!(id = %record.id, %error, "its key is left in keys/new/");
        }
        Ok(())
    }

    /// What a process that was killed has left in `keys/new/`.
    fn tidy(&self, now: Timestamp) -> disk::Result<()> {
        let spool = &self.0.spool;
        let Some(record) = spool.key_record(&self.intended_path())? else {
            // Torn, or gone: its message was not accepted.
            return spool.disk.unlink(&self.intended_path()).map(drop);
        };
        match spool.locate_settled(record.id)? {
            _ if record.keyed.until <= now => {}
            // Of one that was not found nothing can be said.
            Located::Uncertain(_) => return Ok(()),
            Located::At(Queue::New) => {}
            // In a bucket it is believed without a look at the message: its name must be durable before.
            Located::At(queue) => {
                if spool.name_again(record.id, queue)? {
                    return self.count(&record);
                } else {
                    return Ok(());
                }
            }
            // Never accepted; or forgotten, and its record is where it belongs.
            Located::Absent => {}
        }
        spool.disk.unlink(&self.intended_path()).map(drop)
    }
}

impl Intended {
    /// The message is accepted: the record counts by itself from now on. Not synced: a
    /// power cut that takes the rename back leaves a record whose message is there. Gives the lock
    /// back.
    pub(super) fn count(self) -> KeyLock {
        let Held { spool, hash, .. } = &*self.lock.0;
        let (path, bucket) = (self.lock.intended_path(), self.record.bucket());
        // A bucket that was purged in the meantime, or made again and is not durable, is left alone: the
        // record counts where it is, and nothing is waited for now.
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

    /// The message was not accepted. Best effort: without it the record says nothing.
    pub(super) fn take_back(&self) {
        let _ = self.lock.0.spool.disk.unlink(&self.lock.intended_path());
    }
}

impl Spool {
    /// As [`locate_for_good`](Spool::locate_for_good). A power cut may have left a message its name in `new/`
    /// beside the later one: then it is accepted, and stands at the later one.
    fn locate_settled(&self, id: QueueId) -> disk::Result<Located> {
        let located = self.locate_for_good(id)?;
        if let Located::At(Queue::New) = located {
            return match self.lock(Queue::New, id)? {
                // Taking the lock has removed the earlier name, if there was another one.
                Claim::Locked(_) => Ok(located),
                Claim::Busy => Ok(Located::Uncertain(Doubt::Moving)),
                Claim::Absent | Claim::NotAFile => self.locate_for_good(id),
            };
        }
        Ok(located)
    }

    /// Makes the name of a message durable, which its acceptor may have been killed before, or have seen
    /// the sync of fail: so it is given the name again. False if it is in another process's hand, or was
    /// not there.
    ///
    /// In between it stands in `staged/`, from where the next run would bring it to its queue.
    fn name_again(&self, id: QueueId, queue: Queue) -> disk::Result<bool> {
        // What is finished is not forgotten before its key counts.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let record = Record {
            id: QueueId::new(Timestamp::UNIX_EPOCH, [3; 10]),
            keyed: Keyed {
                key: SubmissionKey::new("a key\n").unwrap(),
                until: "2026-11-22T14:05:00.5Z".parse().unwrap(),
            },
        };
        let text = record.text();
        assert_eq!(Record::parse(text.as_bytes()), Some(record.clone()));
        for at in 0..text.len() {
            assert_eq!(Record::parse(&text.as_bytes()[..at]), None, "cut at {at}");
            let mut zeroed = text.clone().into_bytes();
            zeroed[at..].fill(0);
            assert_eq!(Record::parse(&zeroed), None, "zeroes from {at}");
        }
        assert_eq!(record.bucket(), Path::new("keys/2026-11-22T1500Z"));
    }
}
