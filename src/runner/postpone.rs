//! Puts off a message of which no recipient can be tried now.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::lanes::WaitReason;
use super::steps::StepResult;
use super::{Core, MessageOutcome};
use crate::message::QueueId;
use crate::queue::state::Fate;
use crate::queue::step::overdue;
use crate::queue::{QueueUntil, RecipientState};
use crate::spool::{Claim, Entry, Queue};

/// When the remaining recipients can be tried.
#[derive(Debug, Default)]
pub(super) struct Postponement {
    /// The earliest end of an outage or suspension.
    pub until: Option<Timestamp>,
    /// The files of the suspensions that hold some recipients.
    pub suspended: BTreeSet<String>,
    /// Set if the message waits for its turn.
    pub wait: Option<WaitReason>,
}

impl Postponement {
    pub fn until(&mut self, time: Timestamp) {
        self.until = Some(self.until.map_or(time, |until| until.min(time)));
    }
}

impl Core {
    /// Puts off a message of which no recipient can be tried now: it waits in this process for its turn, or
    /// in `deferred/` until a time. If it is put off until a time, a delay notice may be due first.
    pub(super) fn postpone(&self, mut entry: Entry, postponement: Postponement) -> StepResult {
        let Postponement {
            until,
            suspended,
            wait,
        } = postponement;
        if let Some(wait) = wait {
            return StepResult::Waits(entry.queue(), wait, Vec::new());
        }
        let Some(until) = until else {
            // More can be attempted at once: leave it to the next pass.
            return StepResult::Over(MessageOutcome::Left, Vec::new());
        };
        let mut notices = Vec::new();
        if let Some(occasion) = overdue(entry.state(), self.now()) {
            match self.notify_sender(&mut entry, &occasion) {
                Ok(notice) => notices.extend(notice),
                Err(settled) => return StepResult::Over(settled, notices),
            }
        }
        let (id, until) = (entry.id(), self.rest_until(&entry, until));
        let is_down = suspended.is_empty();
        let why = if is_down { "down" } else { "suspended" };
        tracing::debug!(%id, %until, "put off: its destination is {why}");
        let settled = match entry.postpone(until) {
            Ok(()) => MessageOutcome::Resting(QueueUntil::Deferred(until)),
            Err(error) => self.trouble(id, &error.to_string()),
        };
        let queue = entry.queue();
        // Release the lock before checking the suspensions again: the process that ends a suspension skips
        // locked messages, and relies on this check.
        drop(entry);
        if !is_down && !self.are_in_force(&suspended) {
            self.reactivate(id, queue);
        }
        StepResult::Over(settled, notices)
    }

    /// Whether all of these suspensions are still in force. If that cannot be determined, returns true: the
    /// message is looked at again soon enough.
    fn are_in_force(&self, suspended: &BTreeSet<String>) -> bool {
        let Ok(there) = self.spool.suspended() else {
            return true;
        };
        suspended.iter().all(|file| there.has(file))
    }

    /// Makes a message due again that was put off for a suspension which has ended. Another process that
    /// has it locked makes this check itself. If this fails, the message is looked at again soon enough.
    fn reactivate(&self, id: QueueId, queue: Queue) {
        if let Ok(Claim::Locked(locked)) = self.spool.lock(queue, id)
            && let Ok(mut entry) = locked.read()
            && let Err(error) = entry.activate()
        {
            tracing::warn!(%id, %error, "not made due, although it is no longer suspended");
        }
    }

    /// When a message is due again if all its due recipients are put off until `until`: earlier than that
    /// if another recipient or a delay notice is due before.
    fn rest_until(&self, entry: &Entry, until: Timestamp) -> Timestamp {
        let now = self.now();
        let times = |recipient: &RecipientState| match recipient.fate {
            Fate::Pending { next } => [Some(next), recipient.warn],
            _ => [None, None],
        };
        let times = entry.state().recipients.iter().flat_map(times).flatten();
        let next = times.filter(|time| *time > now).min();
        next.map_or(until, |next| next.min(until))
    }
}
