//! Notices: messages about messages, each created once.
//!
//! [`tell`] is the protocol, [`NoticeBuilder`] the words. The protocol's order is what keeps
//! a crash from telling twice or not at all; `spool-layout.md` has the argument.

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

/// What a notice is about.
#[derive(Debug)]
pub struct Report<'a> {
    /// The notice's own id.
    #[doc(hidden)]
    pub id: QueueId,
    /// The message it is about.
    pub origin: QueueId,
    /// What is told.
    pub kind: NoticeKind,
    /// That message's sender: to whom it is told.
    pub sender: &'a Address,
    /// The recipients it is told about, at least one.
    pub recipients: Vec<Reported<'a>>,
    /// How much of the message its sender wants back, if he said. It is about failures: of one that
    /// was delivered or is delayed, only the header goes back (RFC 3461, 4.3).
    #[doc(hidden)]
    pub ret: Option<Ret>,
    /// The sender's own mark for the message: Original-Envelope-Id, not encoded.
    #[doc(hidden)]
    pub envid: Option<&'a str>,
    /// That message's bytes.
    pub body: Body,
    /// When it is told.
    #[doc(hidden)]
    pub at: Timestamp,
}

/// One recipient in a notice.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// Where it stands: address, last reply, last attempt.
    #[doc(hidden)]
    pub state: &'a RecipientState,
    /// To whom the sender wrote, if that is known: Original-Recipient.
    #[doc(hidden)]
    pub original: Option<&'a OriginalRecipient>,
    /// What became of it.
    #[doc(hidden)]
    pub action: Action,
    /// Of a delay: until when it is tried, if that is known: Will-Retry-Until.
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

/// What became of a recipient, in the terms of RFC 3464, 2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It does not get the message.
    Failed,
    /// It has not got it yet, and is still tried.
    Delayed,
    /// It has it: it is in the mailbox, or whatever else was final.
    Delivered,
    /// A host has it that tells nobody what becomes of it.
    Relayed,
}

impl Action {
    /// The value of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        }
    }
}

/// Writes notices. [`DsnBuilder`] is the one the program uses; an embedder may give another, and
/// need not tell everything:
///
/// ```
/// use std::io;
///
/// use mailspool::testing::notice::{DsnBuilder, NoticeBuilder, Report, Templates};
/// use mailspool::testing::message::NoticeKind;
///
/// /// Bounces in words of our own, and nothing of delays.
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
/// // What it looks like:
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
/// One that writes all of it itself has what it needs in the [`Report`]:
///
/// ```
/// use std::io;
///
/// use mailspool::testing::disk::Body;
/// use mailspool::testing::message::{
///     Address, Door, EnhancedCode, Envelope, NoticeKind, QueueId, Reply, ReversePath, Submission,
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
///         for one in &report.recipients {
///             let (to, reply) = (&one.state.address, Report::reply(one.state));
///             text += &format!("{to} {}: {reply}\n", one.action.as_str());
///         }
///         Ok(Some(text.into_bytes()))
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // To try one, no spool is needed:
/// let sender = Address::parse("me@example.org")?;
/// let envelope = Envelope {
///     sender: ReversePath::Mailbox(sender.clone()),
///     recipients: vec![Address::parse("you@example.net")?],
///     submission: Submission::by(Door::Active),
/// };
/// let at = "2026-11-22T14:05:00Z".parse()?;
/// let origin = QueueId::new(at, [1; 10]);
/// let mut state = State::new(origin, &envelope);
/// state.recipients[0].last = Some(Reply::local(EnhancedCode::new(5, 1, 1), "nobody"));
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
/// assert!(notice.ends_with("\n\nyou@example.net failed: 5.1.1 nobody\n"));
/// # Ok(())
/// # }
/// ```
pub trait NoticeBuilder: Send + Sync {
    /// The whole message, header and body; none if nobody is to be told. It is queued from the
    /// null sender to the sender of the message it is about. An error leaves the message as it
    /// is, and it is asked for again.
    fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>>;
}

/// A builder that never tells anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl NoticeBuilder for Silent {
    fn build(&self, _report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// What became of the wish to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The notice is in the queue.
    Queued(QueueId),
    /// The builder wanted none.
    Nothing,
    /// Somebody looks at the staged notice at this moment; try later.
    Busy,
}

/// Why a notice was not created. The message is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file-system call failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The builder failed.
    #[error("writing the notice: {0}")]
    Builder(#[from] io::Error),
}

/// What goes into a notice besides what happened.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Whose words it has.
    pub builder: &'a dyn NoticeBuilder,
    /// Until when a delayed recipient is tried.
    pub retry: &'a dyn RetryPolicy,
    /// When the next delay is told.
    pub delays: &'a DelayAges,
}

/// What became of the writing of a notice.
enum Written {
    /// Another process looks at it at this moment.
    Busy,
    /// The builder wanted none.
    Unwanted,
    Staged(Box<Staged>),
}

/// Tells the sender of a message in hand what became of some of its recipients.
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
    // First what happened becomes durable, whoever wrote it down: the notice must not outlive
    // the event, nor have a second one made under another id.
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
        // With the header of the message only, it may find room in the reserve.
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
    // Then the origin records it, durably; until it has, nobody moves the notice on, and the
    // next holder of the origin finds it under the same id.
    entry.record_durably(now, notice(Some(staged.id())))?;
    let id = staged.id();
    staged.release()?;
    // For the case that a power cut takes the history and not the message. Best effort: until then the
    // history says it.
    if let Err(error) = entry.write_finished(due) {
        tracing::warn!(id = %entry.id(), %error, "that the sender was told is in the history only");
    }
    Ok(Told::Queued(id))
}

/// A notice asks for no notices about itself: NEVER is all it may ask (RFC 3461, 6.1). And
/// whatever the message asked for is not copied to it.
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
    /// The reply for a recipient, or words for the case that there is none.
    #[doc(hidden)]
    pub fn reply(recipient: &RecipientState) -> Reply {
        recipient.last.clone().unwrap_or_else(|| {
            let code = crate::message::EnhancedCode::new(5, 0, 0);
            Reply::local(code, "no further information")
        })
    }
}
