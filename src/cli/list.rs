//! `list` and `count`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use jiff::Timestamp;

use super::args::{Count, Global, List};
use super::destinations::Waiting;
use super::exit::{EX_TEMPFAIL, Failure};
use super::site::Site;
use super::table;
use crate::disk;
use crate::message::{harmless, text::shortened};
use crate::operator::{Row, RowStatus, row};
use crate::queue::Then;

/// `mailspool list`.
pub(super) fn list(global: &Global, args: &List) -> Result<(), Failure> {
    let site = Site::look(global)?;
    let now = Timestamp::now();
    let mut listing = site.spool.listing();
    let waiting = Waiting::look(&site);
    let mut out = BufWriter::new(io::stdout().lock());
    // Memory holds only the ids and queues of all messages, and one page of the table.
    let (mut page, mut columns) = (Vec::new(), table::Columns::under(HEADING));
    if !args.json {
        put(&mut out, &heading(listing.messages.len()))?;
    }
    // Show the readable messages first, then report what could not be read.
    let mut unread = std::mem::take(&mut listing.unread);
    for (id, place) in &listing.messages {
        let view = match site.spool.view(*id, *place, &listing) {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            Err(error) => {
                unread.push(error);
                continue;
            }
        };
        let mut row = row(&view, now);
        waiting.explain(&mut row, &view);
        if args.json {
            json_line(&mut out, &row)?
        } else {
            page.push(cells(&row, now))
        }
        if page.len() == PAGE {
            put(&mut out, &columns.page(std::mem::take(&mut page)))?;
        }
    }
    if !page.is_empty() {
        put(&mut out, &columns.page(page))?;
    }
    finish(out)?;
    said_unread(&unread)
}

/// Returns what could not be read as a failure, one line per path.
fn said_unread(unread: &[disk::Error]) -> Result<(), Failure> {
    if unread.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = unread.iter().map(|error| error.to_string()).collect();
    let text = format!("{}\nwhat these contain is not shown", lines.join("\n"));
    Err(Failure::new(EX_TEMPFAIL, text))
}

/// Returns the heading. Its wording is stable, because scripts match it.
fn heading(count: usize) -> String {
    match count {
        0 => "There is no message in queue.\n".to_owned(),
        1 => "1 message in queue.\n".to_owned(),
        count => format!("{count} messages in queue.\n"),
    }
}

const HEADING: &[&str] = &["ID", "Age", "Size", "From", "To", "Status", "Next"];

/// Rows of the table that are measured and written together. Later pages may have wider columns.
const PAGE: usize = 100;

/// Returns the cells of a message's row, and the note below it.
fn cells(row: &Row, now: Timestamp) -> table::Line {
    /// Characters of an address; longer ones are cut. `show` and `--json` print the whole address.
    const ADDRESS: usize = 36;
    let sender = row.sender.as_deref().map_or("?".to_owned(), table::address);
    let next = row.next_attempt.or(discarded_at(row));
    let cells = vec![
        row.id.clone(),
        table::age(row.age),
        table::size(row.size),
        shortened(sender, ADDRESS),
        shortened(to(row), ADDRESS),
        status_label(row).to_owned(),
        next.map_or(String::new(), |next| table::soon(next, now)),
    ];
    let below = [in_use(row), row.last_error.clone()];
    let below: Vec<String> = below.into_iter().flatten().collect();
    (cells, (!below.is_empty()).then(|| below.join("; ")))
}

/// Formats since when a message is in use, and by which process of this host.
pub(super) fn in_use(row: &Row) -> Option<String> {
    let process = row.process?;
    let since = (row.since).map_or(String::new(), |since| {
        format!("since {}, ", table::time(since))
    });
    Some(format!("{since}by process {process}"))
}

/// Returns when a frozen message is discarded unless an operator acts.
fn discarded_at(row: &Row) -> Option<Timestamp> {
    let hold = row.hold.as_ref()?;
    hold.until.filter(|_| hold.then == Some(Then::Discard))
}

/// Returns the status, and for a frozen message also that it will be discarded.
fn status_label(row: &Row) -> &'static str {
    match row.status {
        RowStatus::Frozen if discarded_at(row).is_some() => "Frozen, will be discarded",
        status => status.label(),
    }
}

/// Formats the pending recipients: the first address and the number of others. If none is pending,
/// the failed ones.
fn to(row: &Row) -> String {
    let named = |done: &[&str]| -> Vec<_> {
        row.recipients
            .iter()
            .filter(|recipient| !done.contains(&recipient.status))
            .collect()
    };
    let mut left = named(&["delivered", "failed"]);
    if left.is_empty() {
        left = named(&["delivered"]);
    }
    match left.as_slice() {
        [] => "-".to_owned(),
        [only] => harmless(&only.address),
        [first, others @ ..] => format!("{} +{}", harmless(&first.address), others.len()),
    }
}

/// `mailspool count`.
pub(super) fn count(global: &Global, args: &Count) -> Result<(), Failure> {
    let site = Site::look(global)?;
    let listing = site.spool.listing();
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        let queues = [
            "incoming",
            "active",
            "deferred",
            "frozen",
            "discarded",
            "corrupt",
        ];
        let mut counts: BTreeMap<&str, usize> = queues.map(|queue| (queue, 0)).into();
        for (_, place) in &listing.messages {
            *counts.entry(place.as_str()).or_default() += 1;
        }
        json_line(&mut out, &counts)?;
    } else {
        put(&mut out, &format!("{}\n", listing.messages.len()))?
    }
    finish(out)?;
    said_unread(&listing.unread)
}

pub(super) fn json_line(
    out: &mut impl Write,
    value: &impl serde::Serialize,
) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new(EX_TEMPFAIL, error))?;
    put(out, &format!("{text}\n"))
}

/// Writes to standard output. A closed pipe ends the process with 0: the reader needs no more.
pub(super) fn put(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|error| Failure::new(EX_TEMPFAIL, error)),
    }
}

pub(super) fn finish(mut out: impl Write) -> Result<(), Failure> {
    match out.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(EX_TEMPFAIL, error)),
    }
}

/// Formats the status line of `show`.
pub(super) fn status_text(row: &Row, now: Timestamp) -> String {
    let mut text = status_label(row).to_owned();
    if let Some(at) = discarded_at(row) {
        text.push_str(&format!(" {}", table::soon(at, now)));
    }
    if let Some(next) = row.next_attempt {
        let verb = match row.status {
            RowStatus::Frozen => "thaws",
            _ => "next attempt",
        };
        text.push_str(&format!(", {verb} {}", table::soon(next, now)));
    }
    text
}
