//! Submission keys, with which a submitter marks two submissions as the same.

use std::fmt;

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::{Address, xtext};

/// A submitter's name for a submission. A second submission under the same key is not accepted as a new
/// message. A key has 1 to [`MAX_LEN`](SubmissionKey::MAX_LEN) arbitrary octets. Its text form is xtext
/// (RFC 3461, section 4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SubmissionKey(Vec<u8>);

/// Why octets cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No octets.
    #[error("the key is empty")]
    Empty,
    /// More octets than [`SubmissionKey::MAX_LEN`].
    #[error("the key is longer than {} octets", SubmissionKey::MAX_LEN)]
    TooLong,
}

/// A message's key, and the time until which no other message is accepted under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The key.
    pub key: SubmissionKey,
    /// The end of the key's lifetime, which begins when the message is accepted.
    pub until: Timestamp,
}

impl SubmissionKey {
    /// The longest key in octets. A longer one is refused.
    pub const MAX_LEN: usize = 256;

    /// Returns a key with these octets.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<SubmissionKey, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=SubmissionKey::MAX_LEN => Ok(SubmissionKey(bytes)),
            _ => Err(KeyError::TooLong),
        }
    }

    /// Returns the key for this set of recipients, in any order. An MTA may submit a message with many
    /// recipients in parts.
    pub fn for_recipients(self, recipients: &[Address]) -> SubmissionKey {
        let mut all: Vec<&str> = recipients.iter().map(Address::as_str).collect();
        all.sort_unstable();
        let mut bytes = self.0;
        // Neither an address nor the checksum contains a NUL.
        let sum = xxh3_128(all.join("\0").as_bytes());
        bytes.extend_from_slice(format!("\0{sum:032x}").as_bytes());
        SubmissionKey(bytes)
    }

    /// The octets.
    #[cfg(feature = "testing")]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// XXH3-128 of the octets, in hexadecimal: the name of the key's files. If two keys have the same hash,
    /// the content of the files distinguishes them.
    pub fn hash(&self) -> String {
        format!("{:032x}", xxh3_128(&self.0))
    }

    /// Parses the one spelling that [`Display`](fmt::Display) writes.
    pub fn from_xtext(text: &str) -> Option<SubmissionKey> {
        let bytes = xtext::decode(text)?;
        /// The octets that [`for_recipients`](SubmissionKey::for_recipients) adds.
        const MORE: usize = 33;
        if bytes.is_empty() || bytes.len() > SubmissionKey::MAX_LEN + MORE {
            return None;
        }
        let key = SubmissionKey(bytes);
        (key.to_string() == text).then_some(key)
    }
}

impl fmt::Display for SubmissionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&xtext::encode(&self.0, b""))
    }
}

impl fmt::Debug for SubmissionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Keyed {
    /// The value of `Mailspool-Key:` in an envelope block: the end of the lifetime, then the key.
    pub(super) fn to_line(&self) -> String {
        format!("{} {}", self.until, self.key)
    }

    pub(super) fn from_line(text: &str) -> Option<Keyed> {
        let (until, key) = text.split_once(' ')?;
        Some(Keyed {
            until: parse_time(until)?,
            key: SubmissionKey::from_xtext(key)?,
        })
    }
}

/// Parses a time in the one spelling that `Display` writes.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    (time.to_string() == text).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_octets_are_a_key_and_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [b"job 1\n".as_slice(), b"a+b=c", &[0xff, 0], &all] {
            let key = SubmissionKey::new(bytes).unwrap();
            let text = key.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(SubmissionKey::from_xtext(&text), Some(key));
        }
        assert_eq!(SubmissionKey::new(""), Err(KeyError::Empty));
        assert_eq!(SubmissionKey::new(vec![b'x'; 257]), Err(KeyError::TooLong));
    }

    #[test]
    fn a_key_can_be_limited_to_recipients() {
        let [a, b] = ["a@x", "b@y"].map(|text| Address::parse(text).unwrap());
        let key = || SubmissionKey::new(vec![0xff; SubmissionKey::MAX_LEN]).unwrap();
        let both = key().for_recipients(&[a.clone(), b.clone()]);
        assert_eq!(both, key().for_recipients(&[b, a.clone()]));
        assert_ne!(both, key().for_recipients(&[a]));
        assert_ne!(both, key());
        assert_eq!(SubmissionKey::from_xtext(&both.to_string()), Some(both));
    }

    #[test]
    fn a_key_has_one_spelling() {
        for bad in [
            "", "a b", "+41", "+3d", "+3", "+", "a=b", "\u{e9}", "+zz", "++1",
        ] {
            assert_eq!(SubmissionKey::from_xtext(bad), None, "{bad}");
        }
        for bad in [
            "x",
            "2026-11-22T14:05Z x",
            "2026-11-22T14:05:00+00:00 x",
            "",
        ] {
            assert_eq!(Keyed::from_line(bad), None, "{bad}");
        }
    }
}
