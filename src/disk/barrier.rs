//! How things are made durable.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs;

use super::{Call, Disk, File, Result};

/// Which calls make a set of files and directories durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One `syncfs`.
    SyncFs,
    /// `fsync` of each file and each directory.
    Each,
}

impl Method {
    /// The method for the file system that a directory is on.
    pub(super) fn of(root: BorrowedFd<'_>) -> Method {
        match statfs::fstatfs(root).map(|fs| fs.filesystem_type()) {
            Ok(statfs::EXT4_SUPER_MAGIC) => Method::SyncFs,
            _ => Method::Each,
        }
    }
}

/// Whether a directory is on a network file system, or one of a user's process.
pub(super) fn is_remote(root: BorrowedFd<'_>) -> bool {
    let remote = [
        statfs::NFS_SUPER_MAGIC,
        statfs::SMB_SUPER_MAGIC,
        statfs::CODA_SUPER_MAGIC,
        statfs::AFS_SUPER_MAGIC,
        statfs::FUSE_SUPER_MAGIC,
    ];
    statfs::fstatfs(root).is_ok_and(|fs| remote.contains(&fs.filesystem_type()))
}

impl Disk {
    /// Makes the data and size of the files and the entries of the directories durable, all of
    /// them or none for certain: after an error nothing may be taken as durable that is not
    /// made so again by a call that succeeds, on files written anew.
    pub fn durable(&self, files: &[&File], dirs: &[&Path]) -> Result<()> {
        match self.inner.method {
            Method::SyncFs => {
                let here = Path::new(".");
                self.call(&Call::SyncFs, here, || {
                    nix::unistd::syncfs(&self.inner.root)
                })
            }
            Method::Each => {
                for file in files {
                    let call = Call::SyncFile { path: &file.path };
                    self.call(&call, &file.path, || nix::unistd::fsync(&file.file))?;
                }
                dirs.iter().try_for_each(|path| self.sync_dir(path))
            }
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.call(&Call::SyncDir { path }, path, || {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let dir = nix::fcntl::openat(&self.inner.root, path, flags, Mode::empty())?;
            nix::unistd::fsync(&dir)
        })
    }
}
