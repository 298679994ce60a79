//! The part of a notice that programs read: RFC 3464, section 2, and RFC 6533 for what is not ASCII.

use mail_builder::headers::Header;
use mail_builder::headers::text::Text;

use super::case::Case;
use super::original::MAX_LINE;
use crate::message::date::rfc5322 as date;
use crate::message::{Address, OriginalRecipient, Reply, printable};
use crate::notice::{Action, Report};

/// The media type, and the fields.
pub(super) struct Status {
    /// `message/global-delivery-status`, which is UTF-8.
    pub is_global: bool,
    pub fields: String,
}

/// Writes fields in one of two forms.
struct Writer {
    is_global: bool,
    fields: String,
}

/// The fields of a report.
pub(super) fn status(hostname: &str, report: &Report<'_>, cases: &[Case<'_>]) -> Status {
    let mut writer = Writer {
        is_global: is_global(cases),
        fields: String::new(),
    };
    writer.message(hostname, report);
    for case in cases {
        writer.fields.push_str("\r\n");
        writer.recipient(case, report);
    }
    Status {
        is_global: writer.is_global,
        fields: writer.fields,
    }
}

/// Whether UTF-8 is the form to choose. Many readers know RFC 3464 only; so it is where no recipient has an
/// address that they could read, or one of them has no ASCII form. In a report about others too, an
/// address that is not ASCII has the form that RFC 6533 gives it for ASCII.
fn is_global(cases: &[Case<'_>]) -> bool {
    let is_ascii = |case: &Case<'_>| wire(case.address).is_ascii();
    let has_no_form = |case: &Case<'_>| !is_ascii(case) && in_ascii(&wire(case.address)).is_none();
    !cases.iter().any(is_ascii) || cases.iter().any(has_no_form)
}

/// A UTF-8 address in ASCII, with its type: `utf-8; b\x{F6}b@example.org` (RFC 6533, 3).
fn in_ascii(address: &str) -> Option<String> {
    let address = OriginalRecipient {
        kind: "utf-8".to_owned(),
        address: printable(address),
    };
    let encoded = address.encoded()?;
    let (kind, address) = encoded.split_once(';')?;
    Some(format!("{kind}; {address}"))
}

/// The address as servers were given it: a domain in A-labels.
fn wire(address: &Address) -> String {
    let wire = address.on_wire();
    printable(&wire.unwrap_or(address.as_str().into()))
}

impl Writer {
    fn message(&mut self, hostname: &str, report: &Report<'_>) {
        if let Some(envid) = report.envid {
            let envid = printable(envid);
            if !envid.is_empty() && envid.is_ascii() {
                self.field("Original-Envelope-Id", &envid);
            }
        }
        self.field("Reporting-MTA", &format!("dns; {hostname}"));
        self.field("Arrival-Date", &date(report.origin.accepted()));
        self.field("X-Mailspool-Id", &report.origin.to_string());
    }

    fn recipient(&mut self, case: &Case<'_>, report: &Report<'_>) {
        if let Some(original) = case.original.and_then(|one| self.original(one)) {
            self.field("Original-Recipient", &original);
        }
        let address = wire(case.address);
        let in_ascii = in_ascii(&address).filter(|_| !self.is_global);
        let address = match (address.is_ascii(), in_ascii) {
            (true, _) => format!("rfc822; {address}"),
            (false, Some(in_ascii)) => in_ascii,
            (false, None) => format!("utf-8; {address}"),
        };
        self.field("Final-Recipient", &address);
        self.field("Action", case.action.as_str());
        self.field("Status", &case.status.to_string());
        if let Some(remote) = &case.reply.remote {
            self.field("Remote-MTA", &mta(remote));
        }
        self.diagnostic(&case.reply);
        if let Some(at) = case.last_attempt {
            self.field("Last-Attempt-Date", &date(at));
        }
        // Who passed a message on is not the last who had it.
        if case.action != Action::Relayed {
            self.field("Final-Log-ID", &report.origin.to_string());
        }
        if let Some(until) = case.until {
            self.field("Will-Retry-Until", &date(until));
        }
    }

    /// None if there is no way to write it.
    fn original(&self, original: &OriginalRecipient) -> Option<String> {
        let OriginalRecipient { kind, address } = original;
        let address = printable(address);
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if address.is_empty() || kind.is_empty() || !kind.bytes().all(is_word) {
            return None;
        }
        match self.is_global || address.is_ascii() && !kind.eq_ignore_ascii_case("utf-8") {
            true => Some(format!("{kind}; {address}")),
            false if kind.eq_ignore_ascii_case("utf-8") => in_ascii(&address),
            false => None,
        }
    }

    fn diagnostic(&mut self, reply: &Reply) {
        let kind = match reply.code {
            Some(_) => "smtp",
            None => "x-mailspool",
        };
        let words = printable(&reply.to_string());
        if words.is_empty() {
            return;
        }
        if words.is_ascii() || self.is_global {
            return self.field("Diagnostic-Code", &format!("{kind}; {words}"));
        }
        // The text may have encoded words (RFC 3464, 2.1.1), code and status code not.
        let begin = Reply {
            text: String::new(),
            ..reply.clone()
        };
        let begin = format!("Diagnostic-Code: {kind}; {begin}");
        self.fields.push_str(begin.trim_end());
        self.fields.push_str("\r\n ");
        let mut text = Vec::new();
        Text::new(printable(&reply.text)).write_header(&mut text, 1);
        self.fields.push_str(&String::from_utf8_lossy(&text));
    }

    /// A field in lines of less than 78 characters, if its blanks allow that (RFC 5322, 2.2.3).
    fn field(&mut self, name: &str, value: &str) {
        let line = format!("{name}: {value}");
        let mut length = 0;
        for (n, word) in line.split(' ').enumerate() {
            let word = cut(word);
            // The name stays with what follows it: some read no further.
            if n > 1 && length + 1 + word.len() > 76 {
                self.fields.push_str("\r\n");
                length = 0;
            }
            if n > 0 {
                self.fields.push(' ');
                length += 1;
            }
            self.fields.push_str(word);
            length += word.len();
        }
        self.fields.push_str("\r\n");
    }
}

/// No more of a word than a line has room for. No mailbox has such an address (RFC 5321, 4.5.3.1).
fn cut(word: &str) -> &str {
    let mut end = word.len().min(MAX_LINE - 1);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    &word[..end]
}

/// The name of a host and its type (RFC 3464, 2.3.5): `mx.example.net[192.0.2.1]:25` is
/// `mx.example.net`, `[192.0.2.1]:25` is `[192.0.2.1]`. What is neither, such as a socket of this
/// machine, has a type of ours.
fn mta(remote: &str) -> String {
    let remote = printable(remote);
    let is_name = |name: &str| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !name.is_empty() && name.bytes().all(is_of_name)
    };
    let name = match remote.split_once('[') {
        Some((name, _)) if is_name(name) => name.to_owned(),
        Some(("", literal)) => match literal.split_once(']') {
            Some((address, _)) => format!("[{address}]"),
            None => return format!("x-mailspool; {remote}"),
        },
        _ => remote.split(':').next().unwrap_or_default().to_owned(),
    };
    match name.starts_with('[') || is_name(&name) && !remote.starts_with("unix:") {
        true => format!("dns; {name}"),
        false => format!("x-mailspool; {remote}"),
    }
}

#[cfg(test)]
mod tests {
    use super::mta;

    #[test]
    fn a_host_is_named_without_port_and_address() {
        for (remote, field) in [
            ("mx.example.net[192.0.2.1]:25", "dns; mx.example.net"),
            ("mx.example.net", "dns; mx.example.net"),
            ("mx.example.net:2525", "dns; mx.example.net"),
            ("[192.0.2.1]:25", "dns; [192.0.2.1]"),
            ("[2001:db8::1]:25", "dns; [2001:db8::1]"),
            (
                "unix:/run/dovecot/lmtp",
                "x-mailspool; unix:/run/dovecot/lmtp",
            ),
            ("/run/lmtp", "x-mailspool; /run/lmtp"),
            ("a b", "x-mailspool; a b"),
        ] {
            assert_eq!(mta(remote), field, "{remote}");
        }
    }
}
