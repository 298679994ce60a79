//! A pool of threads that runs all cases and counts their results.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::inject::{Case, Fault};
use super::proof;

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
        proof::count("faults", self.cases);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Panics on threads that run no case: the program's own threads.
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

/// Runs every case and counts the state that `run` returns. Fails listing every case that panicked or did not end.
pub fn explore(what: &str, cases: &[Case], run: impl Fn(&Case) -> String + Sync) -> Tally {
    /// A case mostly waits for the pause between two barriers.
    const THREADS: usize = 12;
    const TOO_LONG: Duration = Duration::from_secs(120);
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
                Fault::AndThen(_) => "AndThen".to_owned(),
                Fault::ThenStop(_) => "ThenStop".to_owned(),
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
