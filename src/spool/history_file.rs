//! The history file of a message, `history/<id>`, and whether its syncs can be trusted.
//!
//! An event is written when it happens, and synced only when something depends on it. After a failed sync,
//! written data may be lost, and yet a later sync of the same file may succeed: the kernel has dropped the
//! data. So what a sync did not make durable is written again, to a new file that replaces the old one. A
//! holder cannot know whether an earlier holder saw a sync fail. But a holder that did had no chance to move
//! the message to the queue that the history calls for. The history of a message found in any other queue is
//! rewritten.

use std::path::Path;

use nix::errno::Errno;

use super::layout::{Info, history_part};
use super::reserve;
use crate::disk::{self, Disk, File};
use crate::message::QueueId;

/// Octets. A shorter history is not folded.
pub(super) const FOLDED_FROM: u64 = 256 << 10;

/// The state of the history file, as known to the message's holder.
#[derive(Debug)]
pub(super) struct HistoryFile {
    disk: Disk,
    id: QueueId,
    /// Open for writing, after the first write.
    file: Option<File>,
    /// The file may exist, even if empty: its creator may have been killed before writing a line.
    exists: bool,
    /// The offset of a torn last line, until it is truncated.
    torn: Option<u64>,
    /// Octets of the complete lines.
    size: u64,
    /// Everything is durable.
    durable: bool,
    /// A successful sync proves that the file's content is durable.
    trusted: bool,
    /// The end of the file is known to be intact.
    ends_well: bool,
}

impl HistoryFile {
    /// Returns a history that is not open yet. `size` is the octets of complete lines, or `None` if there is
    /// no file. `durable` is true if it has no lines. `trusted` is true if the message is in the queue that
    /// its history calls for.
    pub fn new(
        disk: Disk,
        id: QueueId,
        size: Option<u64>,
        torn: Option<u64>,
        durable: bool,
        trusted: bool,
    ) -> HistoryFile {
        HistoryFile {
            disk,
            id,
            file: None,
            exists: size.is_some(),
            size: size.unwrap_or_default(),
            torn,
            durable,
            trusted,
            ends_well: true,
        }
    }

    /// Opens the file for writing.
    pub fn open(&mut self) -> disk::Result<()> {
        if self.file.is_none() {
            self.exists = true;
            let file = self.disk.open_append(&Info::History.path(self.id))?;
            if let Some(whole) = self.torn {
                self.disk.truncate(&file, whole)?;
                self.torn = None;
            }
            self.file = Some(file);
        }
        Ok(())
    }

    /// Appends a line. After an error the end of the file is unknown, and later lines are not appended: a
    /// line after a torn one would look like damage that no crash causes. The sync rewrites everything.
    pub fn append(&mut self, line: &[u8]) -> disk::Result<()> {
        self.durable = false;
        if !self.ends_well {
            return Ok(());
        }
        let is_full =
            |written: &disk::Result<()>| written.as_ref().is_err_and(disk::Error::is_full);
        let mut written = self.write_line(line);
        // Retry once: the file system's next commit may free space, and without this line the sender gets no
        // delay notice.
        if is_full(&written) && self.cut_back() {
            written = self.write_line(line);
            if is_full(&written) {
                self.cut_back();
            }
        }
        self.size += line.len() as u64;
        self.ends_well = written.is_ok();
        self.trusted &= written.is_ok();
        written
    }

    fn write_line(&mut self, line: &[u8]) -> disk::Result<()> {
        self.open()?;
        match &self.file {
            Some(file) => self.disk.write_all(file, line),
            None => Ok(()),
        }
    }

    /// Removes a partial line after a write found no space. Returns false if that fails.
    fn cut_back(&mut self) -> bool {
        if self.size == 0 {
            // An empty file would take space that another name in this directory may need.
            self.file = None;
            return self.disk.unlink(&Info::History.path(self.id)).is_ok();
        }
        match &self.file {
            Some(file) => self.disk.truncate(file, self.size).is_ok(),
            None => true,
        }
    }

    /// Whether it has at least `from` octets, and has doubled since it was folded to `folded` octets.
    pub fn is_long(&self, folded: u64, from: u64) -> bool {
        self.size >= (2 * folded).max(from)
    }

    /// Replaces the whole history with these lines, durably.
    pub fn replace(&mut self, lines: &[u8]) -> disk::Result<()> {
        self.durable = false;
        let written = self.write_anew(lines);
        if written.is_err() {
            (self.trusted, self.ends_well) = (false, false);
        }
        written
    }

    /// Makes the history and its name durable. The name is synced too, because the file's creator may have
    /// been killed before doing so. `lines` returns the whole history, in case it must be rewritten.
    pub fn sync(&mut self, lines: impl FnOnce() -> Vec<u8>) -> disk::Result<()> {
        if self.durable {
            return Ok(());
        }
        if self.trusted {
            match self.sync_file() {
                Ok(()) => {
                    self.durable = true;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(id = %self.id, %error, "the history is rewritten");
                    self.trusted = false;
                }
            }
        }
        self.write_anew(&lines())
    }

    fn sync_file(&mut self) -> disk::Result<()> {
        self.open()?;
        let dir = Path::new(Info::History.dir());
        match &self.file {
            Some(file) => self.disk.durable(&[file], &[dir]),
            None => Ok(()),
        }
    }

    fn write_anew(&mut self, lines: &[u8]) -> disk::Result<()> {
        // Even after an error, the name may refer to a different file from now on.
        self.file = None;
        self.torn = None;
        self.exists = true;
        write_anew(&self.disk, self.id, lines)?;
        self.size = lines.len() as u64;
        self.durable = true;
        self.trusted = true;
        self.ends_well = true;
        Ok(())
    }

    /// Whether the file may exist.
    pub fn has_file(&self) -> bool {
        self.exists
    }

    /// The open file, for a barrier shared with other files. `None` if its sync could not be trusted.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.trusted)
    }

    /// Takes over the result of a shared barrier.
    pub fn shared(&mut self, durable: bool) {
        self.durable |= durable && self.trusted;
        self.trusted &= durable;
    }
}

/// Replaces the history file with a new one, durably. The caller holds the message's lock.
pub(super) fn write_anew(disk: &Disk, id: QueueId, lines: &[u8]) -> disk::Result<()> {
    let part = history_part(id);
    let write = || -> disk::Result<()> {
        let file = create_part(disk, &part)?;
        let file = reserve::write(disk, file, &part, lines)?;
        disk.durable(&[&file], &[])?;
        disk.rename(&file, &part, &Info::History.path(id))?;
        disk.durable(&[], &[Path::new(Info::History.dir())])
    };
    let mut written = write();
    // A repair that found the part of a killed process may have unlinked ours, which has the same name.
    if written.as_ref().is_err_and(disk::Error::is_absent) {
        written = write();
    }
    if written.is_err() {
        // Best effort: the next holder removes it before writing its own.
        let _ = disk.unlink(&part);
    }
    written
}

/// Creates and locks the new file, so that a process that removes leftovers does not remove it. Such a
/// process may have removed it before the lock was taken; then it is created again.
fn create_part(disk: &Disk, part: &Path) -> disk::Result<File> {
    const MAX_TRIES: usize = 3;
    let mut tries = 0;
    loop {
        tries += 1;
        let file = match reserve::create(disk, part) {
            Err(error) if error.is(Errno::EEXIST) => {
                disk.unlink(part)?;
                reserve::create(disk, part)?
            }
            other => other?,
        };
        let locked = disk.try_lock(&file)?;
        let ours = disk.stat_file(&file)?.identity;
        let named = disk.stat(part)?.map(|stat| stat.identity);
        if locked && named == Some(ours) || tries >= MAX_TRIES {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::Timestamp;

    use super::*;
    use crate::disk::{Call, Seam, Verdict};

    /// Fails the calls that need disk space with a full disk, `times` calls from number `first` on. With
    /// `made`, half of each such write succeeds first.
    struct Full {
        first: usize,
        times: usize,
        made: bool,
        seen: AtomicUsize,
    }

    impl Seam for Full {
        fn before(&self, call: &Call<'_>) -> Verdict {
            if !matches!(call, Call::Open { create: true, .. } | Call::Write { .. }) {
                return Verdict::Pass;
            }
            let number = self.seen.fetch_add(1, Ordering::SeqCst);
            match (self.first..self.first + self.times).contains(&number) {
                true if self.made => Verdict::PassAndFail(Errno::EDQUOT),
                true => Verdict::Fail(Errno::ENOSPC),
                false => Verdict::Pass,
            }
        }

        fn length(&self, call: &Call<'_>) -> Option<usize> {
            match call {
                Call::Write { bytes, .. } if self.made => Some(bytes.len().div_ceil(2)),
                _ => None,
            }
        }
    }

    #[test]
    fn a_full_disk_is_retried_once_and_leaves_no_partial_line() {
        for before in ["", "first\n"] {
            for made in [false, true] {
                for first in 0..4 {
                    for times in [1, 100] {
                        let dir = tempfile::tempdir().unwrap();
                        let id = QueueId::new(Timestamp::UNIX_EPOCH, [7; 10]);
                        let path = dir.path().join(Info::History.path(id));
                        std::fs::create_dir(path.parent().unwrap()).unwrap();
                        if !before.is_empty() {
                            std::fs::write(&path, before).unwrap();
                        }
                        let seam = Arc::new(Full {
                            first,
                            times,
                            made,
                            seen: AtomicUsize::new(0),
                        });
                        let disk = Disk::open(dir.path(), Some(seam.clone())).unwrap();
                        let size = (!before.is_empty()).then_some(before.len() as u64);
                        let mut history = HistoryFile::new(disk, id, size, None, true, true);
                        let written = history.append(b"second\n");
                        let there = std::fs::read_to_string(&path).ok();
                        let struck = seam.seen.load(Ordering::SeqCst) > first;
                        if times == 100 && struck {
                            assert!(written.unwrap_err().is_full());
                            let left = (!before.is_empty()).then(|| before.to_owned());
                            assert_eq!(there, left, "{made} {first}");
                        } else {
                            written.unwrap();
                            assert_eq!(there, Some(format!("{before}second\n")));
                        }
                    }
                }
            }
        }
    }
}
