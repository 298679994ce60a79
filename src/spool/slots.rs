//! Slots: a bound, across processes, on how many do something at once.
//!
//! A slot is a file in `state/` with a lock on it; the kernel frees it when its process ends,
//! however it ends. Nothing depends on the files: they may be deleted at any time.

use std::path::PathBuf;

use super::Spool;
use crate::disk::{self, File};

/// A slot that is taken, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

impl Spool {
    /// Takes one of `count` slots of a name, if one is free.
    pub fn take_slot(&self, name: &str, count: usize) -> disk::Result<Option<Slot>> {
        self.disk.mkdir(&PathBuf::from("state"))?;
        for number in 0..count {
            let path = PathBuf::from(format!("state/{name}-{number}"));
            let file = self.disk.open_append(&path)?;
            if self.disk.try_lock(&file)? {
                return Ok(Some(Slot { _file: file }));
            }
        }
        Ok(None)
    }
}
