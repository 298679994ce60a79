//! The fields that acceptance adds, and the log line it writes.

use jiff::Timestamp;

use crate::message::date::rfc5322;
use crate::message::field::{self, MAX_LINE};
use crate::message::header::HeaderScan;
use crate::message::{Entrance, Envelope, QueueId, ReversePath, printable};

/// A recipient's address of so many octets has no room in its line: a blank, `for <`, and `>;`.
const MAX_FOR: usize = MAX_LINE - 8;

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
    /// header one that only SMTPUTF8 carries, and where a line has no room for it.
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

    /// `Date:`, `Message-ID:` and `From:`, as far as they are missing (RFC 6409, section 8). The
    /// author is taken to be the sender. A sender too long for a line is not named.
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
