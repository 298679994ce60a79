//! The part of a notice for programs: RFC 3464, section 2, and RFC 6533 for non-ASCII content.

use std::net::IpAddr;

use mail_builder::headers::text::Text;

use super::case::Case;
use super::encoded;
use crate::message::date::rfc5322 as date;
use crate::message::field;
use crate::message::{Address, OriginalRecipient, Reply, harmless, printable};
use crate::notice::{Action, Report};

/// Number of recipients with all fields. Further recipients have only the fields that RFC 3464 requires (2.3)
/// and the original recipient, so a program can still find each recipient and its status. With 100,000
/// replies a notice would have 21 MB, which many mail systems refuse. Without the replies, a notice for
/// 60,000 recipients has 4.5 MB.
const IN_FULL: usize = 100;

/// Octets of the longest address type, which shares a line with the field's name. Longer types are omitted.
const MAX_KIND: usize = 100;

/// The media type and the fields.
pub(super) struct Status {
    /// `message/global-delivery-status`, which is UTF-8.
    pub is_global: bool,
    pub fields: String,
}

/// Writes fields in ASCII or in UTF-8.
struct Writer {
    is_global: bool,
    fields: String,
}

/// Returns the fields of a report.
pub(super) fn status(hostname: &str, report: &Report<'_>, cases: &[Case<'_>]) -> Status {
    let mut writer = Writer {
        is_global: is_global(cases),
        fields: String::new(),
    };
    writer.message(hostname, report);
    for (n, case) in cases.iter().enumerate() {
        writer.fields.push('\n');
        writer.recipient(case, report, n < IN_FULL);
    }
    Status {
        is_global: writer.is_global,
        fields: writer.fields,
    }
}

/// Whether to use UTF-8. Many readers know only RFC 3464, so UTF-8 is used only if no recipient has an ASCII
/// address, or if an address has no ASCII form. Otherwise a non-ASCII address is written in the ASCII form of
/// RFC 6533.
fn is_global(cases: &[Case<'_>]) -> bool {
    let is_ascii = |case: &Case<'_>| wire(case.address).is_ascii();
    let has_no_form = |case: &Case<'_>| !is_ascii(case) && in_ascii(&wire(case.address)).is_none();
    !cases.iter().any(is_ascii) || cases.iter().any(has_no_form)
}

/// Returns a UTF-8 address in ASCII, with its type: `utf-8; b\x{F6}b@example.org` (RFC 6533, 3).
fn in_ascii(address: &str) -> Option<String> {
    let address = OriginalRecipient {
        kind: "utf-8".to_owned(),
        address: harmless(address),
    };
    let encoded = address.encoded()?;
    let (kind, address) = encoded.split_once(';')?;
    Some(format!("{kind}; {address}"))
}

/// Returns the address as sent to servers: the domain in A-labels.
fn wire(address: &Address) -> String {
    let wire = address.on_wire();
    harmless(&wire.unwrap_or(address.as_str().into()))
}

impl Writer {
    fn message(&mut self, hostname: &str, report: &Report<'_>) {
        if let Some(envid) = report.envid {
            let envid = harmless(envid);
            if !envid.trim().is_empty() && envid.is_ascii() {
                self.field("Original-Envelope-Id", &envid);
            }
        }
        self.field("Reporting-MTA", &format!("dns; {hostname}"));
        self.field("Arrival-Date", &date(report.origin.accepted()));
        self.field("X-Mailspool-Id", &report.origin.to_string());
    }

    fn recipient(&mut self, case: &Case<'_>, report: &Report<'_>, in_full: bool) {
        if let Some(original) = case.original.and_then(|original| self.original(original)) {
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
        if !in_full {
            return;
        }
        if let Some(remote) = &case.reply.remote {
            self.field("Remote-MTA", &mta(remote));
        }
        self.diagnostic(&case.reply);
        if let Some(at) = case.last_attempt {
            self.field("Last-Attempt-Date", &date(at));
        }
        // If the message was relayed, this host is not the last to hold it.
        if case.action != Action::Relayed {
            self.field("Final-Log-ID", &report.origin.to_string());
        }
        if let Some(until) = case.until {
            self.field("Will-Retry-Until", &date(until));
        }
    }

    /// Returns the value of Original-Recipient, or `None` if it cannot be written.
    fn original(&self, original: &OriginalRecipient) -> Option<String> {
        let OriginalRecipient { kind, address } = original;
        let address = harmless(address);
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let is_kind = (1..=MAX_KIND).contains(&kind.len()) && kind.bytes().all(is_word);
        if address.is_empty() || !is_kind {
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
        // The text may have encoded words (RFC 3464, 2.1.1); reply code and status code may not.
        let begin = Reply {
            text: String::new(),
            ..reply.clone()
        };
        let text = encoded("", &Text::new(printable(&reply.text)));
        let words = format!("{begin} {text}");
        self.field("Diagnostic-Code", &format!("{kind}; {}", words.trim()));
    }

    fn field(&mut self, name: &str, value: &str) {
        field::write(&mut self.fields, name, value, "\n");
    }
}

/// Returns a host's name and its type (RFC 3464, 2.3.5): for `mx.example.net[192.0.2.1]:25`,
/// `mx.example.net`; for an address, a literal like `[192.0.2.1]` or `[IPv6:2001:db8::1]`. Other names, such
/// as a local socket, have the type `x-mailspool`.
fn mta(remote: &str) -> String {
    let remote = printable(remote);
    match host(&remote) {
        Some(host) => format!("dns; {host}"),
        None => format!("x-mailspool; {remote}"),
    }
}

/// Returns the host in a name as written in log lines: an address may be in brackets, and a port may follow.
fn host(remote: &str) -> Option<String> {
    if let Ok(address) = remote.parse() {
        return Some(literal(address));
    }
    if let Some(rest) = remote.strip_prefix('[') {
        let (address, _) = rest.split_once(']')?;
        let address = address.strip_prefix("IPv6:").unwrap_or(address);
        // Omit the interface of a link-local address, which means nothing on other hosts.
        let address = address
            .split_once('%')
            .map_or(address, |(address, _)| address);
        return address.parse().ok().map(literal);
    }
    let name = remote.split(['[', ':']).next().unwrap_or_default();
    if let Ok(address) = name.parse() {
        return Some(literal(address));
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_of_name);
    (is_name && !remote.starts_with("unix:")).then(|| name.to_owned())
}

fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
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
            ("[192.0.2.1]", "dns; [192.0.2.1]"),
            ("192.0.2.1", "dns; [192.0.2.1]"),
            ("192.0.2.1:25", "dns; [192.0.2.1]"),
            ("2001:db8::1", "dns; [IPv6:2001:db8::1]"),
            ("::1", "dns; [IPv6:::1]"),
            ("[2001:db8::1]:25", "dns; [IPv6:2001:db8::1]"),
            ("[IPv6:2001:db8::1]", "dns; [IPv6:2001:db8::1]"),
            ("[fe80::1%eth0]:25", "dns; [IPv6:fe80::1]"),
            ("mx.example.net[2001:db8::1]:25", "dns; mx.example.net"),
            ("[nonsense]:25", "x-mailspool; [nonsense]:25"),
            ("[", "x-mailspool; ["),
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
