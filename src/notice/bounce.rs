//! The bounce: a multipart/report as RFC 3462 and RFC 3464 describe it.

use std::io::{self, Read};

use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::{NoticeBuilder, Report, Reported};
use crate::message::date::rfc5322 as date;
use crate::message::header::HeaderScan;
use crate::message::{Address, EnhancedCode, Reply, printable};
use crate::queue::RecipientState;
use crate::queue::state::Fate;

/// Writes bounces.
#[derive(Clone, Debug)]
pub struct BounceBuilder {
    /// Our name, as the Reporting-MTA.
    pub hostname: String,
    /// Whom the reader may ask.
    pub postmaster: Option<Address>,
    /// Messages up to this size are returned whole, of larger ones the header.
    pub return_whole: u64,
}

/// Of a returned header, at most so much.
const MAX_HEADER: u64 = 64 << 10;

impl BounceBuilder {
    /// A builder that returns messages up to 64 KiB whole.
    pub fn new(hostname: impl Into<String>) -> BounceBuilder {
        BounceBuilder {
            hostname: hostname.into(),
            postmaster: None,
            return_whole: 64 << 10,
        }
    }

    /// The part that people read.
    fn text(&self, report: &Report<'_>) -> String {
        let mut text = format!(
            "This is the mail spool at {}.\r\n\r\n\
             Your message could not be delivered to everybody it was sent to.\r\n\
             It will not be tried again for:\r\n",
            self.hostname
        );
        for Reported {
            state: recipient, ..
        } in &report.recipients
        {
            let reply = Report::reply(recipient);
            let remote = match &reply.remote {
                Some(remote) => format!("{remote} said: "),
                None => String::new(),
            };
            let because = match recipient.fate {
                Fate::Failed { expired: true, .. } => {
                    format!("its time was up. At last, {remote}{reply}")
                }
                _ => format!("{remote}{reply}"),
            };
            text.push_str(&format!("\r\n  {}\r\n    {because}\r\n", recipient.address));
        }
        let returned = match report.body.size() <= self.return_whole {
            true => "Your message is attached.",
            false => "The header of your message is attached.",
        };
        text.push_str(&format!("\r\n{returned}\r\n"));
        if let Some(postmaster) = &self.postmaster {
            text.push_str(&format!("If you need help, ask {postmaster}.\r\n"));
        }
        text
    }

    /// The part that programs read (RFC 3464, section 2).
    fn status(&self, report: &Report<'_>) -> String {
        let arrival = date(report.origin.accepted());
        let mut fields = format!(
            "Reporting-MTA: dns; {}\r\nArrival-Date: {arrival}\r\nX-Mailspool-Id: {}\r\n",
            self.hostname, report.origin
        );
        for Reported {
            state: recipient,
            action,
            ..
        } in &report.recipients
        {
            let reply = Report::reply(recipient);
            let kind = match recipient.address.as_str().is_ascii() {
                true => "rfc822",
                false => "utf-8",
            };
            fields.push_str(&format!(
                "\r\nFinal-Recipient: {kind}; {}\r\nAction: {}\r\nStatus: {}\r\n",
                recipient.address,
                action.as_str(),
                status(recipient, &reply)
            ));
            if let Some(remote) = &reply.remote {
                fields.push_str(&format!("Remote-MTA: dns; {}\r\n", printable(remote)));
            }
            let kind = match reply.code {
                Some(_) => "smtp",
                None => "x-mailspool",
            };
            fields.push_str(&folded(&format!("Diagnostic-Code: {kind}; {reply}")));
            if let Some((at, _)) = &recipient.last_attempt {
                fields.push_str(&format!("Last-Attempt-Date: {}\r\n", date(*at)));
            }
        }
        fields
    }
}

fn with_bare_lf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (n, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(n + 1) != Some(&b'\n') {
            out.push(*byte);
        }
    }
    out
}

/// The status of a recipient that failed. A reply that was only temporary, and became final by
/// the message's age, is RFC 3463's "delivery time expired".
fn status(recipient: &RecipientState, reply: &Reply) -> EnhancedCode {
    match (recipient.fate, reply.enhanced) {
        (Fate::Failed { expired: true, .. }, _) => EnhancedCode::new(4, 4, 7),
        (_, Some(code)) if code.class == 5 => code,
        _ => EnhancedCode::new(5, 0, 0),
    }
}

/// A field broken into lines of less than 78 characters at its blanks (RFC 5322, 2.2.3).
fn folded(field: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for (n, word) in field.split(' ').enumerate() {
        if n > 0 && length + 1 + word.len() > 76 {
            lines.push_str("\r\n");
            length = 0;
        }
        if n > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word.len();
    }
    lines.push_str("\r\n");
    lines
}

/// The message that comes back: whole, or its header.
fn returned(report: &Report<'_>, whole: bool) -> io::Result<Vec<u8>> {
    let limit = if whole {
        report.body.size()
    } else {
        MAX_HEADER
    };
    let mut bytes = Vec::new();
    report.body.reader().take(limit).read_to_end(&mut bytes)?;
    if !whole {
        let header = HeaderScan::default().push(&bytes, true).header;
        bytes.truncate(header);
    }
    Ok(bytes)
}

impl NoticeBuilder for BounceBuilder {
    fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
        let whole = report.body.size() <= self.return_whole;
        let original = returned(report, whole)?;
        let original_type = match whole {
            true => "message/rfc822",
            false => "text/rfc822-headers",
        };
        // As binary parts with an explicit encoding: else the library adds a charset, or
        // encodes a message/* part, which RFC 2046 forbids.
        let encoding = match original.is_ascii() {
            true => "7bit",
            false => "8bit",
        };
        let status = self.status(report);
        let status_encoding = if status.is_ascii() { "7bit" } else { "8bit" };
        let status_type = match status.is_ascii() {
            true => "message/delivery-status",
            false => "message/global-delivery-status",
        };
        let parts = vec![
            MimePart::new("text/plain", BodyPart::Text(self.text(report).into())),
            MimePart::new(status_type, BodyPart::Binary(status.into_bytes().into()))
                .transfer_encoding(status_encoding),
            MimePart::new(original_type, BodyPart::Binary(original.into()))
                .transfer_encoding(encoding),
        ];
        let kind = ContentType::new("multipart/report").attribute("report-type", "delivery-status");
        // A domain in other than ASCII would make a header that only SMTPUTF8 carries.
        let to = report.sender.on_wire();
        let to = to.unwrap_or(report.sender.as_str().into());
        let from = format!("Mail Delivery System <MAILER-DAEMON@{}>", self.hostname);
        let message = MessageBuilder::new()
            .header("From", Raw::new(from))
            .header("To", Raw::new(format!("<{to}>")))
            .header("Subject", Raw::new("Undelivered Mail Returned to Sender"))
            .header("Date", Raw::new(date(report.at)))
            .header(
                "Message-ID",
                Raw::new(format!("<{}@{}>", report.id, self.hostname)),
            )
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .header("MIME-Version", Raw::new("1.0"))
            .body(MimePart::new(kind, BodyPart::Multipart(parts)));
        let mut bytes = Vec::new();
        message.write_to(&mut bytes)?;
        // The library writes CRLF, what is returned has whatever it came with. In the spool a
        // message has one line ending; what speaks SMTP makes CRLF of it.
        Ok(Some(with_bare_lf(&bytes)))
    }
}
