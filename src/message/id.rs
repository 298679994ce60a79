//! The queue id: a UUID version 7, ordered by time, never reused.
//!
//! A message's age comes from its id, never from an mtime. So copying, restoring or touching a spool
//! changes no schedule.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};
use xxhash_rust::xxh3::Xxh3;

use super::{Address, NoticeKind};

/// The name of one message in the spool. It is never given to another message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueueId(Uuid);

/// The text is not a queue id in its only spelling (36 characters, lower case).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id")]
pub struct NotAnId;

impl QueueId {
    /// Length of an id as text, in characters.
    #[doc(hidden)]
    pub const LEN: usize = 36;

    /// Returns an id for a message created at `now`, with 74 of the given random bits.
    #[doc(hidden)]
    pub fn new(now: Timestamp, random: [u8; 10]) -> QueueId {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        QueueId(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// Returns the id of a notice, derived from its cause. If a crash causes the same notice to be written
    /// again, the second one has the same name as the first.
    #[doc(hidden)]
    pub fn of_notice(
        at: Timestamp,
        origin: QueueId,
        kind: NoticeKind,
        recipients: &[&Address],
    ) -> QueueId {
        let mut hash = Xxh3::new();
        hash.update(origin.0.as_bytes());
        hash.update(kind.as_str().as_bytes());
        for recipient in recipients {
            hash.update(&[0]);
            hash.update(recipient.as_str().as_bytes());
        }
        let digest = hash.digest128().to_be_bytes();
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        QueueId::new(at, random)
    }

    /// When the message was accepted, to the millisecond.
    pub fn accepted(&self) -> Timestamp {
        let bytes = self.0.as_bytes();
        let millis = bytes[..6]
            .iter()
            .fold(0_i64, |acc, byte| acc << 8 | i64::from(*byte));
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Returns a number in 0..1 for spreading retries. The same id and `salt` always give the same number.
    #[doc(hidden)]
    pub fn fraction(&self, salt: u64) -> f64 {
        let mut hash = Xxh3::with_seed(salt);
        hash.update(self.0.as_bytes());
        (hash.digest() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[doc(hidden)]
impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = NotAnId;

    /// Accepts only the spelling that [`Display`](fmt::Display) writes, so that each id has one file name.
    fn from_str(text: &str) -> Result<QueueId, NotAnId> {
        if text.len() != QueueId::LEN || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(NotAnId);
        }
        let uuid = Uuid::try_parse(text).map_err(|_| NotAnId)?;
        if uuid.get_version_num() != 7 {
            return Err(NotAnId);
        }
        Ok(QueueId(uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_carries_its_time_and_sorts_by_it() {
        let early = QueueId::new(at("2026-11-22T14:05:00.123Z"), [255; 10]);
        let late = QueueId::new(at("2026-11-22T14:05:00.124Z"), [0; 10]);
        assert_eq!(early.accepted(), at("2026-11-22T14:05:00.123Z"));
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = QueueId::new(at("2026-11-22T14:05:00Z"), [7; 10]).to_string();
        for bad in [
            "",
            ".nfs0001",
            &id.to_uppercase(),
            &id.replace('-', ""),
            &format!("{{{id}}}"),
            &format!("{id}~"),
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ] {
            assert_eq!(bad.parse::<QueueId>(), Err(NotAnId), "{bad}");
        }
    }

    #[test]
    fn a_notice_id_depends_on_its_cause() {
        let origin = QueueId::new(at("2026-11-22T14:05:00Z"), [7; 10]);
        let when = at("2026-11-23T00:00:00Z");
        let (a, b) = (
            Address::parse("a@example.org").unwrap(),
            Address::parse("b@example.org").unwrap(),
        );
        let id = |to: &[&Address]| QueueId::of_notice(when, origin, NoticeKind::Bounce, to);
        assert_eq!(id(&[&a, &b]), id(&[&a, &b]));
        assert_ne!(id(&[&a]), id(&[&b]));
        assert_eq!(id(&[&a]).accepted(), when);
    }

    #[test]
    fn fractions_differ_and_stay_within_bounds() {
        let id = QueueId::new(at("2026-11-22T14:05:00Z"), [7; 10]);
        assert_eq!(id.fraction(1), id.fraction(1));
        assert_ne!(id.fraction(1), id.fraction(2));
        assert!((0..1000).all(|n| (0.0..1.0).contains(&id.fraction(n))));
    }
}
