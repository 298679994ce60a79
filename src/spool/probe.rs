//! A check whether the spool can be used for deliveries at all.

use std::path::{Path, PathBuf};

use super::Spool;
use super::layout::{Info, Queue};
use super::part::Part;
use crate::disk;

impl Spool {
    /// Tries what every delivery needs: looking up names in the queue and history directories, and writing a
    /// history durably. Leaves no file.
    ///
    /// # Errors
    /// The first failure. No message can be processed then.
    pub fn probe(&self) -> disk::Result<()> {
        for dir in [Queue::Active.dir(), PathBuf::from(Info::History.dir())] {
            // This name never exists; only the success of the lookup matters.
            self.disk.stat(&dir.join("probe"))?;
        }
        let history = Path::new(Info::History.dir());
        match Part::write(&self.disk, history, "", PROBE) {
            // With a full disk, deliveries can still be recorded.
            Err(error) if error.is_full() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Octets like a message's first event.
const PROBE: &[u8] = &[b'\n'; 256];
