//! Records the outcomes of a transaction in the message's history, and logs them.

use jiff::Timestamp;

use super::Core;
use crate::message::{Address, ReversePath};
use crate::queue::{
    Action, By, Event, Hold, Outcome, RecipientResult, RecipientState, Status, Then, What,
    recipient_result,
};
use crate::spool::Entry;

/// Why a message is frozen after an attempt.
const ANSWER_LOST: &str = "the answer to the message was lost; it may have been delivered";

/// The outcomes of a transaction, to be recorded together.
#[derive(Default)]
pub(super) struct TransactionOutcomes {
    /// `None` if the outcomes were known without a transaction.
    pub transport: Option<String>,
    pub outcomes: Vec<(Address, Outcome)>,
    /// The message is to be frozen until an operator looks at it.
    pub freeze: bool,
}

impl TransactionOutcomes {
    pub fn of(known: Vec<(Address, Outcome)>) -> TransactionOutcomes {
        TransactionOutcomes {
            outcomes: known,
            ..TransactionOutcomes::default()
        }
    }

    pub fn statuses(&self) -> impl Iterator<Item = Status> {
        self.outcomes.iter().map(|(_, outcome)| outcome.status)
    }
}

impl Core {
    /// Records the outcomes of a transaction before anything else is done with the message. If no recipient
    /// is left, nothing needs recording, because the rename to `done/` is the record. Returns the error
    /// text if something could not be recorded.
    ///
    /// If the outcome freezes the message, the freeze is written before the outcome: if the outcome were
    /// written alone, a kill would leave a possibly delivered message to be tried again.
    pub(super) fn conclude(
        &self,
        mut entry: Entry,
        ending: TransactionOutcomes,
        last: bool,
    ) -> (Entry, Option<String>) {
        let now = self.now();
        let TransactionOutcomes {
            transport,
            outcomes,
            freeze,
        } = ending;
        let results: Vec<RecipientResult> = outcomes
            .into_iter()
            .map(|(recipient, outcome)| {
                // A recipient not yet tried uses the schedule of the transport it would take.
                let by = transport.as_deref();
                let by = by.or_else(|| self.transport_for(&entry, &recipient));
                recipient_result(
                    entry.state(),
                    &recipient,
                    by,
                    outcome,
                    &*self.retry,
                    &self.delays,
                    now,
                )
            })
            .collect();
        let freezes = freeze && entry.state().hold == Hold::None;
        if freezes {
            let by = By::rule(ANSWER_LOST);
            let (until, then) = (None, Then::Thaw);
            entry.note(now, What::Action(Action::Freeze { by, until, then }));
        }
        let (name, told) = (transport.clone(), results.clone());
        let (entry, why) = self.record_results(entry, now, transport, results, last);
        // Log after recording, because a log may be slow. An outcome that could not be recorded is logged
        // too: it has happened.
        log_results(&entry, name.as_deref(), &told, now);
        if freezes {
            tracing::warn!(id = %entry.id(), reason = ANSWER_LOST, "frozen");
        }
        (entry, why)
    }

    fn record_results(
        &self,
        mut entry: Entry,
        now: Timestamp,
        transport: Option<String>,
        results: Vec<RecipientResult>,
        last: bool,
    ) -> (Entry, Option<String>) {
        let delivered = results
            .iter()
            .all(|result| result.status == Status::Delivered);
        let what = What::Outcome {
            began: entry.began().unwrap_or(now),
            transport,
            results,
        };
        let event = Event { at: now, what };
        if last && delivered {
            let mut after = entry.state().clone();
            after.apply(&event);
            if after.recipients.iter().all(RecipientState::is_finished) {
                entry.apply_unrecorded(event);
                return (entry, None);
            }
        }
        let recorded = entry
            .record_outcome(event)
            // An earlier outcome froze the message; this outcome is recorded now as well.
            .and_then(|()| entry.activate());
        let why = recorded
            .err()
            .map(|error| self.not_recorded(&mut entry, &error));
        (entry, why)
    }
}

/// Logs one line for each recipient of an attempt, after the attempt has been recorded.
pub(super) fn log_results(
    entry: &Entry,
    transport: Option<&str>,
    results: &[RecipientResult],
    now: Timestamp,
) {
    let id = entry.id();
    let from = from(entry);
    let delay = now
        .duration_since(entry.state().begins(now))
        .as_secs_f64()
        .max(0.0);
    let delay = (delay * 10.0).round() / 10.0;
    for result in results {
        let status = match (result.status, result.expired) {
            (_, true) => "expired",
            (Status::Delivered, _) => "delivered",
            (Status::Deferred, _) => "deferred",
            (Status::Failed, _) => "failed",
            (Status::Unknown, _) => "unknown",
        };
        let dsn = result.status.code_of(&result.reply).to_string();
        let to = result.recipient.as_str();
        let reply = &result.reply;
        let relay = reply.relay.as_ref().or(reply.remote.as_ref());
        let relay = relay.map_or("none", String::as_str);
        let transport = transport.unwrap_or("none");
        let reply = result.reply.to_string();
        // The log shows an operator searching for the bounce that there is none.
        let unwanted = result.status == Status::Failed
            && entry.envelope().sender != ReversePath::Null
            && (entry.state().recipient(&result.recipient))
                .is_some_and(|recipient| !recipient.dsn.wants_failure());
        let notice = unwanted.then_some("not wanted");
        tracing::info!(%id, from, to, transport, relay, delay, dsn, status, reply, notice, "attempt");
    }
}

/// The sender, as it appears in log lines.
pub(super) fn from(entry: &Entry) -> &str {
    match &entry.envelope().sender {
        ReversePath::Null => "<>",
        ReversePath::Mailbox(address) => address.as_str(),
    }
}
