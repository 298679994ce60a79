//! Parses address lists of header fields and command lines (RFC 5322, 3.4): display names, groups,
//! comments, folds, and the obsolete forms of section 4.4, including source routes.
//!
//! Every element of a list gives an address, or an error that quotes the element. No address is dropped,
//! joined or made up. Some forms outside RFC 5322 are accepted because the address is unambiguous: any
//! octets in display names and comments, an address as its own display name, encoded words with commas in
//! them, and an empty group without its end.

use super::address::is_atom;
use super::domain;
use super::line::{self, Ending};
use super::text::{printable, shortened};
use super::{Address, AddressError};

/// An element of a list that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {why}")]
pub struct ListError {
    /// The element, made printable and cut to 200 octets.
    pub text: String,
    /// Why it is not an address.
    pub why: NoAddress,
}

/// Why an element of a list is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The element has the form of an address, but is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Quotes, a comment, angle brackets, an address literal or a group that do not end.
    #[error("`{0}` has no end")]
    Open(char),
    /// Several words, and no address in angle brackets.
    #[error("these are words, not an address; an address after a name is in angle brackets")]
    Words,
    /// An encoded word (RFC 2047), which is allowed only in a name.
    #[error("an encoded word is not an address")]
    EncodedWord,
    /// A character that is not allowed there.
    #[error("unexpected `{0}`")]
    Unexpected(char),
    /// Text follows the address without a comma.
    #[error("something follows the address; addresses are separated by commas")]
    Follows,
    /// An address as the display name of a different address. A comma may be missing.
    #[error("two addresses without a comma between them")]
    Two,
    /// A list without an address, where one is required.
    #[error("there is no address in it")]
    NoneThere,
}

/// Returns the addresses of a list, those of its groups included, in order; there may be none. Local names
/// stay without a domain.
pub fn parse(list: &[u8]) -> Result<Vec<Address>, ListError> {
    let mut reader = Reader {
        bytes: list,
        at: 0,
        element: 0,
    };
    reader.list().map_err(|why| ListError {
        text: reader.named(why),
        why,
    })
}

/// Returns the addresses of a one-line list from a command line, at least one.
pub fn parse_line(list: &[u8]) -> Result<Vec<Address>, ListError> {
    let wrong = |why| {
        let text = shortened(String::from_utf8_lossy(list).into_owned(), MAX_NAMED);
        Err(ListError { text, why })
    };
    if list.iter().any(|byte| byte.is_ascii_control()) {
        return wrong(AddressError::Control.into());
    }
    match parse(list)? {
        none if none.is_empty() && list.trim_ascii().is_empty() => {
            wrong(AddressError::Empty.into())
        }
        none if none.is_empty() => wrong(NoAddress::NoneThere),
        some => Ok(some),
    }
}

/// The longest element in an error, in octets; a longer one is cut.
const MAX_NAMED: usize = 200;

type Result<T, E = NoAddress> = std::result::Result<T, E>;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current element begins.
    element: usize,
}

/// A word of a display name or a local part, or a dot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    Atom(&'a [u8]),
    /// Includes the quotes.
    Quoted(&'a [u8]),
    Encoded,
    Dot,
}

impl<'a> Reader<'a> {
    fn list(&mut self) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        // Where the current group begins, and the number of addresses found before it.
        let mut group = None;
        loop {
            self.element = self.at;
            self.blanks()?;
            match self.peek() {
                None => match group {
                    Some((from, before)) if found.len() > before => {
                        self.element = from;
                        return Err(NoAddress::Open(':'));
                    }
                    _ => return Ok(found),
                },
                Some(b',') => self.at += 1,
                Some(b';') if group.is_some() => {
                    self.at += 1;
                    group = None;
                    self.end_of_element(false)?;
                }
                Some(_) => match self.mailbox(group.is_some())? {
                    Some(address) => {
                        found.push(address);
                        self.end_of_element(group.is_some())?;
                    }
                    None => group = Some((self.element, found.len())),
                },
            }
        }
    }

    /// Parses one mailbox. Returns `None` if a group begins instead.
    fn mailbox(&mut self, in_group: bool) -> Result<Option<Address>> {
        match self.peek() {
            Some(b'<') => return self.in_brackets().map(Some),
            Some(b'@') => {
                self.route()?;
                return self.address().map(Some);
            }
            _ => {}
        }
        let words = self.words()?;
        match self.peek() {
            Some(b'<') if !words.is_empty() => self.in_brackets().map(Some),
            Some(b':') if !in_group && !words.is_empty() => {
                self.at += 1;
                Ok(None)
            }
            Some(b'@') => {
                let address = self.with_domain(&words)?;
                self.blanks()?;
                if self.peek() == Some(b'<') && !self.in_brackets()?.same_mailbox(&address) {
                    return Err(NoAddress::Two);
                }
                Ok(Some(address))
            }
            None | Some(b',') => bare(&words).map(Some),
            Some(b';') if in_group => bare(&words).map(Some),
            Some(_) => Err(self.unexpected()),
        }
    }

    fn in_brackets(&mut self) -> Result<Address> {
        self.at += 1;
        self.blanks()?;
        if self.peek() == Some(b'@') {
            self.route()?;
        }
        let address = match self.peek() {
            Some(b'>') => return Err(AddressError::Empty.into()),
            _ => self.address()?,
        };
        self.blanks()?;
        match self.peek() {
            Some(b'>') => {
                self.at += 1;
                Ok(address)
            }
            None | Some(b',' | b';' | b'<') => Err(NoAddress::Open('<')),
            Some(_) => Err(self.unexpected()),
        }
    }

    /// Parses a local part with or without a domain.
    fn address(&mut self) -> Result<Address> {
        let words = self.words()?;
        match self.peek() {
            Some(b'@') => self.with_domain(&words),
            _ => bare(&words),
        }
    }

    fn with_domain(&mut self, local: &[Word<'_>]) -> Result<Address> {
        let mut text = local_part(local)?;
        self.at += 1;
        text.push(b'@');
        text.extend(self.domain()?);
        Ok(Address::from_bytes(&text)?)
    }

    /// Skips a source route such as `@a,@b:`, which is obsolete (RFC 5322, 4.4).
    fn route(&mut self) -> Result<()> {
        loop {
            self.blanks()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'@') => {
                    self.at += 1;
                    let domain = self.domain()?;
                    let text = std::str::from_utf8(&domain).map_err(|_| AddressError::NotUtf8)?;
                    domain::check(text).map_err(|_| AddressError::Domain)?;
                }
                Some(b':') => {
                    self.at += 1;
                    return self.blanks();
                }
                None => return Err(AddressError::LocalPart.into()),
                Some(_) => return Err(self.unexpected()),
            }
        }
    }

    /// Parses a domain or an address literal, without its blanks and comments. Does not check it.
    fn domain(&mut self) -> Result<Vec<u8>> {
        self.blanks()?;
        let mut text = Vec::new();
        if self.peek() == Some(b'[') {
            let rest = &self.bytes[self.at..];
            let end = rest.iter().position(|byte| *byte == b']');
            let end = end.ok_or(NoAddress::Open('['))? + 1;
            let inside = line::lines(&rest[..end]).flat_map(line::content);
            text.extend(inside.filter(|byte| !is_blank(**byte)));
            self.at += end;
            return Ok(text);
        }
        let mut is_label = false;
        loop {
            self.blanks()?;
            match self.peek() {
                Some(b'.') => {
                    self.at += 1;
                    text.push(b'.');
                    is_label = false;
                }
                Some(byte) if is_atom(byte) && !is_label => {
                    text.extend(self.atom());
                    is_label = true;
                }
                _ => return Ok(text),
            }
        }
    }

    /// Parses words and dots. Skips the comments and blanks between them.
    fn words(&mut self) -> Result<Vec<Word<'a>>> {
        let mut words = Vec::new();
        loop {
            self.blanks()?;
            match self.peek() {
                Some(b'"') => words.push(self.quoted()?),
                Some(b'.') => {
                    self.at += 1;
                    words.push(Word::Dot);
                }
                Some(byte) if is_atom(byte) => {
                    let encoded = encoded_word(&self.bytes[self.at..]);
                    if encoded > 0 {
                        self.at += encoded;
                        words.push(Word::Encoded);
                    } else {
                        words.push(Word::Atom(self.atom()));
                    }
                }
                _ => return Ok(words),
            }
        }
    }

    fn atom(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| !is_atom(*byte));
        let atom = &rest[..end.unwrap_or(rest.len())];
        self.at += atom.len();
        atom
    }

    fn quoted(&mut self) -> Result<Word<'a>> {
        let from = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => return Ok(Word::Quoted(&self.bytes[from..self.at])),
                _ => {}
            }
        }
        Err(NoAddress::Open('"'))
    }

    /// Skips blanks, line ends and comments.
    fn blanks(&mut self) -> Result<()> {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => self.at += 1,
                _ if depth > 0 || is_blank(byte) => {}
                b'\r' => match line::ending(&self.bytes[self.at..]) {
                    Ending::Whole(length) => self.at += length - 1,
                    Ending::None | Ending::Undecided => break,
                },
                _ => break,
            }
            self.at += 1;
        }
        match depth {
            0 => Ok(()),
            _ => Err(NoAddress::Open('(')),
        }
    }

    /// Skips the separator before the next element.
    fn end_of_element(&mut self, in_group: bool) -> Result<()> {
        self.blanks()?;
        match self.peek() {
            None => Ok(()),
            Some(b',') => {
                self.at += 1;
                Ok(())
            }
            Some(b';') if in_group => Ok(()),
            Some(byte) if byte.is_ascii_control() => Err(AddressError::Control.into()),
            Some(_) => Err(NoAddress::Follows),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn unexpected(&self) -> NoAddress {
        match self.peek() {
            Some(byte) if byte.is_ascii_control() => AddressError::Control.into(),
            Some(byte) => NoAddress::Unexpected(char::from(byte)),
            None => NoAddress::Words,
        }
    }

    /// Returns the current element, up to the comma after the error, for the error message.
    fn named(&self, why: NoAddress) -> String {
        let from = self.element.min(self.bytes.len());
        let at = match why {
            NoAddress::Open(_) => self.bytes.len(),
            _ => self.at.min(self.bytes.len()),
        };
        let after = self.bytes[at..].iter().position(|byte| *byte == b',');
        let element = &self.bytes[from..after.map_or(self.bytes.len(), |length| at + length)];
        let element = &element[..element.len().min(8 * MAX_NAMED)];
        shortened(printable(&String::from_utf8_lossy(element)), MAX_NAMED)
    }
}

/// Returns the address of a local name.
fn bare(words: &[Word<'_>]) -> Result<Address> {
    match words {
        [] => Err(AddressError::Empty.into()),
        [Word::Quoted(b"\"\"")] => Err(AddressError::Empty.into()),
        [Word::Atom(atom)] if atom.starts_with(b"=?") => Err(NoAddress::EncodedWord),
        words => Ok(Address::from_bytes(&local_part(words)?)?),
    }
}

/// Joins words into a local part: atoms separated by dots, or one quoted string. A partly quoted local part
/// (RFC 5322, 4.4) is quoted as a whole, because an address has no other form for it.
fn local_part(words: &[Word<'_>]) -> Result<Vec<u8>> {
    if words.contains(&Word::Encoded) {
        return Err(NoAddress::EncodedWord);
    }
    let are_neighbours = |pair: &[Word<'_>]| !pair.contains(&Word::Dot);
    if words.windows(2).any(are_neighbours) {
        return Err(NoAddress::Words);
    }
    let is_quoted = |word: &Word<'_>| matches!(word, Word::Quoted(_));
    let any_quoted = words.iter().any(is_quoted);
    let mut text = Vec::new();
    for word in words {
        match word {
            Word::Atom(atom) => text.extend_from_slice(atom),
            Word::Quoted(quoted) => text.extend(unfolded(&quoted[1..quoted.len() - 1])),
            Word::Dot => text.push(b'.'),
            Word::Encoded => {}
        }
    }
    if any_quoted {
        text.insert(0, b'"');
        text.push(b'"');
    }
    Ok(text)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

/// Returns the text without its line ends.
fn unfolded(text: &[u8]) -> impl Iterator<Item = u8> {
    line::lines(text).flat_map(line::content).copied()
}

/// Returns the length of the encoded word (RFC 2047) at the beginning of a text, or 0. Commas and other
/// characters that an encoded word must not contain are accepted, so that the word is parsed to its end.
fn encoded_word(text: &[u8]) -> usize {
    let find = || {
        let rest = text.strip_prefix(b"=?")?;
        let (charset, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'?')?);
        let rest = match rest {
            [b'?', b'b' | b'B' | b'q' | b'Q', b'?', rest @ ..] => rest,
            _ => return None,
        };
        let end = rest.iter().position(|byte| *byte == b'?')?;
        let is_one = rest.get(end + 1) == Some(&b'=')
            && charset.iter().all(|byte| is_atom(*byte))
            && rest[..end].iter().all(|byte| *byte > b' ');
        is_one.then(|| text.len() - rest.len() + end + 2)
    };
    find().unwrap_or(0)
}

#[cfg(test)]
mod tests;
