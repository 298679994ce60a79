//! Files that are written before they get their own name: `<name>.part`.
//!
//! Who writes one holds its lock from its creation until its name is gone. One that is not
//! locked is therefore what a kill left, and nobody reads it: it may be removed.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::Spool;
use crate::disk::{self, Disk, File, Kind};

/// The end of such a file's name.
const SUFFIX: &str = ".part";

/// A file that is written and has no name of its own yet. Dropped, it is removed.
pub(super) struct Part<'a> {
    disk: &'a Disk,
    file: File,
    path: PathBuf,
    has_name: bool,
}

impl<'a> Part<'a> {
    /// Writes a file below `dir`, durably, its name beginning with `prefix`.
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

    /// The same without a sync, for what may be lost: a power cut may leave any content under the
    /// name that it gets.
    pub(super) fn unsynced(
        disk: &'a Disk,
        dir: &Path,
        prefix: &str,
        bytes: &[u8],
    ) -> disk::Result<Part<'a>> {
        let random = uuid::Builder::from_random_bytes(disk::random()).into_uuid();
        let path = dir.join(format!("{prefix}{random}{SUFFIX}"));
        let file = disk.create(&path)?;
        let part = Part {
            disk,
            file,
            path,
            has_name: true,
        };
        // Somebody who tidies up may have it for a moment; then he removes it, and what we write
        // gets no name of its own. That is an error, and tried again by whoever wanted it.
        disk.try_lock(&part.file)?;
        disk.write_all(&part.file, bytes)?;
        Ok(part)
    }

    /// Gives it its name, in place of what may be there.
    pub(super) fn rename_to(mut self, to: &Path) -> disk::Result<()> {
        self.disk.rename(&self.file, &self.path, to)?;
        self.has_name = false;
        Ok(())
    }

    /// Gives it its name; false if that is taken.
    pub(super) fn link_to(mut self, to: &Path) -> disk::Result<bool> {
        let linked = self.disk.link(&self.path, to)?;
        self.has_name = false;
        self.disk.unlink(&self.path)?;
        Ok(linked)
    }
}

impl Drop for Part<'_> {
    /// Best effort: what stays is found by `check`.
    fn drop(&mut self) {
        if self.has_name {
            let _ = self.disk.unlink(&self.path);
        }
    }
}

/// What stands under the name of such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing (any more).
    Gone,
    /// Somebody writes it.
    Written,
    /// A kill left it.
    Dead,
    /// It is no file.
    NotAFile,
}

impl Spool {
    /// Whether a name, without its directory, is one that we give to such a file: the name it is
    /// to have, if it says so, and a random number.
    pub fn is_part(name: &str, prefix: &str) -> bool {
        let random = name
            .strip_prefix(prefix)
            .and_then(|name| name.strip_suffix(SUFFIX));
        random.is_some_and(|random| uuid::Uuid::try_parse(random).is_ok() && random.len() == 36)
    }

    /// Looks what such a file is, and with `remove` removes it if a kill left it. Its lock is
    /// held meanwhile, so nobody who begins to write it can be disturbed unawares.
    pub fn leftover(&self, path: &Path, remove: bool) -> disk::Result<Leftover> {
        let opened = match self.disk.open_rw(path) {
            // Where nothing can be written any more it can still be looked at.
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
