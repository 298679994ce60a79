//! Forgets finished messages in groups: one barrier for all that finished meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Core, Error};
use crate::message::QueueId;

/// A message that stands in `done/`, and whether it has a history.
pub(super) type Finished = (QueueId, bool);

/// Where finished messages are handed in.
pub(super) type Finisher = UnboundedSender<Finished>;

/// At least so long between two barriers while messages keep finishing; what waits is safe in
/// `done/`, and a power cut in the meantime at worst delivers it again.
const PAUSE: Duration = Duration::from_millis(50);

/// The most messages behind one barrier.
const GROUP: usize = 1000;

/// Starts the task that forgets. It ends when everybody who could hand something in is gone
/// and everything has been forgotten.
pub(super) fn start(core: Arc<Core>) -> (Finisher, tokio::task::JoinHandle<()>) {
    let (send, receive) = unbounded_channel();
    (send, tokio::spawn(forget(core, receive)))
}

/// Collects what finishes during the pause, and cuts it short when nothing more can come.
async fn gather(finished: &mut UnboundedReceiver<Finished>, group: &mut Vec<Finished>) {
    let end = tokio::time::Instant::now() + PAUSE;
    while group.len() < GROUP {
        let more = finished.recv_many(group, GROUP);
        match tokio::time::timeout_at(end, more).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

async fn forget(core: Arc<Core>, mut finished: UnboundedReceiver<Finished>) {
    let mut group = Vec::new();
    let mut trusted = true;
    while !group.is_empty() || finished.recv_many(&mut group, GROUP).await > 0 {
        // After a barrier that failed, one that succeeds may say nothing.
        if !trusted {
            group.clear();
            continue;
        }
        let worker = Arc::clone(&core);
        let messages = std::mem::take(&mut group);
        let work = move || worker.spool.forget(&messages);
        let done = tokio::task::spawn_blocking(work).await;
        match done {
            Ok(Ok(left)) => {
                for error in left {
                    core.unread(&error, "left in done/");
                }
            }
            // Below a directory that we may not read everything else goes on.
            Ok(Err(error)) if error.is_denied() => {
                trusted = false;
                core.unread(&error, "finished messages stay in done/");
            }
            // They stand in `done/`: the next run finishes them, if the disk lets it.
            Ok(Err(error)) => {
                trusted = false;
                core.fail(Error::Disk(error));
            }
            Err(_) => tracing::error!("forgetting finished messages panicked"),
        }
        gather(&mut finished, &mut group).await;
    }
}
