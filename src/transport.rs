//! Transports: a transport takes one message for some recipients and returns an outcome for each of them.
//!
//! A [`Transport`] opens a [`Session`] to a destination, and a session takes one message after another. For
//! a transport without connections, a session costs nothing. A failure inside a transport that is not the
//! fault of the recipient is a deferral; no transport fails a message for a problem of its own.

mod from_fn;
mod maildir;
mod pipe;
#[cfg(feature = "smtp")]
mod smtp;
mod trace;
mod unconnected;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Body;
use crate::message::{Address, Dsn, QueueId, RecipientDsn, ReversePath};
use crate::queue::{Outcome, RecipientState, State};

pub use from_fn::{FromFn, from_fn};
pub use maildir::Maildir;
pub(crate) use maildir::room::descriptors_for_copies;
#[cfg(feature = "testing")]
pub use pipe::PipeError;
#[cfg(feature = "cli")]
pub(crate) use pipe::detach;
pub use pipe::{Pipe, PipeUser, end_commands};
#[cfg(feature = "testing")]
pub use smtp::SmtpBuilder;
#[cfg(feature = "smtp")]
pub use smtp::{Probed, Smtp, Target};

/// A boxed future, as traits used through `dyn` need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message to be delivered. It can be read any number of times. It does not expose the descriptor that
/// holds its lock.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its queue id.
    pub id: QueueId,
    /// Its sender.
    pub sender: ReversePath,
    /// The DSN parameters of the message; `None` if the submitter set none.
    #[doc(hidden)]
    pub dsn: Option<Arc<DsnParams>>,
    /// Its bytes, exactly as accepted.
    pub body: Body,
}

/// The DSN parameters of a message (RFC 3461), by recipient.
#[derive(Clone, Debug, Default)]
pub struct DsnParams {
    /// The parameters of the whole message.
    all: Dsn,
    recipients: HashMap<Address, RecipientDsn>,
}

impl DsnParams {
    /// The parameters of a message; `None` if none are set.
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

    /// The parameters for these recipients, in their order.
    #[doc(hidden)]
    pub fn about(&self, recipients: &[Address]) -> Dsn {
        let wish = |address: &Address| self.recipients.get(address).cloned().unwrap_or_default();
        Dsn {
            recipients: recipients.iter().map(wish).collect(),
            ..self.all.clone()
        }
    }
}

/// What happens after an attempt with an unknown outcome, because the answer was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// The message is tried again, which may deliver it twice.
    #[default]
    Retry,
    /// The message is frozen until an operator acts.
    Freeze,
}

/// What a delivery showed about the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostHealth {
    /// It listened. Another host may take the recipients that it put off.
    #[default]
    Answers,
    /// The host or its connection failed before it was told of a recipient. It is not connected to for a
    /// while. Another host may take the message.
    Fails,
    /// It broke off after it was told of a recipient. The message may be the cause. Another host may take
    /// what it put off. A host that does so with several messages in a row fails.
    Stumbles,
    /// The problem is local: no other host would do better.
    NotAsked,
}

/// A host that may take mail for a destination, at one address.
pub trait NextHost: Send + Sync {
    /// Identifies the host: its connections are counted and its outages recorded under this key. It is the
    /// same for every destination that the host serves.
    fn key(&self) -> &str;

    /// The host's name in log lines.
    fn remote(&self) -> &str {
        self.key()
    }

    /// Opens a session. The outcome of a failure applies to every recipient for which it was opened.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Outcome>>;
}

/// The hosts of a destination in the order in which they are asked.
pub trait Hosts: Send {
    /// Returns the next host, or why one cannot be asked; `None` at the end. A failed outcome ends the
    /// list.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Box<dyn NextHost>, Outcome>>>;
}

/// The most hosts, or addresses of hosts, that are connected to for one message and destination in one
/// attempt. The others are not asked: a domain with many dead hosts must not hold up an attempt for hours.
pub const MAX_HOSTS: usize = 5;

/// A way to deliver messages.
pub trait Transport: Send + Sync {
    /// The next hop of a recipient's mail. Recipients with the same next hop share a transaction, messages
    /// with the same next hop may share a session, and no single one may take all jobs of a runner.
    fn next_hop(&self, recipient: &Address) -> String;

    /// The next hop of every recipient, if all have the same. A run then need not read a message to find
    /// its destination.
    #[doc(hidden)]
    fn only_next_hop(&self) -> Option<String> {
        None
    }

    /// The longest time that one message of this size may take with one host, for connection and
    /// transaction together. `None` if the transport sets no limit.
    fn deadline(&self, size: u64) -> Option<Duration>;

    /// The most recipients of one transaction.
    fn max_recipients(&self) -> usize {
        usize::MAX
    }

    /// The most connections at once to one destination, and to one host, over all processes. `None`: there
    /// are no connections, sessions cost nothing, and no destination is ever down.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// The most transactions at once over all processes and destinations. `None`: as many as runners have
    /// jobs for.
    fn concurrency(&self) -> Option<usize> {
        None
    }

    /// What happens to a message after an attempt with an unknown outcome.
    #[doc(hidden)]
    fn on_unknown(&self) -> OnUnknown {
        OnUnknown::Retry
    }

    /// The hosts to ask for a destination, one after the other, until one has taken the message. `None`:
    /// the destination is itself a host, and [`connect`](Transport::connect) connects to it.
    #[doc(hidden)]
    fn hosts_for(&self, _destination: &str) -> Option<Box<dyn Hosts>> {
        None
    }

    /// Opens a session. The outcome of a failure applies to every recipient for which it was opened. With
    /// [`hosts_for`](Transport::hosts_for), the session is with the first host that can be connected to.
    fn connect<'a>(&'a self, next_hop: &'a str)
    -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>>;
}

/// An open session with one destination.
pub trait Session: Send {
    /// Delivers one message. Returns one outcome for each recipient, in the same order. A future that is
    /// dropped after the deadline leaves nothing running.
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>>;

    /// What the last delivery showed about the host.
    #[doc(hidden)]
    fn host_health(&self) -> HostHealth {
        HostHealth::Answers
    }

    /// Whether the session may take another message.
    fn is_reusable(&self) -> bool {
        false
    }

    /// Ends the session in an orderly way.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
