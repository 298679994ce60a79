//! A seam that records what a failed sync covered, and in the end discards it.
//!
//! After a sync error the system may drop the data: reads return it from memory for a while, later syncs
//! succeed, but the disk holds only what was durable before. So if the sync of a file fails, the file has its
//! last durable content after a power cut, whatever was synced later. A file that was written anew is a
//! different file.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailspool::testing::disk::{Call, Seam, Verdict};
use nix::errno::Errno;

use super::inject::Injector;
use super::world::walk;

/// The content of files on the disk.
#[derive(Default)]
struct Content {
    durable: HashMap<u64, Vec<u8>>,
    lost: HashMap<u64, Vec<u8>>,
    /// Files with an error that no process checking the file has seen yet.
    untold: HashSet<u64>,
}

/// What a sequence of processes made durable below a directory, and lost.
#[derive(Clone)]
pub struct Disk {
    root: PathBuf,
    content: Arc<Mutex<Content>>,
}

/// One of these processes.
struct Losing {
    injector: Arc<Injector>,
    disk: Disk,
}

impl Disk {
    /// A directory in which everything is durable.
    pub fn new(root: &Path) -> Disk {
        let disk = Disk {
            root: root.to_owned(),
            content: Arc::default(),
        };
        disk.synced(walk(root), false);
        disk
    }

    /// The seam of a process that works on this disk.
    pub fn process(&self, injector: Arc<Injector>) -> Arc<dyn Seam> {
        Arc::new(Losing {
            injector,
            disk: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn synced(&self, files: Vec<PathBuf>, failed: bool) {
        let mut content = self.lock();
        for path in files {
            // Removed by another thread in the meantime.
            let (Ok(stat), Ok(bytes)) = (fs::metadata(&path), fs::read(&path)) else {
                continue;
            };
            let before = content.durable.get(&stat.ino()).cloned();
            match failed {
                true if before.as_ref() != Some(&bytes) => {
                    let before = before.unwrap_or_default();
                    content.lost.entry(stat.ino()).or_insert(before);
                    content.untold.insert(stat.ino());
                }
                true => {}
                false => drop(content.durable.insert(stat.ino(), bytes)),
            }
        }
    }

    /// Forgets the inode's earlier content: a new file may reuse the number of a removed one.
    fn made(&self, path: &Path) {
        if let Ok(stat) = fs::metadata(self.root.join(path))
            && stat.len() == 0
        {
            let mut content = self.lock();
            content.durable.remove(&stat.ino());
            content.lost.remove(&stat.ino());
            content.untold.remove(&stat.ino());
        }
    }

    /// Returns whether a file has an unreported error, and marks it reported.
    fn tells(&self, path: &Path) -> bool {
        let Ok(stat) = fs::metadata(self.root.join(path)) else {
            return false;
        };
        self.lock().untold.remove(&stat.ino())
    }

    /// Cuts the power. Returns how many files lost something.
    pub fn lose(&self) -> usize {
        let content = self.lock();
        let mut count = 0;
        for path in walk(&self.root) {
            let ino = fs::metadata(&path).unwrap().ino();
            if let Some(bytes) = content.lost.get(&ino) {
                count += 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        count
    }
}

impl Seam for Losing {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let verdict = self.injector.before(call);
        let failed = match verdict {
            Verdict::Pass => None,
            Verdict::Fail(errno) | Verdict::PassAndFail(errno) => Some(errno),
        };
        if failed == Some(Errno::EINTR) {
            return verdict;
        }
        if let Call::SyncFile { path } = call {
            let files = vec![self.disk.root.join(path)];
            self.disk.synced(files, failed.is_some());
            if self.disk.tells(path) && failed.is_none() {
                return Verdict::PassAndFail(Errno::EIO);
            }
        }
        verdict
    }

    fn after(&self, call: &Call<'_>, error: Option<Errno>) {
        if let (Call::Open { path, create: true }, None) = (call, error) {
            self.disk.made(path);
        }
    }

    fn length(&self, call: &Call<'_>) -> Option<usize> {
        self.injector.length(call)
    }
}
