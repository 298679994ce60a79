//! Requests: an operator's action on a message that another process holds.
//!
//! `requests/<id>` holds the action as one JSON object. The process that holds the message serves it after
//! releasing the lock. Every run serves all requests first.

use std::path::Path;

use jiff::Timestamp;

use super::Spool;
use super::action::{apply, refusal};
use super::layout::{Info, Queue};
use super::locate::{Doubt, Located};
use super::lock::Claim;
use super::part::Part;
use crate::disk;
use crate::message::QueueId;
use crate::queue::Action;

/// Result of [`Spool::post_request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The request waits, durably.
    Waiting,
    /// Another request is waiting; this one was not written.
    Taken,
}

/// Result of [`Spool::serve_request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// No request waits, or it cannot be served yet: another process holds the message, and serves it later.
    Nothing,
    /// The request could not be read and was dropped.
    Unreadable,
    /// The action does not apply to the message in its present state, for this reason, and was dropped.
    Refused(Action, &'static str),
    /// The action has been carried out, durably.
    Done(Action),
}

impl Spool {
    /// Carries out the request for a message, if one waits and no process holds the message. Call this after
    /// releasing a message's lock.
    pub fn serve_request(&self, id: QueueId, now: Timestamp) -> disk::Result<Served> {
        /// A message may move between the lookup and the lock. One with two names, left by a power cut, is
        /// found under the wrong one first.
        const MAX_MOVES: usize = 5;
        for _ in 0..MAX_MOVES {
            if !self.has_request(id)? {
                break;
            }
            let queue = match self.locate_for_good(id)? {
                // A message in `done/` is finished: a request now comes too late, and would bring back a
                // delivered message.
                Located::Absent | Located::At(Queue::Done) => {
                    self.drop_request(id)?;
                    break;
                }
                // Served after the message has left these directories.
                Located::At(Queue::New | Queue::Staged) => break,
                Located::At(queue) => queue,
                // The request waits until the message is found.
                Located::Uncertain(Doubt::Moving) => break,
                Located::Uncertain(Doubt::Unread(error)) => return Err(error),
            };
            let locked = match self.lock(queue, id)? {
                Claim::Locked(locked) => locked,
                Claim::Absent => continue,
                Claim::Busy | Claim::NotAFile => break,
            };
            // A corrupt message's request is handled when the message is quarantined.
            let Ok(entry) = locked.read() else { break };
            let (there, action) = entry.request()?;
            if !there {
                break;
            }
            // The action may have applied when it was posted.
            let refused = action.as_ref().and_then(|action| refusal(&entry, action));
            let mut entries = [entry];
            if let (Some(action), None) = (&action, refused) {
                apply(&mut entries, now, action)?;
            }
            entries[0].request_served()?;
            return Ok(match (action, refused) {
                (None, _) => Served::Unreadable,
                (Some(action), Some(why)) => Served::Refused(action, why),
                (Some(action), None) => Served::Done(action),
            });
        }
        Ok(Served::Nothing)
    }

    /// Posts a request. It is written to a temporary file and then linked to its name: no process reads half
    /// a request, and a waiting one is not overwritten.
    pub fn post_request(&self, id: QueueId, action: &Action) -> disk::Result<Posted> {
        let dir = Path::new(Info::Request.dir());
        let text = serde_json::to_vec(action).unwrap_or_default();
        let part = Part::write(&self.disk, dir, "", &text)?;
        if !part.link_to(&Info::Request.path(id))? {
            return Ok(Posted::Taken);
        }
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

    /// Whether the request for a message can be read; `None` if none waits.
    pub fn has_readable_request(&self, id: QueueId) -> disk::Result<Option<bool>> {
        match self.read_info(Info::Request, id) {
            Ok(bytes) => Ok(bytes.map(|bytes| serde_json::from_slice::<Action>(&bytes).is_ok())),
            // Not a regular file, so not a request.
            Err(error) if error.is_wrong_kind() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a request after its message is gone.
    pub fn drop_request(&self, id: QueueId) -> disk::Result<()> {
        self.disk.unlink(&Info::Request.path(id)).map(drop)
    }
}
