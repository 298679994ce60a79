//! Suspensions under faults: a reported change holds, an unreported one can be repeated, and no fault lets
//! suspended mail through.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::{self, Seam};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, Level, act, check, wake};
use mailspool::testing::queue::{Action, Bucket};
use mailspool::testing::runner::Summary;
use mailspool::testing::spool::{Changed, Queue, Spool, Suspension, Target};
use tempfile::TempDir;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Injector, all_cases, sample};
use super::queue::by;
use super::scratch::Scratch;
use super::world::{Clock, Ledger, accept, files, findings, runner, tempdir};

const DOMAIN: &str = "ok.test";
const TO: &str = "a@ok.test";
const OTHER: &str = "b@other.test";
/// End of a suspension, in minutes. By the real clock no message is put off for more than an hour.
const END: i64 = 55;

/// A message to two recipients, one of which may be suspended, and one message to each of them.
struct QueueScene {
    dir: TempDir,
    start: Timestamp,
    ids: Vec<QueueId>,
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Suspend,
    /// Replaces an existing suspension.
    SuspendAnew,
    Resume,
    /// A run while some mail is suspended.
    Pass,
    /// A run after the suspension has expired.
    Over,
}

impl Deed {
    fn is_suspended_before(self) -> bool {
        self != Deed::Suspend
    }
}

impl QueueScene {
    fn new(deed: Deed, target: &Target) -> QueueScene {
        let dir = tempdir();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let mail: [(&str, &[&str]); 3] = [
            ("both", &[TO, OTHER]),
            ("suspended", &[TO]),
            ("other", &[OTHER]),
        ];
        let send = |(name, to): (&str, &[&str])| {
            accept(&spool, Entrance::Active, name, "s@sender.test", to)
        };
        let ids = mail.map(send).to_vec();
        let start = Timestamp::now();
        let target = target.clone();
        let queue = QueueScene {
            dir,
            start,
            ids,
            target,
        };
        if deed.is_suspended_before() {
            let until = match deed {
                Deed::Over | Deed::SuspendAnew => 30,
                _ => END,
            };
            let changed = queue.suspend(&spool, until).unwrap();
            assert_eq!(changed, Changed::Done);
        }
        if deed == Deed::Over || deed == Deed::Resume {
            let pass = queue.pass(&spool, &Ledger::default(), 1);
            assert_eq!(pass.unwrap().delivered as usize, queue.others_before(deed));
        }
        queue
    }

    /// How many deliveries to the other domain happened before the operation.
    fn others_before(&self, deed: Deed) -> usize {
        match deed {
            Deed::Over | Deed::Resume if self.target != Target::All => 2,
            _ => 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn at(&self, minutes: i64) -> Timestamp {
        self.start + SignedDuration::from_mins(minutes)
    }

    fn suspend(&self, spool: &Spool, until: i64) -> disk::Result<Changed> {
        spool.suspend(&Suspension {
            target: self.target.clone(),
            since: self.start,
            until: Some(self.at(until)),
            by: by("because"),
        })
    }

    fn pass(&self, spool: &Spool, ledger: &Ledger, minutes: i64) -> Result<Summary, String> {
        let clock = Clock::at(self.at(minutes));
        let runner = runner(spool.clone(), ledger, &clock, self.start);
        runner.pass().map_err(|error| error.to_string())
    }

    /// Runs the operation. Returns whether it was reported as done.
    fn do_it(&self, path: &Path, deed: Deed, ledger: &Ledger, seam: Arc<Injector>) -> bool {
        let seam: Arc<dyn Seam> = seam;
        let Ok(spool) = Spool::open_through(path, Some(seam)) else {
            return false;
        };
        let done = |changed: disk::Result<Changed>| changed.is_ok_and(|one| one == Changed::Done);
        match deed {
            Deed::Suspend | Deed::SuspendAnew => done(self.suspend(&spool, END)),
            Deed::Resume => {
                done(spool.resume(&self.target.file_name()))
                    && wake(&spool, &|_, _| true, self.at(2)).is_ok()
            }
            Deed::Pass => self.pass(&spool, ledger, 0).is_ok(),
            Deed::Over => self.pass(&spool, ledger, 40).is_ok(),
        }
    }

    fn delivered(&self, ledger: &Ledger, to: &str) -> usize {
        let counts = ledger.counts();
        counts.iter().filter(|((_, one), _)| one == to).count()
    }

    fn nothing_went(&self, ledger: &Ledger) {
        let all = self.target == Target::All;
        for to in [TO, OTHER].iter().take(1 + usize::from(all)) {
            assert_eq!(self.delivered(ledger, to), 0, "although it is suspended");
        }
    }

    /// An operator thaws what could not be recorded.
    fn thaw(&self, spool: &Spool) {
        for (id, queue) in spool.messages().unwrap() {
            if queue == Queue::Frozen(Bucket::Never) {
                let thaw = Action::Thaw(by("looked at"));
                let acted = act(spool, &[id], &thaw, self.at(0)).unwrap();
                assert_eq!(acted, [(id, Acted::Done)]);
            }
        }
    }

    /// Runs passes until the queue is empty.
    fn work_off(&self, spool: &Spool, ledger: &Ledger) {
        for round in 1..6 {
            self.thaw(spool);
            self.pass(spool, ledger, 180 * round).unwrap();
        }
        assert_eq!(spool.messages().unwrap(), []);
    }

    fn judge(&self, deed: Deed, case: &Case) -> String {
        let dir = Scratch::copy(&self.path());
        let ledger = Ledger::default();
        let done = self.do_it(&dir.spool(), deed, &ledger, Injector::new(*case));
        let spool = Spool::open(&dir.spool()).unwrap();
        if deed != Deed::Over {
            self.nothing_went(&ledger);
        }
        self.thaw(&spool);
        let mut found = findings(&spool);
        found.retain(|finding| finding.level > Level::Note);
        assert_eq!(found, []);
        let is_suspended = || !spool.suspended().unwrap().is_empty();
        match deed {
            Deed::Suspend | Deed::SuspendAnew | Deed::Pass => {
                if deed != Deed::Pass && !done {
                    assert_eq!(self.suspend(&spool, END).unwrap(), Changed::Done);
                }
                assert!(is_suspended());
                self.pass(&spool, &ledger, 40).unwrap();
                self.nothing_went(&ledger);
                assert_eq!(
                    spool.resume(&self.target.file_name()).unwrap(),
                    Changed::Done
                );
            }
            Deed::Resume => {
                let again = spool.resume(&self.target.file_name()).unwrap();
                assert!(!done || again == Changed::Absent, "reported as resumed");
                assert!(!is_suspended());
            }
            Deed::Over => {}
        }
        wake(&spool, &|_, _| true, self.at(41)).unwrap();
        self.work_off(&spool, &ledger);
        for (to, before) in [(TO, 0), (OTHER, self.others_before(deed))] {
            assert_eq!(before + self.delivered(&ledger, to), 2, "{to}");
        }
        // A kill may leave half-written files and nothing else. The repair removes them.
        check(&spool, true).unwrap();
        assert_eq!(findings(&spool), []);
        assert_eq!(files(spool.path()), [] as [PathBuf; 0]);
        assert!(deed == Deed::Over || !is_suspended());
        drop(spool);
        dir.end();
        if done {
            "reported as done".to_owned()
        } else {
            "reported as failed".to_owned()
        }
    }
}

fn explored(name: &str, deed: Deed) {
    explored_of(name, deed, &Target::destination(DOMAIN));
}

fn explored_of(name: &str, deed: Deed, target: &Target) {
    let queue = QueueScene::new(deed, target);
    assert_eq!(queue.ids.len(), 3);
    let seen: Vec<Seen> = {
        let dir = Scratch::copy(&queue.path());
        let seam = Injector::new(Case::clean());
        let ledger = Ledger::default();
        assert!(queue.do_it(&dir.spool(), deed, &ledger, Arc::clone(&seam)));
        seam.seen()
    };
    let cases = all_cases(&seen, None);
    let all = cases.len();
    let cases = sample(cases, 80);
    let tally = explore(name, &cases, |case| queue.judge(deed, case));
    tally.print(&format!("{name}, {} calls, of {all}", seen.len()));
}

#[test]
fn suspending_and_resuming() {
    explored("suspend", Deed::Suspend);
    explored("suspend anew", Deed::SuspendAnew);
    explored("resume", Deed::Resume);
}

#[test]
fn running_with_suspended_mail() {
    explored("pass, suspended", Deed::Pass);
    explored("pass, run out", Deed::Over);
}

#[test]
fn suspending_and_resuming_everything() {
    explored_of("suspend everything", Deed::Suspend, &Target::All);
    explored_of("resume everything", Deed::Resume, &Target::All);
    explored_of("pass, all suspended", Deed::Pass, &Target::All);
}
