//! Wakes a watching runner. Nothing depends on it: whatever it misses, the next timed scan finds.

use std::path::Path;
use std::time::Duration;

use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::Core;
use crate::spool::layout::WATCHED;

/// The longest time between two scans, even if nothing is reported.
const RESCAN: Duration = Duration::from_secs(30);
/// The same if nothing can be reported: no watches are left, or the file system is remote.
const RESCAN_BLIND: Duration = Duration::from_secs(5);
/// The shortest time between two scans if nothing is reported.
const SOON: Duration = Duration::from_secs(1);
/// How long to wait after a report, so that one scan finds what arrives together.
const GATHER: Duration = Duration::from_millis(20);

/// Watches the directories in which messages and requests appear.
pub(super) struct Watch<'a> {
    core: &'a Core,
    events: Receiver<()>,
    /// Something was reported and has not been looked at.
    reported: bool,
    next_look: Instant,
    rescan: Duration,
    /// Kept alive, because it stops reporting when it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch<'_> {
    pub fn new(core: &Core) -> Watch<'_> {
        let (send, events) = channel(1);
        let watcher = match watcher(core, send) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                let every = RESCAN_BLIND.as_secs();
                tracing::warn!(%error, "cannot watch the spool; looking every {every} s");
                None
            }
        };
        let blind = watcher.is_none() || core.spool.disk().is_remote();
        Watch {
            core,
            events,
            reported: false,
            next_look: Instant::now() + RESCAN_BLIND,
            rescan: if blind { RESCAN_BLIND } else { RESCAN },
            _watcher: watcher,
        }
    }

    /// Returns when it is time to scan again. A call that is dropped while it waits loses nothing.
    pub async fn wake(&mut self) {
        if !self.reported {
            // The sender lives as long as the watcher. Without a watcher, only the clock wakes this task.
            let reported = async {
                if self.events.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            let told = tokio::time::timeout_at(self.next_look, reported).await;
            self.reported = told.is_ok();
        }
        if self.reported {
            tokio::time::sleep(GATHER).await;
            while self.events.try_recv().is_ok() {}
            self.reported = false;
        }
        let look = Instant::now() + self.until_due().min(self.rescan);
        // What could not be worked on is looked at again when its pause is over.
        let again = self.core.troubles.next_look().map(Instant::from_std);
        let again = again.map(|again| again.max(Instant::now() + SOON));
        self.next_look = again.map_or(look, |again| again.min(look));
    }

    fn until_due(&self) -> Duration {
        let Some(due) = self.core.next_due() else {
            return self.rescan;
        };
        let left = due.duration_since(self.core.now());
        // Never zero: a message that is due but locked by another process must not cause a busy loop.
        Duration::try_from(left)
            .unwrap_or(Duration::ZERO)
            .max(Duration::from_secs(1))
    }
}

fn watcher(core: &Core, wake: Sender<()>) -> notify::Result<RecommendedWatcher> {
    // Only arrivals matter, and so do errors and an overflow, after which events may be missing. If the
    // channel is full, a scan is due already.
    let handler = move |event: notify::Result<notify::Event>| {
        let news = event.map_or(true, |event| {
            let came_in = match event.kind {
                EventKind::Create(_) => true,
                EventKind::Modify(ModifyKind::Name(how)) => how != RenameMode::From,
                _ => false,
            };
            event.need_rescan() || came_in
        });
        if news {
            let _ = wake.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    // A new bucket in `deferred/` may be due sooner than the known buckets.
    for dir in WATCHED {
        let path = core.spool.path().join(Path::new(dir));
        watcher.watch(&path, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
