//! The history of a message in hand: `history/<id>`, and when it can be believed.
//!
//! An event is written when it happens, and synced only before something is built on it. A sync that
//! failed says that what was written may be lost, and a later sync of the same file
//! may succeed all the same: the system has given the data up. So what a sync did not make
//! durable is written again, to a new file that takes the old one's name. A holder cannot
//! know whether one before it saw a sync fail; but one that did had no time to put the message
//! where its history says it rests. What is found anywhere else is written anew.

use std::path::Path;

use nix::errno::Errno;

use super::layout::{Info, history_part};
use super::reserve;
use crate::disk::{self, Disk, File};
use crate::message::QueueId;

/// The length in octets from which a history is folded: a shorter one is not worth it.
pub(super) const FOLDED_FROM: u64 = 256 << 10;

/// The history's file, as far as its holder knows it.
#[derive(Debug)]
pub(super) struct HistoryFile {
    disk: Disk,
    id: QueueId,
    /// Open for writing, once something is to be written.
    file: Option<File>,
    /// Something may have its name, if only an empty file: its maker may have been killed before the first line.
    exists: bool,
    /// Where a torn last line begins, until it is cut off.
    torn: Option<u64>,
    /// Octets of the whole lines.
    size: u64,
    /// All of it is known to be durable.
    durable: bool,
    /// A sync of what the file has can be believed.
    trusted: bool,
    /// It is known how the file ends.
    ends_well: bool,
}

impl HistoryFile {
    /// A history that is not open yet, with so many octets of whole lines; none if it has no file. It is `durable` if it
    /// has no lines, and `trusted` where the message
    /// rests where it says.
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

    /// Adds a line. After an error it is not known how the file ends, and nothing more is added: a
    /// line after a torn one would be damage that no crash explains. The sync writes it all anew.
    pub fn append(&mut self, line: &[u8]) -> disk::Result<()> {
        self.durable = false;
        if !self.ends_well {
            return Ok(());
        }
        let is_full =
            |written: &disk::Result<()>| written.as_ref().is_err_and(disk::Error::is_full);
        let mut written = self.write_line(line);
        // Once more: room may come back with the file system's next commit, and without this line a
        // sender is not told of a delay.
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

    /// Takes back what a line that found no room may have left of itself; false if that cannot be.
    fn cut_back(&mut self) -> bool {
        if self.size == 0 {
            // An empty file would only take the room that another name in this directory may need.
            self.file = None;
            return self.disk.unlink(&Info::History.path(self.id)).is_ok();
        }
        match &self.file {
            Some(file) => self.disk.truncate(file, self.size).is_ok(),
            None => true,
        }
    }

    /// Whether it has `from` octets and has doubled since it was folded into so many octets.
    pub fn is_long(&self, folded: u64, from: u64) -> bool {
        self.size >= (2 * folded).max(from)
    }

    /// Puts these lines in place of all that is there, durably.
    pub fn replace(&mut self, lines: &[u8]) -> disk::Result<()> {
        self.durable = false;
        let written = self.write_anew(lines);
        if written.is_err() {
            (self.trusted, self.ends_well) = (false, false);
        }
        written
    }

    /// Makes the history durable, with its name: who made the file may have been killed before
    /// he could. `lines` is all of it, for the case that it has to be written anew.
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
                    tracing::warn!(id = %self.id, %error, "the history is written anew");
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
        // Whatever happens: the name may be another file's from now on.
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

    /// Whether it may have a file.
    pub fn has_file(&self) -> bool {
        self.exists
    }

    /// For a barrier that others share. None if the file's sync could not be believed.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.trusted)
    }

    /// What a barrier that others shared has come to.
    pub fn shared(&mut self, durable: bool) {
        self.durable |= durable && self.trusted;
        self.trusted &= durable;
    }
}

/// Puts a history in a file of its own, durably, in place of what is there. Only the holder of
/// the message's lock may.
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
        // Best effort: the next holder does it before he writes his own.
        let _ = disk.unlink(&part);
    }
    written
}

/// Makes the new file and locks it, so that nobody who tidies up takes it for what a kill left.
/// Who does so in the moment before that has removed it: then it is made again.
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

    /// Has the calls that need room find none, from the n-th on so many times; with `made`, after half of a
    /// write.
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
    fn a_line_that_finds_no_room_once_is_written_and_what_finds_none_leaves_nothing() {
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
