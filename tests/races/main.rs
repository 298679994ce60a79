//! Two processes step by step through the same message or bucket: every interleaving of their
//! calls up to a bound.
//!
//! A process is a spool opened for itself, on a thread of its own, and each of its calls waits for
//! its turn ([`turns`]). Which schedules there are, and which need not be tried, says [`explore`].
//! Each is run on a copy of a small spool in memory, and then: nobody lost, nobody got anything
//! twice, no notice was made twice, what was reported as done holds, nobody failed because
//! somebody else was there, `check` finds nothing, and runs on their own come to an end.
//!
//! | file | who meets whom |
//! |---|---|
//! | `attempts.rs` | two runs; a run and acceptance; buckets that go while they are wanted |
//! | `orders.rs` | an operator and a run; two operators |
//! | `suspensions.rs` | an operator who suspends or resumes, and a run, or another operator |
//! | `destinations.rs` | two at a host: that is down, that takes no more connections; an operator |
//! | `keys.rs` | two submissions with one key; one and a run that sweeps, forgets or purges |
//! | `looks.rs` | `list`, `check` and its repair, and whoever works meanwhile |
//! | `views.rs` | the view: written again, or missing, as messages come, move and go |
//! | `reserve.rs` | the reserve for a full disk: filled, and used |
//! | `marks.rs` | a message whose attempt was interrupted: two runs, a run and an operator |
//! | `making.rs` | two who make a spool |
//! | `teeth.rs` | mistakes made on purpose, each of which must be found |
//! | `turns.rs` `schedule.rs` `explore.rs` | who is next; one schedule; which there are |
//! | `touch.rs` `trace.rs` | what a call touches; what happened |
//! | `programs.rs` `stage.rs` | what processes do; the spool, and what must come of it |
//!
//! **Bounds.** All schedules with up to two changes of the turn that nothing forced (two requests:
//! three), and for some pairs all those in which one of the two is killed at a call as well; where
//! there are more than 250 with one number of changes, every n-th of them. `MAILSPOOL_LONG` adds a
//! change and takes 20,000; `MAILSPOOL_RACE_SAMPLES` sets that number. Each test prints how many
//! schedules it ran and whether these were all. Inside of one process calls come in one order: its
//! runner has one thread for them.
//!
//! A failure prints the calls of both processes in two columns, and the value of `MAILSPOOL_RACE`
//! with which the test runs that schedule alone. Its numbers are those of the decisions where the
//! turn changes.

#[path = "../proof/net.rs"]
mod net;
#[path = "../proof/mod.rs"]
mod proof;
#[allow(dead_code)] // what only the faults want
#[path = "../faults/world.rs"]
mod shared;

mod attempts;
mod destinations;
mod explore;
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
