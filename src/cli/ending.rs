//! The end of this process: by a signal, a panic, or the failure of a thread.

use std::sync::atomic::{AtomicBool, Ordering};

use super::exit::EX_TEMPFAIL;
use super::log;
use super::output::write_once;

/// Ends this process from any thread. Kills its commands, so that none outlives it, and finishes the
/// log.
pub(super) fn leave(status: u8) -> ! {
    crate::transport::end_commands();
    log::finish();
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
