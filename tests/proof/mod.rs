//! Shared by the exploring tests: how much they explore, their seed, and the counts that they report.

// Each test uses its own part of this.
#![allow(dead_code)]

use std::fs::OpenOptions;
use std::io::Write;

/// Whether to explore everything instead of a sample of a few minutes. `scripts/test --long` sets `MAILSPOOL_LONG`.
pub fn long() -> bool {
    std::env::var_os("MAILSPOOL_LONG").is_some_and(|long| !long.is_empty())
}

/// Returns the seed of all random choices: `MAILSPOOL_SEED`, or 1, so that the ordinary run is the same on every
/// machine and every day. `scripts/test --long` draws a seed and prints it.
pub fn seed() -> u64 {
    let given = std::env::var("MAILSPOOL_SEED");
    given.map_or(1, |seed| seed.parse().expect("MAILSPOOL_SEED is a number"))
}

/// Reports a count, such as `crash states`, for the table at the end of `scripts/test`: prints it and appends it to
/// the file that `MAILSPOOL_COUNTS` names. Counts of the same name add up.
///
/// `scripts/counts` lists the names in the order of the table.
pub fn count(name: &str, number: usize) {
    println!("{name}: {number}");
    let Some(path) = std::env::var_os("MAILSPOOL_COUNTS") else {
        return;
    };
    // A single write in append mode, because other tests report at the same time.
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{number} {name}\n").as_bytes())
        .unwrap();
}
