//! wip
pub mod accept;
pub mod disk;
pub mod message;
pub mod queue;
pub mod spool;
pub mod transport;
