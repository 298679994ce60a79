//! The log: every change to the file system, in order, as the seam sees it.

use std::path::{Component, Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use mailspool::disk::{Call, Method, Seam, Verdict};
use mailspool::message::QueueId;
use nix::errno::Errno;

/// One change, or one thing that the world knows from then on. Paths are below the test's
/// directory.
#[derive(Clone, Debug)]
pub enum Step {
    /// No change, but from now on this path means that file, wherever it is renamed to.
    Open(PathBuf),
    /// Opened, and made if it was missing.
    Create(PathBuf),
    /// At the end of the file.
    Write(PathBuf, Vec<u8>),
    Truncate(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    Mkdir(PathBuf),
    Rmdir(PathBuf),
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    SyncFs,
    /// A message was acknowledged, under this name.
    Acked(&'static str, QueueId),
    /// What was to be done was reported as done.
    Did,
    /// Somebody got a message.
    Delivered(QueueId, String),
    /// Somebody was told about a message: notice, origin, recipient.
    Told(QueueId, String, String),
}

impl Step {
    /// Whether the power may go off behind it with another result than before it.
    pub fn is_cut(&self) -> bool {
        !matches!(self, Step::Open(_))
    }
}

/// Writes the log. One call is made at a time, so that the order is the true one.
pub struct Recorder {
    base: PathBuf,
    spool: PathBuf,
    method: Method,
    inner: Mutex<Inner>,
    free: Condvar,
}

#[derive(Default)]
struct Inner {
    busy: bool,
    steps: Vec<Step>,
    /// The disk that is spoken to, where that is not the spool's.
    elsewhere: Option<PathBuf>,
    /// The process is stopped behind such a call.
    stop: Option<fn(&Step) -> bool>,
    armed: bool,
    stopped: bool,
}

impl Recorder {
    /// For a spool below `base`.
    pub fn new(base: &Path, spool: &Path, method: Method) -> Recorder {
        Recorder {
            base: base.to_owned(),
            spool: spool.strip_prefix(base).unwrap().to_owned(),
            method,
            inner: Mutex::default(),
            free: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the world knows.
    pub fn mark(&self, step: Step) {
        self.lock().steps.push(step);
    }

    /// Stops the process behind a step like this: all later calls fail, until
    /// [`revive`](Recorder::revive).
    pub fn stop_behind(&self, when: fn(&Step) -> bool) {
        self.lock().stop = Some(when);
    }

    /// Another process goes on. Says whether the first was stopped.
    pub fn revive(&self) -> bool {
        let mut inner = self.lock();
        inner.stop = None;
        inner.armed = false;
        std::mem::take(&mut inner.stopped)
    }

    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    fn step(&self, inner: &Inner, call: &Call<'_>) -> Option<Step> {
        let root = inner.elsewhere.as_deref().unwrap_or(&self.spool);
        let at = |path: &Path| -> PathBuf {
            let all = root.join(path);
            let plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
            all.components().filter(plain).collect()
        };
        Some(match call {
            Call::Open { path, create: true } => Step::Create(at(path)),
            Call::Open { path, .. } => Step::Open(at(path)),
            Call::Write { path, bytes } => Step::Write(at(path), bytes.to_vec()),
            Call::Truncate { path, len } => Step::Truncate(at(path), *len),
            Call::Rename { from, to } => Step::Rename(at(from), at(to)),
            Call::Link { from, to } => Step::Link(at(from), at(to)),
            Call::Unlink { path } => Step::Unlink(at(path)),
            Call::Mkdir { path } => Step::Mkdir(at(path)),
            Call::Rmdir { path } => Step::Rmdir(at(path)),
            Call::SyncFile { path } => Step::SyncFile(at(path)),
            Call::SyncDir { path } => Step::SyncDir(at(path)),
            Call::SyncFs => Step::SyncFs,
            _ => return None,
        })
    }
}

impl Seam for Recorder {
    fn before(&self, _: &Call<'_>) -> Verdict {
        let mut inner = self.lock();
        while inner.busy {
            inner = self
                .free
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inner.busy = true;
        inner.stopped |= inner.armed;
        match inner.stopped {
            true => Verdict::Fail(Errno::EIO),
            false => Verdict::Pass,
        }
    }

    fn after(&self, call: &Call<'_>, error: Option<Errno>) {
        let mut inner = self.lock();
        inner.busy = false;
        self.free.notify_one();
        if error.is_some() {
            return;
        }
        if let Call::OpenRoot { path } = call {
            let path = path.strip_prefix(&self.base).unwrap().to_owned();
            inner.elsewhere = (path != self.spool).then_some(path);
            return;
        }
        let Some(step) = self.step(&inner, call) else {
            return;
        };
        // A disk other than the spool's is opened only to make a name durable in it.
        if let Call::SyncDir { .. } = call {
            inner.elsewhere = None;
        }
        inner.armed |= inner.stop.is_some_and(|stop| stop(&step));
        inner.steps.push(step);
    }

    fn method(&self) -> Option<Method> {
        Some(self.method)
    }
}
