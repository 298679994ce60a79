//! `destinations`: those that are down, and what that means for messages.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use jiff::Timestamp;

use super::args::{Destinations, DestinationsCommand, Global};
use super::exit::{EX_UNAVAILABLE, Failure, write_once};
use super::list::{finish, json_line, put};
use super::site::{IfMissing, Site};
use super::table;
use super::transports;
use crate::config::Config;
use crate::message::{Address, domain, printable};
use crate::operator::{Row, RowStatus};
use crate::spool::{Down, Spool, View};

/// `mailspool destinations`.
pub(super) fn destinations(global: &Global, args: &Destinations) -> Result<ExitCode, Failure> {
    let site = Site::open(global, IfMissing::Fail)?;
    if let Some(DestinationsCommand::Clear { names }) = &args.what {
        return clear(&site.spool, names);
    }
    let all = site.spool.all_down()?;
    let mut out = BufWriter::new(io::stdout().lock());
    match (args.json, all.is_empty()) {
        (true, _) => all.iter().try_for_each(|down| json_line(&mut out, down))?,
        (false, true) => put(&mut out, "All destinations are up.\n")?,
        (false, false) => put(&mut out, &table_of(&all, Timestamp::now()))?,
    }
    finish(out)?;
    Ok(ExitCode::SUCCESS)
}

fn table_of(all: &[Down], now: Timestamp) -> String {
    let cells = |down: &Down| {
        let next = match down.is_left_alone(now) {
            true => table::soon(down.probe, now),
            false => "now".to_owned(),
        };
        let cells = vec![
            printable(&down.hop.to_string()),
            table::soon(down.since, now),
            down.tries.to_string(),
            next,
        ];
        (cells, Some(printable(&down.reply)))
    };
    let rows = all.iter().map(cells).collect();
    table::table(&["Destination", "Since", "Tries", "Next"], rows)
}

fn clear(spool: &Spool, names: &[String]) -> Result<ExitCode, Failure> {
    let all = spool.all_down()?;
    let named = |down: &&Down| {
        let whole = down.hop.to_string();
        names.is_empty()
            || names
                .iter()
                .any(|name| *name == whole || domain::is_same(name, &down.hop.destination))
    };
    let mut text = String::new();
    for down in all.iter().filter(named) {
        // Somebody who has just reached it has forgotten it before us.
        spool.forget_down(&down.hop)?;
        text += &format!("{} is tried again.\n", printable(&down.hop.to_string()));
    }
    match (text.is_empty(), names.is_empty()) {
        (true, true) => write_once(io::stdout(), "All destinations are up.\n"),
        (true, false) => {
            let text = "no destination of that name is down";
            return Err(Failure::new(EX_UNAVAILABLE, text));
        }
        (false, _) => write_once(io::stdout(), &text),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says of messages that wait for a destination why they do.
pub(super) struct Waiting<'a> {
    config: &'a Config,
    down: Vec<Down>,
}

impl Waiting<'_> {
    pub fn look(site: &Site) -> Waiting<'_> {
        Waiting {
            config: &site.config,
            // A help only: a listing does not fail for want of it.
            down: site.spool.all_down().unwrap_or_default(),
        }
    }

    /// Gives a deferred message without a reason of its own the destination's.
    pub fn explain(&self, row: &mut Row, view: &View) {
        let Ok(content) = &view.content else { return };
        if self.down.is_empty() || row.last_error.is_some() || row.status != RowStatus::Scheduled {
            return;
        }
        let wanted = content.envelope.submission.transport.as_deref();
        let recipients = content.state.recipients.iter();
        let pending = recipients.filter(|one| one.is_left());
        row.last_error = pending
            .filter_map(|one| self.of(wanted, &one.address))
            .map(words)
            .next();
    }

    /// What is remembered of where this recipient's mail goes next.
    fn of(&self, wanted: Option<&str>, to: &Address) -> Option<&Down> {
        let transport = wanted.or_else(|| self.config.routes.transport_for(to))?;
        let destination = transports::destination(self.config, transport, to)?;
        self.down
            .iter()
            .find(|down| down.hop.transport == transport && down.hop.destination == destination)
    }
}

/// That a destination is down, and why.
pub(super) fn words(down: &Down) -> String {
    printable(&format!(
        "destination {} is down since {}: {}",
        down.hop.destination,
        table::time(down.since),
        down.reply
    ))
}
