//! Names and places: the one module that knows where things lie in a spool.

use std::path::{Path, PathBuf};

use crate::message::QueueId;
use crate::queue::{Bucket, Resting};

/// The version of the layout that this program writes and reads.
pub(super) const VERSION: &str = "1";
/// The file that says so.
pub(super) const VERSION_FILE: &str = "version";

/// The directories in which message files stand, or their buckets.
pub(super) const PLACES: &[&str] = &[
    "new",
    "incoming",
    "active",
    "deferred",
    "frozen",
    "discarded",
    "corrupt",
    "done",
];

/// The directories in which a message's other files lie.
pub(super) const INFO_DIRS: &[&str] = &[
    "info/sender",
    "info/recipients",
    "info/transport",
    "info/attempts",
    "info/request",
];

/// Submission keys. Spools that older programs made have none of these directories.
pub(super) const KEYS: &str = "keys";
/// Those of messages that are about to be accepted.
pub(super) const INTENDED_KEYS: &str = "keys/new";
/// Their locks.
pub(super) const KEY_LOCKS: &str = "keys/lock";

/// The most octets of `info/recipients/<id>`.
pub const MAX_RECIPIENTS: u64 = 16 << 20;

/// The most octets of `info/transport/<id>`.
pub const MAX_TRANSPORT: u64 = 8 << 20;

/// Where a message file stands.
///
/// The order is that of a message's way. When a power cut leaves two names of one message, the
/// later place is the true one: it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `new/`: being written, or not yet moved on.
    New,
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
pub enum Kept {
    /// `deferred/`.
    Deferred,
    /// `frozen/`.
    Frozen,
    /// `discarded/`.
    Discarded,
}

impl Kept {
    /// All of them.
    pub const ALL: [Kept; 3] = [Kept::Deferred, Kept::Frozen, Kept::Discarded];

    /// The directory's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kept::Deferred => "deferred",
            Kept::Frozen => "frozen",
            Kept::Discarded => "discarded",
        }
    }

    /// One of its buckets.
    pub fn place(self, bucket: Bucket) -> Place {
        match self {
            Kept::Deferred => Place::Deferred(bucket),
            Kept::Frozen => Place::Frozen(bucket),
            Kept::Discarded => Place::Discarded(bucket),
        }
    }
}

impl Place {
    /// The places without buckets, in the order of a message's way.
    pub const FIXED: [Place; 5] = [
        Place::New,
        Place::Incoming,
        Place::Active,
        Place::Corrupt,
        Place::Done,
    ];

    /// The place's name without its bucket, as `list` shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Place::New => "new",
            Place::Incoming => "incoming",
            Place::Active => "active",
            Place::Deferred(_) => Kept::Deferred.as_str(),
            Place::Frozen(_) => Kept::Frozen.as_str(),
            Place::Discarded(_) => Kept::Discarded.as_str(),
            Place::Corrupt => "corrupt",
            Place::Done => "done",
        }
    }

    fn bucket(&self) -> Option<&Bucket> {
        match self {
            Place::Deferred(bucket) | Place::Frozen(bucket) | Place::Discarded(bucket) => {
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
    pub fn of_dir(dir: &Path) -> Option<Place> {
        let bucket = |kept: &Kept| {
            let name = dir.strip_prefix(kept.as_str()).ok()?.to_str()?;
            Some(kept.place(name.parse().ok()?))
        };
        let fixed = Place::FIXED.into_iter();
        let mut all = fixed.chain(Kept::ALL.iter().filter_map(bucket));
        all.find(|place| place.dir() == dir)
    }

    /// The message file.
    pub fn path(&self, id: QueueId) -> PathBuf {
        match self.bucket() {
            Some(bucket) => PathBuf::from(format!("{}/{bucket}/{id}", self.as_str())),
            None => PathBuf::from(format!("{}/{id}", self.as_str())),
        }
    }
}

impl From<Resting> for Place {
    fn from(resting: Resting) -> Place {
        match resting {
            Resting::Deferred(next) => Place::Deferred(Bucket::for_time(next)),
            Resting::Frozen(until) => Place::Frozen(until.map_or(Bucket::Never, Bucket::for_time)),
            Resting::Discarded(until) => Place::Discarded(Bucket::for_time(until)),
        }
    }
}

/// One of a message's files below `info/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    Sender,
    Recipients,
    Transport,
    Attempts,
    Request,
}

impl Info {
    /// The order in which they are removed. The sender goes last: whether a message exists is
    /// asked of `info/sender/<id>`.
    pub(super) const REMOVAL: [Info; 5] = [
        Info::Request,
        Info::Transport,
        Info::Recipients,
        Info::Attempts,
        Info::Sender,
    ];

    /// No such file of a message is larger, in octets. Recipients: 10,000 of the longest kind.
    /// Transport: the longest original address for each of these.
    /// Attempts: as many in 40 attempts, with long replies.
    pub(super) fn most(self) -> u64 {
        match self {
            Info::Sender => 4 << 10,
            Info::Transport => MAX_TRANSPORT,
            Info::Recipients => MAX_RECIPIENTS,
            Info::Attempts => 256 << 20,
            Info::Request => 1 << 20,
        }
    }

    pub(super) fn dir(self) -> &'static str {
        match self {
            Info::Sender => "info/sender",
            Info::Recipients => "info/recipients",
            Info::Transport => "info/transport",
            Info::Attempts => "info/attempts",
            Info::Request => "info/request",
        }
    }

    pub(super) fn path(self, id: QueueId) -> PathBuf {
        PathBuf::from(format!("{}/{id}", self.dir()))
    }
}

/// What a history that is written anew is called until it is whole.
pub(super) fn history_part(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}.part", Info::Attempts.dir()))
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
        let mut all = Place::FIXED.to_vec();
        for kept in Kept::ALL {
            all.extend([kept.place(minute), kept.place(Bucket::Never)]);
        }
        for place in all {
            assert_eq!(Place::of_dir(&place.dir()), Some(place));
        }
        for dir in [
            "",
            "info/sender",
            "deferred",
            "deferred/x",
            "frozen/never/x",
            "active/never",
        ] {
            assert_eq!(Place::of_dir(Path::new(dir)), None, "{dir}");
        }
    }
}
