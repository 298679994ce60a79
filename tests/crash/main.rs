//! The power goes off behind every call, and every state that the file system may then have.
//!
//! A recording [`Seam`](mailspool::disk::Seam) logs what the real code changes on a real file
//! system, and every sync. From each beginning of that log a model computes what may be left:
//! the rules are those of `spool-layout.md`, "What is assumed of the file system", and no file
//! system is asked. Each such state is made as a real directory tree and worked off by the real
//! code, and then: what was acknowledged is delivered, or its sender was told once, or it is
//! where an operator put it; nothing torn goes out; nobody gets what was settled a second time;
//! `check` finds nothing but `info/` files without a message.
//!
//! | file | what |
//! |---|---|
//! | `stories.rs` `moments.rs` | what is done with the log running, and where it is killed |
//! | `making.rs` | making a spool |
//! | `teeth.rs` | syncs taken out of a log: the loss must be found |
//! | `log.rs` `story.rs` | recording |
//! | `model.rs` `states.rs` `tree.rs` | what may be left |
//! | `world.rs` `judge.rs` `explore.rs` | what must come of it |
//!
//! Where there are few undecided things, all combinations are tried; else all, none, each one
//! missing, each one alone, and a sample at random, the same in every run;
//! `MAILSPOOL_CRASH_SAMPLES` says how many for each cut. `cargo test --test crash -- --nocapture`
//! shows what was explored.

mod explore;
mod judge;
mod log;
mod making;
mod model;
mod moments;
#[allow(dead_code)] // what only the faults want
#[path = "../faults/world.rs"]
mod shared;
mod states;
mod stories;
mod story;
mod teeth;
mod tree;
mod world;

use mailspool::disk::Method;
use mailspool::message::Door;

use explore::{explore, explore_again, samples};
use story::Story;

/// Tells stories with both ways to make things durable.
fn tell<const N: usize>(stories: impl Fn(Method) -> [Story; N]) {
    for story in [Method::Each, Method::SyncExt]
        .into_iter()
        .flat_map(stories)
    {
        explore(&story).assert_none(&story.title);
    }
}

#[test]
fn accepting() {
    tell(|method| [Door::Active, Door::Incoming].map(|door| stories::accept(method, door)));
}

#[test]
fn moving_on() {
    tell(stories::move_on);
}

#[test]
fn delivering() {
    tell(|method| [stories::deliver(method), stories::defer(method)]);
}

#[test]
fn trying_again() {
    tell(|method| [stories::due_again(method)]);
    tell(stories::interrupt);
}

#[test]
fn bouncing() {
    tell(stories::bounce);
}

#[test]
fn bouncing_with_kills() {
    tell(stories::bounce_killed);
}

#[test]
fn freezing() {
    tell(|method| [stories::null_sender(method)]);
    tell(stories::hold);
    tell(stories::hold_killed);
}

#[test]
fn discarding_and_bouncing_by_hand() {
    tell(stories::throw_away);
}

#[test]
fn requests() {
    tell(|method| [stories::ask(method)]);
}

#[test]
fn forgetting() {
    tell(stories::forget);
}

#[test]
fn living() {
    tell(|method| [stories::life(method)]);
}

/// A tenth as many states as there are samples, of these three even if that is none.
#[test]
fn cut_twice() {
    let count = samples().div_ceil(10);
    let [_, bounce] = stories::bounce(Method::Each);
    let [_, recorded, _] = stories::bounce_killed(Method::SyncExt);
    let stories = [bounce, recorded, stories::due_again(Method::Each)];
    for story in &stories {
        explore_again(story, count).assert_none(&story.title);
    }
}
