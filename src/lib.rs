//! A mail spool that is nothing but files: a durable queue with short-lived runners.
//!
//! A message that is accepted is durable; from then on it is delivered, or its sender is told,
//! or it stands in the queue with a reason and a next time. Any number of processes work the
//! same spool at once, with `flock` as the only coordinator. `spool-layout.md` says how a spool
//! lies on disk and why that can be trusted; README has an example.
//!
//! The layers, each importing only from those below:
//!
//! | module | what it is |
//! |---|---|
//! | `cli`, `config` | the program (feature `cli`) |
//! | [`runner`], [`operator`] | attempt what is due; look at the queue and act on it |
//! | [`accept`], [`notice`] | take a message in; tell a sender that delivery failed |
//! | [`spool`], [`transport`] | the directories, locks and commit points; the ways out |
//! | `dns` | which hosts take mail for a domain (feature `smtp`) |
//! | `smtp` | the client side of SMTP and LMTP (feature `smtp`) |
//! | [`disk`] | the seam to the file system |
//! | [`queue`] | decisions: schedule, route, outcome, next step; pure |
//! | [`message`] | what a message and its envelope are; pure |
//!
//! The API is synchronous and `Send`; only [`transport`] and `smtp` are asynchronous, so that
//! one runner can drive many destinations. [`transport::Relay`] makes a transport of a function. Events are
//! reported through `tracing`; the library never prints.

pub mod accept;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
pub mod disk;
#[cfg(feature = "smtp")]
pub mod dns;
pub mod message;
pub mod notice;
pub mod operator;
pub mod queue;
pub mod runner;
#[cfg(feature = "smtp")]
pub mod smtp;
pub mod spool;
pub mod transport;
mod users;

/// The example in README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
