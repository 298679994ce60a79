//! A group: the recipients of one destination, delivered in successive transactions.

use std::sync::Arc;

use super::Core;
use super::chunks::Chunks;
use super::connections::ConnectionSlot;
use super::jobs::Job;
use super::round::Round;
use super::sessions::{Open, retire};
use super::transport_slots::TransportSlot;
use crate::message::Address;
use crate::queue::Outcome;
use crate::spool::Destination;
use crate::transport::Transport;

/// Recipients of one destination that wait for their turn.
pub(super) struct PendingGroup {
    pub transport: Arc<dyn Transport>,
    pub destination: Destination,
    /// Sent in successive transactions.
    pub chunks: Chunks,
    /// The session or connection slot that the previous transaction left.
    pub source: Option<SessionSource>,
    /// The hosts that the first of the transactions has reached.
    pub round: Round,
}

impl PendingGroup {
    /// Takes the outcomes of recipients that hosts have put off, if no other host is asked for them now.
    /// They were tried, so what the hosts said is their outcome.
    pub fn said(&mut self) -> Vec<(Address, Outcome)> {
        if self.round.is_under_way() {
            self.round.outcomes(self.chunks.take_first())
        } else {
            Vec::new()
        }
    }

    /// Gives up for now. Returns the outcomes of recipients that were tried. May block.
    pub fn give_up(&mut self) -> Vec<(Address, Outcome)> {
        let said = self.said();
        if let Some(SessionSource::Slot(slot)) = self.source.take() {
            slot.retire();
        }
        said
    }
}

/// A transaction that is about to run, and what it needs.
pub(super) struct Transaction {
    /// Released before the job: the message that gets the job may need a transport slot.
    pub transport_slot: Option<TransportSlot>,
    pub job: Job,
    pub group: Group,
}

/// Recipients of one destination.
pub(super) struct Group {
    pub transport: Arc<dyn Transport>,
    pub destination: Destination,
    /// Sent in successive transactions.
    pub chunks: Chunks,
    pub source: SessionSource,
    /// The hosts that the first of the transactions has reached.
    pub round: Round,
}

impl Group {
    /// The pending group for what a transaction has left to do.
    pub fn pending(self) -> PendingGroup {
        PendingGroup {
            transport: self.transport,
            destination: self.destination,
            chunks: self.chunks,
            source: Some(self.source),
            round: self.round,
        }
    }
}

/// How a group gets its session.
pub(super) enum SessionSource {
    /// It uses an open session.
    Open(Open),
    /// It opens a session.
    Slot(ConnectionSlot),
    /// The transport keeps no connections.
    NoSlot,
}

impl Core {
    /// Releases the session or connection slot of a group to the message that needs it next.
    pub(super) async fn release_session(&self, pending: &mut PendingGroup) {
        let closing = match pending.source.take() {
            Some(SessionSource::Open(open)) if open.is_second_best => Some(open),
            Some(SessionSource::Open(open)) => {
                self.sessions
                    .keep(pending.destination.clone(), open, self.most_jobs())
            }
            Some(SessionSource::Slot(slot)) if !pending.round.is_under_way() => {
                retire(slot).await;
                None
            }
            other => {
                pending.source = other;
                None
            }
        };
        if let Some(open) = closing {
            open.close().await;
        }
    }
}
