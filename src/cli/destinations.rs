//! `destinations`: which are down or suspended, and which messages wait for that reason.

use std::io::{self, BufWriter};

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Destinations, DestinationsCommand, Global};
use super::exit::{EX_UNAVAILABLE, Failure, print};
use super::list::{finish, json_line, put};
use super::site::Site;
use super::suspend::{self, Way};
use super::table;
use crate::disk;
use crate::message::{Address, Envelope, QueueId, domain, printable};
use crate::operator::{Row, RowStatus};
use crate::spool::{Content, Down, Listing, Spool, Standing, Target, View};

/// `mailspool destinations`.
pub(super) fn destinations(global: &Global, args: &Destinations) -> Result<u8, Failure> {
    let site = Site::look(global)?;
    if let Some(DestinationsCommand::Clear { names }) = &args.what {
        return clear(&site.spool, names);
    }
    let now = Timestamp::now();
    let (down, suspended) = (site.spool.all_down()?, suspended(&site.spool, now)?);
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

/// Returns the suspensions in force, sorted by name.
fn suspended(spool: &Spool, now: Timestamp) -> disk::Result<Vec<Standing>> {
    let mut all = spool.suspensions()?;
    all.retain(|suspension| !suspension.is_over(now));
    Ok(all)
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

    fn of_suspended(one: &Standing) -> Line<'_> {
        let (transport, destination) = match &one.target {
            Target::Transport(name) => (Some(name.as_str()), None),
            Target::Destination(name) => (None, Some(name.as_str())),
            Target::All => (None, None),
        };
        let says = one.says.as_ref();
        Line::Suspended {
            transport,
            destination,
            all: one.target == Target::All,
            since: says.map(|says| says.since),
            until: one.until(),
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
            None => suspend::DAMAGED.to_owned(),
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
        .filter(|one| !named.contains(one))
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

/// Explains why messages wait for a destination.
pub(super) struct Waiting<'a> {
    site: &'a Site,
    down: Vec<Down>,
    suspended: Vec<Standing>,
}

impl Waiting<'_> {
    pub fn look(site: &Site) -> Waiting<'_> {
        Waiting {
            site,
            // This only adds explanations: a listing does not fail without them.
            down: site.spool.all_down().unwrap_or_default(),
            suspended: suspended(&site.spool, Timestamp::now()).unwrap_or_default(),
        }
    }

    /// Sets the reason in a message's row: the suspension if its mail is suspended, else, for a deferred
    /// message without a reason, that the destination is down.
    pub fn explain(&self, row: &mut Row, view: &View) {
        let Ok(content) = &view.content else { return };
        if let RowStatus::Incoming | RowStatus::Active | RowStatus::Scheduled = row.status
            && let Some(one) = self.suspends(content)
        {
            row.last_error = Some(suspend::describe(one));
            // A run looks at the message before the suspension ends, but that is no attempt.
            if let Some(end) = self.all_suspended(content) {
                row.next_attempt =
                    end.map(|end| row.next_attempt.map_or(end, |next| next.max(end)));
            }
            return;
        }
        if self.down.is_empty() || row.last_error.is_some() || row.status != RowStatus::Scheduled {
            return;
        }
        let recipients = content.state.recipients.iter();
        let pending = recipients.filter(|recipient| recipient.is_left());
        row.last_error = pending
            .filter_map(|recipient| self.of(&content.envelope, &recipient.address))
            .map(describe_down)
            .next();
    }

    /// Returns why a message waits although an operator requested an attempt, if its mail is suspended.
    pub fn suspended(&self, spool: &Spool, id: QueueId) -> Result<Option<String>, Failure> {
        if self.suspended.is_empty() {
            return Ok(None);
        }
        // This is only a hint: a message that is not found gets none.
        let Some(place) = spool.locate(id)?.queue() else {
            return Ok(None);
        };
        let view = spool.view(id, place, &Listing::default())?;
        let content = view.and_then(|view| view.content.ok());
        let one = content.and_then(|content| self.suspends(&content));
        Ok(one.map(suspend::describe))
    }

    /// Returns the first suspension that holds a pending recipient's mail.
    fn suspends(&self, content: &Content) -> Option<&Standing> {
        self.of_left(content).flatten().next()
    }

    /// Returns the earliest end of the suspensions if they hold the mail of every pending recipient. The
    /// inner value is none if no suspension has an end.
    fn all_suspended(&self, content: &Content) -> Option<Option<Timestamp>> {
        let all: Option<Vec<&Standing>> = self.of_left(content).collect();
        Some(
            all?.iter()
                .filter_map(|suspension| suspension.until())
                .min(),
        )
    }

    /// Returns, for each pending recipient, the suspension that holds its mail.
    fn of_left(&self, content: &Content) -> impl Iterator<Item = Option<&Standing>> {
        let wanted = content.envelope.submission.transport.as_deref();
        let left = content
            .state
            .recipients
            .iter()
            .filter(|recipient| recipient.is_left());
        left.map(move |recipient| {
            // Do not compute a way if nothing is suspended.
            let of = || {
                Way::of(
                    self.site,
                    wanted,
                    &content.envelope.sender,
                    &recipient.address,
                )
            };
            let way = (!self.suspended.is_empty()).then(of);
            way.and_then(|way| way.suspended(&self.suspended, &recipient.address))
        })
    }

    /// Returns the outage record of the destination that this recipient's mail would take.
    fn of(&self, envelope: &Envelope, to: &Address) -> Option<&Down> {
        let wanted = envelope.submission.transport.as_deref();
        let way = Way::of(self.site, wanted, &envelope.sender, to);
        let (transport, destination) = (way.transport?, way.destination?);
        self.down.iter().find(|down| {
            down.destination.transport == transport && down.destination.next_hop == destination
        })
    }
}

/// Formats that a destination is down, since when and why.
pub(super) fn describe_down(down: &Down) -> String {
    printable(&format!(
        "destination {} is down since {}: {}",
        down.destination.next_hop,
        table::time(down.since),
        down.reply
    ))
}
