//! Notices as RFC 3464 describes them: a multipart/report (RFC 6522) with a part for people, one for
//! programs, and what goes back of the message. RFC 6533 has what is not ASCII.

mod case;
mod example;
mod fields;
mod meaning;
mod original;
mod template;
mod words;

#[cfg(test)]
mod tests;

use std::io;

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address as Mailbox;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};

use super::{NoticeBuilder, Report};
use crate::message::date::rfc5322 as date;
use crate::message::reply::shortened;
use crate::message::{Address, NoticeKind, Ret, printable};

use case::Case;
use original::{Encoding, MAX_LINE, Original, with_bare_lf};
use template::Place;

pub use template::{Templates, Wording, WordingError};

/// Writes bounces, notices of delay and notices of success.
#[derive(Clone, Debug)]
pub struct DsnBuilder {
    /// Our name, as the Reporting-MTA. ASCII.
    pub hostname: String,
    /// Whom the reader may ask; `postmaster` at our name, if nobody else is named.
    pub postmaster: Option<Address>,
    /// Bounces return messages up to this size whole, of larger ones the header.
    pub return_whole: u64,
    /// The words.
    pub templates: Templates,
}

/// The longest subject of a notice, in octets.
const MAX_SUBJECT: usize = 250;

impl DsnBuilder {
    /// A builder that returns messages up to 64,000 octets whole, in our own words.
    pub fn new(hostname: impl Into<String>) -> DsnBuilder {
        DsnBuilder {
            hostname: hostname.into(),
            postmaster: None,
            return_whole: 64_000,
            templates: Templates::default(),
        }
    }

    /// A notice of this kind about a message that never was, to be looked at. It is as it would go
    /// out, with every line of the words.
    ///
    /// # Errors
    /// None is known.
    pub fn example(&self, kind: NoticeKind) -> io::Result<Vec<u8>> {
        example::report(kind, |report| self.message(report))
    }

    fn message(&self, report: &Report<'_>) -> io::Result<Vec<u8>> {
        // Only a failure brings a message back whole (RFC 3461, 4.3).
        let whole = report.kind == NoticeKind::Bounce
            && report.ret != Some(Ret::Headers)
            && report.body.size() <= self.return_whole;
        let original = Original::read(&report.body, whole)?;
        let cases: Vec<Case<'_>> = report.recipients.iter().map(Case::of).collect();
        let status = fields::status(&self.hostname, report, &cases);
        let told = Told {
            builder: self,
            report,
            cases: &cases,
            original: &original,
        };
        let wording = self.templates.of(report.kind);
        let text = words::folded(&wording.text.fill(|place| told.value(*place, Where::Text)));
        let subject = wording
            .subject
            .fill(|place| told.value(*place, Where::Header));
        let subject = shortened(printable(&subject), MAX_SUBJECT);
        let (name, address) = wording.from.fill(|place| told.value(place, Where::Header));
        let mut message = MessageBuilder::new()
            .header("From", from(&name, &address))
            .header("To", Raw::new(to(report.sender)))
            .header("Subject", Text::new(subject))
            .header("Date", Raw::new(date(report.at)))
            .header(
                "Message-ID",
                Raw::new(format!("<{}@{}>", report.id, self.hostname)),
            );
        if let Some(id) = &original.message_id {
            message = message
                .header("In-Reply-To", Raw::new(id.clone()))
                .header("References", Raw::new(id.clone()));
        }
        let message = message
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .header("MIME-Version", Raw::new("1.0"))
            .body(report_parts(report, text, status, original));
        let mut bytes = Vec::new();
        message.write_to(&mut bytes)?;
        // The library writes CRLF, what is returned has bare line feeds. In the spool a message has
        // one line ending; what speaks SMTP makes CRLF of it.
        Ok(with_bare_lf(&bytes))
    }
}

impl NoticeBuilder for DsnBuilder {
    fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
        self.message(report).map(Some)
    }
}

/// The three parts. With explicit encodings: else the library adds a charset, or encodes a message/*
/// part, which RFC 2046 forbids.
fn report_parts(
    report: &Report<'_>,
    text: String,
    status: fields::Status,
    original: Original,
) -> MimePart<'static> {
    let status_type = match status.is_global {
        true => "message/global-delivery-status",
        false => "message/delivery-status",
    };
    let status_encoding = match status.fields.is_ascii() {
        true => Encoding::SevenBit,
        false => Encoding::EightBit,
    };
    let original_type = match (original.whole, original.has_utf8_header) {
        (true, true) => "message/global",
        (true, false) => "message/rfc822",
        (false, true) => "message/global-headers",
        (false, false) => "text/rfc822-headers",
    };
    let described = match original.whole {
        true => "Your message",
        false => "The header of your message",
    };
    let part = |kind, described, bytes: Vec<u8>, encoding: Encoding| {
        MimePart::new(kind, BodyPart::Binary(bytes.into()))
            .transfer_encoding(encoding.as_str())
            .header("Content-Description", Raw::new(described))
    };
    // A boundary that stands in a part is no boundary. Nobody can know the notice's id beforehand, but that
    // is no reason to rely on it.
    let boundary = |n: u32| format!("=_{}.{n}", report.id);
    let stands_there = |boundary: &String| {
        let parts = [text.as_bytes(), status.fields.as_bytes(), &original.bytes];
        parts.iter().any(|part| contains(part, boundary.as_bytes()))
    };
    let boundary = (0..).map(boundary).find(|one| !stands_there(one));
    let kind = ContentType::new("multipart/report")
        .attribute("report-type", "delivery-status")
        .attribute("boundary", boundary.unwrap_or_default());
    let is_eight_bit = [status_encoding, original.encoding].contains(&Encoding::EightBit);
    let parts = vec![
        MimePart::new("text/plain", BodyPart::Text(text.into()))
            .header("Content-Description", Raw::new("Notice")),
        part(
            status_type,
            "Delivery report",
            status.fields.into_bytes(),
            status_encoding,
        ),
        part(original_type, described, original.bytes, original.encoding),
    ];
    // What is in a part is in the whole (RFC 2045, 6.4).
    let encoding = match is_eight_bit {
        true => Encoding::EightBit,
        false => Encoding::SevenBit,
    };
    MimePart::new(kind, BodyPart::Multipart(parts)).transfer_encoding(encoding.as_str())
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn from(name: &str, address: &str) -> Mailbox<'static> {
    // Nothing here came out of a message: host name and postmaster are the configuration's.
    let name = printable(name);
    let name = (!name.is_empty()).then_some(name);
    let address = Address::parse(address);
    let wire = address.as_ref().ok().and_then(|one| one.on_wire().ok());
    Mailbox::new_address(name, wire.map_or_else(String::new, |wire| printable(&wire)))
}

/// The To field. A domain in other than ASCII would make a header that only SMTPUTF8 carries.
fn to(sender: &Address) -> String {
    let to = sender.on_wire().unwrap_or(sender.as_str().into());
    match to.len() > MAX_LINE - 10 {
        true => "undisclosed-recipients:;".to_owned(),
        false => format!("<{}>", printable(&to)),
    }
}

/// What the words are about.
struct Told<'a> {
    builder: &'a DsnBuilder,
    report: &'a Report<'a>,
    cases: &'a [Case<'a>],
    original: &'a Original,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Header,
    Text,
}

impl Told<'_> {
    /// What stands for a word in braces. Nothing of it has a line break or another control
    /// character, but for the replies.
    fn value(&self, place: Place, r#where: Where) -> String {
        let most = match r#where {
            Where::Header => 3,
            Where::Text => 10,
        };
        match place {
            Place::Hostname => self.builder.hostname.clone(),
            Place::Postmaster => match &self.builder.postmaster {
                Some(postmaster) => printable(postmaster.as_str()),
                None => format!("postmaster@{}", self.builder.hostname),
            },
            Place::Id => self.report.origin.to_string(),
            Place::Sender => printable(self.report.sender.as_str()),
            Place::Subject if self.original.subject.is_empty() => "(no subject)".to_owned(),
            Place::Subject => self.original.subject.clone(),
            Place::Recipients => words::recipients(self.cases, most),
            Place::Replies => words::replies(self.cases, self.report.origin.accepted()),
            Place::Returned if self.original.whole => "Your message is attached.".to_owned(),
            Place::Returned => "The header of your message is attached.".to_owned(),
            Place::Arrival => words::time(self.report.origin.accepted()),
            Place::Until => match self.cases.iter().filter_map(|case| case.until).max() {
                Some(until) => words::time(until),
                None => "its time for delivery is over".to_owned(),
            },
        }
    }
}
