//! The limit of descriptors: raised for runs, and not for the commands that they start.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most that a run takes. Programs are slow that look at each descriptor they may have.
const MOST: u64 = 65_536;

/// The soft limit before it was raised.
static STARTED_WITH: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit. cron gives 1024 descriptors; the hard limit is usually far higher.
pub(super) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(MOST)
        && setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST), hard).is_ok()
    {
        let _ = STARTED_WITH.set(soft);
    }
}

/// The soft limit that this process was started with, if it has another one now.
pub(super) fn started_with() -> Option<u64> {
    STARTED_WITH.get().copied()
}
