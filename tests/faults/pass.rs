//! A runner's pass under faults, over a queue with a message of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailspool::testing::disk::Seam;
use mailspool::testing::message::QueueId;
use mailspool::testing::operator::{Acted, Finding, Level, Repair, act, check};
use mailspool::testing::queue::{Action, Bucket, Hold, QueueUntil, Then};
use mailspool::testing::runner::{Error, RunnerBuilder, Summary};
use mailspool::testing::spool::{Queue, Spool};
use nix::errno::Errno;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Fault, Injector, all_cases, sample};
use super::queue::{End, QueueScene, by};
use super::scratch::Scratch;
use super::world::{Clock, Ledger, configured, files, findings, is_whole, text};

/// How a run ended: its summary, or why it stopped.
pub type Ended = Result<Summary, String>;

impl QueueScene {
    /// Runs a runner through a seam.
    pub fn run(
        &self,
        spool: &Path,
        seam: Arc<dyn Seam>,
        ledger: &Ledger,
        clock: &Clock,
        run: impl Fn(RunnerBuilder) -> Result<Summary, Error>,
    ) -> Ended {
        let spool = Spool::open_through(spool, Some(seam)).map_err(|error| error.to_string())?;
        let spool = if self.folds {
            spool.folding_from(1)
        } else {
            spool
        };
        let runner = configured(spool, ledger, clock, self.start)
            .retry(self.policy())
            .delays(QueueScene::delays());
        run(runner).map_err(|error| match error {
            Error::NotRecorded { id, .. } => format!("{id} not recorded"),
            error => error.to_string(),
        })
    }

    /// Runs one case from beginning to end and returns how it ended.
    pub fn judge(
        &self,
        case: &Case,
        run: impl Fn(RunnerBuilder) -> Result<Summary, Error>,
    ) -> String {
        let dir = Scratch::copy(&self.path());
        let (ledger, clock) = self.beginning();
        let ended = self.run(&dir.spool(), Injector::new(*case), &ledger, &clock, run);
        let twice = self.work_off(&dir.spool(), &ended, &ledger, &clock, 1);
        dir.end();
        // A single failing call must not lose a record, unless the run reports it.
        if let (true, Fault::Once(_) | Fault::ButMade(_) | Fault::Half(_)) = (twice, case.fault) {
            let why = ended.clone().unwrap_err();
            assert!(why.ends_with("not recorded"), "doubled, although: {why}");
        }
        let kind = match &ended {
            Ok(summary) if summary.trouble > 0 => "through, with trouble",
            Ok(_) => "through",
            Err(why) if why.ends_with("not recorded") => "stopped, not recorded",
            Err(_) => "stopped",
        };
        if twice {
            format!("{kind}, one in flight doubled")
        } else {
            kind.to_owned()
        }
    }

    /// The moment at which some message of every kind is due.
    pub fn beginning(&self) -> (Ledger, Clock) {
        let clock = Clock::at(self.start);
        clock.forward(20);
        (Ledger::default(), clock)
    }

    /// Finishes, without faults, what `runs` runs have left. Returns whether any recipient got a message
    /// twice. With two runs, both were killed and then the power was cut.
    pub fn work_off(
        &self,
        path: &Path,
        ended: &Ended,
        ledger: &Ledger,
        clock: &Clock,
        runs: usize,
    ) -> bool {
        let spool = Spool::open(path).unwrap();
        self.thaw_what_could_not_be_recorded(&spool, ended, clock);
        let mut rounds = 0;
        loop {
            let runner = configured(spool.clone(), ledger, clock, self.start)
                .retry(self.policy())
                .delays(QueueScene::delays());
            let summary = runner.build().pass();
            let summary = summary.unwrap_or_else(|error| panic!("a clean pass: {error}"));
            assert_eq!(summary.trouble, 0, "{summary:?}");
            let mut problems = findings(&spool);
            // The quarantine is not synced. A repair finds a lost reason.
            let may_be_lost =
                |finding: &Finding| runs > 1 && finding.repair == Some(Repair::SayWhy);
            problems.retain(|finding| finding.level > Level::Note && !may_be_lost(finding));
            assert_eq!(problems, []);
            let left = spool.listing().messages;
            if left
                .iter()
                .all(|(_, queue)| matches!(queue, Queue::Frozen(_) | Queue::Corrupt))
                && summary.messages == 0
            {
                break;
            }
            rounds += 1;
            assert!(rounds < 12, "no end of it: {left:?}");
            clock.forward(150);
        }
        let is_unrecorded = (ended.as_ref()).is_err_and(|why| why.ends_with("not recorded"));
        self.verify(&spool, ledger, runs, is_unrecorded);
        ledger.counts().values().any(|count| *count > 1)
    }

    /// A message with an unrecorded outcome is frozen only by its queue, and an operator decides. This
    /// operator thaws it.
    fn thaw_what_could_not_be_recorded(&self, spool: &Spool, ended: &Ended, clock: &Clock) {
        let listing = spool.listing();
        for (id, queue) in &listing.messages {
            if *queue != Queue::Frozen(Bucket::Never) {
                continue;
            }
            let view = spool.view(*id, *queue, &listing).unwrap().unwrap();
            let content = view.content.unwrap_or_else(|why| {
                let name = self
                    .expected
                    .iter()
                    .find(|one| one.id == *id)
                    .map(|one| one.name);
                panic!("{name:?} in {queue:?}: {why}")
            });
            if content.state.hold != Hold::None {
                continue;
            }
            assert_eq!(ended.clone().unwrap_err(), format!("{id} not recorded"));
            let acted = act(spool, &[*id], &Action::Thaw(by("looked at")), clock.now()).unwrap();
            assert_eq!(acted, [(*id, Acted::Done)]);
        }
    }

    fn verify(&self, spool: &Spool, ledger: &Ledger, runs: usize, is_unrecorded: bool) {
        let counts = ledger.counts();
        let twice: BTreeSet<QueueId> = counts
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|((id, _), _)| *id)
            .collect();
        // Each run has one message in flight at a time.
        assert!(
            twice.len() <= runs,
            "more than those in flight were doubled: {counts:?}"
        );
        assert!(counts.values().all(|count| *count <= 2), "{counts:?}");

        let notices = ledger.notices();
        let mut wanted = BTreeMap::new();
        for one in &self.expected {
            for (to, end) in &one.recipients {
                let count = counts
                    .get(&(one.id, (*to).to_owned()))
                    .copied()
                    .unwrap_or(0);
                let told = |what: &str| {
                    let key = (one.id.to_string(), format!("{what}{to}"));
                    notices.get(&key).map_or(0, BTreeSet::len)
                };
                let told = [told(""), told("delivered "), told("delayed ")];
                // A recipient in flight when the process ended waits for a while, so it may cause a delay notice.
                let [failed, delivered, delayed] = told;
                let right = match end {
                    End::Delivered => count >= 1 && failed + delivered == 0 && delayed <= 1,
                    End::Told => count == 0 && (failed, delivered) == (1, 0) && delayed <= 1,
                    // Delivered, and only the block could record it.
                    End::Heard if is_unrecorded && told == [0, 0, 0] => count == 1,
                    End::Heard => count >= 1 && (failed, delivered) == (0, 1) && delayed == 0,
                    // The record of a deferral or an interruption is not synced. If the power cut took it,
                    // the next attempt came earlier and delivered, so there was no delay to report.
                    End::Warned if runs > 1 && told == [0, 0, 0] => count == 1,
                    End::Warned => count >= 1 && told == [0, 0, 1],
                    End::Nothing => count == 0 && told == [0, 0, 0],
                };
                assert!(
                    right,
                    "{} to {to}: {end:?}, but delivered {count} times, told {told:?} times",
                    one.name
                );
                for what in ["", "delivered ", "delayed "] {
                    wanted.insert((one.id.to_string(), format!("{what}{to}")), ());
                }
            }
        }
        assert!(
            notices.keys().all(|key| wanted.contains_key(key)),
            "{notices:?}"
        );
        for delivery in ledger.all().iter().filter(|key| !key.sender.is_empty()) {
            let one = self.expected.iter().find(|one| one.id == delivery.id);
            let one = one.unwrap_or_else(|| panic!("never accepted: {delivery:?}"));
            assert!(
                is_whole(&delivery.bytes, &text(one.name)),
                "torn: {delivery:?}"
            );
        }
        self.verify_rest(spool, runs);
    }

    /// Asserts that exactly the expected files are left.
    fn verify_rest(&self, spool: &Spool, runs: usize) {
        let (frozen, corrupt) = (self.frozen, self.corrupt);
        let mut expected: Vec<PathBuf> = ["sender", "recipients", "transport"]
            .iter()
            .flat_map(|info| [frozen, corrupt].map(|id| format!("info/{info}/{id}").into()))
            .collect();
        let queue = spool.locate(frozen).unwrap().queue().unwrap();
        expected.extend([
            format!("history/{frozen}").into(),
            queue.path(frozen),
            format!("corrupt/{corrupt}").into(),
            format!("corrupt/{corrupt}.reason").into(),
        ]);
        expected.sort();
        // A kill may leave half of a history that was being rewritten. A single run leaves none.
        let half = PathBuf::from(format!("history/{frozen}.part"));
        if runs > 1 && spool.path().join(&half).exists() {
            let removed =
                |finding: &Finding| finding.path == half && finding.repaired == Some(true);
            assert!(check(spool, true).unwrap().iter().any(removed));
        }
        let left = files(spool.path());
        assert_eq!(left, expected, "not what is left on purpose");
        // A quarantined message may have lost its reason.
        let mut found = findings(spool);
        if !found.is_empty()
            && found
                .iter()
                .all(|finding| finding.repair == Some(Repair::SayWhy))
        {
            let repaired = check(spool, true).unwrap();
            assert!(
                repaired
                    .iter()
                    .all(|finding| finding.repaired != Some(false))
            );
            found = findings(spool);
        }
        assert_eq!(found, []);
        let listing = spool.listing();
        for (id, queue) in &listing.messages {
            let view = spool.view(*id, *queue, &listing).unwrap().unwrap();
            match (queue, view.content) {
                (Queue::Frozen(_), Ok(content)) => {
                    let hold = content.state.hold;
                    let Hold::Frozen { until, then, .. } = hold else {
                        panic!("{hold:?}");
                    };
                    assert_eq!(then, Then::Discard);
                    assert_eq!(*queue, Queue::from(QueueUntil::Frozen(until)));
                }
                (Queue::Corrupt, Err(reason)) => assert!(reason.contains("seal"), "{reason}"),
                (queue, content) => panic!("{queue:?}: {content:?}"),
            }
        }
    }

    /// The calls of a run without faults.
    pub fn calls(&self, case: Case) -> Vec<Seen> {
        let dir = Scratch::copy(&self.path());
        let (ledger, clock) = self.beginning();
        let seam = Injector::new(case);
        let through = Arc::clone(&seam) as Arc<dyn Seam>;
        let summary = self.run(&dir.spool(), through, &ledger, &clock, |runner| {
            runner.build().pass()
        });
        let summary = summary.unwrap();
        assert_eq!(
            (summary.trouble, summary.corrupt, summary.notices),
            (0, 1, 9),
            "{summary:?}"
        );
        dir.end();
        seam.seen()
    }
}

fn explored(
    what: &str,
    queue: &QueueScene,
    case: Case,
    wanted: impl Fn(Fault) -> bool,
    most: usize,
) {
    let seen = queue.calls(case);
    let mut cases = all_cases(&seen, case.length);
    cases.retain(|case| wanted(case.fault));
    let all = cases.len();
    let cases = sample(cases, most);
    let tally = explore(what, &cases, |case| {
        queue.judge(case, |runner| runner.build().pass())
    });
    tally.print(&format!("{what}, {} calls, of {all}", seen.len()));
}

#[test]
fn pass_stopped_after_each_call() {
    let queue = QueueScene::new();
    let wanted = |fault| fault == Fault::Stop;
    explored("pass, stopped", &queue, Case::clean(), wanted, 70);
}

#[test]
fn pass_with_one_failing_call() {
    let queue = QueueScene::new();
    let wanted = |fault| matches!(fault, Fault::Once(_));
    explored("pass, once", &queue, Case::clean(), wanted, 70);
}

#[test]
fn pass_with_every_call_failing_from_one_on() {
    let queue = QueueScene::new();
    let wanted = |fault| matches!(fault, Fault::ForGood(_));
    explored("pass, for good", &queue, Case::clean(), wanted, 70);
}

#[test]
fn pass_with_calls_that_are_made_and_fail() {
    let queue = QueueScene::new();
    let wanted = |fault| matches!(fault, Fault::ButMade(_) | Fault::Half(_));
    explored("pass, made", &queue, Case::clean(), wanted, 70);
}

#[test]
fn pass_with_two_failing_calls() {
    let queue = QueueScene::new();
    let wanted = |fault| matches!(fault, Fault::AndThen(_));
    explored("pass, two", &queue, Case::clean(), wanted, 70);
}

/// Each history is folded as soon as it has doubled.
#[test]
fn pass_that_folds() {
    let mut queue = QueueScene::new();
    queue.folds = true;
    let wanted = |fault| {
        let one = matches!(fault, Fault::Once(_) | Fault::ButMade(_) | Fault::Half(_));
        one || matches!(fault, Fault::Stop | Fault::AndThen(_))
    };
    explored("pass, folding", &queue, Case::clean(), wanted, 140);
}

/// The lines of the history are written in pieces here, and are torn if the process ends between them.
#[test]
fn pass_with_short_reads_and_writes() {
    let queue = QueueScene::new();
    let case = Case {
        length: Some(100),
        ..Case::clean()
    };
    let wanted = |fault| {
        let full = [Errno::ENOSPC, Errno::EIO];
        fault == Fault::Stop
            || full
                .iter()
                .any(|errno| fault == Fault::ForGood(*errno) || fault == Fault::Once(*errno))
    };
    explored("pass, short", &queue, case, wanted, 70);
}
