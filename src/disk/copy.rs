//! A copy of a message without a name, for a program that reads it as its standard input.
//!
//! It is complete before the program starts, and stays so whatever becomes of this process: the end
//! of the program's input is the end of the message, always. That is more than a pipe can promise. The
//! kernel closes the writing end of a process that is killed (by hand, for its memory, with its
//! container), and no reader can tell that from the end of a message; a reader that has left the
//! process group of its program cannot be killed in time either.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Body;

/// The most octets that are kept in memory. More is written to a file, since many messages may be on
/// their way at once.
const IN_MEMORY: u64 = 1 << 20;

/// Octets that are read at once.
const BLOCK: usize = 128 << 10;

impl Body {
    /// A file without a name that has what `change` makes of the message, to be read from its
    /// beginning. `change` is given one block after the other, and whether it is the last, and adds to
    /// the octets that go into the copy.
    ///
    /// # Errors
    /// If the message cannot be read to its end, or there is no room for the copy.
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
    // Some systems insist on it, and kernels before 6.3 do not know it.
    let never_executable = MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL);
    let file = create(never_executable).or_else(|_| create(MFdFlags::empty()))?;
    Ok(file.into())
}

/// Where temporary files go that may be large: not `/tmp`, which is often memory.
fn on_disk() -> io::Result<File> {
    let dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let dir = dir.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(nix::libc::O_TMPFILE).open(dir)
}

/// The same file, opened for reading: a command can change its input no more than it can that of a
/// pipe. It may open it by `/dev/stdin`, also as another user.
fn read_only(mut copy: File) -> io::Result<File> {
    copy.set_permissions(Permissions::from_mode(0o444))?;
    match File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())) {
        Ok(reader) => Ok(reader),
        // Without /proc: the copy is the command's own anyway.
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
