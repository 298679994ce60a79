//! The queue id: a UUID version 7, ordered by time, never reused.
//!
//! A message's age is read from its id, never from an mtime, so copying, restoring or
//! touching a spool changes no schedule.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};
use xxhash_rust::xxh3::Xxh3;

use super::{Address, NoticeKind};

/// The name of one message in the spool, for as long as the message exists and ever after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QueueId(Uuid);

/// The text is not a queue id in its one accepted spelling (36 characters, lower case).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id")]
pub struct NotAnId;

impl QueueId {
    /// Number of characters of an id as text.
    pub const LEN: usize = 36;

    /// An id for a message that comes into being at `now`, with 74 of the given random bits.
    pub fn new(now: Timestamp, random: [u8; 10]) -> QueueId {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        QueueId(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The id of a notice, a function of what causes it: whoever writes the same notice again
    /// after a crash finds the first one under the same name.
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

    /// The moment the id was made, to the millisecond: the message's acceptance.
    pub fn accepted(&self) -> Timestamp {
        let bytes = self.0.as_bytes();
        let millis = bytes[..6]
            .iter()
            .fold(0_i64, |acc, byte| acc << 8 | i64::from(*byte));
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// A number between 0 and 1 that is the message's own, for spreading retries: the same
    /// message and `salt` always give the same number.
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

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = NotAnId;

    /// Accepts only what [`Display`](fmt::Display) writes: one id has one file name.
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
    fn only_the_one_spelling_is_an_id() {
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
    fn a_notice_id_is_decided_by_its_cause() {
        let origin = QueueId::new(at("2026-11-22T14:05:00Z"), [7; 10]);
        let when = at("2026-11-23T00:00:00Z");
        let (a, b) = (
            Address::parse("a@example.org").unwrap(),
            Address::parse("b@example.org").unwrap(),
        );
        let id = |who: &[&Address]| QueueId::of_notice(when, origin, NoticeKind::Bounce, who);
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
