//! A locked message is read and verified.
//!
//! A locked message ([`Locked`]) and a verified one ([`Entry`]) are different types: no operation uses an
//! envelope that was not verified under the lock.

use super::entry::Entry;
use super::files::Head;
use super::lock::Locked;
use crate::disk;
use crate::message::{Seal, SealHasher};

/// Why a locked message could not be read.
#[derive(Debug)]
pub enum Unreadable {
    /// The message is damaged. It can be quarantined with this reason.
    Corrupt(Locked, String),
    /// A system call failed; this says nothing about the message.
    Failed(disk::Error),
}

impl From<disk::Error> for Unreadable {
    fn from(error: disk::Error) -> Unreadable {
        Unreadable::Failed(error)
    }
}

/// Octets of a message file read at once, envelope block included.
const FIRST: usize = 64 << 10;

impl Locked {
    /// Reads the envelope and the history, and checks the seal against every octet. Only under the lock can
    /// no other process change them.
    pub fn read(self) -> Result<Entry, Unreadable> {
        let id = self.id;
        let most = usize::try_from(self.size).unwrap_or(usize::MAX);
        let head = match self.head(most.min(FIRST))? {
            Ok(head) => head,
            Err(reason) => return Err(Unreadable::Corrupt(self, reason)),
        };
        let Head { block, message } = head;
        if self.digest(&block.seal, &message)? != block.seal.message {
            let reason = "the message does not match its seal".to_owned();
            return Err(Unreadable::Corrupt(self, reason));
        }
        let found = match self.spool.read_history(id)? {
            Ok(found) => found,
            Err(reason) => return Err(Unreadable::Corrupt(self, reason)),
        };
        // Keep a small message in memory, so that it need not be read again.
        let bytes = (message.len() as u64 == block.seal.size).then(|| message.into());
        let entry = Entry::new(self, block, bytes, found);
        // The state of a recipient belongs to a single line of the block.
        if entry.state().recipients.len() < entry.envelope().recipients.len() {
            let reason = "its envelope block names a recipient twice".to_owned();
            return Err(Unreadable::Corrupt(entry.into_locked(), reason));
        }
        Ok(entry)
    }

    /// Returns the checksum of the message, of which `begin` has been read.
    fn digest(&self, seal: &Seal, begin: &[u8]) -> disk::Result<u128> {
        let mut hasher = SealHasher::new();
        hasher.update(begin);
        let mut chunk = Vec::new();
        while hasher.size() < seal.size {
            chunk.resize(FIRST, 0);
            let at = seal.block + hasher.size();
            let got = self.spool.disk.read_at(&self.file, &mut chunk, at)?;
            if got == 0 {
                break;
            }
            hasher.update(&chunk[..got]);
        }
        Ok(hasher.digest())
    }
}
