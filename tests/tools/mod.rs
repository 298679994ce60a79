//! Where `scripts/test` puts what the tests need and Debian does not install.

use std::path::{Path, PathBuf};

/// The directory of a tool, such as `exim`. `scripts/test` names the place; without it, it is where
/// cargo builds unless it is told to build elsewhere.
pub fn tool(name: &str) -> PathBuf {
    let place = std::env::var_os("MAILSPOOL_TOOLS").map(PathBuf::from);
    place
        .unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned())
        .join(name)
}
