//! Destinations that are spoken to over connections: which answer, which are down, and how many
//! connections there are.
//!
//! What is remembered of a destination lies in the spool ([`Down`]); here is what this process
//! knows of it. Nothing of it costs a system call per message: a look at the memory is worth
//! [`FRESH`] and is not taken at all while a connection stands, and a place among those who
//! may speak to the destination is taken per connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk;
use crate::spool::{Down, Hop, Slot, Spool};

/// So long a look at the memory is believed, and so long a destination is let alone that takes no
/// more connections.
const FRESH: Duration = Duration::from_secs(1);

/// So long after the last look a destination is known. One whose connections stood longer is
/// looked at anew when it is wanted again.
const KEPT: Duration = Duration::from_secs(60);

/// What this process knows of all destinations.
#[derive(Default)]
pub(super) struct Hops {
    known: Mutex<HashMap<Hop, Known>>,
    changed: Notify,
}

/// What this process knows of one.
#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    down: Option<Down>,
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
    /// It takes no more connections than this, as far as was seen; until then.
    limit: Option<(usize, Instant)>,
}

/// Whether a message may go to a destination now.
pub(super) enum Gate {
    /// It may open a connection.
    Open(Permit),
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
pub(super) struct Permit {
    hops: Arc<Hops>,
    hop: Hop,
    slot: Option<Slot>,
    probe: Option<Slot>,
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

impl Hops {
    fn known(&self) -> MutexGuard<'_, HashMap<Hop, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins: what was seen in the one before counts only where a connection stands.
    pub fn begin(&self) {
        self.known().retain(|_, known| known.open > 0);
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
        self: &Arc<Hops>,
        spool: &Spool,
        hop: &Hop,
        most: usize,
        now: Timestamp,
        retried: Option<Timestamp>,
    ) -> disk::Result<Gate> {
        let wants_a_look = self.known().entry(hop.clone()).or_default().wants_a_look();
        if wants_a_look {
            let down = spool.down(hop);
            let mut known = self.known();
            let known = known.entry(hop.clone()).or_default();
            known.looked = Some(Instant::now());
            known.answered &= down.is_none();
            known.down = down;
        }
        let mut permit = {
            let mut known = self.known();
            let known = known.entry(hop.clone()).or_default();
            if known.first {
                return Ok(Gate::Wait);
            }
            if let Some(down) = &known.down
                && is_left_alone(down, now, retried)
            {
                return Ok(Gate::Down(down.clone()));
            }
            if known.is_full(most) {
                return Ok(match known.open {
                    0 => Gate::Full,
                    _ => Gate::Wait,
                });
            }
            known.first = !known.answered;
            known.open += 1;
            Permit {
                hops: Arc::clone(self),
                hop: hop.clone(),
                slot: None,
                probe: None,
                first: known.first,
                standing: false,
                idle: false,
            }
        };
        let down = self.known().get(hop).is_some_and(|one| one.down.is_some());
        if permit.first && down {
            permit.probe = spool.take_probe(hop)?;
            if permit.probe.is_none() {
                return Ok(Gate::Probed);
            }
            // Somebody may have been through with it between our look and now.
            match spool.down(hop) {
                Some(down) if is_left_alone(&down, now, retried) => {
                    permit.failed(down.clone());
                    permit.retire();
                    return Ok(Gate::Down(down));
                }
                _ => {}
            }
        }
        permit.slot = spool.take_connection(hop, most)?;
        if permit.slot.is_some() {
            return Ok(Gate::Open(permit));
        }
        // Without the one that was to be.
        permit.retire();
        Ok(match self.limit(hop, 0) {
            0 => Gate::Full,
            _ => Gate::Wait,
        })
    }

    /// It takes no more connections than we have, without `these` of ours; how many that is.
    fn limit(&self, hop: &Hop, these: usize) -> usize {
        let mut known = self.known();
        let Some(known) = known.get_mut(hop) else {
            return 0;
        };
        let open = known.open.saturating_sub(these);
        known.limit = Some((open, Instant::now() + FRESH));
        open
    }

    /// Whether one more message may be taken for a destination that takes `most` connections,
    /// for which `in_hand` are in hand.
    pub fn has_room(&self, hop: &Hop, most: usize, in_hand: usize, now: Timestamp) -> bool {
        let known = self.known();
        let Some(known) = known.get(hop) else {
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
        match known.answered {
            true => busy < limit && in_hand < limit,
            false => busy < limit && in_hand == 0,
        }
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

    fn update(&self, hop: &Hop, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known().get_mut(hop) {
            change(known);
        }
    }

    fn wake(&self) {
        self.changed.notify_one();
    }
}

impl Permit {
    /// The destination has answered. Returns whether something else is remembered of it.
    pub fn answered(&mut self, standing: bool) -> bool {
        let mut was_down = false;
        let first = std::mem::take(&mut self.first);
        self.hops.update(&self.hop, |known| {
            known.answered = true;
            known.first &= !first;
            known.standing += usize::from(standing && !self.standing);
            was_down = known.down.take().is_some();
        });
        self.standing |= standing;
        self.hops.wake();
        was_down
    }

    /// The connection is closed, and another one is to take its place.
    pub fn fell(&mut self) {
        if std::mem::take(&mut self.standing) {
            self.hops.update(&self.hop, |known| {
                known.standing = known.standing.saturating_sub(1);
            });
        }
    }

    /// No connection came about. Whether the destination is down then: not if others of ours
    /// stand; it takes no more of them than that.
    pub fn is_down(&self) -> bool {
        let standing = self.hops.known().get(&self.hop).map(|one| one.standing);
        if standing.unwrap_or_default() == 0 {
            return true;
        }
        self.hops.limit(&self.hop, 1);
        false
    }

    /// Whether this is the one that finds out whether a destination is still down.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The destination is down, as is remembered now.
    pub fn failed(&mut self, down: Down) {
        let first = std::mem::take(&mut self.first);
        self.hops.update(&self.hop, |known| {
            known.answered = false;
            known.first &= !first;
            known.looked = Some(Instant::now());
            known.down = Some(down);
        });
        self.hops.wake();
    }

    /// The connection is not used, or used again.
    pub fn set_idle(&mut self, idle: bool) {
        if self.idle != idle {
            self.idle = idle;
            self.hops.update(&self.hop, |known| match idle {
                true => known.idle += 1,
                false => known.idle = known.idle.saturating_sub(1),
            });
        }
    }

    /// Whoever else wanted to know whether the destination is down may look.
    pub fn end_probe(&mut self) -> Option<Slot> {
        self.probe.take()
    }

    /// The connection is closed, and the files that stood for it go. Runs where it may block.
    pub fn retire(mut self) {
        for slot in [self.slot.take(), self.probe.take()].into_iter().flatten() {
            slot.retire();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set_idle(false);
        // Before somebody is told that there is room.
        drop((self.slot.take(), self.probe.take()));
        self.hops.update(&self.hop, |known| {
            known.open = known.open.saturating_sub(1);
            known.standing = known.standing.saturating_sub(usize::from(self.standing));
            known.first &= !self.first;
            // Who stands alone finds out first whether it still answers.
            known.answered &= known.standing > 0 || !self.standing;
        });
        self.hops.wake();
    }
}

#[cfg(test)]
mod tests;
