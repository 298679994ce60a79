//! A mail spool that is nothing but files.
//!
//! wip

pub mod accept;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
pub mod disk;
pub mod message;
pub mod notice;
pub mod operator;
pub mod queue;
pub mod runner;
pub mod spool;
pub mod transport;
