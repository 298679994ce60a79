//! The ways out: a transport takes one message for some recipients and says, for each of
//! them, what became of it.
//!
//! A [`Transport`] opens a [`Session`] to a destination; a session takes one message after
//! another. Transports that keep no connection have sessions that cost nothing. Whatever goes
//! wrong inside a transport that is not the recipient's fault is an outcome that defers; no
//! transport fails a message for trouble of its own.

mod maildir;
mod pipe;
mod relay;
#[cfg(feature = "smtp")]
mod smtp;
mod trace;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Body;
use crate::message::{Address, Dsn, QueueId, RecipientDsn, ReversePath};
use crate::queue::{Outcome, RecipientState, State};

pub use maildir::Maildir;
pub(crate) use maildir::room::descriptors_for_copies;
#[cfg(feature = "cli")]
pub(crate) use pipe::detach;
pub use pipe::{Pipe, PipeError, PipeUser, end_commands};
pub use relay::Relay;
#[cfg(feature = "smtp")]
pub use smtp::{Probed, Smtp, SmtpBuilder, Target};

/// A future in a box, as traits that are used through `dyn` need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message on its way out. It can be read any number of times; the descriptor that carries
/// its lock is not in reach.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its queue id.
    pub id: QueueId,
    /// Its sender.
    pub sender: ReversePath,
    /// Of what its sender wants to hear; none if he asked for nothing.
    pub dsn: Option<Arc<DsnParams>>,
    /// Its bytes, as they were accepted.
    pub body: Body,
}

/// Wishes about notices (RFC 3461), by recipient.
#[derive(Clone, Debug, Default)]
pub struct DsnParams {
    /// About the whole message.
    all: Dsn,
    recipients: HashMap<Address, RecipientDsn>,
}

impl DsnParams {
    /// What is asked for a message; none if nothing is.
    pub(crate) fn of(state: &State, dsn: &Dsn) -> Option<DsnParams> {
        let asked = |recipient: &&RecipientState| recipient.dsn != RecipientDsn::default();
        let pair = |recipient: &RecipientState| (recipient.address.clone(), recipient.dsn.clone());
        (!dsn.is_empty()).then(|| DsnParams {
            all: Dsn {
                recipients: Vec::new(),
                ..dsn.clone()
            },
            recipients: state.recipients.iter().filter(asked).map(pair).collect(),
        })
    }

    /// What is asked for these recipients, in their order.
    pub fn about(&self, recipients: &[Address]) -> Dsn {
        let wish = |address: &Address| self.recipients.get(address).cloned().unwrap_or_default();
        Dsn {
            recipients: recipients.iter().map(wish).collect(),
            ..self.all.clone()
        }
    }
}

/// What is done after an attempt whose outcome is not known: the answer was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is tried again, which may deliver twice.
    #[default]
    Retry,
    /// The message is frozen, and somebody has to look at it.
    Freeze,
}

/// What a delivery showed of the host that it went to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It listened. Another host may take the recipients that it put off.
    #[default]
    Answers,
    /// It, or its connection, failed before it was told of a recipient: it is left alone for a while.
    /// Another host may take the message.
    Fails,
    /// It broke off after it had been told of a recipient, for which the message may be to blame.
    /// Another host may take what it put off. If it does so with several messages in a row, it fails.
    Stumbles,
    /// The trouble is our own: no other host would do better.
    NotAsked,
}

/// A host that may take mail for a destination, at one address.
pub trait NextHost: Send + Sync {
    /// By what its connections are counted, and by what it is remembered to be down: the same for
    /// every destination that is served by it.
    fn key(&self) -> &str;

    /// What log lines call it.
    fn remote(&self) -> &str {
        self.key()
    }

    /// Opens a session. The outcome of a failure goes for every recipient it was opened for.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Outcome>>;
}

/// The hosts of a destination in the order in which they are asked.
pub trait Hosts: Send {
    /// The next host, or why one cannot be asked; none at the end. An outcome that fails is the end.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Box<dyn NextHost>, Outcome>>>;
}

/// The most hosts, or addresses of hosts, that are connected to for one message and destination in
/// one attempt: a domain with many dead hosts must not hold up an attempt for hours.
pub const MAX_HOSTS: usize = 5;

/// A way out.
pub trait Transport: Send + Sync {
    /// Where a recipient's mail goes next. Recipients with the same destination share a
    /// transaction, messages with the same destination may share a session, and no destination
    /// may keep all of a runner's jobs to itself.
    fn next_hop(&self, recipient: &Address) -> String;

    /// The destination of every recipient, if all have the same. A run need not read a message then to
    /// know which others it shares a destination with.
    fn only_next_hop(&self) -> Option<String> {
        None
    }

    /// The longest that one message of this size may take with one host, transaction and connection
    /// together; none where waiting longer than the system does is not ours to decide.
    fn deadline(&self, size: u64) -> Option<Duration>;

    /// The most recipients of one transaction.
    fn max_recipients(&self) -> usize {
        usize::MAX
    }

    /// The most connections to one destination, and to one host, at once, over all processes. None: there is
    /// no connection, every session costs nothing, and no destination is ever down.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// The most transactions at once over all processes, whatever their destination. None: as
    /// many as runners have jobs for.
    fn concurrency(&self) -> Option<usize> {
        None
    }

    /// What becomes of a message after an attempt of which nobody knows the outcome.
    fn on_unknown(&self) -> OnUnknown {
        OnUnknown::Retry
    }

    /// The hosts that are asked for a destination, one after the other, until one has taken the
    /// message. None: the destination is a host itself, and [`connect`](Transport::connect) speaks
    /// to it.
    fn hosts_for(&self, _destination: &str) -> Option<Box<dyn Hosts>> {
        None
    }

    /// Opens a session. The outcome of a failure goes for every recipient it was opened for. With
    /// [`hosts_for`](Transport::hosts_for), it is to the first host that can be connected to.
    fn connect<'a>(&'a self, next_hop: &'a str)
    -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>>;
}

/// An open way to one destination.
pub trait Session: Send {
    /// Delivers one message; one outcome for each recipient, in the same order. A future that
    /// is dropped (the deadline is over) leaves nothing running behind.
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>>;

    /// What the last delivery showed of the host.
    fn standing(&self) -> Standing {
        Standing::Answers
    }

    /// Whether it may take another message.
    fn is_reusable(&self) -> bool {
        false
    }

    /// Says goodbye.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
