//! An operator's action on messages that this process has locked and verified.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::entry::Entry;
use super::layout::{Info, Queue};
use crate::disk::{self, File};
use crate::queue::{Action, Hold, QueueUntil, What, history, step};

/// Returns why an action does not apply to a message.
pub fn refusal(entry: &Entry, action: &Action) -> Option<&'static str> {
    // If a discard was only written, its rename is missing: carry it out again.
    let is_discarded = matches!(entry.state().hold, Hold::Discarded { .. });
    let is_elsewhere = !matches!(entry.queue(), Queue::Discarded(_));
    if matches!(action, Action::Discard { .. }) && is_discarded && is_elsewhere {
        return None;
    }
    let stands_frozen = matches!(entry.queue(), Queue::Frozen(_));
    step::refusal(entry.state(), stands_frozen, action)
}

/// Applies an action to locked messages, all of them durably (commit point *ordered*).
///
/// There are two steps, each followed by one barrier for the whole batch. An action that holds a message is
/// recorded before the move: a message in `frozen/` or `discarded/` always has its reason in its history. An
/// action that releases a message moves it to `active/` first: if only the history said so, the message would
/// stay in `frozen/never/`, which no run reads. A process killed between the two steps has changed nothing:
/// the next run puts back a message that is held or not due.
pub fn apply(entries: &mut [Entry], at: Timestamp, action: &Action) -> disk::Result<()> {
    let at = history::written(at);
    for entry in entries.iter_mut() {
        entry.make_ready(at)?;
    }
    match destination(action) {
        Queue::Active => {
            move_all(entries, Queue::Active)?;
            record_all(entries, at, action)
        }
        hold => {
            record_all(entries, at, action)?;
            move_all(entries, hold)
        }
    }
}

fn record_all(entries: &mut [Entry], at: Timestamp, action: &Action) -> disk::Result<()> {
    for entry in entries.iter_mut() {
        entry.record(at, What::Action(action.clone()))?;
    }
    let Some(first) = entries.first() else {
        return Ok(());
    };
    let files: Vec<&File> = entries
        .iter()
        .filter_map(|entry| entry.history.file())
        .collect();
    let disk = &first.locked.spool.disk;
    let durable = disk.durable(&files, &[Path::new(Info::History.dir())]);
    if let Err(error) = &durable {
        tracing::warn!(%error, "histories are rewritten");
    }
    for entry in entries {
        entry.history.shared(durable.is_ok());
        entry.sync()?;
    }
    Ok(())
}

fn move_all(entries: &mut [Entry], to: Queue) -> disk::Result<()> {
    let mut dirs: Vec<PathBuf> = vec![to.dir()];
    // A message already in `to` may have been moved by a process killed before its barrier. After a power cut
    // its old name may be back, in any queue.
    let found = entries.iter().any(|entry| entry.queue() == to);
    for entry in entries.iter_mut() {
        dirs.push(entry.queue().dir());
        entry.go(to)?;
    }
    let Some(first) = entries.first() else {
        return Ok(());
    };
    if found {
        dirs.extend(first.locked.spool.queues()?.iter().map(Queue::dir));
    }
    let disk = &first.locked.spool.disk;
    dirs.sort_unstable();
    dirs.dedup();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    // Another process may remove an empty bucket at any time.
    match disk.durable(&[], &dirs) {
        Err(error) if error.is_absent() => {
            let there = |dir: &&Path| !matches!(disk.stat(dir), Ok(None));
            let dirs: Vec<&Path> = dirs.into_iter().filter(there).collect();
            disk.durable(&[], &dirs)
        }
        other => other,
    }
}

/// Returns the queue that an action sends a message to.
fn destination(action: &Action) -> Queue {
    match action {
        Action::Freeze { until, .. } => QueueUntil::Frozen(*until).into(),
        Action::Discard { until, .. } => QueueUntil::Discarded(*until).into(),
        Action::Retry(_) | Action::Thaw(_) | Action::Bounce(_) => Queue::Active,
    }
}
