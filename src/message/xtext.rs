//! xtext (RFC 3461, section 4): arbitrary octets as one word of printable ASCII.
//!
//! An encoded octet is `+` and two hexadecimal digits. The caller decides which further octets are encoded:
//! the files of a spool encode more of them than the RFC requires.

use std::fmt::Write as _;

/// Encodes octets as one word. Encodes `+`, `=` and the octets in `more`, too.
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

/// Decodes a word. Returns `None` if a `+` is not followed by two hexadecimal digits. Accepts spellings
/// that [`encode`] does not write; a caller that must refuse those compares.
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
