//! One run of a command: it is fed, heard, waited for, and killed where it must be.
//!
//! The process is the leader of its process group. The group is signalled only while the
//! leader has not been waited for: until then nobody else can get its number.
//!
//! What a command leaves behind when it ends by itself is not killed: a script may have
//! started work in the background that it has already reported as delivered, and killing that
//! would lose mail. It is not waited for either: a process that keeps the output open is
//! listened to for [`LINGER`] and not longer.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ChildStdout, Command, ExitStatus};
use std::time::Duration;

use futures_util::future::{Either, select, try_join};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::time::{sleep, timeout};

use super::Message;
use super::user::Identity;
use crate::disk::BodyReader;
use crate::queue::outcome::Exit;
use crate::transport::trace::Delivery;

/// Octets of output that are kept. A reply has room for 1000; the rest is what cleaning takes.
const MAX_OUTPUT: usize = 8 * 1024;

/// Octets of a message in memory at once.
const BLOCK: usize = 128 * 1024;

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
    /// Open until the whole message is written, or the command is dead: the end of its input
    /// tells the command that it has the whole message.
    stdin: Option<ChildStdin>,
    stdout: tokio::process::ChildStdout,
    output: Vec<u8>,
}

/// Why nobody knows how a command would have ended.
pub(super) enum Trouble {
    TimedOut,
    /// The message could not be read.
    Message(io::Error),
    /// It could not be written to the command.
    Input(io::Error),
    /// The system does not tell how the command ended.
    Lost(io::Error),
}

impl Running {
    /// Starts a command. What it writes to standard output and standard error arrives in the
    /// order in which it wrote it.
    pub(super) fn spawn(mut command: Command, identity: &Identity) -> io::Result<Running> {
        let (ours, theirs) = io::pipe()?;
        command.stdout(theirs.try_clone()?).stderr(theirs);
        identity.settle(&mut command);
        let stdout = ChildStdout::from(OwnedFd::from(ours));
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        // The command goes at the end of this statement, and with it our copies of the other
        // end of its output, without which that would never end.
        let mut child = tokio::process::Command::from(command).spawn()?;
        Ok(Running {
            stdin: child.stdin.take(),
            child,
            identity: identity.clone(),
            stdout,
            output: Vec::new(),
        })
    }

    /// Feeds and hears the command until it has ended. In every other case it is dead, or as
    /// good as that, before this returns.
    pub(super) async fn attend(
        &mut self,
        message: &Message,
        limit: Duration,
    ) -> Result<Exit, Trouble> {
        let ended = self.talk(message, limit).await;
        if ended.is_err() {
            self.kill().await;
        }
        ended.map(exit_of)
    }

    async fn talk(&mut self, message: &Message, limit: Duration) -> Result<ExitStatus, Trouble> {
        let Running {
            child,
            stdin,
            stdout,
            output,
            ..
        } = self;
        let deadline = tokio::time::Instant::now() + limit;
        let talk = pin!(try_join(feed(stdin, message), hear(stdout, output)));
        let end = pin!(child.wait());
        let ended = match tokio::time::timeout_at(deadline, select(end, talk)).await {
            Err(_) => return Err(Trouble::TimedOut),
            Ok(Either::Left((ended, talk))) => {
                // What is still to be heard is welcome, and not needed.
                let _ = timeout(LINGER, talk).await;
                ended
            }
            Ok(Either::Right((Err(trouble), _))) => return Err(trouble),
            Ok(Either::Right((Ok(_), end))) => tokio::time::timeout_at(deadline, end)
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
    /// Before the fields go, with them the command's input: it must not take its end for the
    /// end of the message. Tokio waits for the process.
    fn drop(&mut self) {
        if let Some(group) = self.group() {
            self.identity.signal(group, Signal::SIGKILL);
        }
    }
}

/// Writes the message, and closes the command's input. A command that does not read it all
/// knows why: its exit status decides.
async fn feed(stdin: &mut Option<ChildStdin>, message: &Message) -> Result<(), Trouble> {
    let Some(pipe) = stdin else { return Ok(()) };
    let mut reader = message.body.reader();
    let mut bytes = Vec::new();
    let mut delivery = Delivery::new();
    let mut is_first = true;
    loop {
        let read = read_block(reader).await.map_err(Trouble::Message)?;
        let block;
        (reader, block) = read;
        bytes.clear();
        let is_last = block.len() < BLOCK;
        let delivered = delivery.push(&block, is_last);
        if is_first {
            bytes.extend_from_slice(delivery.head(message, None).as_bytes());
        }
        bytes.extend_from_slice(&delivered);
        match pipe.write_all(&bytes).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            other => other.map_err(Trouble::Input)?,
        }
        if is_last {
            break;
        }
        is_first = false;
    }
    *stdin = None;
    Ok(())
}

/// The next block of a message, read where it may block; a short one is the last.
async fn read_block(mut reader: BodyReader) -> io::Result<(BodyReader, Vec<u8>)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut block = vec![0; BLOCK];
        let got = reader.fill(&mut block)?;
        block.truncate(got);
        Ok((reader, block))
    });
    read.await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Reads what the command says, to the end, and keeps the beginning: it must not stop because
/// nobody takes the rest.
async fn hear(stdout: &mut tokio::process::ChildStdout, kept: &mut Vec<u8>) -> Result<(), Trouble> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        match stdout.read(&mut bytes).await {
            // Its output is a courtesy; that it cannot be read decides nothing.
            Ok(0) | Err(_) => return Ok(()),
            Ok(got) => {
                let room = MAX_OUTPUT - kept.len();
                kept.extend_from_slice(&bytes[..got.min(room)]);
            }
        }
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
