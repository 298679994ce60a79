//! The log: every change to the file system, in order, as the seam sees it.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mailspool::disk::{Call, Seam, Verdict};
use mailspool::message::QueueId;
use nix::errno::Errno;

use super::turns::Turns;

/// One change, or one thing that the world knows from then on. Paths are below the test's
/// directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No change, but from now on this process does what follows.
    Turn(usize),
    /// No change, but from now on this path means that file, wherever it is renamed to.
    Open(PathBuf),
    /// Opened, and made if it was missing.
    Create(PathBuf),
    /// At the end of the file.
    Write(PathBuf, Vec<u8>),
    /// Octets that are there are replaced, from this offset on.
    Overwrite(PathBuf, u64, Vec<u8>),
    /// An open file's mode says from now on whether it is in use.
    Mark(PathBuf, bool),
    Truncate(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    Mkdir(PathBuf),
    Rmdir(PathBuf),
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    /// A sync that failed: what it covers may be lost whatever succeeds later.
    Failed(Box<Step>),
    /// It is this time from now on.
    Clock(Timestamp),
    /// A process was killed: what it had in mind is gone.
    Killed,
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
        !matches!(
            self,
            Step::Open(_) | Step::Turn(_) | Step::Clock(_) | Step::Killed
        )
    }

    pub fn is_sync(&self) -> bool {
        matches!(self, Step::SyncFile(_) | Step::SyncDir(_))
    }
}

/// Whether a call fails, and with what.
pub type Fault = fn(&Call<'_>) -> Option<Errno>;

/// Writes the log. One call is made at a time, so that the order is the true one.
pub struct Recorder {
    base: PathBuf,
    inner: Mutex<Inner>,
    free: Condvar,
}

#[derive(Default)]
struct Inner {
    busy: bool,
    steps: Vec<Step>,
    /// Whose step was the last.
    who: usize,
    /// The process is stopped behind such a call.
    stop: Option<fn(&Step) -> bool>,
    /// So many steps from now the process is stopped.
    left: Option<usize>,
    armed: bool,
    stopped: bool,
    /// This many syncs from now, one fails.
    failing: Option<usize>,
    /// Such calls fail.
    refused: Option<Fault>,
    /// Two processes at once take turns.
    turns: Option<Turns>,
}

/// One process's hand on one disk.
pub struct Hand {
    recorder: Arc<Recorder>,
    who: usize,
    /// The disk's directory, below the recorder's.
    root: PathBuf,
    /// The disk that is spoken to, where that is another one.
    elsewhere: Mutex<Option<PathBuf>>,
}

impl Recorder {
    /// For everything below `base`.
    pub fn new(base: &Path) -> Arc<Recorder> {
        Arc::new(Recorder {
            base: base.to_owned(),
            inner: Mutex::default(),
            free: Condvar::new(),
        })
    }

    /// The hand of a process on the disk at a path.
    pub fn hand(self: &Arc<Recorder>, path: &Path, who: usize) -> Arc<dyn Seam> {
        Arc::new(Hand {
            recorder: Arc::clone(self),
            who,
            root: path.strip_prefix(&self.base).unwrap().to_owned(),
            elsewhere: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the world knows. A process that was killed tells it nothing.
    pub fn mark(&self, step: Step) {
        let mut inner = self.lock();
        if !inner.armed {
            inner.steps.push(step);
        }
    }

    /// Stops the process behind a step like this: all later calls fail, until
    /// [`revive`](Recorder::revive).
    pub fn stop_behind(&self, when: fn(&Step) -> bool) {
        self.lock().stop = Some(when);
    }

    /// Stops the process behind its next steps but so many.
    pub fn stop_after(&self, steps: usize) {
        self.lock().left = Some(steps);
    }

    /// Another process goes on. Says whether the first was stopped.
    pub fn revive(&self) -> bool {
        let mut inner = self.lock();
        inner.stop = None;
        inner.left = None;
        inner.stopped = false;
        inner.steps.push(Step::Killed);
        std::mem::take(&mut inner.armed)
    }

    /// The sync behind so many others fails, once.
    pub fn fail_sync(&self, number: usize) {
        self.lock().failing = Some(number);
    }

    /// From now on such calls fail, and change nothing; or none does.
    pub fn refuse(&self, which: Option<Fault>) {
        self.lock().refused = which;
    }

    /// From now on two processes take turns.
    pub fn take_turns(&self, seed: u64) {
        self.lock().turns = Some(Turns::new(seed));
    }

    /// A process makes no more calls.
    pub fn leave(&self, who: usize) {
        if let Some(turns) = &mut self.lock().turns {
            turns.leave(who);
        }
        self.free.notify_all();
    }

    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }
}

impl Inner {
    fn add(&mut self, who: usize, step: Step) {
        if who != self.who {
            self.who = who;
            self.steps.push(Step::Turn(who));
        }
        self.steps.push(step);
    }
}

impl Hand {
    fn elsewhere(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, call: &Call<'_>) -> Option<Step> {
        let elsewhere = self.elsewhere();
        let root = elsewhere.as_deref().unwrap_or(&self.root);
        let at = |path: &Path| -> PathBuf {
            let all = root.join(path);
            let plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
            all.components().filter(plain).collect()
        };
        Some(match call {
            Call::Open { path, create: true } => Step::Create(at(path)),
            Call::Open { path, .. } => Step::Open(at(path)),
            Call::Write {
                path,
                bytes,
                at: None,
            } => Step::Write(at(path), bytes.to_vec()),
            Call::Write {
                path,
                bytes,
                at: Some(offset),
            } => Step::Overwrite(at(path), *offset, bytes.to_vec()),
            Call::Chmod { path, mode } => Step::Mark(at(path), mode & 0o100 != 0),
            Call::Truncate { path, len } => Step::Truncate(at(path), *len),
            Call::Rename { from, to } => Step::Rename(at(from), at(to)),
            Call::Link { from, to } => Step::Link(at(from), at(to)),
            Call::Unlink { path } => Step::Unlink(at(path)),
            Call::Mkdir { path } => Step::Mkdir(at(path)),
            Call::Rmdir { path } => Step::Rmdir(at(path)),
            Call::SyncFile { path } => Step::SyncFile(at(path)),
            Call::SyncDir { path } => Step::SyncDir(at(path)),
            _ => return None,
        })
    }
}

impl Seam for Hand {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let recorder = &self.recorder;
        let mut inner = recorder.lock();
        if let Some(turns) = &mut inner.turns {
            turns.wait(self.who);
        }
        loop {
            let free = !inner.busy;
            let mine = match &mut inner.turns {
                Some(turns) => turns.is_mine(self.who, free),
                None => true,
            };
            if free && mine {
                break;
            }
            // Whose turn it was may have chosen somebody else.
            recorder.free.notify_all();
            let waited = recorder.free.wait_timeout(inner, super::turns::PATIENCE);
            let (again, time) = waited.unwrap_or_else(PoisonError::into_inner);
            inner = again;
            if let (Some(turns), true) = (&mut inner.turns, time.timed_out()) {
                turns.lose_patience();
            }
        }
        inner.busy = true;
        inner.stopped |= inner.armed;
        if inner.stopped {
            return Verdict::Fail(Errno::EIO);
        }
        if let Some(errno) = inner.refused.and_then(|refused| refused(call)) {
            return Verdict::Fail(errno);
        }
        let sync = matches!(call, Call::SyncFile { .. } | Call::SyncDir { .. });
        match (&mut inner.failing, sync) {
            (Some(0), true) => Verdict::Fail(Errno::EIO),
            (Some(left), true) => {
                *left -= 1;
                Verdict::Pass
            }
            _ => Verdict::Pass,
        }
    }

    fn after(&self, call: &Call<'_>, error: Option<Errno>) {
        let mut inner = self.recorder.lock();
        inner.busy = false;
        if let Some(turns) = &mut inner.turns {
            turns.over();
        }
        self.recorder.free.notify_all();
        let step = self.step(call);
        if error.is_some() {
            if inner.failing == Some(0)
                && let Some(step) = step.filter(Step::is_sync)
            {
                inner.failing = None;
                inner.add(self.who, Step::Failed(Box::new(step)));
            }
            return;
        }
        if let Call::OpenRoot { path } = call {
            let path = path.strip_prefix(&self.recorder.base).unwrap().to_owned();
            *self.elsewhere() = (path != self.root).then_some(path);
            return;
        }
        let Some(step) = step else {
            return;
        };
        // A disk other than this hand's is opened only to make a name durable in it.
        if let Call::SyncDir { .. } = call {
            *self.elsewhere() = None;
        }
        inner.armed |= inner.stop.is_some_and(|stop| stop(&step));
        match &mut inner.left {
            Some(0) => inner.armed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        inner.add(self.who, step);
    }
}
