//! What a program that embeds the queue uses. The crate's root re-exports it.
//!
//! These types wrap the ones inside, so that the inside can change and the program's own parts (operator's
//! tools, the fault bench) can have more than an embedding program needs.

mod error;
mod runner;
#[cfg(feature = "smtp")]
mod smtp;
mod spool;
mod submission;
pub mod transports;

pub use error::{Error, ErrorKind};
pub use runner::{Runner, RunnerBuilder};
#[cfg(feature = "smtp")]
pub use smtp::{Security, SmtpBuilder, smtp};
pub use spool::{Entry, Listing, Spool};
pub use submission::{Accepted, Acceptor, Submission};
