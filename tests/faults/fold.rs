//! A fold under faults: the history is the old one or the folded one, and every later run can read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, act, flush};
use mailspool::testing::queue::{Action, Hold, Then};
use mailspool::testing::spool::{Queue, Spool};
use tempfile::TempDir;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Injector, all_cases, sample};
use super::proof;
use super::queue::by;
use super::scratch::Scratch;
use super::world::{Clock, Ledger, accept, files, findings, runner, tempdir};

/// A message that was delivered to one of its three recipients and is deferred for the others, and is due.
struct FoldScene {
    dir: TempDir,
    id: QueueId,
    start: Timestamp,
}

/// What is recorded, and folds the history.
#[derive(Clone, Copy)]
enum Deed {
    Defer,
    Freeze,
}

impl FoldScene {
    fn new() -> FoldScene {
        let dir = tempdir();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let start = Timestamp::now();
        let to = ["a@ok.test", "b@first.test", "c@later.test"];
        let id = accept(&spool, Entrance::Active, "m", "s@sender.test", &to);
        let clock = Clock::at(start);
        for _ in 0..3 {
            clock.forward(1);
            let pass = runner(spool.clone(), &Ledger::default(), &clock, start).pass();
            assert_eq!(pass.unwrap().deferred, 2);
            assert_eq!(
                flush(&spool, &Action::Retry(by("now")), clock.now()).unwrap(),
                1
            );
        }
        FoldScene { dir, id, start }
    }

    fn history(&self, spool: &Path) -> PathBuf {
        spool.join(format!("history/{}", self.id))
    }

    /// Returns whether all of it succeeded.
    fn do_it(
        &self,
        deed: Deed,
        path: &Path,
        seam: Arc<dyn Seam>,
        ledger: &Ledger,
        clock: &Clock,
    ) -> bool {
        let Ok(spool) = Spool::open_through(path, Some(seam)) else {
            return false;
        };
        let spool = spool.folding_from(1);
        match deed {
            Deed::Defer => {
                let pass = runner(spool, ledger, clock, self.start).pass();
                pass.is_ok_and(|summary| summary.trouble == 0)
            }
            Deed::Freeze => {
                let freeze = Action::Freeze {
                    by: by("wait"),
                    until: None,
                    then: Then::Thaw,
                };
                let acted = act(&spool, &[self.id], &freeze, clock.now());
                acted.is_ok_and(|acted| acted == [(self.id, Acted::Done)])
            }
        }
    }

    fn judge(&self, deed: Deed, case: &Case) -> String {
        let dir = Scratch::copy(&self.dir.path().join("spool"));
        let path = dir.spool();
        let (ledger, clock) = (Ledger::default(), Clock::at(self.start));
        clock.forward(5);
        let done = self.do_it(deed, &path, Injector::new(*case), &ledger, &clock);
        let history = fs::read_to_string(self.history(&path)).unwrap();
        let is_folded = history.contains("\"event\":\"fold\"");

        let spool = Spool::open(&path).unwrap();
        let listing = spool.listing();
        let [(id, queue)] = listing.messages[..] else {
            panic!("{listing:?}");
        };
        let view = spool.view(id, queue, &listing).unwrap().unwrap();
        let state = view.content.unwrap().state;
        if let (Deed::Freeze, true) = (deed, done) {
            assert!(is_folded, "{history}");
            assert!(matches!(queue, Queue::Frozen(_)), "{queue:?}");
            assert!(
                matches!(state.hold, Hold::Frozen { .. }),
                "{:?}",
                state.hold
            );
        }
        if let Deed::Freeze = deed {
            let acted = act(&spool, &[id], &Action::Retry(by("enough")), clock.now());
            assert_eq!(acted.unwrap(), [(id, Acted::Done)]);
        }
        let mut rounds = 0;
        while !spool.listing().messages.is_empty() {
            let pass = runner(spool.clone().folding_from(1), &ledger, &clock, self.start);
            assert_eq!(pass.pass().unwrap().trouble, 0);
            assert_eq!(findings(&spool), []);
            rounds += 1;
            assert!(rounds < 6, "no end of it: {:?}", spool.listing());
            clock.forward(150);
        }
        let counts: Vec<(String, usize)> = ledger
            .counts()
            .into_iter()
            .map(|((_, to), n)| (to, n))
            .collect();
        let once = ["b@first.test", "c@later.test"].map(|to| (to.to_owned(), 1));
        assert_eq!(counts, once);
        assert_eq!(files(&path), [] as [PathBuf; 0]);
        drop(spool);
        dir.end();
        let history = if is_folded { "folded" } else { "not folded" };
        let done = if done { "done" } else { "not done" };
        format!("{done}, {history}")
    }

    fn explored(&self, name: &str, deed: Deed) {
        let seen: Vec<Seen> = {
            let dir = Scratch::copy(&self.dir.path().join("spool"));
            let seam = Injector::new(Case::clean());
            let (ledger, clock) = (Ledger::default(), Clock::at(self.start));
            clock.forward(5);
            let through = Arc::clone(&seam) as Arc<dyn Seam>;
            assert!(self.do_it(deed, &dir.spool(), through, &ledger, &clock));
            let history = fs::read_to_string(self.history(&dir.spool())).unwrap();
            assert!(history.starts_with("{") && history.contains("\"event\":\"fold\""));
            seam.seen()
        };
        let mut cases = all_cases(&seen, None);
        // Few of the calls that only read are needed.
        cases.retain(|case| {
            let seen = seen[case.at];
            proof::long() || seen.acts() || seen.name == "lock" || case.at % 7 == 0
        });
        let all = cases.len();
        let cases = sample(cases, 600);
        let tally = explore(name, &cases, |case| self.judge(deed, case));
        tally.print(&format!("{name}, {} calls, of {all}", seen.len()));
    }
}

#[test]
fn folding_at_a_deferral() {
    FoldScene::new().explored("fold, defer", Deed::Defer);
}

#[test]
fn folding_at_a_freeze() {
    FoldScene::new().explored("fold, freeze", Deed::Freeze);
}
