//! What a child of this process does between fork and exec.

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

/// Where the kernel cannot mark all descriptors in one call, those below this number are marked one by one.
/// Higher ones are missed.
const MAX_DESCRIPTORS: i32 = 65_536;

/// Makes the child run `step` before exec, and gives the program the descriptors 0, 1 and 2 only.
/// Descriptors of this process are not inherited anyway; this closes those that the caller of this process
/// has left open, such as a flock(1) lock or the pipe of a job server. `step` makes system calls and
/// nothing else.
#[allow(unsafe_code)]
pub(super) fn before_exec(
    command: &mut Command,
    mut step: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    let child = move || {
        close_above_2();
        step()
    };
    // SAFETY: between fork and exec in a process with threads, only async-signal-safe functions may be
    // called. All closures given to this function make system calls through nix, on values made before the
    // fork; they neither allocate nor lock, an errno becomes an io::Error without allocation, and nothing
    // is dropped.
    unsafe { command.pre_exec(child) };
}

/// Marks all descriptors above 2 as close-on-exec. They stay open until then, because the standard library
/// needs one.
#[allow(unsafe_code)]
fn close_above_2() {
    // SAFETY: the call takes three numbers and only changes flags of descriptors.
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
        // SAFETY: the call only changes a flag of a descriptor, if that exists.
        unsafe { fcntl(fd, F_SETFD, FD_CLOEXEC) };
    }
}

/// Makes the kernel kill this process when the thread that started it ends. Call it after changing the user
/// ids, which cancels it. `parent` is the process that forked.
pub(super) fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent {
        Ok(())
    } else {
        // The parent ended before the call above, which then has no effect.
        Err(Errno::ESRCH.into())
    }
}

/// The process that is about to fork.
pub(super) fn parent() -> Pid {
    getpid()
}

/// Sets the descriptor limits.
pub(super) fn limit_descriptors(soft: rlim_t, hard: rlim_t) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
}

/// Makes a command run detached in the background: in its own session, so that no signal of this terminal
/// reaches it, with the descriptors 0, 1 and 2 only.
#[cfg(feature = "cli")]
pub(crate) fn detach(command: &mut Command) {
    before_exec(command, || {
        nix::unistd::setsid()?;
        default_file_size_signal();
        Ok(())
    });
}

/// `receive` ignores the signal for a file at its size limit; commands must not.
#[cfg(feature = "cli")]
#[allow(unsafe_code)]
fn default_file_size_signal() {
    use nix::sys::signal::{SigHandler, signal};
    // SAFETY: no handler is installed.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigDfl) };
}
