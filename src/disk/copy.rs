//! An unnamed copy of a message, for a program that reads it as its standard input.
//!
//! The copy is complete before the program starts, and stays complete if this process dies. So the end of
//! the program's input is always the end of the message. A pipe cannot guarantee that. If the writing
//! process is killed (by an operator, for lack of memory, with its container), the kernel closes the
//! writing end, and a reader cannot distinguish that from the end of the message. Killing the program in
//! time is no remedy either: a reader may have left the program's process group.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Body;

/// The size limit in octets up to which a message's copy is kept in memory. A larger copy is written to a
/// file, because many messages may be in delivery at once.
const IN_MEMORY: u64 = 1 << 20;

/// Octets per read.
const BLOCK: usize = 128 << 10;

impl Body {
    /// Returns an unnamed file with the result of `change` for the message, positioned at its beginning.
    /// `change` receives the message block by block, and whether the block is the last one. It appends the
    /// octets for the copy.
    ///
    /// # Errors
    /// If the message cannot be read to its end, or there is no space for the copy.
    #[doc(hidden)]
    pub fn copy_changed(
        &self,
        mut change: impl FnMut(&[u8], bool, &mut Vec<u8>),
    ) -> io::Result<OwnedFd> {
        let mut copy = if self.size() > IN_MEMORY {
            on_disk().or_else(|_| in_memory())?
        } else {
            in_memory().or_else(|_| on_disk())?
        };
        let mut reader = self.reader();
        let (mut block, mut changed) = (vec![0; BLOCK], Vec::new());
        loop {
            let got = reader.fill(&mut block)?;
            let is_last = got < block.len();
            changed.clear();
            change(&block[..got], is_last, &mut changed);
            copy.write_all(&changed)?;
            if is_last {
                break;
            }
        }
        read_only(copy).map(OwnedFd::from)
    }
}

fn in_memory() -> io::Result<File> {
    let create = |flags| memfd_create(c"message", MFdFlags::MFD_CLOEXEC | flags);
    // Some systems require the flag, and kernels before 6.3 do not know it.
    let never_executable = MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL);
    let file = create(never_executable).or_else(|_| create(MFdFlags::empty()))?;
    Ok(file.into())
}

/// Creates an unnamed file in `TMPDIR` or in `/var/tmp`, which is for large temporary files. `/tmp` is
/// often in memory.
fn on_disk() -> io::Result<File> {
    let dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let dir = dir.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(nix::libc::O_TMPFILE).open(dir)
}

/// Reopens the file for reading only, so that the command cannot change its input, as with a pipe. The
/// command may open it as `/dev/stdin`, even as another user.
fn read_only(mut copy: File) -> io::Result<File> {
    copy.set_permissions(Permissions::from_mode(0o444))?;
    match File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())) {
        Ok(reader) => Ok(reader),
        // Without /proc: pass the writable file. The command changes only its own copy.
        Err(_) => {
            copy.rewind()?;
            Ok(copy)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_copy_is_whole_and_cannot_be_written_to() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 << 20] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let body = Body::of_bytes(bytes.clone());
            let mut is_first = true;
            let change = |block: &[u8], is_last: bool, copy: &mut Vec<u8>| {
                assert_eq!(is_last, block.len() < BLOCK);
                if std::mem::take(&mut is_first) {
                    copy.extend_from_slice(b"head\n");
                }
                copy.extend_from_slice(block);
            };
            let mut copy = File::from(body.copy_changed(change).unwrap());
            let mut all = Vec::new();
            copy.read_to_end(&mut all).unwrap();
            assert!(all == [b"head\n", &bytes[..]].concat(), "{size}");
            assert!((&copy).write_all(b"x").is_err());
            assert_eq!(copy.metadata().unwrap().len(), 5 + size as u64);
        }
    }
}
