//! Which names there are, and whose: nothing here looks into a message.

use std::path::{Path, PathBuf};

use super::{Check, Level};
use crate::disk;
use crate::message::QueueId;
use crate::queue::Bucket;
use crate::spool::{Kept, Place};

/// The names in the spool's own directory that are ours.
const ROOT_NAMES: &[&str] = &[
    "active",
    "config.toml",
    "corrupt",
    "deferred",
    "discarded",
    "done",
    "frozen",
    "incoming",
    "info",
    "new",
    "outbox",
    "state",
    "version",
];

/// The directories below `info/`.
const INFO: &[&str] = &["sender", "recipients", "transport", "attempts", "request"];

impl Check<'_> {
    /// Every name is ours or is reported; those that are not are left alone.
    pub(super) fn names(&mut self) -> disk::Result<()> {
        self.names_below(Path::new("."), |name| ROOT_NAMES.contains(&name))?;
        self.names_below(Path::new("info"), |name| INFO.contains(&name))?;
        let is_id = |name: &str| name.parse::<QueueId>().is_ok();
        for place in Place::FIXED {
            let corrupt = place == Place::Corrupt;
            self.names_below(&place.dir(), |name| {
                is_id(name) || corrupt && name.split_once('.').is_some_and(|(id, _)| is_id(id))
            })?;
        }
        for kept in Kept::ALL {
            let is_bucket = |name: &str| name.parse::<Bucket>().is_ok();
            self.names_below(Path::new(kept.as_str()), is_bucket)?;
            for bucket in self.spool.buckets(kept)? {
                let dir = kept.place(bucket).dir();
                match self.names_below(&dir, is_id) {
                    Err(error) if error.is_wrong_kind() => {
                        let what = "has a bucket's name, and is no directory; left alone";
                        self.find(Level::Note, dir, what);
                    }
                    other => other?,
                }
            }
        }
        for dir in INFO {
            let parts = *dir == "attempts";
            self.names_below(&Path::new("info").join(dir), |name| {
                is_id(name) || parts && part_of(name).is_some()
            })?;
        }
        Ok(())
    }

    fn names_below(&mut self, dir: &Path, ours: impl Fn(&str) -> bool) -> disk::Result<()> {
        for name in self.spool.names_in(dir)? {
            if !name.to_str().is_some_and(&ours) {
                let path = dir.join(&name);
                let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
                self.find(Level::Note, path, "not one of our names; left alone");
            }
        }
        Ok(())
    }

    pub(super) fn modes(&mut self) -> disk::Result<()> {
        let dirs = Place::FIXED.iter().map(|place| place.dir());
        let kept = Kept::ALL.iter().map(|kept| PathBuf::from(kept.as_str()));
        let info = INFO.iter().map(|dir| Path::new("info").join(dir));
        for dir in dirs.chain(kept).chain(info).chain(["state".into()]) {
            if let Some(stat) = self.spool.disk().stat(&dir)?
                && stat.mode & 0o077 != 0
            {
                let what = format!("mode {:04o} lets others in; `chmod 700` it", stat.mode);
                self.find(Level::Problem, dir, what);
            }
        }
        Ok(())
    }

    /// `info/` files without a message: what a power cut kept of one that was never accepted,
    /// or was forgotten.
    pub(super) fn orphans(&mut self) -> disk::Result<()> {
        for dir in INFO {
            let below = Path::new("info").join(dir);
            for name in self.spool.names_in(&below)? {
                let Some(name) = name.to_str() else { continue };
                let part = part_of(name).filter(|_| *dir == "attempts");
                let Some(id) = part.or_else(|| name.parse::<QueueId>().ok()) else {
                    continue;
                };
                let path = below.join(name);
                let located = self.spool.locate(id)?.is_some();
                if self.spool.disk().stat(&path)?.is_none() {
                    continue;
                }
                if located {
                    if part.is_some() {
                        let what = "a history being written anew, or work for the next run";
                        self.find(Level::Note, path, what);
                    }
                    continue;
                }
                let what = "belongs to no message".to_owned();
                let ending = part.map_or("", |_| ".part");
                let to = PathBuf::from(format!("corrupt/{id}.{dir}{ending}"));
                self.problem(path.clone(), what, "moved to corrupt/");
                if self.repair {
                    self.put_aside(&path, &to)?;
                }
            }
        }
        Ok(())
    }

    /// Moves a leftover. A power cut in an earlier repair may have left it both names, and a
    /// rename of a file to another name of its own does nothing.
    fn put_aside(&self, path: &Path, to: &Path) -> disk::Result<()> {
        let disk = self.spool.disk();
        let file = match disk.open_read(path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(()),
            Err(error) => return Err(error),
        };
        let ours = disk.stat_file(&file)?.identity;
        match disk.stat(to)? {
            Some(there) if there.identity == ours => disk.unlink(path).map(drop),
            _ => disk.rename(&file, path, to),
        }
    }
}

/// The message whose history is written anew in a file of this name.
fn part_of(name: &str) -> Option<QueueId> {
    name.strip_suffix(".part")?.parse().ok()
}
