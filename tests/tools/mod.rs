//! The directory into which `scripts/test` puts what the tests need and Debian does not install.

use std::path::{Path, PathBuf};

/// The directory of a tool, such as `exim`. Its parent is `MAILSPOOL_TOOLS`, which `scripts/test` sets, or
/// else cargo's `CARGO_TARGET_TMPDIR`.
pub fn tool(name: &str) -> PathBuf {
    let place = std::env::var_os("MAILSPOOL_TOOLS").map(PathBuf::from);
    place
        .unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned())
        .join(name)
}
