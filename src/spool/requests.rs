//! Requests: what an operator wants done to a message that somebody is working on.
//!
//! `info/request/<id>` holds the action as one JSON object. Whoever holds the message looks
//! after letting go of it; every run looks first of all.

use std::path::{Path, PathBuf};

use super::Spool;
use super::layout::Info;
use crate::disk;
use crate::message::QueueId;
use crate::queue::Action;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It waits, durably.
    Waiting,
    /// Another one is waiting; this one was not written.
    Taken,
}

impl Spool {
    /// Posts a request. It is written to a file of its own and then linked to its name, so
    /// that nobody ever reads half of one, and so that one that is waiting is not lost.
    pub fn post_request(&self, id: QueueId, action: &Action) -> disk::Result<Posted> {
        let random = uuid::Uuid::new_v4();
        let dir = Path::new(Info::Request.dir());
        let part = PathBuf::from(format!("{}/{random}.part", Info::Request.dir()));
        let file = self.disk.create(&part)?;
        let text = serde_json::to_vec(action).unwrap_or_default();
        let linked = self
            .disk
            .write_all(&file, &text)
            .and_then(|()| self.disk.durable(&[&file], &[]))
            .and_then(|()| self.disk.link(&part, &Info::Request.path(id)));
        let unlinked = self.disk.unlink(&part);
        if !linked? {
            return Ok(Posted::Taken);
        }
        unlinked?;
        self.disk.durable(&[], &[dir])?;
        Ok(Posted::Waiting)
    }

    /// The messages for which a request waits.
    pub fn requests(&self) -> disk::Result<Vec<QueueId>> {
        self.ids_below(Path::new(Info::Request.dir()))
    }

    /// Whether a request for a message waits.
    pub fn has_request(&self, id: QueueId) -> disk::Result<bool> {
        Ok(self.disk.stat(&Info::Request.path(id))?.is_some())
    }

    /// Removes a request whose message is gone.
    pub fn drop_request(&self, id: QueueId) -> disk::Result<()> {
        self.disk.unlink(&Info::Request.path(id)).map(drop)
    }
}
