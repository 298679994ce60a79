//! The power goes off behind every call, and every state that the file system may then have.
//!
//! A recording [`Seam`](mailspool::disk::Seam) logs what the real code changes on a real file
//! system, and every sync. From each beginning of that log a model computes what may be left:
//! the rules are those of `spool-layout.md`, "What is assumed of the file system", and no file
//! system is asked. Each such state is made as a real directory tree and worked off by the real
//! code, and then: what was acknowledged is delivered, or its sender was told once, or it is
//! where an operator put it; nothing torn goes out; nobody gets what was settled a second time;
//! `check` finds nothing but `info/` files without a message. Some are mended first: then a look
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
//! | `world.rs` `judge.rs` `mend.rs` `explore.rs` | what must come of it |
//!
//! **The bound.** Every story is cut behind every call. Where the undecided things of a cut have
//! at most 64 combinations, all of them are tried; beyond that all, none, each one missing, each
//! one alone, and two more at random, the same in every run. One of them in four is judged, one in
//! 16 where barriers are over the whole file system, which leaves less undecided, and fewer of
//! stories that have much in common with others (`stories.rs`): of those every second sync is taken
//! out, of mail for hosts every fourth. One state in four of the judged is also mended first, and
//! without a sync one in four is only judged so. With `MAILSPOOL_LONG` it is 512 combinations, 20
//! at random and whole directories behind the others; every state is judged, and every second one
//! mended; two processes are told in an order for each method instead of one, more states are cut
//! twice, and every sync is taken out of every story.
//! `cargo nextest run --test crash --success-output final` shows what was explored.

mod explore;
mod failing;
mod harmless;
mod judge;
mod log;
mod making;
mod mend;
mod model;
mod moments;
#[path = "../proof/net.rs"]
mod net;
mod orders;
#[path = "../proof/mod.rs"]
mod proof;
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

use mailspool::disk::Method;

use explore::{explore_again, explore_all};
use stories::Group;

/// Tells stories with every way to make things durable.
fn tell(group: Group) {
    explore_all(METHODS.into_iter().flat_map(group).collect());
}

const METHODS: [Method; 3] = [Method::Each, Method::SyncExt, Method::SyncFs];

#[test]
fn accepting() {
    tell(stories::accepting);
}

#[test]
fn delivering() {
    tell(stories::delivering);
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
fn mending() {
    tell(stories::mending);
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

/// Two processes at once; each order of their calls is a story.
#[test]
fn at_once() {
    let orders = if proof::long() { METHODS.len() } else { 1 };
    for (seed, method) in METHODS.into_iter().take(orders).enumerate() {
        let mut all = stories::pairs(method, seed as u64);
        all.iter_mut().for_each(|story| story.one_in = 16);
        explore_all(all);
    }
}

/// Some of the states of some stories, cut again while they are worked off.
#[test]
fn cut_twice() {
    let (count, stories) = match proof::long() {
        true => (8, 12),
        false => (1, 3),
    };
    let groups = [
        stories::bouncing,
        stories::trying_again,
        stories::throwing_away,
    ];
    for group in groups.into_iter().take(stories) {
        let all = group(Method::Each);
        let story = &all[1 % all.len()];
        let wrong = explore_again(story, count).shown(&story.title);
        assert!(wrong.is_empty(), "{wrong}");
    }
}
