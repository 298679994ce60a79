//! The command line's syntax.

mod act;
mod help;
mod submission;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::message::NoticeKind;

pub(super) use act::{Act, Discard, Flush, Freeze, How, Names, Resume, Suspend};
pub(super) use submission::{DsnParams, Receive, Send};
use submission::{Entrance, EntranceCommand};

/// A mail spool that is nothing but files.
#[derive(Debug, Parser)]
#[command(name = "mailspool", version, max_term_width = 100)]
#[command(after_help = help::PROGRAM)]
pub(super) struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Global {
    /// Use this spool [env: MAILSPOOL_SPOOL]
    #[arg(long, value_name = "DIR", global = true, display_order = 900)]
    pub spool: Option<PathBuf>,
    /// Use this configuration [env: MAILSPOOL_CONFIG]
    #[arg(long, value_name = "FILE", global = true, display_order = 901)]
    pub config: Option<PathBuf>,
}

impl Args {
    /// Parses the command line. Missing global options come from the environment.
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
                    EntranceCommand::Send(send) => Command::Send(send),
                    EntranceCommand::Receive(receive) => Command::Receive(receive),
                },
            },
            None => Args::try_parse_from(arguments)?,
        };
        args.global.fill_in(|name| std::env::var_os(name));
        Ok(args)
    }
}

impl Global {
    /// Sets missing options from the environment. An empty variable counts as unset; with clap's own
    /// support for variables it would be an error.
    fn fill_in(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        let path = |name| variable(name).filter(|value| !value.is_empty());
        let or = |given: &mut Option<PathBuf>, name| {
            *given = given.take().or_else(|| path(name).map(PathBuf::from));
        };
        or(&mut self.spool, "MAILSPOOL_SPOOL");
        or(&mut self.config, "MAILSPOOL_CONFIG");
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a spool with the default configuration
    #[command(after_help = help::INIT)]
    Init(Init),
    /// Accept a message from standard input and print its id
    #[command(after_help = help::SEND)]
    Send(Send),
    /// Accept a message from an MTA's pipe
    #[command(after_help = help::RECEIVE)]
    Receive(Receive),
    /// Attempt every message that is due
    #[command(after_help = help::RUN)]
    Run(Run),
    /// List the messages in the queue
    #[command(after_help = help::LIST)]
    List(List),
    /// Count the messages in the queue
    #[command(after_help = help::COUNT)]
    Count(Count),
    /// Show one message: envelope, recipients, history
    #[command(after_help = help::SHOW)]
    Show(Show),
    /// Attempt messages now, or restore discarded ones
    #[command(after_help = help::RETRY)]
    Retry(Act),
    /// Attempt every deferred message now
    #[command(after_help = help::FLUSH)]
    Flush(Flush),
    /// Hold messages: no attempts until they are thawed
    #[command(after_help = help::FREEZE)]
    Freeze(Freeze),
    /// Release frozen messages and attempt them now
    #[command(after_help = help::THAW)]
    Thaw(Act),
    /// Remove messages from the queue without a notice to the sender
    #[command(after_help = help::DISCARD)]
    Discard(Discard),
    /// Fail messages and notify their senders
    #[command(after_help = help::BOUNCE)]
    Bounce(Act),
    /// Hold all mail for a destination or by a transport
    #[command(after_help = help::SUSPEND)]
    Suspend(Suspend),
    /// Release suspended mail and attempt it now
    #[command(after_help = help::RESUME)]
    Resume(Resume),
    /// Show the route of mail for an address, and why
    #[command(after_help = help::ROUTE)]
    Route(Route),
    /// Show when a message accepted now would be attempted, and why
    #[command(after_help = help::SCHEDULE)]
    Schedule(Schedule),
    /// Connect to the next host for an address and show what it offers
    #[command(after_help = help::PROBE)]
    Probe(Probe),
    /// List the destinations that are down or suspended
    #[command(after_help = help::DESTINATIONS)]
    Destinations(Destinations),
    /// Account for every file in the spool
    #[command(after_help = help::CHECK)]
    Check(Check),
    /// Show the configuration in force, or check it
    #[command(after_help = help::CONFIG)]
    Config(Config),
}

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Owner of the spool; root works in it as this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Run up to N transactions at once [default: run.jobs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: Option<u32>,
    /// Stop after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_messages: Option<u64>,
    /// Start no further message after this time, such as 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_time: Option<Duration>,
    /// Keep running, and deliver mail as it comes in
    #[arg(long)]
    pub watch: bool,
    /// Print nothing unless there was trouble
    #[arg(short, long)]
    pub quiet: bool,
    /// Run in a slot for background attempts, or do nothing if none is free
    #[arg(long, hide = true)]
    pub in_slot: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Count {
    /// Print a JSON object with a count for each queue
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Any unambiguous part of the id, such as its last characters
    pub id: String,
    /// Print a JSON object
    #[arg(long, conflicts_with_all = ["headers", "message"])]
    pub json: bool,
    /// Print the message's header unchanged
    #[arg(long, conflicts_with = "message")]
    pub headers: bool,
    /// Print the whole message unchanged
    #[arg(long)]
    pub message: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Repair what can be repaired
    #[arg(long)]
    pub repair: bool,
    /// Only print what --repair would do
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Route {
    /// Addresses of recipients
    #[arg(required = true, value_name = "ADDRESS")]
    pub addresses: Vec<OsString>,
    /// Sender, or `<>` for none [default: the calling user]
    #[arg(short, long, value_name = "ADDRESS")]
    pub from: Option<OsString>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Schedule {
    /// Address of the recipient [default: show the default schedule]
    pub address: Option<OsString>,
    /// Sender, or `<>` for none [default: the calling user]
    #[arg(short, long, value_name = "ADDRESS", conflicts_with = "bounce")]
    pub from: Option<OsString>,
    /// For mail from the null sender, such as a bounce
    #[arg(long)]
    pub bounce: bool,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// Address of the recipient
    pub address: OsString,
    /// Sender, or `<>` for none [default: the calling user]
    #[arg(short, long, value_name = "ADDRESS")]
    pub from: Option<OsString>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Destinations {
    #[command(subcommand)]
    pub what: Option<DestinationsCommand>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum DestinationsCommand {
    /// Forget that destinations are down
    #[command(after_help = help::DESTINATIONS_CLEAR)]
    Clear {
        /// Destinations as listed, with or without transport [default: all]
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
    /// Find mistakes in the configuration
    #[command(after_help = help::CONFIG_CHECK)]
    Check,
    /// Print an example of each notice to senders
    #[command(after_help = help::CONFIG_NOTICES)]
    Notices {
        /// Only this kind
        kind: Option<Kind>,
    },
    /// Print the configuration that a new spool starts with
    #[command(after_help = help::CONFIG_DEFAULT)]
    Default,
}

/// A kind of notice. (Comments on the variants would make clap double-space the help.)
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Kind {
    Bounce,
    Delay,
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

/// Whether these arguments call `receive`. The test is simple, because it runs before anything that
/// could fail.
pub(super) fn is_receive(arguments: &[OsString]) -> bool {
    command_word(arguments).is_some_and(|word| word == OsStr::new("receive"))
}

/// Whether these arguments call `send` or `receive`.
fn is_entrance(arguments: &[OsString]) -> bool {
    is_receive(arguments) || command_word(arguments).is_some_and(|word| word == OsStr::new("send"))
}

/// Returns the first argument that is neither an option nor the value of a global option.
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
    fn an_empty_variable_counts_as_unset() {
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

    /// The short parser gives the same result as the full parser, or rejects the line.
    #[test]
    fn both_parsers_read_a_submission_alike() {
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
    fn receive_is_recognized() {
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
