//! A record: the message that has a key, or is about to get it.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_128;

use crate::message::key::parse_time;
use crate::message::{Keyed, QueueId, SubmissionKey};
use crate::queue::Bucket;
use crate::spool::layout::key_bucket;

/// Most octets read from a record. A longer file is an error.
pub(super) const MOST: u64 = 4 << 10;

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub id: QueueId,
    pub keyed: Keyed,
}

impl Record {
    /// The text of the file.
    pub(super) fn text(&self) -> String {
        let Record { id, keyed } = self;
        let Keyed { key, until } = keyed;
        let lines = format!("id: {id}\nuntil: {until}\nkey: {key}\n");
        format!("{lines}sum: xxh128 {:032x}\n", xxh3_128(lines.as_bytes()))
    }

    /// Returns `None` if the record is torn.
    pub(super) fn parse(bytes: &[u8]) -> Option<Record> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split('\n');
        let mut value = |name| lines.next()?.strip_prefix(name);
        let id = value("id: ")?.parse().ok()?;
        let until = parse_time(value("until: ")?)?;
        let key = SubmissionKey::from_xtext(value("key: ")?)?;
        let record = Record {
            id,
            keyed: Keyed { key, until },
        };
        (record.text() == text).then_some(record)
    }

    /// The bucket of its key: one for each hour.
    pub(super) fn bucket(&self) -> PathBuf {
        key_bucket(Bucket::for_hour(self.keyed.until))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let record = Record {
            id: QueueId::new(Timestamp::UNIX_EPOCH, [3; 10]),
            keyed: Keyed {
                key: SubmissionKey::new("a key\n").unwrap(),
                until: "2026-11-22T14:05:00.5Z".parse().unwrap(),
            },
        };
        let text = record.text();
        assert_eq!(Record::parse(text.as_bytes()), Some(record.clone()));
        for at in 0..text.len() {
            assert_eq!(Record::parse(&text.as_bytes()[..at]), None, "cut at {at}");
            let mut zeroed = text.clone().into_bytes();
            zeroed[at..].fill(0);
            assert_eq!(Record::parse(&zeroed), None, "zeroes from {at}");
        }
        assert_eq!(record.bucket(), Path::new("keys/2026-11-22T1500Z"));
    }
}
