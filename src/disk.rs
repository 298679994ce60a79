//! The file-system interface. Every file-system call of the spool and of the Maildir transport goes through
//! this module.
//!
//! A [`Disk`] is an open directory. Every path is relative to it, and symbolic links below it are not
//! followed, so no path can reach outside it. Each call first asks the [`Seam`], if a test has installed
//! one. The seam lets the call pass, makes it fail, or stops everything from that call on. Errors carry the
//! call and the path. A call that a signal interrupts is repeated. Only [`Disk::durable`] and
//! `Disk::sync_file` make things durable; only [`Disk::rename`] renames.

mod barrier;
mod body;
mod copy;
mod error;
mod making;
mod random;
#[cfg_attr(not(feature = "testing"), allow(dead_code))]
mod seam;
mod stat;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode};
use nix::unistd::{LinkatFlags, UnlinkatFlags};

pub use body::{Body, BodyReader};
pub use error::Error;
pub(crate) use random::random;
#[cfg(feature = "testing")]
pub use seam::Verdict;
pub use seam::{Call, Seam};
use seam::{through, verdict_length};
pub use stat::{Kind, Space, Stat, boot, lock_holders};

/// A result of a file-system call.
pub type Result<T> = std::result::Result<T, Error>;

/// Mode of every directory in a spool.
pub const DIR_MODE: u32 = 0o700;
/// Mode of every file in a spool.
pub const FILE_MODE: u32 = 0o600;

/// Mode of a message file during an attempt.
pub const IN_USE_MODE: u32 = 0o700;

/// An open directory and everything below it.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Inner>,
}

struct Inner {
    root: OwnedFd,
    path: PathBuf,
    seam: Option<Arc<dyn Seam>>,
}

/// An open file. The path is for error messages only; the file may have been renamed since.
#[derive(Debug)]
pub struct File {
    unlocks: seam::Unlocks,
    is_locked: AtomicBool,
    file: std::fs::File,
    path: PathBuf,
}

impl Drop for File {
    /// Releases the lock. Closing the descriptor is not enough: a command that another thread is starting
    /// has a copy of the descriptor, and therefore the lock, until its `exec`.
    fn drop(&mut self) {
        if self.is_locked.load(Ordering::Relaxed) {
            self.unlocks.tell();
            let _ = fs2::FileExt::unlock(&self.file);
        }
    }
}

impl Disk {
    /// Opens a directory.
    pub fn open(path: &Path, seam: Option<Arc<dyn Seam>>) -> Result<Disk> {
        let call = Call::OpenRoot { path };
        let root = through(seam.as_deref(), &call, path, || {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            nix::fcntl::open(path, flags, Mode::empty())
        })?;
        let path = path.to_owned();
        Ok(Disk {
            inner: Arc::new(Inner { root, path, seam }),
        })
    }

    /// The directory's path, as passed to `open`.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether the directory is on a network file system or on FUSE. There the kernel does not report the
    /// changes that other machines or processes make.
    pub fn is_remote(&self) -> bool {
        barrier::is_remote(self.inner.root.as_fd())
    }

    fn call<T>(
        &self,
        call: &Call<'_>,
        path: &Path,
        run: impl FnMut() -> nix::Result<T>,
    ) -> Result<T> {
        through(self.inner.seam.as_deref(), call, path, run)
            .map_err(|error| error.below(&self.inner.path))
    }

    fn open_at(&self, path: &Path, flags: OFlag) -> Result<File> {
        let create = flags.contains(OFlag::O_CREAT);
        // NONBLOCK: a FIFO in a queue directory must not block a runner. NOCTTY: a terminal must not become
        // the controlling terminal of this process.
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let flags = flags | OFlag::O_NOCTTY;
        let mode = Mode::from_bits_truncate(FILE_MODE);
        let fd = self.call(&Call::Open { path, create }, path, || {
            nix::fcntl::openat(&self.inner.root, path, flags, mode)
        })?;
        Ok(File {
            unlocks: seam::Unlocks::default(),
            is_locked: AtomicBool::new(false),
            file: fd.into(),
            path: path.to_owned(),
        })
    }

    /// Creates a file for reading and writing. Fails if the name exists.
    pub fn create(&self, path: &Path) -> Result<File> {
        self.open_at(path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Opens a file for reading and writing. An exclusive lock on NFS needs both.
    pub fn open_rw(&self, path: &Path) -> Result<File> {
        self.open_at(path, OFlag::O_RDWR)
    }

    /// Opens a file for reading.
    pub fn open_read(&self, path: &Path) -> Result<File> {
        self.open_at(path, OFlag::O_RDONLY)
    }

    /// Opens a file for reading and appending. Creates it if it is missing.
    pub fn open_append(&self, path: &Path) -> Result<File> {
        self.open_at(path, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    /// Takes the exclusive lock on a file. Returns false, without waiting, if another process has it.
    pub fn try_lock(&self, file: &File) -> Result<bool> {
        let call = Call::Lock { path: &file.path };
        let locked = self.call(&call, &file.path, || {
            // Qualified, because std has inherent methods of the same names.
            fs2::FileExt::try_lock_exclusive(&file.file).map_err(errno_of)
        });
        match locked {
            Ok(()) => {
                file.is_locked.store(true, Ordering::Relaxed);
                if let Some(seam) = &self.inner.seam {
                    file.unlocks.locked(seam, &file.path);
                }
                Ok(true)
            }
            Err(error) if error.is(Errno::EWOULDBLOCK) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether another process has the exclusive lock on a file. Takes the shared lock, so concurrent
    /// checks do not disturb each other.
    pub fn is_locked(&self, file: &File) -> Result<bool> {
        let call = Call::Lock { path: &file.path };
        let locked = self.call(&call, &file.path, || {
            fs2::FileExt::try_lock_shared(&file.file).map_err(errno_of)
        });
        match locked {
            // Closing the descriptor releases the shared lock.
            Ok(()) => Ok(false),
            Err(error) if error.is(Errno::EWOULDBLOCK) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads at an offset. Returns 0 at the end of the file.
    pub fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> Result<usize> {
        let len = bytes.len();
        let call = Call::Read { path: &file.path };
        self.call(&call, &file.path, || {
            let most = match verdict_length(self.inner.seam.as_deref(), &call) {
                Some(short) => short.min(len),
                None => len,
            };
            file.file
                .read_at(&mut bytes[..most], offset)
                .map_err(errno_of)
        })
    }

    /// Reads a whole file. Fails without allocating memory if the file is longer than `limit` (`EFBIG`) or
    /// is not a regular file.
    pub fn read_all(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_read(path)?;
        self.read_file(&file, limit)
    }

    /// Like [`read_all`](Disk::read_all), for an open file.
    pub fn read_file(&self, file: &File, limit: u64) -> Result<Vec<u8>> {
        let stat = self.stat_file(file)?;
        if stat.kind != Kind::File {
            return Err(Error::not_a_file("read", &file.path).below(&self.inner.path));
        }
        if stat.size > limit {
            let error = Error::new("read", &file.path, Errno::EFBIG.into());
            return Err(error.below(&self.inner.path));
        }
        let mut bytes = Vec::with_capacity(512);
        loop {
            let have = bytes.len();
            bytes.resize((have * 2).max(512), 0);
            let got = self.read_at(file, &mut bytes[have..], have as u64)?;
            bytes.truncate(have + got);
            if bytes.len() as u64 > limit {
                let error = Error::new("read", &file.path, Errno::EFBIG.into());
                return Err(error.below(&self.inner.path));
            }
            if got == 0 {
                return Ok(bytes);
            }
        }
    }

    /// Writes all of `bytes` at the file's offset.
    pub fn write_all(&self, file: &File, bytes: &[u8]) -> Result<()> {
        self.write(file, bytes, None)
    }

    /// Writes all of `bytes` at the offset `at`.
    pub fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> Result<()> {
        self.write(file, bytes, Some(at))
    }

    fn write(&self, file: &File, mut bytes: &[u8], mut at: Option<u64>) -> Result<()> {
        while !bytes.is_empty() {
            let call = Call::Write {
                path: &file.path,
                bytes,
                at,
            };
            let written = self.call(&call, &file.path, || {
                let most = match verdict_length(self.inner.seam.as_deref(), &call) {
                    Some(short) => short.clamp(1, bytes.len()),
                    None => bytes.len(),
                };
                match at {
                    None => nix::unistd::write(&file.file, &bytes[..most]),
                    Some(at) => file.file.write_at(&bytes[..most], at).map_err(errno_of),
                }
            })?;
            if written == 0 {
                let error = Error::new("write", &file.path, Errno::EIO.into());
                return Err(error.below(&self.inner.path));
            }
            bytes = &bytes[written..];
            at = at.map(|at| at + written as u64);
        }
        Ok(())
    }

    /// Truncates a file to `len` octets.
    pub fn truncate(&self, file: &File, len: u64) -> Result<()> {
        let call = Call::Truncate {
            path: &file.path,
            len,
        };
        self.call(&call, &file.path, || {
            nix::unistd::ftruncate(&file.file, len as i64)
        })
    }

    /// The `stat` of an open file.
    pub fn stat_file(&self, file: &File) -> Result<Stat> {
        let call = Call::Stat { path: &file.path };
        let stat = self.call(&call, &file.path, || nix::sys::stat::fstat(&file.file))?;
        Ok(Stat::from(stat))
    }

    /// The `stat` of a name, or `None` if the name does not exist.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let stat = self.call(&Call::Stat { path }, path, || {
            nix::sys::stat::fstatat(&self.inner.root, path, AtFlags::AT_SYMLINK_NOFOLLOW)
        });
        match stat {
            Ok(stat) => Ok(Some(Stat::from(stat))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames the file that is open as `file`. After an error, `stat` decides: over a network the rename
    /// may have happened although its answer was lost.
    pub fn rename(&self, file: &File, from: &Path, to: &Path) -> Result<()> {
        let call = Call::Rename { from, to };
        let root = &self.inner.root;
        let renamed = self.call(&call, from, || nix::fcntl::renameat(root, from, root, to));
        let Err(error) = renamed else { return Ok(()) };
        let ours = self.stat_file(file)?.identity;
        let named_so = |path: &Path| -> Result<bool> {
            Ok(self.stat(path)?.is_some_and(|stat| stat.identity == ours))
        };
        if named_so(to)? && !named_so(from)? {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Gives a file a second name. Returns false if another file has that name.
    pub fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        let call = Call::Link { from, to };
        let root = &self.inner.root;
        let linked = self.call(&call, to, || {
            nix::unistd::linkat(root, from, root, to, LinkatFlags::empty())
        });
        let Err(error) = linked else { return Ok(true) };
        // As in `rename`: the answer may be wrong, the directory is not.
        match (self.stat(from)?, self.stat(to)?) {
            (Some(a), Some(b)) if a.identity == b.identity => Ok(true),
            _ if error.is(Errno::EEXIST) => Ok(false),
            _ => Err(error),
        }
    }

    /// The error for a rename onto an existing name, for callers that must not replace a file.
    pub fn already_there(&self, path: &Path) -> Error {
        Error::new("rename", path, Errno::EEXIST.into()).below(&self.inner.path)
    }

    /// The error for a sync that is not attempted, because an earlier sync failed.
    pub(crate) fn not_believed(&self, file: &File) -> Error {
        Error::new("fsync", &file.path, Errno::EIO.into()).below(&self.inner.path)
    }

    /// Sets the permission bits of an open file.
    pub fn set_mode(&self, file: &File, mode: u32) -> Result<()> {
        let call = Call::Chmod {
            path: &file.path,
            mode,
        };
        let mode = Mode::from_bits_truncate(mode);
        self.call(&call, &file.path, || {
            nix::sys::stat::fchmod(&file.file, mode)
        })
    }

    /// Makes new files in a directory overwrite their data in place, on file systems that otherwise write
    /// each change to a new location (btrfs). A change then needs no free space.
    pub fn keep_in_place(&self, dir: &Path) -> Result<()> {
        let fd = self.open_dir(dir)?;
        let call = Call::Chmod {
            path: dir,
            mode: DIR_MODE,
        };
        self.call(&call, dir, || set_in_place(fd.as_fd()))
    }

    /// Sets the permission bits of a file or a directory. Does not follow a symbolic link.
    pub fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        let call = Call::Chmod { path, mode };
        let mode = Mode::from_bits_truncate(mode);
        self.call(&call, path, || {
            let flags = FchmodatFlags::NoFollowSymlink;
            nix::sys::stat::fchmodat(&self.inner.root, path, mode, flags)
        })
    }

    /// Removes a name. Returns false if it did not exist.
    pub fn unlink(&self, path: &Path) -> Result<bool> {
        let gone = self.call(&Call::Unlink { path }, path, || {
            nix::unistd::unlinkat(&self.inner.root, path, UnlinkatFlags::NoRemoveDir)
        });
        absent_is_false(gone)
    }

    /// Creates a directory. Returns false if the name existed.
    pub fn mkdir(&self, path: &Path) -> Result<bool> {
        let mode = Mode::from_bits_truncate(DIR_MODE);
        let made = self.call(&Call::Mkdir { path }, path, || {
            nix::sys::stat::mkdirat(&self.inner.root, path, mode)
        });
        match made {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an empty directory. Returns false if it did not exist or is not empty.
    pub fn rmdir(&self, path: &Path) -> Result<bool> {
        let gone = self.call(&Call::Rmdir { path }, path, || {
            nix::unistd::unlinkat(&self.inner.root, path, UnlinkatFlags::RemoveDir)
        });
        match gone {
            Err(error) if error.is(Errno::ENOTEMPTY) || error.is(Errno::EEXIST) => Ok(false),
            other => absent_is_false(other),
        }
    }

    /// Returns the names in a directory, sorted, without `.` and `..`.
    pub fn list(&self, path: &Path) -> Result<Vec<OsString>> {
        let mut names = self.list_as(path, |name| Some(name.to_owned()))?;
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        Ok(names)
    }

    /// Returns the results of `say` for the names in a directory, in no order. With many names, the results
    /// take less memory than the names.
    pub fn list_as<T>(&self, path: &Path, say: impl Fn(&OsStr) -> Option<T>) -> Result<Vec<T>> {
        self.call(&Call::List { path }, path, || {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let dir = Dir::openat(&self.inner.root, path, flags, Mode::empty())?;
            let mut all = Vec::new();
            for entry in dir {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    all.extend(say(OsStr::from_bytes(name)));
                }
            }
            Ok(all)
        })
    }

    /// Returns the free space of the file system. fs2 counts no inodes, and takes a path, which may lead to
    /// another file system since the directory was opened.
    pub fn space(&self) -> Result<Space> {
        let here = Path::new(".");
        let fs = self.call(&Call::Space, here, || {
            nix::sys::statvfs::fstatvfs(&self.inner.root)
        })?;
        Ok(Space {
            bytes: fs.blocks_available() * fs.fragment_size(),
            inodes: (fs.files() > 0).then_some(fs.files_available()),
        })
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Disk").field(&self.inner.path).finish()
    }
}

impl File {
    /// The path that it was opened with, relative to the disk's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[allow(unsafe_code)]
fn set_in_place(dir: BorrowedFd<'_>) -> nix::Result<()> {
    /// `FS_NOCOW_FL` in Linux; `chattr +C` sets it.
    const IN_PLACE: libc::c_int = 0x0080_0000;
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, and both calls take a pointer to an int that outlives them.
    let got = unsafe { libc::ioctl(dir.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    Errno::result(got)?;
    flags |= IN_PLACE;
    // SAFETY: as above.
    let set = unsafe { libc::ioctl(dir.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    Errno::result(set).map(drop)
}

fn absent_is_false(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests;
