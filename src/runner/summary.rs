//! What a run did, in numbers.

use super::steps::MessageOutcome;
use crate::queue::{QueueUntil, Status};

/// What a pass did. The counts are of recipients unless stated otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that this pass worked on.
    pub messages: u64,
    /// Delivered recipients.
    pub delivered: u64,
    /// Recipients to be tried again.
    pub deferred: u64,
    /// Permanently failed recipients.
    pub failed: u64,
    /// Messages that were frozen.
    pub frozen: u64,
    /// Notices that were queued.
    pub notices: u64,
    /// Messages that were locked by another process or thread.
    #[doc(hidden)]
    pub busy: u64,
    /// Messages that were moved to `corrupt/`.
    #[doc(hidden)]
    pub corrupt: u64,
    /// Messages that a system error kept from being worked on.
    pub trouble: u64,
    /// Directories that could not be read, and other failures in the spool that do not concern one message.
    #[doc(hidden)]
    pub unread: u64,
}

impl Summary {
    /// Adds another pass's counts to these.
    #[doc(hidden)]
    pub fn add(&mut self, other: &Summary) {
        let Summary {
            messages,
            delivered,
            deferred,
            failed,
            frozen,
            notices,
            busy,
            corrupt,
            trouble,
            unread,
        } = other;
        self.messages += messages;
        self.delivered += delivered;
        self.deferred += deferred;
        self.failed += failed;
        self.frozen += frozen;
        self.notices += notices;
        self.busy += busy;
        self.corrupt += corrupt;
        self.trouble += trouble;
        self.unread += unread;
    }

    /// Counts a message that was handled, and the outcomes of its recipients.
    pub(super) fn count(&mut self, settled: &MessageOutcome, results: &[Status]) {
        match settled {
            MessageOutcome::Absent => return,
            // Otherwise some recipients were tried before the run was to end.
            MessageOutcome::Left if results.is_empty() => return,
            MessageOutcome::Busy => self.busy += 1,
            MessageOutcome::Corrupt(_) => self.corrupt += 1,
            MessageOutcome::Resting(QueueUntil::Frozen(_)) => self.frozen += 1,
            // Trouble is counted at the end.
            MessageOutcome::Finished
            | MessageOutcome::Left
            | MessageOutcome::Resting(_)
            | MessageOutcome::Trouble(_) => {}
        }
        if *settled != MessageOutcome::Busy {
            self.messages += 1;
        }
        self.count_results(results);
    }

    /// Counts outcomes of recipients.
    pub(super) fn count_results(&mut self, results: &[Status]) {
        for status in results {
            match status {
                Status::Delivered => self.delivered += 1,
                Status::Failed => self.failed += 1,
                Status::Deferred | Status::Unknown => self.deferred += 1,
            }
        }
    }
}
