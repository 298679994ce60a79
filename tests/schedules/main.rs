//! When mail is tried again: by the library with a clock that is set, and by the program through
//! days.

#[path = "../program/mod.rs"]
mod program;
#[path = "../faults/world.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod world;

mod days;
mod recipients;
mod shown;
