//! Two processes step by step.

#[path = "../proof/mod.rs"]
mod proof;
#[allow(dead_code)] // what only the faults want
#[path = "../faults/world.rs"]
mod shared;

mod attempts;
mod barriers;
mod explore;
mod looks;
mod making;
mod orders;
mod stage;
mod teeth;
mod touch;
mod trace;
mod turns;
