//! Metadata of files, file systems and locks.

use std::collections::HashMap;

use nix::sys::stat::{FileStat, SFlag};

/// The fields of `stat` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode. Two names with the same identity are the same file.
    pub identity: (u64, u64),
    /// Number of hard links.
    pub links: u64,
    /// Size in octets.
    pub size: u64,
    /// Regular file, directory or something else.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner's uid.
    pub uid: u32,
    /// When the mode, owner or a name changed last (`ctime`), in seconds since 1970. For display only.
    pub changed: i64,
}

/// The kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A link, pipe, socket or device. None of these belongs in a spool.
    Other,
}

/// Free space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Octets that this user may still write.
    pub bytes: u64,
    /// Files that may still be created; `None` if the file system does not count them.
    pub inodes: Option<u64>,
}

impl From<FileStat> for Stat {
    fn from(stat: FileStat) -> Stat {
        let format = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        Stat {
            identity: (stat.st_dev, stat.st_ino),
            links: stat.st_nlink,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            kind: match format {
                SFlag::S_IFREG => Kind::File,
                SFlag::S_IFDIR => Kind::Dir,
                _ => Kind::Other,
            },
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            changed: stat.st_ctime,
        }
    }
}

/// The kernel's id of this boot; empty if it cannot be read.
pub fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// The inodes under an exclusive flock, and the process that holds each, from `/proc/locks`. The kernel's
/// list is read instead of trying the locks with fs2, because trying a lock takes it for a moment and names
/// no process. The inodes are not limited to one file system, so the result is for display only.
pub fn lock_holders() -> HashMap<u64, u32> {
    let Ok(text) = std::fs::read_to_string("/proc/locks") else {
        return HashMap::new();
    };
    // `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; a waiting process has `->` after the number.
    let holder = |line: &str| -> Option<(u64, u32)> {
        let mut words = line.split_ascii_whitespace().filter(|word| *word != "->");
        let kind = words.nth(1).filter(|kind| *kind == "FLOCK");
        let process = kind.and(words.nth(2))?.parse().ok()?;
        let inode = words.next()?.rsplit(':').next()?.parse().ok()?;
        Some((inode, process))
    };
    text.lines().filter_map(holder).collect()
}
