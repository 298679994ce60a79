//! What a failed sync covered is lost at a later power cut.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::Entrance;
use mailspool::testing::spool::Spool;
use nix::errno::Errno;

use super::accept::hand_in;
use super::explore::explore;
use super::inject::{Case, Fault, Injector, sample};
use super::losing::Disk;
use super::pass::Ended;
use super::queue::QueueScene;
use super::scratch::Scratch;
use super::world::{Clock, Ledger, files, is_whole, runner, tempdir, text};

/// A sync fails in a pass, the pass continues in its own way, then the power is cut.
fn by_one(queue: &QueueScene, case: &Case) -> String {
    let dir = Scratch::copy(&queue.path());
    let disk = Disk::new(&dir.spool());
    let (ledger, clock) = queue.beginning();
    let seam = disk.process(Injector::new(*case));
    let ended = queue.run(&dir.spool(), seam, &ledger, &clock, |runner| {
        runner.build().pass()
    });
    let lost = disk.lose();
    let twice = queue.work_off(&dir.spool(), &ended, &ledger, &clock, 1);
    dir.end();
    let why = ended.err().unwrap_or_default();
    assert!(!twice || why.ends_with("not recorded"), "doubled: {why}");
    format!("{} lost", lost.min(2))
}

/// The process is killed some calls after the failed sync. A second process, with syncs that succeed, is
/// killed at some call as well. Then the power is cut.
fn by_the_next(queue: &QueueScene, case: &Case, calls: usize) -> String {
    let dir = Scratch::copy(&queue.path());
    let disk = Disk::new(&dir.spool());
    let (ledger, clock) = queue.beginning();
    let pass = |case: Case| {
        let seam: Arc<dyn Seam> = disk.process(Injector::new(case));
        queue.run(&dir.spool(), seam, &ledger, &clock, |runner| {
            runner.build().pass()
        })
    };
    let first = pass(*case);
    clock.forward(1);
    let Fault::ThenStop(later) = case.fault else {
        panic!("{case:?}");
    };
    let second = pass(Case {
        fault: Fault::Stop,
        at: (case.at * 7 + later * 131) % calls,
        ..*case
    });
    let lost = disk.lose();
    // The run that froze a message reported it.
    let said = |ended: &Ended| {
        ended
            .as_ref()
            .is_err_and(|why| why.ends_with("not recorded"))
    };
    let ended = if said(&second) { second } else { first };
    let twice = queue.work_off(&dir.spool(), &ended, &ledger, &clock, 2);
    dir.end();
    format!(
        "{} lost{}",
        lost.min(2),
        if twice { ", one doubled" } else { "" }
    )
}

/// A message is submitted, a sync fails, and the power is cut.
fn accepted(template: &Path, entrance: Entrance, case: &Case) -> String {
    let dir = Scratch::copy(template);
    let disk = Disk::new(&dir.spool());
    let input = text("m");
    let accepted = hand_in(
        &dir.spool(),
        entrance,
        &input,
        disk.process(Injector::new(*case)),
    );
    let left = files(&dir.spool()).len();
    let lost = disk.lose();
    let spool = Spool::open(&dir.spool()).unwrap();
    let (ledger, start) = (Ledger::default(), Timestamp::now());
    let runner = runner(spool.clone(), &ledger, &Clock::at(start), start);
    assert_eq!(runner.pass().unwrap().trouble, 0);
    let got = ledger.all();
    assert!(got.iter().all(|one| is_whole(&one.bytes, &input)));
    assert!(accepted.is_err() || got.len() == 3, "accepted, and {got:?}");
    drop((spool, runner));
    dir.end();
    match (accepted, left) {
        (Ok(_), _) => format!("accepted, {lost} lost"),
        (Err(()), 0) => "refused".to_owned(),
        (Err(()), _) => format!("refused, left, {lost} lost"),
    }
}

#[test]
fn lost_in_acceptance() {
    let dir = tempdir();
    let template = dir.path().join("spool");
    Spool::create(&template).unwrap();
    for entrance in [Entrance::Active, Entrance::Incoming] {
        let scratch = Scratch::copy(&template);
        let seam = Injector::new(Case::clean());
        hand_in(
            &scratch.spool(),
            entrance,
            &text("m"),
            Arc::clone(&seam) as Arc<dyn Seam>,
        )
        .unwrap();
        let seen = seam.seen();
        let syncs = (0..seen.len()).filter(|at| seen[*at].is_sync());
        let cases: Vec<Case> = syncs
            .map(|at| Case {
                at,
                ..Case::clean()
            })
            .collect();
        let mut faults = vec![Fault::Once(Errno::EIO), Fault::ButMade(Errno::EIO)];
        faults.extend((0..12).map(Fault::ThenStop));
        let cases = with(&cases, &faults);
        let tally = explore("lost, accept", &cases, |case| {
            accepted(&template, entrance, case)
        });
        tally.print(&format!("lost, accept, {entrance:?}"));
    }
}

/// The syncs of a pass without faults, and how many calls it makes.
fn syncs(queue: &QueueScene) -> (Vec<Case>, usize) {
    let seen = queue.calls(Case::clean());
    let syncs = (0..seen.len()).filter(|at| seen[*at].is_sync());
    let case = |at| Case {
        at,
        ..Case::clean()
    };
    (syncs.map(case).collect(), seen.len())
}

fn with(cases: &[Case], faults: &[Fault]) -> Vec<Case> {
    let pairs = cases.iter().flat_map(|case| {
        faults.iter().map(|fault| Case {
            fault: *fault,
            ..*case
        })
    });
    pairs.collect()
}

#[test]
fn lost_after_one_process() {
    let queue = QueueScene::new();
    let (cases, _) = syncs(&queue);
    let cases = with(
        &cases,
        &[Fault::Once(Errno::EIO), Fault::ButMade(Errno::EIO)],
    );
    let all = cases.len();
    let tally = explore("lost", &sample(cases, 60), |case| by_one(&queue, case));
    tally.print(&format!("lost, of {all}"));
}

#[test]
fn lost_after_one_process_and_trusted_by_the_next() {
    let queue = QueueScene::new();
    let (cases, calls) = syncs(&queue);
    let faults: Vec<Fault> = (0..24).map(Fault::ThenStop).collect();
    let cases = with(&cases, &faults);
    let all = cases.len();
    let tally = explore("lost and trusted", &sample(cases, 60), |case| {
        by_the_next(&queue, case, calls)
    });
    tally.print(&format!("lost and trusted, of {all}"));
}

/// Tests the oracle: a file that was only synced again after a failed sync is lost; a file written anew is not.
#[test]
fn what_is_only_synced_again_is_lost() {
    let dir = tempdir();
    let disk = Disk::new(dir.path());
    let seam = disk.process(Injector::new(Case {
        fault: Fault::Once(Errno::EIO),
        ..Case::clean()
    }));
    struct Syncs(Arc<dyn Seam>);
    impl Seam for Syncs {
        fn before(&self, call: &Call<'_>) -> Verdict {
            match call {
                Call::SyncFile { .. } => self.0.before(call),
                _ => Verdict::Pass,
            }
        }
    }
    let seam = Arc::new(Syncs(seam));
    let through = mailspool::testing::disk::Disk::open(dir.path(), Some(seam)).unwrap();
    let write = |name: &str| {
        let file = through.create(Path::new(name)).unwrap();
        through.write_all(&file, b"text").unwrap();
        file
    };
    let file = write("again");
    through.durable(&[&file], &[]).unwrap_err();
    through.durable(&[&file], &[]).unwrap();
    let anew = write("anew");
    through.durable(&[&anew], &[]).unwrap();
    assert_eq!(disk.lose(), 1);
    assert_eq!(std::fs::read(dir.path().join("again")).unwrap(), b"");
    assert_eq!(std::fs::read(dir.path().join("anew")).unwrap(), b"text");
}
