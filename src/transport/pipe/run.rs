//! One run of a command: it is given the message, heard, waited for, and killed where it must be.
//!
//! Its standard input is a complete copy of the message (`disk/copy.rs`), so that whatever becomes
//! of this process, no reader takes a part of the message for all of it. The process is the leader of
//! its process group, and the kernel kills it when the thread that started it ends, however that
//! comes about. (Not where it runs as another user than that thread, nor if it is a set-user-ID
//! program: then it may outlive us, with the whole message.) The group is signalled only while
//! the leader has not been waited for: until then no other process can get its number.
//!
//! What a command leaves behind when it ends by itself is not killed: a script may have
//! started work in the background that it has already reported as delivered, and killing that
//! would lose mail. It is not waited for either: a process that keeps the output open is
//! listened to for [`LINGER`] and not longer.

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

/// Octets of output that are kept. A reply has room for 1000; the rest is what cleaning takes.
const MAX_OUTPUT: usize = 8 * 1024;

/// How long output is still listened to after the command has ended.
const LINGER: Duration = Duration::from_secs(1);

/// How long a command has to clean up between SIGTERM and SIGKILL, and how often it is looked
/// whether it has.
const GRACE: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(20);

/// How long a killed process may take to go. One that waits for a dead disk does not.
const BURIAL: Duration = Duration::from_secs(5);

/// A command that runs. Dropped, it is killed with its process group.
pub(super) struct Running {
    child: Child,
    identity: Identity,
    stdout: tokio::process::ChildStdout,
    output: Vec<u8>,
}

/// Why nobody knows how a command would have ended.
pub(super) enum Trouble {
    TimedOut,
    /// The system does not tell how the command ended.
    Lost(io::Error),
}

/// What a command is given: the message below its header lines. Read where it may block.
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
    /// Starts a command. What it writes to standard output and standard error arrives in the
    /// order in which it wrote it.
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
        // The command goes at the end of this statement, and with it our copies of the other
        // end of its output, without which that would never end.
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

    /// Hears the command until it has ended. In every other case it is dead, or as good as that,
    /// before this returns.
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
                // What is still to be heard is welcome, and not needed.
                let _ = timeout(LINGER, said).await;
                ended
            }
            Ok(Either::Right(((), end))) => tokio::time::timeout_at(deadline, end)
                .await
                .map_err(|_| Trouble::TimedOut)?,
        };
        ended.map_err(Trouble::Lost)
    }

    /// What the command has said so far.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The process group, as long as the number is certainly the command's: it has not been
    /// waited for, by us or (where SIGCHLD is ignored) by the kernel.
    fn group(&self) -> Option<Pid> {
        let leader = Pid::from_raw(i32::try_from(self.child.id()?).ok()?);
        glance(leader).is_ok().then_some(leader)
    }

    /// Ends the command and its process group: politely, then not, and buries it.
    async fn kill(&mut self) {
        let Some(group) = self.group() else { return };
        self.identity.signal(group, Signal::SIGTERM);
        let mut waited = Duration::ZERO;
        while waited < GRACE && glance(group) == Ok(WaitStatus::StillAlive) {
            sleep(GLANCE).await;
            waited += GLANCE;
        }
        // The leader's end is not the group's.
        self.identity.signal(group, Signal::SIGKILL);
        if timeout(BURIAL, self.child.wait()).await.is_err() {
            tracing::warn!(%group, "a killed command does not go away");
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

/// The commands of this process, for its end.
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

/// Counts a process group among those of this process; false if those are being ended.
fn enlist(group: Pid, identity: &Identity) -> bool {
    let mut commands = commands();
    commands.running.push((group, identity.clone()));
    !commands.is_over
}

/// Kills the process groups of all commands that this process runs, and lets no other run: for a
/// process that ends at once, without waiting for what it has begun. What these commands would have
/// done counts as interrupted.
pub fn end_commands() {
    let mut commands = commands();
    commands.is_over = true;
    for (group, identity) in commands.running.drain(..) {
        if glance(group).is_ok() {
            identity.signal(group, Signal::SIGKILL);
        }
    }
}

/// Reads what the command says, to the end, and keeps the beginning: the command must not
/// wait for a reader of the rest. Its output is a courtesy; that it cannot be read decides nothing.
async fn keep(stdout: &mut tokio::process::ChildStdout, kept: &mut Vec<u8>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(got @ 1..) = stdout.read(&mut bytes).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&bytes[..got.min(room)]);
    }
}

/// Looks at a child, which stays to be waited for; an error if it is none of ours.
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
