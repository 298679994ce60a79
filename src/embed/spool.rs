//! The spool as an embedding program sees it.

use std::fmt;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;

use super::{Acceptor, Error, ErrorKind, Submission};
use crate::disk::Body;
use crate::message::QueueId;
use crate::operator::{self, Acted, Row};
use crate::queue::{Action, By, Then};
use crate::spool as inner;
use crate::spool::{Claim, Doubt, Located, Queue};

/// A spool: a directory with a queue in it. Clones share it; any number of processes may use it at once.
///
/// ```
/// use mailspool::{Spool, Submission};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("spool");
/// let spool = Spool::open_or_create(&path)?.hostname("app.example.org")?;
/// let submission = Submission::new("me@example.org", ["you@example.net"])?;
/// let id = spool.submit(submission, &b"Subject: hello\n\nHello!\n"[..])?;
/// // The message is durable now.
/// for row in spool.messages() {
///     println!("{}", row?);
/// }
/// assert_eq!(spool.message(id)?.unwrap().recipients[0].address, "you@example.net");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Spool {
    pub(super) inner: inner::Spool,
    pub(super) hostname: String,
}

impl Spool {
    /// Opens a spool that exists.
    ///
    /// # Errors
    /// [`ErrorKind::UnusableSpool`] if there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Spool, Error> {
        Ok(Spool::with(inner::Spool::open(path.as_ref())?))
    }

    /// Opens a spool, and makes it durably if it does not exist. The directory above must exist. Any number of
    /// processes may call this at once.
    ///
    /// # Errors
    /// [`ErrorKind::UnusableSpool`] if the directory is something else, or open to other users.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Spool, Error> {
        Ok(Spool::with(inner::Spool::create(path.as_ref())?))
    }

    fn with(inner: inner::Spool) -> Spool {
        Spool {
            inner,
            hostname: crate::hostname::of_system(),
        }
    }

    /// Sets the name of this host in `Received` and `Message-ID` fields, after addresses without a domain, and
    /// in notices. The default is the system's host name, or `localhost` if that is no domain name.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if it is no domain name.
    pub fn hostname(mut self, name: impl Into<String>) -> Result<Spool, Error> {
        self.hostname = name.into();
        if crate::hostname::is_usable(&self.hostname) {
            Ok(self)
        } else {
            let text = format!("{:?} is not a host name", self.hostname);
            Err(Error::new(ErrorKind::Misconfigured, text))
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.inner.path()
    }

    /// Accepts a message within the default limits of [`Acceptor::new`]. When this returns, the message and
    /// its envelope are durable.
    ///
    /// # Errors
    /// See [`ErrorKind`]. After an error nothing has been accepted.
    pub fn submit(&self, submission: Submission, message: impl Read) -> Result<QueueId, Error> {
        let accepted = Acceptor::new(self).submit(submission, message)?;
        Ok(accepted.id)
    }

    /// Lists the messages in the queue, oldest first. No lock is taken: a message may have moved or gone by
    /// the time it is looked at.
    pub fn messages(&self) -> Listing {
        let mut listing = self.inner.listing();
        let messages = std::mem::take(&mut listing.messages);
        let unread = std::mem::take(&mut listing.unread);
        Listing {
            spool: self.inner.clone(),
            messages: messages.into_iter(),
            unread: unread.into_iter(),
            listing,
            now: Timestamp::now(),
        }
    }

    /// Looks at one message; `None` if it is not in the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the queue could not be read.
    pub fn message(&self, id: QueueId) -> Result<Option<Row>, Error> {
        match self.inner.locate(id)? {
            Located::At(queue) => {
                let view = self.inner.view(id, queue, &inner::Listing::default())?;
                Ok(view.map(|view| operator::row(&view, Timestamp::now())))
            }
            Located::Absent => Ok(None),
            Located::Uncertain(doubt) => Err(doubtful(doubt)),
        }
    }

    /// Locks one message, so that no runner takes it, and reads it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has it in hand, [`ErrorKind::NoSuchMessage`] if it is not in the
    /// queue.
    pub fn lock(&self, id: QueueId) -> Result<Entry, Error> {
        let busy = || Error::new(ErrorKind::Busy, format!("another process has {id} in hand"));
        let queue = match self.inner.locate(id)? {
            Located::At(Queue::New | Queue::Staged | Queue::Done) | Located::Absent => {
                return Err(absent(id));
            }
            Located::At(queue) => queue,
            Located::Uncertain(doubt) => return Err(doubtful(doubt)),
        };
        match self.inner.lock(queue, id)? {
            Claim::Locked(locked) => match locked.read() {
                Ok(entry) => Ok(Entry { entry }),
                Err(inner::Unreadable::Corrupt(_, why)) => {
                    Err(Error::new(ErrorKind::Io, format!("{id} is corrupt: {why}")))
                }
                Err(inner::Unreadable::Failed(error)) => Err(error.into()),
            },
            Claim::Busy => Err(busy()),
            Claim::Absent => Err(Error::new(ErrorKind::Busy, format!("{id} is moving"))),
            Claim::NotAFile => Err(absent(id)),
        }
    }

    /// Attempts a message at the next run, whatever its schedule says. `by` is the name of the user that acts; it
    /// is written to the message's history. Returns whether it is done; if not, another process has the message
    /// in hand, and it will be done when that process is done with the message.
    ///
    /// # Errors
    /// Those of all actions: [`ErrorKind::NoSuchMessage`]; [`ErrorKind::Refused`];
    /// [`ErrorKind::Busy`] if another action waits already; [`ErrorKind::Io`] or [`ErrorKind::NoRoom`] if the
    /// action could not be made durable.
    pub fn retry(&self, id: QueueId, by: &str) -> Result<bool, Error> {
        self.act(id, &Action::Retry(actor(by, None)))
    }

    /// Makes no attempts for a message until a time, or until a thaw.
    ///
    /// # Errors
    /// See [`retry`](Spool::retry).
    pub fn freeze(
        &self,
        id: QueueId,
        by: &str,
        reason: &str,
        until: Option<Timestamp>,
    ) -> Result<bool, Error> {
        let (by, then) = (actor(by, Some(reason)), Then::Thaw);
        self.act(id, &Action::Freeze { by, until, then })
    }

    /// Ends the freeze of a message, and attempts it at the next run.
    ///
    /// # Errors
    /// See [`retry`](Spool::retry).
    pub fn thaw(&self, id: QueueId, by: &str) -> Result<bool, Error> {
        self.act(id, &Action::Thaw(actor(by, None)))
    }

    /// Takes a message out of the queue, and deletes it at a time. Before that, [`retry`](Spool::retry) brings it
    /// back. Its sender is not notified.
    ///
    /// # Errors
    /// See [`retry`](Spool::retry).
    pub fn discard(
        &self,
        id: QueueId,
        by: &str,
        reason: &str,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let by = actor(by, Some(reason));
        self.act(id, &Action::Discard { by, until })
    }

    /// Fails the recipients that are left, and notifies the sender.
    ///
    /// # Errors
    /// See [`retry`](Spool::retry).
    pub fn bounce(&self, id: QueueId, by: &str, reason: &str) -> Result<bool, Error> {
        self.act(id, &Action::Bounce(actor(by, Some(reason))))
    }

    fn act(&self, id: QueueId, action: &Action) -> Result<bool, Error> {
        let acted = operator::act(&self.inner, &[id], action, Timestamp::now())?;
        match acted.into_iter().next() {
            Some((_, Acted::Done)) => Ok(true),
            Some((_, Acted::Requested)) => Ok(false),
            Some((_, Acted::OtherWaits)) => {
                let text =
                    format!("another process has {id} in hand, and another action waits for it");
                Err(Error::new(ErrorKind::Busy, text))
            }
            Some((_, Acted::Refused(why))) => {
                Err(Error::new(ErrorKind::Refused, format!("{id}: {why}")))
            }
            Some((_, Acted::Failed(why))) => Err(Error::new(ErrorKind::Io, format!("{id}: {why}"))),
            Some((_, Acted::Absent)) | None => Err(absent(id)),
        }
    }
}

fn absent(id: QueueId) -> Error {
    Error::new(
        ErrorKind::NoSuchMessage,
        format!("{id} is not in the queue"),
    )
}

fn actor(by: &str, reason: Option<&str>) -> By {
    By {
        by: by.to_owned(),
        reason: reason.map(str::to_owned),
    }
}

#[doc(hidden)]
impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spool").field(&self.path()).finish()
    }
}

fn doubtful(doubt: Doubt) -> Error {
    match doubt {
        Doubt::Moving => Error::new(ErrorKind::Busy, Doubt::Moving),
        Doubt::Unread(error) => error.into(),
    }
}

/// The messages in a queue, oldest first, and an error for each directory or message that could not be read.
#[derive(Debug)]
pub struct Listing {
    spool: inner::Spool,
    listing: inner::Listing,
    messages: std::vec::IntoIter<(QueueId, Queue)>,
    unread: std::vec::IntoIter<crate::disk::Error>,
    now: Timestamp,
}

impl Iterator for Listing {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Result<Row, Error>> {
        for (id, queue) in self.messages.by_ref() {
            match self.spool.view(id, queue, &self.listing) {
                Ok(None) => {}
                Ok(Some(view)) => return Some(Ok(operator::row(&view, self.now))),
                Err(error) => return Some(Err(error.into())),
            }
        }
        self.unread.next().map(|error| Err(error.into()))
    }
}

/// One message, locked. While this exists, no runner takes the message, and no other process acts on it.
#[derive(Debug)]
pub struct Entry {
    entry: inner::Entry,
}

impl Entry {
    /// Its sender.
    pub fn sender(&self) -> &crate::message::ReversePath {
        &self.entry.envelope().sender
    }

    /// All of its recipients, those that are done included.
    pub fn recipients(&self) -> &[crate::message::Address] {
        &self.entry.envelope().recipients
    }

    /// The message, header and body, as it was accepted.
    pub fn body(&self) -> Body {
        self.entry.body()
    }
}
