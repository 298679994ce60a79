//! Mailbox addresses in an envelope (RFC 5321; RFC 6531 for non-ASCII addresses).
//!
//! [`Address::parse`] checks a submitted address against the grammar, because an invalid address could only
//! be bounced later. Where the grammar excludes mailboxes that are in use, it is relaxed: dots may be
//! anywhere in a local part, and underscores in a domain. A final dot of the domain, a source route and
//! angle brackets are removed; nothing else of the address changes.
//!
//! [`Address::stored`] takes an address from the spool, which was accepted earlier, perhaps by a version
//! with weaker checks. It refuses only what would break the spool or a protocol.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::domain::{self, NotADomain};
use super::text::is_unprintable;
use serde::{Deserialize, Serialize};

/// A recipient, or a sender that is not the null sender.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Box<str>);

/// Why a text cannot be an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    #[doc(hidden)]
    /// No characters.
    #[error("the address is empty")]
    Empty,
    #[doc(hidden)]
    /// NUL, CR, LF or another control character.
    #[error("the address contains a control character")]
    Control,
    #[doc(hidden)]
    /// More octets than [`Address::MAX_LEN`].
    #[error("the address is longer than {} octets", Address::MAX_LEN)]
    TooLong,
    #[doc(hidden)]
    /// Not UTF-8.
    #[error("the address is not UTF-8")]
    NotUtf8,
    #[doc(hidden)]
    /// Before the `@` is nothing, or a character that needs quotes.
    #[error("the part before the @ is empty, or has characters that need quotes")]
    LocalPart,
    #[doc(hidden)]
    /// Quotes that do not end directly before the `@`.
    #[error("the quotes do not end before the @")]
    Quotes,
    #[doc(hidden)]
    /// After the `@` is neither a domain nor an address literal.
    #[error("the part after the @ is neither a domain nor an address in brackets")]
    Domain,
    #[doc(hidden)]
    /// A UUCP path.
    #[error("paths such as host!user are not supported")]
    Path,
}

impl Address {
    /// The longest address in octets; a longer one is refused. RFC 5321 requires 256, and some senders use
    /// more.
    #[doc(hidden)]
    pub const MAX_LEN: usize = 1000;

    /// Parses a path or a mailbox of RFC 5321, or a local part without a domain. Comments, and blanks
    /// outside quotes, are refused: they belong to header fields ([`super::list`]).
    #[doc(hidden)]
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let text = match text.strip_prefix('<') {
            Some(rest) => rest.strip_suffix('>').ok_or(AddressError::LocalPart)?,
            None => text,
        };
        check_octets(text)?;
        if text.chars().any(is_unprintable) {
            return Err(AddressError::Control);
        }
        let text = without_route(text)?;
        let (local, domain) = parts(text)?;
        check_local_part(local)?;
        match domain {
            None if local.contains('!') && !local.starts_with('"') => Err(AddressError::Path),
            None if local == "\"\"" => Err(AddressError::Empty),
            None => Ok(Address(local.into())),
            Some(domain) => {
                domain::check(domain).map_err(|_| AddressError::Domain)?;
                let domain = domain::without_final_dot(domain);
                Ok(Address(format!("{local}@{domain}").into()))
            }
        }
    }

    /// Takes an address from the spool, unchanged.
    #[doc(hidden)]
    pub fn stored(text: &str) -> Result<Address, AddressError> {
        check_octets(text)?;
        Ok(Address(text.into()))
    }

    /// Returns the mailbox of a local user, quoted if necessary. A name that is an address, as in some user
    /// directories, is that address.
    #[doc(hidden)]
    pub fn of_user(name: &str) -> Result<Address, AddressError> {
        Address::parse(name).or_else(|_| Address::parse(&quoted(name)))
    }

    /// Like [`parse`](Address::parse), for bytes from a command line or a file.
    #[doc(hidden)]
    pub fn from_bytes(bytes: &[u8]) -> Result<Address, AddressError> {
        Address::parse(std::str::from_utf8(bytes).map_err(|_| AddressError::NotUtf8)?)
    }

    /// The address as given, without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the `@`, if not empty.
    pub fn domain(&self) -> Option<&str> {
        split(&self.0).1.filter(|domain| !domain.is_empty())
    }

    /// The part before the `@`, or the whole address if it has none.
    pub fn local_part(&self) -> &str {
        split(&self.0).0
    }

    /// Appends `@hostname` if the address has no domain. Fails if the result is too long.
    #[doc(hidden)]
    pub fn qualified(self, hostname: &str) -> Result<Address, AddressError> {
        match self.domain() {
            Some(_) => Ok(self),
            None => Address::parse(&format!("{}@{hostname}", self.0)),
        }
    }

    /// Whether both addresses name the same mailbox. Domains compare case-insensitively and in any
    /// spelling. Local parts compare case-sensitively and regardless of quotes (RFC 5321, 4.1.2).
    #[doc(hidden)]
    pub fn same_mailbox(&self, other: &Address) -> bool {
        self.unquoted() == other.unquoted()
            && match (self.domain(), other.domain()) {
                (Some(a), Some(b)) => domain::is_same(a, b),
                (a, b) => a == b,
            }
    }

    /// The local part without quotes and escapes.
    fn unquoted(&self) -> Cow<'_, str> {
        let local = self.local_part();
        let inner = local.strip_prefix('"').and_then(|l| l.strip_suffix('"'));
        match inner {
            None => local.into(),
            Some(inner) if !inner.contains('\\') => inner.into(),
            Some(inner) => {
                let mut text = String::with_capacity(inner.len());
                let mut chars = inner.chars();
                while let Some(c) = chars.next() {
                    text.push(match c {
                        '\\' => chars.next().unwrap_or(c),
                        c => c,
                    });
                }
                text.into()
            }
        }
    }

    /// The address for an SMTP command. If only the domain is not ASCII, the domain is converted to
    /// A-labels. Every server understands those, and the address is then not an internationalised one (RFC
    /// 6531, 3.2), so it needs SMTPUTF8 neither at the next server nor after it. An address with a
    /// non-ASCII local part keeps its domain's spelling, without a final dot.
    ///
    /// # Errors
    /// The domain is not ASCII and not valid.
    #[doc(hidden)]
    pub fn on_wire(&self) -> Result<Cow<'_, str>, NotADomain> {
        let domain = match self.domain() {
            Some(domain) if !domain.is_ascii() || domain.ends_with('.') => domain,
            _ => return Ok((&*self.0).into()),
        };
        let ascii = domain::to_ascii(domain)?;
        Ok(match self.local_part() {
            local if local.is_ascii() => format!("{local}@{ascii}").into(),
            local => format!("{local}@{}", domain::without_final_dot(domain)).into(),
        })
    }
}

/// Checks what the spool and the protocols rely on.
fn check_octets(text: &str) -> Result<(), AddressError> {
    if text.is_empty() {
        Err(AddressError::Empty)
    } else if text.len() > Address::MAX_LEN {
        Err(AddressError::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(AddressError::Control)
    } else {
        Ok(())
    }
}

/// Removes a source route (RFC 5321, appendix C).
fn without_route(text: &str) -> Result<&str, AddressError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    // The domains of a route contain no colon, except in a literal.
    let mut rest = text;
    loop {
        let domain = rest.strip_prefix('@').ok_or(AddressError::Domain)?;
        let from = if domain.starts_with('[') {
            domain.find(']').ok_or(AddressError::Domain)?
        } else {
            0
        };
        let end = domain[from..].find([',', ':']);
        let end = from + end.ok_or(AddressError::LocalPart)?;
        domain::check(&domain[..end]).map_err(|_| AddressError::Domain)?;
        rest = &domain[end + 1..];
        if domain[end..].starts_with(':') {
            return Ok(rest);
        }
    }
}

/// Splits a submitted address at the `@` into local part and domain.
fn parts(text: &str) -> Result<(&str, Option<&str>), AddressError> {
    let local = match text.strip_prefix('"') {
        None => text.find('@').unwrap_or(text.len()),
        Some(inner) => {
            let mut escaped = false;
            let end = inner.bytes().position(|byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            });
            end.ok_or(AddressError::Quotes)? + 2
        }
    };
    match (&text[..local], &text[local..]) {
        (local, "") => Ok((local, None)),
        (local, rest) => match rest.strip_prefix('@') {
            Some(domain) => Ok((local, Some(domain))),
            None => Err(AddressError::Quotes),
        },
    }
}

/// Accepts a quoted string, or atoms and dots. Non-ASCII blanks need quotes like ASCII ones: they come from
/// addresses copied from a page, and no mailbox has them.
fn check_local_part(local: &str) -> Result<(), AddressError> {
    let is_plain = local.bytes().all(|byte| is_atom(byte) || byte == b'.');
    let is_plain = is_plain && !local.chars().any(is_blank);
    if local.starts_with('"') || is_plain && local.bytes().any(is_atom) {
        Ok(())
    } else {
        Err(AddressError::LocalPart)
    }
}

/// Whether a character is a blank or invisible.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

/// Whether an octet needs no quotes in a local part (atext of RFC 5322; any octet of UTF-8).
pub(super) fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 0x80
}

/// Returns the text as a quoted string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Splits an address at the last `@`. If the part after it ends with a quote, the `@` is inside quotes, and
/// there is no domain.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('@') {
        Some((local, domain)) if !domain.ends_with('"') => (local, Some(domain)),
        _ => (text, None),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[doc(hidden)]
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

#[doc(hidden)]
impl TryFrom<String> for Address {
    type Error = AddressError;

    /// Histories are read with this, so the checks are those of [`Address::stored`].
    fn try_from(text: String) -> Result<Address, AddressError> {
        Address::stored(&text)
    }
}

#[doc(hidden)]
impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0.into()
    }
}

/// The address that notices about a message are sent to (the reverse-path of RFC 5321).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// The null sender `<>`: no notice is ever sent.
    Null,
    /// The sender's mailbox.
    Mailbox(Address),
}

impl ReversePath {
    /// Parses a command-line argument: an address, or an empty one or `<>` for the null sender.
    #[doc(hidden)]
    pub fn parse(bytes: &[u8]) -> Result<ReversePath, AddressError> {
        match bytes {
            b"" | b"<>" => Ok(ReversePath::Null),
            bytes => Address::from_bytes(bytes).map(ReversePath::Mailbox),
        }
    }

    /// Takes a sender from the spool, unchanged; empty for the null sender.
    #[doc(hidden)]
    pub fn stored(text: &str) -> Result<ReversePath, AddressError> {
        match text {
            "" => Ok(ReversePath::Null),
            text => Address::stored(text).map(ReversePath::Mailbox),
        }
    }

    /// The address; empty for the null sender.
    pub fn as_str(&self) -> &str {
        match self {
            ReversePath::Null => "",
            ReversePath::Mailbox(address) => address.as_str(),
        }
    }

    /// The mailbox, or `None` for the null sender.
    #[doc(hidden)]
    pub fn mailbox(&self) -> Option<&Address> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(address) => Some(address),
        }
    }

    /// Like [`Address::on_wire`]; empty for the null sender.
    ///
    /// # Errors
    /// Those of [`Address::on_wire`].
    #[doc(hidden)]
    pub fn on_wire(&self) -> Result<Cow<'_, str>, NotADomain> {
        self.mailbox().map_or(Ok("".into()), Address::on_wire)
    }

    /// Appends `@hostname` to a mailbox without a domain.
    #[doc(hidden)]
    pub fn qualified(self, hostname: &str) -> Result<ReversePath, AddressError> {
        match self {
            ReversePath::Null => Ok(ReversePath::Null),
            ReversePath::Mailbox(address) => address.qualified(hostname).map(Self::Mailbox),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// As [`Address::parse`].
    fn from_str(text: &str) -> Result<Address, AddressError> {
        Address::parse(text)
    }
}

#[doc(hidden)]
impl FromStr for ReversePath {
    type Err = AddressError;

    /// Parses a mailbox; the empty text and `<>` are the null sender.
    fn from_str(text: &str) -> Result<ReversePath, AddressError> {
        match text {
            "" | "<>" => Ok(ReversePath::Null),
            _ => Address::parse(text).map(ReversePath::Mailbox),
        }
    }
}

#[doc(hidden)]
impl From<Address> for ReversePath {
    fn from(address: Address) -> ReversePath {
        ReversePath::Mailbox(address)
    }
}

/// Removes addresses that name the same mailbox as an earlier one. Keeps the order.
#[cfg(feature = "testing")]
pub fn without_repeats(recipients: Vec<Address>) -> Vec<Address> {
    without_repeats_of(recipients, |address| address)
}

/// Like [`without_repeats`], for values with an address.
pub fn without_repeats_of<T>(list: Vec<T>, address: impl Fn(&T) -> &Address) -> Vec<T> {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    let key = |address: &Address| {
        let domain = domain::key(address.domain().unwrap_or(""));
        (address.unquoted().into_owned(), domain.into_owned())
    };
    list.into_iter()
        .filter(|value| seen.insert(key(address(value))))
        .collect()
}

#[cfg(test)]
mod tests;
