//! The row of a message in a listing, for operators and programs.

use jiff::Timestamp;
use serde::Serialize;

use crate::message::printable;
use crate::queue::state::Fate;
use crate::queue::{Bucket, Hold, State, Then};
use crate::spool::{Queue, View};

/// A message in a listing. The JSON form is a stable interface: times are RFC 3339 in UTC, `age` is in
/// seconds, `size` in octets, and missing values are null.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // the fields are the interface's, described in README
pub struct Row {
    pub id: String,
    #[doc(hidden)]
    pub queue: &'static str,
    #[doc(hidden)]
    pub status: RowStatus,
    pub sender: Option<String>,
    pub recipients: Vec<RecipientRow>,
    pub size: u64,
    #[doc(hidden)]
    pub added: Timestamp,
    #[doc(hidden)]
    pub age: i64,
    #[doc(hidden)]
    pub attempts: u32,
    pub next_attempt: Option<Timestamp>,
    pub last_error: Option<String>,
    #[doc(hidden)]
    pub transport: Option<String>,
    #[doc(hidden)]
    pub hold: Option<HoldRow>,
    /// The process on this host that works on it.
    #[doc(hidden)]
    pub process: Option<u32>,
    /// When it was marked as in use.
    #[doc(hidden)]
    pub since: Option<Timestamp>,
}

/// A recipient in a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct RecipientRow {
    pub address: String,
    pub status: &'static str,
    pub reply: Option<String>,
}

/// A hold in a listing: the message is frozen or discarded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct HoldRow {
    pub by: String,
    pub reason: Option<String>,
    pub since: Timestamp,
    /// When the hold ends by itself.
    pub until: Option<Timestamp>,
    /// What happens then: `thaw` or `discard`; null if it does not end by itself.
    pub then: Option<Then>,
}

/// What will happen to a message next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowStatus {
    /// Accepted from an MTA, waiting for a run.
    Incoming,
    /// Waiting for a run.
    Active,
    /// A process works on it now.
    InProgress,
    /// It is attempted when due.
    Scheduled,
    /// It is forgotten when due.
    WillBeDiscarded,
    /// The next run notifies its sender.
    WillBeBounced,
    /// It is frozen.
    Frozen,
    /// It is damaged, and in quarantine or about to be.
    Corrupt,
}

impl RowStatus {
    /// The status as displayed.
    pub fn label(self) -> &'static str {
        match self {
            RowStatus::Incoming => "Incoming",
            RowStatus::Active => "Active",
            RowStatus::InProgress => "Delivery in progress",
            RowStatus::Scheduled => "Scheduled",
            RowStatus::WillBeDiscarded => "Will be discarded",
            RowStatus::WillBeBounced => "Will be bounced",
            RowStatus::Frozen => "Frozen",
            RowStatus::Corrupt => "Corrupt",
        }
    }
}

impl Row {
    /// The status, for people: `Scheduled`, `Frozen` and so on.
    pub fn status(&self) -> &'static str {
        self.status.label()
    }
}

/// One line for people: id, status, size in octets, sender and recipients, and the last error.
impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sender = match self.sender.as_deref() {
            None => "unknown",
            Some("") => "<>",
            Some(sender) => sender,
        };
        let (id, status, size) = (&self.id, self.status.label(), self.size);
        write!(f, "{id}  {status}  {size}  {}  ->", printable(sender))?;
        for recipient in &self.recipients {
            write!(f, " {}", printable(&recipient.address))?;
        }
        match &self.last_error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// Returns the row of a message.
pub fn row(view: &View, now: Timestamp) -> Row {
    let id = view.id;
    let added = id.accepted();
    let mut row = Row {
        id: id.to_string(),
        queue: view.queue.as_str(),
        status: RowStatus::Corrupt,
        sender: None,
        recipients: Vec::new(),
        size: view.size,
        added,
        age: now.duration_since(added).as_secs().max(0),
        attempts: 0,
        next_attempt: None,
        last_error: None,
        transport: None,
        hold: None,
        process: view.process,
        since: view.since,
    };
    match &view.content {
        Err(reason) => row.last_error = Some(printable(reason)),
        Ok(content) => {
            let state = &content.state;
            row.status = status(view, state);
            row.sender = Some(state.sender.as_str().to_owned());
            row.recipients = recipients(view, state, now);
            row.attempts = state.attempts;
            row.next_attempt = next_attempt(row.status, view.queue, state);
            row.hold = hold(&state.hold);
            row.last_error = match (&state.hold, view.queue) {
                (Hold::Frozen { by, .. } | Hold::Discarded { by, .. }, _) => by.reason.clone(),
                (Hold::None, Queue::Frozen(Bucket::Never)) => {
                    Some("the outcome of its last attempt could not be recorded".to_owned())
                }
                _ => None,
            };
            let error = state.last_error().map(|reply| reply.to_string());
            row.last_error = row.last_error.or(error).map(|text| printable(&text));
            let by = |(_, name): &(Timestamp, Option<String>)| name.clone();
            let last = state
                .recipients
                .iter()
                .filter_map(|recipient| recipient.last_attempt.as_ref());
            row.transport = content.envelope.submission.transport.clone();
            row.transport = row
                .transport
                .or(last.max_by_key(|(at, _)| *at).and_then(by));
        }
    }
    row
}

fn status(view: &View, state: &State) -> RowStatus {
    let untold = state
        .recipients
        .iter()
        .any(|recipient| recipient.is_untold());
    match (view.queue, &state.hold) {
        (Queue::Corrupt, _) => RowStatus::Corrupt,
        _ if view.in_progress() => RowStatus::InProgress,
        (Queue::Discarded(_), _) | (_, Hold::Discarded { .. }) => RowStatus::WillBeDiscarded,
        (Queue::Frozen(_), _) | (_, Hold::Frozen { .. }) => RowStatus::Frozen,
        _ if untold && state.sender.mailbox().is_some() => RowStatus::WillBeBounced,
        (Queue::Deferred(_), _) => RowStatus::Scheduled,
        (Queue::Incoming | Queue::New | Queue::Staged, _) => RowStatus::Incoming,
        (Queue::Active | Queue::Done, _) => RowStatus::Active,
    }
}

/// Returns when something happens next. `None` for a message being attempted, and for one that only an
/// operator can move.
fn next_attempt(status: RowStatus, queue: Queue, state: &State) -> Option<Timestamp> {
    let bucket = match queue {
        Queue::Deferred(bucket) | Queue::Frozen(bucket) | Queue::Discarded(bucket) => bucket.due(),
        _ => None,
    };
    match status {
        // If only a notice is due at that time, the attempt comes after it.
        RowStatus::Scheduled => match (bucket, state.next_due(), state.next_attempt()) {
            (Some(bucket), Some(due), Some(next)) if due < next && bucket < next => {
                if Bucket::for_time(due).due() == Some(bucket) {
                    Bucket::for_time(next).due()
                } else {
                    Some(bucket)
                }
            }
            (bucket, _, next) => bucket.or(next),
        },
        RowStatus::Frozen => match state.hold {
            Hold::Frozen {
                then: Then::Discard,
                ..
            } => None,
            _ => bucket,
        },
        _ => None,
    }
}

fn hold(hold: &Hold) -> Option<HoldRow> {
    let (by, since, until, then) = match hold {
        Hold::None => return None,
        Hold::Frozen {
            since,
            until,
            then,
            by,
        } => (by, since, *until, until.map(|_| *then)),
        Hold::Discarded { since, until, by } => (by, since, Some(*until), Some(Then::Discard)),
    };
    Some(HoldRow {
        by: printable(&by.by),
        reason: by.reason.as_deref().map(printable),
        since: *since,
        until,
        then,
    })
}

fn recipients(view: &View, state: &State, now: Timestamp) -> Vec<RecipientRow> {
    let is_tried = view.in_progress() && state.in_use;
    let row = |recipient: &crate::queue::RecipientState| RecipientRow {
        address: recipient.address.to_string(),
        status: match recipient.fate {
            Fate::Pending { next } if is_tried && next <= now => "in-progress",
            Fate::Pending { .. } if recipient.attempts == 0 => "pending",
            Fate::Pending { .. } => "deferred",
            Fate::Delivered { .. } => "delivered",
            Fate::Failed { .. } => "failed",
        },
        reply: recipient.last.as_ref().map(|reply| reply.to_string()),
    };
    state.recipients.iter().map(row).collect()
}
