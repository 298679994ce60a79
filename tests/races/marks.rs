//! A message with an interrupted attempt: two runs, a run and an operator, two operators.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use mailspool::testing::message::QueueId;
use mailspool::testing::operator::Acted;
use mailspool::testing::queue::{Action, Then};
use mailspool::testing::spool::Queue;

use super::explore::Bound;
use super::orders::carried_out;
use super::programs::{order, pass};
use super::stage::{Case, End, Pair, Said, Stage, by};

const TO: &str = "a@ok.test";

/// Returns a stage with a message that is marked as in use, but not locked (S8).
fn interrupted() -> Stage {
    Stage::new(|stage| {
        let id = stage.send(&[TO]);
        let path = stage.path().join(Queue::Active.path(id));
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    })
}

fn is_marked(case: &Case<'_>, id: QueueId) -> bool {
    let queue = case.queue(id).unwrap();
    let mode = fs::metadata(case.path.join(queue.path(id))).unwrap();
    mode.permissions().mode() & 0o100 != 0
}

/// Returns the message's count of interrupted attempts in a row.
fn count(case: &Case<'_>, id: QueueId) -> u16 {
    let queue = case.queue(id).unwrap();
    let block = case.spool().peek(id, queue).unwrap().unwrap();
    block.mark.interrupted
}

/// Asserts that a message that a killed process was trying is still marked, or was counted as interrupted by the
/// other process. So every attempt without a recorded outcome is counted. A process that is not killed leaves no
/// mark.
pub fn is_counted(case: &Case<'_>, said: &[Said; 2]) {
    let id = case.stage.ids[0];
    let is_killed = said.iter().any(|one| matches!(one, Said::Killed));
    let Some(queue) = case.queue(id).filter(|queue| *queue != Queue::Done) else {
        return;
    };
    if is_killed && case.delivered(id) > 0 {
        let seen = is_marked(case, id) || count(case, id) > 0;
        assert!(seen, "interrupted in {queue:?}, and that cannot be seen");
    }
    assert!(is_killed || !is_marked(case, id), "it stays marked");
}

/// Two runs find the mark: one of them counts it. Each killed process adds at most one interruption.
#[test]
fn two_find_the_mark() {
    let stage = interrupted();
    Pair::new("mark, mark", &stage, [pass(1), pass(2)], |case, said| {
        let id = stage.ids[0];
        let killed = said.iter().any(|one| matches!(one, Said::Killed));
        if case.queue(id).is_some_and(|queue| queue != Queue::Done) {
            let count = count(case, id);
            assert!(killed || count == 1, "{count} interruptions of one");
            assert!(count <= 2, "{count} interruptions of at most two");
        }
        is_counted(case, said);
        case.ends(said, &[(id, TO, &[End::Delivered])]);
    })
    .holds(Bound::of(2).kills(1).costly());
}

/// A run is killed at each call of an attempt without a history, and another one goes on.
#[test]
fn a_run_killed_in_an_attempt() {
    let stage = Stage::new(|stage| {
        stage.send(&[TO]);
    });
    Pair::new(
        "attempt, killed",
        &stage,
        [pass(1), pass(2)],
        |case, said| {
            is_counted(case, said);
            case.ends(said, &[(stage.ids[0], TO, &[End::Delivered])]);
        },
    )
    .holds(Bound::of(1).kills(1));
}

/// An operator finds the mark, alone or during a run.
#[test]
fn an_operator_finds_the_mark() {
    let freeze = || Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    let stage = interrupted();
    let discard = Action::Discard {
        by: by(),
        until: stage.at(6000),
    };
    let retry = Action::Retry(by());
    type There = fn(&Queue) -> bool;
    let is_frozen: There = |queue| matches!(queue, Queue::Frozen(_));
    let is_discarded: There = |queue| matches!(queue, Queue::Discarded(_));
    for (name, action, there) in [
        ("mark, freeze", freeze(), is_frozen),
        ("mark, discard", discard.clone(), is_discarded),
    ] {
        let programs = [pass(1), order(action)];
        Pair::new(name, &stage, programs, |case, said| {
            is_counted(case, said);
            carried_out(case, said, TO, there, End::Kept);
        })
        .holds(Bound::of(2).kills(1).costly());
    }
    Pair::new(
        "mark, retry",
        &stage,
        [pass(1), order(retry.clone())],
        |case, said| {
            is_counted(case, said);
            if let Said::Acted(acted) = &said[1] {
                let refused = matches!(acted, Acted::Refused(_) | Acted::OtherWaits);
                assert!(!refused, "{acted:?}");
            }
            case.ends(said, &[(stage.ids[0], TO, &[End::Delivered])]);
        },
    )
    .holds(Bound::of(2).kills(1).costly());
    let programs = [order(freeze()), order(retry)];
    Pair::new("mark, freeze and retry", &stage, programs, |case, said| {
        is_counted(case, said);
        let ends = &[End::Kept, End::Delivered][..];
        case.ends(said, &[(stage.ids[0], TO, ends)]);
    })
    .holds(Bound::of(2).kills(0));
}
