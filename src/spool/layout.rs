//! Names and places: the one module that knows where things lie in a spool.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::message::block::MAX_BLOCK;
use crate::message::{QueueId, Seal};
use crate::queue::{Bucket, Resting};

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
pub enum Place {
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
    pub const FIXED: [Place; 6] = [
        Place::New,
        Place::Staged,
        Place::Incoming,
        Place::Active,
        Place::Corrupt,
        Place::Done,
    ];

    /// The place's name without its bucket, as `list` shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Place::New => "new",
            Place::Staged => "staged",
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

impl From<Resting> for Place {
    fn from(resting: Resting) -> Place {
        match resting {
            Resting::Deferred(next) => Place::Deferred(Bucket::for_time(next)),
            Resting::Frozen(until) => Place::Frozen(until.map_or(Bucket::Never, Bucket::for_time)),
            Resting::Discarded(until) => Place::Discarded(Bucket::for_time(until)),
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
