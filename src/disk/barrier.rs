//! How things are made durable: the ways, and which one is taken when.
//!
//! Measured with `scripts/bench ways --beside` on Linux 6.18, one process a message, four files
//! and four directories each; figures are device flushes and writes a message, alone, and the
//! longest wait beside a program that dirties the same file system at 300 MB/s (more figures in
//! `benches/README.md`):
//!
//! | way                                   | ext4      | ext4, no journal | xfs      | btrfs     | longest |
//! |---------------------------------------|-----------|------------------|----------|-----------|---------|
//! | fsync of each, in turn                | 8.0 / 12  | 8.0 / 22         | 8.0 / 8  | 16 / 68   | 0.1 s   |
//! | write-back waited for, fsyncs at once | 2.0 / 6   | 3.0 / 19         | 4.3 / 8  | 2.0 / 13  | 0.05 s  |
//! | `syncfs`                              | 4.0 / 13  | 1.0 / 11 (!)     | 2.1 / 5  | 2.0 / 38  | 0.6 s   |
//! | `syncfs`, then one fsync              | 4.0 / 13  | 2.0 / 12         | 2.1 / 5  | 2.0 / 38  | 0.7 s   |
//! | write-back waited for, then both      | 2.0 / 14  | 2.0 / 14         | 2.1 / 5  | 2.0 / 34  | 0.5 s   |
//!
//! So `syncfs` is the cheapest in processor time and in rate when there is little else to
//! write, and unbearable when there is much: it waits for everybody's data, about 0.4 ms for
//! each megabyte. It is taken below [`MOST_DIRTY`]; above it, fsyncs at once. Write-back is
//! waited for where that saves flushes: on ext4 with a journal.
//!
//! (!) Without a journal, ext4's `syncfs` issues its flush before its last inode-table write
//! (seen in a block trace). One fsync behind it ends in a flush; with a journal that costs
//! nothing. ext2, ext3 and ext4 with and without journal cannot be told apart by `statfs`, and
//! what sysfs says of a journal is taken as a hint only: the fsync is always made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::sys::statfs;

use super::{Call, Disk, Error, File, Result};

/// Which calls make a set of files and directories durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// On ext2, ext3 and ext4: write-back is waited for if there is a journal, so that one
    /// commit suffices; `syncfs`; one fsync. When much is dirty, as [`Each`](Method::Each).
    SyncExt,
    /// One `syncfs`, on file systems that promise it and report errors through it (kernels
    /// from 5.8). When much is dirty, as [`Each`](Method::Each).
    SyncFs,
    /// `fsync` of each file and each directory, all at once: the only promise that NFS, FUSE
    /// and file systems we do not know give.
    Each,
}

/// With more than this waiting to be written, `syncfs` would wait for other programs' data.
/// The system counts it for all file systems together; that only errs towards fsync.
const MOST_DIRTY: u64 = 16 << 20;

/// Directories that are open at once for one barrier. More take descriptors from the deliveries
/// under way, of which a process may have no more than 1024, and save no flushes.
const AT_ONCE: u64 = 64;

/// The same, where there are few descriptors: the deliveries meanwhile need most of them.
fn most_at_once() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    (limit / 8).clamp(1, AT_ONCE) as usize
}

/// So long somebody else's barrier is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

impl Method {
    /// The method for the file system that a directory is on.
    pub(super) fn of(root: BorrowedFd<'_>) -> Method {
        let trusted = kernel_reports_syncfs_errors();
        match statfs::fstatfs(root).map(|fs| fs.filesystem_type()) {
            Ok(statfs::EXT4_SUPER_MAGIC) if trusted => Method::SyncExt,
            Ok(statfs::XFS_SUPER_MAGIC | statfs::BTRFS_SUPER_MAGIC) if trusted => Method::SyncFs,
            _ => Method::Each,
        }
    }
}

/// Whether `syncfs` reports write errors: since Linux 5.8.
fn kernel_reports_syncfs_errors() -> bool {
    let Ok(name) = nix::sys::utsname::uname() else {
        return false;
    };
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 8)
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
        // One object is one fsync, whatever the method.
        let is_one = files.len() + dirs.len() <= 1;
        if is_one || self.inner.method == Method::Each || !self.little_is_dirty() {
            self.sync_each(files, dirs)?;
            return self.believe();
        }
        self.durable_for_all(files, dirs)
    }

    /// As [`durable`](Disk::durable), and by the same calls makes everything durable that anybody
    /// has written to this file system before. Only where [`shares_barriers`] says so; it does
    /// not become another kind of barrier when much is dirty meanwhile.
    ///
    /// [`shares_barriers`]: Disk::shares_barriers
    pub fn durable_for_all(&self, files: &[&File], dirs: &[&Path]) -> Result<()> {
        let with_fsync = self.inner.method != Method::SyncFs;
        if with_fsync && !lacks_journal(self.inner.root.as_fd()) {
            self.settle(files)?;
        }
        self.sync_all()?;
        // The system reports an error once to each descriptor, and the one behind `syncfs` is
        // every thread's: another barrier of ours may have been told what became of these.
        self.written(files)?;
        if !with_fsync {
            return Ok(());
        }
        match (dirs, files) {
            ([dir, ..], _) => self.sync_dir(&self.open_dir(dir)?, dir)?,
            ([], [file, ..]) => self.sync_file(file)?,
            ([], []) => {}
        }
        self.believe()
    }

    /// Whether a sync's success may be believed.
    ///
    /// ext4 aborts its journal when it meets an error, and makes itself read-only some
    /// milliseconds later. In between, `syncfs` and `fsync` find nothing to wait for and answer
    /// with success although what they cover is lost (Linux 6.18; seen with `trigger_fs_error`).
    /// What would begin a change fails at once, so one is begun behind each barrier: the removal
    /// of an attribute that nobody has, which changes nothing.
    fn believe(&self) -> Result<()> {
        if self.inner.method != Method::SyncExt {
            return Ok(());
        }
        match begin_change(self.inner.root.as_fd()) {
            Err(errno @ (Errno::EROFS | Errno::EIO | Errno::EUCLEAN)) => {
                Err(Error::new("fsync", Path::new("."), errno.into()).below(&self.inner.path))
            }
            // It is not there, as it should be; or the file system, or its mode, has no such
            // attributes for us, and we know no more than before.
            _ => Ok(()),
        }
    }

    /// Whether a barrier that one process makes at this moment serves every other process on
    /// this file system as well, and how long to wait for one. A test's seam is to see each
    /// process's own, unless it says otherwise.
    pub fn shares_barriers(&self) -> Option<Duration> {
        let patience = match &self.inner.seam {
            None => PATIENCE,
            Some(seam) => seam.patience()?,
        };
        (self.inner.method != Method::Each && self.little_is_dirty()).then_some(patience)
    }

    /// How long to wait for somebody else, who usually needs no longer than `usual`. A test's seam
    /// has nobody wait, unless it says otherwise.
    pub fn patience(&self, usual: Duration) -> Duration {
        match &self.inner.seam {
            None => usual,
            Some(seam) => seam.patience().unwrap_or_default(),
        }
    }

    /// Waits until files have been written, and reports the errors of that: for who is served
    /// by somebody else's barrier, which reports errors to whoever made it.
    pub fn written(&self, files: &[&File]) -> Result<()> {
        self.range(files, WAIT)
    }

    /// Starts the write-back of all files' data, then waits for it. It makes nothing durable,
    /// but what is allocated and written by now shares the next journal commit. An error is
    /// the barrier's: having been reported here it is not reported again by the sync that follows.
    fn settle(&self, files: &[&File]) -> Result<()> {
        self.range(files, START)?;
        self.range(files, WAIT)
    }

    fn range(&self, files: &[&File], flags: libc::c_uint) -> Result<()> {
        for file in files {
            let call = Call::Written { path: &file.path };
            match self.call(&call, &file.path, || sync_file_range(file, flags)) {
                // Where there is no such call, nothing has been reported by it either.
                Err(error) if error.is(Errno::ENOSYS) || error.is(Errno::EINVAL) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn little_is_dirty(&self) -> bool {
        let forced = self.inner.seam.as_deref().and_then(super::Seam::method);
        forced.is_some() || little_is_dirty()
    }

    fn sync_all(&self) -> Result<()> {
        let here = Path::new(".");
        self.call(&Call::SyncFs, here, || {
            nix::unistd::syncfs(&self.inner.root)
        })
    }

    /// All fsyncs at once, so that the file system puts them behind few flushes; the directories
    /// in groups, because each is a descriptor while it is synced. A test's seam sees them one
    /// after the other.
    fn sync_each(&self, files: &[&File], dirs: &[&Path]) -> Result<()> {
        let mut left = dirs.iter().copied();
        let (mut group, mut over) = self.open_some(&mut left)?;
        let in_turn = self.inner.seam.is_some() || files.len() + group.len() < 2;
        if !in_turn {
            self.settle(files)?;
        }
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

    fn sync_file(&self, file: &File) -> Result<()> {
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
    const MOST_THREADS: usize = 4;
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
        let others: Vec<_> = (1..count.min(MOST_THREADS))
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

const START: libc::c_uint = libc::SYNC_FILE_RANGE_WRITE;
const WAIT: libc::c_uint =
    libc::SYNC_FILE_RANGE_WAIT_BEFORE | START | libc::SYNC_FILE_RANGE_WAIT_AFTER;

#[allow(unsafe_code)]
fn sync_file_range(file: &File, flags: libc::c_uint) -> nix::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    let result = unsafe { libc::sync_file_range(file.file.as_fd().as_raw_fd(), 0, 0, flags) };
    Errno::result(result).map(drop)
}

#[allow(unsafe_code)]
fn begin_change(dir: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the descriptor is borrowed, and the name ends with a NUL.
    let result = unsafe { libc::fremovexattr(dir.as_raw_fd(), c"user.mailspool.none".as_ptr()) };
    Errno::result(result).map(drop)
}

/// Whether a directory is on an ext4 file system that has no journal, as far as the system
/// tells. Only a hint: without a journal there is no commit to be shared.
fn lacks_journal(dir: BorrowedFd<'_>) -> bool {
    let Ok(stat) = nix::sys::stat::fstat(dir) else {
        return false;
    };
    let (major, minor) = (libc::major(stat.st_dev), libc::minor(stat.st_dev));
    let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let Some(name) = device.as_deref().ok().and_then(Path::file_name) else {
        return false;
    };
    let task = Path::new("/sys/fs/ext4").join(name).join("journal_task");
    let mut bytes = [0; 16];
    let got = std::fs::File::open(task).and_then(|file| file.read_at(&mut bytes, 0));
    got.is_ok_and(|got| bytes[..got].starts_with(b"<none>"))
}

/// Whether little enough waits to be written that `syncfs` is not held up by it. Where that
/// cannot be read, much does.
fn little_is_dirty() -> bool {
    // Read at once, not in pieces of a growing buffer; both lines are near its beginning.
    let mut bytes = [0; 4096];
    let file = std::fs::File::open("/proc/meminfo");
    let Ok(got) = file.and_then(|file| file.read_at(&mut bytes, 0)) else {
        return false;
    };
    let text = String::from_utf8_lossy(&bytes[..got]);
    let kilobytes = |line: &str| -> Option<u64> {
        let rest = line
            .strip_prefix("Dirty:")
            .or_else(|| line.strip_prefix("Writeback:"))?;
        rest.trim().strip_suffix(" kB")?.parse().ok()
    };
    let dirty: Vec<u64> = text.lines().filter_map(kilobytes).collect();
    dirty.len() == 2 && dirty.iter().sum::<u64>() * 1024 <= MOST_DIRTY
}
