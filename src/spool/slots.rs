//! Slots: a bound, across processes, on how many do something at once.
//!
//! A slot is a file in `state/` with a lock on it; the kernel frees it when its process ends,
//! however it ends. Nothing depends on the files: they may be deleted at any time.

use std::path::{Path, PathBuf};

use super::Spool;
use super::destinations::file_name;
use crate::disk::{self, File};

/// A slot that is taken, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    file: File,
    spool: Spool,
    number: usize,
}

impl Spool {
    /// Takes one of `count` slots of a name, if one is free.
    pub fn take_slot(&self, name: &str, count: usize) -> disk::Result<Option<Slot>> {
        self.take_slot_from(name, count, 0)
    }

    /// The same; the search begins at the slot `first`.
    fn take_slot_from(&self, name: &str, count: usize, first: usize) -> disk::Result<Option<Slot>> {
        for step in 0..count {
            let number = (first % count + step) % count;
            let path = PathBuf::from(format!("state/{name}-{number}"));
            let file = match self.disk.open_append(&path) {
                Err(error) if error.is_absent() => {
                    self.make_dirs(&path)?;
                    self.disk.open_append(&path)?
                }
                other => other?,
            };
            // A file that was removed meanwhile bounds nobody who comes later.
            if self.disk.try_lock(&file)? && self.is_still(&file, &path)? {
                return Ok(Some(Slot {
                    file,
                    spool: self.clone(),
                    number,
                }));
            }
        }
        Ok(None)
    }

    /// Makes the directories above a file, but not the spool's own.
    fn make_dirs(&self, path: &Path) -> disk::Result<()> {
        let mut dirs: Vec<&Path> = path.ancestors().skip(1).collect();
        dirs.pop();
        for dir in dirs.iter().rev() {
            self.disk.mkdir(dir)?;
        }
        Ok(())
    }

    /// Takes one of the `most` places of a transport, over all processes, if one is free; the
    /// search begins at `first`.
    pub fn take_place(
        &self,
        transport: &str,
        most: usize,
        first: usize,
    ) -> disk::Result<Option<Slot>> {
        self.take_slot_from(&format!("by/{}", file_name(transport)), most, first)
    }

    /// Whether the only slot of a name is taken. Unlike an attempt to take it, this is in the way of no
    /// other look.
    pub fn slot_is_taken(&self, name: &str) -> disk::Result<bool> {
        let path = PathBuf::from(format!("state/{name}-0"));
        match self.disk.open_read(&path) {
            Ok(file) => self.disk.is_locked(&file),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a file still has its name.
    pub(super) fn is_still(&self, file: &File, path: &Path) -> disk::Result<bool> {
        let named = self.disk.stat(path)?.map(|stat| stat.identity);
        Ok(named == Some(self.disk.stat_file(file)?.identity))
    }
}

impl Slot {
    /// Which of the slots of its name it is.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Gives the slot up for good, and its file with it: for names of which there is no end.
    pub fn retire(self) {
        // Still locked, so nobody has it; who opens it now finds that it is gone.
        let _ = self.spool.disk.unlink(self.file.path());
    }
}
