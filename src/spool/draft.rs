//! Acceptance: a message comes into being in `new/`, whole or not at all.
//!
//! The order of the writes is what makes it safe; each step says why. The commit points are
//! *durable* (the barrier in [`Draft::seal`]) and, for notices, *recorded* in the origin.

use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::journal::write_anew;
use super::keys::{Intended, KEY_DIRS, KeyLock};
use super::layout::{Info, Place};
use super::lock::{Claim, Locked, Unreadable};
use super::{Entry, Located, Spool};
use crate::disk::{self, Disk, File};
use crate::message::{Door, Envelope, NoticeKind, Origin, QueueId, SealHasher, Submission};
use crate::queue::{History, Resting, What};

/// Small messages are written with one call.
const BUFFER: usize = 64 << 10;

/// A message being written. Dropped before it is sealed, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    spool: Spool,
    id: QueueId,
    file: Option<File>,
    buffer: Vec<u8>,
    hasher: SealHasher,
}

/// A message that is whole and durable in `new/`. Whatever happens now, it will be moved on:
/// by [`release`](Staged::release), or by the next run.
#[derive(Debug)]
pub struct Staged {
    locked: Locked,
    /// Where it is to stand.
    to: Place,
    /// The record of its key, not where it counts yet.
    intended: Option<Intended>,
}

/// What became of the wish to stage a notice.
#[derive(Debug)]
pub enum Staging {
    /// It is to be written.
    Fresh(Box<Draft>),
    /// Somebody looks at it at this moment; try later.
    Busy,
}

impl Spool {
    /// Begins a message under the first of the ids that is free.
    pub fn draft(&self, mut ids: impl FnMut() -> QueueId) -> disk::Result<Draft> {
        loop {
            if let Some(draft) = self.draft_as(ids())? {
                return Ok(draft);
            }
        }
    }

    /// The message file is the first thing to exist: whoever finds one of the other files
    /// without it knows that nobody is writing them. It is locked before a byte is written,
    /// and then looked at again as every locker does: a sweeper may have taken it for a
    /// leftover between the two calls. Then this attempt is over, and the sweeper tidies up.
    fn draft_as(&self, id: QueueId) -> disk::Result<Option<Draft>> {
        let path = Place::New.path(id);
        let file = match self.disk.create(&path) {
            Ok(file) => file,
            Err(error) if error.is(nix::errno::Errno::EEXIST) => return Ok(None),
            Err(error) => {
                // It may have been made although the answer was lost; best effort, as below.
                let _ = self.disk.unlink(&path);
                return Err(error);
            }
        };
        let taken = self.still_ours(&file, &path);
        match taken {
            Ok(true) => Ok(Some(Draft {
                spool: self.clone(),
                id,
                file: Some(file),
                buffer: Vec::new(),
                hasher: SealHasher::new(),
            })),
            Ok(false) => Ok(None),
            Err(error) => {
                // Best effort: an empty file in `new/` is swept away by the next run.
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
    /// One that an earlier holder staged and did not record is written again: he may have seen
    /// its barrier fail, and then a later one that succeeds says nothing.
    pub fn stage_notice(&self, id: QueueId) -> disk::Result<Staging> {
        match self.lock(Place::New, id)? {
            Claim::Busy => return Ok(Staging::Busy),
            Claim::Locked(locked) => locked.remove()?,
            Claim::NotAFile => {}
            Claim::Absent => {
                // A power cut may have kept some of a staged notice's names and not others.
                // Nothing moves a notice on that its origin has not recorded, so these are ours.
                remove_infos(&self.disk, id)?;
            }
        }
        match self.draft_as(id)? {
            Some(draft) => Ok(Staging::Fresh(Box::new(draft))),
            None => Ok(Staging::Busy),
        }
    }

    /// Decides about an unlocked file in `new/`. Whole: it is made durable and moved on, unless
    /// it is a notice whose origin has not recorded it, or one of a delay that is over. Not whole:
    /// it was never acknowledged and is removed.
    pub fn sweep_new(&self, id: QueueId) -> Result<Swept, Unreadable> {
        let locked = match self.lock(Place::New, id)? {
            Claim::Locked(locked) => locked,
            Claim::Busy | Claim::Absent | Claim::NotAFile => return Ok(Swept::Left),
        };
        match locked.read() {
            Ok(entry) => {
                if let Some(origin) = entry.envelope().submission.origin {
                    match (self.origin(origin, id)?, origin.kind) {
                        (OfOrigin::Awaits, _) => return Ok(Swept::Left),
                        // Of a message that is finished nobody waits. And it may be one that a
                        // killed holder staged for recipients that were delivered, or told
                        // otherwise, by the next.
                        (OfOrigin::Finished, NoticeKind::Delay) => {
                            entry.into_locked().remove()?;
                            return Ok(Swept::Removed);
                        }
                        (OfOrigin::Recorded | OfOrigin::Finished, _) => {}
                    }
                }
                match entry.envelope().submission.key.clone() {
                    None => Staged::of(entry)?.release()?,
                    Some(keyed) => match self.try_lock_key(&keyed.key.hash())? {
                        Some(lock) => lock.move_on(entry)?,
                        None => return Ok(Swept::Left),
                    },
                }
                Ok(Swept::Moved)
            }
            Err(Unreadable::Corrupt(locked, reason)) => Ok(locked.sweep(&reason)?),
            Err(failed) => Err(failed),
        }
    }

    /// How far a notice's origin is. If it stands in the queue and has not recorded it, durably,
    /// only its holder may move the notice: it might be staged a second time otherwise.
    fn origin(&self, origin: Origin, notice: QueueId) -> disk::Result<OfOrigin> {
        if !self.exists(origin.id)? {
            return Ok(OfOrigin::Finished);
        }
        let (recorded, _) = self.records(origin.id, notice)?;
        let place = match self.locate_for_good(origin.id)? {
            Located::At(place) => place,
            // Finished, whatever a power cut brought back of its envelope and history: nobody
            // is left who could tell again.
            Located::Absent => return Ok(OfOrigin::Finished),
            // It may still tell.
            Located::Uncertain(_) => return Ok(OfOrigin::Awaits),
        };
        if !recorded {
            return Ok(OfOrigin::Awaits);
        }
        // Who wrote the record may have been killed before it was durable, or have seen its
        // sync fail; once the notice is under way a power cut must not take it back.
        match self.lock(place, origin.id)? {
            Claim::Locked(_locked) => {
                let (recorded, lines) = self.records(origin.id, notice)?;
                if !recorded {
                    return Ok(OfOrigin::Awaits);
                }
                write_anew(&self.disk, origin.id, &lines)?;
                Ok(OfOrigin::Recorded)
            }
            // In somebody's hand, or on its way: the next run.
            Claim::Busy | Claim::Absent | Claim::NotAFile => Ok(OfOrigin::Awaits),
        }
    }

    /// Whether a history has a notice's record, and the whole lines of it.
    fn records(&self, id: QueueId, notice: QueueId) -> disk::Result<(bool, Vec<u8>)> {
        let mut bytes = self.read_info(Info::Attempts, id)?.unwrap_or_default();
        let history = History::parse(&bytes).unwrap_or_default();
        bytes.truncate(history.whole);
        let recorded = history
            .events
            .iter()
            .any(|event| matches!(event.what, What::Notice { id: Some(id), .. } if id == notice));
        Ok((recorded, bytes))
    }

    /// Whether a message exists: asked of `info/sender/<id>`, which never moves.
    pub fn exists(&self, id: QueueId) -> disk::Result<bool> {
        Ok(self.disk.stat(&Info::Sender.path(id))?.is_some())
    }
}

/// How far the message is that a staged notice is about.
enum OfOrigin {
    /// It is in the queue, and has not recorded the notice, or somebody has it in hand.
    Awaits,
    /// It has recorded it, durably.
    Recorded,
    /// It is no longer in the queue.
    Finished,
}

/// What became of a file in `new/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nothing: it is being written, or its time has not come.
    Left,
    /// It was whole and is in the queue now.
    Moved,
    /// It was not whole, or told of a delay that is over, and is gone.
    Removed,
}

impl Draft {
    /// The message's id.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Octets so far.
    pub fn size(&self) -> u64 {
        self.hasher.size()
    }

    /// Adds bytes to the message file.
    pub fn write(&mut self, bytes: &[u8]) -> disk::Result<()> {
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        match self.buffer.len() >= BUFFER {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> disk::Result<()> {
        if let (Some(file), false) = (&self.file, self.buffer.is_empty()) {
            self.spool.disk.write_all(file, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Adds what is in another message's file.
    fn copy(&mut self, other: &Locked) -> disk::Result<()> {
        /// As much at once.
        const CHUNK: usize = 64 << 10;
        let mut chunk = vec![0; CHUNK];
        while self.size() < other.size {
            let got = self
                .spool
                .disk
                .read_at(&other.file, &mut chunk, self.size())?;
            if got == 0 {
                break;
            }
            self.write(&chunk[..got])?;
        }
        self.flush()
    }

    /// Becomes the file of that name, in place of what is there.
    fn take_place(&mut self, path: &Path) -> disk::Result<File> {
        let Some(file) = self.file.take() else {
            unreachable!("a draft has its file until it is sealed")
        };
        let from = Place::New.path(self.id);
        match self.spool.disk.rename(&file, &from, path) {
            Ok(()) => Ok(file),
            Err(error) => {
                self.file = Some(file);
                Err(error)
            }
        }
    }

    /// Writes the envelope and the seal and makes everything durable: four files and the four
    /// directories that name them, behind one barrier (commit point *durable*). After an error
    /// nothing is left behind, and nothing may be believed: not even a later success of the
    /// same sync.
    pub fn seal(self, envelope: &Envelope) -> disk::Result<Staged> {
        self.seal_with(envelope, None)
    }

    /// As [`seal`](Draft::seal), under a key that nobody has: the record that says who has it
    /// becomes durable by the same barrier (commit point *keyed*).
    pub fn seal_keyed(self, envelope: &Envelope, lock: KeyLock) -> disk::Result<Staged> {
        let intended = match &envelope.submission.key {
            Some(keyed) => Some(lock.intend(self.id, keyed.clone())?),
            None => None,
        };
        self.seal_with(envelope, intended)
    }

    fn seal_with(
        mut self,
        envelope: &Envelope,
        intended: Option<Intended>,
    ) -> disk::Result<Staged> {
        match self.make_durable(envelope, intended.as_ref()) {
            Ok(locked) => Ok(Staged {
                locked,
                to: entrance(&envelope.submission),
                intended,
            }),
            Err(error) => {
                // First the message: a record without one says nothing, a message without its
                // record may be moved on.
                drop(self);
                if let Some(intended) = &intended {
                    intended.take_back();
                }
                Err(error)
            }
        }
    }

    fn make_durable(
        &mut self,
        envelope: &Envelope,
        intended: Option<&Intended>,
    ) -> disk::Result<Locked> {
        self.flush()?;
        let files = envelope.files(self.hasher.size(), self.hasher.digest());
        let disk = self.spool.disk.clone();
        let write = |info: Info, bytes: &[u8]| -> disk::Result<File> {
            let file = disk.create(&info.path(self.id))?;
            disk.write_all(&file, bytes)?;
            Ok(file)
        };
        let sender = write(Info::Sender, &files.sender)?;
        let recipients = write(Info::Recipients, &files.recipients)?;
        // Holds the seal, so it is written last; that orders nothing on the disk, and need not:
        // the seal is a checksum, not a flag.
        let transport = write(Info::Transport, &files.transport)?;
        if let Some(file) = &self.file {
            let mut files = vec![file, &sender, &recipients, &transport];
            files.extend(intended.map(|intended| &intended.file));
            let mut dirs = dirs(intended);
            // The name of its bucket as well, so that it can go there behind the same barrier.
            let bucket = self.spool.make_bucket(&entrance(&envelope.submission))?;
            dirs.extend(bucket.as_ref().map(|bucket| Path::new(bucket.parent)));
            self.spool.durable_together(&files, &dirs)?;
            if let Some(bucket) = bucket {
                self.spool.know_durable(bucket);
            }
        }
        let Some(file) = self.file.take() else {
            unreachable!("a draft has its file until it is sealed")
        };
        Ok(Locked {
            spool: self.spool.clone(),
            id: self.id,
            place: Place::New,
            file: Arc::new(file),
            size: self.hasher.size(),
        })
    }
}

fn dirs(intended: Option<&Intended>) -> Vec<&'static Path> {
    let mut dirs = vec![
        Path::new("new"),
        Path::new(Info::Sender.dir()),
        Path::new(Info::Recipients.dir()),
        Path::new(Info::Transport.dir()),
    ];
    if intended.is_some() {
        dirs.extend(KEY_DIRS.map(Path::new));
    }
    dirs
}

impl Drop for Draft {
    /// Unlinks what was made, the message file last, and only if everything else is gone: a
    /// file in `new/` is what the next run looks for, `info/` files without one nobody would
    /// ever remove. Failures are no news: nothing was acknowledged.
    fn drop(&mut self) {
        if self.file.is_some() && remove_infos(&self.spool.disk, self.id).is_ok() {
            let _ = self.spool.disk.unlink(&Place::New.path(self.id));
        }
    }
}

/// The name of the n-th copy until it takes its place.
fn beside(id: QueueId, n: u64) -> QueueId {
    let sum = xxh3_128(format!("{id} {n}").as_bytes()).to_be_bytes();
    let mut random = [0; 10];
    random.copy_from_slice(&sum[..10]);
    QueueId::new(id.accepted(), random)
}

/// Where a message goes from `new/`.
fn entrance(submission: &Submission) -> Place {
    match (submission.release, submission.door) {
        (Some(release), _) => Place::from(Resting::Deferred(release)),
        (None, Door::Incoming) => Place::Incoming,
        (None, Door::Active) => Place::Active,
    }
}

/// Removes what can be removed, whatever fails: with any one of these files missing, what is
/// left is not whole, and the next run removes it instead of moving it on.
fn remove_infos(disk: &Disk, id: QueueId) -> disk::Result<()> {
    let mut result = Ok(());
    for info in Info::REMOVAL {
        result = result.and(disk.unlink(&info.path(id)).map(drop));
    }
    result
}

impl Locked {
    /// Sees to a message in `new/` that is not whole.
    pub(super) fn sweep(self, reason: &str) -> disk::Result<Swept> {
        // Who has a history was accepted, whatever else is wrong with it: that is no leftover.
        let history = self.spool.disk.stat(&Info::Attempts.path(self.id))?;
        if history.is_some() {
            self.quarantine(reason)?;
            return Ok(Swept::Left);
        }
        self.remove()?;
        Ok(Swept::Removed)
    }

    /// Removes a message that nobody was told about, its message file last.
    fn remove(self) -> disk::Result<()> {
        remove_infos(&self.spool.disk, self.id)?;
        self.spool.disk.unlink(&self.place.path(self.id)).map(drop)
    }
}

impl Staged {
    /// A whole message that somebody else left in `new/`. It may have been killed before its
    /// barrier, so that is done (again) before the message can be seen anywhere else.
    pub(super) fn of(entry: Entry) -> disk::Result<Staged> {
        let to = entrance(&entry.envelope().submission);
        let locked = entry.into_locked();
        let disk = &locked.spool.disk;
        let mut files = Vec::new();
        for info in [Info::Sender, Info::Recipients, Info::Transport] {
            files.push(disk.open_read(&info.path(locked.id))?);
        }
        let mut all: Vec<&File> = files.iter().collect();
        all.push(&locked.file);
        disk.durable(&all, &dirs(None))?;
        Ok(Staged {
            locked,
            to,
            intended: None,
        })
    }

    /// The same for a message whose acceptance somebody will be told of, who submits it again under
    /// its key: everything is written to files of its own, which take the places of those that are
    /// there. The acceptor may have seen his barrier fail before he was killed, and then a
    /// later one that succeeds says nothing of what he wrote. Until they take their places these
    /// files stand in `new/`, each a message without an envelope, so that what a kill leaves of them
    /// is swept away.
    pub(super) fn anew(entry: Entry, intended: Intended) -> disk::Result<Staged> {
        let to = entrance(&entry.envelope().submission);
        let old = entry.into_locked();
        let (spool, id) = (&old.spool, old.id);
        let disk = &spool.disk;
        let mut copies = 0;
        let mut next = || {
            copies += 1;
            beside(id, copies)
        };
        let mut message = spool.draft(&mut next)?;
        message.copy(&old)?;
        let mut infos = Vec::new();
        for info in [Info::Sender, Info::Recipients, Info::Transport] {
            let mut draft = spool.draft(&mut next)?;
            draft.write(&spool.read_info(info, id)?.unwrap_or_default())?;
            draft.flush()?;
            infos.push((info, draft));
        }
        let drafts = infos.iter().map(|(_, draft)| draft).chain([&message]);
        let files: Vec<&File> = drafts.filter_map(|draft| draft.file.as_ref()).collect();
        disk.durable(&files, &[])?;
        let size = message.size();
        let file = message.take_place(&Place::New.path(id))?;
        for (info, mut draft) in infos {
            draft.take_place(&info.path(id))?;
        }
        disk.durable(&[&intended.file], &dirs(Some(&intended)))?;
        Ok(Staged {
            locked: Locked {
                spool: spool.clone(),
                id,
                place: Place::New,
                file: Arc::new(file),
                size,
            },
            to,
            intended: Some(intended),
        })
    }

    /// The message.
    pub fn id(&self) -> QueueId {
        self.locked.id
    }

    /// Moves the message on, to `incoming/` or `active/`, or to where it waits for its release. The rename is not synced: a power cut
    /// that takes it back leaves a whole message in `new/`, and the next run moves it on.
    /// The key's record goes first: it counts as soon as the message can be seen to be accepted.
    pub fn release(mut self) -> disk::Result<()> {
        // The lock goes when the message has been moved on.
        let _lock = self.intended.take().map(Intended::count);
        self.locked.move_to(self.to)
    }
}
