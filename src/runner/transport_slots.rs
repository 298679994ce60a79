//! Transport slots: they bound how many transactions a transport has at once, over all processes and
//! destinations. Without them, a command that hangs and a run that begins each minute would add up to
//! hundreds of commands.
//!
//! A slot is taken for each transaction and released with it, so that no process keeps a slot that it does
//! not use. While a process knows that no slot is free, it does not ask the file system.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connections::{Connections, StateOp};
use crate::spool::{Destination, Slot, Spool};

/// How long to wait before asking again after other processes had all slots.
const FRESH: Duration = Duration::from_secs(1);

/// The transport slots that this process has, by transport.
#[derive(Default)]
pub(super) struct TransportSlots {
    pools: Mutex<HashMap<String, Pool>>,
}

#[derive(Default)]
struct Pool {
    taken: usize,
    /// Where the search begins: a slot that this process has just released is probably free.
    first: usize,
    /// Until when the slots that this process does not have are taken to be used by other processes.
    full: Option<Instant>,
}

/// One slot, until it is dropped.
pub(super) struct TransportSlot {
    slots: Arc<TransportSlots>,
    transport: String,
    /// `None` if a system error kept it from being locked.
    lock: Option<Slot>,
}

/// Whether a slot is free.
pub(super) enum SlotAnswer {
    /// A slot was taken.
    Taken(TransportSlot),
    /// Another transaction of this process has to end first.
    Wait,
    /// Other processes have all slots.
    Full,
}

impl TransportSlots {
    fn pools(&self) -> MutexGuard<'_, HashMap<String, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets at the beginning of a run what the previous run saw.
    pub fn begin(&self) {
        self.pools().values_mut().for_each(|pool| pool.full = None);
    }

    /// Whether a slot may be free, as far as is known without asking the file system.
    pub fn has_room(&self, transport: &str, most: usize) -> bool {
        let pools = self.pools();
        pools.get(transport).is_none_or(|pool| pool.has_room(most))
    }

    /// Takes one of the `most` slots of a destination's transport. May block.
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
        // Dropping this undoes the count if no slot is free.
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
        // Unlock before the count shows this process that there is room.
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
