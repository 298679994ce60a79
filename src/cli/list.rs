//! `list` and `count`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter};

use jiff::Timestamp;

use super::args::{Count, Global, List};
use super::exit::{EX_TEMPFAIL, Failure};
use super::output::{finish, json_line, put};
use super::site::Site;
use super::status;
use super::table;
use super::waiting::Waiting;
use crate::disk;
use crate::message::{harmless, text::shortened};
use crate::operator::{Row, row};

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
    let next = row.next_attempt.or(status::discarded_at(row));
    let cells = vec![
        row.id.clone(),
        table::age(row.age),
        table::size(row.size),
        shortened(sender, ADDRESS),
        shortened(to(row), ADDRESS),
        status::label(row).to_owned(),
        next.map_or(String::new(), |next| table::soon(next, now)),
    ];
    let below = [status::in_use(row), row.last_error.clone()];
    let below: Vec<String> = below.into_iter().flatten().collect();
    (cells, (!below.is_empty()).then(|| below.join("; ")))
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
