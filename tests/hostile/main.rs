//! Messages, addresses and spools made by an attacker, or by a broken disk.
//!
//! What belongs here: how the program handles hostile input. Each input gets a clear error or is processed,
//! in bounded memory and time, and nothing outside the spool changes. Needs root, for devices and owners.

#[path = "../program/mod.rs"]
mod program;
#[path = "../proof/mod.rs"]
mod proof;

mod addresses;
mod audit;
mod blocks;
mod closed;
mod guard;
mod messages;
mod obstacles;
mod spools;
mod views;
