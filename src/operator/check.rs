//! Accounts for every file in a spool, and mends what a crash or a hand left behind.
//!
//! Runs while runners work. It only looks, without locks, and believes that something is wrong
//! only when it finds the same thing again and again; what moves meanwhile is not wrong. A
//! repair then takes the lock of what it mends and looks once more. It moves, into `corrupt/`,
//! rather than deletes; only the leftovers of files that never got a name are removed.

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

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Where, below the spool.
    pub path: PathBuf,
    /// What it is.
    pub what: String,
    /// What a repair does about it, if it can do anything.
    pub repair: Option<Repair>,
    /// Whether a repair did it; none if there was no repair. One that found it changed, or in
    /// somebody's hand, did not.
    pub repaired: Option<bool>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing: a name that is not ours, work for the next run.
    Note,
    /// Something is not as it should be.
    Problem,
}

/// What a repair does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Renames it.
    Move {
        /// To this name.
        to: PathBuf,
    },
    /// Keeps this one of the names of a file.
    OneName {
        /// The latest.
        kept: PathBuf,
    },
    /// Sets its permission bits.
    Chmod {
        /// To these.
        mode: u32,
    },
    /// Removes it.
    Remove,
    /// Writes what shows the envelope of the message that stands there.
    Show {
        /// There.
        at: Queue,
    },
    /// Looks for what is wrong with it, and writes that down.
    SayWhy,
}

impl Finding {
    /// Whether it cannot be seen while this path cannot be read: a directory hides all that is below it, and
    /// a message what is wrong with its view.
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
    /// What would be done: `moves it to corrupt/x`.
    pub fn does(&self) -> String {
        match self {
            Repair::Move { to } => format!("moves it to {}", to.display()),
            Repair::OneName { kept } => format!("keeps only {}", kept.display()),
            Repair::Chmod { mode } => format!("sets its mode to {mode:04o}"),
            Repair::Remove => "removes it".to_owned(),
            Repair::Show { .. } => "writes it again".to_owned(),
            Repair::SayWhy => "looks at it again and writes down why".to_owned(),
        }
    }

    /// What was done: `moved to corrupt/x`.
    pub fn done(&self) -> String {
        match self {
            Repair::Move { to } => format!("moved to {}", to.display()),
            Repair::OneName { kept } => format!("kept only {}", kept.display()),
            Repair::Chmod { mode } => format!("set its mode to {mode:04o}"),
            Repair::Remove => "removed".to_owned(),
            Repair::Show { .. } => "wrote it again".to_owned(),
            Repair::SayWhy => "looked at it again and wrote down why".to_owned(),
        }
    }
}

/// So often a problem must be seen before it is believed.
const LOOKS: usize = 3;
/// So long after a look the next one comes.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks at everything; with `repair`, mends what can be mended. Findings are sorted by path.
///
/// # Errors
/// Of the directories that hold all others. What cannot be looked at below them is a problem
/// among the findings.
pub fn check(spool: &Spool, repair: bool) -> disk::Result<Vec<Finding>> {
    let mut findings = look(spool)?;
    for _ in 1..LOOKS {
        if !findings
            .iter()
            .any(|finding| finding.level == Level::Problem)
        {
            break;
        }
        // A message may have moved on between two of our calls, and look like anything. It
        // does not look like the same thing each time.
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
        // What is below a directory that was closed can be looked at now.
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

/// What two looks agree on: problems that both have seen, and the later one's notes. What one of
/// them could not read, the other may have seen, so both are right.
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
        .filter(|one| !is_problem(one) || seen(one, &before))
        .cloned()
        .collect();
    let hidden = |finding: &Finding| !after.contains(finding) && seen(finding, &after);
    both.extend(before.into_iter().filter(hidden));
    both
}

/// How the finding begins that something could not be looked at.
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

/// Whether a directory is closed to its owner: then nothing can be said of what is below it.
fn keeps_out(finding: &Finding) -> bool {
    finding.what.ends_with(files::KEEPS_OUT)
}

/// One look at everything.
struct Look<'a> {
    spool: &'a Spool,
    owner: u32,
    /// Messages with a file that we may not read: that says nothing about what is in it.
    barred: HashSet<QueueId>,
    /// Inodes under a lock, once somebody wanted to know: the kernel takes its time.
    locked: Option<HashMap<u64, u32>>,
    /// Where messages were seen.
    seen: BTreeMap<QueueId, Vec<Queue>>,
    /// The other files of messages that were seen: in which directory, of which message.
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

    /// What cannot be looked at is a problem of its own, and no reason to stop looking.
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

    /// A free name in `corrupt/`: what is there already is not replaced.
    fn room_in_corrupt(&self, name: &str) -> disk::Result<PathBuf> {
        let mut to = PathBuf::from(format!("corrupt/{name}"));
        let mut number = 1;
        while self.spool.disk().stat(&to)?.is_some() {
            number += 1;
            to = PathBuf::from(format!("corrupt/{name}.{number}"));
        }
        Ok(to)
    }
}
