//! The one error of the public API.

use crate::{accept, disk, message, runner, spool};

/// Why an operation failed.
///
/// [`kind`](Error::kind) tells a program what to do, the text tells a person. A message that was not accepted
/// leaves no file; one that is in the queue is still there.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Error {
    kind: ErrorKind,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// The kinds of [`Error`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The submission or the message is invalid or too large, or it is in a loop: return it to the sender. Or an
    /// action makes no sense for the message, such as to thaw one that is not frozen.
    Refused,
    /// The file system has reached the reserve that stays free, or is full. Try again later.
    NoRoom,
    /// Another process has the message or the submission key in hand. Try again later.
    Busy,
    /// There is no such message in the queue.
    NoSuchMessage,
    /// There is no spool at the path, it was made by a newer program, or it is damaged, not mounted, or open
    /// to other users.
    UnusableSpool,
    /// The runner's transports, routes or threads cannot work together as they are configured.
    Misconfigured,
    /// A file could not be read or written, or the input of a message broke off.
    Io,
    /// The outcome of a delivery could not be recorded. The message is frozen, and the run has stopped.
    NotRecorded,
    /// A blocking function was called in a thread of an asynchronous runtime. Call the function's
    /// asynchronous form, or call it in a thread of your own (`std::thread`).
    InsideRuntime,
}

impl Error {
    pub(super) fn new(
        kind: ErrorKind,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error {
            kind,
            cause: cause.into(),
        }
    }

    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call fails again until its arguments or the configuration change. A submitter returns
    /// such a message to its sender, and keeps the message after any other error.
    pub fn is_permanent(&self) -> bool {
        match self.kind {
            ErrorKind::Refused
            | ErrorKind::NoSuchMessage
            | ErrorKind::Misconfigured
            | ErrorKind::InsideRuntime => true,
            ErrorKind::NoRoom
            | ErrorKind::Busy
            | ErrorKind::UnusableSpool
            | ErrorKind::Io
            | ErrorKind::NotRecorded => false,
        }
    }
}

impl From<disk::Error> for Error {
    fn from(error: disk::Error) -> Error {
        let kind = if error.is_full() {
            ErrorKind::NoRoom
        } else {
            ErrorKind::Io
        };
        Error::new(kind, error)
    }
}

impl From<spool::Error> for Error {
    fn from(error: spool::Error) -> Error {
        match error {
            spool::Error::Disk(error) => error.into(),
            other => Error::new(ErrorKind::UnusableSpool, other),
        }
    }
}

impl From<accept::Error> for Error {
    fn from(error: accept::Error) -> Error {
        use accept::Error as Cause;
        let kind = match &error {
            Cause::NoRoom { .. } => ErrorKind::NoRoom,
            Cause::KeyBusy => ErrorKind::Busy,
            Cause::Input(_) => ErrorKind::Io,
            Cause::Disk(error) if error.is_full() => ErrorKind::NoRoom,
            Cause::Disk(_) => ErrorKind::Io,
            Cause::TooLarge { .. }
            | Cause::TooManyHops { .. }
            | Cause::Empty
            | Cause::NoRecipients
            | Cause::TooManyRecipients
            | Cause::Dsn { .. }
            | Cause::TooManyWishes
            | Cause::WishesTooLong
            | Cause::Sender { .. }
            | Cause::Recipient { .. }
            | Cause::HeaderTooLong { .. }
            | Cause::BadTransport(_)
            | Cause::HoldTooLong { .. } => ErrorKind::Refused,
        };
        Error::new(kind, error)
    }
}

impl From<runner::Error> for Error {
    fn from(error: runner::Error) -> Error {
        let kind = match error {
            runner::Error::Disk(error) => return error.into(),
            runner::Error::NotRecorded { .. } => ErrorKind::NotRecorded,
            runner::Error::TooManyCorrupt(_) => ErrorKind::UnusableSpool,
            runner::Error::TooMuchTrouble(_) | runner::Error::Runtime(_) => ErrorKind::Io,
        };
        Error::new(kind, error)
    }
}

#[doc(hidden)]
impl From<message::AddressError> for Error {
    fn from(error: message::AddressError) -> Error {
        Error::new(ErrorKind::Refused, error)
    }
}

/// What would block for long cannot be called where it would hold up other tasks.
pub(super) fn refuse_inside_runtime(instead: &str) -> Result<(), Error> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => Err(Error::new(
            ErrorKind::InsideRuntime,
            format!(
                "this would block a thread of an asynchronous runtime; call {instead}, or a thread of your own"
            ),
        )),
        Err(_) => Ok(()),
    }
}
