//! Mutation tests of this bench: without a sync that matters it must find the loss.
//!
//! The code under test is unchanged. Single syncs are removed from the logs, so the model does not treat what they
//! cover as durable. States that the story's own log leaves are not judged again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use mailspool::testing::message::QueueId;
use mailspool::testing::queue::{Bucket, Event, History, RecipientResult, Status, What};

use super::explore::{Case, Cases, Left};
use super::harmless::why;
use super::judge::judge;
use super::log::Step;
use super::model::Model;
use super::proof;
use super::stories::{self, fold::fold};
use super::story::Story;

/// How many mutations run at once.
const AT_ONCE: usize = 6;
/// Without `MAILSPOOL_LONG` a sync is removed from this many of the stories that have it, the smallest ones, and
/// from this many of those in which its loss is harmless.
const IN_STORIES: usize = 2;
/// The most states per mutation that are judged without `MAILSPOOL_LONG`.
pub const MAX_STATES: usize = 150;
/// The same with `MAILSPOOL_LONG`.
const MANY_STATES: usize = 500;
/// The same without `MAILSPOOL_LONG` for mutations that are known to be harmless.
const FEW_STATES: usize = 10;

/// Returns all states that a story's own log leaves.
pub fn left(story: &Story) -> Left {
    let cases = Cases::of(&story.base, &story.known, &story.steps, story.renames);
    cases.by_dirs().left()
}

/// Explores another log of the same story from a step on, until it finds a violation. Returns the number of
/// judged states and the violation.
pub fn bite(
    story: &Story,
    steps: &[Step],
    from: usize,
    left: &Left,
    most: usize,
) -> (usize, Option<String>) {
    let cases = Cases::of(&story.base, &story.known, steps, story.renames);
    let new = cases.skip(from).without(left.clone()).by_dirs();
    let mut judged = 0_usize;
    // If there are very many states, the later ones are sampled.
    let near = most;
    let most = most.saturating_add(most / 3);
    let spread = |(number, _): &(usize, Case)| *number < near || number.is_multiple_of(8);
    for (_, case) in new.enumerate().filter(spread).take(most) {
        judged += 1;
        let repair_first = judged.is_multiple_of(4);
        if let Some(first) = judge(story, &case, repair_first).into_iter().next() {
            return (judged, Some(format!("after {}: {first}", case.last)));
        }
    }
    (judged, None)
}

/// Returns a step's name, the same for every message: its kind and its directory.
pub fn named(step: &Step) -> String {
    let place = |path: &Path| -> String {
        let known = |name: &str| match name {
            name if name.parse::<QueueId>().is_ok() => "*".to_owned(),
            name if name.contains(".Q") => "*".to_owned(),
            name if name.ends_with(".part") => "*.part".to_owned(),
            "never" => "never".to_owned(),
            name if name.parse::<Bucket>().is_ok() => "<minute>".to_owned(),
            name => name.to_owned(),
        };
        let path = path.strip_prefix("spool").unwrap_or(path);
        let parts: Vec<String> = path
            .iter()
            .map(|part| known(&part.to_string_lossy()))
            .collect();
        if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        }
    };
    match step {
        Step::SyncFile(path) => format!("file {}", place(path)),
        Step::SyncDir(path) => format!("dir {}", place(path)),
        Step::Overwrite(path, ..) => format!("overwrite {}", place(path)),
        Step::Mark(path, true) => format!("mark {}", place(path)),
        Step::Mark(path, false) => format!("clear {}", place(path)),
        Step::Write(path, _) => format!("write {}", place(path)),
        Step::Create(path) => format!("create {}", place(path)),
        Step::Rename(from, to) => format!("rename {} to {}", place(from), place(to)),
        Step::Link(_, to) => format!("link {}", place(to)),
        Step::Unlink(path) => format!("unlink {}", place(path)),
        Step::Mkdir(path) => format!("mkdir {}", place(path)),
        Step::Rmdir(path) => format!("rmdir {}", place(path)),
        Step::Acked(..) | Step::Did => "the report".to_owned(),
        Step::Delivered(..) | Step::Told(..) => "a delivery".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Returns a sync's label: its name, what it covers, and the next change, which is its commit point.
pub fn label(steps: &[Step], at: usize) -> String {
    let silent = |step: &&Step| step.is_sync() || !step.is_cut();
    let next = steps[at..].iter().find(|step| !silent(step));
    let next = next.map_or("the end".to_owned(), named);
    format!(
        "{}{} before {next}",
        named(&steps[at]),
        events(&steps[..=at])
    )
}

/// Returns the events that a sync of a history, or of `history/`, covers; empty for other syncs.
fn events(steps: &[Step]) -> String {
    let (sync, before) = steps.split_last().unwrap();
    let dir = Path::new("spool/history");
    let covers: &dyn Fn(&Path) -> bool = match sync {
        Step::SyncFile(path) if path.starts_with(dir) => &move |other| other == path,
        Step::SyncDir(path) if path == dir => &|other| other.starts_with(dir),
        _ => return String::new(),
    };
    let same = |step: &&Step| named(step) == named(sync);
    let since = before.iter().rev().take_while(|step| !same(step));
    let mut found: BTreeSet<String> = BTreeSet::new();
    for step in since {
        let written = match step {
            Step::Write(path, bytes) => Some((path, bytes)),
            // A history that is written anew and not folded says the same as before.
            Step::Overwrite(path, _, bytes) if fold(step).is_some() => Some((path, bytes)),
            _ => None,
        };
        if let Some((path, bytes)) = written
            && covers(path)
        {
            let history = History::parse(bytes).unwrap_or_default();
            found.extend(history.events.into_iter().flat_map(words));
        }
    }
    let all: Vec<String> = found.into_iter().collect();
    format!(" with {}", all.join(" "))
}

/// Returns an event's kind; for an outcome, the status of each recipient.
fn words(event: Event) -> Vec<String> {
    match event.what {
        What::Notice { .. } => vec!["notice".to_owned()],
        What::Fold(_) => vec!["fold".to_owned()],
        What::Action(action) => vec![action.as_str().to_owned()],
        What::Outcome {
            transport, results, ..
        } => {
            let by = transport.unwrap_or_default();
            let status = |result: RecipientResult| match (result.status, by.as_str()) {
                (Status::Delivered, "box") => "copied".to_owned(),
                (status, _) => format!("{status:?}").to_lowercase(),
            };
            results.into_iter().map(status).collect()
        }
    }
}

/// Returns the syncs of a story by label, from the first that makes anything durable. If that one is removed,
/// the later ones with the same label may make it durable instead.
fn syncs(story: &Story) -> BTreeMap<String, Vec<usize>> {
    let mut model = Model::of(&story.base, story.renames);
    let mut syncs: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, step) in story.steps.iter().enumerate() {
        let keeps = model.would_keep(step);
        if step.is_sync() {
            match syncs.entry(label(&story.steps, at)) {
                Entry::Occupied(mut all) => all.get_mut().push(at),
                Entry::Vacant(first) if keeps => drop(first.insert(vec![at])),
                Entry::Vacant(_) => {}
            }
        }
        model.apply(step);
    }
    syncs
}

fn is_of_slot(step: &Step) -> bool {
    let slots = |path: &Path| {
        ["to", "probe", "by"].iter().any(|dir| {
            let dir = Path::new("spool/state").join(dir);
            path.starts_with(&dir) && path != dir
        }) || path.starts_with("spool/keys/lock")
    };
    match step {
        Step::Open(path) | Step::Create(path) | Step::Unlink(path) => slots(path),
        _ => false,
    }
}

/// Counts and errors of all mutations.
#[derive(Default)]
struct Score {
    mutations: usize,
    found: usize,
    bad: Vec<String>,
    /// Mutations without a violation of which the bound left some states unjudged.
    unfinished: Vec<(String, String)>,
    bitten: BTreeSet<String>,
    harmless: BTreeMap<String, &'static str>,
}

/// A sync to remove.
struct Mutation<'a> {
    story: &'a Story,
    /// The states of the story's own log, computed on first use.
    left: &'a OnceLock<Left>,
    label: String,
    /// Its positions in the log.
    all: Vec<usize>,
}

/// Removes each sync in turn. A barrier over single files consists of several calls, and each is removed alone.
/// Other barriers have no parts that could be removed.
#[test]
fn every_sync_matters() {
    let stories = stories();
    let lefts: Vec<OnceLock<Left>> = stories.iter().map(|_| OnceLock::new()).collect();
    let in_most = if proof::long() {
        usize::MAX
    } else {
        IN_STORIES
    };
    let mut times: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let mut mutations = Vec::new();
    for (story, left) in stories.iter().zip(&lefts) {
        for (label, all) in syncs(story) {
            let excused = why(&label, &story.title).is_some();
            let times = times.entry((label.clone(), excused)).or_default();
            *times += 1;
            if *times <= in_most {
                let mutation = Mutation {
                    story,
                    left,
                    label,
                    all,
                };
                mutations.push(mutation);
            }
        }
    }
    let (score, next) = (Mutex::new(Score::default()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(one) = mutations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one.judge(&score);
                }
            });
        }
    });
    let mut score = score.into_inner().unwrap();
    for (label, why) in &score.harmless {
        if !score.bitten.contains(label) {
            println!("harmless everywhere: without {label}: {why}");
        }
    }
    // Stories with very many states share their syncs with smaller ones, where all states are judged.
    for (label, text) in std::mem::take(&mut score.unfinished) {
        if !score.bitten.contains(&label) {
            score.bad.push(format!("{text}, and nowhere else"));
        }
    }
    proof::count("mutations", score.mutations);
    proof::count("mutations found", score.found);
    score.bad.sort();
    assert!(score.bad.is_empty(), "\n{}", score.bad.join("\n"));
}

/// Returns the stories, those with the fewest states first.
fn stories() -> Vec<Story> {
    // The last group only combines what the other stories cover.
    let groups = stories::GROUPS.len() - usize::from(!proof::long());
    let told = |group: &stories::Group| {
        let mut stories = group();
        // Only the lock of a slot counts: the names of slots only multiply the states.
        for story in &mut stories {
            story.steps.retain(|step| !is_of_slot(step));
        }
        stories
    };
    let mut all: Vec<Story> = std::thread::scope(|scope| {
        let groups = stories::GROUPS[..groups].iter();
        let groups: Vec<_> = groups.map(|group| scope.spawn(|| told(group))).collect();
        let told = groups.into_iter().flat_map(|group| group.join().unwrap());
        told.collect()
    });
    all.sort_by_key(|story| story.one_in);
    all
}

impl Mutation<'_> {
    /// Removes the sync and checks that the loss is found.
    fn judge(&self, score: &Mutex<Score>) {
        let Mutation {
            story, label, all, ..
        } = self;
        let left = self.left.get_or_init(|| left(story));
        let without = |removed: &[usize], most: usize| {
            let steps = story.steps.iter().enumerate();
            let kept = steps.filter(|(at, _)| !removed.contains(at));
            let kept: Vec<Step> = kept.map(|(_, step)| step.clone()).collect();
            bite(story, &kept, removed[0], left, most)
        };
        let why = why(label, &story.title);
        let most = match (proof::long(), why) {
            (true, _) => MANY_STATES,
            (false, None) => MAX_STATES,
            (false, Some(_)) => FEW_STATES,
        };
        let (mut states, mut found) = without(&all[..1], most);
        // The next sync with the same label may cover what the first left undecided. Code without this call would
        // not make any of them.
        if found.is_none() && all.len() > 1 {
            let (more, every) = without(all, most);
            (states, found) = (states.max(more), every);
        }
        // The story's own log leaves all of these states too.
        if states == 0 {
            return;
        }
        let mut score = score.lock().unwrap();
        score.mutations += 1;
        match (found, why) {
            (Some(_), _) => {
                score.found += 1;
                score.bitten.insert(label.clone());
            }
            (None, Some(why)) => drop(score.harmless.insert(label.clone(), why)),
            (None, None) => {
                let text = format!("{}: without {label}: nothing in {states}", story.title);
                println!("{text}");
                if proof::long() && states >= most {
                    score.unfinished.push((label.clone(), text))
                } else {
                    score.bad.push(text)
                }
            }
        }
    }
}
