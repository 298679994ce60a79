//! Lets a test observe, fail or stop each file-system call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;

use super::{Error, Result};

/// A file-system call. Paths are relative to the disk's directory, except in [`OpenRoot`](Call::OpenRoot).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the field names suffice
pub enum Call<'a> {
    OpenRoot {
        path: &'a Path,
    },
    Open {
        path: &'a Path,
        create: bool,
    },
    Lock {
        path: &'a Path,
    },
    Read {
        path: &'a Path,
    },
    Write {
        path: &'a Path,
        bytes: &'a [u8],
        /// Offset in the file; `None` for the file's current offset.
        at: Option<u64>,
    },
    Truncate {
        path: &'a Path,
        len: u64,
    },
    Stat {
        path: &'a Path,
    },
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    Link {
        from: &'a Path,
        to: &'a Path,
    },
    Chmod {
        path: &'a Path,
        mode: u32,
    },
    Unlink {
        path: &'a Path,
    },
    Mkdir {
        path: &'a Path,
    },
    Rmdir {
        path: &'a Path,
    },
    List {
        path: &'a Path,
    },
    Space,
    /// `fsync` of a file: data and size become durable.
    SyncFile {
        path: &'a Path,
    },
    /// `fsync` of a directory: its entries become durable.
    SyncDir {
        path: &'a Path,
    },
}

/// What the seam does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make the call.
    Pass,
    /// Fail without making the call.
    Fail(Errno),
    /// Make the call, then fail, as a network file system may do.
    PassAndFail(Errno),
}

/// A test's interception of the file system.
///
/// To simulate a crash at a call, a test fails that call and every later one. Then nothing that the code
/// does during its unwinding reaches the disk, and dropping a value only closes descriptors, as the end of
/// the process would.
pub trait Seam: Send + Sync {
    /// Called before each call; decides what becomes of it.
    fn before(&self, call: &Call<'_>) -> Verdict;

    /// Called after each call, with the error if it failed.
    fn after(&self, call: &Call<'_>, error: Option<Errno>) {
        let _ = (call, error);
    }

    /// Called before a lock is released together with its descriptor. The release is not a [`Call`] and
    /// cannot fail, but other processes can observe it.
    fn unlocking(&self, path: &Path) {
        let _ = path;
    }

    /// How long to wait for another process; `None` for no wait.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// The most octets that a read or write may transfer; `None` for no limit.
    fn length(&self, call: &Call<'_>) -> Option<usize> {
        let _ = call;
        None
    }
}

/// Reports the release of a file's lock to the seam.
#[derive(Default)]
pub(super) struct Unlocks(OnceLock<(Arc<dyn Seam>, PathBuf)>);

impl Unlocks {
    /// Records that the file is locked.
    pub(super) fn locked(&self, seam: &Arc<dyn Seam>, path: &Path) {
        let _ = self.0.set((Arc::clone(seam), path.to_owned()));
    }
}

impl Unlocks {
    /// Reports that the lock is being released.
    pub(super) fn tell(&self) {
        if let Some((seam, path)) = self.0.get() {
            seam.unlocking(path);
        }
    }
}

impl fmt::Debug for Unlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unlocks")
            .field(&self.0.get().is_some())
            .finish()
    }
}

impl Call<'_> {
    /// The path of the call; of two, the existing one.
    pub fn path(&self) -> &Path {
        match self {
            Call::Rename { from, .. } | Call::Link { from, .. } => from,
            Call::Space => Path::new("."),
            Call::OpenRoot { path }
            | Call::Open { path, .. }
            | Call::Lock { path }
            | Call::Read { path }
            | Call::Write { path, .. }
            | Call::Truncate { path, .. }
            | Call::Stat { path }
            | Call::Chmod { path, .. }
            | Call::Unlink { path }
            | Call::Mkdir { path }
            | Call::Rmdir { path }
            | Call::List { path }
            | Call::SyncFile { path }
            | Call::SyncDir { path } => path,
        }
    }

    /// The new name, for a rename or a link.
    pub fn to(&self) -> Option<&Path> {
        match self {
            Call::Rename { to, .. } | Call::Link { to, .. } => Some(to),
            _ => None,
        }
    }

    /// Whether it only looks a name up: made again, it does the same.
    pub(super) fn looks_up(&self) -> bool {
        matches!(
            self,
            Call::Open { create: false, .. } | Call::Stat { .. } | Call::List { .. }
        )
    }

    /// The call's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Call::OpenRoot { .. } => "open",
            Call::Open { create: true, .. } => "create",
            Call::Open { create: false, .. } => "open",
            Call::Lock { .. } => "lock",
            Call::Read { .. } => "read",
            Call::Write { .. } => "write",
            Call::Truncate { .. } => "truncate",
            Call::Stat { .. } => "stat",
            Call::Rename { .. } => "rename",
            Call::Link { .. } => "link",
            Call::Chmod { .. } => "chmod",
            Call::Unlink { .. } => "unlink",
            Call::Mkdir { .. } => "mkdir",
            Call::Rmdir { .. } => "rmdir",
            Call::List { .. } => "list",
            Call::Space => "statvfs",
            Call::SyncFile { .. } | Call::SyncDir { .. } => "fsync",
        }
    }
}

/// Returns the most octets that a read or write may transfer; `None` for no limit.
pub(super) fn verdict_length(seam: Option<&dyn Seam>, call: &Call<'_>) -> Option<usize> {
    seam.and_then(|seam| seam.length(call))
}

/// Makes one call, if the seam lets it pass. Repeats it while a signal interrupts it, and if NFS answers `ESTALE`
/// because what the path leads to was removed during the look-up (seen at `stat` of a bucket that another process
/// had just removed); a local file system answers what is there now. The repetitions are limited, because a broken
/// file system may answer so every time.
pub(super) fn through<T>(
    seam: Option<&dyn Seam>,
    call: &Call<'_>,
    path: &Path,
    mut run: impl FnMut() -> nix::Result<T>,
) -> Result<T> {
    const MAX_INTERRUPTS: usize = 100;
    const MAX_STALE: usize = 10;
    let (mut interrupts, mut stale) = (0, 0);
    loop {
        let result = match seam.map_or(Verdict::Pass, |seam| seam.before(call)) {
            Verdict::Pass => run(),
            Verdict::Fail(errno) => Err(errno),
            Verdict::PassAndFail(errno) => run().and(Err(errno)),
        };
        if let Some(seam) = seam {
            seam.after(call, result.as_ref().err().copied());
        }
        match result {
            Err(Errno::EINTR) if interrupts < MAX_INTERRUPTS => interrupts += 1,
            Err(Errno::ESTALE) if stale < MAX_STALE && call.looks_up() => stale += 1,
            other => return other.map_err(|errno| Error::new(call.name(), path, errno.into())),
        }
    }
}
