//! Listing, checking and repairing during a run.

use std::fs;

use mailspool::testing::message::Entrance;
use mailspool::testing::operator::Level;
use mailspool::testing::spool::Queue;

use super::explore::Bound;
use super::programs::{accepting, checking, listing, pass};
use super::stage::{Case, End, Pair, Said, Stage};
use super::touch::Sees;

pub const LOOKS: Sees = Sees { locks: true };

#[test]
fn listing_beside_a_run() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.send(&["b@ok.test"]);
    });
    let mut pair = Pair::new("list, run", &stage, [listing(1), pass(1)], |case, said| {
        let Said::Listed(listings) = &said[0] else {
            panic!("{said:?}")
        };
        for listing in listings {
            let times = |n: usize| {
                let ids = listing.messages.iter().map(|(id, _)| *id);
                ids.filter(|id| *id == case.stage.ids[n]).count()
            };
            assert_eq!(times(0), 1, "it was there all the time: {listing:?}");
            assert!(times(1) <= 1, "{listing:?}");
        }
    });
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2));
}

#[test]
fn checking_beside_a_run() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
    });
    for (name, minutes, end) in [("check, defer", 1, 0), ("check, deliver", 12, 1)] {
        let mut pair = Pair::new(
            name,
            &stage,
            [checking(false), pass(minutes)],
            |case, said| {
                no_false_alarm(&said[0]);
                assert_eq!(case.delivered(case.stage.ids[0]), end);
            },
        );
        pair.sees = [LOOKS, Sees::default()];
        pair.holds(Bound::of(2));
    }
}

pub fn no_false_alarm(said: &Said) {
    let Said::Checked(found) = said else {
        panic!("{said:?}")
    };
    let problems: Vec<_> = found
        .iter()
        .filter(|finding| finding.level > Level::Note)
        .collect();
    assert!(problems.is_empty(), "a false alarm: {problems:?}");
}

/// Returns a stage with an intact message, a damaged one, and one of which only a file of the view is left.
fn damaged() -> Stage {
    Stage::new(|stage| {
        stage.send(&["a@ok.test"]);
        let bad = stage.send(&["b@ok.test"]);
        let orphan = stage.send(&["c@ok.test"]);
        let path = stage.path();
        fs::write(path.join(format!("active/{bad}")), "torn").unwrap();
        for dir in ["active", "info/recipients", "info/transport"] {
            fs::remove_file(path.join(format!("{dir}/{orphan}"))).unwrap();
        }
    })
}

fn repaired(case: &Case<'_>, said: &[Said; 2]) {
    let [_, bad, orphan] = case.stage.ids[..] else {
        panic!()
    };
    assert_eq!(case.queue(bad), Some(Queue::Corrupt));
    let reason = case.path.join(format!("corrupt/{bad}.reason"));
    assert!(reason.exists(), "no reason");
    let ghost = case.path.join(format!("info/sender/{orphan}"));
    assert!(!ghost.exists(), "a ghost is left in the view");
    case.ends(
        said,
        &[(case.stage.ids[0], "a@ok.test", &[End::Delivered][..])],
    );
}

#[test]
fn repairing_beside_a_run() {
    let stage = damaged();
    let programs = [checking(true), pass(1)];
    let mut pair = Pair::new("repair, run", &stage, programs, repaired);
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2).costly());
}

#[test]
fn two_repair() {
    let stage = damaged();
    let programs = [checking(true), checking(true)];
    let mut pair = Pair::new("repair, repair", &stage, programs, repaired);
    pair.sees = [LOOKS; 2];
    pair.holds(Bound::of(2).costly());
}

#[test]
fn repairing_beside_acceptance() {
    let stage = Stage::new(|_| {});
    let programs = [checking(true), accepting(Entrance::Active, &["a@ok.test"])];
    let mut pair = Pair::new("repair, accept", &stage, programs, |case, said| {
        no_false_alarm(&said[0]);
        let Said::Accepted(id) = said[1] else {
            panic!("{said:?}")
        };
        case.ends(said, &[(id, "a@ok.test", &[End::Delivered])]);
    });
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2));
}
