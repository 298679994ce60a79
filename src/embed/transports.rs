//! The transports of the crate, as an embedding program makes them.

use std::path::PathBuf;
use std::time::Duration;

use super::{Error, ErrorKind};
use crate::message::Address;
use crate::queue::Outcome;
use crate::transport::{
    self, BoxFuture, Hosts, Maildir, Message, OnUnknown, Pipe, Session, Transport,
};

/// Makes a transport of a function. It is called for each message and domain, with all recipients of the
/// message in that domain, on a thread where it may block. It returns one outcome per recipient, in order. A
/// missing outcome defers, and so does a panic.
///
/// ```
/// use mailspool::{EnhancedCode, Outcome, transports};
///
/// let transport = transports::from_fn(|message, recipients| {
///     let too_large = message.body.size() > 1_000_000;
///     let outcome = |_| match too_large {
///         true => Outcome::failed(EnhancedCode::new(5, 3, 4), "too large for this function"),
///         false => Outcome::delivered("stored"),
///     };
///     recipients.iter().map(outcome).collect()
/// });
/// ```
pub fn from_fn(
    deliver: impl Fn(&Message, &[Address]) -> Vec<Outcome> + Send + Sync + 'static,
) -> impl Transport {
    transport::from_fn(deliver)
}

/// Delivers into the Maildir at `path`, one file for each recipient, durably. The Maildir is made at the first
/// delivery; the directory above it must exist.
pub fn maildir(path: impl Into<PathBuf>) -> impl Transport {
    Maildir::new(path.into(), crate::hostname::of_system())
}

/// Runs a command for each recipient, with the message on its standard input. The first argument is the
/// program. `{sender}`, `{recipient}` and `{id}` in the others are replaced; a brace is written twice. Exit
/// status 0 delivers, 75 defers, and the table of sysexits(3) decides about the others. A command that takes
/// longer than `timeout` is killed, and the message is deferred.
///
/// # Errors
/// [`ErrorKind::Misconfigured`] if there is no program, or a placeholder does not exist.
pub fn pipe<A: Into<String>>(
    command: impl IntoIterator<Item = A>,
    timeout: Duration,
) -> Result<impl Transport, Error> {
    let command = command.into_iter().map(Into::into).collect();
    let pipe = Pipe::new(command).map_err(|error| Error::new(ErrorKind::Misconfigured, error))?;
    Ok(pipe.with_timeout(timeout))
}

/// Limits a transport to `most` transactions at once, over all processes that work on the spool.
pub fn at_most(most: usize, transport: impl Transport) -> impl Transport {
    AtMost {
        most: most.max(1),
        transport,
    }
}

struct AtMost<T> {
    most: usize,
    transport: T,
}

impl<T: Transport> Transport for AtMost<T> {
    fn next_hop(&self, recipient: &Address) -> String {
        self.transport.next_hop(recipient)
    }

    fn only_next_hop(&self) -> Option<String> {
        self.transport.only_next_hop()
    }

    fn deadline(&self, size: u64) -> Option<Duration> {
        self.transport.deadline(size)
    }

    fn max_recipients(&self) -> usize {
        self.transport.max_recipients()
    }

    fn connections(&self) -> Option<usize> {
        self.transport.connections()
    }

    fn concurrency(&self) -> Option<usize> {
        Some(self.most)
    }

    fn on_unknown(&self) -> OnUnknown {
        self.transport.on_unknown()
    }

    fn hosts_for(&self, next_hop: &str) -> Option<Box<dyn Hosts>> {
        self.transport.hosts_for(next_hop)
    }

    fn connect<'a>(
        &'a self,
        next_hop: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        self.transport.connect(next_hop)
    }
}
