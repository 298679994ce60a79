//! Places: how many transactions a transport has at once, over all processes and whatever their
//! destination. A command that hangs, and a run that begins each minute, must not add up to
//! hundreds of commands.
//!
//! A place is taken for each transaction and given back with it, so that no process keeps one
//! that it does not use. Within a process nothing is asked of the file system while it is known
//! that there is none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connections::{Connections, StateOp};
use crate::spool::{Destination, Slot, Spool};

/// So long after other processes had all places another look is taken.
const FRESH: Duration = Duration::from_secs(1);

/// The places that this process has, by transport.
#[derive(Default)]
pub(super) struct TransportSlots {
    pools: Mutex<HashMap<String, Pool>>,
}

#[derive(Default)]
struct Pool {
    taken: usize,
    /// Where the search begins: a slot that was ours a moment ago is probably free.
    first: usize,
    /// Other processes have those that we do not have, as far as was seen; until then.
    full: Option<Instant>,
}

/// One place, until it is dropped.
pub(super) struct TransportSlot {
    slots: Arc<TransportSlots>,
    transport: String,
    /// None where it could not be had for an error of the system's.
    lock: Option<Slot>,
}

/// Whether there is a place.
pub(super) enum SlotAnswer {
    /// There is.
    Taken(TransportSlot),
    /// One of our own has to be done first.
    Wait,
    /// Other processes have all of them.
    Full,
}

impl TransportSlots {
    fn pools(&self) -> MutexGuard<'_, HashMap<String, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins: what was seen in the one before counts no longer.
    pub fn begin(&self) {
        self.pools().values_mut().for_each(|pool| pool.full = None);
    }

    /// Whether one may be had, as far as is known without asking.
    pub fn has_room(&self, transport: &str, most: usize) -> bool {
        let pools = self.pools();
        pools.get(transport).is_none_or(|pool| pool.has_room(most))
    }

    /// Takes one of the `most` places of a hop's transport. Runs where it may block.
    pub fn take(
        self: &Arc<TransportSlots>,
        spool: &Spool,
        connections: &Connections,
        destination: &Destination,
        most: usize,
    ) -> SlotAnswer {
        let name = &destination.transport;
        let first = {
            let mut pools = self.pools();
            let pool = pools.entry(name.clone()).or_default();
            if !pool.has_room(most) {
                return pool.none();
            }
            pool.taken += 1;
            pool.first
        };
        // Gives it back if there is none.
        let mut slot = TransportSlot {
            slots: Arc::clone(self),
            transport: name.clone(),
            lock: None,
        };
        match spool.take_place(name, most, first) {
            Ok(Some(lock)) => slot.lock = Some(lock),
            Ok(None) => {
                drop(slot);
                let mut pools = self.pools();
                let pool = pools.entry(name.clone()).or_default();
                pool.full = Some(Instant::now() + FRESH);
                return pool.none();
            }
            Err(error) => connections.go_without(StateOp::TransportSlot, destination, &error),
        }
        SlotAnswer::Taken(slot)
    }
}

impl Pool {
    fn has_room(&self, most: usize) -> bool {
        self.taken < most && self.full.is_none_or(|until| until <= Instant::now())
    }

    fn none(&self) -> SlotAnswer {
        match self.taken {
            0 => SlotAnswer::Full,
            _ => SlotAnswer::Wait,
        }
    }
}

impl Drop for TransportSlot {
    fn drop(&mut self) {
        let number = self.lock.as_ref().map(Slot::number);
        // Before one of ours is told that there is room.
        drop(self.lock.take());
        let mut pools = self.slots.pools();
        if let Some(pool) = pools.get_mut(&self.transport) {
            pool.taken = pool.taken.saturating_sub(1);
            if let Some(number) = number {
                (pool.first, pool.full) = (number, None);
            }
        }
    }
}
