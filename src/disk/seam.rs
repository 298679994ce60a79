//! Where a test can see, fail or stop each file-system call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;

/// One call to the file system. Paths are relative to the disk's directory, except for
/// [`OpenRoot`](Call::OpenRoot).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the fields are what their names say
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
        /// Where in the file; at its offset if there is none.
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
    /// A file's data and size become durable.
    SyncFile {
        path: &'a Path,
    },
    /// A directory's entries become durable.
    SyncDir {
        path: &'a Path,
    },
}

/// What is to become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Pass,
    /// It is not made and fails.
    Fail(Errno),
    /// It is made and fails all the same, as a network file system may do.
    PassAndFail(Errno),
}

/// A test's hand on the file system.
///
/// A test that stops the world at a call fails that call and every later one: nothing that the
/// code does on its way out then reaches the disk, and what is dropped only closes
/// descriptors, just as the end of the process would.
pub trait Seam: Send + Sync {
    /// Asked before each call.
    fn before(&self, call: &Call<'_>) -> Verdict;

    /// Told after each call, with the error if it failed.
    fn after(&self, call: &Call<'_>, error: Option<Errno>) {
        let _ = (call, error);
    }

    /// Told before a lock goes, together with the descriptor that has it. That is no call, and
    /// cannot fail, but others can see it.
    fn unlocking(&self, path: &Path) {
        let _ = path;
    }

    /// How long to wait for another process, which usually needs no longer; none not to wait.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// How many octets a read or write may take at most; none for no limit.
    fn length(&self, call: &Call<'_>) -> Option<usize> {
        let _ = call;
        None
    }
}

/// Tells a seam that the lock of a file goes.
#[derive(Default)]
pub(super) struct Unlocks(OnceLock<(Arc<dyn Seam>, PathBuf)>);

impl Unlocks {
    /// The file has been locked.
    pub(super) fn locked(&self, seam: &Arc<dyn Seam>, path: &Path) {
        let _ = self.0.set((Arc::clone(seam), path.to_owned()));
    }
}

impl Unlocks {
    /// The lock goes now.
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
    /// The path it is about: of two the one that is there before.
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

    /// The name that it gives to a file, if it does.
    pub fn to(&self) -> Option<&Path> {
        match self {
            Call::Rename { to, .. } | Call::Link { to, .. } => Some(to),
            _ => None,
        }
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
