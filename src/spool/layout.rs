//! Names and directories: the only module that knows where files are in a spool.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::message::seal::MAX_BLOCK;
use crate::message::{QueueId, Seal};
use crate::queue::{Bucket, QueueUntil};

/// The version of the layout that this program writes and reads.
pub(super) const VERSION: &str = Seal::VERSION;
/// The file that holds the version.
pub(super) const VERSION_FILE: &str = "version";

/// The directories that hold message files, or buckets of them.
pub(super) const PLACES: &[&str] = &[
    "new",
    "staged",
    "incoming",
    "active",
    "deferred",
    "frozen",
    "discarded",
    "corrupt",
    "done",
];

/// The directories of a message's other files.
pub(super) const FILES: &[&str] = &["history", "requests"];

/// The directories of the view. A missing one is made again when a view is written.
pub(super) const VIEW: &[&str] = &["info", "info/sender", "info/recipients", "info/transport"];

/// Submission keys. Spools made by older programs lack these directories.
pub(super) const KEYS: &str = "keys";
/// Keys of messages about to be accepted.
pub(super) const INTENDED_KEYS: &str = "keys/new";
/// The locks of keys.
pub(super) const KEY_LOCKS: &str = "keys/lock";

/// The directory that a message file is in.
///
/// The order is the order in which a message passes through the queues. If a power cut leaves a message with
/// two names, the later queue is valid: the message had reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// `new/`: being written.
    New,
    /// `staged/`: a notice that its origin has not recorded yet.
    Staged,
    /// `incoming/`: accepted from an MTA.
    Incoming,
    /// `active/`: to be attempted, or being attempted.
    Active,
    /// `deferred/<due>/`: to be attempted at `due`.
    Deferred(Bucket),
    /// `frozen/<until>/`: held until then.
    Frozen(Bucket),
    /// `discarded/<until>/`: removed from delivery, to be forgotten then.
    Discarded(Bucket),
    /// `corrupt/`: in quarantine.
    Corrupt,
    /// `done/`: finished, to be forgotten.
    Done,
}

/// The queues that have buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketQueue {
    /// `deferred/`.
    Deferred,
    /// `frozen/`.
    Frozen,
    /// `discarded/`.
    Discarded,
}

impl BucketQueue {
    /// All of them.
    pub const ALL: [BucketQueue; 3] = [
        BucketQueue::Deferred,
        BucketQueue::Frozen,
        BucketQueue::Discarded,
    ];

    /// The directory's name.
    pub fn as_str(self) -> &'static str {
        match self {
            BucketQueue::Deferred => "deferred",
            BucketQueue::Frozen => "frozen",
            BucketQueue::Discarded => "discarded",
        }
    }

    /// One of its buckets.
    pub fn queue(self, bucket: Bucket) -> Queue {
        match self {
            BucketQueue::Deferred => Queue::Deferred(bucket),
            BucketQueue::Frozen => Queue::Frozen(bucket),
            BucketQueue::Discarded => Queue::Discarded(bucket),
        }
    }
}

impl Queue {
    /// The queues without buckets, in the order in which a message passes through them.
    pub const FIXED: [Queue; 6] = [
        Queue::New,
        Queue::Staged,
        Queue::Incoming,
        Queue::Active,
        Queue::Corrupt,
        Queue::Done,
    ];

    /// The queue's name without its bucket, as `list` shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Queue::New => "new",
            Queue::Staged => "staged",
            Queue::Incoming => "incoming",
            Queue::Active => "active",
            Queue::Deferred(_) => BucketQueue::Deferred.as_str(),
            Queue::Frozen(_) => BucketQueue::Frozen.as_str(),
            Queue::Discarded(_) => BucketQueue::Discarded.as_str(),
            Queue::Corrupt => "corrupt",
            Queue::Done => "done",
        }
    }

    fn bucket(&self) -> Option<&Bucket> {
        match self {
            Queue::Deferred(bucket) | Queue::Frozen(bucket) | Queue::Discarded(bucket) => {
                Some(bucket)
            }
            _ => None,
        }
    }

    /// The parent directory of the bucket, if the queue is one.
    pub(super) fn bucket_parent(&self) -> Option<&'static str> {
        self.bucket().map(|_| self.as_str())
    }

    /// The directory.
    pub fn dir(&self) -> PathBuf {
        match self.bucket() {
            Some(bucket) => PathBuf::from(format!("{}/{bucket}", self.as_str())),
            None => PathBuf::from(self.as_str()),
        }
    }

    /// Returns the queue that has this directory.
    pub fn of_dir(dir: &Path) -> Option<Queue> {
        let bucket = |kept: &BucketQueue| {
            let name = dir.strip_prefix(kept.as_str()).ok()?.to_str()?;
            Some(kept.queue(name.parse().ok()?))
        };
        let fixed = Queue::FIXED.into_iter();
        let mut all = fixed.chain(BucketQueue::ALL.iter().filter_map(bucket));
        all.find(|queue| queue.dir() == dir)
    }

    /// The path of the message file.
    pub fn path(&self, id: QueueId) -> PathBuf {
        match self.bucket() {
            Some(bucket) => file(format_args!("{}/{bucket}", self.as_str()), id),
            None => file(format_args!("{}", self.as_str()), id),
        }
    }
}

/// Returns the path of a message's file in a directory. The capacity, in octets, fits every such path: each
/// step of a delivery makes one.
fn file(dir: fmt::Arguments<'_>, id: QueueId) -> PathBuf {
    const LONGEST: usize = 96;
    let mut path = String::with_capacity(LONGEST);
    let _ = write!(path, "{dir}/{id}");
    PathBuf::from(path)
}

impl From<QueueUntil> for Queue {
    fn from(queue_until: QueueUntil) -> Queue {
        match queue_until {
            QueueUntil::Deferred(next) => Queue::Deferred(Bucket::for_time(next)),
            QueueUntil::Frozen(until) => {
                Queue::Frozen(until.map_or(Bucket::Never, Bucket::for_time))
            }
            QueueUntil::Discarded(until) => Queue::Discarded(Bucket::for_time(until)),
        }
    }
}

/// A message's files other than the message file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    /// A part of the view.
    Sender,
    /// A part of the view.
    Recipients,
    /// A part of the view.
    Transport,
    /// The recorded events.
    History,
    /// An operator's action that waits to be carried out.
    Request,
}

impl Info {
    /// The files that show a message to people.
    pub(super) const VIEW: [Info; 3] = [Info::Sender, Info::Recipients, Info::Transport];

    /// Most octets read from such a file; a larger one is an error. For the view: the size of a block. For
    /// the history: the most recipients in 40 attempts, with long replies.
    pub(super) fn most(self) -> u64 {
        match self {
            Info::Sender | Info::Transport | Info::Recipients => MAX_BLOCK,
            Info::History => 256 << 20,
            Info::Request => 1 << 20,
        }
    }

    pub(super) fn dir(self) -> &'static str {
        match self {
            Info::Sender => "info/sender",
            Info::Recipients => "info/recipients",
            Info::Transport => "info/transport",
            Info::History => "history",
            Info::Request => "requests",
        }
    }

    pub(super) fn path(self, id: QueueId) -> PathBuf {
        file(format_args!("{}", self.dir()), id)
    }
}

/// The temporary name of a history that is being rewritten.
pub(super) fn history_part(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}.part", Info::History.dir()))
}

/// The file with the reason why a message is in `corrupt/`.
pub(super) fn reason_path(id: QueueId) -> PathBuf {
    PathBuf::from(format!("corrupt/{id}.reason"))
}

/// Returns a readable file name that no other text has.
pub(super) fn file_name(text: &str) -> String {
    /// Octets. File systems allow 255; a prefix or suffix must fit. Longer names are cut and end in a hash.
    const LONGEST: usize = 200;
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':' | b'@' => {
                name.push(char::from(byte));
            }
            b'.' if !name.is_empty() => name.push('.'),
            _ => name += &format!("%{byte:02x}"),
        }
    }
    if name.len() > LONGEST {
        let hash = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
        name.truncate(LONGEST - 33);
        name += &format!("%{hash:032x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_found_by_its_directory() {
        let minute = "2026-11-22T1405Z".parse().unwrap();
        let mut all = Queue::FIXED.to_vec();
        for kept in BucketQueue::ALL {
            all.extend([kept.queue(minute), kept.queue(Bucket::Never)]);
        }
        for queue in all {
            assert_eq!(Queue::of_dir(&queue.dir()), Some(queue));
        }
        for dir in [
            "",
            "info/sender",
            "deferred",
            "deferred/x",
            "frozen/never/x",
            "active/never",
        ] {
            assert_eq!(Queue::of_dir(Path::new(dir)), None, "{dir}");
        }
    }
}
