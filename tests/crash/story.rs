//! A story: a spool, what is done to it with the log running, and what must come of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use mailspool::accept::Acceptor;
use mailspool::disk::{self, Method, Seam};
use mailspool::message::{Door, QueueId};
use mailspool::operator::{Acted, act};
use mailspool::queue::{Action, By};
use mailspool::runner::Error;
use mailspool::spool::Spool;
use tempfile::TempDir;

use super::explore::Case;
use super::judge::{End, Fate, Times, work_off};
use super::log::{Recorder, Step};
use super::shared::{Clock, limits, request, tempdir, text};
use super::tree::Tree;
use super::world::{Known, Ledger, runner};

/// What was recorded of a story.
pub struct Story {
    pub title: String,
    pub base: Tree,
    pub known: Known,
    pub steps: Vec<Step>,
    pub end: Tree,
    pub fates: Vec<Fate>,
    pub times: Times,
}

/// Whether a step is the one behind which something happens.
pub type When = fn(&Step) -> bool;

/// A spool and hands to do things with. At first nothing is recorded.
pub struct Stage {
    dir: TempDir,
    pub method: Method,
    pub clock: Clock,
    start: Timestamp,
    ledger: Ledger,
    known: Mutex<Known>,
    recorder: Option<Arc<Recorder>>,
}

/// What must become of one recipient's mail, whatever is acknowledged.
pub fn fate(name: &'static str, to: &'static str, end: End) -> Fate {
    changed(name, to, &[end], &[end])
}

/// What must become of it before and after the deed is reported as done.
pub fn changed(name: &'static str, to: &'static str, before: &[End], after: &[End]) -> Fate {
    Fate {
        name,
        to,
        before: before.to_vec(),
        after: after.to_vec(),
    }
}

pub fn by() -> By {
    By {
        by: "operator".into(),
        reason: Some("because".into()),
    }
}

impl Story {
    /// Prepares a spool, then records what is done to it.
    pub fn record(
        title: &str,
        method: Method,
        fates: Vec<Fate>,
        prepare: impl FnOnce(&Stage),
        deed: impl FnOnce(&Stage),
    ) -> Story {
        let start = Timestamp::now();
        let mut stage = Stage {
            dir: tempdir(),
            method,
            clock: Clock::at(start),
            start,
            ledger: Ledger::default(),
            known: Mutex::default(),
            recorder: None,
        };
        Spool::create(&stage.path(), None).unwrap();
        stage.clock.forward(1);
        prepare(&stage);
        let mut known = std::mem::take(stage.known.get_mut().unwrap());
        for delivery in stage.ledger.all() {
            delivery.steps().iter().for_each(|step| known.learn(step));
        }
        known.settled = known.delivered.clone();
        let base = Tree::read(stage.dir.path());
        let recorder = Arc::new(Recorder::new(stage.dir.path(), &stage.path(), method));
        stage.ledger = Ledger::recorded(&recorder);
        stage.recorder = Some(Arc::clone(&recorder));
        deed(&stage);
        Story {
            title: format!("{title}, {method:?}"),
            base,
            known,
            steps: recorder.steps(),
            end: Tree::read(stage.dir.path()),
            fates,
            times: Times {
                start,
                cut: stage.clock.now(),
            },
        }
    }
}

impl Story {
    /// The work on what a cut left, as a story of its own.
    pub fn again(&self, case: &Case, method: Method) -> Story {
        let dir = tempdir();
        case.tree.write(dir.path());
        let path = dir.path().join("spool");
        let recorder = Arc::new(Recorder::new(dir.path(), &path, method));
        let seam: Arc<dyn Seam> = recorder.clone();
        let spool = Spool::open_through(&path, Some(seam)).unwrap();
        let ledger = Ledger::recorded(&recorder);
        let (cut, _) = work_off(&spool, &ledger, self.times);
        let mut known = case.known.clone();
        known.note(&case.tree);
        Story {
            title: format!("{}, again {method:?}", self.title),
            base: case.tree.clone(),
            known,
            steps: recorder.steps(),
            end: Tree::read(dir.path()),
            fates: self.fates.clone(),
            times: Times { cut, ..self.times },
        }
    }
}

impl Stage {
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    pub fn spool(&self) -> Spool {
        let seam = self.recorder.clone();
        let seam = seam.map(|seam| -> Arc<dyn Seam> { seam });
        Spool::open_through(&self.path(), seam).unwrap()
    }

    fn mark(&self, step: Step) {
        match &self.recorder {
            Some(recorder) => recorder.mark(step),
            None => self.known.lock().unwrap().learn(&step),
        }
    }

    fn recorder(&self) -> &Recorder {
        self.recorder.as_deref().unwrap()
    }

    pub fn accept(&self, door: Door, name: &'static str, sender: &str, to: &[&str]) {
        let acceptor = Acceptor::new(self.spool(), limits());
        let request = request(door, sender, to);
        let accepted = acceptor.accept(request, text(name).as_slice());
        if let Ok(id) = accepted {
            self.mark(Step::Acked(name, id));
        }
    }

    /// From an application, from somebody.
    pub fn send(&self, name: &'static str, to: &[&str]) {
        self.accept(Door::Active, name, "s@sender.test", to);
    }

    pub fn try_pass(&self) -> Result<(), Error> {
        let runner = runner(self.spool(), &self.ledger, &self.clock, self.start);
        runner.pass().map(drop)
    }

    pub fn pass(&self) {
        self.try_pass().unwrap();
    }

    /// A pass when so much later.
    pub fn pass_after(&self, minutes: i64) {
        self.clock.forward(minutes);
        self.pass();
    }

    /// The process is killed behind a step like this; nothing it does then has any effect.
    pub fn killed_behind(&self, when: When, deed: impl FnOnce()) {
        self.recorder().stop_behind(when);
        deed();
        assert!(self.recorder().revive(), "it was not killed");
    }

    pub fn ids(&self) -> Vec<QueueId> {
        let listing = Spool::open(&self.path()).unwrap().listing().unwrap();
        listing.messages.into_iter().map(|(id, _)| id).collect()
    }

    pub fn try_act(&self, action: &Action) -> disk::Result<Vec<(QueueId, Acted)>> {
        act(&self.spool(), &self.ids(), action, self.clock.now())
    }

    /// Does an operator's action to everything in the queue.
    pub fn act(&self, action: &Action) {
        let acted = self.try_act(action).unwrap();
        let done = |(_, acted): &(QueueId, Acted)| *acted == Acted::Done;
        assert!(acted.iter().all(done), "{acted:?}");
        self.mark(Step::Did);
    }

    /// What an operator did while the spool was prepared is over.
    pub fn forget_deed(&self) {
        self.known.lock().unwrap().did = false;
    }

    /// Asks for an action on the first message while somebody has it in hand.
    pub fn ask(&self, action: &Action) {
        let (spool, id) = (Spool::open(&self.path()).unwrap(), self.ids()[0]);
        let place = spool.locate(id).unwrap().unwrap();
        let hand = spool.lock(place, id).unwrap();
        let acted = act(&self.spool(), &[id], action, self.clock.now()).unwrap();
        assert_eq!(acted, [(id, Acted::Requested)]);
        self.mark(Step::Did);
        drop(hand);
    }
}

/// Whether a path lies in a directory of the spool.
pub fn lies_in(path: &Path, dir: &str) -> bool {
    path.strip_prefix("spool")
        .is_ok_and(|path| path.starts_with(dir))
}
