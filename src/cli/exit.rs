//! Failures and exit statuses: the only place where an error becomes a text and a status.

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

/// Prints a failure on standard error and returns its status.
pub(super) fn complain(failure: &Failure) -> u8 {
    write_once(std::io::stderr(), &format!("mailspool: {}\n", failure.text));
    failure.status
}

/// Reports a failure to an MTA and returns the status: 65 for a permanent failure, otherwise 75. A
/// permanent failure goes to standard output and begins with its enhanced status code, with nothing
/// before it. Any other text goes to standard error and cannot be mistaken for such a code.
pub(super) fn refuse(failure: &Failure) -> u8 {
    if failure.permanent {
        write_once(std::io::stdout(), &format!("{}\n", failure.text));
        return EX_DATAERR;
    }
    write_once(std::io::stderr(), &format!("mailspool: {}\n", failure.text));
    EX_TEMPFAIL
}

/// How long to wait for a reader that takes nothing; after that the rest of the text is dropped.
const PATIENCE: Duration = Duration::from_millis(500);

/// Bit set of the descriptors that nothing reads; later text for them is dropped.
static NOT_READ: AtomicU32 = AtomicU32::new(0);

/// Writes a text that is secondary to the exit status. The stream may be closed, nonblocking, or a
/// pipe that nothing reads. A failure is ignored, and the wait is short: often a message has already
/// become durable, and then the process must end.
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
    // A write can block regardless of any earlier check, so a thread does it. A blocked thread stays in
    // the write until the process ends.
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
            let text = "mailspool: standard output is not read; the rest is dropped\n";
            write_once(std::io::stderr(), text);
        }
    }
}

/// Writes as much as the stream takes without blocking, and returns how many octets that was: 0 if the
/// kernel cannot guarantee it, such as for a terminal. It often saves the thread.
#[allow(unsafe_code)]
fn write_without_waiting(to: &impl AsFd, bytes: &[u8]) -> usize {
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the one vector that is passed points to `bytes`, which are only read and outlive the
    // call. The offset -1 means the stream's current position.
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

/// Writes piece by piece, while `go_on` returns true before each piece.
fn pour(to: &impl AsFd, mut bytes: &[u8], mut go_on: impl FnMut() -> bool) {
    /// Octets that a pipe which polls as writable takes without blocking (PIPE_BUF).
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

/// Waits up to [`PATIENCE`] until a stream has room; whether it has.
fn has_room(to: &impl AsFd) -> bool {
    let mut room = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    poll(&mut room, patience).is_ok_and(|ready| ready > 0)
}

/// Prints a command's output. Waits as long as the reader needs, because it may be a pager.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that the reader needs no more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a usage error, or the help that was asked for.
pub(super) fn say_usage(error: &clap::Error) {
    // Ignore a closed pipe, such as of `--help | head`.
    let _ = error.print();
}

/// The same for an MTA, without waiting for it to read.
pub(super) fn say_usage_to_mta(error: &clap::Error) {
    let text = error.render().to_string();
    if error.use_stderr() {
        write_once(std::io::stderr(), &text)
    } else {
        write_once(std::io::stdout(), &text)
    }
}

/// Ends this process from any thread. Kills its commands, so that none outlives it, and finishes the
/// log.
pub(super) fn leave(status: u8) -> ! {
    crate::transport::end_commands();
    super::log::finish();
    std::process::exit(i32::from(status))
}

/// Whether the message that this process accepts is durable. After that the process exits with 0.
static IS_DURABLE: AtomicBool = AtomicBool::new(false);

/// Makes this process exit with 0 from now on, even after a panic, because its message is durable.
pub(super) fn no_failure_from_now_on() {
    IS_DURABLE.store(true, Ordering::SeqCst);
}

/// Returns the exit status after a panic: 0 if the message is durable, else `status`.
pub(super) fn after_panic(status: u8) -> u8 {
    if IS_DURABLE.load(Ordering::SeqCst) {
        0
    } else {
        status
    }
}

/// Installs a panic hook that reports the panic. With `EX_TEMPFAIL` it also ends the process, whichever
/// thread panicked. (A panic in a delivery is caught before it gets here.)
pub(super) fn panics_end_in(status: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("mailspool: internal error: {panic}\n");
        write_once(std::io::stderr(), &text);
        if status == EX_TEMPFAIL {
            leave(after_panic(status));
        }
    }));
}

/// Ignores SIGXFSZ, so that the file size limit (`ulimit -f`) is an error like a full disk and does not
/// kill the process: some MTAs bounce the message if a signal kills their command. Not for processes
/// that start commands, because these would inherit it.
#[allow(unsafe_code)]
pub(super) fn outlive_file_size_limit() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed, the signal is only ignored.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}
