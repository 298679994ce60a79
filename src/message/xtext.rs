//! xtext (RFC 3461, section 4): any octets as one word of printable ASCII.
//!
//! An octet that cannot stand for itself is `+` and two hexadecimal digits. Which can is for the reader to
//! say: the files of a spool have more octets encoded than the RFC asks.

use std::fmt::Write as _;

/// The octets as one word; `+`, `=` and those of `more` are encoded, too.
pub(super) fn encode(octets: &[u8], more: &[u8]) -> String {
    let mut word = String::with_capacity(octets.len());
    for octet in octets {
        match octet {
            b'!'..=b'~' if !b"+=".contains(octet) && !more.contains(octet) => {
                word.push(char::from(*octet));
            }
            _ => write!(word, "+{octet:02X}").unwrap_or_default(),
        }
    }
    word
}

/// The octets of a word; none if a `+` is not followed by two hexadecimal digits. There are other spellings than
/// that of [`encode`]: a reader who wants only that one compares.
pub(super) fn decode(word: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'+' {
            octets.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        octets.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    Some(octets)
}
