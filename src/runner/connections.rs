//! Destinations that are spoken to over connections, and their hosts: which answer, which are down,
//! and how many connections there are. A connection has a permit for the destination it was opened
//! for, and one for its host, unless the two are the same.
//!
//! What is remembered of a destination lies in the spool ([`Down`]); here is what this process
//! knows of it. Nothing of it costs a system call per message: a look at the memory is worth
//! [`FRESH`] and is not taken at all while a connection stands, and a place among those who
//! may speak to the destination is taken per connection.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::message::QueueId;
use crate::spool::{Destination, Down, Forgotten, Slot, Spool};

/// So long a look at the memory is believed, and so long a destination is let alone that takes no
/// more connections.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// So long after the last look a destination is known. One whose connections stood longer is
/// looked at anew when it is wanted again.
const KEPT: Duration = Duration::from_secs(60);

/// So long after a warning about the memory or the slots the next one of its kind comes.
const SAID: Duration = Duration::from_secs(3600);

/// After so many messages in a row over which it broke off, a host is down. One message alone may
/// be to blame for that, and so may two that are alike.
const STUMBLES: u32 = 3;

/// What this process knows of all destinations.
#[derive(Default)]
pub(super) struct Connections {
    known: Mutex<HashMap<Destination, Known>>,
    changed: Notify,
    /// For those who wait for their turn with a host.
    turned: Notify,
    /// When it was last said what cannot be had.
    said: Mutex<HashMap<StateOp, Instant>>,
}

/// What the spool does for destinations. None of it is needed: whoever cannot have it says so,
/// and goes without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StateOp {
    /// To know whether a destination is down.
    Recall,
    /// To remember that it is.
    Remember,
    /// To forget that.
    Forget,
    /// To be the only one who probes.
    Probe,
    /// To be one of so many who speak to it.
    Connection,
    /// To be one of so many who use its transport.
    TransportSlot,
}

impl StateOp {
    fn without(self) -> &'static str {
        match self {
            StateOp::Recall => "not known whether it is down; taken to be up",
            StateOp::Remember => "not remembered to be down, so every process finds that out",
            StateOp::Forget => "not forgotten to be down, so others wait for its probe",
            StateOp::Probe => "probed without a slot; another process may do so too",
            StateOp::TransportSlot => "served without a slot; other processes do not count it",
            StateOp::Connection => "spoken to without a slot; other processes do not count it",
        }
    }
}

/// What this process knows of one.
#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    down: Option<Down>,
    /// That could not be written down, so no look can show it.
    is_unwritten: bool,
    /// What is written down says nothing, and goes as soon as the destination answers.
    is_damaged: bool,
    /// It has answered since it failed last.
    answered: bool,
    /// One of ours opens the first connection, for all who wait.
    first: bool,
    /// Our connections: being opened, busy or idle.
    open: usize,
    /// Those of them that stand.
    standing: usize,
    /// Those of them that nobody uses.
    idle: usize,
    /// So many messages in a row it has broken off over, and which was the last.
    stumbles: u32,
    stumbled_over: Option<QueueId>,
    /// It takes no more connections than this, as far as was seen; until then.
    limit: Option<(usize, Instant)>,
}

/// Whether a message may go to a destination now.
pub(super) enum Gate {
    /// It may open a connection.
    Open(ConnectionSlot),
    /// It is down and is left alone.
    Down(Down),
    /// It is down, and another process finds out at this moment whether it still is.
    Probed,
    /// One of our own has to be done with it first.
    Wait,
    /// Others have all the connections there may be.
    Full,
}

/// The right to one connection, until it is dropped.
pub(super) struct ConnectionSlot {
    connections: Arc<Connections>,
    destination: Destination,
    lock: Option<Slot>,
    probe: Option<Slot>,
    /// Whether it finds out if the destination is still down, with a slot for that or without.
    probes: bool,
    first: bool,
    standing: bool,
    idle: bool,
}

impl Known {
    fn limit(&self, most: usize, now: Instant) -> usize {
        match self.limit {
            Some((limit, until)) if now < until => most.min(limit),
            _ => most,
        }
    }

    fn is_full(&self, most: usize) -> bool {
        self.open >= self.limit(most, Instant::now())
    }

    /// Nobody is at it, and what is known may be out of date.
    fn wants_a_look(&self) -> bool {
        let fresh = |looked: Instant| looked.elapsed() < FRESH;
        self.standing == 0 && !self.first && !self.looked.is_some_and(fresh)
    }
}

/// Whether nobody connects to it now, not even for a message that was `retried`.
fn is_left_alone(down: &Down, now: Timestamp, retried: Option<Timestamp>) -> bool {
    down.is_left_alone(now) && retried.is_none_or(|at| at <= down.tried)
}

impl Connections {
    fn known(&self) -> MutexGuard<'_, HashMap<Destination, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins: what was seen in the one before counts only where a connection stands.
    pub fn begin(&self) {
        self.known().retain(|_, known| known.open > 0);
        self.said().clear();
    }

    fn said(&self) -> MutexGuard<'_, HashMap<StateOp, Instant>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something cannot be had, and is gone without. That is said, and not again for each message.
    pub fn go_without(&self, operation: StateOp, destination: &Destination, error: &dyn Display) {
        let now = Instant::now();
        let mut said = self.said();
        if said
            .get(&operation)
            .is_none_or(|at| now.duration_since(*at) >= SAID)
        {
            said.insert(operation, now);
            tracing::warn!(destination = destination.to_string(), %error, "{}", operation.without());
        }
    }

    /// What is remembered of a destination, and whether that is damaged.
    fn recall(
        &self,
        spool: &Spool,
        destination: &Destination,
        now: Timestamp,
    ) -> (Option<Down>, bool) {
        match spool.recall_down_now(destination, now) {
            Ok(down) => (down, false),
            Err(error) => {
                self.go_without(StateOp::Recall, destination, &error);
                (None, matches!(error, Forgotten::Damaged(_)))
            }
        }
    }

    /// Forgets those that nobody asks about any more: whoever stays for months speaks to very
    /// many.
    pub fn tidy(&self) {
        let is_new = |looked: Instant| looked.elapsed() < KEPT;
        self.known()
            .retain(|_, known| known.open > 0 || known.looked.is_some_and(is_new));
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.known().len()
    }

    /// Asks for a connection. An operator who wanted the message `retried` after the
    /// destination was tried last has it tried again. Runs where it may block.
    pub fn ask(
        self: &Arc<Connections>,
        spool: &Spool,
        destination: &Destination,
        most: usize,
        now: Timestamp,
        retried: Option<Timestamp>,
    ) -> Gate {
        let wants_a_look = self
            .known()
            .entry(destination.clone())
            .or_default()
            .wants_a_look();
        if wants_a_look {
            let (down, is_damaged) = self.recall(spool, destination, now);
            let mut known = self.known();
            let known = known.entry(destination.clone()).or_default();
            known.looked = Some(Instant::now());
            known.is_damaged = is_damaged;
            let ours = known.is_unwritten && known.down.is_some();
            if down.is_some() || !ours {
                known.is_unwritten = false;
                known.answered &= down.is_none();
                known.down = down;
            }
        }
        let mut slot = {
            let mut known = self.known();
            let known = known.entry(destination.clone()).or_default();
            if known.first {
                return Gate::Wait;
            }
            if let Some(down) = &known.down
                && is_left_alone(down, now, retried)
            {
                return Gate::Down(down.clone());
            }
            if known.is_full(most) {
                return match known.open {
                    0 => Gate::Full,
                    _ => Gate::Wait,
                };
            }
            known.first = !known.answered;
            known.open += 1;
            ConnectionSlot {
                connections: Arc::clone(self),
                destination: destination.clone(),
                lock: None,
                probe: None,
                probes: false,
                first: known.first,
                standing: false,
                idle: false,
            }
        };
        let down = self
            .known()
            .get(destination)
            .is_some_and(|one| one.down.is_some());
        if slot.first && down {
            slot.probes = true;
            match spool.take_probe(destination) {
                Ok(Some(lock)) => slot.probe = Some(lock),
                Ok(None) => return Gate::Probed,
                Err(error) => self.go_without(StateOp::Probe, destination, &error),
            }
            // Somebody may have been through with it between our look and now.
            match self.recall(spool, destination, now).0 {
                Some(down) if is_left_alone(&down, now, retried) => {
                    slot.failed(down.clone(), true);
                    slot.retire();
                    return Gate::Down(down);
                }
                _ => {}
            }
        }
        match spool.take_connection(destination, most) {
            Ok(None) => {}
            Ok(lock) => {
                slot.lock = lock;
                return Gate::Open(slot);
            }
            Err(error) => {
                self.go_without(StateOp::Connection, destination, &error);
                return Gate::Open(slot);
            }
        }
        // Without the one that was to be.
        slot.retire();
        match self.limit(destination, 0) {
            0 => Gate::Full,
            _ => Gate::Wait,
        }
    }

    /// It takes no more connections than we have, without `these` of ours; how many that is.
    fn limit(&self, destination: &Destination, these: usize) -> usize {
        let mut known = self.known();
        let Some(known) = known.get_mut(destination) else {
            return 0;
        };
        let open = known.open.saturating_sub(these);
        known.limit = Some((open, Instant::now() + FRESH));
        open
    }

    /// Whether one more message may be taken for a destination that takes `most` connections,
    /// for which `in_hand` are in hand.
    pub fn has_room(
        &self,
        destination: &Destination,
        most: usize,
        in_hand: usize,
        now: Timestamp,
    ) -> bool {
        let known = self.known();
        let Some(known) = known.get(destination) else {
            return in_hand == 0;
        };
        if known.first {
            return false;
        }
        let left_alone = |down: &Down| down.is_left_alone(now);
        if known.down.as_ref().is_some_and(left_alone) {
            return true;
        }
        let limit = known.limit(most, Instant::now());
        let busy = known.open - known.idle;
        if known.answered {
            busy < limit && in_hand < limit
        } else {
            busy < limit && in_hand == 0
        }
    }

    /// Whether it has answered since it failed last.
    pub fn answers(&self, destination: &Destination) -> bool {
        self.known()
            .get(destination)
            .is_some_and(|known| known.answered)
    }

    /// Returns when more may be possible than before.
    pub async fn changed(&self) {
        let until = self.next_change();
        tokio::select! {
            () = self.changed.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    fn next_change(&self) -> Instant {
        let now = Instant::now();
        let known = self.known();
        let limits = known.values().filter_map(|known| known.limit);
        let ends = limits.map(|(_, until)| until).filter(|end| *end > now);
        // In case that something was missed.
        ends.min().unwrap_or(now + FRESH)
    }

    fn update(&self, destination: &Destination, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known().get_mut(destination) {
            change(known);
        }
    }

    /// Returns when a host may take one more than before, or after a while.
    pub async fn turned(&self, turned: impl Future<Output = ()>) {
        tokio::select! {
            () = turned => {}
            () = tokio::time::sleep(FRESH) => {}
        }
    }

    /// What [`turned`](Hops::turned) waits for. To be had before the look that fails.
    pub fn turn(&self) -> tokio::sync::futures::Notified<'_> {
        self.turned.notified()
    }

    fn wake(&self) {
        self.changed.notify_one();
        self.turned.notify_waiters();
    }
}

impl ConnectionSlot {
    /// The destination has answered. Returns whether something else is remembered of it.
    pub fn answered(&mut self, standing: bool) -> bool {
        let mut was_down = false;
        let first = std::mem::take(&mut self.first);
        self.connections.update(&self.destination, |known| {
            known.answered = true;
            known.first &= !first;
            known.standing += usize::from(standing && !self.standing);
            was_down = known.down.take().is_some();
            was_down |= std::mem::take(&mut known.is_damaged);
            known.is_unwritten = false;
        });
        self.standing |= standing;
        self.connections.wake();
        was_down
    }

    /// The connection stands, and is used: others need not wait until that is over.
    pub fn goes_on(&mut self) {
        let first = std::mem::take(&mut self.first);
        self.connections.update(&self.destination, |known| {
            known.answered = true;
            known.first &= !first;
            known.standing += usize::from(!self.standing);
        });
        self.standing = true;
        self.connections.wake();
    }

    /// It broke off over this message, or has dealt with one. Returns whether it has broken off over
    /// so many in a row that it fails.
    pub fn stumbles(&self, over: Option<QueueId>) -> bool {
        let mut fails = false;
        self.connections.update(&self.destination, |known| {
            if over.is_none() || over != known.stumbled_over {
                known.stumbles = over.map_or(0, |_| known.stumbles + 1);
            }
            known.stumbled_over = over;
            fails = known.stumbles >= STUMBLES;
        });
        fails
    }

    /// The connection is closed, and another one is to take its place.
    pub fn fell(&mut self) {
        if std::mem::take(&mut self.standing) {
            self.connections.update(&self.destination, |known| {
                known.standing = known.standing.saturating_sub(1);
            });
        }
    }

    /// No connection came about, or none that is of use. Whether the destination is down then: not if
    /// others of ours stand, and any of them was of use; it takes no more of them than that.
    pub fn is_down(&self) -> bool {
        let is_of_use = |known: &Known| known.standing > 0 && known.stumbles < STUMBLES;
        if !self
            .connections
            .known()
            .get(&self.destination)
            .is_some_and(is_of_use)
        {
            return true;
        }
        self.connections.limit(&self.destination, 1);
        false
    }

    /// Whether this is the one that finds out whether a destination is still down.
    pub fn is_probe(&self) -> bool {
        self.probes
    }

    /// The destination is down, and that is remembered in the spool now, or only here.
    pub fn failed(&mut self, down: Down, is_written: bool) {
        let first = std::mem::take(&mut self.first);
        self.connections.update(&self.destination, |known| {
            known.answered = false;
            known.first &= !first;
            known.looked = Some(Instant::now());
            known.down = Some(down);
            known.is_unwritten = !is_written;
            known.stumbles = 0;
        });
        self.connections.wake();
    }

    /// The connection is not used, or used again.
    pub fn set_idle(&mut self, idle: bool) {
        if self.idle != idle {
            self.idle = idle;
            self.connections.update(&self.destination, |known| {
                if idle {
                    known.idle += 1
                } else {
                    known.idle = known.idle.saturating_sub(1)
                }
            });
            if idle {
                self.connections.wake();
            }
        }
    }

    /// What it is about.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Whoever else wanted to know whether the destination is down may look.
    pub fn end_probe(&mut self) -> Option<Slot> {
        self.probes = false;
        self.probe.take()
    }

    /// The connection is closed, and the files that stood for it go. Runs where it may block.
    pub fn retire(mut self) {
        for lock in [self.lock.take(), self.probe.take()].into_iter().flatten() {
            lock.retire();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.set_idle(false);
        // Before somebody is told that there is room.
        drop((self.lock.take(), self.probe.take()));
        self.connections.update(&self.destination, |known| {
            known.open = known.open.saturating_sub(1);
            known.standing = known.standing.saturating_sub(usize::from(self.standing));
            known.first &= !self.first;
            // Who stands alone finds out first whether it still answers.
            known.answered &= known.standing > 0 || !self.standing;
        });
        self.connections.wake();
    }
}

#[cfg(test)]
mod tests;
