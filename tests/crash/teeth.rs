//! What this bench is worth: without a sync that matters it finds the loss.
//!
//! The code under test stays as it is; the syncs are taken out of the log, so that the model
//! takes nothing for certain because of them.

use mailspool::disk::Method;
use mailspool::message::Door;

use super::explore::explore_until;
use super::log::Step;
use super::stories;
use super::story::{Story, lies_in};

/// Without the syncs for which this says so, given the log and the place in it, there is a loss.
fn bites(what: &str, story: &Story, drop: impl Fn(&[Step], usize) -> bool) {
    let steps = &story.steps;
    let kept = (0..steps.len()).filter(|at| !drop(steps, *at));
    let kept: Vec<Step> = kept.map(|at| steps[at].clone()).collect();
    assert!(kept.len() < steps.len(), "{what}: no such sync");
    let tally = explore_until(story, &kept, 1);
    let first = tally.violations.first();
    let first = first.unwrap_or_else(|| {
        panic!("{what}: nothing found in {} states", tally.states);
    });
    let (dropped, states) = (steps.len() - kept.len(), tally.states);
    let how = first.lines().nth(1).unwrap_or_default().trim();
    println!("without {what} ({dropped} syncs), after {states} states:\n    {how}");
}

fn syncs_dir(step: &Step, dir: &str) -> bool {
    matches!(step, Step::SyncDir(path) if *path == std::path::Path::new("spool").join(dir))
}

fn is_sync(step: &Step) -> bool {
    matches!(step, Step::SyncFile(_) | Step::SyncDir(_) | Step::SyncFs)
}

/// Whether the first of the steps behind `at` that is none of these syncs is such a step.
fn comes_next(steps: &[Step], at: usize, next: impl Fn(&Step) -> bool) -> bool {
    let silent = |step: &&Step| is_sync(step) || matches!(step, Step::Open(_));
    steps[at..]
        .iter()
        .find(|step| !silent(step))
        .is_some_and(next)
}

#[test]
fn the_files_of_a_message() {
    let story = stories::accept(Method::Each, Door::Active);
    for dir in ["new", "info/sender", "info/recipients", "info/transport"] {
        bites(
            &format!("the file in {dir}"),
            &story,
            |steps, at| matches!(&steps[at], Step::SyncFile(path) if lies_in(path, dir)),
        );
    }
}

#[test]
fn the_directories_of_a_message() {
    let story = stories::accept(Method::Each, Door::Active);
    for dir in ["new", "info/sender", "info/recipients", "info/transport"] {
        bites(dir, &story, |steps, at| syncs_dir(&steps[at], dir));
    }
}

#[test]
fn the_barrier_of_acceptance() {
    let story = stories::accept(Method::SyncExt, Door::Incoming);
    bites("the syncfs of acceptance", &story, |steps, at| {
        matches!(steps[at], Step::SyncFs)
    });
}

#[test]
fn the_barrier_is_repeated() {
    let [story, _] = stories::move_on(Method::Each);
    bites("the barrier of the sweep", &story, |steps, at| {
        is_sync(&steps[at])
            && comes_next(
                steps,
                at,
                |step| matches!(step, Step::Rename(from, _) if lies_in(from, "new")),
            )
    });
}

#[test]
fn the_outcome() {
    let story = stories::defer(Method::Each);
    bites(
        "the outcome's data",
        &story,
        |steps, at| matches!(&steps[at], Step::SyncFile(path) if lies_in(path, "info/attempts")),
    );
    bites("the history's name", &story, |steps, at| {
        syncs_dir(&steps[at], "info/attempts")
    });
}

#[test]
fn the_notice() {
    // The origin stays, so that it could tell again.
    let [_, story] = stories::bounce(Method::Each);
    let released = |step: &Step| matches!(step, Step::Rename(from, to) if lies_in(from, "new") && lies_in(to, "active"));
    bites("the record of the notice", &story, |steps, at| {
        is_sync(&steps[at]) && comes_next(steps, at, released)
    });
}

#[test]
fn the_barrier_before_forgetting() {
    let unlinks = |step: &Step| matches!(step, Step::Unlink(path) if lies_in(path, "info"));
    let story = stories::deliver(Method::Each);
    bites("the barrier of forgetting", &story, |steps, at| {
        is_sync(&steps[at]) && comes_next(steps, at, unlinks)
    });
    for dir in ["new", "active"] {
        let story = stories::life(Method::Each);
        bites(&format!("{dir} in that barrier"), &story, |steps, at| {
            syncs_dir(&steps[at], dir) && comes_next(steps, at, unlinks)
        });
    }
    let [story, _] = stories::forget(Method::Each);
    bites("the barrier over every place", &story, |steps, at| {
        is_sync(&steps[at]) && comes_next(steps, at, unlinks)
    });
}

#[test]
fn the_buckets() {
    let story = stories::defer(Method::Each);
    bites("the bucket's name", &story, |steps, at| {
        syncs_dir(&steps[at], "deferred")
    });
    let story = stories::due_again(Method::Each);
    let removed = |step: &Step| matches!(step, Step::Rmdir(_));
    bites("the bucket's emptiness", &story, |steps, at| {
        is_sync(&steps[at]) && comes_next(steps, at, removed)
    });
}

#[test]
fn the_operators_word() {
    let [story, _] = stories::hold(Method::Each);
    bites(
        "the freeze in the history",
        &story,
        |steps, at| matches!(&steps[at], Step::SyncFile(path) if lies_in(path, "info/attempts")),
    );
    let story = stories::ask(Method::Each);
    bites("the request's name", &story, |steps, at| {
        syncs_dir(&steps[at], "info/request")
    });
}
