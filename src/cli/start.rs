//! What a process needs before anything else is done in it: see `src/main.rs`.

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Opens the standard streams that are closed, has a closed pipe be an error and not a death, and
/// has the kernel keep the statuses of our children for us.
///
/// A file that was opened in the place of a standard stream would get what is written there: words
/// for an MTA would stand in a message. A caller that ignores SIGCHLD passes that on, and then no status
/// of a child is ever known: where users are asked of getent, no message would be taken.
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
