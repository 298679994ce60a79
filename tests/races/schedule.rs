//! A schedule: the process that begins, and where the turn changes.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::trace::{NAMES, Raw};
use super::turns::{Choice, Point};

/// The process that begins, and the changes by the number of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    pub first: usize,
    pub changes: Vec<(usize, Change)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Switch,
    Kill(usize),
}

impl Schedule {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Schedule {
        let process = |name: &str| NAMES.iter().position(|one| *one == name).unwrap();
        let mut words = text.split(' ');
        let first = process(words.next().unwrap());
        let change = |word: &str| match word.split_once('!') {
            Some((at, killed)) => (at.parse().unwrap(), Change::Kill(process(killed))),
            None => (word.parse().unwrap(), Change::Switch),
        };
        Schedule {
            first,
            changes: words.map(change).collect(),
        }
    }
}

impl fmt::Display for Schedule {
    /// Writes the process that begins and the decisions at which the other goes on, or with `!` the killed process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[self.first])?;
        for (at, change) in &self.changes {
            match change {
                Change::Switch => write!(f, " {at}")?,
                Change::Kill(process) => write!(f, " {at}!{}", NAMES[*process])?,
            }
        }
        Ok(())
    }
}

/// Returns a function that decides by a schedule, and the list of its decisions.
pub fn follow(
    schedule: Schedule,
) -> (
    impl FnMut(&Point<'_>) -> Choice + Send + 'static,
    Arc<Mutex<Vec<Raw>>>,
) {
    let decisions: Arc<Mutex<Vec<Raw>>> = Arc::default();
    let written = Arc::clone(&decisions);
    let decide = move |point: &Point<'_>| {
        let mut written = written.lock().unwrap();
        let here = |process: usize| point.at[process].is_some();
        let on = point.last.unwrap_or(schedule.first);
        let on = if here(on) { on } else { 1 - on };
        let change = schedule.changes.iter().find(|(at, _)| *at == written.len());
        let choice = match change {
            Some((_, Change::Switch)) if here(1 - on) => Choice::Go(1 - on),
            Some((_, Change::Kill(process))) if here(*process) => Choice::Kill(*process),
            _ => Choice::Go(on),
        };
        written.push(Raw {
            choice,
            at: [point.at[0].cloned(), point.at[1].cloned()],
        });
        choice
    };
    (decide, decisions)
}
