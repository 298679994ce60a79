//! What mail waits for: a suspension, or a destination that is down.

use jiff::Timestamp;

use super::exit::Failure;
use super::site::Site;
use super::table;
use super::way::Way;
use crate::disk;
use crate::message::{Address, Envelope, QueueId, printable};
use crate::operator::{Row, RowStatus};
use crate::spool::{Content, Down, Listing, Spool, Standing, View};

/// Returns the suspensions in force, sorted by name.
pub(super) fn in_force(spool: &Spool, now: Timestamp) -> disk::Result<Vec<Standing>> {
    let mut all = spool.suspensions()?;
    all.retain(|suspension| !suspension.is_over(now));
    Ok(all)
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
            suspended: in_force(&site.spool, Timestamp::now()).unwrap_or_default(),
        }
    }

    /// Sets the reason in a message's row: the suspension if its mail is suspended, else, for a deferred
    /// message without a reason, that the destination is down.
    pub fn explain(&self, row: &mut Row, view: &View) {
        let Ok(content) = &view.content else { return };
        if let RowStatus::Incoming | RowStatus::Active | RowStatus::Scheduled = row.status
            && let Some(standing) = self.suspends(content)
        {
            row.last_error = Some(describe(standing));
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
        let standing = content.and_then(|content| self.suspends(&content));
        Ok(standing.map(describe))
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

/// Formats a suspension: by which operator, since and until when, and why.
pub(super) fn describe(standing: &Standing) -> String {
    let name = &standing.target;
    let Some(says) = &standing.says else {
        return printable(&format!("{name} is suspended: {DAMAGED}"));
    };
    let (by, since) = (&says.by.by, table::time(says.since));
    let until = says.until.map(table::time);
    let until = until.map_or(String::new(), |until| format!(" until {until}"));
    let why = says.by.reason.as_deref();
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    printable(&format!(
        "{name} is suspended by {by} since {since}{until}{why}"
    ))
}

/// The text for a suspension with a damaged file.
pub(super) const DAMAGED: &str = "its file is damaged; `mailspool resume` removes it";
