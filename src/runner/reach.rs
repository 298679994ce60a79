//! Opens a session with the next reachable host of a destination.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Core;
use super::connections::{ConnectionSlot, FRESH, Gate, PROBED_ELSEWHERE, StateOp};
use super::round::Round;
use super::sessions::{HostSlot, Open, retire};
use crate::message::EnhancedCode;
use crate::queue::{Outcome, Status};
use crate::spool::{Destination, Down};
use crate::transport::{NextHost, Session, Transport};

/// How often, about a second apart, to ask for a connection to a host while other processes have all of
/// them. After that the host is passed over.
const PATIENCE: u32 = 10;

/// The result of going through the hosts.
pub(super) enum Reached {
    Open(Open),
    /// A host listened before, and no other host is left. Carries the slot for the next connection.
    NoOther(ConnectionSlot),
    /// No host listened. The outcome is the same for every recipient of the destination.
    NoHost(Outcome),
}

/// Whether a host may be connected to.
enum Entry {
    Slot(ConnectionSlot),
    /// A session with it is already open.
    Idle(Open),
    Down(Down),
    /// Another process is probing it at this moment.
    Probed,
    /// No connection to it was free in time.
    Busy,
}

impl Core {
    /// Opens a session with the next host, or takes an open one. Records which hosts are down.
    pub(super) async fn reach(
        self: &Arc<Self>,
        transport: &dyn Transport,
        destination: &Destination,
        round: &mut Round,
        slot: ConnectionSlot,
        end: Option<Instant>,
    ) -> Reached {
        if transport.hosts_for(&destination.next_hop).is_none() {
            return self
                .reach_only(transport, destination, round, slot, end)
                .await;
        }
        while let Some(next) = round.next(transport, destination).await {
            let host = match next {
                Ok(host) => host,
                Err(outcome) => return self.refused(slot, outcome).await,
            };
            let at = destination.host(host.key());
            let most = transport.connections().unwrap_or(usize::MAX);
            // If the destination is the host itself, `slot` is the host's slot.
            let entry = if at == *destination {
                None
            } else {
                Some(
                    self.enter(&at, host.remote(), most, round.retried, end)
                        .await,
                )
            };
            let host_slot = match entry {
                None => None,
                Some(Entry::Slot(host_slot)) => Some(host_slot),
                Some(Entry::Idle(mut open)) => {
                    round.ask();
                    if let Some(other) = open.slot.replace(slot) {
                        retire(other).await;
                    }
                    open.is_new = true;
                    open.is_second_best = round.is_second_best;
                    return Reached::Open(open);
                }
                Some(Entry::Down(down)) => {
                    let text = format!("{} is known to be down: {}", host.remote(), down.reply);
                    round.is_down(host.key(), down.probe);
                    round.tell_all(unreachable(&text).by(host.remote()));
                    continue;
                }
                Some(Entry::Probed) => {
                    let now = self.now();
                    let later = now.saturating_add(PROBED_ELSEWHERE).unwrap_or(now);
                    let text = format!("{} is down and being probed", host.remote());
                    round.is_down(host.key(), later);
                    round.tell_all(unreachable(&text).by(host.remote()));
                    continue;
                }
                Some(Entry::Busy) => {
                    let text = format!("no connection to {} was free in time", host.remote());
                    round.is_second_best = true;
                    round.tell_all(unreachable(&text));
                    continue;
                }
            };
            round.ask();
            match connect(&*host, end).await {
                Ok(session) => {
                    let name = host.remote().to_owned();
                    return Reached::Open(Open {
                        session,
                        slot: Some(slot),
                        host: host_slot.map(|slot| Box::new(HostSlot { slot, name })),
                        is_new: true,
                        is_second_best: round.is_second_best,
                    });
                }
                Err(outcome) => {
                    if let Some(host_slot) = host_slot {
                        self.host_failed(host_slot, host.key(), round, &outcome)
                            .await;
                    }
                    round.tell_all(outcome);
                }
            }
        }
        self.no_host_left(round, slot).await
    }

    /// The same for a destination that is a host itself: it is tried once.
    async fn reach_only(
        self: &Arc<Self>,
        transport: &dyn Transport,
        destination: &Destination,
        round: &mut Round,
        slot: ConnectionSlot,
        end: Option<Instant>,
    ) -> Reached {
        if !round.is_first() {
            return self.no_host_left(round, slot).await;
        }
        round.ask();
        let connection = transport.connect(&destination.next_hop);
        match in_time(connection, &destination.next_hop, end).await {
            Ok(session) => Reached::Open(Open {
                session,
                slot: Some(slot),
                host: None,
                is_new: true,
                is_second_best: false,
            }),
            Err(outcome) if outcome.status == Status::Failed => self.refused(slot, outcome).await,
            Err(outcome) => {
                round.tell_all(outcome);
                self.no_host_left(round, slot).await
            }
        }
    }

    /// Waits until a host may be connected to. If another transaction of this process is opening the first
    /// connection to it, or the host has as many connections as permitted, waiting is better than trying a
    /// less preferred host.
    async fn enter(
        self: &Arc<Self>,
        at: &Destination,
        name: &str,
        most: usize,
        retried: Option<Timestamp>,
        end: Option<Instant>,
    ) -> Entry {
        let mut full = 0;
        loop {
            if let Some(open) = self.sessions.take_to(at, name) {
                return Entry::Idle(open);
            }
            let turn = self.connections.turn();
            tokio::pin!(turn);
            turn.as_mut().enable();
            let (core, destination) = (Arc::clone(self), at.clone());
            let now = self.now();
            let asked = tokio::task::spawn_blocking(move || {
                core.connections
                    .ask(&core.spool, &destination, most, now, retried)
            });
            let gate = asked.await;
            if matches!(gate, Ok(Gate::Wait | Gate::Full)) && self.close_idle(at).await {
                continue;
            }
            match gate {
                Ok(Gate::Open(slot)) => return Entry::Slot(slot),
                Ok(Gate::Down(down)) => return Entry::Down(down),
                Ok(Gate::Probed) => return Entry::Probed,
                Ok(Gate::Wait) => {}
                // What other processes do cannot be seen: they may be stopped.
                Ok(Gate::Full) if full >= PATIENCE => return Entry::Busy,
                Ok(Gate::Full) => full += 1,
                // A panic is a bug of this program: the host is not to blame.
                Err(_) => return Entry::Busy,
            }
            if end.is_some_and(|end| Instant::now() + FRESH >= end) {
                return Entry::Busy;
            }
            self.connections.turned(turn).await;
        }
    }

    /// Closes an idle session with this host that was opened under any name. Returns whether there was one.
    async fn close_idle(&self, at: &Destination) -> bool {
        let open = self.sessions.take_any_to(at);
        match open {
            Some(open) => open.close().await,
            None => return false,
        }
        true
    }

    /// Handles a permanent refusal: DNS or the transport says that the destination takes no mail at all.
    async fn refused(self: &Arc<Self>, mut slot: ConnectionSlot, outcome: Outcome) -> Reached {
        let was_down = slot.answered(false);
        if let Some(slot) = self.answers(slot, was_down).await {
            retire(slot).await;
        }
        Reached::NoHost(outcome)
    }

    /// Ends a round without a host left. If none listened, the destination is down.
    pub(super) async fn no_host_left(
        self: &Arc<Self>,
        round: &mut Round,
        slot: ConnectionSlot,
    ) -> Reached {
        if round.listened {
            return Reached::NoOther(slot);
        }
        let outcome = round.outcome_of_all();
        // A destination is not down if it has other connections, if its hosts are only busy, or if it has
        // more hosts than were asked: its next message passes over the hosts that are down.
        if round.is_second_best || round.is_cut || !slot.is_down() {
            retire(slot).await;
            return Reached::NoHost(outcome);
        }
        let (hosts, probe) = (std::mem::take(&mut round.down), round.probe);
        let reply = outcome.reply.to_string();
        self.is_down(slot, reply, hosts, probe).await;
        Reached::NoHost(outcome)
    }

    /// Handles a host that failed or could not be connected to: it is down unless other connections to it
    /// are open.
    pub(super) async fn host_failed(
        self: &Arc<Self>,
        slot: ConnectionSlot,
        key: &str,
        round: &mut Round,
        outcome: &Outcome,
    ) {
        if !slot.is_down() {
            round.is_second_best = true;
            return retire(slot).await;
        }
        let reply = outcome.reply.to_string();
        if let Some(down) = self.is_down(slot, reply, Vec::new(), None).await {
            round.is_down(key, down.probe);
        }
    }

    /// Records that a destination or a host is down, and releases its connection slot.
    async fn is_down(
        self: &Arc<Self>,
        mut slot: ConnectionSlot,
        reply: String,
        hosts: Vec<String>,
        probe: Option<Timestamp>,
    ) -> Option<Down> {
        let core = Arc::clone(self);
        let told = tokio::task::spawn_blocking(move || {
            let down = core.remember_down(&mut slot, &reply, hosts, probe);
            // Record the down state before ending the probe, so that other processes read it.
            if let Some(probe) = slot.end_probe() {
                probe.retire();
            }
            slot.retire();
            down
        });
        told.await.ok()
    }

    fn remember_down(
        &self,
        slot: &mut ConnectionSlot,
        reply: &str,
        hosts: Vec<String>,
        probe: Option<Timestamp>,
    ) -> Down {
        let (now, destination) = (self.now(), slot.destination().clone());
        let before = self.spool.down(&destination);
        let mut is_written = true;
        let down = match before {
            // Another process found the outage at the same time.
            Some(down) if down.is_left_alone(now) && !slot.is_probe() => down,
            before => {
                let mut down = Down::again(before, &destination, reply, now);
                // The destination is probed as soon as one of its hosts is.
                down.probe = probe.map_or(down.probe, |probe| probe.min(now + Down::LONGEST));
                down.hosts = hosts;
                if let Err(error) = self.spool.remember_down(&down) {
                    self.connections
                        .go_without(StateOp::Remember, &destination, &error);
                    is_written = false;
                }
                down
            }
        };
        let (probe, tries) = (down.probe, down.tries);
        tracing::warn!(destination = destination.to_string(), %probe, tries, reply, "down");
        slot.failed(down.clone(), is_written);
        down
    }

    /// Removes the record that a destination or host is down, because it listens. Returns the slot.
    pub(super) async fn answers(
        self: &Arc<Self>,
        slot: ConnectionSlot,
        was_down: bool,
    ) -> Option<ConnectionSlot> {
        if !was_down && !slot.is_probe() {
            return Some(slot);
        }
        let core = Arc::clone(self);
        let told = tokio::task::spawn_blocking(move || {
            let mut slot = slot;
            if was_down {
                core.forget_down(slot.destination());
            }
            if let Some(probe) = slot.end_probe() {
                probe.retire();
            }
            slot
        });
        told.await.ok()
    }

    fn forget_down(&self, destination: &Destination) {
        match self.spool.forget_down(destination) {
            Ok(_) => tracing::info!(destination = destination.to_string(), "answers again"),
            Err(error) => self
                .connections
                .go_without(StateOp::Forget, destination, &error),
        }
    }
}

fn unreachable(text: &str) -> Outcome {
    Outcome::deferred(EnhancedCode::new(4, 4, 1), text)
}

async fn connect(host: &dyn NextHost, end: Option<Instant>) -> Result<Box<dyn Session>, Outcome> {
    in_time(host.connect(), host.remote(), end).await
}

/// Opens a session before `end`. The message has not been sent yet, so a timeout has a known outcome.
pub(super) async fn in_time(
    connection: impl Future<Output = Result<Box<dyn Session>, Outcome>>,
    name: &str,
    end: Option<Instant>,
) -> Result<Box<dyn Session>, Outcome> {
    let opened = match end {
        Some(end) => tokio::time::timeout_at(end, connection).await.ok(),
        None => Some(connection.await),
    };
    opened.unwrap_or_else(|| Err(unreachable(&format!("no connection to {name} in time"))))
}
