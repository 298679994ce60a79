//! A round: the hosts of a destination, asked one after the other for the recipients of one
//! transaction.
//!
//! A host is left for the next one if it cannot be connected to, fails, or puts recipients off. It is
//! asked once in a round, under however many names it is listed. What a host has taken or refused for
//! good is recorded before the next one is asked; only recipients that were put off go on. A round
//! ends when no recipient is left, when the hosts are over, after [`MAX_HOSTS`] connections, or when it has
//! taken as long as one host may take: then those who are left are deferred, in the words of the
//! host that said something about them.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::message::{Address, EnhancedCode};
use crate::queue::{Outcome, Status};
use crate::spool::Destination;
use crate::transport::{Hosts, MAX_HOSTS, NextHost, Transport};

/// How far a transaction has come among the hosts of its destination.
pub(super) struct Round {
    /// When an operator last wanted the message tried.
    pub retried: Option<Timestamp>,
    hosts: Option<Box<dyn Hosts>>,
    /// Found, and not asked yet.
    next: Option<Box<dyn NextHost>>,
    /// Hosts that were asked or passed over.
    seen: HashSet<String>,
    /// So many of them were connected to.
    asked: usize,
    /// From then on no further host is asked.
    until: Option<Instant>,
    /// What was said of those who are left.
    said: HashMap<Address, Outcome>,
    /// What was said of all of them.
    last: Option<Outcome>,
    /// A host has listened.
    pub listened: bool,
    /// A host that is not down was left for another one.
    pub is_second_best: bool,
    /// It ended before all hosts were asked.
    pub is_cut: bool,
    /// The hosts that are down, and when the first of them is probed.
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

    /// One for the next transaction of the same group.
    pub fn anew(&self) -> Round {
        Round::new(self.retried)
    }

    /// Whether a host has put recipients off, and another one is to be asked for them.
    pub fn is_under_way(&self) -> bool {
        self.last.is_some() || !self.said.is_empty()
    }

    /// The round is under way, and no further host is asked after `end`, unless that was set before.
    pub fn begin(&mut self, end: Option<Instant>) {
        if self.until.is_none() {
            self.until = end;
        }
    }

    /// A session with this host was open.
    pub fn came_to(&mut self, key: &str) {
        self.seen.insert(key.to_owned());
        self.asked += 1;
    }

    /// Whether there is another host to ask; looks it up.
    pub async fn has_next(&mut self, transport: &dyn Transport, destination: &Destination) -> bool {
        // A host without a list is the only one.
        if self.hosts.is_none() && transport.hosts_for(&destination.next_hop).is_none() {
            return false;
        }
        match self.next(transport, destination).await {
            Some(Ok(host)) => self.next = Some(host),
            Some(Err(_)) | None => return false,
        }
        true
    }

    /// The next host that can be asked; none at the end. An error, before a host has listened, says that
    /// no mail for the destination is taken at all.
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

    /// Whether no host was connected to.
    pub fn is_first(&self) -> bool {
        self.asked == 0
    }

    /// The host that `next` gave is connected to.
    pub fn ask(&mut self) {
        self.asked += 1;
    }

    /// A host is down, until then at least.
    pub fn is_down(&mut self, key: &str, probe: Timestamp) {
        self.down.push(key.to_owned());
        self.probe = Some(self.probe.map_or(probe, |first| first.min(probe)));
    }

    /// Something is said of all who are left.
    pub fn tell_all(&mut self, outcome: Outcome) {
        tracing::debug!(reply = outcome.reply.to_string(), "the next host is asked");
        let tells = self.last.as_ref().is_none_or(|last| tells(&outcome, last));
        if tells {
            self.last = Some(outcome);
        }
    }

    /// Something is said of one of them.
    pub fn tell(&mut self, recipient: Address, outcome: Outcome) {
        let last = self.said.get(&recipient);
        if last.is_none_or(|last| tells(&outcome, last)) {
            self.said.insert(recipient, outcome);
        }
    }

    /// What becomes of one who is left at the end.
    pub fn outcome(&self, recipient: &Address) -> Outcome {
        match (self.said.get(recipient), &self.last) {
            (Some(said), Some(last)) if last.reply.remote.is_some() && !is_told(said) => {
                last.clone()
            }
            (Some(said), _) => said.clone(),
            (None, _) => self.outcome_of_all(),
        }
    }

    /// What becomes of all if no host listened.
    pub fn outcome_of_all(&self) -> Outcome {
        self.last.clone().unwrap_or_else(|| {
            Outcome::deferred(EnhancedCode::new(4, 4, 4), "there is no host to ask")
        })
    }
}

/// Whether an outcome takes the place of an earlier one: what a server says tells more than that
/// another one cannot be reached.
fn tells(outcome: &Outcome, before: &Outcome) -> bool {
    is_told(outcome) || !is_told(before)
}

fn is_told(outcome: &Outcome) -> bool {
    outcome.reply.remote.is_some()
}
