//! What `send` and `receive` take.

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use jiff::Timestamp;

use super::Global;
use crate::message::{Notify, Ret};

/// The part of the command line that submissions use. Building the rest would take a third of a
/// submission's instructions. What this parser rejects goes to the full parser, which reports the error.
#[derive(Debug, Parser)]
#[command(name = "mailspool", disable_help_subcommand = true)]
pub(super) struct Entrance {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: EntranceCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum EntranceCommand {
    Send(Send),
    Receive(Receive),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Send {
    /// Sender, or `<>` for none [default: the calling user]
    #[arg(
        short = 'f',
        long = "from",
        value_name = "ADDR",
        allow_hyphen_values = true
    )]
    pub from: Option<OsString>,
    /// Also take recipients from the message's header
    #[arg(short = 't', long = "read-recipients")]
    pub from_header: bool,
    /// Only store the message; the next run delivers it
    #[arg(long)]
    pub queue_only: bool,
    /// Hold the message until this time
    #[arg(long, value_name = "TIME", value_parser = crate::cli::time::moment_ahead)]
    pub at: Option<Timestamp>,
    /// Deliver by this transport, regardless of the routes
    #[arg(long, value_name = "NAME")]
    pub transport: Option<String>,
    /// Name the submission; a repetition queues nothing
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<OsString>,
    /// Recipients; each argument is a list: `Joe <joe@example.net>, root`
    #[arg(value_name = "RCPT")]
    pub recipients: Vec<OsString>,
    #[command(flatten)]
    pub dsn_params: DsnParams,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Receive {
    /// Sender; `<>` or empty for none [default: $SENDER]
    #[arg(
        short = 'f',
        long = "from",
        value_name = "ADDR",
        allow_hyphen_values = true
    )]
    pub from: Option<OsString>,
    /// Name the submission; a repetition queues nothing
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<OsString>,
    /// Recipients, one address per argument (RFC 5321)
    #[arg(value_name = "RCPT", required = true)]
    pub recipients: Vec<OsString>,
    #[command(flatten)]
    pub dsn_params: DsnParams,
}

/// DSN parameters (RFC 3461).
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Notices to the sender")]
pub(in crate::cli) struct DsnParams {
    /// Events to notify of: success,failure,delay, or never
    #[arg(short = 'N', long, value_name = "WHEN")]
    pub notify: Option<Notify>,
    /// Part of a failed message to return: full or hdrs
    #[arg(short = 'R', long, value_name = "HOW")]
    pub ret: Option<Ret>,
    /// Identifier that notices repeat; empty means unset
    #[arg(short = 'V', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub envid: Option<String>,
    /// Original recipient; one per RCPT, in their order
    #[arg(long, value_name = "TYPE;ADDR")]
    pub orcpt: Vec<String>,
}
