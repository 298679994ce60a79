//! Fails each file-system call in turn, and stops the process after each in turn.
//!
//! A clean run counts the calls. Then the same operation runs in a fresh copy of the same spool with a
//! [`Fault`](inject::Fault) at the first call, at the second, and so on. After each run everything is
//! dropped, the spool is reopened without faults, and the guarantees of the design are asserted: an
//! acknowledged message is delivered, or its sender is notified once, or it is in the queue; no torn message
//! is delivered; no recipient gets a message twice except the one in flight; no rubbish stays.
//!
//! | file | what is run under faults |
//! |---|---|
//! | `accept.rs` | acceptance, by both entrances |
//! | `keys.rs` | keyed and scheduled submissions |
//! | `pass.rs` `queue.rs` | a runner's pass over a queue with a message of every kind |
//! | `fold.rs` | a pass and an operator's action that fold a history |
//! | `watching.rs` | the same by a long-running run |
//! | `destinations.rs` | delivery to hosts: several transactions, slots, recorded outages |
//! | `ways.rs` | delivery into a Maildir through the same seam, and by a command |
//! | `actions.rs` | operator actions and flush |
//! | `releases.rs` | passes over mail scheduled for later, and the file of releases |
//! | `suspensions.rs` | suspending, resuming, and runs while mail is suspended |
//! | `looking.rs` | read-only operations: list, view, `check`; and `check --repair` |
//! | `making.rs` | creating a spool |
//! | `views.rs` | operations that write or remove the view, `info/`, when only the view fails |
//! | `lost.rs` `losing.rs` | what a failed sync covered is really lost |
//! | `disk.rs` | a real disk that fails to write (needs root) |
//! | `regressions.rs` `syncs.rs` | named cases for bugs found by these tests or by review |
//!
//! `errnos.rs` lists which call can fail with which errors. Each test prints what it explored (`cargo test
//! --test faults -- --nocapture`). Most take a sample of their faults, which `MAILSPOOL_SEED` chooses. With
//! `MAILSPOOL_LONG` they take all, or 3,000 if there are more.

mod accept;
mod actions;
mod destinations;
mod disk;
mod errnos;
mod explore;
mod fold;
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
