//! What the tests that prove something share: how much they are to do, and the counts that they
//! report.

// Each test uses its own part of this.
#![allow(dead_code)]

use std::fs::OpenOptions;
use std::io::Write;

/// Whether everything is to be explored that can be, not a sample of a few minutes:
/// `scripts/test --long` sets `MAILSPOOL_LONG`.
pub fn long() -> bool {
    std::env::var_os("MAILSPOOL_LONG").is_some_and(|long| !long.is_empty())
}

/// What everything that is drawn at random begins with: 1, so that the ordinary run is the same on
/// every machine and every day, or what `MAILSPOOL_SEED` says. `scripts/test --long` draws one and
/// prints it.
pub fn seed() -> u64 {
    let given = std::env::var("MAILSPOOL_SEED");
    given.map_or(1, |seed| seed.parse().expect("MAILSPOOL_SEED is a number"))
}

/// Reports a count, such as `crash states`, for the table at the end of `scripts/test`: it is
/// printed, and added to the file that `MAILSPOOL_COUNTS` names. Counts of one name add up.
///
/// The names in use, in the order of the table, are in `scripts/counts`.
pub fn count(name: &str, number: usize) {
    println!("{name}: {number}");
    let Some(path) = std::env::var_os("MAILSPOOL_COUNTS") else {
        return;
    };
    // One write to a file open for appending: other tests report at the same time.
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{number} {name}\n").as_bytes())
        .unwrap();
}
