//! The recipients that a header names, as `send -t` takes them: those of `To`, `Cc` and `Bcc`, or
//! of `Resent-To`, `Resent-Cc` and `Resent-Bcc` if the message is sent again (RFC 5322, 3.6.6).
//!
//! Each field that counts is read as a whole or is an error: mail to somebody else, or to all but
//! one, is worse.

use super::header::fields;
use super::line;
use super::list::{self, ListError};
use super::reply::shortened;
use super::{Address, AddressError};

/// Which fields name recipients, and which of those of a message that is sent again.
const FIELDS: [(&str, &str); 3] = [("To", "Resent-To"), ("Cc", "Resent-Cc"), BLIND];

/// The fields whose recipients no other recipient is to learn of: they are taken out of what is
/// sent.
pub const BLIND_FIELDS: [&str; 2] = [BLIND.0, BLIND.1];

const BLIND: (&str, &str) = ("Bcc", "Resent-Bcc");

/// The fields that a host on the way adds. They stand between one sending and the one before.
const TRACE: [&str; 2] = ["Received", "Return-Path"];

/// The most octets of these fields together: 10,000 recipients with long names.
const MAX_FIELDS: usize = 1_000_000;

/// The most octets of a line in an error.
const MAX_LINE: usize = 200;

/// Why recipients could not be taken from a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientsError {
    /// The fields together are too long.
    #[error("the fields with recipients are longer than {MAX_FIELDS} octets")]
    TooLong,
    /// Something stands for an address that is none.
    #[error("{field}: {source}")]
    Address {
        /// In which field.
        field: &'static str,
        /// What stands there, and why it is no address.
        source: ListError,
    },
    /// A local name is no address once our host name follows it.
    #[error("{address}: {source}")]
    Qualified {
        /// The name.
        address: Address,
        /// Why it is no address.
        source: AddressError,
    },
    /// A field with recipients stands after the header, with no empty line between them.
    #[error(
        "{line:?} is no header field, so the header ends there and {field} would be text; write an \
         empty line where the header ends"
    )]
    Beyond {
        /// The line, cut to 200 octets.
        line: String,
        /// The field.
        field: &'static str,
    },
}

/// The recipients that a whole header names, in their order, local names at `hostname`.
///
/// Of several sendings the latest counts. Its fields stand above those of earlier ones, with trace
/// fields between them. `Resent-Bcc` counts wherever it stands, because it is taken out.
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

/// Looks for fields with recipients in the lines between the end of a header and the first empty line.
/// Such lines are a body, or the rest of a header that has a wrong line. The recipients of such a field
/// would get nothing, and the others would read the addresses of a `Bcc`. Octets that no field's name
/// has are not compared, because the wrong line may be a field with recipients itself.
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
        .any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
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
    fn everybody_is_found_in_order() {
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
    fn an_element_that_is_no_address_names_its_field() {
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
    fn what_is_sent_again_goes_to_its_new_recipients() {
        for (header, recipients) in [
            (
                "Resent-From: m@x\nResent-To: a@x\nResent-Cc: b@x\nResent-Bcc: c@x\nTo: d@x\nCc: \
                 e@x\nBcc: f@x\n",
                &["a@x", "b@x", "c@x"][..],
            ),
            // Wherever the fields stand.
            (
                "Received: by x\nTo: d@x\nRESENT-TO: a@x\nSubject: s\nResent-cc : b@x\n",
                &["a@x", "b@x"],
            ),
            // The latest of two; but what is taken out is never passed over.
            (
                "Resent-To: a@x\nResent-From: m@x\nReceived: by x\nResent-To: o@x\nResent-Bcc: p@x\n\
                 Received: by y\nTo: d@x\n",
                &["a@x", "p@x"],
            ),
            ("Resent-Bcc: c@x\nTo: d@x\n", &["c@x"]),
            // Without new recipients the message is as it was.
            ("Resent-From: m@x\nTo: d@x\n", &["d@x"]),
            ("Resent-To: nobody:;\nTo: d@x\n", &[]),
        ] {
            assert_eq!(named(header), recipients, "{header}");
        }
    }

    #[test]
    fn a_field_that_a_wrong_line_hides_is_named() {
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
    fn a_list_without_end_is_refused() {
        let many = format!("To: {}\n", "a@x,".repeat(300_000));
        assert_eq!(
            named_recipients(many.as_bytes(), "h"),
            Err(RecipientsError::TooLong)
        );
    }
}
