//! Forgetting: `done/`, and what is unlinked in which order.

use std::path::{Path, PathBuf};

use super::Spool;
use super::layout::{Info, Queue, history_part};
use super::lock::Claim;
use super::view::remove_view;
use crate::disk::{self, Kind, Stat};
use crate::message::QueueId;

/// Threads that unlink a large group.
const UNLINKING: usize = 4;

/// So many messages are not worth a thread.
const FEW: usize = 16;

impl Spool {
    /// Forgets messages that stand in `done/`, and for each says whether it has a history.
    ///
    /// One fsync of `done/` for all of them comes first, and of the directories that hold the keys of some.
    /// It narrows the window in which a power cut brings back a message that was delivered; with its history
    /// gone, its block says what is left to do.
    ///
    /// Returns what stands in the way of some of them, which stay in `done/` for the next run.
    ///
    /// # Errors
    /// Of the fsync: nothing has been unlinked then.
    pub fn forget(&self, messages: &[(QueueId, bool)]) -> disk::Result<Vec<disk::Error>> {
        let mut failed = Vec::new();
        let (messages, mut dirs) = self.keep_keys(messages, &mut failed);
        if messages.is_empty() {
            return Ok(failed);
        }
        dirs.push(Queue::Done.dir());
        self.barrier(dirs)?;
        failed.extend(self.unlink_each(&messages));
        Ok(failed)
    }

    /// Sees to it that the keys of messages outlast them: those that can be forgotten, and the
    /// directories that the fsync is to cover for their keys. One whose key another process has in hand
    /// stays in `done/`, for the next run.
    fn keep_keys(
        &self,
        messages: &[(QueueId, bool)],
        failed: &mut Vec<disk::Error>,
    ) -> (Vec<(QueueId, bool)>, Vec<PathBuf>) {
        // If that cannot be said, each message is asked for its own.
        if messages.is_empty() || matches!(self.has_keys(), Ok(false)) {
            return (messages.to_vec(), Vec::new());
        }
        let (mut ready, mut dirs) = (Vec::new(), Vec::new());
        for message in messages {
            match self.keep_key(message.0) {
                Ok(Some(keys)) => {
                    ready.push(*message);
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
    fn unlink_each(&self, messages: &[(QueueId, bool)]) -> Vec<disk::Error> {
        let share = messages.len().div_ceil(UNLINKING).max(FEW);
        let (ours, theirs) = messages.split_at(share.min(messages.len()));
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

    fn unlink_in_turn(&self, messages: &[(QueueId, bool)]) -> Vec<disk::Error> {
        let gone = messages
            .iter()
            .map(|(id, has_history)| self.unlink_all(*id, *has_history));
        gone.filter_map(Result::err).collect()
    }

    /// Finishes whatever stands in `done/`: leftovers of a process that was killed.
    ///
    /// Returns what stands in the way of some of them; they stay there.
    ///
    /// # Errors
    /// If `done/` cannot be listed, or the fsync fails.
    pub fn finish_done(&self) -> disk::Result<Vec<disk::Error>> {
        let (mut messages, mut failed) = (Vec::new(), Vec::new());
        for id in self.ids_in(Queue::Done)? {
            match self.stands_in_done(id) {
                Ok(true) => messages.push((id, true)),
                Ok(false) => {}
                Err(error) => failed.push(error),
            }
        }
        failed.extend(self.forget(&messages)?);
        Ok(failed)
    }

    /// Whether a message of this id stands in `done/`, by this name alone: the lock sees to the other one that a
    /// power cut may leave. What is no file has only a message's name, and is left alone. What is another message is
    /// not finished, and goes to quarantine.
    fn stands_in_done(&self, id: QueueId) -> disk::Result<bool> {
        match self.lock(Queue::Done, id)? {
            Claim::Locked(locked) => match locked.another()? {
                Some(reason) => locked.quarantine(&reason).map(|()| false),
                None => Ok(true),
            },
            // The process that finished it has it, and has read it.
            Claim::Busy => Ok(true),
            Claim::Absent | Claim::NotAFile => Ok(false),
        }
    }

    /// Buckets may vanish while we look at them; a bucket that is gone names no message, nor
    /// does a file with a bucket's name.
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

    /// The message file goes last: as long as it stands in `done/`, the next run finishes the
    /// rest. Two processes that finish the same message do no harm to each other.
    fn unlink_all(&self, id: QueueId, has_history: bool) -> disk::Result<()> {
        self.unlink_files(id, has_history)?;
        self.disk.unlink(&Queue::Done.path(id)).map(drop)
    }

    /// Everything but the message file.
    pub(super) fn unlink_files(&self, id: QueueId, has_history: bool) -> disk::Result<()> {
        if has_history {
            self.disk.unlink(&Info::Request.path(id))?;
            // What a kill may have left of a history that was being written anew.
            self.disk.unlink(&history_part(id))?;
            self.disk.unlink(&Info::History.path(id))?;
        }
        remove_view(&self.disk, id)
    }
}
