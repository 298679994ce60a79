//! The reserve: a few files that are filled already, for what must be written when the disk is full.
//!
//! A delivery needs no room to be recorded. What needs some (a history that something is built on, a
//! notice) is written into a file of the reserve, which is renamed to the name that the new file is to
//! have: the rename is the claim. Each run fills the reserve again before it does anything else, as soon as
//! there is room.

use std::path::{Path, PathBuf};

use super::Spool;
use crate::disk::{self, Disk, File};

/// The directory.
pub(super) const RESERVE: &str = "reserve";

/// Files in it.
const COUNT: usize = 32;

/// Octets of each: a notice with the header of its origin, or a history of some ten attempts.
pub(super) const SIZE: usize = 32 << 10;

/// There as long as it is being filled, or if a kill ended that: then each file is looked at.
const FILLING: &str = "filling";

fn marker() -> PathBuf {
    Path::new(RESERVE).join(FILLING)
}

fn path(n: usize) -> PathBuf {
    PathBuf::from(format!("{RESERVE}/{n:02}"))
}

/// Makes a file for writing; where there is no room for it, one of the reserve gets its name.
pub(super) fn create(disk: &Disk, to: &Path) -> disk::Result<File> {
    match disk.create(to) {
        Err(full) if full.is_full() => claim(disk, to)?.ok_or(full),
        other => other,
    }
}

/// Writes a whole file that may be one of the reserve. One that was made and has no room gives way to one of
/// the reserve.
pub(super) fn write(disk: &Disk, file: File, to: &Path, bytes: &[u8]) -> disk::Result<File> {
    let filled = disk.stat_file(&file)?.size;
    let written = disk.write_all_at(&file, bytes, 0);
    let file = match written {
        Err(full) if full.is_full() && filled == 0 => {
            disk.unlink(to)?;
            let file = claim(disk, to)?.ok_or(full)?;
            disk.write_all_at(&file, bytes, 0)?;
            file
        }
        other => {
            other?;
            file
        }
    };
    if disk.stat_file(&file)?.size > bytes.len() as u64 {
        disk.truncate(&file, bytes.len() as u64)?;
    }
    Ok(file)
}

/// Takes a file of the reserve to a name that is free; none if there is none left. Of two processes that
/// want the same file one finds it gone, and takes another.
pub(super) fn claim(disk: &Disk, to: &Path) -> disk::Result<Option<File>> {
    for n in 0..COUNT {
        let from = path(n);
        let file = match disk.open_rw(&from) {
            Ok(file) => file,
            Err(error) if error.is_absent() || error.is_wrong_kind() => continue,
            Err(error) => return Err(error),
        };
        // Being filled, or being claimed.
        if !disk.try_lock(&file)? {
            continue;
        }
        let ours = disk.stat_file(&file)?;
        let named = disk.stat(&from)?;
        let is_ours = named.is_some_and(|named| named.identity == ours.identity);
        if !is_ours || ours.size < SIZE as u64 || ours.links != 1 {
            continue;
        }
        // What has the name would be replaced.
        if disk.stat(to)?.is_some() {
            return Err(disk.already_there(to));
        }
        disk.rename(&file, &from, to)?;
        return Ok(Some(file));
    }
    Ok(None)
}

impl Spool {
    /// Fills the reserve as far as there is room. Returns false if there is too little.
    pub fn fill_reserve(&self) -> disk::Result<bool> {
        let names = self.names_in(Path::new(RESERVE))?;
        if names.len() >= COUNT && !names.iter().any(|name| name == FILLING) {
            return Ok(true);
        }
        let is_new = self.disk.mkdir(Path::new(RESERVE))?;
        // Where a file system writes each change to a new place, an overwrite needs room. Best effort: only
        // some have such a thing.
        if is_new {
            let _ = self.disk.keep_in_place(Path::new(RESERVE));
        }
        let filled = self.fill_each();
        match filled {
            Err(error) if error.is_full() => return Ok(false),
            other => {
                if other? {
                    self.disk.unlink(&marker())?;
                }
            }
        }
        self.disk.durable(&[], &[Path::new(RESERVE)])?;
        Ok(true)
    }

    /// Returns whether all files are whole.
    fn fill_each(&self) -> disk::Result<bool> {
        // Before the first file: all names may be there, and one of them be what a kill left.
        match self.disk.create(&marker()) {
            Err(error) if error.is(nix::errno::Errno::EEXIST) => {}
            other => drop(other?),
        }
        let mut are_whole = true;
        for n in 0..COUNT {
            are_whole &= self.fill(&path(n))?;
        }
        Ok(are_whole)
    }

    /// Makes one file, unless it is there. One that a kill left shorter is filled up. False if another process
    /// has it in hand.
    fn fill(&self, path: &Path) -> disk::Result<bool> {
        let file = match self.disk.create(path) {
            Err(error) if error.is(nix::errno::Errno::EEXIST) => match self.disk.open_rw(path) {
                Err(error) if error.is_wrong_kind() => return Ok(true),
                Err(error) if error.is_absent() => return Ok(false),
                other => other?,
            },
            other => other?,
        };
        if !self.disk.try_lock(&file)? {
            return Ok(false);
        }
        // It may have been claimed between the two calls: then it is a history or a notice now.
        let ours = self.disk.stat_file(&file)?;
        let named = self.disk.stat(path)?;
        if named.is_none_or(|named| named.identity != ours.identity) {
            return Ok(false);
        }
        if ours.size >= SIZE as u64 {
            return Ok(true);
        }
        let filled = self.disk.write_all_at(&file, &[0; SIZE], 0);
        let filled = filled.and_then(|()| self.disk.sync_file(&file));
        if filled.is_err() {
            // Best effort: a shorter one is not claimed.
            let _ = self.disk.unlink(path);
        }
        filled.map(|()| true)
    }
}
