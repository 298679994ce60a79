//! Sessions that are open and idle, for the next message to the same destination.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connections::ConnectionSlot;
use crate::spool::Destination;
use crate::transport::Session;

/// So long an idle session is kept: others may wait for its place.
const IDLE: Duration = Duration::from_secs(1);

/// A session, and the right to its connection if it has one.
pub(super) struct Open {
    pub session: Box<dyn Session>,
    /// For its destination.
    pub slot: Option<ConnectionSlot>,
    /// For its host, where that is another thing.
    pub host: Option<Box<HostSlot>>,
    /// Nothing was delivered over it for this destination.
    pub is_new: bool,
    /// A better host listens, and was left for the sake of a few recipients: this session is not
    /// for those of other messages.
    pub is_second_best: bool,
}

/// The right to a connection to a host.
pub(super) struct HostSlot {
    pub slot: ConnectionSlot,
    /// How log lines name it: connections to one address under two names are two.
    pub name: String,
}

struct Idle {
    destination: Destination,
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
        self.set_idle(false);
        self
    }

    fn set_idle(&mut self, idle: bool) {
        let host = self.host.as_mut().map(|host| &mut host.slot);
        for slot in [self.slot.as_mut(), host].into_iter().flatten() {
            slot.set_idle(idle);
        }
    }

    /// Says goodbye; only then may somebody else have the place.
    pub async fn close(self) {
        if let Some(slot) = self.leave().await {
            retire(slot).await;
        }
    }

    /// The same, but the right to a connection to the destination stays.
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

/// Gives up the right to a connection that is closed.
pub(super) async fn retire(slot: ConnectionSlot) {
    // `retire` cannot panic; if it did, the place would still be free.
    let _ = tokio::task::spawn_blocking(move || slot.retire()).await;
}

impl Sessions {
    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle session to a hop, the one used last.
    pub fn take(&self, destination: &Destination) -> Option<Open> {
        let mut idle = self.idle();
        let at = idle
            .iter()
            .rposition(|idle| idle.destination == *destination)?;
        idle.remove(at).map(|idle| idle.open.taken())
    }

    /// Takes an idle session to a host under this name, whatever destination it was opened for.
    pub fn take_to(&self, host: &Destination, name: &str) -> Option<Open> {
        self.take_where(|seat| seat.slot.destination() == host && seat.name == name)
    }

    /// The same under any name.
    pub fn take_any_to(&self, host: &Destination) -> Option<Open> {
        self.take_where(|seat| seat.slot.destination() == host)
    }

    fn take_where(&self, is_it: impl Fn(&HostSlot) -> bool) -> Option<Open> {
        let mut idle = self.idle();
        let at = idle
            .iter()
            .rposition(|idle| idle.open.host.as_deref().is_some_and(&is_it))?;
        idle.remove(at).map(|idle| idle.open.taken())
    }

    /// Keeps a session that may be used again. At most `most` are kept; the one that was idle
    /// longest is returned, to be closed.
    #[must_use]
    pub fn keep(&self, destination: Destination, mut open: Open, most: usize) -> Option<Open> {
        let since = Instant::now();
        let mut idle = self.idle();
        // It is to be had by the time that others hear of it.
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

    /// When the session that is idle longest has been so for too long.
    pub fn next_end(&self) -> Option<Instant> {
        // Only a connection costs anybody anything.
        let idle = self.idle();
        let first = idle.iter().find(|idle| idle.open.slot.is_some());
        first.map(|idle| idle.since + IDLE)
    }

    /// Those that have been idle for too long.
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

    /// Closes them all.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for one in idle {
            one.open.close().await;
        }
    }
}
