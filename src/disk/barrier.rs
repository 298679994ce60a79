//! Durability: an fsync of each file and of each directory, the same on every file system. The fsyncs run
//! concurrently, so that a few flushes of the device serve all of them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::sys::statfs;

use super::{Call, Disk, Error, File, Result};

/// How many directories one barrier has open at once. More would save no flushes, and would take
/// descriptors from the deliveries in progress: a process may have as few as 1024.
const AT_ONCE: u64 = 64;

/// [`AT_ONCE`], or less if the process may have few descriptors, because concurrent deliveries need most of
/// them.
fn most_at_once() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    (limit / 8).clamp(1, AT_ONCE) as usize
}

/// Whether a directory is on a network file system or on FUSE.
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

/// Open directories, with their names.
type Opened<'a> = Vec<(OwnedFd, &'a Path)>;

impl Disk {
    /// Makes the data and size of the files and the entries of the directories durable. After an error,
    /// treat none of them as durable: write the files again and call this again.
    pub fn durable(&self, files: &[&File], dirs: &[&Path]) -> Result<()> {
        self.sync_each(files, dirs)?;
        self.confirm()
    }

    /// Checks whether the success of the preceding syncs can be trusted.
    ///
    /// After an error, ext4 aborts its journal and makes itself read-only some milliseconds later. In
    /// between, `fsync` finds nothing to wait for and reports success although the data is lost (Linux
    /// 6.18; seen with `trigger_fs_error`). Starting a change fails at once in that state. So each barrier
    /// ends by starting one that has no effect: it removes an attribute that no file has.
    fn confirm(&self) -> Result<()> {
        match begin_change(self.inner.root.as_fd()) {
            Err(errno @ (Errno::EROFS | Errno::EIO | Errno::EUCLEAN)) => {
                Err(Error::new("fsync", Path::new("."), errno.into()).below(&self.inner.path))
            }
            // The attribute does not exist, as expected. Or the file system, or the directory's mode, does
            // not allow such attributes; then this check shows nothing.
            _ => Ok(()),
        }
    }

    /// Returns how long to wait for another process, which usually needs no longer than `usual`. Under a
    /// test's seam this is zero, unless the seam says otherwise.
    pub fn patience(&self, usual: Duration) -> Duration {
        match &self.inner.seam {
            None => usual,
            Some(seam) => seam.patience().unwrap_or_default(),
        }
    }

    /// Runs all fsyncs concurrently, so that the file system combines them into few flushes. Directories
    /// are synced in groups, because each needs a descriptor during its sync. Under a test's seam the
    /// fsyncs run one after the other.
    fn sync_each(&self, files: &[&File], dirs: &[&Path]) -> Result<()> {
        let mut left = dirs.iter().copied();
        let (mut group, mut over) = self.open_some(&mut left)?;
        let in_turn = self.inner.seam.is_some() || files.len() + group.len() < 2;
        let mut files = files;
        loop {
            if in_turn {
                files.iter().try_for_each(|file| self.sync_file(file))?;
                group
                    .iter()
                    .try_for_each(|(fd, dir)| self.sync_dir(fd, dir))?;
            } else {
                let mut jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + '_>> = Vec::new();
                for file in files {
                    jobs.push(Box::new(|| self.sync_file(file)));
                }
                for (fd, dir) in &group {
                    jobs.push(Box::new(|| self.sync_dir(fd, dir)));
                }
                at_once(jobs)?;
            }
            if over.is_none() && left.len() == 0 {
                return Ok(());
            }
            // Close this group's descriptors before opening the next group.
            files = &[];
            group.clear();
            let mut again = over.take().into_iter().chain(left.by_ref());
            (group, over) = self.open_some(&mut again)?;
        }
    }

    /// Opens directories until a group is full, the list ends, or no descriptor is left. Also returns the
    /// directory for which no descriptor was left.
    ///
    /// # Errors
    /// If the first directory cannot be opened, or a later one for another reason than a lack of
    /// descriptors.
    fn open_some<'a>(
        &self,
        dirs: &mut dyn Iterator<Item = &'a Path>,
    ) -> Result<(Opened<'a>, Option<&'a Path>)> {
        let (mut group, most) = (Vec::new(), most_at_once());
        while group.len() < most {
            let Some(dir) = dirs.next() else { break };
            match self.open_dir(dir) {
                Ok(fd) => group.push((fd, dir)),
                Err(error) if error.is(Errno::EMFILE) && !group.is_empty() => {
                    return Ok((group, Some(dir)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((group, None))
    }

    pub(super) fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        let call = Call::Open {
            path,
            create: false,
        };
        self.call(&call, path, || {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            nix::fcntl::openat(&self.inner.root, path, flags, Mode::empty())
        })
    }

    /// Makes a file's data and size durable. For callers that start a change, such as a rename, before they
    /// rely on it: unlike [`durable`](Disk::durable), this does not check that the success can be trusted.
    pub(crate) fn sync_file(&self, file: &File) -> Result<()> {
        let call = Call::SyncFile { path: &file.path };
        self.call(&call, &file.path, || nix::unistd::fsync(&file.file))
    }

    fn sync_dir(&self, fd: &OwnedFd, path: &Path) -> Result<()> {
        self.call(&Call::SyncDir { path }, path, || nix::unistd::fsync(fd))
    }
}

/// Runs the jobs on a few threads, including this one, and returns the first error. If no thread can be
/// started, this thread runs all jobs.
fn at_once(jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + '_>>) -> Result<()> {
    /// Threads, including the calling one. More use more processor time and save flushes on btrfs only.
    const MAX_THREADS: usize = 4;
    const STACK: usize = 64 << 10;
    let count = jobs.len();
    let queue = std::sync::Mutex::new(jobs.into_iter());
    let work = || -> Result<()> {
        loop {
            let job = queue
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .next();
            match job {
                Some(job) => job()?,
                None => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let spawn = |_| {
            std::thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, work)
        };
        let others: Vec<_> = (1..count.min(MAX_THREADS))
            .map_while(|n| spawn(n).ok())
            .collect();
        let mut result = work();
        for other in others {
            let theirs = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })
}

#[allow(unsafe_code)]
fn begin_change(dir: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed, and the name ends with a NUL.
    let result = unsafe { libc::fremovexattr(dir.as_raw_fd(), c"user.mailspool.none".as_ptr()) };
    Errno::result(result).map(drop)
}
