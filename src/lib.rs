//! A mail spool made only of files: a durable queue with short-lived runners.
//!
//! An accepted message is durable. It is then delivered, or its sender is notified of the failure, or it stays in
//! the queue with a reason and a next attempt time. Any number of processes work on the same spool at once, with
//! `flock` as the only coordination. `spool-layout.md` describes a spool on disk and why it survives crashes;
//! README has an example.
//!
//! A program that embeds the queue needs [`Spool`], [`Submission`] and [`Runner`]; [`cookbook`] has recipes:
//!
//! ```
//! use mailspool::{Outcome, Runner, Spool, Submission, transports};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("spool");
//! let spool = Spool::open_or_create(&path)?;
//! let submission = Submission::new("me@example.org", ["you@example.net"])?;
//! let id = spool.submit(submission, &b"Subject: hello\n\nHello!\n"[..])?; // Durable when it returns.
//! let deliver = transports::from_fn(|_, to| vec![Outcome::delivered("taken"); to.len()]);
//! let summary = Runner::builder(&spool).transport("app", deliver).build()?.run_once()?;
//! assert_eq!(summary.delivered, 1);
//! for row in spool.messages() {
//!     println!("{}", row?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Events are reported through `tracing`; the library never prints. Errors are of one type, [`Error`].

// The modules, each importing only from those below (scripts/check-layers):
//
//   cli, config         the program (feature `cli`)
//   embed               the public API
//   runner, operator    attempt what is due; inspect the queue and act on it
//   accept, notice      accept a message; notify a sender of a failure, delay or delivery
//   spool, transport    the directories, locks and commit points; the ways to deliver
//   dns, smtp           the hosts that take mail for a domain; the client side of SMTP and LMTP (feature `smtp`)
//   disk                the interface to the file system
//   queue               decisions: schedule, route, outcome, next step; pure
//   message             a message and its envelope; pure

// Without the program, parts of the inside that only it needs are unused.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod accept;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
mod config;
mod disk;
#[cfg(feature = "smtp")]
mod dns;
mod embed;
mod hostname;
mod message;
mod notice;
mod operator;
mod queue;
mod runner;
#[cfg(feature = "smtp")]
mod smtp;
mod spool;
mod transport;
mod users;

pub use disk::Body;
pub use embed::{
    Accepted, Acceptor, Entry, Error, ErrorKind, Listing, Runner, RunnerBuilder, Spool, Submission,
};
pub use jiff;
pub use message::{Address, AddressError, EnhancedCode, NoticeKind, QueueId, Reply, ReversePath};
pub use notice::{DsnBuilder, NoticeBuilder, Report, Reported};
pub use operator::{RecipientRow, Row};
pub use queue::{FailedAttempt, Outcome, RetryPolicy, Status};
pub use runner::{Stop, Summary};
pub use transport::{BoxFuture, Message, Session, Transport};

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

/// The transports that come with the crate.
pub mod transports {
    pub use crate::embed::transports::{at_most, from_fn, maildir, pipe};
    #[cfg(feature = "smtp")]
    pub use crate::embed::{Security, SmtpBuilder, smtp};
}

/// The inside, for this project's own tests, benchmarks and fuzzers. It changes without notice.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    macro_rules! inside {
        ($($name:ident)*) => {$(
            pub mod $name {
                pub use crate::$name::*;
            }
        )*};
    }
    inside! { accept disk message notice operator queue runner spool transport }
    #[cfg(feature = "cli")]
    inside! { config }
    #[cfg(feature = "smtp")]
    inside! { dns smtp }
}

/// The example in README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
