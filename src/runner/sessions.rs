//! Sessions that are open and idle, for the next message to the same destination.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::hops::Permit;
use crate::spool::Hop;
use crate::transport::Session;

/// So long an idle session is kept: others may wait for its place.
const IDLE: Duration = Duration::from_secs(1);

/// A session, and the right to its connection if it has one.
pub(super) struct Open {
    pub session: Box<dyn Session>,
    pub permit: Option<Permit>,
}

struct Idle {
    hop: Hop,
    open: Open,
    since: Instant,
}

/// Idle sessions, the one used last at the back.
#[derive(Default)]
pub(super) struct Sessions {
    idle: Mutex<VecDeque<Idle>>,
}

impl Open {
    /// No longer one that a message might use.
    fn taken(mut self) -> Open {
        if let Some(permit) = &mut self.permit {
            permit.set_idle(false);
        }
        self
    }

    /// Says goodbye; only then may somebody else have the place.
    pub async fn close(self) {
        self.session.close().await;
        if let Some(permit) = self.permit {
            // It panics nowhere, and if it did the place would be free.
            let _ = tokio::task::spawn_blocking(move || permit.retire()).await;
        }
    }
}

impl Sessions {
    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle session to a hop, the one used last.
    pub fn take(&self, hop: &Hop) -> Option<Open> {
        let mut idle = self.idle();
        let at = idle.iter().rposition(|one| one.hop == *hop)?;
        idle.remove(at).map(|one| one.open.taken())
    }

    /// Keeps a session that may be used again. At most `most` are kept; the one that was idle
    /// longest is returned, to be closed.
    #[must_use]
    pub fn keep(&self, hop: Hop, mut open: Open, most: usize) -> Option<Open> {
        if let Some(permit) = &mut open.permit {
            permit.set_idle(true);
        }
        let since = Instant::now();
        let mut idle = self.idle();
        idle.push_back(Idle { hop, open, since });
        match idle.len() > most {
            true => idle.pop_front().map(|one| one.open.taken()),
            false => None,
        }
    }

    /// When the session that is idle longest has been so for too long.
    pub fn next_end(&self) -> Option<Instant> {
        // Only a connection costs anybody anything.
        let idle = self.idle();
        let first = idle.iter().find(|one| one.open.permit.is_some());
        first.map(|one| one.since + IDLE)
    }

    /// Those that have been idle for too long.
    pub fn ended(&self) -> Vec<Open> {
        let mut idle = self.idle();
        let (ended, left) = std::mem::take(&mut *idle)
            .into_iter()
            .partition::<Vec<Idle>, _>(|one| {
                one.open.permit.is_some() && one.since.elapsed() >= IDLE
            });
        *idle = left.into();
        ended.into_iter().map(|one| one.open.taken()).collect()
    }

    /// Closes them all.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for one in idle {
            one.open.close().await;
        }
    }
}
