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
//! | `pass.rs` | a runner's pass over a queue with something of everything |
//! | `actions.rs` | operator actions and flush |
//! | `making.rs` | making a spool |
//! | `regressions.rs` | nothing at random: what was found here or by reading, each by its name |
//!
//! What each test explored it prints (`cargo test --test faults -- --nocapture`). The pass and
//! the actions take a sample of their faults, another one each day; `MAILSPOOL_FAULTS=all` takes
//! them all.

mod accept;
mod actions;
mod inject;
mod making;
mod pass;
mod regressions;
mod world;
