//! The view, `info/`, when no file of it can be written, read or removed: mail continues without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use mailspool::testing::disk::Seam;
use mailspool::testing::message::Entrance;
use mailspool::testing::operator::{Level, check};
use mailspool::testing::spool::Spool;
use nix::errno::Errno;

use super::accept::hand_in;
use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Fault, Injector, Only, all_cases, sample};
use super::queue::QueueScene;
use super::scratch::Scratch;
use super::world::{Clock, Ledger, files, findings, runner, tempdir, text};

/// Every fault at every call on the view, except the end of the process.
fn cases(seen: &[Seen]) -> Vec<Case> {
    let mut cases = all_cases(seen, None);
    cases.retain(|case| seen[case.at].is_view && case.fault != Fault::Stop);
    for case in &mut cases {
        case.only = Only::View;
    }
    cases
}

/// A message is accepted whatever happens to its view, and is delivered once. No file stays.
fn accepted(template: &Path, case: &Case) -> String {
    let dir = Scratch::copy(template);
    let id = hand_in(
        &dir.spool(),
        Entrance::Active,
        &text("m"),
        Injector::new(*case),
    );
    let id = id.expect("a view refuses no mail");
    let spool = Spool::open(&dir.spool()).unwrap();
    let shown = files(&dir.spool()).len() - 1;
    // A view is at most a note, never a problem.
    let found = findings(&spool);
    assert!(
        found.iter().all(|finding| finding.level == Level::Note),
        "{found:?}"
    );
    check(&spool, true).unwrap();
    assert_eq!(findings(&spool), []);
    assert_eq!(files(&dir.spool()).len(), 4, "a repair shows it");
    let (ledger, start) = (Ledger::default(), Timestamp::now());
    let runner = runner(spool.clone(), &ledger, &Clock::at(start), start);
    let summary = runner.pass().unwrap();
    assert_eq!((summary.delivered, summary.trouble), (3, 0), "{summary:?}");
    assert!(ledger.all().iter().all(|one| one.id == id));
    assert_eq!(files(&dir.spool()), [] as [PathBuf; 0]);
    drop((spool, runner));
    dir.end();
    format!("{shown} shown, {} wrong", found.len())
}

#[test]
fn a_view_refuses_no_mail() {
    let dir = tempdir();
    let template = dir.path().join("spool");
    Spool::create(&template).unwrap();
    let seen = {
        let dir = Scratch::copy(&template);
        let seam = Injector::new(Case::clean());
        let through = Arc::clone(&seam) as Arc<dyn Seam>;
        hand_in(&dir.spool(), Entrance::Active, &text("m"), through).unwrap();
        seam.seen()
    };
    let cases = cases(&seen);
    // All of them: each errno at each call.
    let errnos: BTreeSet<i32> = (cases.iter())
        .filter_map(|case| match case.fault {
            Fault::Once(errno) => Some(errno as i32),
            _ => None,
        })
        .collect();
    assert!(errnos.len() >= 10 && errnos.contains(&(Errno::ENOSPC as i32)));
    let tally = explore("views, accept", &cases, |case| accepted(&template, case));
    tally.print(&format!("views, accept, {} calls", seen.len()));
}

/// A pass over everything: a message that cannot be shown, or a view that cannot be removed, delays nothing.
#[test]
fn a_pass_that_cannot_touch_the_view_delivers_everything() {
    let queue = QueueScene::new();
    let seen = queue.calls(Case::clean());
    let all = cases(&seen);
    let count = all.len();
    let tally = explore("views, pass", &sample(all, 120), |case| {
        let ended = queue.judge(case, |runner| runner.build().pass());
        let is_through = ["through", "through, with trouble"].contains(&ended.as_str());
        assert!(is_through, "{ended}");
        ended
    });
    tally.print(&format!("views, pass, of {count}"));
}
