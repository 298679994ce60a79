//! A history is folded beside another process.

use std::fs;

use mailspool::testing::operator::Acted;
use mailspool::testing::queue::Action;
use mailspool::testing::spool::Queue;

use super::explore::Bound;
use super::looks::{LOOKS, no_false_alarm};
use super::orders::{carried_out, freeze};
use super::programs::{checking, order, pass_to};
use super::stage::{Case, End, Pair, Said, Stage, by};
use super::touch::Sees;

const TO: &str = "a@later.test";

/// Returns a stage with a message that has been deferred once and is due at minute 2.
fn due() -> Stage {
    Stage::new(|stage| {
        stage.send(&[TO]);
        stage.pass_to(1, 2);
        stage.folds = true;
    })
}

fn is_folded(case: &Case<'_>) -> bool {
    let history = case.path.join(format!("history/{}", case.stage.ids[0]));
    fs::read_to_string(history).unwrap().contains("\"fold\"")
}

/// The run folds at its deferral or, if the operator is first, the operator at the freeze.
#[test]
fn freezing_what_is_folded() {
    let stage = due();
    let programs = [pass_to(3, 30), order(freeze())];
    Pair::new("fold, freeze", &stage, programs, |case, said| {
        assert!(is_folded(case) || matches!(said, [Said::Killed, _] | [_, Said::Killed]));
        let there = |queue: &Queue| matches!(queue, Queue::Frozen(_));
        carried_out(case, said, TO, there, End::Kept);
    })
    .holds(Bound::of(2).kills(1));
}

/// The history that is folded has only the deferral.
#[test]
fn retrying_what_is_folded() {
    let stage = due();
    let programs = [pass_to(3, 30), order(Action::Retry(by()))];
    Pair::new("fold, retry", &stage, programs, |case, said| {
        assert!(is_folded(case));
        case.ends(said, &[(case.stage.ids[0], TO, &[End::Delivered])]);
    })
    .holds(Bound::of(2));
}

#[test]
fn checking_what_is_folded() {
    let stage = due();
    let programs = [checking(false), pass_to(3, 30)];
    let mut pair = Pair::new("check, fold", &stage, programs, |case, said| {
        no_false_alarm(&said[0]);
        assert!(is_folded(case));
    });
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2));
}

/// The repair removes what a killed fold has left, but nothing of a fold that goes on.
#[test]
fn repairing_what_is_folded() {
    let stage = due();
    let part = format!("history/{}.part", stage.ids[0]);
    fs::write(stage.path().join(part), "{").unwrap();
    let programs = [checking(true), pass_to(3, 30)];
    let mut pair = Pair::new("repair, fold", &stage, programs, |case, said| {
        assert!(is_folded(case));
        case.ends(said, &[(case.stage.ids[0], TO, &[End::Delivered])]);
    });
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2));
    let programs = [checking(true), order(freeze())];
    let mut pair = Pair::new("repair, freeze", &stage, programs, |case, said| {
        assert!(is_folded(case));
        assert!(matches!(said[1], Said::Acted(Acted::Done)), "{said:?}");
        case.ends(said, &[(case.stage.ids[0], TO, &[End::Kept])]);
    });
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2));
}
