//! Whether a spool can be worked on at all.

use std::path::{Path, PathBuf};

use super::Spool;
use super::layout::{Info, Queue};
use super::part::Part;
use crate::disk;

impl Spool {
    /// Asks the spool for what work on any message needs: that names can be looked up where its files
    /// are, and that a history can be written, durably. It leaves no file.
    ///
    /// # Errors
    /// Of the first thing that does not succeed. Then no message can be worked on, whatever it is
    /// like.
    pub fn probe(&self) -> disk::Result<()> {
        for dir in [Queue::Active.dir(), PathBuf::from(Info::History.dir())] {
            // No such name is ever there; what counts is that this can be said.
            self.disk.stat(&dir.join("probe"))?;
        }
        let history = Path::new(Info::History.dir());
        match Part::write(&self.disk, history, "", PROBE) {
            // What is delivered is recorded all the same.
            Err(error) if error.is_full() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// As much as the first event of a message.
const PROBE: &[u8] = &[b'\n'; 256];
