//! The steps of a story after which a process is killed.

use std::path::Path;

use super::log::Step;
use super::story::lies_in;

/// A message is written, but not durable.
pub fn written(step: &Step) -> bool {
    matches!(step, Step::Write(path, _) if lies_in(path, "new"))
}

/// A message is whole and durable, and has its name in `new/`.
pub fn sealed(step: &Step) -> bool {
    matches!(step, Step::SyncFile(path) if lies_in(path, "new"))
}

/// A message has left `new/` for its queue, but its new name may not be durable.
pub fn entered(step: &Step) -> bool {
    matches!(step, Step::Rename(from, to) if lies_in(from, "new") && !lies_in(to, "staged"))
}

/// A message is accepted.
pub fn accepted(step: &Step) -> bool {
    // `deferred/` itself is synced for the name of a bucket.
    matches!(step, Step::SyncDir(path) if !path.ends_with("deferred")
        && ["incoming", "active", "deferred"].iter().any(|dir| lies_in(path, dir)))
}

/// A notice is staged.
pub fn staged(step: &Step) -> bool {
    matches!(step, Step::SyncDir(path) if lies_in(path, "staged"))
}

/// A message with a key has been moved to `staged/`, so that its name in its queue is made anew.
pub fn set_aside(step: &Step) -> bool {
    matches!(step, Step::Rename(from, to) if lies_in(to, "staged") && !lies_in(from, "new"))
}

/// A message has moved back from `staged/`, but its name may not be durable.
pub fn set_back(step: &Step) -> bool {
    matches!(step, Step::Rename(from, _) if lies_in(from, "staged"))
}

/// A message is marked as in use.
pub fn begun(step: &Step) -> bool {
    matches!(step, Step::Mark(_, true))
}

/// The block marks a recipient as finished, but not durably.
pub fn crossed(step: &Step) -> bool {
    matches!(step, Step::Overwrite(_, _, bytes) if bytes == b"+")
}

/// An interruption is counted in the state line.
pub fn counted(step: &Step) -> bool {
    matches!(step, Step::Overwrite(_, _, bytes) if bytes.starts_with(b"Mailspool-State"))
}

/// The record of a key is written, but not durable.
pub fn intended(step: &Step) -> bool {
    matches!(step, Step::Write(path, _) if lies_in(path, "keys/new"))
}

/// The record of a key is in its bucket, where it counts without the message.
pub fn kept(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if lies_in(to, "keys"))
}

/// An event is in the history.
pub fn noted(step: &Step) -> bool {
    matches!(step, Step::Write(path, _) if lies_in(path, "history"))
}

/// An attempt's outcome is in the history.
pub fn noted_outcome(step: &Step) -> bool {
    matches!(step, Step::Write(path, bytes)
        if lies_in(path, "history") && String::from_utf8_lossy(bytes).contains("\"outcome\""))
}

/// A message's freeze is in its history.
pub fn noted_freeze(step: &Step) -> bool {
    matches!(step, Step::Write(path, bytes)
        if lies_in(path, "history") && String::from_utf8_lossy(bytes).contains("\"freeze\""))
}

/// A history that replaces the old one is written, but not durable.
pub fn rewritten(step: &Step) -> bool {
    matches!(step, Step::Overwrite(path, 0, _) if is_part_of_history(path))
}

/// A history that replaces the old one is durable, under its own name.
pub fn rewritten_durably(step: &Step) -> bool {
    matches!(step, Step::SyncFile(path) if is_part_of_history(path))
}

/// A history has replaced the old one, but its name may not be durable.
pub fn replaced(step: &Step) -> bool {
    matches!(step, Step::Rename(from, _) if is_part_of_history(from))
}

fn is_part_of_history(path: &Path) -> bool {
    lies_in(path, "history") && path.extension().is_some_and(|end| end == "part")
}

/// A host is recorded as down.
pub fn remembered(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if lies_in(to, "state/down"))
}

/// A suspension exists.
pub fn suspended(step: &Step) -> bool {
    matches!(step, Step::Link(_, to) if lies_in(to, "suspended"))
}

/// A suspension has been removed.
pub fn resumed(step: &Step) -> bool {
    matches!(step, Step::Unlink(path)
        if lies_in(path, "suspended") && path.extension().is_none_or(|end| end != "part"))
}

/// A notice is in its origin's history.
pub fn noted_notice(step: &Step) -> bool {
    matches!(step, Step::Write(path, bytes)
        if lies_in(path, "history") && String::from_utf8_lossy(bytes).contains("\"notice\""))
}

/// A copy has its name in the Maildir.
pub fn in_the_box(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if to.starts_with("box/new"))
}

/// The block says that the message is done, but not durably.
pub fn said_done(step: &Step) -> bool {
    matches!(step, Step::Overwrite(_, _, bytes) if bytes.starts_with(b"Mailspool-State: done"))
}

/// A message is in `done/`.
pub fn finished(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if lies_in(to, "done"))
}

/// A message's view is partly removed.
pub fn half_gone(step: &Step) -> bool {
    matches!(step, Step::Unlink(path) if lies_in(path, "info/recipients"))
}
