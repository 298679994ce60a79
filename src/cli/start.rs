//! The setup of the process, before anything else: see `src/main.rs`.

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Opens the standard streams that are closed, ignores SIGPIPE so that a closed pipe is an error, and
/// resets SIGCHLD so that the statuses of children are available.
///
/// Without the streams, a file could get the descriptor of one, and text for an MTA would be written
/// into a message. A caller that ignores SIGCHLD passes that on, and then no status of a child is
/// known: where `getent` looks up users, no message would be accepted.
#[allow(unsafe_code)]
pub(super) fn prepare() {
    for stream in 0..3 {
        // SAFETY: both calls take numbers and a string that ends with a NUL. The descriptor is new, and
        // stays open for the rest of the process.
        unsafe {
            if libc::fcntl(stream, libc::F_GETFD) == -1
                && Errno::last() == Errno::EBADF
                && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) == -1
            {
                libc::abort();
            }
        }
    }
    // SAFETY: no handler is installed.
    unsafe {
        let _ = signal(Signal::SIGPIPE, SigHandler::SigIgn);
        let _ = signal(Signal::SIGCHLD, SigHandler::SigDfl);
    }
}
