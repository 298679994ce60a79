//! Which call can fail in which way.
//!
//! The table is what the manual pages of Linux name, and what network file systems add (ESTALE,
//! and answers that are lost), and file systems that copy what they change, on which an unlink or a change
//! of mode needs room. What only a mistake of ours could cause (EBADF, EINVAL) is not in it.

use std::path::{Component, Path};

use mailspool::disk::Call;
use nix::errno::Errno::{self, *};

/// What an injector knows of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: &'static str,
    /// Somebody else may take this name away, or make it, at any moment: a message file, a
    /// bucket, a request, a slot.
    pub raced: bool,
    /// It is about the slots of destinations, or what is remembered of them.
    pub is_help: bool,
    /// It is about a file of the view.
    pub is_view: bool,
    errnos: &'static [Errno],
}

/// The errors of each call, for as long as the trouble lasts.
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

    /// Whether the call can fail so while such trouble lasts.
    pub fn can(&self, errno: Errno) -> bool {
        self.errnos.contains(&errno)
    }

    pub fn errnos(&self) -> impl Iterator<Item = Errno> {
        self.errnos.iter().copied()
    }

    /// The answer to a race that somebody else has won, without or with what he did.
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

    /// Whether it changes anything, or waits for that: where an answer may be lost.
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

/// The name that a call is about.
fn names<'a>(call: &Call<'a>) -> Option<&'a Path> {
    match *call {
        Call::Open { path, .. }
        | Call::Lock { path }
        | Call::Stat { path }
        | Call::Unlink { path }
        | Call::Mkdir { path }
        | Call::Rmdir { path }
        | Call::List { path } => Some(path),
        // The bucket may be gone.
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
