//! A mail spool made only of files: a durable queue with short-lived runners.
//!
//! An accepted message is durable. It is then delivered, or its sender is notified of the failure, or it stays in
//! the queue with a reason and a next attempt time. Any number of processes work on the same spool at once, with
//! `flock` as the only coordination. `spool-layout.md` describes a spool on disk and why it survives crashes;
//! README has an example.
//!
//! The layers, each importing only from those below:
//!
//! | module | what it is |
//! |---|---|
//! | `cli`, `config` | the program (feature `cli`) |
//! | [`runner`], [`operator`] | attempt what is due; inspect the queue and act on it |
//! | [`accept`], [`notice`] | accept a message; notify a sender of a failure, delay or delivery |
//! | [`spool`], [`transport`] | the directories, locks and commit points; the ways to deliver |
//! | `dns` | which hosts take mail for a domain (feature `smtp`) |
//! | `smtp` | the client side of SMTP and LMTP (feature `smtp`) |
//! | [`disk`] | the interface to the file system |
//! | [`queue`] | decisions: schedule, route, outcome, next step; pure |
//! | [`message`] | a message and its envelope; pure |
//!
//! The API is synchronous and `Send`; only [`transport`] and `smtp` are asynchronous, so that one runner can drive
//! many destinations. [`transport::Relay`] makes a transport of a function. Events are reported through `tracing`;
//! the library never prints.

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

pub use disk::{Body, BodyReader};
pub use embed::{
    Accepted, Acceptor, Entry, Error, ErrorKind, Listing, Runner, RunnerBuilder, Spool, Submission,
};
pub use jiff;
pub use message::{
    Address, AddressError, EnhancedCode, NoticeKind, Notify, QueueId, Reply, Ret, ReversePath,
};
pub use notice::NoticeBuilder;
pub use operator::{Acted, HoldRow, RecipientRow, Row, RowStatus};
pub use queue::{Action, By, FailedAttempt, Handover, Outcome, RetryPolicy, Status, Then};
pub use runner::{MessageOutcome, Progress, Stop, Summary};
pub use transport::{HostHealth, Message, OnUnknown, Session, Transport};

/// The transports that come with the crate, and what one of your own may need.
pub mod transports {
    #[cfg(feature = "smtp")]
    pub use crate::embed::{Security, Smtp, SmtpBuilder};
    pub use crate::transport::{
        BoxFuture, FromFn, Hosts, Maildir, NextHost, Pipe, PipeError, PipeUser, from_fn,
    };
}

/// Routes and retry schedules.
pub mod policies {
    pub use crate::queue::{
        Pattern, Phase, ReplyRule, Rhythm, Routes, Rule, Schedule, ScheduleError, Schedules,
    };
}

/// What writes notices.
pub mod notices {
    pub use crate::notice::{
        Action, DsnBuilder, Report, Reported, Silent, Templates, Wording, WordingError,
    };
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
