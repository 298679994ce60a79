//! What the commands take that act on messages or suspend destinations.

use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Act {
    /// Unambiguous parts of ids, such as their last characters
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Freeze {
    #[command(flatten)]
    pub act: Act,
    /// Thaw automatically after this time, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    pub act: Act,
    /// Delete them at once; they cannot be restored
    #[arg(long)]
    pub now: bool,
}

/// The targets to suspend or resume.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Names {
    /// Domains of recipients, or destinations as `route` shows them
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub names: Vec<String>,
    /// The names are names of transports
    #[arg(long)]
    pub transport: bool,
    /// All mail, without a name
    #[arg(long, conflicts_with_all = ["names", "transport"])]
    pub all: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Suspend {
    #[command(flatten)]
    pub names: Names,
    /// Resume automatically after this time, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
    /// Record this reason; `destinations` shows it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Resume {
    #[command(flatten)]
    pub names: Names,
    /// Start no attempt in the background
    #[arg(long)]
    pub queue_only: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Flush {
    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct How {
    /// Record this reason in the message's history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Start no attempt in the background
    #[arg(long)]
    pub queue_only: bool,
}
