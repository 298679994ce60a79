//! An attempt: recipients grouped by where they go, each group one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::finisher::Finisher;
use super::lanes::Candidate;
use super::sessions::Hop;
use super::settle::{Next, log_results};
use super::{Core, Error, Settled};
use crate::disk;
use crate::message::{Address, EnhancedCode, QueueId, Reply};
use crate::queue::state::Fate;
use crate::queue::{Event, Outcome, RecipientResult, Status, What, settle};
use crate::spool::Entry;
use crate::transport::{Message, Transport};

/// What one message did to the run.
#[derive(Debug)]
pub(super) struct Handled {
    pub settled: Settled,
    pub results: Vec<Status>,
    pub notices: Vec<QueueId>,
}

/// Recipients that share a transaction.
struct Group {
    transport: Arc<dyn Transport>,
    hop: Hop,
    recipients: Vec<Address>,
}

/// Who goes where, and for whom nobody is found.
struct Plan {
    groups: Vec<Group>,
    unroutable: Vec<(Address, Outcome)>,
}

impl Core {
    /// Handles one candidate from beginning to end.
    pub(super) async fn handle(
        self: Arc<Self>,
        candidate: Candidate,
        finisher: Finisher,
    ) -> Handled {
        let id = candidate.id;
        let mut results = Vec::new();
        let core = Arc::clone(&self);
        let next = blocking(move || core.take(candidate)).await;
        let next = match next {
            Some(Next::Attempt(entry, who)) => self.attempt(*entry, who, &mut results).await,
            other => other,
        };
        let mut finished = None;
        let (settled, notices) = match next {
            Some(Next::Settled(settled, notices)) => (settled, notices),
            Some(Next::Finished(left, notices)) => {
                finished = Some((id, left));
                (Settled::Finished, notices)
            }
            // Still more to attempt at the same moment: somebody acted meanwhile. Next pass.
            Some(Next::Attempt(..)) => (Settled::Left, Vec::new()),
            None => return self.panicked(id),
        };
        if !matches!(settled, Settled::Trouble(_)) {
            self.no_trouble();
        }
        // The lock is free now; an operator may have left a wish while it was not.
        let core = Arc::clone(&self);
        let served = blocking(move || core.serve_request(id)).await;
        if let Some(Err(error)) = served {
            tracing::warn!(%id, %error, "a request could not be served");
        }
        // Behind the request: what is forgotten has none.
        if let Some(finished) = finished {
            // Nobody to take it: then the next run finishes `done/`.
            let _ = finisher.send(finished);
        }
        Handled {
            settled,
            results,
            notices,
        }
    }

    /// A panic is a mistake of ours, and no message's fault: the message is where it was, and
    /// counts as interrupted.
    pub(super) fn panicked(&self, id: QueueId) -> Handled {
        Handled {
            settled: self.trouble(id, "the program panicked"),
            results: Vec::new(),
            notices: Vec::new(),
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        entry: Entry,
        who: Vec<usize>,
        results: &mut Vec<Status>,
    ) -> Option<Next> {
        let id = entry.id();
        let core = Arc::clone(self);
        let (mut entry, plan) = match blocking(move || core.begin(entry, &who)).await? {
            Ok(begun) => begun,
            Err(error) => {
                let settled = self.trouble(id, &error.to_string());
                return Some(Next::Settled(settled, Vec::new()));
            }
        };
        let message = Arc::new(Message {
            id,
            sender: entry.envelope().sender.clone(),
            body: entry.body(),
        });
        let mut running: FuturesUnordered<_> = plan
            .groups
            .into_iter()
            .map(|group| self.transact(Arc::clone(&message), group))
            .collect();
        let mut ended = (!plan.unroutable.is_empty()).then_some((None, plan.unroutable));
        let mut unrecorded = None;
        loop {
            if let Some((transport, outcomes)) = ended.take() {
                results.extend(outcomes.iter().map(|(_, outcome)| outcome.status));
                let core = Arc::clone(self);
                let last = running.is_empty();
                let recorded = blocking(move || core.conclude(entry, transport, outcomes, last));
                // Even if it could not be recorded: the other transactions are under way, and
                // what becomes of them is recorded, or told, as well.
                (entry, unrecorded) = recorded.await?;
            }
            match running.next().await {
                Some((name, outcomes)) => ended = Some((Some(name), outcomes)),
                None => break,
            }
        }
        // With it the last other owner of the lock: that is to go when the entry does.
        drop(running);
        drop(message);
        if let Some(why) = unrecorded {
            return Some(Next::Settled(Settled::Trouble(why), Vec::new()));
        }
        let core = Arc::clone(self);
        blocking(move || core.follow(entry)).await
    }

    /// Moves the message to `active/` and writes down that an attempt begins. *No record, no
    /// attempt*: there is room for the outcome before anybody is spoken to.
    fn begin(&self, mut entry: Entry, who: &[usize]) -> disk::Result<(Entry, Plan)> {
        let plan = self.plan(&entry, who);
        // An outcome that a killed holder wrote down and did not sync: whoever is left is tried
        // only once it is durable.
        entry.sync()?;
        entry.activate()?;
        let tried: Vec<Address> = {
            let recipients = &entry.state().recipients;
            who.iter().map(|n| recipients[*n].address.clone()).collect()
        };
        let room = |one: &Address| (one.as_str().len() + Reply::MAX_TEXT + 300) as u64;
        entry.open_journal(4096 + tried.iter().map(room).sum::<u64>())?;
        let left = entry
            .state()
            .recipients
            .iter()
            .filter(|one| one.is_left())
            .count();
        let started = What::Started {
            host: self.hostname.clone(),
            pid: std::process::id(),
            recipients: (left > who.len()).then_some(tried),
        };
        entry.record(self.now(), started)?;
        Ok((entry, plan))
    }

    fn plan(&self, entry: &Entry, who: &[usize]) -> Plan {
        let mut groups: BTreeMap<Hop, Vec<Address>> = BTreeMap::new();
        let mut unroutable = Vec::new();
        let wanted = entry.envelope().submission.transport.as_deref();
        for n in who {
            let recipient = &entry.state().recipients[*n].address;
            let Some(name) = wanted.or_else(|| self.routes.transport_for(recipient)) else {
                let code = EnhancedCode::new(4, 4, 4);
                unroutable.push((recipient.clone(), Outcome::deferred(code, "no route")));
                continue;
            };
            let Some(transport) = self.transports.get(name) else {
                let text = format!("the configuration has no transport {name:?}");
                let outcome = Outcome::deferred(EnhancedCode::new(4, 3, 5), text);
                unroutable.push((recipient.clone(), outcome));
                continue;
            };
            let hop = (name.to_owned(), transport.destination(recipient));
            groups.entry(hop).or_default().push(recipient.clone());
        }
        let mut plan = Plan {
            groups: Vec::new(),
            unroutable,
        };
        for (hop, recipients) in groups {
            let Some(transport) = self.transports.get(&hop.0) else {
                continue;
            };
            for some in recipients.chunks(transport.max_recipients().max(1)) {
                plan.groups.push(Group {
                    transport: Arc::clone(transport),
                    hop: hop.clone(),
                    recipients: some.to_vec(),
                });
            }
        }
        plan
    }

    /// One transaction, within the transport's deadline.
    async fn transact(
        self: &Arc<Self>,
        message: Arc<Message>,
        group: Group,
    ) -> (String, Vec<(Address, Outcome)>) {
        let deadline = group.transport.deadline(message.body.size());
        let work = self.deliver(&message, &group);
        let outcomes = match deadline {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let text = format!("timed out after {} s", limit.as_secs());
                vec![Outcome::unknown(text); group.recipients.len()]
            }),
        };
        let missing = || {
            let code = EnhancedCode::new(4, 3, 0);
            Outcome::deferred(code, "the transport did not say what became of it")
        };
        let mut outcomes = outcomes.into_iter();
        let paired = group
            .recipients
            .into_iter()
            .map(|recipient| (recipient, outcomes.next().unwrap_or_else(missing)))
            .collect();
        (group.hop.0, paired)
    }

    async fn deliver(&self, message: &Message, group: &Group) -> Vec<Outcome> {
        let mut session = match self.sessions.take(&group.hop) {
            Some(session) => session,
            None => match group.transport.connect(&group.hop.1).await {
                Ok(session) => session,
                Err(outcome) => return vec![outcome; group.recipients.len()],
            },
        };
        let outcomes = session.deliver(message, &group.recipients).await;
        let closing = match session.is_reusable() {
            true => self
                .sessions
                .keep(group.hop.clone(), session, self.budget.jobs),
            false => Some(session),
        };
        if let Some(session) = closing {
            session.close().await;
        }
        outcomes
    }

    /// Records the outcome of a transaction, durably, before anything else is done with the
    /// message. Only when nobody is left there is nothing to record: the rename to `done/`
    /// says it all. Returns why there is something that could not be recorded, if there is.
    fn conclude(
        &self,
        mut entry: Entry,
        transport: Option<String>,
        outcomes: Vec<(Address, Outcome)>,
        last: bool,
    ) -> (Entry, Option<String>) {
        let now = self.now();
        let results: Vec<RecipientResult> = outcomes
            .into_iter()
            .map(|(recipient, outcome)| {
                settle(entry.state(), &recipient, outcome, &*self.retry, now)
            })
            .collect();
        log_results(&entry, transport.as_deref(), &results, now);
        let delivered = results.iter().all(|one| one.status == Status::Delivered);
        let what = What::Outcome { transport, results };
        if last && delivered {
            let mut after = entry.state().clone();
            let event = Event { at: now, what };
            after.apply(&event);
            let done =
                |fate: &Fate| matches!(fate, Fate::Delivered | Fate::Failed { notified: true, .. });
            if after.recipients.iter().all(|one| done(&one.fate)) {
                entry.imagine(event);
                return (entry, None);
            }
            return self.recorded(entry, event);
        }
        self.recorded(entry, Event { at: now, what })
    }

    fn recorded(&self, mut entry: Entry, event: Event) -> (Entry, Option<String>) {
        let recorded = entry
            .record_durably(event.at, event.what)
            // Held because of an outcome before this one, and that is recorded now as well.
            .and_then(|()| entry.activate());
        let why = recorded
            .err()
            .map(|error| self.not_recorded(&mut entry, &error));
        (entry, why)
    }

    /// A message that is done and could not be renamed to `done/`. That rename was to be the
    /// record of its last outcome; now the history must be.
    pub(super) fn not_finished(&self, mut entry: Entry, error: &disk::Error) -> Settled {
        match entry.record_imagined() {
            Ok(()) => self.trouble(entry.id(), &error.to_string()),
            Err(error) => Settled::Trouble(self.not_recorded(&mut entry, &error)),
        }
    }

    /// An outcome that cannot be recorded must not be followed by another attempt: the message
    /// is frozen, by its place alone, and the run stops.
    fn not_recorded(&self, entry: &mut Entry, error: &disk::Error) -> String {
        let (id, why) = (entry.id(), error.to_string());
        tracing::error!(%id, error = why, "the outcome could not be recorded; frozen");
        if let Err(error) = entry.hold_unrecorded() {
            tracing::error!(%id, %error, "nor could it be frozen");
        }
        self.fail(Error::NotRecorded {
            id,
            why: why.clone(),
        });
        why
    }
}

/// Runs what may block on a thread where it may; none if it panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
