//! Notices in the format of RFC 3464: a multipart/report (RFC 6522) with a part for people, a part for
//! programs, and the returned message. RFC 6533 covers non-ASCII content.

mod case;
mod example;
mod fields;
mod meaning;
mod original;
mod parts;
mod subject;
mod template;
mod words;

#[cfg(test)]
mod tests;

use std::io;

use mail_builder::headers::Header;
use mail_builder::headers::address::Address as Mailbox;
use mail_builder::headers::text::Text;

use super::{NoticeBuilder, Report};
use crate::message::date::rfc5322 as date;
use crate::message::field::{self, MAX_LINE};
use crate::message::text::shortened;
use crate::message::{Address, NoticeKind, Ret, harmless, printable};

use case::Case;
use original::Original;
use template::Place;

pub use template::{Templates, Wording, WordingError};

/// Writes bounces, notices of delay and notices of success.
#[derive(Clone, Debug)]
pub struct DsnBuilder {
    /// This host's name, for the Reporting-MTA. ASCII.
    #[doc(hidden)]
    pub hostname: String,
    /// The address for questions; `postmaster` at the host name if not set.
    #[doc(hidden)]
    pub postmaster: Option<Address>,
    /// Bounces return messages up to this many octets whole, and only the header of larger ones.
    #[doc(hidden)]
    pub return_whole: u64,
    /// The texts.
    #[doc(hidden)]
    pub templates: Templates,
}

/// The longest subject of a notice, in octets.
const MAX_SUBJECT: usize = 250;

/// The longest name in the From field, in octets.
const MAX_NAME: usize = 200;

impl DsnBuilder {
    /// Returns a builder with the default texts, which returns messages up to 64,000 octets whole.
    pub fn new(hostname: impl Into<String>) -> DsnBuilder {
        DsnBuilder {
            hostname: hostname.into(),
            postmaster: None,
            return_whole: 64_000,
            templates: Templates::default(),
        }
    }

    /// Returns a notice of this kind about an invented message, for review. It contains every line of the
    /// text, as a real notice would.
    ///
    /// # Errors
    /// None is known.
    #[doc(hidden)]
    pub fn example(&self, kind: NoticeKind) -> io::Result<Vec<u8>> {
        example::report(kind, |report| self.message(report))
    }

    fn message(&self, report: &Report<'_>) -> io::Result<Vec<u8>> {
        // Only a bounce returns a whole message (RFC 3461, 4.3).
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
        let text = words::folded(
            &wording
                .text_template()
                .fill(|place| told.value(*place, Where::Text)),
        );
        let subject = wording.subject_template();
        let subject = subject.fill(|place| told.value(*place, Where::Header));
        let subject = shortened(printable(&subject), MAX_SUBJECT);
        let (name, address) = wording
            .author_template()
            .fill(|place| told.value(place, Where::Header));
        let mut header = String::new();
        let mut field = |name: &str, value: &str| field::write(&mut header, name, value, "\n");
        field("From", &from(&name, &address));
        field("To", &to(report.sender));
        field("Subject", &encoded("Subject", &Text::new(subject)));
        field("Date", &date(report.at));
        field("Message-ID", &format!("<{}@{}>", report.id, self.hostname));
        if let Some(id) = &original.message_id {
            field("In-Reply-To", id);
            field("References", id);
        }
        field("Auto-Submitted", "auto-replied");
        field("MIME-Version", "1.0");
        Ok(parts::with_parts(
            header.into_bytes(),
            report.id,
            parts::three(text, status, original),
        ))
    }
}

impl NoticeBuilder for DsnBuilder {
    fn build(&self, report: &Report<'_>) -> io::Result<Option<Vec<u8>>> {
        self.message(report).map(Some)
    }
}

/// Returns the value of the From field.
fn from(name: &str, address: &str) -> String {
    // No value here comes from a message: host name and postmaster are configured.
    let name = shortened(printable(name), MAX_NAME);
    let name = (!name.is_empty()).then_some(name);
    let address = Address::parse(address);
    let wire = address
        .as_ref()
        .ok()
        .and_then(|address| address.on_wire().ok());
    let wire = wire.map_or_else(String::new, |wire| harmless(&wire));
    encoded("From", &Mailbox::new_address(name, wire))
}

/// Returns the value of the To field. A domain that is not in ASCII would make a header that requires
/// SMTPUTF8.
fn to(sender: &Address) -> String {
    let to = sender.on_wire().unwrap_or(sender.as_str().into());
    if to.len() > MAX_LINE - 10 {
        "undisclosed-recipients:;".to_owned()
    } else {
        format!("<{}>", harmless(&to))
    }
}

/// Returns the value of a field in one line, with encoded words where needed.
fn encoded(name: &str, value: &impl Header) -> String {
    let mut written = Vec::new();
    value.write_header(&mut written, name.len() + 2);
    String::from_utf8_lossy(&written).replace("\r\n", "")
}

/// The data for the texts.
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
    /// Returns the text for a word in braces. Only the replies may contain line breaks; no other control
    /// characters occur.
    fn value(&self, place: Place, r#where: Where) -> String {
        let most = match r#where {
            Where::Header => 3,
            Where::Text => 10,
        };
        match place {
            Place::Hostname => self.builder.hostname.clone(),
            Place::Postmaster => match &self.builder.postmaster {
                Some(postmaster) => harmless(postmaster.as_str()),
                None => format!("postmaster@{}", self.builder.hostname),
            },
            Place::Id => self.report.origin.to_string(),
            Place::Sender => harmless(self.report.sender.as_str()),
            Place::Subject if self.original.subject.is_empty() => "(no subject)".to_owned(),
            Place::Subject => self.original.subject.clone(),
            Place::Recipients => words::recipients(self.cases, most),
            Place::Replies => words::replies(self.cases, self.report),
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
