//! How things are made durable: an fsync of each file and of each directory, the same on every file
//! system. Several at once, so that few flushes of the device serve all of them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::sys::statfs;

use super::{Call, Disk, Error, File, Result};

/// Directories that are open at once for one barrier. More take descriptors from the deliveries
/// under way, of which a process may have no more than 1024, and save no flushes.
const AT_ONCE: u64 = 64;

/// The same, where there are few descriptors: the deliveries meanwhile need most of them.
fn most_at_once() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    (limit / 8).clamp(1, AT_ONCE) as usize
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

/// Directories that are open, with their names.
type Opened<'a> = Vec<(OwnedFd, &'a Path)>;

impl Disk {
    /// Makes the data and size of the files and the entries of the directories durable, all of
    /// them or none for certain: after an error nothing may be taken as durable that is not
    /// made so again by a call that succeeds, on files written anew.
    pub fn durable(&self, files: &[&File], dirs: &[&Path]) -> Result<()> {
        self.sync_each(files, dirs)?;
        self.confirm()
    }

    /// Whether a sync's success may be believed.
    ///
    /// ext4 aborts its journal when it meets an error, and makes itself read-only some
    /// milliseconds later. In between, `fsync` finds nothing to wait for and answers
    /// with success although what it covers is lost (Linux 6.18; seen with `trigger_fs_error`).
    /// What would begin a change fails at once, so one is begun after each barrier: the removal
    /// of an attribute that no file has, which changes nothing.
    fn confirm(&self) -> Result<()> {
        match begin_change(self.inner.root.as_fd()) {
            Err(errno @ (Errno::EROFS | Errno::EIO | Errno::EUCLEAN)) => {
                Err(Error::new("fsync", Path::new("."), errno.into()).below(&self.inner.path))
            }
            // It is not there, as it should be; or the file system, or its mode, has no such
            // attributes for us, and we know no more than before.
            _ => Ok(()),
        }
    }

    /// How long to wait for another process, which usually needs no longer than `usual`. A test's seam
    /// has none wait, unless it says otherwise.
    pub fn patience(&self, usual: Duration) -> Duration {
        match &self.inner.seam {
            None => usual,
            Some(seam) => seam.patience().unwrap_or_default(),
        }
    }

    /// All fsyncs at once, so that the file system puts them behind few flushes; the directories
    /// in groups, because each is a descriptor while it is synced. A test's seam sees them one
    /// after the other.
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
            // The descriptors of this group serve the next one.
            files = &[];
            group.clear();
            let mut again = over.take().into_iter().chain(left.by_ref());
            (group, over) = self.open_some(&mut again)?;
        }
    }

    /// Opens directories, up to a group of them, or as many as there are descriptors for. Also
    /// returns the one for which there was none.
    ///
    /// # Errors
    /// If not a single one can be opened.
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

    /// Makes a file's data and size durable, where something that begins a change follows before it is
    /// relied on, such as a rename.
    pub(crate) fn sync_file(&self, file: &File) -> Result<()> {
        let call = Call::SyncFile { path: &file.path };
        self.call(&call, &file.path, || nix::unistd::fsync(&file.file))
    }

    fn sync_dir(&self, fd: &OwnedFd, path: &Path) -> Result<()> {
        self.call(&Call::SyncDir { path }, path, || nix::unistd::fsync(fd))
    }
}

/// Runs the jobs on a few threads, this one among them; the first error counts. When no thread
/// can be had, this one does all the work.
fn at_once(jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + '_>>) -> Result<()> {
    /// More cost more processor time and save flushes on btrfs only.
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
