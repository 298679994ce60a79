//! Each file-system call made to fail in turn, and the process stopped behind each in turn.
//!
//! A clean run tells how many calls there are. Then the same is done in a fresh copy of the same
//! spool with a [`Fault`](inject::Fault) at the first call, at the second, and so on. After each,
//! everything is dropped, the spool is opened again without faults, and what the design promises
//! is asserted: an acknowledged message is delivered, or its sender is told once, or it stands
//! in the queue; nothing torn goes out; nobody gets a message twice but for the one that was in
//! flight; no rubbish stays.
//!
//! | file | what is run under faults |
//! |---|---|
//! | `accept.rs` | acceptance, by both doors |
//! | `keys.rs` | submissions under a key, and for later |
//! | `pass.rs` `queue.rs` | a runner's pass over a queue with something of everything |
//! | `watching.rs` | the same by a run that stays |
//! | `destinations.rs` | delivery to hosts: several transactions, slots, what is remembered of those that are down |
//! | `ways.rs` | delivery into a Maildir, behind the same seam, and by a command |
//! | `actions.rs` | operator actions and flush |
//! | `releases.rs` | passes over mail that waits for its release, and what they remember of it |
//! | `suspensions.rs` | suspending, resuming, and runs meanwhile |
//! | `looking.rs` | what is only looked at: listing, view, `check`; and `check --repair` |
//! | `making.rs` | making a spool |
//! | `views.rs` | whatever writes or removes the view, `info/`, where only that fails |
//! | `lost.rs` `losing.rs` | what a failed sync covered is lost indeed |
//! | `disk.rs` | a real disk that fails to write (needs root) |
//! | `regressions.rs` `syncs.rs` | nothing at random: what was found here or by reading, each by its name |
//!
//! `errnos.rs` says which call can fail in which way. What each test explored it prints
//! (`cargo test --test faults -- --nocapture`). Most take a sample of their faults,
//! which `MAILSPOOL_SEED` chooses; with `MAILSPOOL_LONG` they take all, or, where there are very many, 3,000.

mod accept;
mod actions;
mod destinations;
mod disk;
mod errnos;
mod explore;
mod inject;
mod keys;
mod looking;
mod losing;
mod lost;
mod making;
#[path = "../proof/net.rs"]
mod net;
mod pass;
#[path = "../proof/mod.rs"]
mod proof;
mod queue;
mod regressions;
mod releases;
mod said;
mod scene;
mod scratch;
mod suspensions;
mod syncs;
mod views;
mod watching;
mod ways;
mod world;
