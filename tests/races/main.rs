//! Two processes on the same message or bucket, call by call: every interleaving of their calls up to a bound.
//!
//! A process is a separately opened spool on its own thread, and each of its calls waits for its turn ([`turns`]).
//! [`explore`] enumerates the schedules and skips the redundant ones. Each schedule runs on a copy of a small spool
//! in memory. Then no message may be lost or delivered twice, no notice made twice, and no report untrue; no
//! process may have failed because of the other one; `check` must find nothing; and further runs must come to an
//! end.
//!
//! | file | processes |
//! |---|---|
//! | `attempts.rs` | two runs; a run and acceptance; buckets that are removed while they are needed |
//! | `orders.rs` | an operator and a run; two operators |
//! | `suspensions.rs` | an operator that suspends or resumes, and a run or another operator |
//! | `destinations.rs` | two runs and a host that is down or limits its connections; a run and an operator |
//! | `folds.rs` | a run or an operator that folds a history, and another process |
//! | `keys.rs` | two submissions with one key; one and a run that sweeps, forgets or purges |
//! | `looks.rs` | `list`, `check` and its repair, and another process |
//! | `views.rs` | the view, missing or written again, while messages come, move and go |
//! | `reserve.rs` | the reserve for a full disk, filled and used |
//! | `marks.rs` | an interrupted attempt: two runs, a run and an operator |
//! | `making.rs` | two processes that make a spool |
//! | `teeth.rs` | deliberate mistakes, each of which must be found |
//! | `turns.rs` `schedule.rs` `explore.rs` | the scheduler; one schedule; the enumeration |
//! | `touch.rs` `trace.rs` | what a call touches; what happened |
//! | `programs.rs` `stage.rs` | what processes do; the spool, and what must hold at the end |
//!
//! **Bounds.** All schedules with up to two voluntary changes of the turn (three for two requests). For some pairs
//! also those in which one process is killed at a call. If there are more than 180 schedules with the same number
//! of changes, every n-th is run. `MAILSPOOL_LONG` adds a change and raises the limit to 2,000;
//! `MAILSPOOL_RACE_SAMPLES` sets the limit. Each test prints how many schedules it ran and whether these were all.
//! The calls within one process have a fixed order, because its runner makes them on one thread.
//!
//! A failure prints the calls of both processes in two columns, and the value of `MAILSPOOL_RACE` with which the
//! test runs only that schedule. The numbers in it are those of the decisions where the turn changes.

#[path = "../proof/net.rs"]
mod net;
#[path = "../proof/mod.rs"]
mod proof;
#[allow(dead_code)] // used by `tests/faults` only
#[path = "../faults/world.rs"]
mod shared;

mod attempts;
mod destinations;
mod explore;
mod folds;
mod keys;
mod looks;
mod making;
mod marks;
mod orders;
mod programs;
mod reserve;
mod schedule;
mod stage;
mod suspensions;
mod teeth;
mod touch;
mod trace;
mod turns;
mod views;
