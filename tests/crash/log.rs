//! The log: every change to the file system, in order, as the seam receives it.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::QueueId;
use nix::errno::Errno;

use super::turns::Turns;

/// One change, or one fact that the world knows from then on. Paths are relative to the test's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No change; this process makes the following steps.
    Turn(usize),
    /// No change; from now on this path means the open file, wherever it is renamed to.
    Open(PathBuf),
    /// Opens the file, and makes it if it is missing.
    Create(PathBuf),
    /// Appends to the file.
    Write(PathBuf, Vec<u8>),
    /// Replaces existing octets from this offset on.
    Overwrite(PathBuf, u64, Vec<u8>),
    /// Sets or clears the in-use bit of an open file.
    Mark(PathBuf, bool),
    Truncate(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    Mkdir(PathBuf),
    Rmdir(PathBuf),
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    /// A sync that failed: what it covers may be lost even if later syncs succeed.
    Failed(Box<Step>),
    /// The clock is set to this time.
    Clock(Timestamp),
    /// A process was killed and lost its memory.
    Killed,
    /// A message was acknowledged. The story calls it by this name.
    Acked(&'static str, QueueId),
    /// The story's action was reported as done.
    Did,
    /// A message was delivered to this recipient.
    Delivered(QueueId, String),
    /// A notice was delivered: notice, origin, recipient that it is about.
    Told(QueueId, String, String),
}

impl Step {
    /// Whether a power cut after it may have another result than one before it.
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

/// Returns the error with which a call fails, if it fails.
pub type Fault = fn(&Call<'_>) -> Option<Errno>;

/// Writes the log. It permits one call at a time, so the log has the real order.
pub struct Recorder {
    base: PathBuf,
    inner: Mutex<Inner>,
    free: Condvar,
}

#[derive(Default)]
struct Inner {
    busy: bool,
    steps: Vec<Step>,
    /// The process that made the last step.
    process: usize,
    /// The process is stopped after such a call.
    stop: Option<fn(&Step) -> bool>,
    /// The number of steps until the process is stopped.
    left: Option<usize>,
    armed: bool,
    stopped: bool,
    /// The number of syncs until one fails.
    failing: Option<usize>,
    /// The calls that fail.
    refused: Option<Fault>,
    /// The turns of two concurrent processes.
    turns: Option<Turns>,
}

/// The seam of one process on one disk.
pub struct Hand {
    recorder: Arc<Recorder>,
    process: usize,
    /// The disk's directory, below the recorder's.
    root: PathBuf,
    /// The directory of the disk that the next calls are for, if it is another disk.
    elsewhere: Mutex<Option<PathBuf>>,
}

impl Recorder {
    /// Returns a recorder for everything below `base`.
    pub fn new(base: &Path) -> Arc<Recorder> {
        Arc::new(Recorder {
            base: base.to_owned(),
            inner: Mutex::default(),
            free: Condvar::new(),
        })
    }

    /// Returns the seam of a process on the disk at a path.
    pub fn hand(self: &Arc<Recorder>, path: &Path, process: usize) -> Arc<dyn Seam> {
        Arc::new(Hand {
            recorder: Arc::clone(self),
            process,
            root: path.strip_prefix(&self.base).unwrap().to_owned(),
            elsewhere: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fact that the world knows. A killed process adds none.
    pub fn mark(&self, step: Step) {
        let mut inner = self.lock();
        if !inner.armed {
            inner.steps.push(step);
        }
    }

    /// Stops the process after a step like this: all later calls fail until [`revive`](Recorder::revive).
    pub fn stop_at(&self, when: fn(&Step) -> bool) {
        self.lock().stop = Some(when);
    }

    /// Lets the process make `steps` more steps and stops it after the next one.
    pub fn stop_after(&self, steps: usize) {
        self.lock().left = Some(steps);
    }

    /// Lets the next process start. Returns whether the previous one was stopped.
    pub fn revive(&self) -> bool {
        let mut inner = self.lock();
        inner.stop = None;
        inner.left = None;
        inner.stopped = false;
        inner.steps.push(Step::Killed);
        std::mem::take(&mut inner.armed)
    }

    /// Makes one sync fail, after `number` others.
    pub fn fail_sync(&self, number: usize) {
        self.lock().failing = Some(number);
    }

    /// Sets which calls fail from now on without an effect. None: no call fails.
    pub fn refuse(&self, which: Option<Fault>) {
        self.lock().refused = which;
    }

    /// Makes two processes take turns from now on.
    pub fn take_turns(&self, seed: u64) {
        self.lock().turns = Some(Turns::new(seed));
    }

    /// Reports that a process makes no more calls.
    pub fn leave(&self, process: usize) {
        if let Some(turns) = &mut self.lock().turns {
            turns.leave(process);
        }
        self.free.notify_all();
    }

    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }
}

impl Inner {
    fn add(&mut self, process: usize, step: Step) {
        if process != self.process {
            self.process = process;
            self.steps.push(Step::Turn(process));
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
            turns.wait(self.process);
        }
        loop {
            let free = !inner.busy;
            let mine = match &mut inner.turns {
                Some(turns) => turns.is_mine(self.process, free),
                None => true,
            };
            if free && mine {
                break;
            }
            // Evaluating the turn may have chosen the other process.
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
                inner.add(self.process, Step::Failed(Box::new(step)));
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
        // Another disk is opened only to make a name in it durable.
        if let Call::SyncDir { .. } = call {
            *self.elsewhere() = None;
        }
        inner.armed |= inner.stop.is_some_and(|stop| stop(&step));
        match &mut inner.left {
            Some(0) => inner.armed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        inner.add(self.process, step);
    }
}
