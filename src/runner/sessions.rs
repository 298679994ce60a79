//! Open idle sessions, kept for the next message to the same destination.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connections::ConnectionSlot;
use crate::spool::Destination;
use crate::transport::Session;

/// How long an idle session is kept. After that it is closed, because other processes may wait for its
/// slot.
const IDLE: Duration = Duration::from_secs(1);

/// A session, and its connection slots if it has any.
pub(super) struct Open {
    pub session: Box<dyn Session>,
    /// The slot for its destination.
    pub slot: Option<ConnectionSlot>,
    /// The slot for its host, if the host is not the destination itself.
    pub host: Option<Box<HostSlot>>,
    /// Nothing has been delivered over it for this destination yet.
    pub is_new: bool,
    /// A better host listens, and this one was asked only because that host put a few recipients off. The
    /// session is not used for other messages.
    pub is_second_best: bool,
}

/// The slot for a connection to a host.
pub(super) struct HostSlot {
    pub slot: ConnectionSlot,
    /// The host's name in log lines: connections to one address under two names are distinct.
    pub name: String,
}

struct Idle {
    destination: Destination,
    open: Open,
    since: Instant,
}

/// Idle sessions, the most recently used last.
#[derive(Default)]
pub(super) struct Sessions {
    idle: Mutex<VecDeque<Idle>>,
}

impl Open {
    /// Marks the session as no longer idle.
    fn taken(mut self) -> Open {
        self.set_idle(false);
        self
    }

    fn set_idle(&mut self, idle: bool) {
        let host = self.host.as_mut().map(|host| &mut host.slot);
        for slot in [self.slot.as_mut(), host].into_iter().flatten() {
            slot.set_idle(idle);
        }
    }

    /// Ends the session, and only then releases its slots for other processes.
    pub async fn close(self) {
        if let Some(slot) = self.leave().await {
            retire(slot).await;
        }
    }

    /// The same, but keeps the connection slot for the destination.
    pub async fn leave(self) -> Option<ConnectionSlot> {
        self.session.close().await;
        if let Some(host) = self.host {
            retire(host.slot).await;
        }
        let mut slot = self.slot;
        if let Some(slot) = &mut slot {
            slot.fell();
        }
        slot
    }
}

/// Releases the slot of a closed connection.
pub(super) async fn retire(slot: ConnectionSlot) {
    // `retire` cannot panic; if it did, the slot would still be released.
    let _ = tokio::task::spawn_blocking(move || slot.retire()).await;
}

impl Sessions {
    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the most recently used idle session to a destination.
    pub fn take(&self, destination: &Destination) -> Option<Open> {
        let mut idle = self.idle();
        let at = idle
            .iter()
            .rposition(|idle| idle.destination == *destination)?;
        idle.remove(at).map(|idle| idle.open.taken())
    }

    /// Takes an idle session to a host under this name, for whichever destination it was opened.
    pub fn take_to(&self, host: &Destination, name: &str) -> Option<Open> {
        self.take_where(|host_slot| host_slot.slot.destination() == host && host_slot.name == name)
    }

    /// Takes an idle session to a host under any name.
    pub fn take_any_to(&self, host: &Destination) -> Option<Open> {
        self.take_where(|host_slot| host_slot.slot.destination() == host)
    }

    fn take_where(&self, is_it: impl Fn(&HostSlot) -> bool) -> Option<Open> {
        let mut idle = self.idle();
        let at = idle
            .iter()
            .rposition(|idle| idle.open.host.as_deref().is_some_and(&is_it))?;
        idle.remove(at).map(|idle| idle.open.taken())
    }

    /// Keeps a session for reuse. At most `most` are kept; the session that has been idle longest is
    /// returned, to be closed.
    #[must_use]
    pub fn keep(&self, destination: Destination, mut open: Open, most: usize) -> Option<Open> {
        let since = Instant::now();
        let mut idle = self.idle();
        // The lock on the list is held, so the session is in it before a woken transaction can look.
        open.set_idle(true);
        idle.push_back(Idle {
            destination,
            open,
            since,
        });
        if idle.len() > most {
            idle.pop_front().map(|idle| idle.open.taken())
        } else {
            None
        }
    }

    /// When the session that has been idle longest is to be closed.
    pub fn next_end(&self) -> Option<Instant> {
        // A session without a connection slot occupies no connection, so it need not be closed.
        let idle = self.idle();
        let first = idle.iter().find(|idle| idle.open.slot.is_some());
        first.map(|idle| idle.since + IDLE)
    }

    /// Takes the sessions that have been idle too long.
    pub fn ended(&self) -> Vec<Open> {
        let mut idle = self.idle();
        let (ended, left) = std::mem::take(&mut *idle)
            .into_iter()
            .partition::<Vec<Idle>, _>(|idle| {
                idle.open.slot.is_some() && idle.since.elapsed() >= IDLE
            });
        *idle = left.into();
        ended.into_iter().map(|idle| idle.open.taken()).collect()
    }

    /// Closes all sessions.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for session in idle {
            session.open.close().await;
        }
    }
}
