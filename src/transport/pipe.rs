//! Delivery by a program that reads the message on its standard input.
//!
//! [`Pipe`] says what a command may rely on. The rules of this module: a command that could not be run or
//! did not end in time has not failed the message, so all of that defers. A command never sees its input
//! end before the message does: it is not started before all of the message is ready for it.

mod child;
mod run;
mod template;
#[cfg(test)]
mod tests;
mod user;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use self::run::{Running, Trouble, input};
use self::template::{Argument, Values};
use self::user::Identity;
use super::unconnected::{self, session};
use super::{BoxFuture, Message, Session, Transport};
use crate::message::reply::in_seconds;
use crate::message::{Address, EnhancedCode, domain};
#[cfg(feature = "testing")]
use crate::message::{QueueId, ReversePath};
use crate::queue::Outcome;

#[cfg(feature = "cli")]
pub(crate) use self::child::detach;
pub use self::run::end_commands;
pub use self::user::PipeUser;

/// `PATH` for the command: the usual one for system programs, not the caller's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Delivers by running a command, given as an argument vector; no shell sees it. It runs once for each recipient,
/// one after the other, so that each has a separate outcome. It gets
///
/// - its arguments, with `{sender}`, `{recipient}` and `{id}` filled in (`{{` and `}}` are
///   braces). A value stays within its argument, whatever it contains, and the program's own
///   name takes none. An address may begin with `-`: put `--` before a bare `{recipient}` for
///   programs that know it, or write `--to={recipient}`. The null sender is an empty text;
/// - a clean environment: `PATH`, `LANG`, `HOME`, `USER` and `LOGNAME` of the user it runs as,
///   and `SENDER`, `RECIPIENT` and `MAILSPOOL_ID`;
/// - `/` as its directory, its own session without a terminal, and the descriptors 0, 1 and 2
///   only;
/// - on standard input a `Return-Path` field and then the message, byte by byte but for the
///   `Return-Path` fields that it arrived with. This is a file without a name. The command may seek
///   in it, and it always holds the whole message, whatever happens to this process.
///
/// The exit status decides whether the command has taken the message, see [`Outcome::of_exit`]. Processes that it
/// leaves in the background are neither killed nor waited for if the command ends by itself.
///
/// A command is killed when the thread that started it ends. That is the thread that polls the session's future, so
/// this thread has to live as long as the future.
///
/// The runtime must have its I/O and time drivers enabled.
#[derive(Clone, Debug)]
pub struct Pipe {
    setup: Arc<Setup>,
}

#[derive(Clone, Debug)]
struct Setup {
    program: String,
    arguments: Vec<Argument>,
    user: Option<PipeUser>,
    /// The user of this process, if it was looked up in advance.
    own: Option<Option<PipeUser>>,
    timeout: Duration,
    descriptors: Option<u64>,
    concurrency: usize,
}

/// Why a command or its user is not valid.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// No program is named.
    #[error("the command is empty")]
    Empty,
    /// The program's name has a placeholder: the sender of a mail would choose the program.
    #[error("the program itself cannot be a placeholder: {0:?}")]
    Program(String),
    /// A word in braces other than the three placeholders.
    #[error(
        "{argument:?}: {{{word}}} is not one of {{sender}}, {{recipient}}, {{id}}; \
         a brace itself is written twice"
    )]
    Placeholder {
        /// The argument.
        argument: String,
        /// The word.
        word: String,
    },
    /// An unmatched brace.
    #[error("{0:?}: a brace is not closed, or not opened; a brace itself is written twice")]
    Brace(String),
    /// A NUL, which no argument can contain.
    #[error("{0:?}: an argument cannot contain a NUL")]
    Nul(String),
    /// The user does not exist.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// The user could not be looked up.
    #[error("cannot look up user {name:?}: {source}")]
    User {
        /// The user.
        name: String,
        /// The error.
        source: io::Error,
    },
}

/// The runs of a command as one user.
struct Runs {
    setup: Arc<Setup>,
    identity: Identity,
    /// The user for `HOME` and `USER`; `None` for a user without an entry.
    login: Option<PipeUser>,
}

impl Pipe {
    /// The default time limit for a command. After it the command is killed and the recipient deferred.
    pub const TIMEOUT: Duration = Duration::from_secs(600);

    /// The default for how many commands run at once over all processes. Further ones wait.
    pub const CONCURRENCY: usize = 20;

    /// A transport that runs `command`: the program, by path or by name, and its arguments.
    pub fn new(command: Vec<String>) -> Result<Pipe, PipeError> {
        let mut arguments = Vec::with_capacity(command.len());
        for text in &command {
            arguments.push(Argument::parse(text)?);
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(PipeError::Empty);
        }
        let program = arguments.remove(0);
        let program = program.constant().ok_or_else(|| {
            let text = command.into_iter().next();
            PipeError::Program(text.unwrap_or_default())
        })?;
        Ok(Pipe {
            setup: Arc::new(Setup {
                program,
                arguments,
                user: None,
                own: None,
                descriptors: None,
                timeout: Pipe::TIMEOUT,
                concurrency: Pipe::CONCURRENCY,
            }),
        })
    }

    /// Runs the command as this user instead of the one that this process runs as.
    #[must_use]
    pub fn with_user(mut self, user: PipeUser) -> Pipe {
        Arc::make_mut(&mut self.setup).user = Some(user);
        self
    }

    /// Sets the time limit for each run. After it, the command and everything that it has started in its
    /// process group is killed, and the recipient is deferred.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Pipe {
        Arc::make_mut(&mut self.setup).timeout = timeout;
        self
    }

    /// Looks up the user of this process now. Otherwise this is done for each session, while a message is
    /// locked, and the user database may be reached over a network.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn with_own_user(mut self) -> Result<Pipe, PipeError> {
        let own = PipeUser::effective().map_err(|source| PipeError::User {
            name: nix::unistd::Uid::effective().to_string(),
            source,
        })?;
        Arc::make_mut(&mut self.setup).own = Some(own);
        Ok(self)
    }

    /// Sets a soft descriptor limit for the command, for a process that has raised its own: some programs
    /// close every descriptor up to the limit.
    #[must_use]
    pub fn with_descriptors(mut self, limit: u64) -> Pipe {
        Arc::make_mut(&mut self.setup).descriptors = Some(limit);
        self
    }

    /// Sets how many commands run at once, over all processes that work on the spool.
    #[must_use]
    pub fn with_concurrency(mut self, most: usize) -> Pipe {
        Arc::make_mut(&mut self.setup).concurrency = most.max(1);
        self
    }

    /// The argument vector for a recipient, the program first.
    #[cfg(feature = "testing")]
    pub fn argv(&self, id: QueueId, sender: &ReversePath, recipient: &Address) -> Vec<String> {
        let id = id.to_string();
        let values = Values {
            sender: sender.as_str(),
            recipient: recipient.as_str(),
            id: &id,
        };
        let program = std::iter::once(self.setup.program.clone());
        program.chain(self.setup.filled(&values)).collect()
    }
}

impl Setup {
    fn filled(&self, values: &Values<'_>) -> impl Iterator<Item = String> {
        self.arguments.iter().map(|argument| argument.fill(values))
    }
}

impl Transport for Pipe {
    /// The recipient's domain. The recipients of a command share nothing, but no domain should take all
    /// jobs.
    fn next_hop(&self, recipient: &Address) -> String {
        domain::key(recipient.domain().unwrap_or("")).into_owned()
    }

    /// None: each run has its own limit, and the size does not tell how many runs there are.
    fn deadline(&self, _size: u64) -> Option<Duration> {
        None
    }

    fn concurrency(&self) -> Option<usize> {
        Some(self.setup.concurrency)
    }

    /// Decides which user the command will run as. Nothing runs yet.
    fn connect<'a>(
        &'a self,
        _destination: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        let setup = Arc::clone(&self.setup);
        // The user database may be reached over a network.
        let panicked = "looking up the user was interrupted";
        Box::pin(unconnected::open(panicked, move || {
            let runs = Arc::new(Runs::open(setup)?);
            let deliver = move |message, recipients| -> BoxFuture<'static, _> {
                Box::pin(Arc::clone(&runs).run_for_each(message, recipients))
            };
            Ok(session(|_| true, Box::new(deliver)))
        }))
    }
}

impl Runs {
    fn open(setup: Arc<Setup>) -> Result<Runs, Outcome> {
        let refused = |error: io::Error| setup.cannot_run(&error);
        let identity = Identity::of_process(setup.user.as_ref()).map_err(refused)?;
        let login = match (&setup.user, &setup.own) {
            (Some(user), _) => Some(user.clone()),
            (None, Some(own)) => own.clone(),
            (None, None) => PipeUser::effective().map_err(|error| setup.cannot_run(&error))?,
        };
        Ok(Runs {
            setup,
            identity,
            login,
        })
    }

    /// Returns one outcome for each recipient. If the future is dropped, the command and its process group
    /// are killed at once.
    async fn run_for_each(
        self: Arc<Self>,
        message: Message,
        recipients: Vec<Address>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(recipients.len());
        for recipient in &recipients {
            outcomes.push(self.run(&message, recipient).await);
        }
        outcomes
    }

    /// One run, for one recipient.
    async fn run(&self, message: &Message, recipient: &Address) -> Outcome {
        let limit = self.setup.timeout;
        // A disk that hangs must not hold the message forever. The command does not have the message yet.
        let input = match tokio::time::timeout(limit, input(message)).await {
            Ok(Ok(input)) => input,
            Ok(Err(error)) => {
                let text = format!("cannot read the message: {error}");
                return Outcome::deferred(EnhancedCode::new(4, 3, 0), text);
            }
            Err(_) => {
                let text = format!("cannot read the message within {}", in_seconds(limit));
                return Outcome::deferred(EnhancedCode::new(4, 3, 0), text);
            }
        };
        let mut running = match self.spawn(message, recipient, input) {
            Ok(running) => running,
            Err(error) => return self.setup.cannot_run(&error),
        };
        let ended = running.attend(limit).await;
        let defer = |code, text: String| match running.output().trim() {
            "" => Outcome::deferred(code, text),
            output => Outcome::deferred(code, format!("{text}; its output: {output}")),
        };
        let program = &self.setup.program;
        match ended {
            Ok(exit) => Outcome::of_exit(exit, &running.output()),
            Err(Trouble::TimedOut) => {
                let text = format!(
                    "{program} timed out after {} and was killed",
                    in_seconds(limit)
                );
                defer(EnhancedCode::new(4, 4, 2), text)
            }
            // The command ended in an unknown way.
            Err(Trouble::Lost(error)) => {
                Outcome::unknown(format!("cannot wait for {program}: {error}"))
            }
        }
    }

    fn spawn(&self, message: &Message, recipient: &Address, input: OwnedFd) -> io::Result<Running> {
        let id = message.id.to_string();
        let values = Values {
            sender: message.sender.as_str(),
            recipient: recipient.as_str(),
            id: &id,
        };
        let mut command = std::process::Command::new(&self.setup.program);
        command
            .args(self.setup.filled(&values))
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("SENDER", values.sender)
            .env("RECIPIENT", values.recipient)
            .env("MAILSPOOL_ID", values.id)
            .current_dir("/");
        if let Some(login) = &self.login {
            command
                .env("HOME", login.home())
                .env("USER", login.name())
                .env("LOGNAME", login.name());
        }
        Running::spawn(command, input, &self.identity, self.setup.descriptors)
    }
}

impl Setup {
    fn cannot_run(&self, error: &io::Error) -> Outcome {
        let program = &self.program;
        use io::ErrorKind as Kind;
        let is_setup = match error.kind() {
            Kind::NotFound | Kind::PermissionDenied | Kind::NotADirectory => true,
            // The error is from this module: the process cannot change to the user.
            Kind::Other => true,
            _ => error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32),
        };
        let code = if is_setup {
            EnhancedCode::new(4, 3, 5)
        } else {
            // Descriptors, processes, memory: they become available again without intervention.
            EnhancedCode::new(4, 3, 0)
        };
        let text = match &self.user {
            Some(user) => format!("cannot run {program} as {}: {error}", user.name()),
            None => format!("cannot run {program}: {error}"),
        };
        Outcome::deferred(code, text)
    }
}
