//! wip
pub mod accept;
pub mod disk;
pub mod message;
pub mod notice;
pub mod queue;
pub mod runner;
pub mod spool;
pub mod transport;
