//! Messages, addresses and spools made by somebody who means harm, or by a broken disk.
//!
//! What belongs here: what the program does with input that nobody sane would give it. Each gets a
//! clear error or its way, in bounded memory and time, and nothing outside the spool changes. Needs
//! root, for devices and owners.

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
