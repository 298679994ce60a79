//! The status of a message, as `list` and `show` print it.

use jiff::Timestamp;

use super::table;
use crate::operator::{Row, RowStatus};
use crate::queue::Then;

/// Formats since when a message is in use, and by which process of this host.
pub(super) fn in_use(row: &Row) -> Option<String> {
    let process = row.process?;
    let since = (row.since).map_or(String::new(), |since| {
        format!("since {}, ", table::time(since))
    });
    Some(format!("{since}by process {process}"))
}

/// Returns when a frozen message is discarded unless an operator acts.
pub(super) fn discarded_at(row: &Row) -> Option<Timestamp> {
    let hold = row.hold.as_ref()?;
    hold.until.filter(|_| hold.then == Some(Then::Discard))
}

/// Returns the status, and for a frozen message also that it will be discarded.
pub(super) fn label(row: &Row) -> &'static str {
    match row.status {
        RowStatus::Frozen if discarded_at(row).is_some() => "Frozen, will be discarded",
        status => status.label(),
    }
}

/// Formats the status line of `show`.
pub(super) fn text(row: &Row, now: Timestamp) -> String {
    let mut text = label(row).to_owned();
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
