//! Accounts for every file in a spool, and repairs what a crash or manual changes left.
//!
//! Runs while runners work. It reads without locks, and reports a problem only if the same finding appears in
//! each of several passes, because messages move meanwhile. A repair takes the lock and checks again. It
//! moves files into `corrupt/` rather than deleting them. Only temporary files are removed.

mod files;
mod messages;
mod repair;
mod tally;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk;
use crate::message::QueueId;
use crate::spool::{Queue, Spool};

pub use tally::{Tallied, Tally, tally};

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The path, relative to the spool.
    pub path: PathBuf,
    /// A description of the finding.
    pub what: String,
    /// What a repair would do, if it can do anything.
    pub repair: Option<Repair>,
    /// Whether a repair succeeded; `None` without a repair. False if the file has changed, or if another
    /// process holds it.
    pub repaired: Option<bool>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Harmless: an unknown name, or work for the next run.
    Note,
    /// Something is wrong.
    Problem,
}

/// What a repair does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Renames the file.
    Move {
        /// The new name.
        to: PathBuf,
    },
    /// Removes all names of a file but this one.
    OneName {
        /// The name in the latest queue.
        kept: PathBuf,
    },
    /// Sets the permission bits.
    Chmod {
        /// The new bits.
        mode: u32,
    },
    /// Removes the file.
    Remove,
    /// Rewrites the view of the message in this queue.
    Show {
        /// The queue.
        at: Queue,
    },
    /// Examines the message again, and records the reason.
    SayWhy,
}

impl Finding {
    /// Whether the finding is invisible while a path cannot be read: a directory hides everything below it,
    /// and a message hides faults of its view.
    pub fn is_hidden(&self, unread: &Path) -> bool {
        let message = match &self.repair {
            Some(Repair::Show { at }) => {
                Some(at.dir().join(self.path.file_name().unwrap_or_default()))
            }
            _ => None,
        };
        self.path.starts_with(unread) || message.is_some_and(|path| path.starts_with(unread))
    }
}

impl Repair {
    /// The repair as announced: `moves it to corrupt/x`.
    pub fn does(&self) -> String {
        match self {
            Repair::Move { to } => format!("moves it to {}", to.display()),
            Repair::OneName { kept } => format!("keeps only {}", kept.display()),
            Repair::Chmod { mode } => format!("sets its mode to {mode:04o}"),
            Repair::Remove => "removes it".to_owned(),
            Repair::Show { .. } => "writes it again".to_owned(),
            Repair::SayWhy => "verifies it again and records the reason".to_owned(),
        }
    }

    /// The repair as done: `moved to corrupt/x`.
    pub fn done(&self) -> String {
        match self {
            Repair::Move { to } => format!("moved to {}", to.display()),
            Repair::OneName { kept } => format!("kept only {}", kept.display()),
            Repair::Chmod { mode } => format!("set its mode to {mode:04o}"),
            Repair::Remove => "removed".to_owned(),
            Repair::Show { .. } => "wrote it again".to_owned(),
            Repair::SayWhy => "verified it again and recorded the reason".to_owned(),
        }
    }
}

/// How many passes must see a problem before it is reported.
const LOOKS: usize = 3;
/// The pause between two passes.
const PAUSE: Duration = Duration::from_millis(10);

/// Checks everything; with `repair`, repairs what it can. Findings are sorted by path.
///
/// # Errors
/// If the top directories cannot be read. What cannot be read below them is reported as a problem.
pub fn check(spool: &Spool, repair: bool) -> disk::Result<Vec<Finding>> {
    let mut findings = look(spool)?;
    for _ in 1..LOOKS {
        if !findings
            .iter()
            .any(|finding| finding.level == Level::Problem)
        {
            break;
        }
        // A message may have moved between two system calls, and look damaged. It does not look the same in
        // each pass.
        std::thread::sleep(PAUSE);
        findings = agreed(findings, look(spool)?);
    }
    findings.sort_by(|a, b| a.path.cmp(&b.path));
    if repair {
        let closed = findings.iter().any(keeps_out);
        for finding in findings
            .iter_mut()
            .filter(|finding| finding.repair.is_some())
        {
            let repaired = repair::repair(spool, finding);
            finding.repaired = Some(matches!(repaired, Ok(true)));
            if let Err(error) = repaired {
                finding.what.push_str(&format!("; {error}"));
            }
        }
        // Directories below one that was closed can be read now.
        if closed
            && findings
                .iter()
                .any(|finding| finding.repaired == Some(true))
        {
            findings.extend(check(spool, repair)?);
        }
    }
    Ok(findings)
}

/// Returns the findings that two passes agree on: the problems that both have seen, and the notes of the
/// later one. If a pass could not read a path, the other pass's findings below it are kept.
fn agreed(before: Vec<Finding>, after: Vec<Finding>) -> Vec<Finding> {
    let is_unread = |finding: &Finding| finding.what.starts_with(UNREAD);
    let seen = |finding: &Finding, by: &[Finding]| {
        let same = |other: &Finding| {
            other == finding || is_unread(other) && finding.is_hidden(&other.path)
        };
        by.iter().any(same)
    };
    let is_problem = |finding: &Finding| finding.level == Level::Problem;
    let mut both: Vec<Finding> = after
        .iter()
        .filter(|finding| !is_problem(finding) || seen(finding, &before))
        .cloned()
        .collect();
    let hidden = |finding: &Finding| !after.contains(finding) && seen(finding, &after);
    both.extend(before.into_iter().filter(hidden));
    both
}

/// The beginning of a finding about an unreadable path.
const UNREAD: &str = "cannot be read: ";

fn look(spool: &Spool) -> disk::Result<Vec<Finding>> {
    let owner = spool.disk().stat(Path::new("."))?.map(|stat| stat.uid);
    let mut look = Look::new(spool, owner.unwrap_or_default());
    look.directories()?;
    if look
        .findings
        .iter()
        .any(|finding| finding.level == Level::Problem && keeps_out(finding))
    {
        return Ok(look.findings);
    }
    look.names()?;
    look.infos();
    look.messages();
    Ok(look.findings)
}

/// Whether a directory is closed to its owner, so that nothing below it can be checked.
fn keeps_out(finding: &Finding) -> bool {
    finding.what.ends_with(files::KEEPS_OUT)
}

/// One pass over the spool.
struct Look<'a> {
    spool: &'a Spool,
    owner: u32,
    /// Messages with an unreadable file: nothing is known about its content.
    barred: HashSet<QueueId>,
    /// Inodes with a lock, determined at first use, because the kernel takes long to list them.
    locked: Option<HashMap<u64, u32>>,
    /// The queues in which messages were seen.
    seen: BTreeMap<QueueId, Vec<Queue>>,
    /// The other files of messages that were seen: the directory and the message.
    infos: Vec<(&'static str, QueueId)>,
    findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    fn new(spool: &'a Spool, owner: u32) -> Look<'a> {
        Look {
            spool,
            owner,
            barred: HashSet::new(),
            locked: None,
            seen: BTreeMap::new(),
            infos: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn find(
        &mut self,
        level: Level,
        path: PathBuf,
        what: impl Into<String>,
        repair: Option<Repair>,
    ) {
        self.findings.push(Finding {
            level,
            path,
            what: what.into(),
            repair,
            repaired: None,
        });
    }

    fn note(&mut self, path: PathBuf, what: impl Into<String>) {
        self.find(Level::Note, path, what, None);
    }

    fn problem(&mut self, path: PathBuf, what: impl Into<String>) {
        self.find(Level::Problem, path, what, None);
    }

    fn repairable(&mut self, path: PathBuf, what: impl Into<String>, repair: Repair) {
        self.find(Level::Problem, path, what, Some(repair));
    }

    /// Returns a result, or records its error as a problem and returns `None`, so that the pass continues.
    fn unless<T>(&mut self, path: &Path, looked: disk::Result<T>) -> Option<T> {
        match looked {
            Ok(found) => Some(found),
            Err(error) => {
                if !error.is_absent() {
                    self.problem(path.to_owned(), format!("{UNREAD}{error}"));
                }
                None
            }
        }
    }

    /// Returns this name in `corrupt/`, with a number if it is taken, so that no file is replaced.
    fn room_in_corrupt(&self, first: PathBuf) -> disk::Result<PathBuf> {
        let mut to = first.clone();
        let mut number = 1;
        while self.spool.disk().stat(&to)?.is_some() {
            number += 1;
            to = first.with_added_extension(number.to_string());
        }
        Ok(to)
    }
}
