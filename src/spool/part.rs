//! Files that are written under a temporary name, `<name>.part`.
//!
//! The writer holds the file's lock from its creation until the temporary name is gone. So an unlocked one
//! was left by a kill. No process reads it, and it may be removed.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::Spool;
use super::layout::PART;
use crate::disk::{self, Disk, File, Kind};

/// A written file that still has its temporary name. Dropping it removes the file.
pub(super) struct Part<'a> {
    disk: &'a Disk,
    file: File,
    path: PathBuf,
    has_name: bool,
}

impl<'a> Part<'a> {
    /// Writes a file in `dir`, durably. Its temporary name begins with `prefix`.
    pub(super) fn write(
        disk: &'a Disk,
        dir: &Path,
        prefix: &str,
        bytes: &[u8],
    ) -> disk::Result<Part<'a>> {
        let part = Part::unsynced(disk, dir, prefix, bytes)?;
        disk.durable(&[&part.file], &[])?;
        Ok(part)
    }

    /// Like [`write`](Part::write), without the sync. For files that may be lost: after a power cut the final
    /// name may have any content.
    pub(super) fn unsynced(
        disk: &'a Disk,
        dir: &Path,
        prefix: &str,
        bytes: &[u8],
    ) -> disk::Result<Part<'a>> {
        let random = uuid::Builder::from_random_bytes(disk::random()).into_uuid();
        let path = dir.join(format!("{prefix}{random}{PART}"));
        let file = disk.create(&path)?;
        let part = Part {
            disk,
            file,
            path,
            has_name: true,
        };
        // A process that removes leftovers may hold the lock for a moment. It then removes the file, and the
        // rename or link below fails. The caller reports that error, and tries again.
        disk.try_lock(&part.file)?;
        disk.write_all(&part.file, bytes)?;
        Ok(part)
    }

    /// Renames the file to its final name, replacing any file there.
    pub(super) fn rename_to(mut self, to: &Path) -> disk::Result<()> {
        self.disk.rename(&self.file, &self.path, to)?;
        self.has_name = false;
        Ok(())
    }

    /// Links the file to its final name. Returns false if the name is taken.
    pub(super) fn link_to(mut self, to: &Path) -> disk::Result<bool> {
        let linked = self.disk.link(&self.path, to)?;
        self.has_name = false;
        self.disk.unlink(&self.path)?;
        Ok(linked)
    }
}

impl Drop for Part<'_> {
    /// Best effort: `check` finds what remains.
    fn drop(&mut self) {
        if self.has_name {
            let _ = self.disk.unlink(&self.path);
        }
    }
}

/// What is found under a temporary name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// No file, or no longer.
    Gone,
    /// A process is writing it.
    Written,
    /// A kill left it.
    Dead,
    /// Not a regular file.
    NotAFile,
}

impl Spool {
    /// Whether a name, without its directory, is a temporary name: `prefix` and a random number.
    pub fn is_part(name: &str, prefix: &str) -> bool {
        let random = name
            .strip_prefix(prefix)
            .and_then(|name| name.strip_suffix(PART));
        random.is_some_and(|random| uuid::Uuid::try_parse(random).is_ok() && random.len() == 36)
    }

    /// Returns what a file with a temporary name is. With `remove`, removes it if a kill left it. The lock is
    /// held meanwhile, so that a process that begins to write the file notices.
    pub fn leftover(&self, path: &Path, remove: bool) -> disk::Result<Leftover> {
        let opened = match self.disk.open_rw(path) {
            // On a read-only file system it can still be examined.
            Err(error) if error.is(Errno::EROFS) && !remove => self.disk.open_read(path),
            other => other,
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(Leftover::Gone),
            Err(error) if error.is_wrong_kind() => return Ok(Leftover::NotAFile),
            Err(error) => return Err(error),
        };
        let stat = self.disk.stat_file(&file)?;
        if stat.kind != Kind::File {
            return Ok(Leftover::NotAFile);
        }
        if !self.disk.try_lock(&file)? {
            return Ok(Leftover::Written);
        }
        let named = self.disk.stat(path)?;
        if named.is_none_or(|named| named.identity != stat.identity) {
            return Ok(Leftover::Gone);
        }
        if remove {
            self.disk.unlink(path)?;
        }
        Ok(Leftover::Dead)
    }
}
