//! A copy of a spool that one case may break. No file of it stays open.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::world::copy_of;

pub struct Scratch(TempDir);

impl Scratch {
    /// Copies a spool into a new directory.
    pub fn copy(spool: &Path) -> Scratch {
        Scratch(copy_of(spool))
    }

    /// The spool.
    pub fn spool(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// The directory that contains it.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Asserts that no open descriptor leads below the directory. Waits for threads that are still ending.
    pub fn end(self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let end = Instant::now() + PATIENCE;
        loop {
            let open = open_below(self.0.path());
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left open: {open:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn open_below(dir: &Path) -> Vec<PathBuf> {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors
        .filter_map(|one| std::fs::read_link(one.ok()?.path()).ok())
        .filter(|target| target.starts_with(dir))
        .collect()
}
