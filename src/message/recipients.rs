//! The recipients that a header names: `To`, `Cc` and `Bcc`, as `send -t` takes them.
//!
//! mail-parser reads the fields, one at a time, so that memory is bounded by their size. It
//! understands more than it says and less than RFC 5322 allows, so what it finds is believed
//! only if it stands in the field: mail to somebody else is worse than an error.

use mail_parser::{HeaderValue, MessageParser};

use super::header::fields;
use super::{Address, AddressError};

/// The fields.
const FIELDS: [&str; 3] = ["To", "Cc", "Bcc"];

/// The most octets of these fields together: 10,000 recipients with long names.
const MAX_FIELDS: usize = 1_000_000;

/// Why recipients could not be taken from a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientsError {
    /// The fields together are too long.
    #[error("To, Cc and Bcc are longer than {MAX_FIELDS} octets")]
    TooLong,
    /// Something stands for an address that cannot be one.
    #[error("{text:?}: {source}")]
    Address {
        /// What stands there.
        text: String,
        /// Why it cannot be an address.
        source: AddressError,
    },
    /// Something that is not understood well enough to send mail to it.
    #[error("{0:?}: the address is not understood; name the recipient as an argument")]
    Unclear(String),
}

/// The recipients that a whole header names, in their order.
pub fn named_recipients(header: &[u8]) -> Result<Vec<Address>, RecipientsError> {
    let mut recipients = Vec::new();
    let mut octets = 0;
    for (name, field) in fields(header) {
        if !FIELDS
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
        {
            continue;
        }
        octets += field.len();
        if octets > MAX_FIELDS {
            return Err(RecipientsError::TooLong);
        }
        let Some(parsed) = MessageParser::default().parse_headers(field) else {
            continue;
        };
        let without_blanks = without_blanks(&String::from_utf8_lossy(field));
        for header in parsed.headers() {
            let HeaderValue::Address(named) = &header.value else {
                continue;
            };
            for text in named.iter().filter_map(|one| one.address()) {
                let address = Address::parse(text).map_err(|source| RecipientsError::Address {
                    text: text.to_owned(),
                    source,
                })?;
                let stands_there = without_blanks.contains(&self::without_blanks(text));
                if !stands_there || address.local_part().is_empty() {
                    return Err(RecipientsError::Unclear(text.to_owned()));
                }
                recipients.push(address);
            }
        }
    }
    Ok(recipients)
}

fn without_blanks(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(header: &str) -> Vec<String> {
        let found = named_recipients(header.as_bytes()).unwrap();
        found.into_iter().map(String::from).collect()
    }

    #[test]
    fn everybody_is_found_in_order() {
        let header = "From: x@y\nTo: A <a@x>, \"B, b\" <b@x>\nSubject: c@x\ncc : d@x,\n\te@x\n\
                      Bcc: group: f@x, <\"g h\"@x>;\nReply-To: i@x\n";
        assert_eq!(
            named(header),
            ["a@x", "b@x", "d@x", "e@x", "f@x", "\"g h\"@x"]
        );
        assert_eq!(named("Subject: x\n"), [""; 0]);
    }

    #[test]
    fn what_would_go_to_somebody_else_is_an_error() {
        for field in ["To: \"a b\"@x\n", "To: <\"a\\\"b\"@x>\n"] {
            let found = named_recipients(field.as_bytes());
            assert!(
                matches!(found, Err(RecipientsError::Unclear(_))),
                "{found:?}"
            );
        }
        let found = named_recipients(b"To: <a\x00b@x>\n");
        assert!(
            matches!(found, Err(RecipientsError::Address { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let many = format!("To: {}\n", "a@x,".repeat(300_000));
        assert_eq!(
            named_recipients(many.as_bytes()),
            Err(RecipientsError::TooLong)
        );
    }
}
