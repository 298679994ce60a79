//! Requests: what an operator wants done to a message that somebody is working on.
//!
//! `requests/<id>` holds the action as one JSON object. Whoever holds the message looks
//! after letting go of it; every run looks first of all.

use std::path::Path;

use jiff::Timestamp;

use super::layout::{Info, Queue};
use super::lock::Claim;
use super::part::Part;
use super::{Doubt, Located, Spool, apply, refusal};
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

/// What became of the look for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// None waits, or its time has not come: somebody has the message in hand, and looks after
    /// that.
    Nothing,
    /// One that cannot be read was dropped.
    Unreadable,
    /// It makes no sense for the message as it is now, for this reason, and was dropped.
    Refused(Action, &'static str),
    /// It has been carried out, durably.
    Done(Action),
}

impl Spool {
    /// Carries out the request for a message, if one waits and nobody has the message in hand.
    /// To be called by whoever held the message, after letting go of it.
    pub fn serve_request(&self, id: QueueId, now: Timestamp) -> disk::Result<Served> {
        /// A message may move between our look and our lock, and one with two names, left by a
        /// power cut, is found under the wrong one first.
        const MAX_MOVES: usize = 5;
        for _ in 0..MAX_MOVES {
            if !self.has_request(id)? {
                break;
            }
            let queue = match self.locate_for_good(id)? {
                // Being in `done/` commits it: whatever is wanted of it now comes too late, and
                // would bring back a message that has been delivered.
                Located::Absent | Located::At(Queue::Done) => {
                    self.drop_request(id)?;
                    break;
                }
                // Served when it has been moved on.
                Located::At(Queue::New | Queue::Staged) => break,
                Located::At(queue) => queue,
                // It waits until the message is found.
                Located::Uncertain(Doubt::Moving) => break,
                Located::Uncertain(Doubt::Unread(error)) => return Err(error),
            };
            let locked = match self.lock(queue, id)? {
                Claim::Locked(locked) => locked,
                Claim::Absent => continue,
                Claim::Busy | Claim::NotAFile => break,
            };
            // Of a corrupt one its turn comes with the message's, which is quarantined then.
            let Ok(entry) = locked.read() else { break };
            let (there, action) = entry.request()?;
            if !there {
                break;
            }
            // It may have made sense when it was posted.
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

    /// Posts a request. It is written to a file of its own and then linked to its name, so
    /// that nobody ever reads half of one, and so that one that is waiting is not lost.
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

    /// Whether the request that waits for a message can be read; none if none waits.
    pub fn has_readable_request(&self, id: QueueId) -> disk::Result<Option<bool>> {
        match self.read_info(Info::Request, id) {
            Ok(bytes) => Ok(bytes.map(|bytes| serde_json::from_slice::<Action>(&bytes).is_ok())),
            // No file of ours, and no request.
            Err(error) if error.is_wrong_kind() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a request whose message is gone.
    pub fn drop_request(&self, id: QueueId) -> disk::Result<()> {
        self.disk.unlink(&Info::Request.path(id)).map(drop)
    }
}
