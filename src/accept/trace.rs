//! The fields that acceptance adds, and the log line it writes.

use jiff::Timestamp;

use crate::message::date::rfc5322;
use crate::message::header::HeaderScan;
use crate::message::{Door, Envelope, QueueId, ReversePath, printable};

/// What is known of a message as it comes in.
pub(super) struct Arrival<'a> {
    pub id: QueueId,
    pub now: Timestamp,
    pub hostname: &'a str,
    pub submitter: &'a str,
    pub envelope: &'a Envelope,
}

impl Arrival<'_> {
    /// The trace field (RFC 5321, section 4.4). `for` is given for a single recipient only:
    /// several would tell each of them about the others. It is left out where it would make the
    /// header one that only SMTPUTF8 carries.
    pub fn received(&self, eol: &str) -> String {
        let Arrival { id, hostname, .. } = self;
        let with = match self.envelope.submission.door {
            Door::Incoming => "pipe",
            Door::Active => "local",
        };
        let submitter = printable(self.submitter);
        let date = rfc5322(self.now);
        let recipient = match self.envelope.recipients.as_slice() {
            [only] => match only.on_wire() {
                Ok(address) if address.is_ascii() => format!("{eol}\tfor <{address}>"),
                _ => String::new(),
            },
            _ => String::new(),
        };
        format!(
            "Received: by {hostname} (mailspool, from user {submitter}) with {with}{eol}\
             \tid {id}{recipient};{eol}\t{date}{eol}"
        )
    }

    /// `Date:` and `Message-ID:`, as far as they are missing (RFC 6409, section 8).
    pub fn missing_fields(&self, header: &HeaderScan, eol: &str) -> String {
        let mut fields = String::new();
        if !header.date {
            fields.push_str(&format!("Date: {}{eol}", rfc5322(self.now)));
        }
        if !header.message_id {
            fields.push_str(&format!("Message-ID: <{}@{}>{eol}", self.id, self.hostname));
        }
        fields
    }
}

pub(super) fn log_acceptance(id: QueueId, envelope: &Envelope, size: u64) {
    let from = match &envelope.sender {
        ReversePath::Null => "<>",
        ReversePath::Mailbox(address) => address.as_str(),
    };
    let recipients = envelope.recipients.len();
    tracing::info!(%id, from, size, recipients, "accepted");
}
