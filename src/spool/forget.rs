//! Forgetting messages: `done/`, and the order of the unlinks.

use std::path::{Path, PathBuf};

use super::Spool;
use super::layout::{Info, Queue, history_part};
use super::lock::Claim;
use super::view::remove_view;
use crate::disk::{self, Kind, Stat};
use crate::message::QueueId;

/// Most threads that unlink a group of messages, including the caller.
const UNLINKING: usize = 4;

/// Messages per thread below which another thread is not worth starting.
const FEW: usize = 16;

impl Spool {
    /// Forgets messages in `done/`. The flag of each says whether it may have a history.
    ///
    /// A single fsync of `done/`, and of the directories that hold keys of these messages, comes first. It
    /// narrows the window in which a power cut brings back a delivered message. If its history is gone, its
    /// block says what is left to do.
    ///
    /// Returns the errors of messages that could not be forgotten. They stay in `done/` for the next run.
    ///
    /// # Errors
    /// If the fsync fails. No file has been unlinked then.
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

    /// Makes the keys of messages outlast them. Returns the messages that can be forgotten, and the
    /// directories to fsync for their keys. If another process holds the lock of a message's key, the message
    /// stays in `done/` for the next run.
    fn keep_keys(
        &self,
        messages: &[(QueueId, bool)],
        failed: &mut Vec<disk::Error>,
    ) -> (Vec<(QueueId, bool)>, Vec<PathBuf>) {
        // If this cannot be determined, look at the key of each message.
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

    /// Unlinks each message; an error for one does not stop the others.
    ///
    /// A large group is split among threads: the file system waits for the device at some unlinks (ext4
    /// without a journal, mounted with `discard`, at each that frees blocks), and such waits overlap. If a
    /// thread cannot be started, this thread does its share.
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

    /// Forgets all messages in `done/`, which killed processes left.
    ///
    /// Returns the errors of messages that could not be forgotten. They stay there.
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

    /// Whether the message with this id is in `done/`. Taking the lock removes a second name that a power cut
    /// may have left. Non-regular files are skipped, even if their name looks like an id. A file that holds
    /// another message is not finished, and goes to quarantine.
    fn stands_in_done(&self, id: QueueId) -> disk::Result<bool> {
        match self.lock(Queue::Done, id)? {
            Claim::Locked(locked) => match locked.another()? {
                Some(reason) => locked.quarantine(&reason).map(|()| false),
                None => Ok(true),
            },
            // The holder is the process that finished it, and has verified it.
            Claim::Busy => Ok(true),
            Claim::Absent | Claim::NotAFile => Ok(false),
        }
    }

    /// Fsyncs these directories. A bucket may vanish meanwhile; one that is gone holds no message. A file
    /// with a bucket's name is skipped too.
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

    /// Unlinks all files of a message, the message file last: while it is in `done/`, the next run unlinks
    /// the rest. Two processes may do this for the same message.
    fn unlink_all(&self, id: QueueId, has_history: bool) -> disk::Result<()> {
        self.unlink_files(id, has_history)?;
        self.disk.unlink(&Queue::Done.path(id)).map(drop)
    }

    /// Unlinks every file of a message but the message file.
    pub(super) fn unlink_files(&self, id: QueueId, has_history: bool) -> disk::Result<()> {
        if has_history {
            self.disk.unlink(&Info::Request.path(id))?;
            // A kill may have left a partly rewritten history.
            self.disk.unlink(&history_part(id))?;
            self.disk.unlink(&Info::History.path(id))?;
        }
        remove_view(&self.disk, id)
    }
}
