//! Forgetting: `done/`, and what is unlinked in which order.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::layout::{Info, Place, history_part};
use super::{Kept, Spool};
use crate::disk::{self, Kind, Stat};
use crate::message::QueueId;

/// Threads that unlink a large group.
const UNLINKING: usize = 4;

/// So many messages are not worth a thread.
const FEW: usize = 16;

impl Spool {
    /// Forgets messages that stand in `done/` and were, while who calls had them in hand, in
    /// the given places.
    ///
    /// One barrier for all of them comes first, over `done/` and every directory in which one
    /// may still be named: `new/` and those behind it, as no rename out of them is ever synced,
    /// and every bucket that is due at `now`, as an attempt before this one may have taken it
    /// out of there. (Who takes a message out of a bucket that is not due, an operator, syncs
    /// that.) Only then are they unlinked: an envelope that is gone while an older name of its
    /// message comes back in a power cut would be a message without envelope, or one delivered
    /// twice.
    pub fn forget(&self, ids: &[QueueId], left: &[Place], now: Timestamp) -> disk::Result<()> {
        let (ids, keys) = self.keep_keys(ids)?;
        if ids.is_empty() {
            return Ok(());
        }
        let mut dirs: Vec<PathBuf> = [Place::Done, Place::New, Place::Incoming, Place::Active]
            .iter()
            .chain(left)
            .map(Place::dir)
            .chain(keys)
            .collect();
        for kept in Kept::ALL {
            let buckets = self.buckets(kept)?;
            let due = buckets
                .into_iter()
                .filter(|one| one.due().is_some_and(|due| due <= now));
            dirs.extend(due.map(|bucket| kept.place(bucket).dir()));
        }
        dirs.sort_unstable();
        dirs.dedup();
        self.barrier(dirs)?;
        self.unlink_each(&ids)
    }

    /// Sees to it that the keys of messages outlast them: those that can be forgotten, and the
    /// directories that the barrier is to cover for their keys. One whose key somebody has in hand
    /// stays in `done/`, for the next run.
    fn keep_keys(&self, ids: &[QueueId]) -> disk::Result<(Vec<QueueId>, Vec<PathBuf>)> {
        if ids.is_empty() || !self.has_keys()? {
            return Ok((ids.to_vec(), Vec::new()));
        }
        let (mut ready, mut dirs) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some(keys) = self.keep_key(*id)? {
                ready.push(*id);
                dirs.extend(keys);
            }
        }
        Ok((ready, dirs))
    }

    /// One that cannot be removed is nothing to the others.
    ///
    /// Many are unlinked by several threads: the file system waits for the device at some unlinks
    /// (ext4 without a journal, mounted with `discard`, at each that frees blocks), and
    /// such waits overlap. A thread that cannot be had leaves its share to this one.
    fn unlink_each(&self, ids: &[QueueId]) -> disk::Result<()> {
        let share = ids.len().div_ceil(UNLINKING).max(FEW);
        let (ours, theirs) = ids.split_at(share.min(ids.len()));
        std::thread::scope(|scope| {
            let start = |some| {
                let thread = std::thread::Builder::new().name("unlink".into());
                let work = move || self.unlink_in_turn(some);
                (some, thread.spawn_scoped(scope, work).ok())
            };
            let started: Vec<_> = theirs.chunks(share).map(start).collect();
            let ended = started.into_iter().map(|(some, thread)| match thread {
                Some(thread) => thread.join().expect("unlinking does not panic"),
                None => self.unlink_in_turn(some),
            });
            let result = self.unlink_in_turn(ours);
            ended.fold(result, Result::and)
        })
    }

    fn unlink_in_turn(&self, ids: &[QueueId]) -> disk::Result<()> {
        let gone = ids.iter().map(|id| self.unlink_all(*id));
        gone.fold(Ok(()), Result::and)
    }

    /// Finishes whatever stands in `done/`: leftovers of a process that was killed. Where
    /// their messages were before is not known, so the barrier is over every place.
    pub fn finish_done(&self) -> disk::Result<usize> {
        let mut ids = Vec::new();
        for id in self.ids_in(Place::Done)? {
            let stat = self.disk.stat(&Place::Done.path(id))?;
            // What is no file has only a message's name, and is left alone.
            if let Some(stat) = stat.filter(|stat| stat.kind == Kind::File) {
                ids.push((id, stat));
            }
        }
        if ids.is_empty() {
            return Ok(0);
        }
        for (id, stat) in &ids {
            // Caught by a power cut between two names: `done/` is the later one.
            if stat.links > 1 {
                self.settle_names(*id, stat.identity)?;
            }
        }
        let ids: Vec<QueueId> = ids.into_iter().map(|(id, _)| id).collect();
        let (ids, keys) = self.keep_keys(&ids)?;
        let places = self.places()?;
        let mut dirs: Vec<PathBuf> = places.iter().map(Place::dir).chain(keys).collect();
        dirs.sort_unstable();
        dirs.dedup();
        self.barrier(dirs)?;
        self.unlink_each(&ids)?;
        Ok(ids.len())
    }

    /// Buckets may vanish while we look at them; a bucket that is gone names nobody, nor does
    /// a file with a bucket's name.
    fn barrier(&self, mut dirs: Vec<PathBuf>) -> disk::Result<()> {
        loop {
            let all: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
            match self.disk.durable(&[], &all) {
                Err(error) if error.is_absent() || error.is_wrong_kind() => {
                    let before = dirs.len();
                    let is_dir = |stat: Stat| stat.kind == Kind::Dir;
                    dirs.retain(|dir| {
                        self.disk
                            .stat(dir)
                            .map_or(true, |it| it.is_some_and(is_dir))
                    });
                    if dirs.len() == before {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// The message file goes last: as long as it stands in `done/`, somebody will finish the
    /// rest. Two who finish the same message do no harm to each other.
    fn unlink_all(&self, id: QueueId) -> disk::Result<()> {
        // What a kill may have left of a history that was being written anew.
        self.disk.unlink(&history_part(id))?;
        for info in Info::REMOVAL {
            self.disk.unlink(&info.path(id))?;
        }
        self.disk.unlink(&Place::Done.path(id)).map(drop)
    }
}
