//! The power goes off behind every call, and every state that the file system may then have.
//!
//! A recording [`Seam`](mailspool::disk::Seam) logs what the real code changes on a real file
//! system, and every sync. From each beginning of that log a model computes what may be left:
//! the rules are those of `spool-layout.md`, "What is assumed of the file system", and no file
//! system is asked. Each such state is made as a real directory tree and worked off by the real
//! code, and then: what was acknowledged is delivered, or its sender was told once, or it is
//! where an operator put it; nothing torn goes out; nobody gets what was settled a second time;
//! `check` finds nothing but what shows or tells of a message that is gone. Some are mended first: then a look
//! must have announced what the repair does, and a second repair does nothing.
//!
//! | file | what |
//! |---|---|
//! | `stories.rs` `stories/` `stage.rs` | what is done with the log running |
//! | `moments.rs` | where it is killed |
//! | `turns.rs` | two processes at once |
//! | `making.rs` | making a spool |
//! | `failing.rs` | a sync that fails |
//! | `teeth.rs` `orders.rs` | syncs taken out of a log, and orders undone: the loss must be found |
//! | `harmless.rs` | where it must not, and why |
//! | `log.rs` `story.rs` | recording |
//! | `model.rs` `states.rs` `tree.rs` | what may be left |
//! | `world.rs` `judge.rs` `repair.rs` `explore.rs` | what must come of it |
//! | `forge.rs` | the view and the in-use bits, as they may be besides |
//! | `legal.rs` | which of the legal states it is |
//!
//! **The bound.** Every story is cut behind every call, on a file system that may keep both names of a rename; some also on one
//! that does not (`model.rs`). Where the undecided things of a cut have at most 64 combinations, all of them are
//! tried; beyond that all, none, each one missing, each one alone, and two more at random, the same in every run.
//! The view is not combined: in each state it is as chance would have it. One state in three is judged, and
//! fewer of stories that have much in common with others (`stories.rs`). One in four of the judged is also mended
//! first. A sync is taken out of two of the stories that have it. With `MAILSPOOL_LONG` it is 512 combinations, 20 at random and
//! whole directories behind the others; every state is judged, and every second one mended; two processes are
//! told in three orders instead of one, more states are cut twice, and every sync is taken out of every story.
//! `cargo nextest run --test crash --success-output final` shows what was explored.

mod explore;
mod failing;
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
#[allow(dead_code)] // what only the faults want
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
fn living() {
    tell(stories::living);
}

/// The same where a rename is the old name or the new one: there nothing that is finished comes back once its
/// unlinks have begun.
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

/// Two processes at once; each order of their calls is a story.
#[test]
fn at_once() {
    let orders = if proof::long() { 3 } else { 1 };
    for seed in 0..orders {
        let mut all = stories::pairs(seed);
        all.iter_mut().for_each(|story| story.one_in = 16);
        explore_all(all);
    }
}

/// Some of the states of some stories, cut again while they are worked off.
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
