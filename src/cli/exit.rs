//! Failures and exit statuses: the one place where an error becomes words and a number.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

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

/// Something went wrong: what, and with which status the program ends.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: u8,
    pub text: String,
    /// The message itself can never be accepted, and the text begins with an enhanced status
    /// code that says why.
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

/// Says what went wrong, to a person.
pub(super) fn complain(failure: &Failure) -> ExitCode {
    write_once(std::io::stderr(), &format!("mailspool: {}\n", failure.text));
    ExitCode::from(failure.status)
}

/// Says what went wrong, to an MTA. What can never be accepted begins with its enhanced status
/// code, on standard output, and nothing comes before it; everything else is 75, with words
/// that cannot be taken for such a code.
pub(super) fn refuse(failure: &Failure) -> ExitCode {
    if failure.permanent {
        write_once(std::io::stdout(), &format!("{}\n", failure.text));
        return ExitCode::from(EX_DATAERR);
    }
    write_once(std::io::stderr(), &format!("mailspool: {}\n", failure.text));
    ExitCode::from(EX_TEMPFAIL)
}

/// One write, whose failure is nobody's business: an MTA's pipe may be non-blocking or closed,
/// and the status is what counts.
pub(super) fn write_once(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// Says what is wrong with the usage, or prints the help that was asked for.
pub(super) fn say_usage(error: &clap::Error) {
    // A closed pipe behind `--help` is no trouble.
    let _ = error.print();
}

/// Has a panic end the whole process with a status, whichever thread it is in. (A panic in a
/// delivery is caught before it gets here; this is for the rest.)
pub(super) fn panics_end_in(status: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("mailspool: internal error: {panic}\n");
        write_once(std::io::stderr(), &text);
        if status == EX_TEMPFAIL {
            std::process::exit(i32::from(status));
        }
    }));
}

/// A file that may not grow (`ulimit -f`) is an error like a full disk, not a death: some MTAs make
/// a bounce of that. Not for a process that starts commands: they would inherit it.
#[allow(unsafe_code)]
pub(super) fn outlive_file_size_limit() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed, the signal is only ignored.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}
