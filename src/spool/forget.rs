//! Forgetting: `done/`, and what is unlinked in which order.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::layout::{Info, Place, history_part};
use super::view::remove_view;
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
    ///
    /// Returns what stands in the way of some of them, which stay in `done/` for the next run.
    ///
    /// # Errors
    /// Of the barrier: nothing has been unlinked then.
    pub fn forget(
        &self,
        ids: &[QueueId],
        left: &[Place],
        now: Timestamp,
    ) -> disk::Result<Vec<disk::Error>> {
        let mut failed = Vec::new();
        let (ids, keys) = self.keep_keys(ids, &mut failed);
        if ids.is_empty() {
            return Ok(failed);
        }
        let mut dirs: Vec<PathBuf> = [Place::Done, Place::Incoming, Place::Active]
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
        failed.extend(self.unlink_each(&ids));
        Ok(failed)
    }

    /// Sees to it that the keys of messages outlast them: those that can be forgotten, and the
    /// directories that the barrier is to cover for their keys. One whose key somebody has in hand
    /// stays in `done/`, for the next run.
    fn keep_keys(
        &self,
        ids: &[QueueId],
        failed: &mut Vec<disk::Error>,
    ) -> (Vec<QueueId>, Vec<PathBuf>) {
        // If that cannot be said, each message is asked for its own.
        if ids.is_empty() || matches!(self.has_keys(), Ok(false)) {
            return (ids.to_vec(), Vec::new());
        }
        let (mut ready, mut dirs) = (Vec::new(), Vec::new());
        for id in ids {
            match self.keep_key(*id) {
                Ok(Some(keys)) => {
                    ready.push(*id);
                    dirs.extend(keys);
                }
                Ok(None) => {}
                Err(error) => failed.push(error),
            }
        }
        (ready, dirs)
    }

    /// One that cannot be removed is nothing to the others.
    ///
    /// Many are unlinked by several threads: the file system waits for the device at some unlinks
    /// (ext4 without a journal, mounted with `discard`, at each that frees blocks), and
    /// such waits overlap. A thread that cannot be had leaves its share to this one.
    fn unlink_each(&self, ids: &[QueueId]) -> Vec<disk::Error> {
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
            let mut failed = self.unlink_in_turn(ours);
            failed.extend(ended.flatten());
            failed
        })
    }

    fn unlink_in_turn(&self, ids: &[QueueId]) -> Vec<disk::Error> {
        let gone = ids.iter().map(|id| self.unlink_all(*id));
        gone.filter_map(Result::err).collect()
    }

    /// Finishes whatever stands in `done/`: leftovers of a process that was killed. Where
    /// their messages were before is not known, so the barrier is over every place.
    ///
    /// Returns what stands in the way of some of them; they stay there.
    ///
    /// # Errors
    /// If `done/` cannot be listed, or the barrier fails.
    pub fn finish_done(&self) -> disk::Result<Vec<disk::Error>> {
        let (mut ids, mut failed) = (Vec::new(), Vec::new());
        for id in self.ids_in(Place::Done)? {
            match self.stands_in_done(id) {
                Ok(true) => ids.push(id),
                Ok(false) => {}
                Err(error) => failed.push(error),
            }
        }
        if ids.is_empty() {
            return Ok(failed);
        }
        let (ids, keys) = self.keep_keys(&ids, &mut failed);
        let places = self.places()?;
        let mut dirs: Vec<PathBuf> = places.iter().map(Place::dir).chain(keys).collect();
        dirs.sort_unstable();
        dirs.dedup();
        self.barrier(dirs)?;
        failed.extend(self.unlink_each(&ids));
        Ok(failed)
    }

    /// Whether a message of this id stands in `done/`, by this name alone. What is no file has only
    /// a message's name, and is left alone.
    fn stands_in_done(&self, id: QueueId) -> disk::Result<bool> {
        let stat = self.disk.stat(&Place::Done.path(id))?;
        let Some(stat) = stat.filter(|stat| stat.kind == Kind::File) else {
            return Ok(false);
        };
        // Caught by a power cut between two names: `done/` is the later one.
        if stat.links > 1 {
            self.settle_names(id, stat.identity)?;
        }
        Ok(true)
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
        for info in [Info::Request, Info::History] {
            self.disk.unlink(&info.path(id))?;
        }
        remove_view(&self.disk, id)?;
        self.disk.unlink(&Place::Done.path(id)).map(drop)
    }
}
