//! What a child of this process does before it becomes a program.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc::{
    CLOSE_RANGE_CLOEXEC, F_SETFD, FD_CLOEXEC, SYS_close_range, c_uint, fcntl, syscall,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

/// Descriptors up to this one are looked at one by one where the kernel cannot do it at once.
const MAX_DESCRIPTORS: i32 = 65_536;

/// Lets the child run `step` before it becomes the program, which then has the descriptors 0, 1 and
/// 2 only. Ours would not be inherited anyway; this is about those that the caller of this
/// program has left open: a lock of flock(1), the pipe of a job server. `step` makes system
/// calls and nothing else.
#[allow(unsafe_code)]
pub(super) fn before_exec(
    command: &mut Command,
    mut step: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    let child = move || {
        close_above_2();
        step()
    };
    // SAFETY: between fork and exec, of a process with threads, only async-signal-safe
    // functions may be called. All closures given to this function make system calls
    // through nix, on values made before the fork; they neither allocate nor lock, an errno
    // becomes an io::Error without allocation, and nothing is dropped.
    unsafe { command.pre_exec(child) };
}

/// Marks all descriptors above 2 as to be closed when the child becomes the program. The standard
/// library needs one of them until then.
#[allow(unsafe_code)]
fn close_above_2() {
    // SAFETY: the call takes three numbers and changes nothing but flags of descriptors.
    let done = unsafe {
        syscall(
            SYS_close_range,
            3 as c_uint,
            c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Kernels before 5.11.
    for fd in 3..MAX_DESCRIPTORS {
        // SAFETY: the call changes nothing but a flag of a descriptor, if there is one.
        unsafe { fcntl(fd, F_SETFD, FD_CLOEXEC) };
    }
}

/// Ends with the thread that started it, at once. To be called after the user ids have been
/// changed, since that undoes it; `parent` is the process that forked.
pub(super) fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent {
        Ok(())
    } else {
        // It ended before the call above, which then does nothing.
        Err(Errno::ESRCH.into())
    }
}

/// The process that is about to fork.
pub(super) fn parent() -> Pid {
    getpid()
}

/// Sets the limit of descriptors.
pub(super) fn limit_descriptors(soft: rlim_t, hard: rlim_t) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
}

/// Has a command run on its own in the background: in a session of its own, out of reach of our
/// terminal's signals, with the descriptors 0, 1 and 2 only.
#[cfg(feature = "cli")]
pub(crate) fn detach(command: &mut Command) {
    before_exec(command, || {
        nix::unistd::setsid()?;
        default_file_size_signal();
        Ok(())
    });
}

/// `receive` ignores the signal that a file has reached its limit; commands must not.
#[cfg(feature = "cli")]
#[allow(unsafe_code)]
fn default_file_size_signal() {
    use nix::sys::signal::{SigHandler, signal};
    // SAFETY: no handler is installed.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigDfl) };
}
