//! What can be said on the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::message::{NoticeKind, Notify, Ret};

/// A mail spool that is nothing but files.
///
/// Takes mail from an MTA's pipe (`receive`) or from people and programs (`send`), keeps it
/// durably, and has short-lived runners deliver it (`run`).
#[derive(Debug, Parser)]
#[command(name = "mailspool", version, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Global {
    /// The spool [env: MAILSPOOL_SPOOL; default: /var/spool/mailspool where it exists, else mailspool
    /// in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", global = true)]
    pub spool: Option<PathBuf>,
    /// The configuration [env: MAILSPOOL_CONFIG; default: /etc/mailspool/config.toml where it exists
    /// and the spool is /var/spool/mailspool, else config.toml in the spool]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

impl Args {
    /// Reads the command line, and what it leaves unsaid from the environment.
    pub fn read(arguments: Vec<OsString>) -> Result<Args, clap::Error> {
        let entrance = if is_entrance(&arguments) {
            Entrance::try_parse_from(&arguments).ok()
        } else {
            None
        };
        let mut args = match entrance {
            Some(Entrance { global, command }) => Args {
                global,
                command: match command {
                    DoorCommand::Send(send) => Command::Send(send),
                    DoorCommand::Receive(receive) => Command::Receive(receive),
                },
            },
            None => Args::try_parse_from(arguments)?,
        };
        args.global.fill_in(|name| std::env::var_os(name));
        Ok(args)
    }
}

impl Global {
    /// An empty variable is as none: clap's own variables would make it an error.
    fn fill_in(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        let path = |name| variable(name).filter(|value| !value.is_empty());
        let or = |given: &mut Option<PathBuf>, name| {
            *given = given.take().or_else(|| path(name).map(PathBuf::from));
        };
        or(&mut self.spool, "MAILSPOOL_SPOOL");
        or(&mut self.config, "MAILSPOOL_CONFIG");
    }
}

/// The part of the command line that submissions use: making the rest is a third of the instructions of
/// one. What it does not understand goes to the whole, which says why.
#[derive(Debug, Parser)]
#[command(name = "mailspool", disable_help_subcommand = true)]
struct Entrance {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: DoorCommand,
}

#[derive(Debug, Subcommand)]
enum DoorCommand {
    Send(Send),
    Receive(Receive),
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a spool, with a configuration to begin with
    Init(Init),
    /// Accept a message from standard input for delivery, and print its id
    Send(Send),
    /// Accept a message from an MTA's pipe; exits 0, 75 (try again) or 65 (never)
    Receive(Receive),
    /// Attempt everything that is due
    Run(Run),
    /// List the queue
    List(List),
    /// Count the messages in the queue
    Count(Count),
    /// Show one message: envelope, recipients, history
    Show(Show),
    /// Try messages at once, also those for later; takes back discarded and mended corrupt ones
    Retry(Act),
    /// Try everything at once that is deferred by trouble
    Flush(Flush),
    /// Hold messages: no attempts until they are thawed
    Freeze(Freeze),
    /// Let frozen messages go, and try them at once, or at the time of their release
    Thaw(Act),
    /// Take messages out of the queue; nobody is told
    Discard(Discard),
    /// Give messages up and tell their senders
    Bounce(Act),
    /// Hold back all mail for a destination or by a transport: it is accepted, and waits
    Suspend(Suspend),
    /// Let mail go that was suspended, and try at once what has waited
    Resume(Resume),
    /// Say which way mail for an address goes, and why
    Route(Route),
    /// Print the times at which a message accepted now would be tried, and why then
    Schedule(Schedule),
    /// Connect to where mail for an address goes next, and say what is there; exits 0, 75 (mail would
    /// be deferred) or 69 (it would bounce, or there is no host to ask)
    Probe(Probe),
    /// List the destinations that are down or suspended, or forget that they are down
    Destinations(Destinations),
    /// Account for every file in the spool
    Check(Check),
    /// Show the configuration that is in force, or check it
    Config(Config),
}

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The spool's owner; everything that root does in it is done as this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Send {
    /// The sender; `<>` for none [default: the user]
    #[arg(
        short = 'f',
        long = "from",
        value_name = "ADDR",
        allow_hyphen_values = true
    )]
    pub from: Option<OsString>,
    /// Take recipients from To, Cc and Bcc too, or from Resent-To, Resent-Cc and Resent-Bcc
    #[arg(short = 't', long = "read-recipients")]
    pub from_header: bool,
    /// Only store; the next run delivers
    #[arg(long)]
    pub queue_only: bool,
    /// Deliver not before this time: `18:00` (the next), `tomorrow 8:00`, `2026-11-23 08:00`, all local;
    /// `2026-11-23T08:00Z`; or `+2h` from now. `retry` releases it before
    #[arg(long, value_name = "TIME", value_parser = super::time::moment_ahead)]
    pub at: Option<Timestamp>,
    /// Deliver by this transport, whatever the routes say
    #[arg(long, value_name = "NAME")]
    pub transport: Option<String>,
    /// Name the submission, by up to 256 octets: another one with the same name, within
    /// accept.key_lifetime, is the same one; it prints the first one's id and queues nothing
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<OsString>,
    /// The recipients, each argument a list as in a header: `Joe <joe@example.net>, root`
    #[arg(value_name = "RCPT")]
    pub recipients: Vec<OsString>,
    #[command(flatten)]
    pub dsn_params: DsnParams,
}

#[derive(Debug, clap::Args)]
pub(super) struct Receive {
    /// The sender; `<>` or nothing for the null sender [default: $SENDER, which Exim and others
    /// set for the commands they pipe to]
    #[arg(
        short = 'f',
        long = "from",
        value_name = "ADDR",
        allow_hyphen_values = true
    )]
    pub from: Option<OsString>,
    /// Name the submission, by up to 256 octets such as the MTA's queue id (Postfix:
    /// ${queue_id}): another one with the same name and the same recipients, within
    /// accept.key_lifetime, is the same one, and queues nothing
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<OsString>,
    /// The recipients, each argument the address of one (RFC 5321)
    #[arg(value_name = "RCPT", required = true)]
    pub recipients: Vec<OsString>,
    #[command(flatten)]
    pub dsn_params: DsnParams,
}

/// Of what the sender wants to hear (RFC 3461).
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Notices to the sender")]
pub(super) struct DsnParams {
    /// When to tell the sender: `never`, or some of `success,failure,delay` [default: of failures, and
    /// of delays as the configuration says]
    #[arg(short = 'N', long, value_name = "WHEN")]
    pub notify: Option<Notify>,
    /// How much of the message to return if it fails: `full` or `hdrs`
    #[arg(short = 'R', long, value_name = "HOW")]
    pub ret: Option<Ret>,
    /// The sender's own mark for the message, which notices repeat; nothing is none
    #[arg(short = 'V', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub envid: Option<String>,
    /// To whom the sender wrote, such as `rfc822;you@example.net`; for each recipient one, in their
    /// order, where an empty address says nothing
    #[arg(long, value_name = "TYPE;ADDR")]
    pub orcpt: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Messages in hand at once [default: run.jobs of the configuration, 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: Option<u32>,
    /// Stop after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_messages: Option<u64>,
    /// Take no further message after this time, such as 50s or 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_time: Option<Duration>,
    /// Stay, and deliver what comes in
    #[arg(long)]
    pub watch: bool,
    /// Print nothing if there was no trouble
    #[arg(short, long)]
    pub quiet: bool,
    /// Run in one of the slots for background attempts, or not at all
    #[arg(long, hide = true)]
    pub in_slot: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Count {
    /// A JSON object with a number for each queue
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Any unambiguous part of an id, such as its last characters
    pub id: String,
    /// A JSON object
    #[arg(long, conflicts_with_all = ["headers", "message"])]
    pub json: bool,
    /// The message's header, as it is
    #[arg(long, conflicts_with = "message")]
    pub headers: bool,
    /// The whole message, as it is
    #[arg(long)]
    pub message: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Act {
    /// Any unambiguous parts of ids, such as their last characters
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, clap::Args)]
pub(super) struct Freeze {
    #[command(flatten)]
    pub act: Act,
    /// Thaw by itself after this time, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Discard {
    #[command(flatten)]
    pub act: Act,
    /// Forget them at once: they cannot be taken back. It needs no room on the disk
    #[arg(long)]
    pub now: bool,
}

/// What is suspended or resumed.
#[derive(Debug, clap::Args)]
pub(super) struct Names {
    /// Recipients' domains (example.net), or destinations as `destinations` and `route` have them,
    /// with or without their transport and port (relay:relay.example.net:587, relay.example.net)
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub names: Vec<String>,
    /// The names are those of transports
    #[arg(long)]
    pub transport: bool,
    /// All mail, whatever it is and wherever it goes
    #[arg(long, conflicts_with_all = ["names", "transport"])]
    pub all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Suspend {
    #[command(flatten)]
    pub names: Names,
    /// Let it go by itself after this time, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    #[command(flatten)]
    pub names: Names,
    /// Start no attempt in the background
    #[arg(long)]
    pub queue_only: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Flush {
    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Why, for the message's history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Start no attempt in the background
    #[arg(long)]
    pub queue_only: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Mend what can be mended: move it to where it can be looked at, remove nothing but what
    /// never got a name, correct modes
    #[arg(long)]
    pub repair: bool,
    /// Only say what would be done
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// One JSON object a line: a finding, then the messages of each state, then the sums
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Route {
    /// The addresses
    #[arg(required = true, value_name = "ADDRESS")]
    pub addresses: Vec<OsString>,
    /// The sender, which routes may ask for; `<>` is the null sender [default: you]
    #[arg(short, long, value_name = "ADDRESS")]
    pub from: Option<OsString>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Schedule {
    /// The recipient's address; without one, the schedule of all mail that has no other
    pub address: Option<OsString>,
    /// The sender, which routes may ask for [default: you, or the null sender with --bounce]
    #[arg(short, long, value_name = "ADDRESS", conflicts_with = "bounce")]
    pub from: Option<OsString>,
    /// For mail from the null sender, such as a bounce
    #[arg(long)]
    pub bounce: bool,
    /// A JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// The address
    pub address: OsString,
    /// The sender, which routes may ask for; `<>` is the null sender [default: you]
    #[arg(short, long, value_name = "ADDRESS")]
    pub from: Option<OsString>,
    /// A JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Destinations {
    #[command(subcommand)]
    pub what: Option<DestinationsCommand>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum DestinationsCommand {
    /// Forget that destinations are down: their mail is tried when it is due
    Clear {
        /// Destinations as they are listed, with or without their transport; none: all
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Config {
    #[command(subcommand)]
    pub what: Option<ConfigCommand>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Find mistakes
    Check,
    /// Print what the sender of a message would get: an example of each notice, in the words that
    /// are in force
    Notices {
        /// Only this kind
        kind: Option<Kind>,
    },
    /// Print the configuration to begin with
    Default,
}

/// A kind of notice.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Kind {
    /// Of mail that cannot be delivered
    Bounce,
    /// Of mail that could not be delivered yet
    Delay,
    /// Of mail that was delivered, for those who asked for it
    Success,
}

impl From<Kind> for NoticeKind {
    fn from(kind: Kind) -> NoticeKind {
        match kind {
            Kind::Bounce => NoticeKind::Bounce,
            Kind::Delay => NoticeKind::Delay,
            Kind::Success => NoticeKind::Success,
        }
    }
}

/// Whether these arguments call `receive`, judged as simply as possible: before anything that
/// could fail.
pub(super) fn is_receive(arguments: &[OsString]) -> bool {
    command_word(arguments).is_some_and(|word| word == OsStr::new("receive"))
}

/// Whether arguments are those of a submission.
fn is_entrance(arguments: &[OsString]) -> bool {
    is_receive(arguments) || command_word(arguments).is_some_and(|word| word == OsStr::new("send"))
}

/// The word that stands where a command does.
fn command_word(arguments: &[OsString]) -> Option<&OsString> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if argument == OsStr::new("--spool") || argument == OsStr::new("--config") {
            rest.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return Some(argument);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn an_empty_variable_is_as_none() {
        let given = |value: &'static str| {
            let mut global = Global {
                spool: None,
                config: Some("given".into()),
            };
            global.fill_in(|_| Some(value.into()));
            (global.spool, global.config)
        };
        let config = Some(PathBuf::from("given"));
        assert_eq!(given(""), (None, config.clone()));
        assert_eq!(given("there"), (Some("there".into()), config));
    }

    /// The short way reads a submission as the long one does, or leaves it to that.
    #[test]
    fn both_ways_read_a_submission_alike() {
        for line in [
            "m send -f a@x b@x",
            "m --spool /s send -t -N success,delay --at +2h --key k -- -b@x c@x",
            "m send --config c --spool=/s --queue-only --transport t b@x",
            "m receive -f <> -R hdrs -V id --orcpt rfc822;a@x --orcpt ; a@x b@x",
            "m --config=c receive a@x",
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(is_entrance(&words), "{line}");
            let short = format!("{:?}", Entrance::try_parse_from(&words).unwrap());
            let long = format!("{:?}", Args::try_parse_from(&words).unwrap());
            let tail = |text: &str| text.split_once('{').unwrap().1.to_owned();
            let times = |text: &str| tail(text).split("at: ").next().map(str::to_owned);
            assert_eq!(times(&short), times(&long), "{line}");
        }
        for line in [
            "m receive",
            "m --help send",
            "m send --help",
            "m --no receive",
        ] {
            let words = line.split(' ').map(OsString::from);
            assert!(Entrance::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn receive_is_told_apart() {
        let is = |text: &str| {
            let words = text.split(' ').map(OsString::from).collect::<Vec<_>>();
            is_receive(&words)
        };
        assert!(is("mailspool receive -f a b"));
        assert!(is("mailspool --spool send receive --nonsense"));
        assert!(is("mailspool --spool=x --config y receive"));
        assert!(!is("mailspool send receive"));
        assert!(!is("mailspool"));
    }
}
