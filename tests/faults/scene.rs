//! One message, and a seam that fails calls chosen by name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::runner::{Error, Summary};
use mailspool::testing::spool::{Queue, Spool};
use nix::errno::Errno;
use tempfile::TempDir;

use super::world::{Clock, Ledger, accept, runner, tempdir};

type Which = dyn Fn(&Call<'_>, usize) -> bool + Send + Sync;

/// Which calls fail, given how many have failed so far; and all calls, by name and path.
pub struct Fails {
    which: Box<Which>,
    failed: AtomicUsize,
    calls: Mutex<Vec<String>>,
}

impl Fails {
    pub fn new(which: impl Fn(&Call<'_>, usize) -> bool + Send + Sync + 'static) -> Arc<Fails> {
        Arc::new(Fails {
            which: Box::new(which),
            failed: AtomicUsize::new(0),
            calls: Mutex::default(),
        })
    }

    pub fn open(self: &Arc<Fails>, path: &Path) -> Spool {
        Spool::open_through(path, Some(Arc::clone(self) as Arc<dyn Seam>)).unwrap()
    }

    /// The number of the first such call after the `from`-th.
    pub fn at(&self, from: usize, call: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        let found = calls[from..].iter().position(|one| one.starts_with(call));
        from + found.unwrap_or_else(|| panic!("no {call} in {:?}", &calls[from..]))
    }
}

impl Seam for Fails {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let (Call::SyncFile { path }
        | Call::SyncDir { path }
        | Call::Rename { from: path, .. }
        | Call::Mkdir { path }
        | Call::Write { path, .. }
        | Call::Open { path, .. }) = call
        else {
            return Verdict::Pass;
        };
        let line = format!("{} {}", call.name(), path.display());
        self.calls.lock().unwrap().push(line);
        if (self.which)(call, self.failed.load(SeqCst)) {
            self.failed.fetch_add(1, SeqCst);
            Verdict::Fail(Errno::EIO)
        } else {
            Verdict::Pass
        }
    }
}

pub struct Scene {
    _dir: TempDir,
    pub path: PathBuf,
    pub spool: Spool,
    pub id: QueueId,
    pub ledger: Ledger,
    pub clock: Clock,
    start: Timestamp,
}

impl Scene {
    pub fn new(to: &[&str]) -> Scene {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        let start = Timestamp::now();
        Scene {
            _dir: dir,
            id: accept(&spool, Entrance::Active, "m", "s@sender.test", to),
            path,
            spool,
            ledger: Ledger::default(),
            clock: Clock::at(start + SignedDuration::from_mins(1)),
            start,
        }
    }

    pub fn pass(&self, spool: Spool) -> Result<Summary, Error> {
        runner(spool, &self.ledger, &self.clock, self.start).pass()
    }

    fn history(&self) -> PathBuf {
        self.path.join(format!("history/{}", self.id))
    }

    pub fn inode(&self) -> u64 {
        fs::metadata(self.history()).unwrap().ino()
    }

    /// How many recipients have got the message.
    pub fn mailed(&self) -> usize {
        self.ledger
            .all()
            .iter()
            .filter(|one| one.id == self.id)
            .count()
    }

    pub fn queue(&self) -> Option<Queue> {
        self.spool.locate(self.id).unwrap().queue()
    }
}
