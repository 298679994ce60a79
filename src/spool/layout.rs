//! Names and places: the one module that knows where things lie in a spool.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::message::seal::MAX_BLOCK;
use crate::message::{QueueId, Seal};
use crate::queue::{Bucket, QueueUntil};

/// The version of the layout that this program writes and reads.
pub(super) const VERSION: &str = Seal::VERSION;
/// The file that says so.
pub(super) const VERSION_FILE: &str = "version";

/// The directories in which message files stand, or their buckets.
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

/// The directories in which a message's other files lie.
pub(super) const FILES: &[&str] = &["history", "requests"];

/// The directories of the view. One that is missing is made again when something is to be shown.
pub(super) const VIEW: &[&str] = &["info", "info/sender", "info/recipients", "info/transport"];

/// Submission keys. Spools that older programs made have none of these directories.
pub(super) const KEYS: &str = "keys";
/// Those of messages that are about to be accepted.
pub(super) const INTENDED_KEYS: &str = "keys/new";
/// Their locks.
pub(super) const KEY_LOCKS: &str = "keys/lock";

/// Where a message file stands.
///
/// The order is that of a message's way. When a power cut leaves two names of one message, the
/// later place is the true one: it was reached.
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
    /// `deferred/<due>/`: to be attempted then.
    Deferred(Bucket),
    /// `frozen/<until>/`: held.
    Frozen(Bucket),
    /// `discarded/<until>/`: taken out, to be forgotten then.
    Discarded(Bucket),
    /// `corrupt/`: not to be trusted.
    Corrupt,
    /// `done/`: finished, about to go.
    Done,
}

/// The places that have buckets.
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
    /// The places without buckets, in the order of a message's way.
    pub const FIXED: [Queue; 6] = [
        Queue::New,
        Queue::Staged,
        Queue::Incoming,
        Queue::Active,
        Queue::Corrupt,
        Queue::Done,
    ];

    /// The place's name without its bucket, as `list` shows it.
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

    /// The directory that holds the bucket, if the place is one.
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

    /// The place that has this directory.
    pub fn of_dir(dir: &Path) -> Option<Queue> {
        let bucket = |kept: &BucketQueue| {
            let name = dir.strip_prefix(kept.as_str()).ok()?.to_str()?;
            Some(kept.queue(name.parse().ok()?))
        };
        let fixed = Queue::FIXED.into_iter();
        let mut all = fixed.chain(BucketQueue::ALL.iter().filter_map(bucket));
        all.find(|queue| queue.dir() == dir)
    }

    /// The message file.
    pub fn path(&self, id: QueueId) -> PathBuf {
        match self.bucket() {
            Some(bucket) => file(format_args!("{}/{bucket}", self.as_str()), id),
            None => file(format_args!("{}", self.as_str()), id),
        }
    }
}

/// A message's file in a directory. With enough room from the beginning: each step of a delivery names
/// a file.
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

/// One of a message's other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    /// A part of the view.
    Sender,
    /// A part of the view.
    Recipients,
    /// A part of the view.
    Transport,
    /// What happened.
    History,
    /// What an operator wants done.
    Request,
}

impl Info {
    /// The files that show a message to people.
    pub(super) const VIEW: [Info; 3] = [Info::Sender, Info::Recipients, Info::Transport];

    /// No such file of a message is larger, in octets. The view: all of a block. The history: as many
    /// recipients in 40 attempts, with long replies.
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

/// What a history that is written anew is called until it is whole.
pub(super) fn history_part(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}.part", Info::History.dir()))
}

/// The reason why a message is in `corrupt/`.
pub(super) fn reason_path(id: QueueId) -> PathBuf {
    PathBuf::from(format!("corrupt/{id}.reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_known_by_its_directory() {
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
