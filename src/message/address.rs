//! Mailbox addresses as they stand in an envelope (RFC 5321, RFC 6531 for non-ASCII ones).
//!
//! An address is kept as it was given. It is not checked against the grammar, which senders
//! break; it is checked for what would break the spool or a protocol: control characters
//! (NUL, CR and LF among them), emptiness, and absurd length.

use std::borrow::Cow;
use std::fmt;

use super::domain::{self, NotADomain};
use serde::{Deserialize, Serialize};

/// A recipient, or a sender that is not the null sender.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Box<str>);

/// Why a text cannot be an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing is there.
    #[error("the address is empty")]
    Empty,
    /// NUL, CR, LF or another control character.
    #[error("the address contains a control character")]
    Control,
    /// More octets than [`Address::MAX_LEN`].
    #[error("the address is longer than {} octets", Address::MAX_LEN)]
    TooLong,
    /// Not UTF-8.
    #[error("the address is not UTF-8")]
    NotUtf8,
    /// Angle brackets within the angle brackets: written to a line of its own and read back, it
    /// would be another address.
    #[error("the address has angle brackets around its angle brackets")]
    Brackets,
}

impl Address {
    /// The most octets an address may have: RFC 5321 promises 256, some senders use more.
    pub const MAX_LEN: usize = 1000;

    /// Takes an address, with or without angle brackets around it.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let text = bare(text).unwrap_or(text);
        if text.is_empty() {
            Err(AddressError::Empty)
        } else if bare(text).is_some() {
            Err(AddressError::Brackets)
        } else if text.len() > Address::MAX_LEN {
            Err(AddressError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(AddressError::Control)
        } else {
            Ok(Address(text.into()))
        }
    }

    /// As [`parse`](Address::parse), from bytes as the command line or a file gives them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Address, AddressError> {
        Address::parse(std::str::from_utf8(bytes).map_err(|_| AddressError::NotUtf8)?)
    }

    /// The address as it was given, without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is behind the last `@`, if anything is.
    pub fn domain(&self) -> Option<&str> {
        let (_, domain) = self.0.rsplit_once('@')?;
        (!domain.is_empty()).then_some(domain)
    }

    /// What is before the last `@`, or all of it.
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(local, _)| local)
    }

    /// The same address, with `@hostname` behind it if it had no domain. It is looked at again
    /// then: it may have become too long.
    pub fn qualified(self, hostname: &str) -> Result<Address, AddressError> {
        if self.0.contains('@') {
            return Ok(self);
        }
        Address::parse(&format!("{}@{hostname}", self.0))
    }

    /// Whether both name one mailbox: domains compare without regard to their case and their
    /// spelling, local parts with.
    pub fn same_mailbox(&self, other: &Address) -> bool {
        self.local_part() == other.local_part()
            && match (self.domain(), other.domain()) {
                (Some(a), Some(b)) => domain::is_same(a, b),
                (a, b) => a == b,
            }
    }

    /// The address as it goes into a command of SMTP. If only its domain is not ASCII, that is
    /// written in A-labels, which every server understands and which is not an internationalised
    /// address any more (RFC 6531, 3.2); so it never depends on SMTPUTF8, here or behind the
    /// next server. With a local part that is not ASCII the address stays as it is.
    ///
    /// # Errors
    /// The domain is not ASCII, and no domain.
    pub fn on_wire(&self) -> Result<Cow<'_, str>, NotADomain> {
        let domain = match self.domain() {
            Some(domain) if !domain.is_ascii() => domain,
            _ => return Ok((&*self.0).into()),
        };
        let ascii = domain::to_ascii(domain)?;
        Ok(match self.local_part() {
            local if local.is_ascii() => format!("{local}@{ascii}").into(),
            _ => (&*self.0).into(),
        })
    }
}

/// What is between angle brackets, if they are there.
fn bare(text: &str) -> Option<&str> {
    text.strip_prefix('<')?.strip_suffix('>')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Address, AddressError> {
        Address::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0.into()
    }
}

/// Where notices about a message go (RFC 5321's reverse-path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// The null sender `<>`: nobody is told, whatever happens.
    Null,
    /// The sender's mailbox.
    Mailbox(Address),
}

impl ReversePath {
    /// Takes what a command line gives: an address, or nothing or `<>` for the null sender.
    pub fn parse(bytes: &[u8]) -> Result<ReversePath, AddressError> {
        match bytes {
            b"" | b"<>" => Ok(ReversePath::Null),
            bytes => Address::from_bytes(bytes).map(ReversePath::Mailbox),
        }
    }

    /// The address, or an empty text for the null sender.
    pub fn as_str(&self) -> &str {
        match self {
            ReversePath::Null => "",
            ReversePath::Mailbox(address) => address.as_str(),
        }
    }

    /// The mailbox, unless this is the null sender.
    pub fn mailbox(&self) -> Option<&Address> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(address) => Some(address),
        }
    }

    /// As [`Address::on_wire`]; an empty text for the null sender.
    ///
    /// # Errors
    /// As there.
    pub fn on_wire(&self) -> Result<Cow<'_, str>, NotADomain> {
        self.mailbox().map_or(Ok("".into()), Address::on_wire)
    }

    /// The same path, with `@hostname` behind a mailbox without domain.
    pub fn qualified(self, hostname: &str) -> Result<ReversePath, AddressError> {
        match self {
            ReversePath::Null => Ok(ReversePath::Null),
            ReversePath::Mailbox(address) => address.qualified(hostname).map(Self::Mailbox),
        }
    }
}

/// Takes out what names the same mailbox as an earlier one; the order stays.
pub fn without_repeats(recipients: Vec<Address>) -> Vec<Address> {
    without_repeats_of(recipients, |address| address)
}

/// As [`without_repeats`], of what has an address.
pub fn without_repeats_of<T>(list: Vec<T>, address: impl Fn(&T) -> &Address) -> Vec<T> {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    let key = |address: &Address| {
        let domain = domain::key(address.domain().unwrap_or(""));
        (address.local_part().to_owned(), domain.into_owned())
    };
    list.into_iter()
        .filter(|one| seen.insert(key(address(one))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_the_spool_is_refused() {
        for (text, why) in [
            ("", AddressError::Empty),
            ("<>", AddressError::Empty),
            ("a\0b@example.org", AddressError::Control),
            ("a@example.org\r\nRCPT TO:<x>", AddressError::Control),
            ("a@example.org\n", AddressError::Control),
            ("a\u{9b}31m@example.org", AddressError::Control),
            (&"x".repeat(65536), AddressError::TooLong),
        ] {
            assert_eq!(Address::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(Address::from_bytes(b"\xff@x"), Err(AddressError::NotUtf8));
    }

    #[test]
    fn odd_but_harmless_addresses_are_kept_as_given() {
        for text in [
            "-f@example.org",
            "\"a b\"@example.org",
            "ö@exämple.org",
            "alice",
        ] {
            assert_eq!(Address::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Address::parse("<a@b>").unwrap().as_str(), "a@b");
    }

    #[test]
    fn domain_is_behind_the_last_at_sign() {
        let address = Address::parse("\"a@b\"@Example.org").unwrap();
        assert_eq!(address.domain(), Some("Example.org"));
        assert_eq!(address.local_part(), "\"a@b\"");
        assert_eq!(Address::parse("alice").unwrap().domain(), None);
        assert_eq!(
            Address::parse("alice")
                .unwrap()
                .qualified("h.example")
                .unwrap()
                .as_str(),
            "alice@h.example"
        );
    }

    #[test]
    fn what_is_written_to_a_line_reads_back() {
        for text in ["<<>>", "<<a@b>>", "<<<a>>>"] {
            assert_eq!(Address::parse(text), Err(AddressError::Brackets), "{text}");
        }
        assert_eq!(Address::parse("<a>b@c>").unwrap().as_str(), "a>b@c");
        let longest = Address::parse(&"x".repeat(Address::MAX_LEN)).unwrap();
        assert_eq!(longest.qualified("host"), Err(AddressError::TooLong));
    }

    #[test]
    fn only_a_local_part_keeps_an_address_from_being_ascii() {
        for (address, wire) in [
            ("a@Example.ORG", "a@Example.ORG"),
            ("a@Bücher.example", "a@xn--bcher-kva.example"),
            ("\"a@b\"@bücher.example", "\"a@b\"@xn--bcher-kva.example"),
            ("ö@bücher.example", "ö@bücher.example"),
            ("ö@example.org", "ö@example.org"),
            ("ö", "ö"),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(address.on_wire().as_deref(), Ok(wire));
        }
        for address in ["a@ü..example", "ö@ü..example"] {
            assert!(Address::parse(address).unwrap().on_wire().is_err());
        }
    }

    #[test]
    fn repeats_go_and_order_stays() {
        let list = [
            "b@X.org",
            "a@x.org",
            "b@x.ORG",
            "B@x.org",
            "b@ü.org",
            "b@xn--tda.org",
        ]
        .map(|text| Address::parse(text).unwrap())
        .to_vec();
        let kept: Vec<String> = without_repeats(list)
            .into_iter()
            .map(String::from)
            .collect();
        assert_eq!(kept, ["b@X.org", "a@x.org", "B@x.org", "b@ü.org"]);
    }

    #[test]
    fn the_null_sender_is_not_a_missing_one() {
        assert_eq!(ReversePath::parse(b""), Ok(ReversePath::Null));
        assert_eq!(ReversePath::parse(b"<>"), Ok(ReversePath::Null));
        assert!(ReversePath::parse(b"\n").is_err());
    }
}
