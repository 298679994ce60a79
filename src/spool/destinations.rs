//! State of destinations and their hosts: which could not be reached, and how many connections each has.
//!
//! A host is recorded like a destination, under its transport's name for it: address and port. Several
//! destinations may share a host. A destination that is itself a host has a single record.
//!
//! All files are in `state/` and are only an optimization. Without them each message for a dead host waits
//! for it again. With wrong content a message waits at most [`Down::LONGEST`]. So nothing here is synced, and
//! unreadable files are ignored.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Spool;
use super::layout::{DOWN, STATE, connection_slots, file_name, probe_slot};
use super::part::Part;
use super::slots::Slot;
use crate::disk;

/// A destination: a transport of the configuration, and the next hop that it names for a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// The transport's name.
    pub transport: String,
    /// The next hop, as the transport names it.
    #[serde(rename = "destination")]
    pub next_hop: String,
}

/// A destination that could not be reached, and is not tried until the next probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The destination, or one of its hosts.
    #[serde(flatten)]
    pub destination: Destination,
    /// When it was first found down.
    pub since: Timestamp,
    /// When to try it again, with one message first.
    pub probe: Timestamp,
    /// When it was last tried.
    pub tried: Timestamp,
    /// How many attempts have failed since.
    pub tries: u32,
    /// The last reply or error.
    pub reply: String,
    /// The hosts that are down, as the transport names them. Empty if this is itself a host, or if the hosts
    /// could not be determined. As soon as one of them is no longer down, the destination may be tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Most octets read from an entry. Replies are truncated to fit; a larger file is an error.
const MOST: u64 = 64 << 10;

impl Destination {
    /// Returns the record key of a host of this destination.
    #[must_use]
    pub fn host(&self, key: &str) -> Destination {
        Destination {
            transport: self.transport.clone(),
            next_hop: key.to_owned(),
        }
    }

    /// Returns a readable file name that no other destination has.
    fn file_name(&self) -> String {
        file_name(&self.to_string())
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.transport, self.next_hop)
    }
}

impl Down {
    /// The first wait. It doubles with each failed attempt, up to [`LONGEST`](Down::LONGEST).
    pub const FIRST: SignedDuration = SignedDuration::from_mins(5);
    /// The longest wait between probes.
    pub const LONGEST: SignedDuration = SignedDuration::from_hours(1);

    /// Returns the record after another failed attempt, or a new record if there was none `before`.
    #[must_use]
    pub fn again(
        before: Option<Down>,
        destination: &Destination,
        reply: &str,
        now: Timestamp,
    ) -> Down {
        let (since, tries) = match &before {
            Some(down) => (down.since.min(now), down.tries.saturating_add(1)),
            None => (now, 1),
        };
        let wait = Down::FIRST * 2_i32.pow((tries - 1).min(8));
        Down {
            destination: destination.clone(),
            since,
            tried: now,
            probe: now.saturating_add(wait.min(Down::LONGEST)).unwrap_or(now),
            tries,
            reply: reply.to_owned(),
            hosts: Vec::new(),
        }
    }

    /// Whether to leave the destination alone now. A probe later than the longest wait was written under a
    /// wrong clock, and is due.
    #[must_use]
    pub fn is_left_alone(&self, now: Timestamp) -> bool {
        now < self.probe && self.probe.duration_since(now) <= Down::LONGEST
    }
}

/// Why it is unknown whether a destination is down.
#[derive(Debug, thiserror::Error)]
pub enum Forgotten {
    /// The file cannot be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The file's content is invalid, or is about another destination.
    #[error("{} is damaged, so the state of its destination is unknown", .0.display())]
    Damaged(PathBuf),
}

impl Spool {
    /// Returns the record of a destination that is down. Unreadable records are ignored.
    pub fn down(&self, destination: &Destination) -> Option<Down> {
        self.recall_down(destination).ok().flatten()
    }

    /// Like [`down`](Spool::down), but reports unreadable records.
    ///
    /// # Errors
    /// If there is a record and it cannot be read.
    pub fn recall_down(&self, destination: &Destination) -> Result<Option<Down>, Forgotten> {
        self.read_down(&destination.file_name())
    }

    /// Whether an entry of [`DOWN`] is damaged. With `remove`, removes it if so.
    pub(crate) fn is_damaged_down(&self, path: &Path, remove: bool) -> disk::Result<bool> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match self.read_down(&name) {
            Ok(_) => Ok(false),
            Err(Forgotten::Disk(error)) => Err(error),
            Err(Forgotten::Damaged(_)) => {
                if remove {
                    // This may remove a record that another process has just rewritten: it is only an
                    // optimization.
                    self.disk.unlink(path)
                } else {
                    Ok(true)
                }
            }
        }
    }

    fn read_down(&self, name: &str) -> Result<Option<Down>, Forgotten> {
        let path = Path::new(DOWN).join(name);
        let bytes = match self.disk.read_all(&path, MOST) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other?,
        };
        let down = serde_json::from_slice::<Down>(&bytes).ok();
        let down = down.filter(|down| down.destination.file_name() == name);
        down.map(Some)
            .ok_or_else(|| Forgotten::Damaged(self.path().join(path)))
    }

    /// Records that a destination is down. Written to a temporary name and renamed, so that no process reads
    /// half a file.
    pub fn remember_down(&self, down: &Down) -> disk::Result<()> {
        self.disk.mkdir(Path::new(STATE))?;
        self.disk.mkdir(Path::new(DOWN))?;
        let path = Path::new(DOWN).join(down.destination.file_name());
        let text = serde_json::to_vec(down).unwrap_or_default();
        Part::unsynced(&self.disk, Path::new(DOWN), "", &text)?.rename_to(&path)
    }

    /// Returns the record of a destination, taking its hosts into account: if its hosts are down, the
    /// destination is due as soon as one of them is.
    pub(crate) fn recall_down_now(
        &self,
        destination: &Destination,
        now: Timestamp,
    ) -> Result<Option<Down>, Forgotten> {
        let Some(mut down) = self.recall_down(destination)? else {
            return Ok(None);
        };
        let is_up = |key: &String| {
            let host = self.down(&destination.host(key));
            host.is_none_or(|host| !host.is_left_alone(now))
        };
        if down.is_left_alone(now) && down.hosts.iter().any(is_up) {
            down.probe = now;
        }
        Ok(Some(down))
    }

    /// Forgets that a destination is down. Returns false if it was not recorded as down.
    pub fn forget_down(&self, destination: &Destination) -> disk::Result<bool> {
        self.disk
            .unlink(&Path::new(DOWN).join(destination.file_name()))
    }

    /// All destinations that are down, by name.
    pub fn all_down(&self) -> disk::Result<Vec<Down>> {
        let names = self.names_in(Path::new(DOWN))?;
        let names = names.iter().filter_map(|name| name.to_str());
        let mut all: Vec<Down> = names
            .filter_map(|name| self.read_down(name).ok().flatten())
            .collect();
        all.sort_by(|a, b| a.destination.cmp(&b.destination));
        Ok(all)
    }

    /// Takes one of the `most` connection slots of a destination, shared by all processes, if one is free.
    pub fn take_connection(
        &self,
        destination: &Destination,
        most: usize,
    ) -> disk::Result<Option<Slot>> {
        self.take_slot(&connection_slots(&destination.to_string()), most)
    }

    /// Takes the exclusive right, among all processes, to probe a destination, if it is free.
    pub fn take_probe(&self, destination: &Destination) -> disk::Result<Option<Slot>> {
        self.take_slot(&probe_slot(&destination.to_string()), 1)
    }
}

#[cfg(test)]
mod tests;
