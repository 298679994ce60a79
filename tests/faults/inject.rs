//! The faults, and a pool of threads that tries one after the other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use mailspool::disk::{Call, Method, Seam, Verdict};
use nix::errno::Errno;

/// What happens at a call, and from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the calls are counted.
    Nothing,
    /// It fails.
    Once(Errno),
    /// It fails, and so does every later one.
    ForGood(Errno),
    /// From there on the disk is full: what needs room fails, unlinking does not.
    Full,
    /// It is made and fails all the same.
    ButMade(Errno),
    /// It fails, and then so does one of the unlinks that clean up, the n-th.
    AndUnlink(u32),
    /// The process ends there: nothing reaches the disk any more.
    Stop,
}

/// One fault at one call.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub method: Method,
    /// The most octets of one read or write.
    pub length: Option<usize>,
    pub fault: Fault,
    /// The number of the call, from 0.
    pub at: usize,
}

/// What a clean run showed of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: &'static str,
    pub needs_room: bool,
    /// A rename, link or barrier: where an answer may be lost.
    pub may_lie: bool,
}

/// The seam that carries a case out.
pub struct Injector {
    case: Case,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    unlinks: u32,
}

impl Injector {
    pub fn new(case: Case) -> Arc<Injector> {
        Arc::new(Injector {
            case,
            state: Mutex::default(),
        })
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Seam for Injector {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let seen = Seen::of(call);
        let mut state = self.lock();
        let number = state.seen.len();
        state.seen.push(seen);
        let Case { fault, at, .. } = self.case;
        if number < at || fault == Fault::Nothing {
            return Verdict::Pass;
        }
        let first = number == at;
        match fault {
            Fault::Once(errno) if first => Verdict::Fail(errno),
            Fault::ForGood(errno) => Verdict::Fail(errno),
            Fault::Stop => Verdict::Fail(Errno::EIO),
            Fault::Full if seen.needs_room => Verdict::Fail(Errno::ENOSPC),
            // Only where the first run had such a call at this place.
            Fault::ButMade(errno) if first && seen.may_lie => Verdict::PassAndFail(errno),
            Fault::AndUnlink(_) if first => Verdict::Fail(Errno::EIO),
            Fault::AndUnlink(which) if seen.name == "unlink" => {
                state.unlinks += 1;
                match state.unlinks == which {
                    true => Verdict::Fail(Errno::EIO),
                    false => Verdict::Pass,
                }
            }
            _ => Verdict::Pass,
        }
    }

    fn method(&self) -> Option<Method> {
        Some(self.case.method)
    }

    fn length(&self, _call: &Call<'_>) -> Option<usize> {
        self.case.length
    }
}

impl Case {
    /// No fault.
    pub fn clean(method: Method) -> Case {
        Case {
            method,
            length: None,
            fault: Fault::Nothing,
            at: 0,
        }
    }
}

impl Seen {
    fn of(call: &Call<'_>) -> Seen {
        let barrier = matches!(
            call,
            Call::SyncFile { .. } | Call::SyncDir { .. } | Call::SyncFs
        );
        let moves = matches!(call, Call::Rename { .. } | Call::Link { .. });
        let grows = matches!(
            call,
            Call::Open { create: true, .. }
                | Call::Write { .. }
                | Call::Reserve { .. }
                | Call::Mkdir { .. }
        );
        Seen {
            name: call.name(),
            needs_room: grows || moves || barrier,
            may_lie: moves || barrier,
        }
    }
}

/// The faults that make sense at a call.
pub fn faults_at(seen: Seen) -> Vec<Fault> {
    let mut faults = vec![
        Fault::Stop,
        Fault::Once(Errno::EIO),
        Fault::ForGood(Errno::EIO),
        Fault::Once(Errno::EINTR),
        Fault::ForGood(Errno::EINTR),
    ];
    if seen.needs_room {
        faults.extend([Fault::Once(Errno::ENOSPC), Fault::Full]);
    }
    if ["open", "create", "list"].contains(&seen.name) {
        faults.extend([Fault::Once(Errno::EMFILE), Fault::ForGood(Errno::EMFILE)]);
    }
    if seen.may_lie {
        faults.push(Fault::ButMade(Errno::EIO));
    }
    faults
}

/// What was explored.
#[derive(Default)]
pub struct Tally {
    cases: usize,
    by_fault: BTreeMap<String, usize>,
    states: BTreeMap<String, usize>,
}

impl Tally {
    pub fn print(&self, what: &str) {
        let join = |counts: &BTreeMap<String, usize>| {
            let words: Vec<String> = counts.iter().map(|(k, n)| format!("{k} {n}")).collect();
            words.join(", ")
        };
        println!(
            "{what}: {} cases ({}); ended: {}",
            self.cases,
            join(&self.by_fault),
            join(&self.states)
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Panics on threads that no case runs on: the program's own.
static FOREIGN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            let thread = std::thread::current();
            if matches!(thread.name(), None | Some("tokio-runtime-worker")) {
                let mut foreign = lock(&FOREIGN);
                foreign.push(info.to_string());
            }
            before(info);
        }));
    });
}

/// Tries every case; what `run` returns is counted as the state it ended in. Fails with every
/// case that panicked or never came to an end.
pub fn explore(what: &str, cases: &[Case], run: impl Fn(&Case) -> String + Sync) -> Tally {
    /// Most of a case is waiting: for the pause between two barriers.
    const THREADS: usize = 12;
    const TOO_LONG: Duration = Duration::from_secs(30);
    watch_panics();
    let mut tally = Tally {
        cases: cases.len(),
        ..Tally::default()
    };
    let mut wrong = Vec::new();
    let next = Mutex::new(cases.iter());
    let in_hand = Mutex::new(Vec::new());
    let (send, ends) = channel();
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(cases.len()) {
            let (send, next, run, in_hand) = (send.clone(), &next, &run, &in_hand);
            let work = move || {
                loop {
                    let case = lock(next).next();
                    let Some(case) = case else { return };
                    lock(in_hand).push(format!("{case:?}"));
                    PANICS.set(0);
                    let ended = catch_unwind(AssertUnwindSafe(|| run(case)));
                    let inside = ended.is_ok() && PANICS.get() > 0;
                    lock(in_hand).retain(|one| *one != format!("{case:?}"));
                    let _ = send.send((*case, ended, inside));
                }
            };
            let named = std::thread::Builder::new().name("case".to_owned());
            named.spawn_scoped(scope, work).unwrap();
        }
        drop(send);
        loop {
            let (case, ended, inside) = match ends.recv_timeout(TOO_LONG) {
                Ok(end) => end,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("{what}: hangs: {}", lock(&in_hand).join(", "));
                    std::process::abort();
                }
            };
            let kind = match case.fault {
                Fault::AndUnlink(_) => "AndUnlink".to_owned(),
                fault => format!("{fault:?}"),
            };
            *tally.by_fault.entry(kind).or_default() += 1;
            match ended {
                Ok(_) if inside => wrong.push(format!("{case:?}: a panic inside")),
                Ok(state) => *tally.states.entry(state).or_default() += 1,
                Err(panic) => {
                    let text = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("?");
                    wrong.push(format!("{case:?}: {text}"));
                }
            }
        }
    });
    let foreign = lock(&FOREIGN);
    assert_eq!(*foreign, [] as [String; 0], "panics inside");
    let shown = wrong.len().min(15);
    assert!(
        wrong.is_empty(),
        "{what}: {} of {} cases went wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..shown].join("\n")
    );
    tally
}

/// Every fault at every call of a clean run.
pub fn all_cases(method: Method, calls: &[Seen], length: Option<usize>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, seen) in calls.iter().enumerate() {
        cases.extend(faults_at(*seen).into_iter().map(|fault| Case {
            method,
            length,
            fault,
            at,
        }));
    }
    cases
}

/// All of them, or a sample that is another one each day.
pub fn sample(cases: Vec<Case>, most: usize) -> Vec<Case> {
    if std::env::var("MAILSPOOL_FAULTS").is_ok_and(|which| which == "all") {
        return cases;
    }
    let step = cases.len().div_ceil(most);
    let day = jiff::Timestamp::now().as_second() / 86_400;
    let first = usize::try_from(day).unwrap_or(0) % step.max(1);
    cases.into_iter().skip(first).step_by(step.max(1)).collect()
}
