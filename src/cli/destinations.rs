//! `destinations`: which are down or suspended, and which messages wait for that reason.

use std::io::{self, BufWriter};

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Destinations, DestinationsCommand, Global};
use super::exit::{EX_UNAVAILABLE, Failure};
use super::output::{finish, json_line, print, put};
use super::site::Site;
use super::table;
use super::waiting::{DAMAGED, in_force};
use crate::message::{domain, printable};
use crate::spool::{Down, Spool, Standing, Target};

/// `mailspool destinations`.
pub(super) fn destinations(global: &Global, args: &Destinations) -> Result<u8, Failure> {
    let site = Site::look(global)?;
    if let Some(DestinationsCommand::Clear { names }) = &args.what {
        return clear(&site.spool, names);
    }
    let now = Timestamp::now();
    let (down, suspended) = (site.spool.all_down()?, in_force(&site.spool, now)?);
    let mut out = BufWriter::new(io::stdout().lock());
    match (args.json, down.is_empty() && suspended.is_empty()) {
        (true, _) => {
            let mut lines = suspended.iter().map(Line::of_suspended);
            lines.try_for_each(|line| json_line(&mut out, &line))?;
            let mut lines = down.iter().map(Line::of_down);
            lines.try_for_each(|line| json_line(&mut out, &line))?;
        }
        (false, true) => put(&mut out, "All destinations are up.\n")?,
        (false, false) => put(&mut out, &table_of(&suspended, &down, now))?,
    }
    finish(out)?;
    Ok(0)
}

/// A destination that is down, or a suspension, as a JSON line.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Line<'a> {
    Down(&'a Down),
    Suspended {
        transport: Option<&'a str>,
        destination: Option<&'a str>,
        /// Whether all mail is suspended; then the two fields above are null.
        all: bool,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        by: Option<&'a str>,
        reason: Option<&'a str>,
        damaged: bool,
    },
}

impl Line<'_> {
    fn of_down(down: &Down) -> Line<'_> {
        Line::Down(down)
    }

    fn of_suspended(standing: &Standing) -> Line<'_> {
        let (transport, destination) = match &standing.target {
            Target::Transport(name) => (Some(name.as_str()), None),
            Target::Destination(name) => (None, Some(name.as_str())),
            Target::All => (None, None),
        };
        let says = standing.says.as_ref();
        Line::Suspended {
            transport,
            destination,
            all: standing.target == Target::All,
            since: says.map(|says| says.since),
            until: standing.until(),
            by: says.map(|says| says.by.by.as_str()),
            reason: says.and_then(|says| says.by.reason.as_deref()),
            damaged: says.is_none(),
        }
    }
}

fn table_of(suspended: &[Standing], down: &[Down], now: Timestamp) -> String {
    let held = |suspension: &Standing| {
        let since = suspension
            .says
            .as_ref()
            .map(|says| table::soon(says.since, now));
        let cells = vec![
            printable(&suspension.target.to_string()),
            "suspended".to_owned(),
            since.unwrap_or_default(),
            String::new(),
            suspension
                .until()
                .map_or("resume".to_owned(), |until| table::soon(until, now)),
        ];
        let note = match &suspension.says {
            None => DAMAGED.to_owned(),
            Some(says) => match &says.by.reason {
                Some(reason) => format!("by {}: {reason}", says.by.by),
                None => format!("by {}", says.by.by),
            },
        };
        (cells, Some(printable(&note)))
    };
    let cells = |down: &Down| {
        let next = if down.is_left_alone(now) {
            table::soon(down.probe, now)
        } else {
            "now".to_owned()
        };
        let cells = vec![
            printable(&down.destination.to_string()),
            "down".to_owned(),
            table::soon(down.since, now),
            down.tries.to_string(),
            next,
        ];
        (cells, Some(printable(&down.reply)))
    };
    let rows = suspended.iter().map(held);
    let rows = rows.chain(down.iter().map(cells)).collect();
    table::table(&["Destination", "State", "Since", "Tries", "Next"], rows)
}

fn clear(spool: &Spool, names: &[String]) -> Result<u8, Failure> {
    let all = spool.all_down()?;
    let named = |down: &&Down| {
        let whole = down.destination.to_string();
        names.is_empty()
            || names
                .iter()
                .any(|name| *name == whole || domain::is_same(name, &down.destination.next_hop))
    };
    let named: Vec<&Down> = all.iter().filter(named).collect();
    // Also clear the hosts that made a destination be down: it would wait for them.
    let is_host_of = |host: &&Down| {
        let of = |down: &&Down| {
            let hosts = down.hosts.iter();
            hosts
                .map(|key| down.destination.host(key))
                .any(|destination| destination == host.destination)
        };
        named.iter().any(of)
    };
    let hosts = all
        .iter()
        .filter(|down| !named.contains(down))
        .filter(is_host_of);
    let mut text = String::new();
    for down in named.iter().copied().chain(hosts) {
        // Another process that has just reached it may have removed the record already.
        spool.forget_down(&down.destination)?;
        text += &format!(
            "{} is attempted again.\n",
            printable(&down.destination.to_string())
        );
    }
    match (text.is_empty(), names.is_empty()) {
        (true, true) => print("All destinations are up.\n"),
        (true, false) => {
            let text = "no destination with that name is down";
            return Err(Failure::new(EX_UNAVAILABLE, text));
        }
        (false, _) => print(&text),
    }
    Ok(0)
}
