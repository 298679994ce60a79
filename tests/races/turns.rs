//! Turns: several processes that go on one at a time, call by call, as a test decides.
//!
//! A process is everything that uses one [`Hand`] as its seam: a spool opened separately, on its own thread and the
//! threads started there. It stops before each call, and before it releases a lock, and waits for its turn.
//!
//! - A process is **at a call** from the time when one of its threads reaches the call until the call is granted.
//!   Its other threads stop at their own next calls and queue up, because a process makes one call at a time. What
//!   it does between two calls touches nothing that other processes could observe. (`Runner::threads` with one
//!   thread fixes the order of the calls.)
//! - At first all processes go on until each is at its first call or has ended. From then on only the process that
//!   has the **turn** goes on. When it reaches its next call or ends, the `decide` function chooses the next
//!   process. It is called only while all processes wait or have ended.
//! - A **killed** process makes no further call: its calls fail, its locks are released, and it ends, all before
//!   another process goes on.
//! - If a process has the turn and neither reaches a call nor ends, the test aborts and prints the call that each
//!   process is at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailspool::testing::disk::{Call, Seam, Verdict};
use nix::errno::Errno;

/// How long a process with the turn may take between two calls; beyond that the test aborts.
const TOO_LONG: Duration = Duration::from_secs(60);

/// One call, or the release of a lock (`unlock`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Op {
    pub name: &'static str,
    pub path: PathBuf,
    /// The target of a rename or a link.
    pub to: Option<PathBuf>,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This process makes the call it is at.
    Go(usize),
    /// This process is killed at the call it is at.
    Kill(usize),
}

/// The state of all processes at a decision.
pub struct Point<'a> {
    /// The call each process is at; none if it has ended.
    pub at: Vec<Option<&'a Op>>,
    /// The process that had the turn; none at first.
    pub last: Option<usize>,
}

/// The scheduler.
struct Turns {
    inner: Mutex<Inner>,
    /// One condition variable per process, for its threads.
    changed: Vec<Condvar>,
}

type Decide = Box<dyn FnMut(&Point<'_>) -> Choice + Send>;

struct Inner {
    processes: Vec<Process>,
    turn: Option<usize>,
    decide: Decide,
}

#[derive(Default)]
struct Process {
    /// The call that it is at.
    at: Option<Op>,
    /// One of its threads is at a call or makes one.
    busy: bool,
    killed: bool,
    ended: bool,
}

/// The seam of a process.
pub struct Hand {
    turns: Arc<Turns>,
    process: usize,
    below: Option<Arc<dyn Seam>>,
}

/// The result of a process, or its panic.
pub type Ended<T> = std::thread::Result<T>;

/// Runs processes to their ends and returns their results. Each program gets its hand. `below` may return another
/// seam for the hand to call, such as one that records.
pub fn run<T: Send>(
    programs: Vec<Box<dyn FnOnce(Arc<Hand>) -> T + Send + '_>>,
    below: impl Fn(usize) -> Option<Arc<dyn Seam>>,
    decide: impl FnMut(&Point<'_>) -> Choice + Send + 'static,
) -> Vec<Ended<T>> {
    let turns = Arc::new(Turns::new(programs.len(), Box::new(decide)));
    std::thread::scope(|scope| {
        let threads: Vec<_> = programs
            .into_iter()
            .enumerate()
            .map(|(process, program)| {
                let hand = Arc::new(Hand {
                    turns: Arc::clone(&turns),
                    process,
                    below: below(process),
                });
                let turns = &turns;
                let whole = move || {
                    let ended = catch_unwind(AssertUnwindSafe(|| program(hand)));
                    turns.end(process);
                    ended
                };
                let named = std::thread::Builder::new().name(format!("process {process}"));
                named.spawn_scoped(scope, whole).unwrap()
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Ended<T>>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    })
}

impl Turns {
    fn new(count: usize, decide: Decide) -> Turns {
        Turns {
            inner: Mutex::new(Inner {
                processes: (0..count).map(|_| Process::default()).collect(),
                turn: None,
                decide,
            }),
            changed: (0..count).map(|_| Condvar::new()).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, process: usize, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let waited = self.changed[process].wait_timeout(inner, TOO_LONG);
        let (inner, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let at = inner.processes.iter().map(|process| &process.at);
            let at: Vec<_> = at.collect();
            eprintln!("process {:?} hangs; at: {at:?}", inner.turn);
            std::process::abort();
        }
        inner
    }

    /// Decides which process is next, if a decision is due.
    fn next(&self, inner: &mut Inner, from: usize) {
        if inner.turn.is_some_and(|turn| turn != from) {
            return;
        }
        let Inner {
            processes,
            turn,
            decide,
        } = inner;
        if turn.is_none()
            && !processes
                .iter()
                .all(|process| process.at.is_some() || process.ended)
        {
            return;
        }
        let at: Vec<Option<&Op>> = processes
            .iter()
            .map(|process| process.at.as_ref())
            .collect();
        if at.iter().all(Option::is_none) {
            return;
        }
        let choice = decide(&Point { at, last: *turn });
        let (Choice::Go(next) | Choice::Kill(next)) = choice;
        assert!(processes[next].at.is_some(), "process {next} is at no call");
        processes[next].killed = choice == Choice::Kill(next);
        *turn = Some(next);
        if next != from {
            self.changed[next].notify_all();
        }
    }

    fn end(&self, process: usize) {
        let mut inner = self.lock();
        inner.processes[process].ended = true;
        inner.processes[process].at = None;
        self.next(&mut inner, process);
    }

    /// Waits for the turn. Returns false if the process has been killed.
    fn come(&self, process: usize, op: Op) -> bool {
        let mut inner = self.lock();
        while inner.processes[process].busy && !inner.processes[process].killed {
            inner = self.wait(process, inner);
        }
        if inner.processes[process].killed || inner.processes[process].ended {
            return !inner.processes[process].killed;
        }
        inner.processes[process].busy = true;
        inner.processes[process].at = Some(op);
        self.next(&mut inner, process);
        // The process has the turn, so its call is granted. Until then `next` must find it at the call.
        while inner.turn != Some(process) {
            inner = self.wait(process, inner);
        }
        inner.processes[process].at = None;
        let killed = inner.processes[process].killed;
        if killed {
            inner.processes[process].busy = false;
            self.changed[process].notify_all();
        }
        !killed
    }

    /// Reports that the call has been made.
    fn done(&self, process: usize) {
        let mut inner = self.lock();
        inner.processes[process].busy = false;
        drop(inner);
        self.changed[process].notify_all();
    }
}

impl Seam for Hand {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if !self.turns.come(self.process, Op::of(call)) {
            return Verdict::Fail(Errno::EIO);
        }
        match &self.below {
            Some(below) => below.before(call),
            None => Verdict::Pass,
        }
    }

    fn after(&self, call: &Call<'_>, error: Option<Errno>) {
        if let Some(below) = &self.below {
            below.after(call, error);
        }
        self.turns.done(self.process);
    }

    fn unlocking(&self, path: &Path) {
        let op = Op {
            name: "unlock",
            path: path.to_owned(),
            to: None,
        };
        if self.turns.come(self.process, op) {
            if let Some(below) = &self.below {
                below.unlocking(path);
            }
            self.turns.done(self.process);
        }
    }

    fn patience(&self) -> Option<Duration> {
        self.below.as_ref()?.patience()
    }
}

impl Op {
    fn of(call: &Call<'_>) -> Op {
        Op {
            name: call.name(),
            path: call.path().to_owned(),
            to: call.to().map(Path::to_owned),
        }
    }
}
