//! The reserve: preallocated files for writes that must succeed when the disk is full.
//!
//! Recording a delivery needs no disk space. A synced history and a notice do. They are written into a file
//! of the reserve, which is renamed to the new file's name; the rename is the claim. Each run refills the
//! reserve before it does anything else, if there is space.

use std::path::Path;

use super::Spool;
use super::layout::{RESERVE, RESERVE_FILLING, reserve_file};
use crate::disk::{self, Disk, File};

/// Number of files.
const COUNT: usize = 32;

/// Octets of each file: a notice with the header of its origin, or a history of about ten attempts.
pub(super) const SIZE: usize = 32 << 10;

/// Creates a file for writing. If the disk is full, renames a file of the reserve to its name.
pub(super) fn create(disk: &Disk, to: &Path) -> disk::Result<File> {
    match disk.create(to) {
        Err(full) if full.is_full() => claim(disk, to)?.ok_or(full),
        other => other,
    }
}

/// Writes a whole file, which may come from the reserve. A newly created file without space is replaced with
/// a file of the reserve.
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

/// Moves a file of the reserve to a free name. Returns `None` if none is left. If two processes want the same
/// file, the second finds it gone, and takes another.
pub(super) fn claim(disk: &Disk, to: &Path) -> disk::Result<Option<File>> {
    for n in 0..COUNT {
        let from = reserve_file(n);
        let file = match disk.open_rw(&from) {
            Ok(file) => file,
            Err(error) if error.is_absent() || error.is_wrong_kind() => continue,
            Err(error) => return Err(error),
        };
        // Another process is filling or claiming it.
        if !disk.try_lock(&file)? {
            continue;
        }
        let ours = disk.stat_file(&file)?;
        let named = disk.stat(&from)?;
        let is_ours = named.is_some_and(|named| named.identity == ours.identity);
        if !is_ours || ours.size < SIZE as u64 || ours.links != 1 {
            continue;
        }
        // A rename would overwrite an existing file.
        if disk.stat(to)?.is_some() {
            return Err(disk.already_there(to));
        }
        disk.rename(&file, &from, to)?;
        return Ok(Some(file));
    }
    Ok(None)
}

impl Spool {
    /// Fills the reserve as far as there is space. Returns false if there is too little.
    pub fn fill_reserve(&self) -> disk::Result<bool> {
        let names = self.names_in(Path::new(RESERVE))?;
        let marker = Path::new(RESERVE_FILLING).file_name();
        // While the marker exists, every file is checked.
        if names.len() >= COUNT && !names.iter().any(|name| Some(name.as_os_str()) == marker) {
            return Ok(true);
        }
        let is_new = self.disk.mkdir(Path::new(RESERVE))?;
        // On a copy-on-write file system, an overwrite needs space. Best effort: only some file systems can
        // turn that off.
        if is_new {
            let _ = self.disk.keep_in_place(Path::new(RESERVE));
        }
        let filled = self.fill_each();
        match filled {
            Err(error) if error.is_full() => return Ok(false),
            other => {
                if other? {
                    self.disk.unlink(Path::new(RESERVE_FILLING))?;
                }
            }
        }
        self.disk.durable(&[], &[Path::new(RESERVE)])?;
        Ok(true)
    }

    /// Returns whether all files are complete.
    fn fill_each(&self) -> disk::Result<bool> {
        // Make the marker before the first file: after a kill all names may exist and a file be incomplete.
        match self.disk.create(Path::new(RESERVE_FILLING)) {
            Err(error) if error.is(nix::errno::Errno::EEXIST) => {}
            other => drop(other?),
        }
        let mut are_whole = true;
        for n in 0..COUNT {
            are_whole &= self.fill(&reserve_file(n))?;
        }
        Ok(are_whole)
    }

    /// Creates a file, or completes one that a kill left short. Returns false if another process holds it.
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
        // It may have been claimed between the two calls, and be a history or a notice now.
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
            // Best effort: a short file is never claimed.
            let _ = self.disk.unlink(path);
        }
        filled.map(|()| true)
    }
}
