//! Notices: messages about messages, each created once.
//!
//! [`tell`] is the protocol, [`NoticeBuilder`] the words. The protocol's order is what keeps
//! a crash from telling twice or not at all; `spool-layout.md` has the argument.

mod bounce;

use std::io;

use jiff::Timestamp;

use crate::disk::{self, Body};
use crate::message::{
    Address, Door, Envelope, NoticeKind, Origin, OriginalRecipient, QueueId, Reply, Ret,
    ReversePath, Submission,
};
use crate::queue::state::Fate;
use crate::queue::{RecipientState, What};
use crate::spool::{Entry, Staging};

pub use bounce::BounceBuilder;

/// What a notice is about.
#[derive(Debug)]
pub struct Report<'a> {
    /// The notice's own id.
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
    pub ret: Option<Ret>,
    /// The sender's own mark for the message: Original-Envelope-Id, not encoded.
    pub envid: Option<&'a str>,
    /// That message's bytes.
    pub body: Body,
    /// When it is told.
    pub at: Timestamp,
}

/// One recipient in a notice.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// Where it stands: address, last reply, last attempt.
    pub state: &'a RecipientState,
    /// To whom the sender wrote, if that is known: Original-Recipient.
    pub original: Option<&'a OriginalRecipient>,
    /// What became of it.
    pub action: Action,
    /// Of a delay: until when it is tried, if that is known: Will-Retry-Until.
    pub until: Option<Timestamp>,
}

/// What became of a recipient, in the terms of RFC 3464, 2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Writes notices. [`BounceBuilder`] is the one the program uses; an embedder may give another.
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

/// Tells the sender of a message in hand that delivery to `who` failed. The sender is not the
/// null sender.
pub fn tell(
    entry: &mut Entry,
    who: &[usize],
    builder: &dyn NoticeBuilder,
    now: Timestamp,
) -> Result<Told, Error> {
    let kind = NoticeKind::Bounce;
    let ReversePath::Mailbox(sender) = entry.envelope().sender.clone() else {
        return Ok(Told::Nothing);
    };
    // First what happened becomes durable, whoever wrote it down: the notice must not outlive
    // the event, nor have a second one made under another id.
    entry.sync()?;
    let states: Vec<RecipientState> = who
        .iter()
        .map(|n| entry.state().recipients[*n].clone())
        .collect();
    let dsn = &entry.envelope().submission.dsn;
    let originals: Vec<Option<OriginalRecipient>> =
        who.iter().map(|n| dsn.of(*n).original).collect();
    let (ret, envid) = (dsn.ret, dsn.envid.clone());
    let cause = happened(&states);
    let recipients: Vec<Address> = states.iter().map(|one| one.address.clone()).collect();
    let named: Vec<&Address> = recipients.iter().collect();
    let id = QueueId::of_notice(cause, entry.id(), kind, &named);
    let staging = entry.spool().stage_notice(id)?;
    let staged = match staging {
        Staging::Busy => return Ok(Told::Busy),
        Staging::Fresh(mut draft) => {
            let report = Report {
                id,
                origin: entry.id(),
                kind,
                sender: &sender,
                recipients: reported(&states, &originals),
                ret,
                envid: envid.as_deref(),
                body: entry.body(),
                at: now,
            };
            let Some(bytes) = builder.build(&report)? else {
                drop(draft);
                let id = None;
                entry.record_durably(
                    now,
                    What::Notice {
                        kind,
                        id,
                        recipients,
                    },
                )?;
                return Ok(Told::Nothing);
            };
            draft.write(&bytes)?;
            (*draft).seal(&envelope(entry.id(), kind, sender))?
        }
    };
    // Then the origin records it, durably; until it has, nobody moves the notice on, and the
    // next holder of the origin finds it under the same id.
    let id = Some(staged.id());
    entry.record_durably(
        now,
        What::Notice {
            kind,
            id,
            recipients,
        },
    )?;
    let id = staged.id();
    staged.release()?;
    Ok(Told::Queued(id))
}

fn reported<'a>(
    states: &'a [RecipientState],
    originals: &'a [Option<OriginalRecipient>],
) -> Vec<Reported<'a>> {
    let both = states.iter().zip(originals);
    both.map(|(state, original)| Reported {
        state,
        original: original.as_ref(),
        action: Action::Failed,
        until: None,
    })
    .collect()
}

fn envelope(origin: QueueId, kind: NoticeKind, sender: Address) -> Envelope {
    Envelope {
        sender: ReversePath::Null,
        recipients: vec![sender],
        submission: Submission {
            origin: Some(Origin { id: origin, kind }),
            ..Submission::by(Door::Active)
        },
    }
}

fn happened(states: &[RecipientState]) -> Timestamp {
    let when = |one: &RecipientState| match one.fate {
        Fate::Failed { since, .. } => Some(since),
        _ => None,
    };
    states
        .iter()
        .filter_map(when)
        .min()
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Report<'_> {
    /// The reply for a recipient, or words for the case that there is none.
    pub fn reply(recipient: &RecipientState) -> Reply {
        recipient.last.clone().unwrap_or_else(|| {
            let code = crate::message::EnhancedCode::new(5, 0, 0);
            Reply::local(code, "no further information")
        })
    }
}
