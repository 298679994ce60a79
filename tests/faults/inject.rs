//! The faults, and the seam that injects them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailspool::testing::disk::{Call, Seam, Verdict};
use nix::errno::Errno;

use super::errnos::Seen;
use super::proof;

/// What happens at a call and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault; the calls are counted.
    Nothing,
    /// The call fails.
    Once(Errno),
    /// The call fails, and so does every later call that can fail with this error.
    ForGood(Errno),
    /// The call is made and still reports an error.
    ButMade(Errno),
    /// Half is written, then the call fails.
    Half(Errno),
    /// The call fails, and then so does the n-th unlink of the cleanup.
    AndUnlink(u32),
    /// The call fails, and then so does the n-th call that changes the disk.
    AndThen(u32),
    /// The call fails, and the process ends this many calls later.
    ThenStop(usize),
    /// The process ends at the call. Nothing more reaches the disk.
    Stop,
}

/// Which calls may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    All,
    /// The calls on slots and recorded outages.
    Help,
    /// The calls on the view, `info/`.
    View,
}

/// One fault at one call.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The most octets per read or write.
    pub length: Option<usize>,
    pub fault: Fault,
    /// The number of the call, from 0.
    pub at: usize,
    /// Which calls may fail.
    pub only: Only,
}

/// The seam that carries out a case.
pub struct Injector {
    case: Case,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// The call at which the fault struck first.
    struck: Option<usize>,
    /// Calls since then that count towards a second fault.
    since: u32,
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether the fault strikes for the first time. It strikes at its call or, if threads have
    /// reordered the calls, at the next call that fits.
    fn strikes(&mut self, number: usize, at: usize, fits: bool) -> bool {
        let strikes = self.struck.is_none() && number >= at && fits;
        if strikes {
            self.struck = Some(number);
        }
        strikes
    }

    fn second(&mut self, counts: bool, which: u32) -> Verdict {
        self.since += u32::from(counts);
        if counts && self.since == which {
            Verdict::Fail(Errno::EIO)
        } else {
            Verdict::Pass
        }
    }
}

impl Seam for Injector {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let seen = Seen::of(call);
        let mut state = self.lock();
        let number = state.seen.len();
        state.seen.push(seen);
        let Case {
            fault, at, only, ..
        } = self.case;
        let may_fail = match only {
            Only::All => true,
            Only::Help => seen.is_help,
            Only::View => seen.is_view,
        };
        if !may_fail {
            return Verdict::Pass;
        }
        match fault {
            Fault::Nothing => Verdict::Pass,
            Fault::Stop if number >= at => Verdict::Fail(Errno::EIO),
            Fault::ForGood(errno) if number >= at && seen.can(errno) => Verdict::Fail(errno),
            Fault::Once(errno) => {
                let fits = seen.can(errno) || seen.races().0.contains(&errno);
                if state.strikes(number, at, fits) {
                    Verdict::Fail(errno)
                } else {
                    Verdict::Pass
                }
            }
            Fault::ButMade(errno) => {
                let fits = seen.acts() && seen.can(errno) || seen.races().1.contains(&errno);
                if state.strikes(number, at, fits) {
                    Verdict::PassAndFail(errno)
                } else {
                    Verdict::Pass
                }
            }
            Fault::Half(errno) => {
                let writes = seen.name == "write";
                match state.struck {
                    None => {
                        state.strikes(number, at, writes);
                        Verdict::Pass
                    }
                    Some(struck) if number == struck + 1 && writes => Verdict::Fail(errno),
                    Some(_) => Verdict::Pass,
                }
            }
            Fault::AndUnlink(_) | Fault::AndThen(_) | Fault::ThenStop(_)
                if state.strikes(number, at, true) =>
            {
                Verdict::Fail(Errno::EIO)
            }
            Fault::ThenStop(count)
                if state.struck.is_some_and(|struck| number > struck + count) =>
            {
                Verdict::Fail(Errno::EIO)
            }
            Fault::AndUnlink(which) if state.struck.is_some() => {
                state.second(seen.name == "unlink", which)
            }
            Fault::AndThen(which) if state.struck.is_some() => state.second(seen.acts(), which),
            _ => Verdict::Pass,
        }
    }

    fn length(&self, call: &Call<'_>) -> Option<usize> {
        let state = self.lock();
        let halved = matches!(self.case.fault, Fault::Half(_))
            && state
                .struck
                .is_some_and(|struck| struck + 1 == state.seen.len());
        match call {
            Call::Write { bytes, .. } if halved => Some(bytes.len() / 2),
            _ => self.case.length,
        }
    }
}

impl Case {
    /// No fault.
    pub fn clean() -> Case {
        Case {
            length: None,
            fault: Fault::Nothing,
            at: 0,
            only: Only::All,
        }
    }
}

/// The faults that make sense at a call.
pub fn faults_at(seen: Seen) -> Vec<Fault> {
    let mut faults = vec![Fault::Stop];
    for errno in seen.errnos() {
        faults.extend([Fault::Once(errno), Fault::ForGood(errno)]);
        if seen.acts() && errno != Errno::EINTR {
            faults.push(Fault::ButMade(errno));
        }
        if seen.name == "write" && errno != Errno::EINTR {
            faults.push(Fault::Half(errno));
        }
    }
    let (before, made) = seen.races();
    faults.extend(before.iter().copied().map(Fault::Once));
    faults.extend(made.iter().copied().map(Fault::ButMade));
    if seen.acts() {
        faults.extend((1..=5).map(Fault::AndThen));
    }
    faults
}

/// Every fault at every call of a clean run.
pub fn all_cases(calls: &[Seen], length: Option<usize>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, seen) in calls.iter().enumerate() {
        cases.extend(faults_at(*seen).into_iter().map(|fault| Case {
            length,
            fault,
            at,
            only: Only::All,
        }));
    }
    cases
}

/// All cases, or the sample of the run's seed: the short run always takes the same sample, the long run a
/// different one per seed.
pub fn sample(cases: Vec<Case>, most: usize) -> Vec<Case> {
    /// The most cases in a long run.
    const MANY: usize = 3_000;
    // Halved: a short run of all tests has time for no more.
    let most = if proof::long() { MANY } else { most / 2 };
    let count = cases.len();
    if count <= most {
        return cases;
    }
    // A stride coprime to the count, so that the sample does not follow a pattern in the cases.
    let golden = (count * 618).div_ceil(1000);
    let coprime = |stride: &usize| gcd(*stride, count) == 1;
    let stride = (golden..).find(coprime).unwrap_or(1);
    let first = (proof::seed() as usize).wrapping_mul(most) % count;
    let chosen = first..first + most;
    chosen.map(|n| cases[n * stride % count]).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
