//! The limit of open descriptors: raised for runs, but not for the commands that they start.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The highest limit, in descriptors, that a run sets. Some programs loop over every descriptor up to
/// the limit, and a higher limit makes them slow.
const MOST: u64 = 65_536;

/// The soft limit before it was raised; unset if it was not.
static STARTED_WITH: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard limit, at most to [`MOST`]. cron sets 1024; the hard limit is
/// usually far higher.
pub(super) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(MOST)
        && setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST), hard).is_ok()
    {
        let _ = STARTED_WITH.set(soft);
    }
}

/// Returns the soft limit that this process started with, if it has been raised since.
pub(super) fn started_with() -> Option<u64> {
    STARTED_WITH.get().copied()
}
