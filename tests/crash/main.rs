//! Power cuts after every call, and every state that the file system may have after each.
//!
//! A recording [`Seam`](mailspool::testing::disk::Seam) logs every change and every sync that the real code makes on a
//! real file system. For each prefix of that log a model computes the states that a power cut may leave, by the
//! file-system rules of `spool-layout.md` and not by the behaviour of any real file system. Each state is written
//! as a real directory tree, and the real code recovers it. Then each acknowledged message is delivered, or its
//! sender got one notice, or it is where an operator put it. Nothing torn is delivered, no settled recipient gets
//! a message again, and `check` finds nothing but views and histories of messages that are gone. Some states are
//! repaired before the first run: `check` must announce what the repair does, and a second repair does nothing.
//!
//! | file | content |
//! |---|---|
//! | `stories.rs` `stories/` `stage.rs` | what is done while the log is recorded |
//! | `moments.rs` | the steps after which a process is killed |
//! | `turns.rs` | two processes at once |
//! | `making.rs` | making a spool |
//! | `failing.rs` | a sync that fails |
//! | `folds.rs` | a fold, which leaves the old history or the new one |
//! | `teeth.rs` `orders.rs` | logs with a sync removed or an order undone: the loss must be found |
//! | `harmless.rs` | the mutations that lose nothing, and why |
//! | `log.rs` `story.rs` | recording |
//! | `model.rs` `states.rs` `tree.rs` | the states that a cut may leave |
//! | `world.rs` `judge.rs` `repair.rs` `explore.rs` | what must follow from them |
//! | `forge.rs` | forged views and in-use bits |
//! | `legal.rs` | which legal state each message is in |
//!
//! **The bound.** Every story is cut after every call, on a file system that may keep both names of a rename. Some
//! stories are also cut on one that may not (`model.rs`). If the undecided changes of a cut have at most 64
//! combinations, all are tried. Otherwise these are tried: all persisted, none, each one missing, each one alone,
//! and two at random, which are the same in every run. The view is not combined: each state has a random view.
//! One state in three is judged, and fewer in stories that have much in common with others (`stories.rs`). One in
//! four of the judged states is also repaired first. Each sync is removed from two of the stories that have it.
//!
//! With `MAILSPOOL_LONG` the bound is 512 combinations, 20 at random, and whole directories lagging. Every state
//! is judged, and every second one also repaired first. Pairs of processes run in three orders instead of one,
//! more states are cut twice, and each sync is removed from every story.
//! `cargo nextest run --test crash --success-output final` shows what was explored.

mod explore;
mod failing;
mod folds;
mod forge;
mod harmless;
mod judge;
mod legal;
mod log;
mod making;
mod model;
mod moments;
#[path = "../proof/net.rs"]
mod net;
mod orders;
#[path = "../proof/mod.rs"]
mod proof;
mod repair;
#[allow(dead_code)] // used by `tests/faults` only
#[path = "../faults/world.rs"]
mod shared;
mod stage;
mod states;
mod stories;
mod story;
mod teeth;
mod tree;
mod turns;
mod world;

use explore::{explore_again, explore_all};
use model::Renames;
use stories::Group;

fn tell(group: Group) {
    explore_all(group());
}

#[test]
fn accepting() {
    tell(stories::accepting);
}

#[test]
fn delivering() {
    tell(stories::delivering);
}

#[test]
fn without_a_history() {
    tell(stories::without_a_history);
}

#[test]
fn by_all_ways() {
    tell(stories::by_all_ways);
}

#[test]
fn trying_again() {
    tell(stories::trying_again);
}

#[test]
fn bouncing() {
    tell(stories::bouncing);
}

#[test]
fn bouncing_with_kills() {
    tell(stories::bouncing_with_kills);
}

#[test]
fn confirming() {
    tell(stories::confirming);
}

#[test]
fn warning() {
    tell(stories::warning);
}

#[test]
fn freezing() {
    tell(stories::freezing);
}

#[test]
fn throwing_away() {
    tell(stories::throwing_away);
}

#[test]
fn requests() {
    tell(stories::requests);
}

#[test]
fn forgetting() {
    tell(stories::forgetting);
}

#[test]
fn draining() {
    tell(stories::draining);
}

#[test]
fn not_recording() {
    tell(stories::not_recording);
}

#[test]
fn repairing() {
    tell(stories::repairing);
}

#[test]
fn under_a_key() {
    tell(stories::under_a_key);
}

#[test]
fn for_later() {
    tell(stories::for_later);
}

#[test]
fn in_parts() {
    tell(stories::in_parts);
}

#[test]
fn down() {
    tell(stories::down);
}

#[test]
fn suspending() {
    tell(stories::suspending);
}

#[test]
fn losing_answers() {
    tell(stories::losing_answers);
}

#[test]
fn folding() {
    tell(stories::folding);
}

#[test]
fn living() {
    tell(stories::living);
}

/// On a file system with atomic renames: there no finished message comes back once its unlinks have begun.
#[test]
fn renamed_at_once() {
    let groups: [Group; 6] = [
        stories::delivering,
        stories::trying_again,
        stories::bouncing,
        stories::forgetting,
        stories::under_a_key,
        stories::living,
    ];
    let mut all: Vec<_> = groups.into_iter().flat_map(|group| group()).collect();
    for story in &mut all {
        story.renames = Renames::Atomic;
        story.title += ", renamed at once";
        story.one_in *= 3;
    }
    explore_all(all);
}

/// Two processes at once. Each order of their calls is a story.
#[test]
fn at_once() {
    let orders = if proof::long() { 3 } else { 1 };
    for seed in 0..orders {
        let mut all = stories::pairs(seed);
        all.iter_mut().for_each(|story| story.one_in = 16);
        explore_all(all);
    }
}

/// Some states of some stories, cut again during their recovery.
#[test]
fn cut_twice() {
    let (count, stories) = if proof::long() { (8, 12) } else { (1, 3) };
    let groups = [
        stories::bouncing,
        stories::trying_again,
        stories::throwing_away,
    ];
    for group in groups.into_iter().take(stories) {
        let all = group();
        let story = &all[1 % all.len()];
        let wrong = explore_again(story, count).shown(&story.title);
        assert!(wrong.is_empty(), "{wrong}");
    }
}
