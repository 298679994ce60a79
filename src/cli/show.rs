//! `show`: one message.

use std::io::{self, BufWriter, Read, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Global, Show};
use super::exit::{EX_TEMPFAIL, Failure};
use super::lookup;
use super::output::{finish, json_line, put};
use super::site::Site;
use super::status;
use super::table;
use super::waiting::Waiting;
use crate::message::header::HeaderScan;
use crate::message::{harmless, printable};
use crate::operator::{HoldRow, Row, row};
use crate::queue::state::Fate;
use crate::queue::{Action, Event, RecipientResult, RecipientState, Status, Then, What};
use crate::spool::{Content, Spool, View};

/// `show --json`: the row of the listing, the submission's parameters, and the history.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: &'a Row,
    #[serde(flatten)]
    wishes: &'a Wishes,
    history: &'a [Event],
}

/// Parameters of the submission that the row of the listing does not have.
#[derive(Default, Serialize)]
struct Wishes {
    /// The time before which no attempt is made; none once it has passed.
    release: Option<Timestamp>,
    /// The submission's key.
    key: Option<String>,
}

impl Wishes {
    fn of(view: &View, now: Timestamp) -> Wishes {
        let Ok(content) = &view.content else {
            return Wishes::default();
        };
        let key = content.envelope.submission.key.as_ref();
        Wishes {
            release: content.state.release.filter(|release| *release > now),
            key: key.map(|keyed| keyed.key.to_string()),
        }
    }
}

/// `mailspool show`.
pub(super) fn show(global: &Global, args: &Show) -> Result<(), Failure> {
    let site = Site::look(global)?;
    let now = Timestamp::now();
    let id = lookup::message(&site.spool, &args.id)?;
    let view = lookup::view(&site.spool, id)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.headers || args.message {
        raw(&site.spool, &view, args.headers, &mut out)?;
        return finish(out);
    }
    let mut row = row(&view, now);
    Waiting::look(&site).explain(&mut row, &view);
    let wishes = &Wishes::of(&view, now);
    let history = view
        .content
        .as_ref()
        .map(|content| &content.events[..])
        .unwrap_or_default();
    if args.json {
        let row = &row;
        json_line(
            &mut out,
            &Shown {
                row,
                wishes,
                history,
            },
        )?;
    } else {
        let content = view.content.as_ref().ok();
        put(&mut out, &text(&row, wishes, content, now))?;
    }
    finish(out)
}

/// Writes the message or its header unchanged, without escaping for a terminal: the option requests
/// the raw bytes.
fn raw(spool: &Spool, view: &View, headers: bool, out: &mut impl Write) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(EX_TEMPFAIL, error);
    let mut reader = spool.body(view.id, view.queue)?.reader();
    if !headers {
        io::copy(&mut reader, out).map_err(failed)?;
        return Ok(());
    }
    let (mut scan, mut bytes) = (HeaderScan::default(), Vec::new());
    loop {
        let have = bytes.len();
        bytes.resize(have + (64 << 10), 0);
        let got = reader.read(&mut bytes[have..]).map_err(failed)?;
        bytes.truncate(have + got);
        let found = scan.push(&bytes, got == 0);
        out.write_all(&bytes[..found.header]).map_err(failed)?;
        if found.end.is_some() {
            return Ok(());
        }
        bytes.drain(..found.header);
    }
}

fn text(row: &Row, wanted: &Wishes, content: Option<&Content>, now: Timestamp) -> String {
    let history = content
        .map(|content| &content.events[..])
        .unwrap_or_default();
    let states = content
        .map(|content| &content.state.recipients[..])
        .unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<12}{value}\n"));
    line("Id", &row.id);
    line("Status", &status::text(row, now));
    if let Some(in_use) = status::in_use(row) {
        line("In use", &in_use);
    }
    if let Some(why) = &row.last_error {
        line("Why", why);
    }
    if let Some(hold) = &row.hold {
        let (by, since) = (&hold.by, table::time(hold.since));
        line(
            "Held",
            &format!("by {by} since {since}{}", held_until(hold)),
        );
    }
    line(
        "Accepted",
        &format!("{} ({} ago)", table::time(row.added), table::age(row.age)),
    );
    if let Some(release) = wanted.release {
        let soon = table::soon(release, now);
        line("Release", &format!("{} ({soon})", table::time(release)));
    }
    if let Some(key) = &wanted.key {
        line("Key", key);
    }
    line("Size", &table::size(row.size));
    if let Some(sender) = &row.sender {
        line("From", &table::address(sender));
    }
    if let Some(transport) = &row.transport {
        line("Transport", transport);
    }
    let dsn = content.map(|content| &content.envelope.submission.dsn);
    if let Some(envid) = dsn.and_then(|dsn| dsn.envid.as_deref()) {
        line("Envid", envid);
    }
    if let Some(ret) = dsn.and_then(|dsn| dsn.ret) {
        line("Return", ret.as_str());
    }
    for (n, recipient) in row.recipients.iter().enumerate() {
        let reply = recipient
            .reply
            .as_deref()
            .map(printable)
            .unwrap_or_default();
        let address = harmless(&recipient.address);
        let value = format!("{address}  {}  {reply}", recipient.status);
        line("To", value.trim_end());
        for wish in states.get(n).map(wishes).unwrap_or_default() {
            line("", &format!("  {wish}"));
        }
    }
    if !history.is_empty() {
        text.push_str("\nHistory\n");
    }
    for event in history {
        let at = table::time(event.at);
        for what in event_lines(&event.what) {
            text.push_str(&format!("  {at}  {what}\n"));
        }
    }
    text
}

/// Formats a recipient's DSN parameters, and whether NOTIFY suppressed the notice of its failure.
fn wishes(recipient: &RecipientState) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(notify) = recipient.dsn.notify {
        let untold = match recipient.fate {
            Fate::Failed { .. } if !recipient.dsn.wants_failure() => {
                "; no notice of the failure is sent"
            }
            _ => "",
        };
        lines.push(format!("notify {notify}{untold}"));
    }
    if let Some(original) = &recipient.dsn.original {
        lines.push(format!("originally {}", harmless(&original.to_string())));
    }
    lines
}

fn event_lines(what: &What) -> Vec<String> {
    match what {
        What::Fold(fold) => {
            let (events, since) = (fold.events, table::time(fold.since));
            vec![format!("{events} events since {since}, folded")]
        }
        What::Outcome {
            transport, results, ..
        } => {
            let by = transport
                .as_deref()
                .map(|name| format!(" by {name}"))
                .unwrap_or_default();
            results.iter().map(|result| outcome(result, &by)).collect()
        }
        What::Notice {
            kind,
            id: Some(id),
            recipients,
            ..
        } => {
            vec![format!(
                "{} for {} queued as {id}",
                kind.as_str(),
                recipients.len()
            )]
        }
        What::Notice { kind, id: None, .. } => vec![format!("no {} was requested", kind.as_str())],
        What::Action(action) => {
            let by = action.by();
            let why = by
                .reason
                .as_deref()
                .map(|why| format!(": {}", printable(why)));
            let operator = printable(&by.by);
            let (verb, why) = (action.as_str(), why.unwrap_or_default());
            vec![format!("{verb} by {operator}{}{why}", action_until(action))]
        }
    }
}

/// Formats until when an action holds a message, and what happens then.
fn action_until(action: &Action) -> String {
    let (until, then) = match action {
        Action::Freeze { until, then, .. } => (*until, *then),
        Action::Discard { until, .. } => (Some(*until), Then::Discard),
        Action::Retry(_) | Action::Thaw(_) | Action::Bounce(_) => (None, Then::Thaw),
    };
    match (until, action) {
        (None, _) => String::new(),
        // The message is discarded already, and can be restored until then.
        (Some(until), Action::Discard { .. }) => format!(" until {}", table::time(until)),
        (Some(until), _) => end(until, then),
    }
}

fn held_until(hold: &HoldRow) -> String {
    match (hold.until, hold.then) {
        (Some(until), Some(then)) => format!(",{}", end(until, then)),
        _ => String::new(),
    }
}

fn end(until: Timestamp, then: Then) -> String {
    let until = table::time(until);
    match then {
        Then::Thaw => format!(" until {until}"),
        Then::Discard => format!(" to be discarded {until}"),
    }
}

fn outcome(result: &RecipientResult, by: &str) -> String {
    let status = match (result.status, result.expired) {
        (_, true) => "expired",
        (Status::Delivered, _) => "delivered",
        (Status::Deferred, _) => "deferred",
        (Status::Failed, _) => "failed",
        (Status::Unknown, _) => "outcome unknown",
    };
    let (to, reply) = (
        harmless(result.recipient.as_str()),
        printable(&result.reply.to_string()),
    );
    format!("{status}{by} for {to}: {reply}")
}
