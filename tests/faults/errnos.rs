//! Which call can fail with which errors.
//!
//! The table lists the errors in the Linux manual pages, those of network file systems (ESTALE, lost
//! replies), and those of copy-on-write file systems, where an unlink or a change of mode needs space. Errors
//! that only a bug of ours could cause (EBADF, EINVAL) are left out.

use std::path::{Component, Path};

use mailspool::testing::disk::Call;
use nix::errno::Errno::{self, *};

/// What an injector knows about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: &'static str,
    /// Another process may remove or create this name at any moment: a message file, a bucket, a request, a slot.
    pub raced: bool,
    /// The call is on the slots of destinations or their recorded state.
    pub is_help: bool,
    /// The call is on a file of the view.
    pub is_view: bool,
    errnos: &'static [Errno],
}

/// The errors that each call can return while a fault lasts.
fn errnos(call: &Call<'_>) -> &'static [Errno] {
    match call {
        Call::OpenRoot { .. } | Call::Open { create: false, .. } | Call::List { .. } => {
            &[EIO, EMFILE, ENFILE, EACCES, ENOMEM, ESTALE, EINTR]
        }
        Call::Open { create: true, .. } => &[
            EIO, ENOSPC, EDQUOT, EROFS, EMFILE, ENFILE, EACCES, ENOMEM, ESTALE, EINTR,
        ],
        Call::Lock { .. } => &[EIO, ENOLCK, ENOMEM, ESTALE, EINTR],
        Call::Read { .. } => &[EIO, ENOMEM, ESTALE, EINTR],
        Call::Write { .. } => &[EIO, ENOSPC, EDQUOT, EROFS, ENOMEM, ESTALE, EINTR],
        Call::Truncate { .. } => &[EIO, ENOSPC, EDQUOT, EROFS, ENOMEM, ESTALE, EINTR],
        Call::Stat { .. } => &[EIO, EACCES, ENOMEM, ESTALE, EINTR],
        Call::Rename { .. } | Call::Link { .. } | Call::Mkdir { .. } => {
            &[EIO, ENOSPC, EDQUOT, EROFS, EACCES, ENOMEM, ESTALE, EINTR]
        }
        Call::Chmod { .. } => &[EIO, ENOSPC, EDQUOT, EROFS, EACCES, EPERM, ESTALE, EINTR],
        Call::Unlink { .. } | Call::Rmdir { .. } => &[
            EIO, ENOSPC, EDQUOT, EROFS, EACCES, ENOMEM, EBUSY, ESTALE, EINTR,
        ],
        Call::Space => &[EIO, ENOMEM, ESTALE, EINTR],
        Call::SyncFile { .. } | Call::SyncDir { .. } => {
            &[EIO, ENOSPC, EDQUOT, EROFS, ESTALE, EINTR]
        }
    }
}

impl Seen {
    pub fn of(call: &Call<'_>) -> Seen {
        Seen {
            name: call.name(),
            raced: names(call).is_some_and(is_raced),
            is_help: is_help(call),
            is_view: call.path().starts_with("info"),
            errnos: errnos(call),
        }
    }

    /// Returns whether the call can fail with this error while a fault lasts.
    pub fn can(&self, errno: Errno) -> bool {
        self.errnos.contains(&errno)
    }

    pub fn errnos(&self) -> impl Iterator<Item = Errno> {
        self.errnos.iter().copied()
    }

    /// The errors when another process has won the race: those where our call did nothing, and those where it
    /// was made.
    pub fn races(&self) -> (&'static [Errno], &'static [Errno]) {
        match (self.raced, self.name) {
            (false, _) => (&[], &[]),
            (true, "lock") => (&[EAGAIN], &[]),
            (true, "open" | "stat" | "list" | "rename") => (&[ENOENT], &[]),
            (true, "mkdir") => (&[], &[EEXIST]),
            (true, "rmdir") => (&[ENOTEMPTY], &[ENOENT]),
            (true, "unlink") => (&[], &[ENOENT]),
            (true, _) => (&[], &[]),
        }
    }

    /// Returns whether the call changes the disk or syncs it, so that its reply may be lost.
    pub fn acts(&self) -> bool {
        let looks = ["open", "lock", "read", "stat", "list", "statvfs"];
        !looks.contains(&self.name)
    }

    pub fn is_sync(&self) -> bool {
        self.name == "fsync"
    }
}

fn is_help(call: &Call<'_>) -> bool {
    let path = match *call {
        Call::Read { path } | Call::Write { path, .. } | Call::Rename { to: path, .. } => {
            Some(path)
        }
        _ => names(call),
    };
    let dirs = ["state/to", "state/probe", "state/down", "state/by"];
    path.is_some_and(|path| dirs.iter().any(|dir| path.starts_with(dir)))
}

/// The path that a call operates on.
fn names<'a>(call: &Call<'a>) -> Option<&'a Path> {
    match *call {
        Call::Open { path, .. }
        | Call::Lock { path }
        | Call::Stat { path }
        | Call::Unlink { path }
        | Call::Mkdir { path }
        | Call::Rmdir { path }
        | Call::List { path } => Some(path),
        // The bucket may have been removed.
        Call::Rename { to, .. } => Some(to),
        _ => None,
    }
}

fn is_raced(path: &Path) -> bool {
    let mut parts = path.components();
    let (Some(Component::Normal(first)), Some(second)) = (parts.next(), parts.next()) else {
        return false;
    };
    let places = ["incoming", "active", "done", "corrupt"];
    let buckets = ["deferred", "frozen", "discarded"];
    let first = first.to_string_lossy();
    places.contains(&&*first) && second.as_os_str().to_string_lossy().len() == 36
        || buckets.contains(&&*first)
        || first == "state"
        || path.starts_with("requests") && parts.next().is_some()
}
