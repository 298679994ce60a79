//! Suspensions: destinations and transports that get no mail until an operator resumes them.
//!
//! Each is a file in `suspended/`. Its existence counts: a file that is unreadable or damaged suspends what
//! its name says until an operator resumes that. The directory is made for the first suspension.
//!
//! A file is replaced or removed only under its lock. So a suspension that was just renewed is never removed
//! as expired.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Spool;
use super::layout::SUSPENDED;
use super::part::Part;
use super::target::Target;
use crate::disk;
use crate::message::Address;
use crate::queue::By;

/// A suspension. Its JSON form is the content of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// What is suspended.
    #[serde(flatten)]
    pub target: Target,
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The operator and the reason.
    #[serde(flatten)]
    pub by: By,
}

/// A file in `suspended/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The file's name.
    pub file: String,
    /// What it suspends.
    pub target: Target,
    /// The content; `None` if it is damaged. A damaged file suspends its target until it is removed.
    pub says: Option<Suspension>,
}

/// The names in `suspended/` at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspended(BTreeSet<String>);

/// Result of [`Spool::suspend`] and [`Spool::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Changed {
    /// The change is made, durably.
    Done,
    /// Nothing to do: no suspension has that name.
    Absent,
    /// Another process is changing it.
    Busy,
}

/// Result of [`Spool::hold`].
enum Held {
    Absent,
    /// This process may replace or remove the file while the lock lives. `None` if the file cannot be locked:
    /// it is not a regular file, or it cannot be opened.
    Ours(Option<disk::File>),
    Busy,
}

/// Most octets read from a file; a larger file counts as damaged. A reason is a single line.
const MOST: u64 = 64 << 10;
/// How often a name is tried while other processes replace its file.
const TRIES: usize = 5;

impl Standing {
    /// When it ends by itself.
    pub fn until(&self) -> Option<Timestamp> {
        self.says.as_ref().and_then(|says| says.until)
    }

    /// Whether it has expired.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}

impl Suspended {
    /// Whether nothing is suspended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file exists.
    pub fn has(&self, file: &str) -> bool {
        self.0.contains(file)
    }
}

impl Spool {
    /// Suspends a target, replacing an existing suspension. Durable on return (commit point *suspended*).
    pub fn suspend(&self, suspension: &Suspension) -> disk::Result<Changed> {
        let dir = Path::new(SUSPENDED);
        self.disk.mkdir(dir)?;
        let path = dir.join(suspension.target.file_name());
        let mut text = serde_json::to_vec(suspension).unwrap_or_default();
        text.push(b'\n');
        for _ in 0..TRIES {
            let part = Part::write(&self.disk, dir, "", &text)?;
            match self.hold(&path)? {
                Held::Busy => return Ok(Changed::Busy),
                Held::Absent => {
                    // Another process may have linked its file first.
                    if part.link_to(&path)? {
                        return self.make_durable();
                    }
                }
                Held::Ours(_lock) => {
                    part.rename_to(&path)?;
                    return self.make_durable();
                }
            }
        }
        Ok(Changed::Busy)
    }

    /// Syncs both directories: the name of `suspended/` may be new too.
    fn make_durable(&self) -> disk::Result<Changed> {
        let dirs = [Path::new("."), Path::new(SUSPENDED)];
        self.disk.durable(&[], &dirs).map(|()| Changed::Done)
    }

    /// Ends a suspension by removing its file, whatever its content. Durable on return (commit point
    /// *resumed*).
    pub fn resume(&self, file: &str) -> disk::Result<Changed> {
        let path = Path::new(SUSPENDED).join(file);
        let found = match self.hold(&path)? {
            Held::Busy => return Ok(Changed::Busy),
            Held::Absent => false,
            Held::Ours(_lock) => self.disk.unlink(&path)?,
        };
        match self.disk.durable(&[], &[Path::new(SUSPENDED)]) {
            Ok(()) if found => Ok(Changed::Done),
            // The process that removed it may have been killed before the sync.
            Ok(()) => Ok(Changed::Absent),
            Err(error) if error.is_absent() && !found => Ok(Changed::Absent),
            Err(error) => Err(error),
        }
    }

    /// Locks the file that has a name now.
    fn hold(&self, path: &Path) -> disk::Result<Held> {
        for _ in 0..TRIES {
            let file = match self.disk.open_rw(path) {
                Ok(file) => file,
                Err(error) if error.is_absent() => return Ok(Held::Absent),
                Err(error) if error.is_wrong_kind() || error.is_denied() => {
                    return Ok(Held::Ours(None));
                }
                Err(error) => return Err(error),
            };
            if !self.disk.try_lock(&file)? {
                return Ok(Held::Busy);
            }
            if self.is_still(&file, path)? {
                return Ok(Held::Ours(Some(file)));
            }
        }
        Ok(Held::Busy)
    }

    /// Returns the names of all suspensions, including expired ones not yet removed.
    pub fn suspended(&self) -> disk::Result<Suspended> {
        let names = self.names_in(Path::new(SUSPENDED))?;
        let names = names
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(Suspended(
            names.filter(|name| !Spool::is_part(name, "")).collect(),
        ))
    }

    /// Returns all suspensions by name, including expired ones not yet removed.
    pub fn suspensions(&self) -> disk::Result<Vec<Standing>> {
        let names = self.suspended()?.0;
        Ok(names
            .iter()
            .filter_map(|name| self.standing(name))
            .collect())
    }

    /// Returns the suspension of mail for a recipient, as far as transport and destination are known. If
    /// there are several, returns the last to end.
    pub fn suspension(
        &self,
        suspended: &Suspended,
        (transport, next_hop): (Option<&str>, Option<&str>),
        to: &Address,
        now: Timestamp,
    ) -> Option<Standing> {
        if suspended.is_empty() {
            return None;
        }
        let all = Target::all_for(transport, next_hop, to).into_iter();
        let files: BTreeSet<String> = all.map(|target| target.file_name()).collect();
        let files = files.into_iter().filter(|file| suspended.has(file));
        let standing = files.filter_map(|file| self.standing(&file));
        let standing = standing.filter(|suspension| !suspension.is_over(now));
        standing.max_by_key(|suspension| suspension.until().unwrap_or(Timestamp::MAX))
    }

    /// Reads a file; `None` if it is gone.
    fn standing(&self, file: &str) -> Option<Standing> {
        let bytes = match self
            .disk
            .read_all(&PathBuf::from(SUSPENDED).join(file), MOST)
        {
            Err(error) if error.is_absent() => return None,
            other => other.ok(),
        };
        let says = bytes.and_then(|bytes| serde_json::from_slice::<Suspension>(&bytes).ok());
        let says = says.filter(|says| says.target.file_name() == file);
        Some(Standing {
            file: file.to_owned(),
            target: match &says {
                Some(says) => says.target.clone(),
                None => Target::of_file(file),
            },
            says,
        })
    }

    /// Removes expired suspensions. Returns the removed ones and the errors. Nothing is synced: a suspension
    /// that a power cut brings back is still expired.
    ///
    /// # Errors
    /// If the suspensions cannot be listed.
    pub fn end_suspensions(
        &self,
        now: Timestamp,
    ) -> disk::Result<(Vec<Suspension>, Vec<disk::Error>)> {
        let (mut ended, mut failed) = (Vec::new(), Vec::new());
        for name in self.suspended()?.0 {
            if !self
                .standing(&name)
                .is_some_and(|suspension| suspension.is_over(now))
            {
                continue;
            }
            match self.end_suspension(&name, now) {
                Ok(suspension) => ended.extend(suspension),
                Err(error) => failed.push(error),
            }
        }
        Ok((ended, failed))
    }

    fn end_suspension(&self, name: &str, now: Timestamp) -> disk::Result<Option<Suspension>> {
        let path = Path::new(SUSPENDED).join(name);
        let Held::Ours(_lock) = self.hold(&path)? else {
            return Ok(None);
        };
        // It may have been renewed between the two reads.
        let still = self
            .standing(name)
            .filter(|suspension| suspension.is_over(now));
        match still {
            Some(Standing { says, .. }) if self.disk.unlink(&path)? => Ok(says),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
