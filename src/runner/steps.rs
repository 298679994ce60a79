//! One message: lock it, follow its steps, move it to the queue where it belongs.

use jiff::SignedDuration;

use super::Core;
use super::lanes::{Candidate, WaitReason};
use super::record::{from, log_results};
use crate::disk;
use crate::message::{NoticeKind, QueueId};
use crate::notice::{self, Means, Told, tell};
use crate::queue::{
    Action, By, Hold, Occasion, Outcome, QueueUntil, RecipientResult, Status, Step, Then, What,
    next_step, recipient_result,
};
use crate::spool::{Claim, Entry, Queue, Served, Unreadable};

/// When a recipient is tried once more after an interruption at the end of its lifetime.
const ONCE_MORE: SignedDuration = SignedDuration::from_mins(15);

/// The result of working on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    /// The message does not exist.
    Absent,
    /// Another process has it locked.
    Busy,
    /// It is due, but this run takes nothing more. It stays where it was.
    Left,
    /// It is finished.
    Finished,
    /// It rests until a time, or until an operator acts.
    Resting(QueueUntil),
    /// It was moved to `corrupt/`, for this reason.
    Corrupt(String),
    /// A system error prevented the work. It stays where it was.
    Trouble(String),
}

/// The result of following the steps.
pub(super) enum StepResult {
    /// These recipients are to be tried now. The notices are new in the queue.
    Attempt(Box<Entry>, Vec<usize>, Vec<QueueId>),
    /// It waits in this queue for its turn with a destination.
    Waits(Queue, WaitReason, Vec<QueueId>),
    /// No step is left for now. The notices are new in the queue.
    Over(MessageOutcome, Vec<QueueId>),
    /// It is in `done/`. Includes whether it has a history, and the new notices.
    Finished(bool, Vec<QueueId>),
}

impl StepResult {
    /// Adds notices that were queued earlier.
    pub fn with(mut self, mut early: Vec<QueueId>) -> StepResult {
        let (StepResult::Attempt(_, _, notices)
        | StepResult::Waits(_, _, notices)
        | StepResult::Over(_, notices)
        | StepResult::Finished(_, notices)) = &mut self;
        notices.append(&mut early);
        self
    }
}

impl Core {
    /// Locks a candidate and follows its steps up to an attempt, if one is due.
    pub(super) fn take(&self, candidate: Candidate) -> StepResult {
        let Candidate { id, queue } = candidate;
        let settled = |settled| StepResult::Over(settled, Vec::new());
        let locked = match self.spool.lock(queue, id) {
            Ok(Claim::Locked(locked)) => locked,
            Ok(Claim::Absent | Claim::NotAFile) => return settled(MessageOutcome::Absent),
            Ok(Claim::Busy) => return settled(MessageOutcome::Busy),
            Err(error) => return settled(self.trouble(id, &error.to_string())),
        };
        match locked.read() {
            Ok(entry) => {
                self.troubles.read_whole();
                self.follow(entry)
            }
            Err(Unreadable::Corrupt(_, reason)) if !self.may_quarantine(candidate) => {
                tracing::warn!(%id, reason, "looks corrupt; left where it is");
                settled(MessageOutcome::Left)
            }
            Err(Unreadable::Corrupt(locked, reason)) => {
                let moved = locked.quarantine(&reason);
                tracing::error!(%id, reason, "corrupt");
                settled(match moved {
                    Ok(()) => MessageOutcome::Corrupt(reason),
                    Err(error) => self.trouble(id, &error.to_string()),
                })
            }
            Err(Unreadable::Failed(error)) => settled(self.trouble(id, &error.to_string())),
        }
    }

    /// Carries out a message's steps until one is an attempt, or none is left.
    pub(super) fn follow(&self, mut entry: Entry) -> StepResult {
        let id = entry.id();
        let mut notices = Vec::new();
        loop {
            let step = next_step(entry.state(), self.now(), self.retry.longest_delay());
            let done = match step {
                Step::Attempt(due) if !self.is_stopped() => {
                    return StepResult::Attempt(Box::new(entry), due, notices);
                }
                Step::Attempt(_) => return StepResult::Over(MessageOutcome::Left, notices),
                Step::Interrupted(tried) => self.record_interruption(&mut entry, &tried),
                Step::Freeze(reason) => self.record_freeze(&mut entry, reason, None),
                Step::FreezeFailed(reason) => {
                    let end = self.end_of_frozen();
                    self.record_freeze(&mut entry, reason, end)
                }
                Step::Thaw => {
                    let thaw = Action::Thaw(By::rule("the freeze ran out"));
                    let recorded = self.record(&mut entry, thaw);
                    if recorded.is_ok() {
                        tracing::info!(%id, "thawed: its time has come");
                    }
                    recorded
                }
                Step::Notify(occasion) => match self.notify_sender(&mut entry, &occasion) {
                    Ok(notice) => {
                        notices.extend(notice);
                        Ok(())
                    }
                    Err(settled) => return StepResult::Over(settled, notices),
                },
                Step::Rest(until) => {
                    let settled = match entry.rest(until) {
                        Ok(()) => MessageOutcome::Resting(until),
                        Err(error) => self.trouble(id, &error.to_string()),
                    };
                    return StepResult::Over(settled, notices);
                }
                Step::Finish => {
                    return match entry.finish() {
                        Ok(has_history) => {
                            log_end(&entry);
                            StepResult::Finished(has_history, notices)
                        }
                        Err(error) => {
                            log_end(&entry);
                            StepResult::Over(self.not_finished(entry, &error), notices)
                        }
                    };
                }
            };
            if let Err(error) = done {
                return StepResult::Over(self.trouble(id, &error.to_string()), notices);
            }
        }
    }

    /// Queues a notice to the sender. Returns the notice's id if one is sent; the error is the result for
    /// the message.
    pub(super) fn notify_sender(
        &self,
        entry: &mut Entry,
        occasion: &Occasion,
    ) -> Result<Option<QueueId>, MessageOutcome> {
        let id = entry.id();
        let means = Means {
            builder: &*self.notices,
            retry: &*self.retry,
            delays: &self.delays,
        };
        match tell(entry, occasion, means, self.now()) {
            Ok(Told::Queued(notice)) => {
                let recipients = occasion.recipients.len();
                let words = match occasion.kind {
                    NoticeKind::Bounce => "bounced",
                    NoticeKind::Delay => "the sender is told of a delay",
                    NoticeKind::Success => "the sender is told of a delivery",
                };
                tracing::info!(%id, %notice, recipients, "{words}");
                Ok(Some(notice))
            }
            Ok(Told::Nothing) => Ok(None),
            Ok(Told::Busy) => Err(MessageOutcome::Busy),
            Err(error @ (notice::Error::Disk(_) | notice::Error::Builder(_))) => {
                Err(self.trouble(id, &error.to_string()))
            }
        }
    }

    fn record(&self, entry: &mut Entry, action: Action) -> disk::Result<()> {
        entry.record_durably(self.now(), What::Action(action))
    }

    /// When a message that is frozen now because it failed is to be discarded. Rounded up to the hour:
    /// otherwise there would be a bucket for each minute of two weeks, and each run lists all buckets.
    fn end_of_frozen(&self) -> Option<jiff::Timestamp> {
        const HOUR: i64 = 3600;
        let lifetime = self.frozen_lifetime?;
        let end = self.now().saturating_add(lifetime).ok()?;
        if lifetime.as_secs() < 24 * HOUR {
            return Some(end);
        }
        let hours = end.as_second().div_euclid(HOUR) + 1;
        Some(jiff::Timestamp::from_second(hours * HOUR).unwrap_or(end))
    }

    /// Freezes a message by rule, until an operator releases it or until it is discarded.
    fn record_freeze(
        &self,
        entry: &mut Entry,
        reason: String,
        discard: Option<jiff::Timestamp>,
    ) -> disk::Result<()> {
        let then = match discard {
            Some(_) => Then::Discard,
            None => Then::Thaw,
        };
        let (by, until) = (By::rule(reason.as_str()), discard);
        self.record(entry, Action::Freeze { by, until, then })?;
        let id = entry.id();
        match discard {
            Some(until) => tracing::warn!(%id, reason, discarded = %until, "frozen"),
            None => tracing::warn!(%id, reason, "frozen"),
        }
        Ok(())
    }

    /// Counts the interruption, records it, and only then removes the mark. The record is a deferral, so it
    /// is not synced.
    fn record_interruption(&self, entry: &mut Entry, tried: &[usize]) -> disk::Result<()> {
        let now = self.now();
        let delay = self.retry.longest_delay().min(ONCE_MORE);
        let once_more = now.saturating_add(delay).unwrap_or(now);
        entry.count_interruption()?;
        let results: Vec<RecipientResult> = tried
            .iter()
            .map(|n| {
                let recipient = &entry.state().recipients[*n].address;
                let transport = self.transport_for(entry, recipient);
                let outcome = Outcome::interrupted();
                let result = recipient_result(
                    entry.state(),
                    recipient,
                    transport,
                    outcome,
                    &*self.retry,
                    &self.delays,
                    now,
                );
                // No host said anything about this recipient. The mark may come from a restore or a manual
                // edit, and must not bounce the message.
                match result.next {
                    Some(_) => result,
                    None => RecipientResult {
                        status: Status::Unknown,
                        next: Some(once_more),
                        expired: false,
                        ..result
                    },
                }
            })
            .collect();
        let transport = None;
        let outcome = What::Outcome {
            began: now,
            transport,
            results: results.clone(),
        };
        // If the record cannot be written, the mark stays, and the next process to lock the message finds
        // it: without the mark the recipient would be tried at once, as if nothing had happened. If the
        // disk is full, removing the mark is all that can be done.
        let recorded = match entry.record(now, outcome) {
            Err(full) if full.is_full() => Ok(()),
            other => other,
        };
        let ended = recorded.and_then(|()| entry.end());
        log_results(entry, None, &results, now);
        ended
    }

    /// Serves the waiting request for a message, unless another process has the message locked.
    pub(super) fn serve_request(&self, id: QueueId) -> disk::Result<()> {
        match self.spool.serve_request(id, self.now())? {
            Served::Nothing => {}
            Served::Unreadable => {
                tracing::error!(%id, "a request that cannot be read was dropped");
            }
            Served::Refused(action, why) => {
                let (by, action) = (&action.by().by, action.as_str());
                tracing::warn!(%id, action, by, why, "request not served");
            }
            Served::Done(action) => {
                let By { by, reason } = action.by();
                tracing::info!(%id, action = action.as_str(), by, reason, "request served");
            }
        }
        Ok(())
    }
}

/// Logs why a message that is about to be forgotten was not delivered.
fn log_end(entry: &Entry) {
    let id = entry.id();
    match &entry.state().hold {
        Hold::Discarded { by, .. } => {
            tracing::info!(%id, by = by.by, reason = by.reason, "discarded for good");
        }
        Hold::Frozen { by, since, .. } => {
            let from = from(entry);
            let failed = entry
                .state()
                .recipients
                .iter()
                .filter(|recipient| recipient.is_untold());
            let to: Vec<&str> = failed.map(|recipient| recipient.address.as_str()).collect();
            let (to, reason) = (to.join(", "), &by.reason);
            let text = "discarded: no operator acted on it while it was frozen";
            tracing::warn!(%id, from, to, frozen = %since, reason, "{text}");
        }
        Hold::None => {}
    }
}
