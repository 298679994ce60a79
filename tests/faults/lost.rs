//! What a failed sync covered is lost indeed, when the power goes off later.

use std::sync::Arc;

use mailspool::disk::{Method, Seam};
use nix::errno::Errno;

use super::explore::explore;
use super::inject::{Case, Fault, Injector, sample};
use super::losing::Disk;
use super::pass::Ended;
use super::queue::Queue;
use super::scratch::Scratch;

/// A sync fails in a pass, which goes on as it thinks right; then the power goes off.
fn by_one(queue: &Queue, case: &Case) -> String {
    let dir = Scratch::copy(&queue.path());
    let disk = Disk::new(&dir.spool());
    let (ledger, clock) = queue.beginning();
    let seam = disk.process(Injector::new(*case));
    let ended = queue.run(&dir.spool(), seam, &ledger, &clock, |runner| runner.pass());
    let lost = disk.lose();
    let twice = queue.work_off(&dir.spool(), &ended, &ledger, &clock);
    dir.end();
    let why = ended.err().unwrap_or_default();
    assert!(!twice || why.ends_with("not recorded"), "doubled: {why}");
    format!("{} lost", lost.min(2))
}

/// The process is killed some calls behind the failed sync. Another one comes, whose syncs
/// succeed, and is killed as well, somewhere; then the power goes off.
fn by_the_next(queue: &Queue, case: &Case, calls: usize) -> String {
    let dir = Scratch::copy(&queue.path());
    let disk = Disk::new(&dir.spool());
    let (ledger, clock) = queue.beginning();
    let pass = |case: Case| {
        let seam: Arc<dyn Seam> = disk.process(Injector::new(case));
        queue.run(&dir.spool(), seam, &ledger, &clock, |runner| runner.pass())
    };
    let first = pass(*case);
    clock.forward(1);
    let Fault::ThenStop(behind) = case.fault else {
        panic!("{case:?}");
    };
    let second = pass(Case {
        fault: Fault::Stop,
        at: (case.at * 7 + behind * 131) % calls,
        ..*case
    });
    let lost = disk.lose();
    // Whichever of them froze a message said so.
    let said = |ended: &Ended| {
        ended
            .as_ref()
            .is_err_and(|why| why.ends_with("not recorded"))
    };
    let ended = if said(&second) { second } else { first };
    let twice = queue.work_off(&dir.spool(), &ended, &ledger, &clock);
    dir.end();
    format!(
        "{} lost{}",
        lost.min(2),
        if twice { ", one doubled" } else { "" }
    )
}

const METHODS: [Method; 2] = [Method::Each, Method::SyncExt];

/// The syncs of a pass without faults, and how many calls it makes.
fn syncs(queue: &Queue, method: Method) -> (Vec<Case>, usize) {
    let seen = queue.calls(Case::clean(method));
    let syncs = (0..seen.len()).filter(|at| seen[*at].is_sync());
    let case = |at| Case {
        at,
        ..Case::clean(method)
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
fn lost_by_one() {
    let queue = Queue::new();
    for method in METHODS {
        let (cases, _) = syncs(&queue, method);
        let cases = with(
            &cases,
            &[Fault::Once(Errno::EIO), Fault::ButMade(Errno::EIO)],
        );
        let all = cases.len();
        let tally = explore("lost", &sample(cases, 120), |case| by_one(&queue, case));
        tally.print(&format!("lost, {method:?}, of {all}"));
    }
}

#[test]
fn lost_by_one_and_believed_by_the_next() {
    let queue = Queue::new();
    for method in METHODS {
        let (cases, calls) = syncs(&queue, method);
        let faults: Vec<Fault> = (0..24).map(Fault::ThenStop).collect();
        let cases = with(&cases, &faults);
        let all = cases.len();
        let tally = explore("lost and believed", &sample(cases, 150), |case| {
            by_the_next(&queue, case, calls)
        });
        tally.print(&format!("lost and believed, {method:?}, of {all}"));
    }
}
