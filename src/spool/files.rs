//! A message's files as they are read, with or without its lock: the envelope block at the beginning of the
//! message file, the history, and the other files.

use super::Spool;
use super::layout::{Info, history_part};
use crate::disk::{self, Disk, FILE_MODE, File, IN_USE_MODE, Stat};
use crate::message::block::HEAD;
use crate::message::{Block, QueueId, Seal};
use crate::queue::History;

/// Octets read if only the envelope matters.
pub(super) const LISTED: usize = 4 << 10;

/// The beginning of a message file.
pub(super) struct Head {
    pub block: Block,
    /// Message octets read beyond the block.
    pub message: Vec<u8>,
}

/// Reads the envelope block of a message file of `size` octets, starting with a read of `first` octets.
/// Returns the reason if the block cannot be trusted.
pub(super) fn read_head(
    disk: &Disk,
    file: &File,
    id: QueueId,
    size: u64,
    first: usize,
) -> disk::Result<Result<Head, String>> {
    let head = read_any_head(disk, file, size, first)?;
    Ok(head.and_then(|head| match another(&head.block, id) {
        Some(reason) => Err(reason),
        None => Ok(head),
    }))
}

/// Returns the reason if a block belongs to another message than the file name says.
pub(super) fn another(block: &Block, id: QueueId) -> Option<String> {
    let says = block.id;
    (says != id).then(|| format!("it is another message: its envelope block says {says}"))
}

/// Like [`read_head`], whichever message the block belongs to.
pub(super) fn read_any_head(
    disk: &Disk,
    file: &File,
    size: u64,
    first: usize,
) -> disk::Result<Result<Head, String>> {
    let mut bytes = vec![0; first.max(HEAD)];
    let got = fill(disk, file, &mut bytes, 0)?;
    bytes.truncate(got);
    let seal = match Seal::parse(&bytes) {
        Ok(seal) => seal,
        Err(error) => return Ok(Err(error.to_string())),
    };
    // Check the size first: a block that is partly missing is not read.
    if seal.file_size() != size {
        let sealed = seal.file_size();
        let reason = format!("the message file has {size} octets, the seal says {sealed}");
        return Ok(Err(reason));
    }
    let length = usize::try_from(seal.block).unwrap_or(usize::MAX);
    if bytes.len() < length {
        let have = bytes.len();
        bytes.resize(length, 0);
        let got = fill(disk, file, &mut bytes[have..], have as u64)?;
        bytes.truncate(have + got);
    }
    let message = bytes.split_off(length.min(bytes.len()));
    let block = match Block::parse(&bytes) {
        Ok(block) => block,
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(Ok(Head { block, message }))
}

/// Whether the mode of a message file says that it is in use.
pub(super) fn is_marked(stat: &Stat) -> bool {
    stat.mode & IN_USE_MODE & !FILE_MODE != 0
}

/// Reads until `bytes` is full or the file ends.
fn fill(disk: &Disk, file: &File, bytes: &mut [u8], offset: u64) -> disk::Result<usize> {
    let mut have = 0;
    while have < bytes.len() {
        match disk.read_at(file, &mut bytes[have..], offset + have as u64)? {
            0 => break,
            got => have += got,
        }
    }
    Ok(have)
}

/// A history as read from its file.
pub(super) struct Found {
    pub history: History,
    /// Octets of its file; `None` if there is no file.
    pub size: Option<u64>,
}

impl Spool {
    /// Reads one of a message's other files. Returns `None` if it does not exist.
    pub(super) fn read_info(&self, info: Info, id: QueueId) -> disk::Result<Option<Vec<u8>>> {
        match self.disk.read_all(&info.path(id), info.most()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the history of a message. Returns the reason if it cannot be trusted: it is damaged, or it has a
    /// second name. This program never makes one, so an append would go to a foreign file.
    pub(super) fn read_history(&self, id: QueueId) -> disk::Result<Result<Found, String>> {
        let path = Info::History.path(id);
        let read = self.disk.open_read(&path).and_then(|file| {
            let stat = self.disk.stat_file(&file)?;
            Ok((stat, self.disk.read_file(&file, Info::History.most())?))
        });
        let (stat, bytes) = match read {
            Ok(read) => read,
            Err(error) if error.is_absent() => {
                let history = History::default();
                let size = None;
                return Ok(Ok(Found { history, size }));
            }
            Err(error) if error.is_wrong_kind() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        if stat.links > 1 {
            // A power cut while a rewritten history is renamed leaves it with both names.
            let part = self.disk.stat(&history_part(id))?;
            if stat.links != 2 || part.is_none_or(|part| part.identity != stat.identity) {
                let names = stat.links;
                return Ok(Err(format!(
                    "its history has {names} names: it is a hard link to a foreign file"
                )));
            }
        }
        Ok(match History::parse(&bytes) {
            Ok(history) => {
                let size = Some(bytes.len() as u64);
                Ok(Found { history, size })
            }
            Err(error) => Err(error.to_string()),
        })
    }
}
