//! Every cut of a story, and the states that the spool may be in after each.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use xxhash_rust::xxh3::Xxh3;

use super::judge::judge;
use super::log::Step;
use super::model::{Model, Renames};
use super::proof;
use super::states::{Random, states};
use super::story::Story;
use super::tree::Tree;
use super::world::Known;

/// How many cases run at once. A case spends most of its time waiting for a sync.
const AT_ONCE: usize = 6;
/// How many violations of one story are shown; the others are only counted.
const SHOWN: usize = 3;

/// One state that a cut may leave.
pub struct Case {
    pub number: usize,
    pub tree: Tree,
    pub known: Known,
    /// The last step before the cut.
    pub last: String,
    /// Everything persisted, as after a kill without a power cut.
    pub killed: bool,
}

/// The counts and violations of one exploration.
#[derive(Debug, Default)]
pub struct Tally {
    pub cuts: usize,
    pub states: usize,
    pub violations: Vec<String>,
}

/// The states that a log leaves, as hashes, because there are many. A state is the tree, what the world knows,
/// and whether a kill leaves it.
pub type Left = HashSet<u128>;

fn hash(tree: &Tree, known: &Known, killed: bool) -> u128 {
    let mut hasher = Xxh3::new();
    (tree, known, killed).hash(&mut hasher);
    hasher.digest128()
}

/// An iterator over the cases of a log. A state that occurs twice, with the same knowledge of the world, is
/// one case.
pub struct Cases<'a> {
    steps: &'a [Step],
    at: usize,
    model: Model,
    known: Known,
    random: Random,
    seen: Left,
    found: VecDeque<Case>,
    number: usize,
    by_dirs: bool,
    renames: Renames,
    pub cuts: usize,
}

impl Cases<'_> {
    pub fn of<'a>(base: &Tree, known: &Known, steps: &'a [Step], renames: Renames) -> Cases<'a> {
        let model = Model::of(base, renames);
        debug_assert_eq!(model.now(), *base);
        Cases {
            steps,
            at: 0,
            model,
            known: known.clone(),
            random: Random(steps.len() as u64),
            seen: HashSet::new(),
            found: VecDeque::new(),
            number: 0,
            by_dirs: false,
            renames,
            cuts: 0,
        }
    }

    /// Skips the cuts among the first `count` steps.
    pub fn skip(mut self, count: usize) -> Self {
        while self.at < count {
            self.step();
        }
        self
    }

    /// Skips the states that another log leaves.
    pub fn without(mut self, seen: Left) -> Self {
        self.seen = seen;
        self
    }

    /// Also tries states in which a whole directory lags.
    pub fn by_dirs(mut self) -> Self {
        self.by_dirs = true;
        self
    }

    /// Returns all states that the log leaves.
    pub fn left(mut self) -> Left {
        while self.next().is_some() {}
        self.seen
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    fn step(&mut self) {
        let step = &self.steps[self.at];
        self.model.apply(step);
        self.known.learn(step);
        self.at += 1;
    }

    /// Adds the states that a cut at this moment may leave.
    fn cut(&mut self) {
        if let Some(next) = self.steps[self.at..].iter().find(|next| next.is_cut()) {
            self.known.foresee(next, self.renames);
        }
        let mut known = self.known.clone();
        known.forget_notes();
        self.cuts += 1;
        let now = self.model.now();
        for tree in states(&self.model, &mut self.random, self.by_dirs) {
            let killed = tree == now;
            if self.seen.insert(hash(&tree, &known, killed)) {
                let last = self.at.checked_sub(1).map(|last| &self.steps[last]);
                let last = last.map_or("nothing".to_owned(), |last| shown(self.at, last));
                self.found.push_back(Case {
                    number: self.number,
                    killed,
                    tree,
                    known: known.clone(),
                    last,
                });
                self.number += 1;
            }
        }
    }
}

impl Iterator for Cases<'_> {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        if self.cuts == 0 {
            self.cut();
        }
        while self.found.is_empty() {
            if self.at == self.steps.len() {
                return None;
            }
            self.step();
            if self.steps[self.at - 1].is_cut() {
                self.cut();
            }
        }
        self.found.pop_front()
    }
}

fn shown(at: usize, step: &Step) -> String {
    match step {
        Step::Write(path, bytes) => format!("{at}: write {path:?}, {} octets", bytes.len()),
        Step::Overwrite(path, offset, bytes) => {
            let text = String::from_utf8_lossy(bytes);
            format!("{at}: overwrite {path:?} at {offset}: {text:?}")
        }
        other => format!("{at}: {other:?}"),
    }
}

/// Explores stories and prints the counts. Panics at the end if there is any violation.
pub fn explore_all(stories: Vec<Story>) {
    let mut wrong = String::new();
    for story in stories {
        let one_in = if proof::long() { 1 } else { story.one_in };
        let (cuts, cases) = all_cases(&story, one_in);
        let tally = run(cuts, &cases, |case| judge_twice(&story, case));
        tally.print(&story.title);
        wrong += &tally.shown(&story.title);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Returns what is wrong with a case if a run comes first, and for some cases also if a repair comes first.
pub fn judge_twice(story: &Story, case: &Case) -> Vec<String> {
    let repaired = if proof::long() { 2 } else { 4 };
    let mut wrong = judge(story, case, false);
    if case.number.is_multiple_of(repaired) {
        let again = judge(story, case, true).into_iter();
        wrong.extend(again.map(|wrong| format!("after a repair, {wrong}")));
    }
    wrong
}

/// Returns the number of cuts and every `one_in`-th case of a story.
fn all_cases(story: &Story, one_in: usize) -> (usize, Vec<Case>) {
    let mut cases = Cases::of(&story.base, &story.known, &story.steps, story.renames);
    let wanted = |case: &Case| case.number.is_multiple_of(one_in);
    let all: Vec<Case> = cases.by_ref().filter(wanted).collect();
    // The recorded steps are all changes that happened.
    assert_eq!(cases.model().now(), story.end, "{}", story.title);
    (cases.cuts, all)
}

/// Cuts a second time, during the recovery from a first cut, for `count` states of the first cut.
pub fn explore_again(story: &Story, count: usize) -> Tally {
    let (_, cases) = all_cases(story, 1);
    let mut random = Random(count as u64);
    let mut total = Tally::default();
    for _ in 0..count {
        let case = &cases[random.below(cases.len())];
        let again = story.again(case);
        let (cuts, cases) = all_cases(&again, 1);
        let tally = run(cuts, &cases, |case| judge_twice(&again, case));
        total.cuts += tally.cuts;
        total.states += tally.states;
        let first = format!("first {}\n{}", case.last, case.tree.describe());
        let both = |second| format!("{first}then {second}");
        total
            .violations
            .extend(tally.violations.into_iter().map(both));
    }
    total.print(&format!("cut twice: {}", story.title));
    total
}

/// Judges cases, [`AT_ONCE`] at a time.
pub fn run(cuts: usize, cases: &[Case], judge: impl Fn(&Case) -> Vec<String> + Sync) -> Tally {
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
                        let (last, tree) = (&case.last, case.tree.describe());
                        let wrong = wrong.join("\n  ");
                        all.push(format!("cut after {last}\n  {wrong}\n{tree}"));
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
        proof::count("crash states", *states);
        proof::count("crash violations", count);
        println!("{title:<48} {cuts:>5} cut points {states:>6} states {count:>3} violations");
    }

    /// Returns the first violations as text; empty if there are none.
    pub fn shown(&self, title: &str) -> String {
        match self.violations.len() {
            0 => String::new(),
            count => {
                let shown = &self.violations[..count.min(SHOWN)];
                format!("{title}: {count} violations\n{}\n", shown.join("\n"))
            }
        }
    }
}
