//! What the program prints.
//!
//! The output of a command that lists waits for its reader ([`put`], [`print`]). Other texts are secondary
//! to the exit status and do not wait ([`write_once`]).

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::exit::{EX_DATAERR, EX_TEMPFAIL, Failure};

/// Writes a value to standard output as a line of JSON.
pub(super) fn json_line(
    out: &mut impl Write,
    value: &impl serde::Serialize,
) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new(EX_TEMPFAIL, error))?;
    put(out, &format!("{text}\n"))
}

/// Writes to standard output. A closed pipe ends the process with 0: the reader needs no more.
pub(super) fn put(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|error| Failure::new(EX_TEMPFAIL, error)),
    }
}

/// Writes what is buffered. A closed pipe is no failure: the reader needs no more.
pub(super) fn finish(mut out: impl Write) -> Result<(), Failure> {
    match out.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(EX_TEMPFAIL, error)),
    }
}

/// Prints a failure on standard error and returns its status.
pub(super) fn complain(failure: &Failure) -> u8 {
    write_once(io::stderr(), &format!("mailspool: {}\n", failure.text));
    failure.status
}

/// Reports a failure to an MTA and returns the status: 65 for a permanent failure, otherwise 75. A
/// permanent failure goes to standard output and begins with its enhanced status code, with nothing
/// before it. Any other text goes to standard error and cannot be mistaken for such a code.
pub(super) fn refuse(failure: &Failure) -> u8 {
    if failure.permanent {
        write_once(io::stdout(), &format!("{}\n", failure.text));
        return EX_DATAERR;
    }
    write_once(io::stderr(), &format!("mailspool: {}\n", failure.text));
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
            write_once(io::stderr(), text);
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
    let mut out = io::stdout().lock();
    // A closed pipe means that the reader needs no more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints that something is done, without waiting for the reader.
pub(super) fn say(text: &str) {
    write_once(io::stdout(), text);
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
        write_once(io::stderr(), &text)
    } else {
        write_once(io::stdout(), &text)
    }
}
