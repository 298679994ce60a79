//! Failures and exit statuses: the only place where an error becomes a text and a status.

use std::fmt;

use crate::{accept, config, disk, runner, spool};

// The statuses of sysexits(3) that this program uses.
pub(super) const EX_USAGE: u8 = 64;
pub(super) const EX_DATAERR: u8 = 65;
pub(super) const EX_NOINPUT: u8 = 66;
pub(super) const EX_NOUSER: u8 = 67;
pub(super) const EX_UNAVAILABLE: u8 = 69;
pub(super) const EX_SOFTWARE: u8 = 70;
pub(super) const EX_TEMPFAIL: u8 = 75;
pub(super) const EX_NOPERM: u8 = 77;
pub(super) const EX_CONFIG: u8 = 78;

/// A failure: its text, and the status the program exits with.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: u8,
    pub text: String,
    /// The message itself can never be accepted. The text then begins with an enhanced status code.
    pub permanent: bool,
}

impl Failure {
    pub fn new(status: u8, text: impl fmt::Display) -> Failure {
        Failure {
            status,
            text: text.to_string(),
            permanent: false,
        }
    }
}

impl From<disk::Error> for Failure {
    fn from(error: disk::Error) -> Failure {
        Failure::new(EX_TEMPFAIL, error)
    }
}

impl From<spool::Error> for Failure {
    fn from(error: spool::Error) -> Failure {
        let status = match &error {
            spool::Error::Missing(_) => EX_NOINPUT,
            spool::Error::Unsafe { .. } => EX_NOPERM,
            spool::Error::Version { .. } => EX_CONFIG,
            spool::Error::Disk(_) | spool::Error::Damaged { .. } => EX_TEMPFAIL,
        };
        Failure::new(status, error)
    }
}

impl From<accept::Error> for Failure {
    fn from(error: accept::Error) -> Failure {
        let status = match &error {
            accept::Error::TooLarge { .. }
            | accept::Error::TooManyHops { .. }
            | accept::Error::HeaderTooLong { .. }
            | accept::Error::Empty => EX_DATAERR,
            accept::Error::NoRecipients
            | accept::Error::TooManyRecipients
            | accept::Error::Sender { .. }
            | accept::Error::Recipient { .. }
            | accept::Error::BadTransport(_)
            | accept::Error::Dsn { .. }
            | accept::Error::TooManyWishes
            | accept::Error::WishesTooLong
            | accept::Error::HoldTooLong { .. } => EX_USAGE,
            accept::Error::NoRoom { .. }
            | accept::Error::KeyBusy
            | accept::Error::Input(_)
            | accept::Error::Disk(_) => EX_TEMPFAIL,
        };
        Failure {
            permanent: error.is_permanent(),
            ..Failure::new(status, error)
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        Failure::new(EX_CONFIG, error)
    }
}

impl From<runner::Error> for Failure {
    fn from(error: runner::Error) -> Failure {
        Failure::new(EX_TEMPFAIL, error)
    }
}
