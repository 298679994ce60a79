//! Acceptance under faults.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mailspool::testing::accept::{Acceptor, Error};
use mailspool::testing::disk::{Call, Seam};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::spool::Spool;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Fault, Injector, all_cases, sample};
use super::scratch::Scratch;
use super::world::{
    Clock, Ledger, files, findings, is_whole, limits, request, runner, tempdir, text,
};

const TO: [&str; 3] = ["a@ok.test", "b@ok.test", "c@other.test"];

/// Opens the spool and submits a message, both under the case's fault.
pub fn hand_in(
    spool: &Path,
    entrance: Entrance,
    input: &[u8],
    seam: Arc<dyn Seam>,
) -> Result<QueueId, ()> {
    let spool = Spool::open_through(spool, Some(seam)).map_err(drop)?;
    let request = request(entrance, "s@sender.test", &TO);
    Acceptor::new(spool, limits())
        .accept(request, input)
        .map_err(|error| assert!(!error.is_permanent() && matches!(error, Error::Disk(_))))
}

/// Runs one case from beginning to end and returns how it ended.
fn judge(template: &Path, entrance: Entrance, input: &[u8], case: &Case) -> String {
    let dir = Scratch::copy(template);
    let path = dir.spool();
    let accepted = hand_in(&path, entrance, input, Injector::new(*case));
    let left = files(&path);
    // This fault spares the unlinks, so no file may be left.
    let can_tidy = match case.fault {
        Fault::Once(_) | Fault::ButMade(_) | Fault::Half(_) | Fault::Nothing => true,
        Fault::ForGood(errno) => !Seen::of(&Call::Unlink { path: &path }).can(errno),
        Fault::AndUnlink(_) | Fault::AndThen(_) | Fault::ThenStop(_) | Fault::Stop => false,
    };
    if accepted.is_err() && can_tidy {
        assert!(left.is_empty(), "not accepted, but left {left:?}");
    }
    let spool = Spool::open(&path).unwrap();
    let (ledger, start) = (Ledger::default(), Timestamp::now());
    let runner = runner(spool.clone(), &ledger, &Clock::at(start), start);
    let summary = runner.pass().unwrap();
    assert_eq!((summary.corrupt, summary.trouble), (0, 0), "{summary:?}");
    let counts = ledger.counts();
    for delivery in ledger.all() {
        assert!(is_whole(&delivery.bytes, input), "torn: {delivery:?}");
        assert!(accepted.is_err() || accepted == Ok(delivery.id));
    }
    assert!(
        counts.values().all(|count| *count == 1),
        "twice: {counts:?}"
    );
    match accepted {
        Ok(_) => assert_eq!(counts.len(), TO.len(), "accepted, but delivered {counts:?}"),
        Err(()) => assert!([0, TO.len()].contains(&counts.len()), "partly: {counts:?}"),
    }
    assert_eq!(
        files(&path),
        Vec::<std::path::PathBuf>::new(),
        "left after a pass"
    );
    assert_eq!(findings(&spool), []);
    drop((spool, runner));
    dir.end();
    let state = match (accepted.is_ok(), left.is_empty(), counts.is_empty()) {
        (true, ..) => "accepted",
        (false, true, _) => "refused, nothing left",
        (false, false, true) => "refused, the pass tidied up",
        (false, false, false) => "refused, yet whole and delivered",
    };
    state.to_owned()
}

fn calls(template: &Path, entrance: Entrance, input: &[u8], case: Case) -> Vec<Seen> {
    let dir = Scratch::copy(template);
    let seam = Injector::new(case);
    hand_in(
        &dir.spool(),
        entrance,
        input,
        Arc::clone(&seam) as Arc<dyn Seam>,
    )
    .unwrap();
    seam.seen()
}

fn all_faults(entrance: Entrance) {
    let dir = tempdir();
    let template = dir.path().join("spool");
    Spool::create(&template).unwrap();
    let small = text("small");
    let seen = calls(&template, entrance, &small, Case::clean());
    let mut cases = all_cases(&seen, None);
    // Two faults: one makes acceptance refuse the message, the other hits the cleanup.
    for at in 0..seen.len() {
        cases.extend((1..=6).map(|which| Case {
            fault: Fault::AndUnlink(which),
            at,
            ..Case::clean()
        }));
    }
    let all = cases.len();
    let cases = sample(cases, 250);
    let tally = explore("accept", &cases, |case| {
        judge(&template, entrance, &small, case)
    });
    tally.print(&format!(
        "accept, {entrance:?}, {} calls, of {all}",
        seen.len()
    ));
}

#[test]
fn accept_from_an_application() {
    all_faults(Entrance::Active);
}

#[test]
fn accept_from_an_mta() {
    all_faults(Entrance::Incoming);
}

/// Large enough for several writes, each of which may be cut short.
#[test]
fn accept_with_short_reads_and_writes() {
    let dir = tempdir();
    let template = dir.path().join("spool");
    Spool::create(&template).unwrap();
    let mut large = text("large");
    large.extend(b"0123456789 abcdefghijklmnopqrstuvwxyz\n".repeat(4000));
    let case = Case {
        length: Some(10_000),
        ..Case::clean()
    };
    let seen = calls(&template, Entrance::Active, &large, case);
    let cases = sample(all_cases(&seen, case.length), 250);
    let tally = explore("accept, short", &cases, |case| {
        judge(&template, Entrance::Active, &large, case)
    });
    tally.print(&format!("accept, short, {} calls", seen.len()));

    let small = text("small");
    let cases: Vec<Case> = [1, 2, 3, 7, 64]
        .map(|length| Case {
            length: Some(length),
            ..case
        })
        .to_vec();
    let tally = explore("accept, very short", &cases, |case| {
        judge(&template, Entrance::Active, &small, case)
    });
    tally.print("accept, very short");
}
