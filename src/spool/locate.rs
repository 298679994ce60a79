//! Where a message is, as determined without its lock.

use std::ops::ControlFlow;
use std::time::Duration;

use super::Spool;
use super::layout::Queue;
use super::scan::or_note;
use crate::disk;
use crate::message::QueueId;

/// Where a message is, as determined without its lock.
#[derive(Debug)]
#[must_use]
pub enum Located {
    /// In this queue, at the time of the check.
    At(Queue),
    /// Nowhere: it never existed, or it is forgotten.
    Absent,
    /// Not found, but it may exist: the caller must not act as if it were gone.
    Uncertain(Doubt),
}

/// Why it is uncertain where a message is.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// It exists, and was moved each time before its queue was checked.
    #[error("it is moving between queues")]
    Moving,
    /// It may be in a directory that could not be read.
    #[error(transparent)]
    Unread(#[from] disk::Error),
}

impl Located {
    /// The queue in which it was found.
    pub fn queue(&self) -> Option<Queue> {
        match self {
            Located::At(queue) => Some(*queue),
            Located::Absent | Located::Uncertain(_) => None,
        }
    }
}

impl Spool {
    /// Returns where a message is now.
    ///
    /// # Errors
    /// If the view cannot be checked for the message.
    pub fn locate(&self, id: QueueId) -> disk::Result<Located> {
        /// Most passes for a message that the view lists: each pass may miss it while it moves.
        const MAX_LOOKS: usize = 5;
        /// Fewest passes before a message counts as absent. The view may be lost, so a message missing from
        /// it may still exist.
        const LEAST_LOOKS: usize = 2;
        let mut unread = Vec::new();
        for look in 1..=MAX_LOOKS {
            unread.clear();
            let found = self.walk(&mut unread, |queue, unread| {
                match or_note(self.stat_in(queue, id), unread) {
                    Some(_) => ControlFlow::Break(queue),
                    None => ControlFlow::Continue(()),
                }
            });
            if let ControlFlow::Break(queue) = found {
                return Ok(Located::At(queue));
            }
            match (self.is_in_view(id)?, unread.is_empty()) {
                (true, _) => {}
                (false, false) => break,
                (false, true) if look < LEAST_LOOKS => {}
                (false, true) => return Ok(Located::Absent),
            }
        }
        let doubt = unread
            .into_iter()
            .next()
            .map_or(Doubt::Moving, Doubt::Unread);
        Ok(Located::Uncertain(doubt))
    }

    /// Returns where a message is, for a caller that acts irrevocably if it is gone.
    ///
    /// A power cut may leave the view of a message that was never durable or is forgotten; then
    /// [`locate`](Spool::locate) stays uncertain forever. A pass misses a message only if the message is
    /// renamed meanwhile. No message is renamed during each of so many passes with pauses between them,
    /// because after an attempt it rests for a minute. If a queue could not be read, the result stays
    /// uncertain.
    pub fn locate_for_good(&self, id: QueueId) -> disk::Result<Located> {
        const ROUNDS: usize = 3;
        const PAUSE: Duration = Duration::from_millis(10);
        for round in 0..ROUNDS {
            if round > 0 {
                std::thread::sleep(self.disk.patience(PAUSE));
            }
            match self.locate(id)? {
                Located::Uncertain(Doubt::Moving) => {}
                other => return Ok(other),
            }
        }
        Ok(Located::Absent)
    }
}
