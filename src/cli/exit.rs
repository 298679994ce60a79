//! Failures and exit statuses: the one place where an error becomes words and a number.

use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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
pub(super) fn complain(failure: &Failure) -> u8 {
    write_once(std::io::stderr(), &format!("mailspool: {}\n", failure.text));
    failure.status
}

/// Says what went wrong, to an MTA. What can never be accepted begins with its enhanced status
/// code, on standard output, and nothing comes before it; everything else is 75, with words
/// that cannot be taken for such a code.
pub(super) fn refuse(failure: &Failure) -> u8 {
    if failure.permanent {
        write_once(std::io::stdout(), &format!("{}\n", failure.text));
        return EX_DATAERR;
    }
    write_once(std::io::stderr(), &format!("mailspool: {}\n", failure.text));
    EX_TEMPFAIL
}

/// How long a reader that takes nothing is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Streams, by their numbers, that are not read: what else goes there is left out.
static NOT_READ: AtomicU32 = AtomicU32::new(0);

/// Writes what is beside the point, for the status is what counts: a stream may be closed, not
/// block, or be a pipe that nothing reads. Its failure is no news, and it never waits for long:
/// what is said here is often said after something has become durable, when the process must come
/// to its end.
pub(super) fn write_once(to: impl AsFd + Send + Sync + 'static, text: &str) {
    let number = to.as_fd().as_raw_fd().unsigned_abs().min(31);
    if NOT_READ.load(Ordering::SeqCst) & 1 << number != 0 {
        return;
    }
    let written = write_without_waiting(&to, text.as_bytes());
    let text = &text.as_bytes()[written..];
    if text.is_empty() {
        return;
    }
    let to = Arc::new(to);
    // A write can block whatever was known of the stream before. Then the thread stays in it until the
    // process ends.
    let (progress, heard) = mpsc::channel();
    let (writer, bytes) = (Arc::clone(&to), text.to_vec());
    let write = move || pour(&*writer, &bytes, || progress.send(()).is_ok());
    let thread = std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(write);
    let is_stuck = match thread {
        Ok(_) => loop {
            match heard.recv_timeout(PATIENCE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        },
        Err(_) => {
            pour(&*to, text, || has_room(&*to));
            false
        }
    };
    if is_stuck {
        NOT_READ.fetch_or(1 << number, Ordering::SeqCst);
        if number == 1 {
            let text = "mailspool: standard output is not read; the rest is left out\n";
            write_once(std::io::stderr(), text);
        }
    }
}

/// Writes what a stream takes at once, and says how much that was: nothing where the kernel cannot
/// promise not to wait, such as with a terminal. It spares a thread.
#[allow(unsafe_code)]
fn write_without_waiting(to: &impl AsFd, bytes: &[u8]) -> usize {
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the one vector that is passed points to `bytes`, which are only read and outlive the
    // call. The offset -1 writes where the stream stands.
    let written = unsafe {
        libc::pwritev2(
            to.as_fd().as_raw_fd(),
            &raw const piece,
            1,
            -1,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(written).unwrap_or(0)
}

/// Writes piece by piece, asking before each whether to go on.
fn pour(to: &impl AsFd, mut bytes: &[u8], mut go_on: impl FnMut() -> bool) {
    /// No pipe that has room takes less of it without blocking (PIPE_BUF).
    const PIECE: usize = 4096;
    while !bytes.is_empty() && go_on() {
        match nix::unistd::write(to, &bytes[..bytes.len().min(PIECE)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if has_room(to) => {}
            Err(_) => return,
        }
    }
}

/// Waits until a stream has room, not for long.
fn has_room(to: &impl AsFd) -> bool {
    let mut room = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    poll(&mut room, patience).is_ok_and(|ready| ready > 0)
}

/// Prints what was asked for, and waits as long as its reader needs: it may be a pager.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is a reader that has seen enough.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says what is wrong with the usage, or prints the help that was asked for.
pub(super) fn say_usage(error: &clap::Error) {
    // A closed pipe behind `--help` is no trouble.
    let _ = error.print();
}

/// The same for an MTA, which is not waited for.
pub(super) fn say_usage_to_mta(error: &clap::Error) {
    let text = error.render().to_string();
    if error.use_stderr() {
        write_once(std::io::stderr(), &text)
    } else {
        write_once(std::io::stdout(), &text)
    }
}

/// Ends this process from whatever thread: no command goes on without it, and the log gets
/// its last lines.
pub(super) fn leave(status: u8) -> ! {
    crate::transport::end_commands();
    super::log::finish();
    std::process::exit(i32::from(status))
}

/// Whether the message that this process takes in is durable. Nothing fails after that.
static IS_DURABLE: AtomicBool = AtomicBool::new(false);

/// From now on this process does not fail, not even by a panic: its message is durable.
pub(super) fn no_failure_from_now_on() {
    IS_DURABLE.store(true, Ordering::SeqCst);
}

/// The status to end with for a mistake of ours.
pub(super) fn after_panic(status: u8) -> u8 {
    if IS_DURABLE.load(Ordering::SeqCst) {
        0
    } else {
        status
    }
}

/// Has a panic end the whole process with a status, whichever thread it is in. (A panic in a
/// delivery is caught before it gets here; this is for the rest.)
pub(super) fn panics_end_in(status: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("mailspool: internal error: {panic}\n");
        write_once(std::io::stderr(), &text);
        if status == EX_TEMPFAIL {
            leave(after_panic(status));
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
