//! The fields that acceptance adds, and its log line.

use jiff::Timestamp;

use crate::message::date::rfc5322;
use crate::message::field::{self, MAX_LINE};
use crate::message::header::HeaderScan;
use crate::message::{Entrance, Envelope, QueueId, ReversePath, printable};

/// A recipient's address with this many octets or more does not fit in its line: a blank, `for <`, and `>;`.
const MAX_FOR: usize = MAX_LINE - 8;

/// Data of an arriving message.
pub(super) struct Arrival<'a> {
    pub id: QueueId,
    pub now: Timestamp,
    pub hostname: &'a str,
    pub submitter: &'a str,
    pub envelope: &'a Envelope,
}

impl Arrival<'_> {
    /// Returns the trace field (RFC 5321, section 4.4). `for` is given for a single recipient only, because
    /// it would disclose several recipients to each other. It is omitted if it would make the header require
    /// SMTPUTF8, or does not fit in a line.
    pub fn received(&self, eol: &str) -> String {
        let Arrival { id, hostname, .. } = self;
        let with = match self.envelope.submission.entrance {
            Entrance::Incoming => "pipe",
            Entrance::Active => "local",
        };
        let submitter = printable(self.submitter);
        let date = rfc5322(self.now);
        let recipient = match self.envelope.recipients.as_slice() {
            [only] => match only.on_wire() {
                Ok(address) if address.is_ascii() && address.len() < MAX_FOR => {
                    format!("\nfor <{address}>")
                }
                _ => String::new(),
            },
            _ => String::new(),
        };
        let value = format!(
            "by {hostname} (mailspool, from user {submitter}) with {with}\nid {id}{recipient};\n{date}"
        );
        let mut received = String::new();
        field::write(&mut received, "Received", &value, eol);
        received
    }

    /// Returns the missing fields of `Date:`, `Message-ID:` and `From:` (RFC 6409, section 8). The sender is
    /// used as the author. A sender too long for a line is omitted.
    pub fn missing_fields(&self, header: &HeaderScan, eol: &str) -> String {
        let mut fields = String::new();
        if !header.date {
            field::write(&mut fields, "Date", &rfc5322(self.now), eol);
        }
        if !header.message_id {
            let id = format!("<{}@{}>", self.id, self.hostname);
            field::write_whole(&mut fields, "Message-ID", &id, eol);
        }
        if !header.from {
            let sender = &self.envelope.sender;
            let author = match sender.on_wire() {
                _ if *sender == ReversePath::Null => format!("MAILER-DAEMON@{}", self.hostname),
                Ok(address) => address.into_owned(),
                Err(_) => sender.as_str().to_owned(),
            };
            field::write_whole(&mut fields, "From", &format!("<{author}>"), eol);
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
