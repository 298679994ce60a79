//! Destinations that are reached over connections, and their hosts: which answer, which are down, and how
//! many connections there are. A connection has a slot for the destination it was opened for, and a slot
//! for its host, unless the two are the same.
//!
//! The recorded state of a destination is in the spool ([`Down`]); this module keeps what this process
//! knows of it. None of this costs a system call per message: recorded state that was read is valid for
//! [`FRESH`] and is not read at all while a connection is open, and a connection slot is taken once per
//! connection.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::message::QueueId;
use crate::spool::{Destination, Down, Forgotten, Slot, Spool};

/// How long a cached down state stays valid, and how long a destination that takes no more connections is
/// not asked for another. After that the spool is read again.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// How long after the last read the state of a destination is kept. After that it is read again when it is
/// needed.
const KEPT: Duration = Duration::from_secs(60);

/// How long to wait before asking again about a destination that another process is probing.
pub(super) const PROBED_ELSEWHERE: SignedDuration = SignedDuration::from_mins(1);

/// The minimum time between two warnings of the same kind about recorded states or slots.
const SAID: Duration = Duration::from_secs(3600);

/// A host is down after it breaks off over this many messages in a row. A single message may be the cause
/// itself, and so may two similar ones.
const STUMBLES: u32 = 3;

/// What this process knows of all destinations.
#[derive(Default)]
pub(super) struct Connections {
    known: Mutex<HashMap<Destination, Known>>,
    changed: Notify,
    /// Wakes the transactions that wait for their turn with a host.
    turned: Notify,
    /// When each kind of failure was last reported.
    said: Mutex<HashMap<StateOp, Instant>>,
}

/// Operations on the spool that help with destinations. None is required: a process that fails at one
/// reports it and continues without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StateOp {
    /// Reading whether a destination is down.
    Recall,
    /// Recording that a destination is down.
    Remember,
    /// Removing that record.
    Forget,
    /// Taking the only probe of a destination.
    Probe,
    /// Taking a connection slot.
    Connection,
    /// Taking a slot of the transport.
    TransportSlot,
}

impl StateOp {
    fn without(self) -> &'static str {
        match self {
            StateOp::Recall => "cannot read whether it is down; taken to be up",
            StateOp::Remember => "cannot record that it is down, so every process has to find out",
            StateOp::Forget => {
                "cannot remove the record that it is down, so others wait for a probe"
            }
            StateOp::Probe => "probed without a slot; another process may do so too",
            StateOp::TransportSlot => {
                "used without a transport slot; other processes do not count it"
            }
            StateOp::Connection => "connected to without a slot; other processes do not count it",
        }
    }
}

/// What this process knows of one destination.
#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    down: Option<Down>,
    /// The down state could not be recorded, so reading the spool cannot show it.
    is_unwritten: bool,
    /// The recorded state is damaged. It is removed as soon as the destination answers.
    is_damaged: bool,
    /// The destination has answered since it last failed.
    answered: bool,
    /// A transaction of this process is opening the first connection; all others wait for it.
    first: bool,
    /// Connections of this process: being opened, busy or idle.
    open: usize,
    /// Of these, established connections.
    standing: usize,
    /// Of these, idle connections.
    idle: usize,
    /// How many messages in a row the destination has broken off over, and the last of them.
    stumbles: u32,
    stumbled_over: Option<QueueId>,
    /// The most connections that the destination was seen to take, valid until the instant.
    limit: Option<(usize, Instant)>,
}

/// Whether a message may go to a destination now.
pub(super) enum Gate {
    /// It may open a connection.
    Open(ConnectionSlot),
    /// The destination is down; no connection is tried.
    Down(Down),
    /// The destination is down, and another process is probing it.
    Probed,
    /// Another transaction of this process has to be done with the destination first.
    Wait,
    /// Other processes have all the connections.
    Full,
}

/// The right to one connection, until it is dropped.
pub(super) struct ConnectionSlot {
    connections: Arc<Connections>,
    destination: Destination,
    lock: Option<Slot>,
    probe: Option<Slot>,
    /// Whether this connection probes a destination that is down, with a probe slot or without.
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

    /// Whether the recorded state is to be read again: no connection is open or being opened, and what is
    /// known may be out of date.
    fn wants_a_look(&self) -> bool {
        let fresh = |looked: Instant| looked.elapsed() < FRESH;
        self.standing == 0 && !self.first && !self.looked.is_some_and(fresh)
    }
}

/// Whether no connection is tried now, not even for a message that an operator `retried`.
fn is_left_alone(down: &Down, now: Timestamp, retried: Option<Timestamp>) -> bool {
    down.is_left_alone(now) && retried.is_none_or(|at| at <= down.tried)
}

impl Connections {
    fn known(&self) -> MutexGuard<'_, HashMap<Destination, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets at the beginning of a run what the previous run saw, except where a connection is open.
    pub fn begin(&self) {
        self.known().retain(|_, known| known.open > 0);
        self.said().clear();
    }

    fn said(&self) -> MutexGuard<'_, HashMap<StateOp, Instant>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warns that an operation failed and the process continues without it. The warning is not repeated for
    /// each message.
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

    /// Reads the recorded state of a destination, and whether that state is damaged.
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

    /// Forgets destinations that are no longer used: a resident process reaches very many over months.
    pub fn tidy(&self) {
        let is_new = |looked: Instant| looked.elapsed() < KEPT;
        self.known()
            .retain(|_, known| known.open > 0 || known.looked.is_some_and(is_new));
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.known().len()
    }

    /// Asks for a connection. If an operator `retried` the message after the destination was last tried,
    /// the destination is tried again. May block.
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
            .is_some_and(|known| known.down.is_some());
        if slot.first && down {
            slot.probes = true;
            match spool.take_probe(destination) {
                Ok(Some(lock)) => slot.probe = Some(lock),
                Ok(None) => return Gate::Probed,
                Err(error) => self.go_without(StateOp::Probe, destination, &error),
            }
            // Another process may have finished a probe since the state was read.
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
        // Give up this slot before counting the others.
        slot.retire();
        match self.limit(destination, 0) {
            0 => Gate::Full,
            _ => Gate::Wait,
        }
    }

    /// Limits the destination to the connections that this process has, not counting `these`. Returns how
    /// many that is.
    fn limit(&self, destination: &Destination, these: usize) -> usize {
        let mut known = self.known();
        let Some(known) = known.get_mut(destination) else {
            return 0;
        };
        let open = known.open.saturating_sub(these);
        known.limit = Some((open, Instant::now() + FRESH));
        open
    }

    /// Whether one more message may be taken for a destination that takes `most` connections, if `in_hand`
    /// messages are in progress for it.
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

    /// Whether the destination has answered since it last failed.
    pub fn answers(&self, destination: &Destination) -> bool {
        self.known()
            .get(destination)
            .is_some_and(|known| known.answered)
    }

    /// Returns when more connections may be possible than before.
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
        // In case a change was missed.
        ends.min().unwrap_or(now + FRESH)
    }

    fn update(&self, destination: &Destination, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known().get_mut(destination) {
            change(known);
        }
    }

    /// Returns when a host may take one more connection than before, or after [`FRESH`].
    pub async fn turned(&self, turned: impl Future<Output = ()>) {
        tokio::select! {
            () = turned => {}
            () = tokio::time::sleep(FRESH) => {}
        }
    }

    /// What [`turned`](Hops::turned) waits for. Create it before the attempt that may fail, so that no
    /// wake-up is missed.
    pub fn turn(&self) -> tokio::sync::futures::Notified<'_> {
        self.turned.notified()
    }

    fn wake(&self) {
        self.changed.notify_one();
        self.turned.notify_waiters();
    }
}

impl ConnectionSlot {
    /// Notes that the destination has answered. Returns whether its recorded state says otherwise.
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

    /// Notes that the connection is established and its first message takes long: other transactions need
    /// not wait for its end.
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

    /// Notes that the host broke off over this message, or, with `None`, that it dealt with one. Returns
    /// whether it has broken off over so many in a row that it is down.
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

    /// Notes that the connection is closed and another one is to replace it.
    pub fn fell(&mut self) {
        if std::mem::take(&mut self.standing) {
            self.connections.update(&self.destination, |known| {
                known.standing = known.standing.saturating_sub(1);
            });
        }
    }

    /// Whether the destination is down after a connection could not be opened, or was of no use. It is not
    /// down if this process has other established connections and it has not broken off over too many
    /// messages; then it is limited to those connections.
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

    /// Whether this connection probes a destination that is down.
    pub fn is_probe(&self) -> bool {
        self.probes
    }

    /// Notes that the destination is down. `is_written` says whether the spool records that, or only this
    /// process knows it.
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

    /// Notes whether the connection is idle.
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

    /// The destination or host that this is for.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Ends the probe, so that other processes may read the state. Returns the slot of the probe.
    pub fn end_probe(&mut self) -> Option<Slot> {
        self.probes = false;
        self.probe.take()
    }

    /// Removes the files of the slots after the connection is closed. May block.
    pub fn retire(mut self) {
        for lock in [self.lock.take(), self.probe.take()].into_iter().flatten() {
            lock.retire();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.set_idle(false);
        // Release the locks before waking others.
        drop((self.lock.take(), self.probe.take()));
        self.connections.update(&self.destination, |known| {
            known.open = known.open.saturating_sub(1);
            known.standing = known.standing.saturating_sub(usize::from(self.standing));
            known.first &= !self.first;
            // The last connection is gone: the next one finds out first whether the destination still
            // answers.
            known.answered &= known.standing > 0 || !self.standing;
        });
        self.connections.wake();
    }
}

#[cfg(test)]
mod tests;
