//! A round: the hosts of a destination, asked one after the other for the recipients of one transaction.
//!
//! The round goes on to the next host if a host cannot be connected to, fails, or puts recipients off. A
//! host is asked once in a round, even if it is listed under several names. What a host has accepted or
//! permanently refused is recorded before the next host is asked; only recipients that were put off go on.
//! A round ends when no recipient is left, when no host is left, after [`MAX_HOSTS`] connections, or when
//! it has taken as long as one host may take. The remaining recipients are then deferred, with the reply of
//! the host that said something about them.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::message::{Address, EnhancedCode};
use crate::queue::{Outcome, Status};
use crate::spool::Destination;
use crate::transport::{Hosts, MAX_HOSTS, NextHost, Transport};

/// The progress of a transaction through the hosts of its destination.
pub(super) struct Round {
    /// When an operator last retried the message.
    pub retried: Option<Timestamp>,
    hosts: Option<Box<dyn Hosts>>,
    /// Found but not yet asked.
    next: Option<Box<dyn NextHost>>,
    /// Hosts that were asked or passed over.
    seen: HashSet<String>,
    /// How many of them were connected to.
    asked: usize,
    /// After this instant no further host is asked.
    until: Option<Instant>,
    /// The best outcome so far for a single remaining recipient.
    said: HashMap<Address, Outcome>,
    /// The best outcome so far for all of them.
    last: Option<Outcome>,
    /// A host has listened.
    pub listened: bool,
    /// A host that is not down was left for another host.
    pub is_second_best: bool,
    /// It ended before all hosts were asked.
    pub is_cut: bool,
    /// The hosts that are down, and the earliest time at which one of them is probed.
    pub down: Vec<String>,
    pub probe: Option<Timestamp>,
}

impl Round {
    pub fn new(retried: Option<Timestamp>) -> Round {
        Round {
            retried,
            hosts: None,
            next: None,
            seen: HashSet::new(),
            asked: 0,
            until: None,
            said: HashMap::new(),
            last: None,
            listened: false,
            is_second_best: false,
            is_cut: false,
            down: Vec::new(),
            probe: None,
        }
    }

    /// A round for the next transaction of the same group.
    pub fn anew(&self) -> Round {
        Round::new(self.retried)
    }

    /// Whether a host has put recipients off, and another host is to be asked for them.
    pub fn is_under_way(&self) -> bool {
        self.last.is_some() || !self.said.is_empty()
    }

    /// Starts the round. No further host is asked after `end`, unless an earlier call has set that time.
    pub fn begin(&mut self, end: Option<Instant>) {
        if self.until.is_none() {
            self.until = end;
        }
    }

    /// Notes that a session with this host was already open.
    pub fn came_to(&mut self, key: &str) {
        self.seen.insert(key.to_owned());
        self.asked += 1;
    }

    /// Whether there is another host to ask. Looks it up.
    pub async fn has_next(&mut self, transport: &dyn Transport, destination: &Destination) -> bool {
        // A destination without a host list has a single host.
        if self.hosts.is_none() && transport.hosts_for(&destination.next_hop).is_none() {
            return false;
        }
        match self.next(transport, destination).await {
            Some(Ok(host)) => self.next = Some(host),
            Some(Err(_)) | None => return false,
        }
        true
    }

    /// The next host to ask; `None` at the end. An error says that the destination takes no mail at all; it
    /// is returned only before a host has listened.
    pub async fn next(
        &mut self,
        transport: &dyn Transport,
        destination: &Destination,
    ) -> Option<Result<Box<dyn NextHost>, Outcome>> {
        if let Some(next) = self.next.take() {
            return Some(Ok(next));
        }
        loop {
            let is_late = self.until.is_some_and(|until| Instant::now() >= until);
            if self.asked >= MAX_HOSTS || is_late {
                self.is_cut = true;
                return None;
            }
            if self.hosts.is_none() {
                self.hosts = transport.hosts_for(&destination.next_hop);
            }
            let next = self.hosts.as_mut()?.next().await?;
            match next {
                Ok(host) if !self.seen.insert(host.key().to_owned()) => {}
                Err(outcome) if self.listened || outcome.status != Status::Failed => {
                    self.tell_all(outcome);
                }
                next => return Some(next),
            }
        }
    }

    /// Whether no host was connected to yet.
    pub fn is_first(&self) -> bool {
        self.asked == 0
    }

    /// Notes that the host from `next` is connected to.
    pub fn ask(&mut self) {
        self.asked += 1;
    }

    /// Notes that a host is down until `probe`, at least.
    pub fn is_down(&mut self, key: &str, probe: Timestamp) {
        self.down.push(key.to_owned());
        self.probe = Some(self.probe.map_or(probe, |first| first.min(probe)));
    }

    /// Notes an outcome for all remaining recipients.
    pub fn tell_all(&mut self, outcome: Outcome) {
        tracing::debug!(reply = outcome.reply.to_string(), "the next host is asked");
        let tells = self.last.as_ref().is_none_or(|last| tells(&outcome, last));
        if tells {
            self.last = Some(outcome);
        }
    }

    /// Notes an outcome for one of them.
    pub fn tell(&mut self, recipient: Address, outcome: Outcome) {
        let last = self.said.get(&recipient);
        if last.is_none_or(|last| tells(&outcome, last)) {
            self.said.insert(recipient, outcome);
        }
    }

    /// The final outcome for one remaining recipient.
    fn outcome(&self, recipient: &Address) -> Outcome {
        match (self.said.get(recipient), &self.last) {
            (Some(said), Some(last)) if last.reply.remote.is_some() && !is_told(said) => {
                last.clone()
            }
            (Some(said), _) => said.clone(),
            (None, _) => self.outcome_of_all(),
        }
    }

    /// The final outcomes for these remaining recipients.
    pub fn outcomes(&self, left: Vec<Address>) -> Vec<(Address, Outcome)> {
        let pair = |recipient: Address| {
            let outcome = self.outcome(&recipient);
            (recipient, outcome)
        };
        left.into_iter().map(pair).collect()
    }

    /// The final outcome for all recipients if no host listened.
    pub fn outcome_of_all(&self) -> Outcome {
        self.last.clone().unwrap_or_else(|| {
            Outcome::deferred(EnhancedCode::new(4, 4, 4), "there is no host to ask")
        })
    }
}

/// Whether an outcome replaces an earlier one. A server's reply says more than that another host cannot be
/// reached.
fn tells(outcome: &Outcome, before: &Outcome) -> bool {
    is_told(outcome) || !is_told(before)
}

fn is_told(outcome: &Outcome) -> bool {
    outcome.reply.remote.is_some()
}
