//! One run of a command: starts it, reads its output, waits for it, and kills it where necessary.
//!
//! Its standard input is a complete copy of the message (`disk/copy.rs`), so that whatever happens to this
//! process, no reader takes a part of the message for all of it. The command is the leader of its process
//! group. The kernel kills it when the thread that started it ends for any reason. (This does not hold if
//! the command runs as another user than that thread, or is a set-user-ID program: then it may outlive this
//! process, with the whole message.) The group is signalled only while the leader has not been waited for:
//! until then no other process can get its number.
//!
//! Processes that a command leaves when it ends by itself are not killed: a script may have started
//! background work that it has already reported as delivered, and killing that would lose mail. They are
//! not waited for either: if a process keeps the output open, it is read for [`LINGER`] and no longer.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::Message;
use super::user::Identity;
use crate::queue::outcome::Exit;
use crate::transport::trace::Delivery;

/// Octets of output that are kept; the rest is read and discarded. A reply has room for 1000; the remainder
/// allows for what cleaning removes.
const MAX_OUTPUT: usize = 8 * 1024;

/// How long output is still read after the command has ended.
const LINGER: Duration = Duration::from_secs(1);

/// How long a command has to clean up between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How often to check during that time whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// How long to wait for a killed process to disappear. A process that waits for a dead disk may not
/// disappear; it is then left running with a warning.
const BURIAL: Duration = Duration::from_secs(5);

/// A running command. If dropped, it is killed with its process group.
pub(super) struct Running {
    child: Child,
    identity: Identity,
    stdout: tokio::process::ChildStdout,
    output: Vec<u8>,
}

/// Why it is unknown how a command ended.
pub(super) enum Trouble {
    TimedOut,
    /// The system does not report how the command ended.
    Lost(io::Error),
}

/// Returns the input for a command: the header lines followed by the message. May block.
pub(super) async fn input(message: &Message) -> io::Result<OwnedFd> {
    let message = message.clone();
    let copying = tokio::task::spawn_blocking(move || {
        let (mut delivery, mut is_first) = (Delivery::new(), true);
        message.body.copy_changed(|block, is_last, copy| {
            let delivered = delivery.push(block, is_last);
            if std::mem::take(&mut is_first) {
                copy.extend_from_slice(delivery.head(&message, None).as_bytes());
            }
            copy.extend_from_slice(&delivered);
        })
    });
    let copied = copying.await;
    copied.unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl Running {
    /// Starts a command. Its standard output and standard error arrive in the order of its writes.
    pub(super) fn spawn(
        mut command: Command,
        input: OwnedFd,
        identity: &Identity,
        descriptors: Option<u64>,
    ) -> io::Result<Running> {
        let (ours, theirs) = io::pipe()?;
        command.stdin(Stdio::from(input));
        command.stdout(theirs.try_clone()?).stderr(theirs);
        identity.apply_to(&mut command, descriptors);
        let stdout = ChildStdout::from(OwnedFd::from(ours));
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        // The command is dropped at the end of this statement, and with it this process's copies of the
        // other end of the output pipe, without which the output would never end.
        let child = tokio::process::Command::from(command).spawn()?;
        let running = Running {
            child,
            identity: identity.clone(),
            stdout,
            output: Vec::new(),
        };
        if running.group().is_none_or(|group| enlist(group, identity)) {
            Ok(running)
        } else {
            Err(io::Error::other("this process is being ended"))
        }
    }

    /// Reads the command's output until it has ended. Otherwise it is killed before this returns.
    pub(super) async fn attend(&mut self, limit: Duration) -> Result<Exit, Trouble> {
        let ended = self.hear(limit).await;
        if ended.is_err() {
            self.kill().await;
        }
        ended.map(exit_of)
    }

    async fn hear(&mut self, limit: Duration) -> Result<ExitStatus, Trouble> {
        let Running {
            child,
            stdout,
            output,
            ..
        } = self;
        let deadline = tokio::time::Instant::now() + limit;
        let said = pin!(keep(stdout, output));
        let end = pin!(child.wait());
        let ended = match tokio::time::timeout_at(deadline, select(end, said)).await {
            Err(_) => return Err(Trouble::TimedOut),
            Ok(Either::Left((ended, said))) => {
                // The remaining output is optional.
                let _ = timeout(LINGER, said).await;
                ended
            }
            Ok(Either::Right(((), end))) => tokio::time::timeout_at(deadline, end)
                .await
                .map_err(|_| Trouble::TimedOut)?,
        };
        ended.map_err(Trouble::Lost)
    }

    /// The command's output so far.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The process group, if the number certainly belongs to the command: it has not been waited for, by
    /// this process or (if SIGCHLD is ignored) by the kernel.
    fn group(&self) -> Option<Pid> {
        let leader = Pid::from_raw(i32::try_from(self.child.id()?).ok()?);
        glance(leader).is_ok().then_some(leader)
    }

    /// Kills the command and its process group, with SIGTERM first, and waits for the command.
    async fn kill(&mut self) {
        let Some(group) = self.group() else { return };
        self.identity.signal(group, Signal::SIGTERM);
        let mut waited = Duration::ZERO;
        while waited < GRACE && glance(group) == Ok(WaitStatus::StillAlive) {
            sleep(GLANCE).await;
            waited += GLANCE;
        }
        // Other processes of the group may outlive the leader.
        self.identity.signal(group, Signal::SIGKILL);
        if timeout(BURIAL, self.child.wait()).await.is_err() {
            tracing::warn!(%group, "a killed command does not end");
        }
    }
}

impl Drop for Running {
    /// Tokio waits for the process.
    fn drop(&mut self) {
        if let Some(group) = self.group() {
            self.identity.signal(group, Signal::SIGKILL);
        }
        let child = self.child.id();
        commands().running.retain(|(group, _)| {
            let is_ours = child.is_some_and(|child| group.as_raw().unsigned_abs() == child);
            !is_ours && glance(*group).is_ok()
        });
    }
}

/// The commands of this process, for when it ends.
static COMMANDS: Mutex<Commands> = Mutex::new(Commands {
    running: Vec::new(),
    is_over: false,
});

struct Commands {
    running: Vec<(Pid, Identity)>,
    is_over: bool,
}

fn commands() -> MutexGuard<'static, Commands> {
    COMMANDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a process group to those of this process. Returns false if those are being killed.
fn enlist(group: Pid, identity: &Identity) -> bool {
    let mut commands = commands();
    commands.running.push((group, identity.clone()));
    !commands.is_over
}

/// Kills the process groups of all commands of this process, and prevents further runs. For a process that
/// ends at once, without waiting for what it has begun. The unfinished commands count as interrupted.
pub fn end_commands() {
    let mut commands = commands();
    commands.is_over = true;
    for (group, identity) in commands.running.drain(..) {
        if glance(group).is_ok() {
            identity.signal(group, Signal::SIGKILL);
        }
    }
}

/// Reads the command's output to its end, and keeps the beginning: the command must not block on a full
/// pipe. The output is optional, so a read error decides nothing.
async fn keep(stdout: &mut tokio::process::ChildStdout, kept: &mut Vec<u8>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(got @ 1..) = stdout.read(&mut bytes).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&bytes[..got.min(room)]);
    }
}

/// Returns the state of a child without reaping it; an error if it is not a child of this process.
fn glance(child: Pid) -> nix::Result<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(child), flags)
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}
