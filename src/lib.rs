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

mod accept;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
mod config;
mod disk;
#[cfg(feature = "smtp")]
mod dns;
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
