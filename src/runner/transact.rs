//! One transaction, over an open session or over a new one.
//!
//! Recipients that a host puts off go on to the next host of the destination, in a separate transaction
//! that begins after this host's outcomes are recorded: see [`round`](super::round). A host is known to
//! listen once its first message gets past MAIL or takes long. Until then no second connection is opened,
//! and the record of a host that is down is kept. A host that breaks off later may do so because of the
//! message; after several such messages in a row it is down nevertheless.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use super::chunks::Chunks;
use super::connections::{ConnectionSlot, FRESH};
use super::group::{Group, SessionSource};
use super::reach::{Reached, in_time};
use super::round::Round;
use super::sessions::{HostSlot, Open, retire};
use crate::message::reply::in_seconds;
use crate::message::{Address, EnhancedCode};
use crate::queue::{Outcome, Status};
use crate::spool::Destination;
use crate::transport::{HostHealth, Message, Transport};

/// The result of a transaction.
pub(super) struct TransactionResult {
    pub transport: Arc<dyn Transport>,
    /// The transport's name.
    pub name: String,
    pub outcomes: Vec<(Address, Outcome)>,
    /// The recipients left for the same destination.
    pub rest: Option<Group>,
}

/// What a transaction leaves.
struct TransactionRest {
    outcomes: Vec<(Address, Outcome)>,
    chunks: Chunks,
    /// The session or slot for the next transaction. `None` if there is none, or none is needed.
    source: Option<SessionSource>,
    round: Round,
}

impl Core {
    /// Runs the next transaction of a group, within the transport's deadline.
    pub(super) async fn transact(
        self: &Arc<Self>,
        message: &Message,
        group: Group,
    ) -> TransactionResult {
        let Group {
            transport,
            destination,
            mut chunks,
            source,
            mut round,
        } = group;
        let recipients = chunks.take_first();
        let limit = transport.deadline(message.body.size());
        let end = limit.map(|limit| Instant::now() + limit);
        round.begin(end);
        let reached = match source {
            SessionSource::Open(open) => {
                let host = open.host.as_ref().map(|host| host.slot.destination());
                round.came_to(&host.unwrap_or(&destination).next_hop);
                Reached::Open(open)
            }
            SessionSource::NoSlot => {
                let connection = transport.connect(&destination.next_hop);
                match in_time(connection, &destination.next_hop, end).await {
                    Ok(session) => Reached::Open(Open {
                        session,
                        slot: None,
                        host: None,
                        is_new: false,
                        is_second_best: false,
                    }),
                    Err(outcome) => Reached::NoHost(outcome),
                }
            }
            SessionSource::Slot(slot) => {
                self.reach(&*transport, &destination, &mut round, slot, end)
                    .await
            }
        };
        let left = match reached {
            // This applies to all recipients: the next transaction would get the same answer.
            Reached::NoHost(outcome) => {
                let all = recipients.into_iter().chain(chunks.take_all());
                let outcomes = all.map(|recipient| (recipient, outcome.clone())).collect();
                TransactionRest {
                    outcomes,
                    chunks,
                    source: None,
                    round,
                }
            }
            Reached::NoOther(slot) => TransactionRest {
                outcomes: round.outcomes(recipients),
                chunks,
                source: Some(SessionSource::Slot(slot)),
                round: round.anew(),
            },
            Reached::Open(open) => {
                let target = TransactionTarget {
                    transport: &*transport,
                    destination: &destination,
                    limit,
                    end,
                };
                self.deliver(message, target, open, recipients, chunks, round)
                    .await
            }
        };
        let TransactionRest {
            outcomes,
            chunks,
            source,
            round,
        } = left;
        let rest = source.filter(|_| !chunks.is_empty()).map(|source| Group {
            transport: Arc::clone(&transport),
            destination: destination.clone(),
            chunks,
            source,
            round,
        });
        TransactionResult {
            transport,
            name: destination.transport,
            outcomes,
            rest,
        }
    }

    /// Sends the message, and returns the outcomes and what is left.
    async fn deliver(
        self: &Arc<Self>,
        message: &Message,
        target: TransactionTarget<'_>,
        mut open: Open,
        recipients: Vec<Address>,
        mut chunks: Chunks,
        mut round: Round,
    ) -> TransactionRest {
        let (outcomes, health) = send(message, &target, &mut open, &recipients).await;
        let health = judge(health, &open, message);
        // A host that broke off may do so again: until a message gets through, it gets no parallel
        // connections.
        let broke_off = health == HostHealth::Stumbles && !open.session.is_reusable();
        if health != HostHealth::Fails && !broke_off {
            open = self.answered(open).await;
        }
        let may_go_on = health != HostHealth::NotAsked && open.slot.is_some();
        let all = pair(recipients, outcomes);
        let is_trouble =
            |outcome: &&Outcome| matches!(outcome.status, Status::Deferred | Status::Unknown);
        let failure = if may_go_on && health == HostHealth::Fails {
            all.iter().map(|(_, outcome)| outcome).find(is_trouble)
        } else {
            None
        };
        let failure = failure.cloned();
        let put_off = |outcome: &Outcome| may_go_on && outcome.status == Status::Deferred;
        let (put_off, mut outcomes): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, outcome)| put_off(outcome));
        let mut left = Vec::new();
        for (recipient, outcome) in put_off {
            round.tell(recipient.clone(), outcome);
            left.push(recipient);
        }
        round.listened |= matches!(health, HostHealth::Answers | HostHealth::Stumbles);
        let slot = match failure {
            Some(failure) => {
                let is_last = left.is_empty() && chunks.is_empty();
                self.give_up(open, &mut round, failure, is_last).await
            }
            None if !left.is_empty()
                && round.has_next(target.transport, target.destination).await =>
            {
                round.is_second_best = true;
                open.leave().await
            }
            None => {
                outcomes.extend(round.outcomes(left));
                let source = self
                    .hand_back(target.destination, open, !chunks.is_empty())
                    .await;
                return TransactionRest {
                    outcomes,
                    chunks,
                    source,
                    round: round.anew(),
                };
            }
        };
        if !left.is_empty() {
            chunks.put_first(left);
        }
        TransactionRest {
            outcomes,
            chunks,
            source: slot.map(SessionSource::Slot),
            round,
        }
    }

    /// Notes that the host and its destination listen.
    async fn answered(self: &Arc<Self>, mut open: Open) -> Open {
        if !std::mem::take(&mut open.is_new) {
            return open;
        }
        if let Some(mut slot) = open.slot.take() {
            let was_down = slot.answered(true);
            open.slot = self.answers(slot, was_down).await;
        }
        if let Some(host) = open.host.take() {
            let HostSlot { mut slot, name } = *host;
            let was_down = slot.answered(true);
            let slot = self.answers(slot, was_down).await;
            open.host = slot.map(|slot| Box::new(HostSlot { slot, name }));
        }
        open
    }

    /// Closes a session with a failed host. Returns the connection slot for the destination, for the next
    /// host. After the last transaction it returns none; if the destination is the host itself, it is down.
    async fn give_up(
        self: &Arc<Self>,
        mut open: Open,
        round: &mut Round,
        failure: Outcome,
        is_last: bool,
    ) -> Option<ConnectionSlot> {
        // The recipients not yet named to this host certainly did not get the message.
        let failure = Outcome {
            status: Status::Deferred,
            ..failure
        };
        let host = open.host.take();
        let is_host_itself = host.is_none();
        let slot = open.leave().await;
        if let Some(host) = host {
            let HostSlot { mut slot, .. } = *host;
            slot.fell();
            let key = slot.destination().next_hop.clone();
            self.host_failed(slot, &key, round, &failure).await;
        }
        round.tell_all(failure);
        let slot = slot?;
        if !is_last {
            return Some(slot);
        }
        let left = if is_host_itself {
            self.no_host_left(round, slot).await
        } else {
            Reached::NoOther(slot)
        };
        if let Reached::NoOther(slot) = left {
            retire(slot).await;
        }
        None
    }

    /// Keeps or closes a session after a transaction. If the group has `more`, returns how its next
    /// transaction gets a session.
    async fn hand_back(
        &self,
        destination: &Destination,
        open: Open,
        more: bool,
    ) -> Option<SessionSource> {
        let is_kept = open.session.is_reusable() && !open.is_second_best;
        let closing = match (is_kept, more) {
            (true, true) => return Some(SessionSource::Open(open)),
            (true, false) => self
                .sessions
                .keep(destination.clone(), open, self.most_jobs()),
            (false, false) => Some(open),
            (false, true) => {
                let slot = open.leave().await;
                return Some(slot.map_or(SessionSource::NoSlot, SessionSource::Slot));
            }
        };
        if let Some(open) = closing {
            open.close().await;
        }
        None
    }
}

/// The target of a transaction, and its time limit.
struct TransactionTarget<'a> {
    transport: &'a dyn Transport,
    destination: &'a Destination,
    limit: Option<Duration>,
    end: Option<Instant>,
}

/// Sends the message. Returns an outcome for each recipient, and what they show about the host. If the
/// first message of a session takes long, the host has accepted MAIL, and further connections to it need
/// not wait any longer. A probe is the exception: all others wait for its end.
async fn send(
    message: &Message,
    target: &TransactionTarget<'_>,
    open: &mut Open,
    recipients: &[Address],
) -> (Vec<Outcome>, HostHealth) {
    let Open {
        session,
        slot,
        host,
        is_new,
        ..
    } = open;
    let host = host.as_mut().map(|host| &mut host.slot);
    let mut slots: Vec<&mut ConnectionSlot> = slot.as_mut().into_iter().chain(host).collect();
    let waits = *is_new && !slots.iter().any(|slot| slot.is_probe());
    let delivery = async {
        let mut delivery = session.deliver(message, recipients);
        if waits {
            tokio::select! {
                outcomes = &mut delivery => return outcomes,
                () = tokio::time::sleep(FRESH) => {}
            }
            slots.iter_mut().for_each(|slot| slot.goes_on());
        }
        delivery.await
    };
    let outcomes = match target.end {
        Some(end) => tokio::time::timeout_at(end, delivery).await.ok(),
        None => Some(delivery.await),
    };
    match outcomes {
        Some(outcomes) => (outcomes, session.host_health()),
        None => {
            let limit = in_seconds(target.limit.unwrap_or_default());
            let outcome = Outcome::unknown(format!("timed out after {limit}"));
            (vec![outcome; recipients.len()], HostHealth::NotAsked)
        }
    }
}

/// What a transaction and those before it show about the host.
fn judge(health: HostHealth, open: &Open, message: &Message) -> HostHealth {
    let over = match health {
        HostHealth::Stumbles => Some(message.id),
        HostHealth::Answers => None,
        HostHealth::Fails | HostHealth::NotAsked => return health,
    };
    let host = open.host.as_ref().map(|host| &host.slot);
    match host.or(open.slot.as_ref()) {
        Some(slot) if slot.stumbles(over) => HostHealth::Fails,
        _ => health,
    }
}

fn pair(recipients: Vec<Address>, outcomes: Vec<Outcome>) -> Vec<(Address, Outcome)> {
    let missing = || {
        let code = EnhancedCode::new(4, 3, 0);
        Outcome::deferred(code, "the transport returned no outcome for the recipient")
    };
    let mut outcomes = outcomes.into_iter();
    let with = |recipient| (recipient, outcomes.next().unwrap_or_else(missing));
    recipients.into_iter().map(with).collect()
}
