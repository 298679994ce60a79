//! A story: a spool, the recorded operations on it, and the ends that its messages must have.

use std::path::Path;
use std::sync::Arc;

use super::explore::Case;
use super::judge::{End, Fate, Times, work_off};
use super::log::{Recorder, Step};
use super::model::Renames;
use super::shared::tempdir;
use super::stage::Stage;
use super::tree::Tree;
use super::world::{Calm, Known, Ledger, Site};

/// The title of the story in which an outcome can be recorded nowhere.
pub const UNRECORDED: &str = "an outcome that is not recorded";

/// A recorded story.
pub struct Story {
    pub title: String,
    /// One in this many of its states is judged; all with `MAILSPOOL_LONG`.
    pub one_in: usize,
    /// What a power cut may leave of a rename on its file system.
    pub renames: Renames,
    pub base: Tree,
    pub known: Known,
    pub steps: Vec<Step>,
    pub end: Tree,
    pub fates: Vec<Fate>,
    pub times: Times,
    /// The message that is submitted once more under its key during the recovery.
    pub key: Option<&'static str>,
    /// Whether all processes, also those of the recovery, fold histories however short they are.
    pub folds: bool,
    /// Records the recovery, if it is to be cut again.
    pub recorder: Option<Arc<Recorder>>,
}

/// Whether a process is killed after this step.
pub type When = fn(&Step) -> bool;

/// Returns a fate with one end, the same before and after the report.
pub fn fate(name: &'static str, to: &'static str, end: End) -> Fate {
    changed(name, to, &[end], &[end])
}

/// Returns a fate with the permitted ends before and after the action is reported as done.
pub fn changed(name: &'static str, to: &'static str, before: &[End], after: &[End]) -> Fate {
    Fate {
        name,
        to,
        before: before.to_vec(),
        after: after.to_vec(),
        held: None,
    }
}

impl Story {
    /// Prepares a spool, then records what is done to it.
    pub fn record(
        title: &str,
        fates: Vec<Fate>,
        prepare: impl FnOnce(&Stage),
        deed: impl FnOnce(&Stage),
    ) -> Story {
        let _calm = Calm::for_mail_to(fates.iter().map(|fate| fate.to));
        let mut stage = Stage::new();
        prepare(&stage);
        let known = stage.begin();
        let base = Tree::read(stage.dir());
        deed(&stage);
        Story {
            title: title.to_owned(),
            one_in: 3,
            renames: Renames::Loose,
            base,
            known,
            steps: stage.recorder().steps(),
            end: Tree::read(stage.dir()),
            fates,
            times: stage.times(),
            key: None,
            folds: stage.folds(),
            recorder: None,
        }
    }

    /// Whether an operator finally thaws what is held because an answer was lost or an outcome is not recorded.
    pub fn is_looked_at(&self) -> bool {
        let mut fates = self.fates.iter();
        fates.any(|fate| fate.to.ends_with("@held.test")) || self.title == UNRECORDED
    }

    /// Returns the recovery from a cut as another story.
    pub fn again(&self, case: &Case) -> Story {
        let _calm = Calm::for_mail_to(self.fates.iter().map(|fate| fate.to));
        let dir = tempdir();
        case.tree.write(dir.path());
        let recorder = Recorder::new(dir.path());
        let ledger = Ledger::recorded(&recorder);
        let mut known = case.known.clone();
        known.note(&case.tree);
        let mut again = Story {
            title: format!("{}, again", self.title),
            one_in: 1,
            renames: self.renames,
            base: case.tree.clone(),
            known,
            steps: Vec::new(),
            end: Tree::default(),
            fates: self.fates.clone(),
            times: self.times,
            key: self.key,
            folds: self.folds,
            recorder: Some(Arc::clone(&recorder)),
        };
        let (start, cut) = (self.times.start, self.times.cut);
        let clock = super::shared::Clock::at(case.known.now.unwrap_or(cut));
        let site = Site {
            dir: dir.path(),
            ledger: &ledger,
            clock: &clock,
            start,
            recorder: Some((&recorder, 0)),
            folds: self.folds,
        };
        let spool = site.spool().unwrap();
        let now = case.known.now;
        let (cut, _) = work_off(dir.path(), &spool, &ledger, &again, now, false);
        again.recorder = None;
        again.steps = recorder.steps();
        again.end = Tree::read(dir.path());
        again.times = Times { start, cut };
        again
    }
}

/// Whether a path is in a directory of the spool.
pub fn lies_in(path: &Path, dir: &str) -> bool {
    path.strip_prefix("spool")
        .is_ok_and(|path| path.starts_with(dir))
}
