//! Takes the recipients of `send -t` from the header: those of `To`, `Cc` and `Bcc`, or of `Resent-To`,
//! `Resent-Cc` and `Resent-Bcc` if the message is resent (RFC 5322, 3.6.6).
//!
//! Each relevant field is either read completely or is an error. A wrong recipient or a missing one would
//! be worse.

use super::header::fields;
use super::line;
use super::list::{self, ListError};
use super::text::shortened;
use super::{Address, AddressError};

/// The fields with recipients: in a new message, and in a resent one.
const FIELDS: [(&str, &str); 3] = [("To", "Resent-To"), ("Cc", "Resent-Cc"), BLIND];

/// The fields with hidden recipients. They are removed from the message.
pub const BLIND_FIELDS: [&str; 2] = [BLIND.0, BLIND.1];

const BLIND: (&str, &str) = ("Bcc", "Resent-Bcc");

/// The fields that a host on the path adds. They separate the resent blocks of a header.
const TRACE: [&str; 2] = ["Received", "Return-Path"];

/// The most octets of these fields together; more is an error. Enough for 10,000 recipients with long
/// names.
const MAX_FIELDS: usize = 1_000_000;

/// The longest quoted line in an error, in octets; a longer one is cut.
const MAX_LINE: usize = 200;

/// Why the recipients could not be taken from a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientsError {
    /// The fields together are longer than 1,000,000 octets.
    #[error("the fields with recipients are longer than {MAX_FIELDS} octets")]
    TooLong,
    /// An invalid address.
    #[error("{field}: {source}")]
    Address {
        /// Its field.
        field: &'static str,
        /// The element of the list, and why it is not an address.
        source: ListError,
    },
    /// A local name that is not a valid address with the host name appended.
    #[error("{address}: {source}")]
    Qualified {
        /// The local name.
        address: Address,
        /// Why it is not an address.
        source: AddressError,
    },
    /// A field with recipients after the end of the header, without an empty line between them.
    #[error(
        "{line:?} is no header field, so the header ends there and {field} would be text; write an \
         empty line where the header ends"
    )]
    Beyond {
        /// The first line after the header, cut to 200 octets.
        line: String,
        /// The name of the field.
        field: &'static str,
    },
}

/// Returns the recipients of a whole header, in order. Local names get the domain `hostname`.
///
/// If a message was resent more than once, the latest block counts. It is the topmost one, and trace fields
/// separate it from the earlier ones. `Resent-Bcc` counts in every block, because it is removed.
pub fn named_recipients(header: &[u8], hostname: &str) -> Result<Vec<Address>, RecipientsError> {
    let is_sent_again = fields(header).any(|(name, _)| is_one_of(name, FIELDS.map(|f| f.1)));
    let mut recipients = Vec::new();
    let mut octets = 0;
    let (mut has_begun, mut is_over) = (false, false);
    for (name, field) in fields(header) {
        is_over |= has_begun && is_one_of(name, TRACE);
        let names = FIELDS.map(|(sent, again)| if is_sent_again { again } else { sent });
        let Some(found) = names.into_iter().find(|ours| is_one_of(name, [*ours])) else {
            continue;
        };
        has_begun |= is_sent_again;
        if is_over && found != BLIND.1 {
            continue;
        }
        octets += field.len();
        if octets > MAX_FIELDS {
            return Err(RecipientsError::TooLong);
        }
        let colon = field.iter().position(|byte| *byte == b':');
        let value = &field[colon.map_or(field.len(), |colon| colon + 1)..];
        let list = list::parse(value).map_err(|source| RecipientsError::Address {
            field: found,
            source,
        })?;
        for address in list {
            let named = address.clone().qualified(hostname);
            recipients
                .push(named.map_err(|source| RecipientsError::Qualified { address, source })?);
        }
    }
    Ok(recipients)
}

/// Refuses fields with recipients between the end of the header and the first empty line.
///
/// Such lines are the body, or the rest of a header with an invalid line. In the second case the recipients
/// of the field would get nothing, and the others could read the addresses of a `Bcc`. Octets that cannot
/// be in a field name are ignored in the comparison, because the invalid line itself may be a field with
/// recipients.
///
/// # Errors
/// There is such a field.
pub fn check_beyond(lines: &[u8]) -> Result<(), RecipientsError> {
    let named = |(name, _): (&[u8], &[u8])| {
        let name: Vec<u8> = name.iter().copied().filter(u8::is_ascii_graphic).collect();
        let mut all = FIELDS.iter().flat_map(|(sent, again)| [*sent, *again]);
        all.find(|ours| is_one_of(&name, [*ours]))
    };
    let Some(field) = fields(lines).find_map(named) else {
        return Ok(());
    };
    let first = line::lines(lines).next().map_or(&[][..], line::content);
    let first = &first[..first.len().min(8 * MAX_LINE)];
    let line = shortened(String::from_utf8_lossy(first).into_owned(), MAX_LINE);
    Err(RecipientsError::Beyond { line, field })
}

fn is_one_of<const N: usize>(name: &[u8], names: [&str; N]) -> bool {
    names
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::list::NoAddress;

    #[track_caller]
    fn named(header: &str) -> Vec<String> {
        let found = named_recipients(header.as_bytes(), "mail.test").unwrap();
        found.into_iter().map(String::from).collect()
    }

    #[test]
    fn all_recipients_are_found_in_order() {
        let header = "From: x@y\nTo: A <a@x>, \"B, b\" <b@x>\nSubject: c@x\ncc : d@x,\n\te@x\n\
                      Bcc: group: f@x, <\"g h\"@x>;\nReply-To: i@x\nTo: root, \"a@b\"\nBcc:\n";
        assert_eq!(
            named(header),
            [
                "a@x",
                "b@x",
                "d@x",
                "e@x",
                "f@x",
                "\"g h\"@x",
                "root@mail.test",
                "\"a@b\"@mail.test"
            ]
        );
        assert_eq!(named("Subject: x\n"), [""; 0]);
    }

    #[test]
    fn an_invalid_address_is_reported_with_its_field() {
        let error = named_recipients(b"To: a@x\nCC: b@x, bob at x\n", "h").unwrap_err();
        assert!(
            error.to_string().starts_with("Cc: \"bob at x\": "),
            "{error}"
        );
        for (field, why) in [
            ("To: a@x b@x\n", NoAddress::Follows),
            ("Bcc: a@x\n b@x\n", NoAddress::Follows),
            ("Resent-Bcc: <a@x\n", NoAddress::Open('<')),
            ("To: a@x\rBcc: b@x\n", AddressError::Control.into()),
        ] {
            let found = named_recipients(field.as_bytes(), "h");
            let is_it = |found: &RecipientsError| matches!(found, RecipientsError::Address { source, .. } if source.why == why);
            assert!(found.as_ref().is_err_and(is_it), "{field}: {found:?}");
        }
        let long = format!("To: {}\n", "x".repeat(Address::MAX_LEN));
        let found = named_recipients(long.as_bytes(), "h");
        assert!(
            matches!(found, Err(RecipientsError::Qualified { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn a_resent_message_goes_to_its_new_recipients() {
        for (header, recipients) in [
            (
                "Resent-From: m@x\nResent-To: a@x\nResent-Cc: b@x\nResent-Bcc: c@x\nTo: d@x\nCc: \
                 e@x\nBcc: f@x\n",
                &["a@x", "b@x", "c@x"][..],
            ),
            // In any order of the fields.
            (
                "Received: by x\nTo: d@x\nRESENT-TO: a@x\nSubject: s\nResent-cc : b@x\n",
                &["a@x", "b@x"],
            ),
            // The latest of two, but always with `Resent-Bcc`, which is removed.
            (
                "Resent-To: a@x\nResent-From: m@x\nReceived: by x\nResent-To: o@x\nResent-Bcc: p@x\n\
                 Received: by y\nTo: d@x\n",
                &["a@x", "p@x"],
            ),
            ("Resent-Bcc: c@x\nTo: d@x\n", &["c@x"]),
            // Without new recipients, the original ones count.
            ("Resent-From: m@x\nTo: d@x\n", &["d@x"]),
            ("Resent-To: none:;\nTo: d@x\n", &[]),
        ] {
            assert_eq!(named(header), recipients, "{header}");
        }
    }

    #[test]
    fn a_field_after_an_invalid_line_is_reported() {
        for (lines, line, field) in [
            ("X-\u{fc}: y\nBcc: b@x\n", "X-\u{fc}: y", "Bcc"),
            ("From a@b Mon\r\nA: b\r\nTO : b@x\r\n", "From a@b Mon", "To"),
            ("\0Bcc: c@x\nTo: b@x\n", "\0Bcc: c@x", "Bcc"),
            ("a\nResent-cc\u{a0}:b@x", "a", "Resent-Cc"),
        ] {
            let found = check_beyond(lines.as_bytes());
            let line = line.to_owned();
            assert_eq!(found, Err(RecipientsError::Beyond { line, field }));
        }
        for body in [
            "",
            "hello there\n",
            "Dear all,\n to: you\ntoo: late\nX-To: x\n",
        ] {
            assert_eq!(check_beyond(body.as_bytes()), Ok(()), "{body}");
        }
        let long = format!("{}\nBcc: b@x\n", "x".repeat(1000));
        let Err(RecipientsError::Beyond { line, .. }) = check_beyond(long.as_bytes()) else {
            panic!();
        };
        assert!(line.len() <= MAX_LINE);
    }

    #[test]
    fn too_long_a_list_is_refused() {
        let many = format!("To: {}\n", "a@x,".repeat(300_000));
        assert_eq!(
            named_recipients(many.as_bytes(), "h"),
            Err(RecipientsError::TooLong)
        );
    }
}
