//! Retry times: in the library with a clock that the test sets, and in the program over days.

#[path = "../program/mod.rs"]
mod program;
#[path = "../faults/world.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod world;

mod days;
mod recipients;
mod shown;
