//! Whether what is on a disk after a power cut is what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::program::crowd::{delivered, hurry, release};
use super::program::{Site, names};
use super::work::{Action, Mark, config_afterwards};

/// What was known of the messages when the power went.
#[derive(Default)]
pub struct Known {
    accepted: BTreeSet<usize>,
    /// The id, what was done last, and what was begun after it.
    acted: BTreeMap<usize, (String, Option<Action>, Option<Action>)>,
}

/// What was found.
#[derive(Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub lost: usize,
    pub doubled: usize,
    pub wrong: Vec<String>,
}

impl Known {
    pub fn of<'a>(marks: impl Iterator<Item = &'a Mark>) -> Known {
        let mut known = Known::default();
        for mark in marks {
            match mark {
                Mark::Accepted(serial) => drop(known.accepted.insert(*serial)),
                Mark::Begins(serial, id, action) => {
                    let acted = known.acted.entry(*serial).or_default();
                    (acted.0, acted.2) = (id.clone(), Some(*action));
                }
                Mark::Done(serial, action) => {
                    let acted = known.acted.get_mut(serial).unwrap();
                    (acted.1, acted.2) = (Some(*action), None);
                }
            }
        }
        known
    }
}

/// Works the spool off that lies in a directory, to its end.
pub fn judge(dir: &Path, known: &Known) -> Verdict {
    let mut verdict = Verdict {
        acknowledged: known.accepted.len(),
        ..Verdict::default()
    };
    let site = Site::at(dir);
    site.configure(&config_afterwards());
    let wrong = &mut verdict.wrong;
    mend(&site, wrong);
    let ran = site.run();
    if ran.code != 0 {
        wrong.push(format!("run: {ran}"));
    }
    held(&site, known, wrong);
    const MOST_ROUNDS: usize = 6;
    for round in 0.. {
        if site.is_empty() {
            break;
        }
        if round == MOST_ROUNDS {
            let list = site.program(["list"], b"");
            wrong.push(format!("not empty after {MOST_ROUNDS} rounds: {list}"));
            break;
        }
        hurry(&site);
        for (held, verb) in [("frozen", "thaw"), ("discarded", "retry")] {
            let held = site.spool().join(held);
            for bucket in names(&held) {
                release(&site, verb, &names(&held.join(bucket)));
            }
        }
        let ran = site.run();
        if ran.code != 0 {
            wrong.push(format!("run: {ran}"));
        }
    }
    let (counts, torn) = delivered(&site);
    wrong.extend(torn.into_iter().map(|what| format!("torn: {what}")));
    let lost: Vec<_> = known
        .accepted
        .iter()
        .filter(|serial| !counts.contains_key(serial))
        .collect();
    verdict.lost = lost.len();
    if !lost.is_empty() {
        wrong.push(format!("lost: {lost:?}"));
    }
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    verdict.doubled = doubled.len();
    if !doubled.is_empty() {
        wrong.push(format!("doubled in a Maildir: {doubled:?}"));
    }
    let quarantined = names(&site.spool().join("corrupt"));
    let mut messages = quarantined.iter().filter(|name| !name.contains('.'));
    if let Some(id) = messages.next() {
        let reason = fs::read_to_string(site.spool().join(format!("corrupt/{id}.reason")));
        wrong.push(format!("{id} is in corrupt/: {reason:?}"));
    }
    mend(&site, wrong);
    verdict
}

/// A repair succeeds, and leaves nothing for a second one.
fn mend(site: &Site, wrong: &mut Vec<String>) {
    let first = site.program(["check", "--repair"], b"");
    let second = site.program(["check", "--repair"], b"");
    let is_clean = second.code == 0 && !second.text().contains("problem: ");
    if first.code != 0 || !is_clean {
        wrong.push(format!("check --repair: {first}, and then: {second}"));
    }
}

/// What operators were told is so.
fn held(site: &Site, known: &Known, wrong: &mut Vec<String>) {
    if known.acted.is_empty() {
        return;
    }
    let rows = site.rows();
    for (serial, (id, done, begun)) in &known.acted {
        let row = rows.iter().find(|row| row["id"] == id.as_str());
        let queue = row.map_or("gone", |row| row["queue"].as_str().unwrap());
        let is_right = match (done, begun) {
            (Some(Action::Freeze), None) => queue == "frozen",
            (Some(Action::Discard), None) => queue == "discarded",
            (Some(Action::Thaw | Action::Retry), None) => queue != "frozen" && queue != "discarded",
            _ => true,
        };
        if !is_right {
            wrong.push(format!(
                "{serial}, {id}, should be {done:?}, and is in {queue}"
            ));
        }
    }
}
