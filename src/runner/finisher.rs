//! Forgets finished messages in groups, with one barrier for each group.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Core, Error};
use crate::message::QueueId;

/// A message in `done/`, and whether it has a history.
pub(super) type Finished = (QueueId, bool);

/// The channel for finished messages.
pub(super) type Finisher = UnboundedSender<Finished>;

/// The minimum time between two barriers while messages keep finishing. Waiting messages are safe in
/// `done/`; at worst, a power cut in the meantime delivers them again.
const PAUSE: Duration = Duration::from_millis(50);

/// The most messages that one barrier covers. Further ones wait for the next barrier.
const GROUP: usize = 1000;

/// Starts the task that forgets finished messages. It ends when every sender is dropped and every message
/// has been forgotten.
pub(super) fn start(core: Arc<Core>) -> (Finisher, tokio::task::JoinHandle<()>) {
    let (send, receive) = unbounded_channel();
    (send, tokio::spawn(forget(core, receive)))
}

/// Collects messages that finish during the pause. Ends early if the group is full or the channel is
/// closed.
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
        // After a failed barrier, the success of a later one may mean nothing.
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
            // A permission error in one directory does not stop the rest of the run.
            Ok(Err(error)) if error.is_denied() => {
                trusted = false;
                core.unread(&error, "finished messages stay in done/");
            }
            // The messages stay in `done/`: the next run finishes them, if the disk permits.
            Ok(Err(error)) => {
                trusted = false;
                core.fail(Error::Disk(error));
            }
            Err(_) => tracing::error!("forgetting finished messages panicked"),
        }
        gather(&mut finished, &mut group).await;
    }
}
