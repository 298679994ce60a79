//! Names and directories: the only module that knows where files are in a spool.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::message::seal::MAX_BLOCK;
use crate::message::{QueueId, Seal};
use crate::queue::{Bucket, QueueUntil};

/// The version of the layout that this program writes and reads.
pub(crate) const VERSION: &str = Seal::VERSION;
/// The file that holds the version.
pub(crate) const VERSION_FILE: &str = "version";
/// The prefix of the version file's temporary name.
pub(crate) const VERSION_PART: &str = "version.";
/// The configuration, unless it is elsewhere.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// The Maildir to which the default configuration delivers.
const OUTBOX: &str = "outbox";

/// The directories that hold message files, or buckets of them, in the order in which they are made.
pub(crate) const PLACES: &[&str] = &[
    Queue::New.as_str(),
    Queue::Staged.as_str(),
    Queue::Incoming.as_str(),
    Queue::Active.as_str(),
    BucketQueue::Deferred.as_str(),
    BucketQueue::Frozen.as_str(),
    BucketQueue::Discarded.as_str(),
    Queue::Corrupt.as_str(),
    Queue::Done.as_str(),
];

/// The directories in which messages and requests appear for a runner that watches.
pub(crate) const WATCHED: &[&str] = &[
    Queue::Incoming.as_str(),
    Queue::Active.as_str(),
    BucketQueue::Deferred.as_str(),
    Info::Request.dir(),
];

/// The directories of a message's other files.
pub(crate) const FILES: &[&str] = &[Info::History.dir(), Info::Request.dir()];

/// The directory of the view.
pub(crate) const INFO: &str = "info";
/// The directories of the view. A missing one is made again when a view is written.
pub(crate) const VIEW: &[&str] = &[
    INFO,
    Info::Sender.dir(),
    Info::Recipients.dir(),
    Info::Transport.dir(),
];

/// Submission keys. Spools made by older programs lack these directories.
pub(crate) const KEYS: &str = "keys";
/// Keys of messages about to be accepted.
pub(crate) const INTENDED_KEYS: &str = "keys/new";
/// The locks of keys.
pub(crate) const KEY_LOCKS: &str = "keys/lock";

/// The directory of the reserve.
pub(crate) const RESERVE: &str = "reserve";
/// Exists while the reserve is being filled, and after a kill during that.
pub(crate) const RESERVE_FILLING: &str = "reserve/filling";

/// The directory of the suspensions.
pub(crate) const SUSPENDED: &str = "suspended";
/// The beginning of the file name of a transport's suspension.
pub(crate) const SUSPENDED_TRANSPORT: &str = "transport=";
/// The file that suspends all mail. Only names of transports contain another equals sign.
pub(crate) const SUSPENDED_ALL: &str = "all=";

/// The directory of what may be deleted at any time.
pub(crate) const STATE: &str = "state";
/// The boot since which the view is complete.
pub(crate) const BOOT: &str = "state/boot";
/// The records of destinations that are down.
pub(crate) const DOWN: &str = "state/down";
/// The cache of the messages that wait for their release.
pub(crate) const RELEASES: &str = "state/releases";
/// The name of the slots that bound background attempts.
pub(crate) const ATTEMPT_SLOT: &str = "attempt";
/// The name of the slot of the resident process.
pub(crate) const RESIDENT_SLOT: &str = "resident";
/// The directory of the connection slots of destinations, in `state/`.
const CONNECTION_SLOTS: &str = "to";
/// The directory of the slots of transports, in `state/`.
const TRANSPORT_SLOTS: &str = "by";
/// The directory of the slots of probes, in `state/`.
const PROBE_SLOTS: &str = "probe";

/// The suffix of a temporary name.
pub(crate) const PART: &str = ".part";

/// The directories that a spool may lack: older programs did not make all of them.
pub(crate) const OPTIONAL: &[&str] = &[STATE, KEYS, INTENDED_KEYS, KEY_LOCKS, SUSPENDED, RESERVE];

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
    pub const fn as_str(self) -> &'static str {
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
    pub const fn as_str(&self) -> &'static str {
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
    pub(crate) fn bucket_parent(&self) -> Option<&'static str> {
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
pub(crate) enum Info {
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
    pub(crate) const VIEW: [Info; 3] = [Info::Sender, Info::Recipients, Info::Transport];

    /// All of them.
    pub(crate) const ALL: [Info; 5] = [
        Info::Sender,
        Info::Recipients,
        Info::Transport,
        Info::History,
        Info::Request,
    ];

    /// Most octets read from such a file; a larger one is an error. For the view: the size of a block. For
    /// the history: the most recipients in 40 attempts, with long replies.
    pub(crate) fn most(self) -> u64 {
        match self {
            Info::Sender | Info::Transport | Info::Recipients => MAX_BLOCK,
            Info::History => 256 << 20,
            Info::Request => 1 << 20,
        }
    }

    /// The directory.
    pub(crate) const fn dir(self) -> &'static str {
        match self {
            Info::Sender => "info/sender",
            Info::Recipients => "info/recipients",
            Info::Transport => "info/transport",
            Info::History => "history",
            Info::Request => "requests",
        }
    }

    /// The path of a message's file.
    pub(crate) fn path(self, id: QueueId) -> PathBuf {
        file(format_args!("{}", self.dir()), id)
    }
}

/// The temporary name of a history that is being rewritten.
pub(crate) fn history_part(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}{PART}", Info::History.dir()))
}

/// The ends of the names of files beside a message in `corrupt/`.
const REASON: &str = "reason";
const STRAY_HISTORY: &str = "history";
const STRAY_REQUEST: &str = "request";

/// The file with the reason why a message is in `corrupt/`.
pub(crate) fn reason_path(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}.{REASON}", Queue::Corrupt.as_str()))
}

/// The file in `corrupt/` for the history of a message that is gone.
pub(crate) fn stray_history(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}.{STRAY_HISTORY}", Queue::Corrupt.as_str()))
}

/// The file in `corrupt/` for a request that cannot be read.
pub(crate) fn stray_request(id: QueueId) -> PathBuf {
    PathBuf::from(format!("{}/{id}.{STRAY_REQUEST}", Queue::Corrupt.as_str()))
}

/// The directory of the keys that expire at an hour.
pub(crate) fn key_bucket(hour: Bucket) -> PathBuf {
    Path::new(KEYS).join(hour.to_string())
}

/// A file of the reserve.
pub(crate) fn reserve_file(n: usize) -> PathBuf {
    PathBuf::from(format!("{RESERVE}/{n:02}"))
}

/// One of the slots with a name.
pub(crate) fn slot(name: &str, number: usize) -> PathBuf {
    PathBuf::from(format!("{STATE}/{name}-{number}"))
}

/// The name of a destination's connection slots.
pub(crate) fn connection_slots(destination: &str) -> String {
    format!("{CONNECTION_SLOTS}/{}", file_name(destination))
}

/// The name of the slot for the probe of a destination.
pub(crate) fn probe_slot(destination: &str) -> String {
    format!("{PROBE_SLOTS}/{}", file_name(destination))
}

/// The name of a transport's slots.
pub(crate) fn transport_slots(transport: &str) -> String {
    format!("{TRANSPORT_SLOTS}/{}", file_name(transport))
}

/// Returns a readable file name that no other text has.
pub(crate) fn file_name(text: &str) -> String {
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

/// Whether mailspool uses a name in the spool's top directory.
pub(crate) fn is_root_name(name: &str) -> bool {
    let others = [VERSION_FILE, CONFIG_FILE, OUTBOX, INFO];
    let optional = OPTIONAL.iter().filter(|dir| !dir.contains('/'));
    let mut all = others.iter().chain(PLACES).chain(FILES).chain(optional);
    all.any(|known| *known == name)
}

/// Whether a name is one of the directories in `info/`.
pub(crate) fn is_info_name(name: &str) -> bool {
    is_below(INFO, name, VIEW)
}

/// Whether a name is one of the directories in `keys/` that are no buckets.
pub(crate) fn is_key_dir(name: &str) -> bool {
    is_below(KEYS, name, &[INTENDED_KEYS, KEY_LOCKS])
}

/// Whether a name in `reserve/` is one that mailspool uses.
pub(crate) fn is_reserve_name(name: &str) -> bool {
    let is_number = name.len() == 2 && name.bytes().all(|b| b.is_ascii_digit());
    is_number || is_below(RESERVE, name, &[RESERVE_FILLING])
}

/// Whether a name in `state/` is known: the boot with a complete view, slots, and the records of destinations
/// and releases.
pub(crate) fn is_state_name(name: &str) -> bool {
    let is_attempt = || {
        let number = name.strip_prefix(ATTEMPT_SLOT)?.strip_prefix('-')?;
        number.parse::<u32>().ok()
    };
    [CONNECTION_SLOTS, TRANSPORT_SLOTS, PROBE_SLOTS].contains(&name)
        || is_below(STATE, name, &[BOOT, DOWN, RELEASES])
        || Path::new(STATE).join(name) == slot(RESIDENT_SLOT, 0)
        || is_attempt().is_some()
}

/// Whether a name in `corrupt/` is `<id>.reason`, or `<id>.history` or `<id>.request` with an optional number,
/// as a repair makes them.
pub(crate) fn is_beside_an_id(name: &str) -> bool {
    let Some((id, what)) = name.split_once('.') else {
        return false;
    };
    let (what, number) = what.split_once('.').unwrap_or((what, "1"));
    id.parse::<QueueId>().is_ok()
        && [REASON, STRAY_HISTORY, STRAY_REQUEST].contains(&what)
        && number.parse::<u32>().is_ok_and(|n| n.to_string() == number)
}

/// Whether a name in a directory makes one of these paths.
fn is_below(dir: &str, name: &str, paths: &[&str]) -> bool {
    paths.iter().any(|path| {
        let below = path
            .strip_prefix(dir)
            .and_then(|path| path.strip_prefix('/'));
        below == Some(name)
    })
}

#[cfg(test)]
mod tests;
