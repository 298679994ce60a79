//! Notices: messages about messages, each created once.
//!
//! [`tell`] is the protocol, [`NoticeBuilder`] writes the text. The order of the protocol's steps prevents a
//! crash from losing or repeating a notice; `spool-layout.md` has the argument.

mod builder;

use std::io;

use jiff::Timestamp;

use crate::disk::{self, Body};
use crate::message::{
    Address, Dsn, Entrance, Envelope, NoticeKind, Notify, Origin, OriginalRecipient, QueueId,
    RecipientDsn, Reply, Ret, ReversePath, Submission,
};
use crate::queue::state::Fate;
use crate::queue::{
    DelayAges, FailedAttempt, Handover, Occasion, RecipientState, RetryPolicy, State, Status, What,
};
use crate::spool::{Entry, Staged, Staging};

pub use builder::{DsnBuilder, Templates, Wording, WordingError};

/// The content of a notice.
#[derive(Debug)]
pub struct Report<'a> {
    /// The notice's own id.
    #[doc(hidden)]
    pub id: QueueId,
    /// The id of the message that the notice is about.
    #[doc(hidden)]
    pub origin: QueueId,
    /// The kind of notice.
    pub kind: NoticeKind,
    /// That message's sender, which receives the notice.
    pub sender: &'a Address,
    /// The recipients that the notice is about, at least one.
    pub recipients: Vec<Reported<'a>>,
    /// How much of the message to return, if the sender set RET. It applies to failures: of a delivered or
    /// delayed message only the header is returned (RFC 3461, 4.3).
    #[doc(hidden)]
    pub ret: Option<Ret>,
    /// The sender's identifier for the message, decoded: Original-Envelope-Id.
    #[doc(hidden)]
    pub envid: Option<&'a str>,
    /// That message's bytes.
    pub body: Body,
    /// When the notice is written.
    #[doc(hidden)]
    pub at: Timestamp,
}

/// A recipient in a notice.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// Its state: address, last reply, last attempt.
    #[doc(hidden)]
    pub state: &'a RecipientState,
    /// The address that the sender wrote to, if known: Original-Recipient.
    #[doc(hidden)]
    pub original: Option<&'a OriginalRecipient>,
    /// Its outcome.
    #[doc(hidden)]
    pub action: Action,
    /// For a delay: when attempts end, if known: Will-Retry-Until.
    #[doc(hidden)]
    pub until: Option<Timestamp>,
}

impl Reported<'_> {
    /// The recipient.
    pub fn recipient(&self) -> &Address {
        &self.state.address
    }

    /// The action of RFC 3464, 2.3.3: `failed`, `delayed`, `delivered` or `relayed`.
    pub fn action(&self) -> &'static str {
        self.action.as_str()
    }

    /// The last reply, or a text of this program if there was none.
    pub fn reply(&self) -> Reply {
        Report::reply(self.state)
    }
}

/// The outcome for a recipient, in the terms of RFC 3464, 2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The message could not be delivered.
    Failed,
    /// Not delivered yet; attempts continue.
    Delayed,
    /// Delivered, to a mailbox or another final destination.
    Delivered,
    /// Passed on to a host that sends no delivery notices.
    Relayed,
}

impl Action {
    /// The value of the `Action` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        }
    }
}

/// Writes notices. The program uses [`DsnBuilder`]. An embedder may provide another builder, which may omit
/// notices:
///
/// ```
/// use std::io;
///
/// use mailspool::testing::notice::{DsnBuilder, NoticeBuilder, Report, Templates};
/// use mailspool::testing::message::NoticeKind;
///
/// /// Bounces in custom words, and no notices of delay.
/// struct Ours(DsnBuilder);
///
/// impl NoticeBuilder for Ours {
///     fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
///         match report.kind {
///             NoticeKind::Delay => Ok(None),
///             _ => self.0.build(report),
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut templates = Templates::default();
/// templates.bounce = templates.bounce
///     .with_from("The post room <post@{hostname}>")?
///     .with_text("\"{subject}\" did not arrive.\n\n{replies}\n")?;
/// let ours = Ours(DsnBuilder { templates, ..DsnBuilder::new("mail.example.org") });
///
/// // What a notice looks like:
/// let bounce = ours.0.example(NoticeKind::Bounce)?;
/// assert!(String::from_utf8(bounce)?.contains("\"An example of a message\" did not arrive."));
///
/// # let dir = tempfile::tempdir()?;
/// # let spool = mailspool::testing::spool::Spool::create(&dir.path().join("spool"))?;
/// let runner = mailspool::testing::runner::Runner::builder(spool, "mail.example.org")
///     .notices(ours)
///     .build();
/// # Ok(())
/// # }
/// ```
///
/// A builder that writes the whole message finds all data in the [`Report`]:
///
/// ```
/// use std::io;
///
/// use mailspool::testing::disk::Body;
/// use mailspool::testing::message::{
///     Address, EnhancedCode, Entrance, Envelope, NoticeKind, QueueId, Reply, ReversePath, Submission,
/// };
/// use mailspool::testing::notice::{Action, NoticeBuilder, Report, Reported};
/// use mailspool::testing::queue::State;
///
/// struct Plain;
///
/// impl NoticeBuilder for Plain {
///     fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
///         let mut text = format!(
///             "From: <mailer-daemon@app.example.org>\nTo: <{}>\nSubject: About {}\n\
///              Message-ID: <{}@app.example.org>\nAuto-Submitted: auto-replied\n\n",
///             report.sender, report.origin, report.id,
///         );
///         for recipient in &report.recipients {
///             let (to, reply) = (&recipient.state.address, Report::reply(recipient.state));
///             text += &format!("{to} {}: {reply}\n", recipient.action.as_str());
///         }
///         Ok(Some(text.into_bytes()))
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A builder can be tried without a spool:
/// let sender = Address::parse("me@example.org")?;
/// let envelope = Envelope {
///     sender: ReversePath::Mailbox(sender.clone()),
///     recipients: vec![Address::parse("you@example.net")?],
///     submission: Submission::by(Entrance::Active),
/// };
/// let at = "2026-11-22T14:05:00Z".parse()?;
/// let origin = QueueId::new(at, [1; 10]);
/// let mut state = State::new(origin, &envelope);
/// state.recipients[0].last = Some(Reply::local(EnhancedCode::new(5, 1, 1), "no such user"));
/// let report = Report {
///     id: QueueId::new(at, [2; 10]),
///     origin,
///     kind: NoticeKind::Bounce,
///     sender: &sender,
///     recipients: vec![Reported {
///         state: &state.recipients[0],
///         original: None,
///         action: Action::Failed,
///         until: None,
///     }],
///     ret: None,
///     envid: None,
///     body: Body::of_bytes(&b"Subject: hello\n\n"[..]),
///     at,
/// };
/// let notice = String::from_utf8(Plain.build(&report)?.unwrap())?;
/// assert!(notice.ends_with("\n\nyou@example.net failed: 5.1.1 no such user\n"));
/// # Ok(())
/// # }
/// ```
pub trait NoticeBuilder: Send + Sync {
    /// Returns the whole message, header and body, or `None` to send no notice. The message is queued from
    /// the null sender to the sender of the reported message. After an error, the reported message is
    /// unchanged, and `build` is called again later.
    fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>>;
}

/// A builder that sends no notices.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

#[cfg(feature = "testing")]
impl NoticeBuilder for Silent {
    fn build(&self, _report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Result of [`tell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The notice is in the queue.
    Queued(QueueId),
    /// The builder returned no notice.
    Nothing,
    /// Another process is examining the staged notice; try later.
    Busy,
}

/// Why a notice was not created. The reported message is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file-system call failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The builder failed.
    #[error("writing the notice: {0}")]
    Builder(#[from] io::Error),
}

/// The parts of a notice that do not come from the message.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The builder.
    pub builder: &'a dyn NoticeBuilder,
    /// Determines when attempts for a delayed recipient end.
    pub retry: &'a dyn RetryPolicy,
    /// Determines the time of the next notice of delay.
    pub delays: &'a DelayAges,
}

/// Result of writing a notice.
enum Written {
    /// Another process is examining it.
    Busy,
    /// The builder returned no notice.
    Unwanted,
    Staged(Box<Staged>),
}

/// Sends a notice to the sender of a locked message about some of its recipients.
pub fn tell(
    entry: &mut Entry,
    occasion: &Occasion,
    means: Means<'_>,
    now: Timestamp,
) -> Result<Told, Error> {
    let Occasion {
        kind,
        cause,
        recipients: due,
    } = occasion;
    let kind = *kind;
    let ReversePath::Mailbox(sender) = entry.envelope().sender.clone() else {
        return Ok(Told::Nothing);
    };
    // Make the reported events durable first, including those of earlier holders. Otherwise the notice could
    // outlast the event, and a second notice be made under another id.
    entry.sync()?;
    let states = due.iter().map(|n| &entry.state().recipients[*n]);
    let recipients: Vec<Address> = states.map(|recipient| recipient.address.clone()).collect();
    let named: Vec<&Address> = recipients.iter().collect();
    let id = QueueId::of_notice(*cause, entry.id(), kind, &named);
    let warn = match kind {
        NoticeKind::Delay => means.delays.next(entry.state().begins(now), Some(now), now),
        NoticeKind::Bounce | NoticeKind::Success => None,
    };
    let notice = |id: Option<QueueId>| What::Notice {
        kind,
        id,
        recipients,
        warn,
    };
    let about = envelope(entry.id(), kind, sender.clone());
    let write = |entry: &Entry, is_short: bool| -> Result<Written, Error> {
        let staging = entry.spool().stage_notice(id, &about, is_short)?;
        let Staging::Fresh(mut draft) = staging else {
            return Ok(Written::Busy);
        };
        let state = entry.state();
        let dsn = &entry.envelope().submission.dsn;
        let report = Report {
            id,
            origin: entry.id(),
            kind,
            sender: &sender,
            recipients: due
                .iter()
                .map(|n| reported(state, &state.recipients[*n], means.retry, now))
                .collect(),
            ret: if is_short {
                Some(Ret::Headers)
            } else {
                dsn.ret
            },
            envid: dsn.envid.as_deref(),
            body: entry.body(),
            at: now,
        };
        let Some(bytes) = means.builder.build(&report)? else {
            return Ok(Written::Unwanted);
        };
        draft.write(&bytes)?;
        Ok(Written::Staged(Box::new((*draft).stage()?)))
    };
    let written = match write(entry, false) {
        // With only the message's header, it may fit into the reserve.
        Err(Error::Disk(full)) if full.is_full() => write(entry, true),
        other => other,
    };
    let staged = match written? {
        Written::Busy => return Ok(Told::Busy),
        Written::Unwanted => {
            entry.record_durably(now, notice(None))?;
            return Ok(Told::Nothing);
        }
        Written::Staged(staged) => staged,
    };
    // Then the origin records the notice, durably. Until then no process moves the notice, and the origin's
    // next holder finds it under the same id.
    entry.record_durably(now, notice(Some(staged.id())))?;
    let id = staged.id();
    staged.release()?;
    // Mark the recipients in the block, in case a power cut takes the history and not the message. Best
    // effort: until then the history records it.
    if let Err(error) = entry.write_finished(due) {
        tracing::warn!(id = %entry.id(), %error, "only the history records the notice");
    }
    Ok(Told::Queued(id))
}

/// Returns the envelope of a notice. A notice requests no notices about itself: NEVER is the only value it
/// may use (RFC 3461, 6.1). The message's DSN parameters are not copied.
fn envelope(origin: QueueId, kind: NoticeKind, sender: Address) -> Envelope {
    Envelope {
        sender: ReversePath::Null,
        recipients: vec![sender],
        submission: Submission {
            origin: Some(Origin { id: origin, kind }),
            dsn: Dsn {
                recipients: vec![RecipientDsn {
                    notify: Some(Notify::Never),
                    original: None,
                }],
                ..Dsn::default()
            },
            ..Submission::by(Entrance::Active)
        },
    }
}

fn reported<'a>(
    state: &State,
    recipient: &'a RecipientState,
    retry: &dyn RetryPolicy,
    now: Timestamp,
) -> Reported<'a> {
    let action = match recipient.fate {
        Fate::Delivered {
            handover: Handover::Final,
            ..
        } => Action::Delivered,
        Fate::Delivered { .. } => Action::Relayed,
        Fate::Failed { .. } => Action::Failed,
        Fate::Pending { .. } => Action::Delayed,
    };
    let until = match (action, &recipient.last) {
        (Action::Delayed, Some(reply)) => retry.last_attempt(&FailedAttempt {
            id: state.id,
            begin: state.begins(now),
            sender: &state.sender,
            recipient: &recipient.address,
            transport: recipient
                .last_attempt
                .as_ref()
                .and_then(|(_, by)| by.as_deref()),
            attempts: recipient.attempts,
            status: Status::Deferred,
            reply,
            now,
        }),
        _ => None,
    };
    Reported {
        state: recipient,
        original: recipient.dsn.original.as_ref(),
        action,
        until,
    }
}

impl Report<'_> {
    /// Returns the reply for a recipient, or a general reply if there is none.
    #[doc(hidden)]
    pub fn reply(recipient: &RecipientState) -> Reply {
        recipient.last.clone().unwrap_or_else(|| {
            let code = crate::message::EnhancedCode::new(5, 0, 0);
            Reply::local(code, "no further information")
        })
    }
}
