//! What is known of messages that wait for their release, in one file of `state/`.
//!
//! A bucket further ahead than any delay holds releases, and messages that a wrong clock put
//! there. Only `info/transport/<id>` tells them apart, and without this file each pass would open
//! it for every message that waits. The time of a release never changes and an id is never used
//! again, so an entry cannot become untrue. The file is a help only: it is not synced, it has a
//! checksum, and if it is lost or damaged, the next pass looks at each message again.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::part::Part;
use super::{Queue, Spool};
use crate::disk;
use crate::message::QueueId;
use crate::queue::Bucket;

/// The file. A line is a bucket and the ids of messages that are released then; the last line is a
/// checksum of those above it.
pub(crate) const FILE: &str = "state/releases";

/// The most octets of the file: 1.8 million messages. If more wait, each pass looks at the others.
const MOST: u64 = 64 << 20;

const CHECKSUM: &str = "xxh128 ";

/// Messages of which a pass knows that they stand where they do until they are released.
#[derive(Debug, Default)]
pub struct Releases {
    /// What the file says and this pass has not come to.
    read: BTreeMap<Bucket, HashSet<QueueId>>,
    /// How many entries the file has.
    entries: usize,
    /// Something stands under the file's name, whole or damaged.
    is_there: bool,
    /// What this pass has found.
    found: BTreeMap<Bucket, Vec<QueueId>>,
    /// Found, and not in the file.
    is_news: bool,
}

/// What the file says, or nothing if it is not whole.
fn parse(bytes: &[u8]) -> Option<BTreeMap<Bucket, HashSet<QueueId>>> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (lines, last) = text.rsplit_once('\n')?;
    let sum = last.strip_prefix(CHECKSUM)?;
    if sum != checksum(&bytes[..lines.len() + 1]) {
        return None;
    }
    let mut read: BTreeMap<_, HashSet<_>> = BTreeMap::new();
    for line in lines.lines() {
        let mut words = line.split(' ');
        let bucket: Bucket = words.next()?.parse().ok()?;
        let ids: Result<Vec<QueueId>, _> = words.map(str::parse).collect();
        read.entry(bucket).or_default().extend(ids.ok()?);
    }
    Some(read)
}

/// The text of the file: as many entries as it may have.
fn text(found: &BTreeMap<Bucket, Vec<QueueId>>) -> String {
    /// A space and an id; the checksum and the longest bucket's name with their line ends.
    const ENTRY: usize = 1 + QueueId::LEN;
    const REST: usize = 64;
    let mut text = String::new();
    for (bucket, ids) in found {
        let room = (MOST as usize).saturating_sub(text.len() + REST) / ENTRY;
        if room == 0 {
            break;
        }
        text.push_str(&bucket.to_string());
        for id in ids.iter().take(room) {
            text.push(' ');
            text.push_str(&id.to_string());
        }
        text.push('\n');
    }
    let sum = checksum(text.as_bytes());
    text + CHECKSUM + &sum + "\n"
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes))
}

impl Releases {
    /// Takes those out of `ids`, which stand in this bucket of `deferred/`, that wait there for
    /// their release. Opens none that it knows.
    pub fn take_out(&mut self, spool: &Spool, bucket: Bucket, ids: &mut Vec<QueueId>) {
        let known = self.read.remove(&bucket).unwrap_or_default();
        let mut held = Vec::new();
        ids.retain(|id| {
            let is_known = known.contains(id);
            // What cannot be read is found out when it is taken.
            let is_held = is_known || spool.is_released_at(*id, bucket).unwrap_or(false);
            self.is_news |= is_held && !is_known;
            if is_held {
                held.push(*id);
            }
            !is_held
        });
        if !held.is_empty() {
            self.found.insert(bucket, held);
        }
    }

    /// Keeps what was found for the next pass, if that is not in the file, and lets go of the file
    /// when nothing waits any more. Entries of messages that have left are harmless; the file is
    /// written without them when they are the larger part.
    pub fn keep(&self, spool: &Spool) -> disk::Result<()> {
        let count: usize = self.found.values().map(Vec::len).sum();
        if count == 0 {
            return if self.is_there {
                spool.forget_releases().map(drop)
            } else {
                Ok(())
            };
        }
        if !self.is_news && self.entries <= 2 * count {
            return Ok(());
        }
        let dir = Path::new("state");
        spool.disk.mkdir(dir)?;
        let part = Part::unsynced(&spool.disk, dir, "", text(&self.found).as_bytes())?;
        part.rename_to(Path::new(FILE))
    }
}

impl Spool {
    /// What earlier passes have found out about messages that wait for their release; nothing if
    /// that is lost or damaged.
    ///
    /// # Errors
    /// If the system does not let us read it; nothing is known then.
    pub fn releases(&self) -> (Releases, Option<disk::Error>) {
        let mut releases = Releases {
            is_there: true,
            ..Releases::default()
        };
        match self.disk.read_all(Path::new(FILE), MOST) {
            Ok(bytes) => releases.read = parse(&bytes).unwrap_or_default(),
            Err(error) if error.is_absent() => releases.is_there = false,
            Err(error) => return (releases, Some(error)),
        }
        releases.entries = releases.read.values().map(HashSet::len).sum();
        (releases, None)
    }

    /// Whether the submitter of a message wanted it to be released at the minute of this bucket.
    pub(crate) fn is_released_at(&self, id: QueueId, bucket: Bucket) -> disk::Result<bool> {
        let block = self.peek(id, Queue::Deferred(bucket))?;
        let release = block.and_then(|block| block.envelope.submission.release);
        Ok(release.map(Bucket::for_time) == Some(bucket))
    }

    /// Removes the file, whatever it says: the next pass looks at each message again. False if it
    /// was not there.
    pub(crate) fn forget_releases(&self) -> disk::Result<bool> {
        self.disk.unlink(Path::new(FILE))
    }

    /// What is wrong with the file, if anything is.
    pub(crate) fn wrong_releases(&self) -> disk::Result<Option<Wrong>> {
        let path = Path::new(FILE);
        let bytes = match self.disk.read_all(path, MOST) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other?,
        };
        match parse(&bytes) {
            None => Ok(Some(Wrong::Damaged)),
            Some(read) => Ok(self.untrue_release(&read)?.map(Wrong::Untrue)),
        }
    }

    /// A message that the file makes wait, and its envelope does not.
    fn untrue_release(
        &self,
        read: &BTreeMap<Bucket, HashSet<QueueId>>,
    ) -> disk::Result<Option<QueueId>> {
        for (bucket, ids) in read {
            let standing = self.ids_in(Queue::Deferred(*bucket))?;
            for id in standing.into_iter().filter(|id| ids.contains(id)) {
                match self.is_released_at(id, *bucket) {
                    Ok(false) => return Ok(Some(id)),
                    Ok(true) => {}
                    // One that has left meanwhile is not held by the file.
                    Err(error) if error.is_absent() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }
}

/// What is wrong with the file of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is not whole, as a power cut may leave it.
    Damaged,
    /// It makes this message wait, whose envelope says otherwise. No crash leaves that.
    Untrue(QueueId),
}
