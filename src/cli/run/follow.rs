//! Follows a configuration file and reports changes.
//!
//! The kernel reports changes in the directories of the file and of each link on the way to it. It does
//! not report all of them (a directory on the way may itself be a link, or be on another machine), so
//! the file is also checked periodically.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// How often the file is checked without a report of the kernel.
const LOOK: Duration = Duration::from_secs(5);

/// How long the file must be unchanged before a change is reported, because an editor may write it in
/// several steps.
const SETTLED: Duration = Duration::from_millis(100);

/// The most links that are followed to a file, the same as in the kernel; directories beyond are not
/// watched.
const MAX_LINKS: usize = 40;

/// Starts a thread that calls `changed` after each change of the file or of what its name leads to.
/// `was` is the file's metadata when it was read, none if it was absent; a difference counts as a
/// change. Does nothing if the path is not a regular file, such as the pipe of a shell's `<(...)`.
pub(super) fn follow(path: PathBuf, was: Option<&Metadata>, changed: impl Fn() + Send + 'static) {
    if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return;
    }
    // Start from `was`, not from the present state, which would miss a change since the file was read.
    let mut known = Mark::of(was);
    let following = move || {
        let (told, news) = channel();
        let mut watcher = watch(&path, &told);
        loop {
            let mut now = Mark::look(&path);
            if now == known {
                let _ = news.recv_timeout(LOOK);
                while news.try_recv().is_ok() {}
                continue;
            }
            loop {
                thread::sleep(SETTLED);
                let then = std::mem::replace(&mut now, Mark::look(&path));
                if now == then {
                    break;
                }
            }
            known = now;
            // The path may now lead through other directories.
            drop(watcher.take());
            watcher = watch(&path, &told);
            changed();
        }
    };
    if let Err(error) = thread::Builder::new().spawn(following) {
        tracing::warn!(%error, "changes of the configuration are not noticed");
    }
}

/// Metadata that differs after a change of the file.
#[derive(PartialEq, Eq)]
struct Mark(Option<[i64; 7]>);

impl Mark {
    fn look(path: &Path) -> Mark {
        Mark::of(std::fs::metadata(path).ok().as_ref())
    }

    fn of(metadata: Option<&Metadata>) -> Mark {
        Mark(metadata.map(|of| {
            [
                of.dev() as i64,
                of.ino() as i64,
                of.size() as i64,
                of.mtime(),
                of.mtime_nsec(),
                of.ctime(),
                of.ctime_nsec(),
            ]
        }))
    }
}

/// Returns the directories of the file and of each link on the way to it.
fn directories(path: &Path) -> Vec<PathBuf> {
    let mut path = path.to_owned();
    let mut all = Vec::new();
    for _ in 0..MAX_LINKS {
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        let target = std::fs::read_link(&path);
        if !all.contains(&dir) {
            all.push(dir.clone());
        }
        match target {
            Ok(target) => path = dir.join(target),
            Err(_) => break,
        }
    }
    all
}

/// Starts watching the directories of a path; none if that fails, for example without free watches.
fn watch(path: &Path, told: &Sender<()>) -> Option<RecommendedWatcher> {
    let told = told.clone();
    let handler = move |event: notify::Result<notify::Event>| {
        // Ignore reads, including our own.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            let _ = told.send(());
        }
    };
    let mut watcher = notify::recommended_watcher(handler).ok()?;
    for dir in directories(path) {
        let _ = watcher.watch(&dir, RecursiveMode::NonRecursive);
    }
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_before_the_file_is_followed_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for (before, after) in [
            (Some("one"), Some("another")),
            (Some("one"), None),
            (None, Some("another")),
        ] {
            let put = |text: Option<&str>| match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap_or_default(),
            };
            put(before);
            let was = std::fs::metadata(&path).ok();
            put(after);
            let (say, said) = channel();
            follow(path.clone(), was.as_ref(), move || say.send(()).unwrap());
            said.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }
}
