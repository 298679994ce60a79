//! Reading the queues without locks.
//!
//! Nothing here takes a lock, so nothing here can make a runner skip a message.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::Spool;
use super::files::{LISTED, read_head};
use super::layout::{BucketQueue, Queue};
use crate::disk::{self, Body, File, Kind, Stat};
use crate::message::{Block, QueueId, Seal};
use crate::queue::Bucket;

impl Spool {
    /// The ids of the message files in a queue, oldest first. Other names, such as an editor's backup or a
    /// `.nfs` file, are ignored.
    pub fn ids_in(&self, queue: Queue) -> disk::Result<Vec<QueueId>> {
        match self.ids_below(&queue.dir()) {
            // A file or a symbolic link with a bucket's name holds no messages; `check` reports it.
            Err(error) if queue.bucket_parent().is_some() && error.is_wrong_kind() => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    pub(super) fn ids_below(&self, dir: &Path) -> disk::Result<Vec<QueueId>> {
        let mut ids = match self.disk.list_as(dir, parsed) {
            Err(error) if error.is_absent() => Vec::new(),
            other => other?,
        };
        ids.sort_unstable();
        Ok(ids)
    }

    /// All names in a directory; empty if it does not exist.
    pub fn names_in(&self, dir: &Path) -> disk::Result<Vec<OsString>> {
        match self.disk.list(dir) {
            Err(error) if error.is_absent() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The existing buckets, earliest first. A symbolic link with a bucket's name is ignored: it would lead
    /// to messages outside the spool.
    pub fn buckets(&self, kept: BucketQueue) -> disk::Result<Vec<Bucket>> {
        let mut unread = Vec::new();
        let buckets = self.buckets_there(kept, &mut unread);
        match unread.into_iter().next() {
            None => Ok(buckets),
            Some(error) => Err(error),
        }
    }

    /// Like [`buckets`](Spool::buckets), but returns those that can be read, and adds the errors to `unread`.
    pub fn buckets_there(&self, kept: BucketQueue, unread: &mut Vec<disk::Error>) -> Vec<Bucket> {
        let names = or_note(self.names_in(Path::new(kept.as_str())), unread);
        let mut buckets = Vec::with_capacity(names.len());
        for bucket in names.iter().filter_map(|name| parsed(name)) {
            let stat = or_note(self.disk.stat(&kept.queue(bucket).dir()), unread);
            if stat.is_some_and(|stat| stat.kind == Kind::Dir) {
                buckets.push(bucket);
            }
        }
        buckets
    }

    /// Reads the envelope block of a message without its lock. Returns `None` if the block cannot be trusted.
    /// The mutable parts may have changed since.
    ///
    /// # Errors
    /// If the message is not there, or cannot be read.
    pub fn peek(&self, id: QueueId, queue: Queue) -> disk::Result<Option<Block>> {
        let (file, stat) = match self.open_message(id, queue) {
            Err(error) if error.is_wrong_kind() => return Ok(None),
            other => other?,
        };
        let head = read_head(&self.disk, &file, id, stat.size, LISTED)?;
        Ok(head.ok().map(|head| head.block))
    }

    pub(super) fn open_message(&self, id: QueueId, queue: Queue) -> disk::Result<(File, Stat)> {
        let file = self.disk.open_read(&queue.path(id))?;
        let stat = self.disk.stat_file(&file)?;
        Ok((file, stat))
    }

    /// Returns the `stat` of a message file, or `None` if it is not in that queue.
    pub(super) fn stat_in(&self, queue: Queue, id: QueueId) -> disk::Result<Option<Stat>> {
        match self.disk.stat(&queue.path(id)) {
            // As in `ids_in`.
            Err(error) if queue.bucket_parent().is_some() && error.is_wrong_kind() => Ok(None),
            other => other,
        }
    }

    /// Calls `look` for every readable queue, in the order in which messages pass through them, so that one
    /// rename in that order hides no message. Buckets are therefore listed after the queues from which
    /// messages move into new buckets.
    pub(super) fn walk<T>(
        &self,
        unread: &mut Vec<disk::Error>,
        mut look: impl FnMut(Queue, &mut Vec<disk::Error>) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        let is_end = |queue: &Queue| matches!(queue, Queue::Corrupt | Queue::Done);
        for queue in Queue::FIXED.into_iter().filter(|queue| !is_end(queue)) {
            look(queue, unread)?;
        }
        for kept in BucketQueue::ALL {
            for bucket in self.buckets_there(kept, unread) {
                look(kept.queue(bucket), unread)?;
            }
        }
        for queue in Queue::FIXED.into_iter().filter(is_end) {
            look(queue, unread)?;
        }
        ControlFlow::Continue(())
    }

    /// Returns a message's octets and its seal, without taking its lock; `None` if its envelope block cannot
    /// be trusted.
    pub fn sealed_body(&self, id: QueueId, queue: Queue) -> disk::Result<Option<(Body, Seal)>> {
        let (file, stat) = self.open_message(id, queue)?;
        let head = read_head(&self.disk, &file, id, stat.size, LISTED)?;
        Ok(head.ok().map(|head| {
            let Seal { block, size, .. } = head.block.seal;
            let body = Body::new(self.disk.clone(), Arc::new(file), block, size);
            (body, head.block.seal)
        }))
    }

    /// Returns the octets of a message, without taking its lock: what follows the envelope block, or the
    /// whole file if it has no valid block.
    pub fn body(&self, id: QueueId, queue: Queue) -> disk::Result<Body> {
        if let Some((body, _)) = self.sealed_body(id, queue)? {
            return Ok(body);
        }
        let (file, stat) = self.open_message(id, queue)?;
        Ok(Body::new(self.disk.clone(), Arc::new(file), 0, stat.size))
    }
}

/// Returns the result, or a default after adding the error to `unread`.
pub(super) fn or_note<T: Default>(read: disk::Result<T>, unread: &mut Vec<disk::Error>) -> T {
    read.unwrap_or_else(|error| {
        unread.push(error);
        T::default()
    })
}

fn parsed<T: FromStr>(name: &OsStr) -> Option<T> {
    name.to_str()?.parse().ok()
}
