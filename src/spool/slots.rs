//! Slots: a limit, across processes, on concurrent operations.
//!
//! A slot is a locked file in `state/`. The kernel releases the lock when the process ends, however it ends.
//! Nothing depends on the files: they may be deleted at any time.

use std::path::Path;

use super::Spool;
use super::layout::{slot, transport_slots};
use crate::disk::{self, File};

/// A taken slot. Dropping it releases it.
#[derive(Debug)]
pub struct Slot {
    file: File,
    spool: Spool,
    number: usize,
}

impl Spool {
    /// Takes one of `count` slots with a name, if one is free.
    pub fn take_slot(&self, name: &str, count: usize) -> disk::Result<Option<Slot>> {
        self.take_slot_from(name, count, 0)
    }

    /// Like [`take_slot`](Spool::take_slot); the search begins at the slot `first`.
    fn take_slot_from(&self, name: &str, count: usize, first: usize) -> disk::Result<Option<Slot>> {
        for step in 0..count {
            let number = (first % count + step) % count;
            let path = slot(name, number);
            let file = match self.disk.open_append(&path) {
                Err(error) if error.is_absent() => {
                    self.make_dirs(&path)?;
                    self.disk.open_append(&path)?
                }
                other => other?,
            };
            // A lock on a file that was removed meanwhile does not stop later processes.
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

    /// Makes the directories above a file, except the spool's own.
    fn make_dirs(&self, path: &Path) -> disk::Result<()> {
        let mut dirs: Vec<&Path> = path.ancestors().skip(1).collect();
        dirs.pop();
        for dir in dirs.iter().rev() {
            self.disk.mkdir(dir)?;
        }
        Ok(())
    }

    /// Takes one of the `most` slots of a transport, shared by all processes, if one is free. The search
    /// begins at `first`.
    pub fn take_place(
        &self,
        transport: &str,
        most: usize,
        first: usize,
    ) -> disk::Result<Option<Slot>> {
        self.take_slot_from(&transport_slots(transport), most, first)
    }

    /// Whether the only slot with a name is taken. Unlike taking it, this does not disturb other processes.
    pub fn slot_is_taken(&self, name: &str) -> disk::Result<bool> {
        let path = slot(name, 0);
        match self.disk.open_read(&path) {
            Ok(file) => self.disk.is_locked(&file),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a name still refers to this file.
    pub(super) fn is_still(&self, file: &File, path: &Path) -> disk::Result<bool> {
        let named = self.disk.stat(path)?.map(|stat| stat.identity);
        Ok(named == Some(self.disk.stat_file(file)?.identity))
    }
}

impl Slot {
    /// Which of the slots with its name it is.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Releases the slot and removes its file, for names that are not reused.
    pub fn retire(self) {
        // The lock is still held: a process that opens the file now finds that its name is gone.
        let _ = self.spool.disk.unlink(self.file.path());
    }
}
