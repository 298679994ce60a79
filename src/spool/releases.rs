//! A cache of the messages that wait for their release, in one file of `state/`. Each line is a bucket and
//! the ids of the messages released then. The last line is a checksum of the lines above it.
//!
//! A bucket later than the longest delay holds messages that wait for their release, and messages that a
//! wrong clock put there. Only `info/transport/<id>` tells them apart, and without this file each pass would
//! open it for every waiting message. The time of a release never changes and an id is never reused, so an
//! entry cannot become wrong. The file is only an optimization: it is not synced, and it has a checksum. If
//! it is lost or damaged, the next pass examines each message again.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::Spool;
use super::layout::{Queue, RELEASES, STATE};
use super::part::Part;
use crate::disk;
use crate::message::QueueId;
use crate::queue::Bucket;

/// Most octets of the file: 1.8 million messages. Further messages are examined in each pass.
const MOST: u64 = 64 << 20;

const CHECKSUM: &str = "xxh128 ";

/// Messages that a pass knows to be in `deferred/` until their release.
#[derive(Debug, Default)]
pub struct Releases {
    /// Entries of the file that this pass has not reached yet.
    read: BTreeMap<Bucket, HashSet<QueueId>>,
    /// The number of entries in the file.
    entries: usize,
    /// The file exists, intact or damaged.
    is_there: bool,
    /// The waiting messages that this pass has found.
    found: BTreeMap<Bucket, Vec<QueueId>>,
    /// Some of them are not in the file.
    is_news: bool,
}

/// Returns the entries of the file, or `None` if it is damaged.
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

/// Returns the text of the file, with as many entries as fit.
fn text(found: &BTreeMap<Bucket, Vec<QueueId>>) -> String {
    /// Octets of a space and an id, and of the checksum and the longest bucket name with their line ends.
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
    /// Removes from `ids`, which are in this bucket of `deferred/`, the messages that wait for their release.
    /// Does not open messages that are in the file.
    pub fn take_out(&mut self, spool: &Spool, bucket: Bucket, ids: &mut Vec<QueueId>) {
        let known = self.read.remove(&bucket).unwrap_or_default();
        let mut held = Vec::new();
        ids.retain(|id| {
            let is_known = known.contains(id);
            // An unreadable message is reported when it is claimed.
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

    /// Writes the found messages for the next pass, if the file lacks some, and removes the file if nothing
    /// waits. Entries of messages that have left are harmless; the file is rewritten if they are the larger
    /// part.
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
        let dir = Path::new(STATE);
        spool.disk.mkdir(dir)?;
        let part = Part::unsynced(&spool.disk, dir, "", text(&self.found).as_bytes())?;
        part.rename_to(Path::new(RELEASES))
    }
}

impl Spool {
    /// Reads which messages earlier passes found waiting for their release. The result is empty if the file
    /// is lost or damaged, or, with the error, if it cannot be read.
    pub fn releases(&self) -> (Releases, Option<disk::Error>) {
        let mut releases = Releases {
            is_there: true,
            ..Releases::default()
        };
        match self.disk.read_all(Path::new(RELEASES), MOST) {
            Ok(bytes) => releases.read = parse(&bytes).unwrap_or_default(),
            Err(error) if error.is_absent() => releases.is_there = false,
            Err(error) => return (releases, Some(error)),
        }
        releases.entries = releases.read.values().map(HashSet::len).sum();
        (releases, None)
    }

    /// Whether the submitter set the release of a message to the minute of this bucket.
    pub(crate) fn is_released_at(&self, id: QueueId, bucket: Bucket) -> disk::Result<bool> {
        let block = self.peek(id, Queue::Deferred(bucket))?;
        let release = block.and_then(|block| block.envelope.submission.release);
        Ok(release.map(Bucket::for_time) == Some(bucket))
    }

    /// Removes the file: the next pass examines each message again. Returns false if there was no file.
    pub(crate) fn forget_releases(&self) -> disk::Result<bool> {
        self.disk.unlink(Path::new(RELEASES))
    }

    /// Returns what is wrong with the file, if anything.
    pub(crate) fn wrong_releases(&self) -> disk::Result<Option<Wrong>> {
        let path = Path::new(RELEASES);
        let bytes = match self.disk.read_all(path, MOST) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other?,
        };
        match parse(&bytes) {
            None => Ok(Some(Wrong::Damaged)),
            Some(read) => Ok(self.untrue_release(&read)?.map(Wrong::Untrue)),
        }
    }

    /// Returns a message that the file lists as waiting although its envelope does not say so.
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
                    // A message that has left meanwhile is not held back by the file.
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
    /// The file is damaged, as a power cut may leave it.
    Damaged,
    /// The file lists this message as waiting, but the envelope says otherwise. No crash causes this.
    Untrue(QueueId),
}
