//! What is remembered of destinations and of their hosts: those that could not be reached, and how
//! many speak to one at once.
//!
//! A host is remembered as a destination is, under the name that its transport has for it: its address
//! and port. Many destinations may share it. A destination that is a host itself is one thing, with
//! one memory.
//!
//! All of it lies in `state/` and is a help only. Without it every message for a dead host
//! waits for it again; with something wrong in it, a message waits until a time that is never
//! further away than [`Down::LONGEST`]. So nothing here is synced, and what cannot be read is
//! nothing.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Spool;
use super::part::Part;
use super::slots::Slot;
use crate::disk;

/// Where mail goes next: a transport of the configuration, and what it says of a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// The transport's name.
    pub transport: String,
    /// The destination, as the transport names it.
    #[serde(rename = "destination")]
    pub next_hop: String,
}

/// A destination that could not be reached, and is left alone until it is probed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Which; or a host that serves destinations.
    #[serde(flatten)]
    pub destination: Destination,
    /// When it was first found to be down.
    pub since: Timestamp,
    /// When it is tried again, by one message first.
    pub probe: Timestamp,
    /// When it was tried last.
    pub tried: Timestamp,
    /// How often it has been tried since.
    pub tries: u32,
    /// What happened last.
    pub reply: String,
    /// The hosts by which it is down, as the transport names them; none if it is a host itself, or if
    /// its hosts could not be found. As soon as one of them is not down it may be tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

const DIR: &str = "state/down";
/// No entry is larger: a reply is cut.
const MOST: u64 = 64 << 10;

impl Destination {
    /// A host of this destination.
    #[must_use]
    pub fn host(&self, key: &str) -> Destination {
        Destination {
            transport: self.transport.clone(),
            next_hop: key.to_owned(),
        }
    }

    /// A name for a file: readable, and of no other hop.
    fn file_name(&self) -> String {
        file_name(&self.to_string())
    }
}

/// A name for a file: readable, and of no other text.
pub(super) fn file_name(text: &str) -> String {
    /// File systems take 255; a prefix or suffix of ours must fit.
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

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.transport, self.next_hop)
    }
}

impl Down {
    /// The first wait; it doubles with each try that fails, up to [`LONGEST`](Down::LONGEST).
    pub const FIRST: SignedDuration = SignedDuration::from_mins(5);
    /// The longest wait.
    pub const LONGEST: SignedDuration = SignedDuration::from_hours(1);

    /// The same after one more try that failed, or a new one after the first.
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

    /// Whether it is to be left alone now. A probe further away than the longest wait was
    /// written by a wrong clock, and is due.
    #[must_use]
    pub fn is_left_alone(&self, now: Timestamp) -> bool {
        now < self.probe && self.probe.duration_since(now) <= Down::LONGEST
    }
}

/// Why it cannot be known whether a destination is down.
#[derive(Debug, thiserror::Error)]
pub enum Forgotten {
    /// The system does not let us read it.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// What stands there is not what was written, or is about another destination.
    #[error("{} is damaged, so nothing is remembered of its destination", .0.display())]
    Damaged(PathBuf),
}

impl Spool {
    /// What is remembered of a destination, if it is down. What cannot be read is nothing.
    pub fn down(&self, destination: &Destination) -> Option<Down> {
        self.recall_down(destination).ok().flatten()
    }

    /// The same, and whether it can be read.
    ///
    /// # Errors
    /// If something is there, and it does not say what is remembered.
    pub fn recall_down(&self, destination: &Destination) -> Result<Option<Down>, Forgotten> {
        self.read_down(&destination.file_name())
    }

    /// Looks whether an entry of [`DIR`](self::DIR) says nothing; with `remove` removes it then.
    pub(crate) fn is_damaged_down(&self, path: &Path, remove: bool) -> disk::Result<bool> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match self.read_down(&name) {
            Ok(_) => Ok(false),
            Err(Forgotten::Disk(error)) => Err(error),
            Err(Forgotten::Damaged(_)) => {
                if remove {
                    // One that is written anew at this moment may go with it: it is a help only.
                    self.disk.unlink(path)
                } else {
                    Ok(true)
                }
            }
        }
    }

    fn read_down(&self, name: &str) -> Result<Option<Down>, Forgotten> {
        let path = Path::new(DIR).join(name);
        let bytes = match self.disk.read_all(&path, MOST) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other?,
        };
        let down = serde_json::from_slice::<Down>(&bytes).ok();
        let down = down.filter(|down| down.destination.file_name() == name);
        down.map(Some)
            .ok_or_else(|| Forgotten::Damaged(self.path().join(path)))
    }

    /// Remembers that a destination is down. Written to a name of its own and renamed, so that
    /// nobody reads half of it.
    pub fn remember_down(&self, down: &Down) -> disk::Result<()> {
        self.disk.mkdir(Path::new("state"))?;
        self.disk.mkdir(Path::new(DIR))?;
        let path = Path::new(DIR).join(down.destination.file_name());
        let text = serde_json::to_vec(down).unwrap_or_default();
        Part::unsynced(&self.disk, Path::new(DIR), "", &text)?.rename_to(&path)
    }

    /// The same, with what it depends on: a destination whose hosts are down may be tried as soon as one
    /// of them may be.
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

    /// Forgets that a destination is down; false if it was not.
    pub fn forget_down(&self, destination: &Destination) -> disk::Result<bool> {
        self.disk
            .unlink(&Path::new(DIR).join(destination.file_name()))
    }

    /// All destinations that are down, by name.
    pub fn all_down(&self) -> disk::Result<Vec<Down>> {
        let names = self.names_in(Path::new(DIR))?;
        let names = names.iter().filter_map(|name| name.to_str());
        let mut all: Vec<Down> = names
            .filter_map(|name| self.read_down(name).ok().flatten())
            .collect();
        all.sort_by(|a, b| a.destination.cmp(&b.destination));
        Ok(all)
    }

    /// Takes one of the `most` places of those who may speak to a destination at once, over all
    /// processes, if one is free.
    pub fn take_connection(
        &self,
        destination: &Destination,
        most: usize,
    ) -> disk::Result<Option<Slot>> {
        self.take_slot(&format!("to/{}", destination.file_name()), most)
    }

    /// Takes the right to probe a destination, over all processes, if nobody has it.
    pub fn take_probe(&self, destination: &Destination) -> disk::Result<Option<Slot>> {
        self.take_slot(&format!("probe/{}", destination.file_name()), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(next_hop: &str) -> Destination {
        Destination {
            transport: "out".into(),
            next_hop: next_hop.into(),
        }
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        (dir, spool)
    }

    #[test]
    fn what_is_down_is_remembered_until_it_is_forgotten() {
        let (_dir, spool) = spool();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let destinations = [
            "a.test",
            "..",
            "[2001:db8::1]:25",
            "unix:/run/x",
            &"x".repeat(400),
        ];
        for destination in destinations.map(destination) {
            assert_eq!(spool.down(&destination), None);
            let down = Down::again(None, &destination, "no answer", now);
            spool.remember_down(&down).unwrap();
            assert_eq!(spool.down(&destination), Some(down));
        }
        assert_eq!(spool.all_down().unwrap().len(), destinations.len());
        for destination in destinations.map(destination) {
            assert!(spool.forget_down(&destination).unwrap());
            assert!(!spool.forget_down(&destination).unwrap());
        }
        assert_eq!(spool.all_down().unwrap(), []);
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let mut now = Timestamp::from_second(1_800_000_000).unwrap();
        let (destination, mut down, mut waits) = (destination("a.test"), None, Vec::new());
        for _ in 0..6 {
            let next = Down::again(down.take(), &destination, "no answer", now);
            assert!(next.is_left_alone(now) && !next.is_left_alone(next.probe));
            waits.push(next.probe.duration_since(now).as_mins());
            now = next.probe;
            down = Some(next);
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        // A clock that was a year ahead.
        let wrong = now - SignedDuration::from_hours(24 * 365);
        assert!(!down.unwrap().is_left_alone(wrong));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let (_dir, spool) = spool();
        let destination = destination("a.test");
        let path = spool.path().join(DIR).join(destination.file_name());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        for text in ["", "{", "{\"probe\": 7}", "\0\0\0"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(spool.down(&destination), None);
            let recalled = spool.recall_down(&destination);
            assert!(
                matches!(recalled, Err(Forgotten::Damaged(_))),
                "{recalled:?}"
            );
        }
        assert_eq!(spool.all_down().unwrap(), []);
        // What is remembered next takes its place.
        let down = Down::again(None, &destination, "no answer", Timestamp::UNIX_EPOCH);
        spool.remember_down(&down).unwrap();
        assert_eq!(spool.recall_down(&destination).unwrap(), Some(down));
    }

    #[test]
    fn a_destination_is_down_as_long_as_each_of_its_hosts() {
        let (_dir, spool) = spool();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let a = destination("a.test");
        let hosts = ["[192.0.2.1]:25", "[192.0.2.2]:25"];
        for key in hosts {
            let down = Down::again(None, &a.host(key), "no answer", now);
            spool.remember_down(&down).unwrap();
        }
        let mut down = Down::again(None, &a, "no answer", now);
        down.hosts = hosts.map(str::to_owned).into();
        spool.remember_down(&down).unwrap();
        let left_alone = || {
            let down = spool.recall_down_now(&a, now).unwrap();
            down.is_some_and(|down| down.is_left_alone(now))
        };
        assert!(left_alone());
        spool.forget_down(&a.host(hosts[1])).unwrap();
        assert!(!left_alone());
        assert_eq!(spool.recall_down(&a).unwrap(), Some(down));
    }

    #[test]
    fn what_is_about_another_destination_is_damage() {
        let (_dir, spool) = spool();
        let down = Down::again(
            None,
            &destination("a.test"),
            "no answer",
            Timestamp::UNIX_EPOCH,
        );
        spool.remember_down(&down).unwrap();
        let dir = spool.path().join(DIR);
        let name = |destination: &Destination| dir.join(destination.file_name());
        std::fs::rename(name(&down.destination), name(&destination("b.test"))).unwrap();
        let recalled = spool.recall_down(&destination("b.test"));
        assert!(
            matches!(recalled, Err(Forgotten::Damaged(_))),
            "{recalled:?}"
        );
        assert_eq!(spool.all_down().unwrap(), []);
    }

    #[test]
    fn connections_are_counted_over_all_who_have_the_spool_open() {
        let (_dir, spool) = spool();
        let other = Spool::open(spool.path()).unwrap();
        let destination = destination("a.test");
        let first = spool.take_connection(&destination, 2).unwrap().unwrap();
        let second = other.take_connection(&destination, 2).unwrap();
        assert!(second.is_some());
        assert!(spool.take_connection(&destination, 2).unwrap().is_none());
        drop(first);
        assert!(other.take_connection(&destination, 2).unwrap().is_some());
        let probe = spool.take_probe(&destination).unwrap();
        assert!(probe.is_some() && other.take_probe(&destination).unwrap().is_none());
    }
}
