//! Moments of a story behind which a process is killed.

use mailspool::disk::Method;

use super::log::Step;
use super::story::{When, lies_in};

/// The envelope of a message is written; it is not durable.
pub fn written(step: &Step) -> bool {
    matches!(step, Step::Write(path, _) if lies_in(path, "info/transport"))
}

/// The record of a key is written; it is not durable.
pub fn intended(step: &Step) -> bool {
    matches!(step, Step::Write(path, _) if lies_in(path, "keys/new"))
}

/// The record of a key stands where it counts by itself.
pub fn kept(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if lies_in(to, "keys"))
}

/// Something is in the history.
pub fn noted(step: &Step) -> bool {
    matches!(step, Step::Write(path, _) if lies_in(path, "history"))
}

/// An attempt's outcome is in the history.
pub fn noted_outcome(step: &Step) -> bool {
    matches!(step, Step::Write(path, bytes)
        if lies_in(path, "history") && String::from_utf8_lossy(bytes).contains("\"outcome\""))
}

/// That a message is frozen is in its history.
pub fn noted_freeze(step: &Step) -> bool {
    matches!(step, Step::Write(path, bytes)
        if lies_in(path, "history") && String::from_utf8_lossy(bytes).contains("\"freeze\""))
}

/// A host is remembered to be down.
pub fn remembered(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if lies_in(to, "state/down"))
}

/// Something is suspended.
pub fn suspended(step: &Step) -> bool {
    matches!(step, Step::Link(_, to) if lies_in(to, "suspended"))
}

/// Something is no longer suspended.
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

/// A message is finished.
pub fn finished(step: &Step) -> bool {
    matches!(step, Step::Rename(_, to) if lies_in(to, "done"))
}

/// A message's envelope is half gone.
pub fn half_gone(step: &Step) -> bool {
    matches!(step, Step::Unlink(path) if lies_in(path, "info/recipients"))
}

/// The barrier of acceptance has returned, by any method.
pub fn durable(method: Method) -> When {
    match method {
        Method::Each => {
            |step| matches!(step, Step::SyncDir(path) if lies_in(path, "info/transport"))
        }
        Method::SyncExt => |step| matches!(step, Step::SyncDir(path) if lies_in(path, "new")),
        Method::SyncFs => |step| matches!(step, Step::SyncFs),
    }
}
