//! Every cut of a story, and what may be left of the spool at each.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailspool::disk::Method;

use super::judge::judge;
use super::log::Step;
use super::model::Model;
use super::states::{Random, states};
use super::story::Story;
use super::tree::Tree;
use super::world::Known;

/// States at random for each cut; `MAILSPOOL_CRASH_SAMPLES` sets another number.
const SAMPLES: usize = 4;
/// Cases at once: most of their time is a pause behind a barrier.
const AT_ONCE: usize = 6;
/// So many violations are shown.
const SHOWN: usize = 5;

/// One cut with one outcome.
pub struct Case {
    pub number: usize,
    pub tree: Tree,
    pub known: Known,
    /// What came last.
    pub behind: String,
}

/// What was explored.
#[derive(Debug, Default)]
pub struct Tally {
    pub cuts: usize,
    pub states: usize,
    pub violations: Vec<String>,
}

pub fn samples() -> usize {
    let wish = std::env::var("MAILSPOOL_CRASH_SAMPLES").ok();
    wish.map_or(SAMPLES, |wish| wish.parse().unwrap())
}

/// All cases of a log. What is left twice, with the world knowing the same, is one case.
pub fn cases(base: &Tree, known: &Known, steps: &[Step], model: &mut Model) -> (usize, Vec<Case>) {
    let (samples, mut random) = (samples(), Random(steps.len() as u64));
    debug_assert_eq!(model.now().numbered(), *base);
    let (mut known, mut cuts, mut cases) = (known.clone(), 0, Vec::new());
    let mut seen: HashSet<(Tree, Known)> = HashSet::new();
    for at in 0..=steps.len() {
        if let Some(step) = at.checked_sub(1).map(|last| &steps[last]) {
            model.apply(step);
            known.learn(step);
            if !step.is_cut() {
                continue;
            }
        }
        let mut known = known.clone();
        steps
            .get(at)
            .into_iter()
            .for_each(|step| known.foresee(step));
        cuts += 1;
        for tree in states(model, &mut random, samples) {
            if seen.insert((tree.clone(), known.clone())) {
                let last = at.checked_sub(1).map(|last| &steps[last]);
                let behind = last.map_or("nothing".to_owned(), |last| shown(at, last));
                let known = known.clone();
                cases.push(Case {
                    number: cases.len(),
                    tree,
                    known,
                    behind,
                });
            }
        }
    }
    (cuts, cases)
}

fn shown(at: usize, step: &Step) -> String {
    match step {
        Step::Write(path, bytes) => format!("{at}: write {path:?}, {} octets", bytes.len()),
        other => format!("{at}: {other:?}"),
    }
}

/// Explores a story and prints what that was.
pub fn explore(story: &Story) -> Tally {
    let tally = explore_until(story, &story.steps, usize::MAX);
    tally.print(&story.title);
    tally
}

/// Explores another log of the same story, until so many violations are found.
pub fn explore_until(story: &Story, steps: &[Step], enough: usize) -> Tally {
    let (cuts, cases) = all_cases(story, steps);
    let judge = |case: &Case| {
        let judge = |mended| judge(&case.tree, &case.known, &story.fates, story.times, mended);
        let mut wrong = judge(false);
        // An operator may be there before the next run.
        if case.number.is_multiple_of(4) {
            let mended = judge(true).into_iter();
            wrong.extend(mended.map(|wrong| format!("mended first, {wrong}")));
        }
        wrong
    };
    run(cuts, &cases, enough, judge)
}

fn all_cases(story: &Story, steps: &[Step]) -> (usize, Vec<Case>) {
    let mut model = Model::of(&story.base);
    let found = cases(&story.base, &story.known, steps, &mut model);
    // What was recorded is all that happened.
    assert_eq!(model.now().numbered(), story.end, "{}", story.title);
    found
}

/// A second cut, while what the first one left is worked off: of so many states, each way.
pub fn explore_again(story: &Story, count: usize) -> Tally {
    let (_, cases) = all_cases(story, &story.steps);
    let mut random = Random(count as u64);
    let mut total = Tally::default();
    for _ in 0..count {
        let case = &cases[random.below(cases.len())];
        for method in [Method::Each, Method::SyncExt] {
            let again = story.again(case, method);
            let tally = explore_until(&again, &again.steps, usize::MAX);
            total.cuts += tally.cuts;
            total.states += tally.states;
            let first = format!("first {}\n{}", case.behind, case.tree.describe());
            let both = |second| format!("{first}then {second}");
            total
                .violations
                .extend(tally.violations.into_iter().map(both));
        }
    }
    total.print(&format!("cut twice: {}", story.title));
    total
}

/// Judges cases, some at once.
pub fn run(
    cuts: usize,
    cases: &[Case],
    enough: usize,
    judge: impl Fn(&Case) -> Vec<String> + Sync,
) -> Tally {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let violations = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wrong = judge(case);
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut all = violations.lock().unwrap();
                    if !wrong.is_empty() {
                        let (behind, tree) = (&case.behind, case.tree.describe());
                        let wrong = wrong.join("\n  ");
                        all.push(format!("cut behind {behind}\n  {wrong}\n{tree}"));
                    }
                    if all.len() >= enough {
                        return;
                    }
                }
            });
        }
    });
    Tally {
        cuts,
        states: done.into_inner(),
        violations: violations.into_inner().unwrap(),
    }
}

impl Tally {
    pub fn print(&self, title: &str) {
        let Tally { cuts, states, .. } = self;
        let count = self.violations.len();
        println!("{title:<48} {cuts:>5} cut points {states:>6} states {count:>3} violations");
    }

    /// Fails the test if there was a violation.
    pub fn assert_none(&self, title: &str) {
        let shown = &self.violations[..self.violations.len().min(SHOWN)];
        let count = self.violations.len();
        assert!(
            count == 0,
            "{title}: {count} violations\n{}",
            shown.join("\n")
        );
    }
}
