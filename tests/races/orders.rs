//! An operator during a run, and two operators.

use mailspool::testing::operator::Acted;
use mailspool::testing::queue::{Action, Then};
use mailspool::testing::spool::Queue;

use super::explore::Bound;
use super::programs::{flushing, order, pass};
use super::stage::{Case, End, Pair, Said, Stage, by};

pub fn freeze() -> Action {
    Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    }
}

fn discard(stage: &Stage, minutes: i64) -> Action {
    Action::Discard {
        by: by(),
        until: stage.at(minutes),
    }
}

/// Minutes that are longer than any test lasts.
const LONG: i64 = 6000;

fn sent(to: &'static str) -> Stage {
    Stage::new(|stage| {
        stage.send(&[to]);
    })
}

/// Returns a stage with a message that has been deferred once.
fn deferred() -> Stage {
    Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.pass(1);
    })
}

fn acted(said: &Said) -> Option<&Acted> {
    match said {
        Said::Acted(acted) => Some(acted),
        Said::Killed => None,
        other => panic!("{other:?}"),
    }
}

/// Asserts the result of an action during a run that delivers or defers the message: it is done, or the run has
/// handled its request, or it came too late because the message was delivered.
pub fn carried_out(
    case: &Case<'_>,
    said: &[Said; 2],
    to: &str,
    there: fn(&Queue) -> bool,
    end: End,
) {
    let id = case.stage.ids[0];
    let too_late = || {
        assert_eq!(case.delivered(id), 1, "not carried out: {said:?}");
        [(id, to, &[End::Delivered][..])]
    };
    let queue = case.queue(id);
    let in_queue = queue.as_ref().is_some_and(there);
    // After placing a request, a process checks itself whether the message still has a holder.
    if matches!(said, [Said::Passed(_), Said::Acted(_)]) {
        case.nothing_asked();
    }
    let ends = match acted(&said[1]) {
        Some(Acted::Done) => {
            assert!(in_queue, "done, but it is in {queue:?}");
            [(id, to, &[end][..])]
        }
        Some(Acted::Requested) if in_queue => [(id, to, &[end][..])],
        Some(Acted::Requested) if matches!(said[0], Said::Killed) => {
            return case.ends(said, &[(id, to, &[end, End::Delivered])]);
        }
        Some(Acted::Requested | Acted::Absent) => too_late(),
        None => return case.ends(said, &[(id, to, &[end, End::Delivered])]),
        Some(other) => panic!("{other:?}"),
    };
    case.ends(said, &ends);
}

#[test]
fn discarding_what_is_delivered() {
    let stage = sent("a@ok.test");
    let programs = [pass(1), order(discard(&stage, LONG))];
    Pair::new("deliver, discard", &stage, programs, |case, said| {
        let there = |queue: &Queue| matches!(queue, Queue::Discarded(_));
        carried_out(case, said, "a@ok.test", there, End::Kept);
    })
    .holds(Bound::of(2).kills(1));
}

#[test]
fn discarding_what_is_deferred() {
    let stage = sent("a@first.test");
    let programs = [pass(1), order(discard(&stage, LONG))];
    Pair::new("defer, discard", &stage, programs, |case, said| {
        let there = |queue: &Queue| matches!(queue, Queue::Discarded(_));
        carried_out(case, said, "a@first.test", there, End::Kept);
    })
    .holds(Bound::of(2));
}

#[test]
fn freezing() {
    for (name, to) in [
        ("deliver, freeze", "a@ok.test"),
        ("defer, freeze", "a@first.test"),
    ] {
        let stage = sent(to);
        let programs = [pass(1), order(freeze())];
        Pair::new(name, &stage, programs, |case, said| {
            let there = |queue: &Queue| matches!(queue, Queue::Frozen(_));
            carried_out(case, said, to, there, End::Kept);
        })
        .holds(Bound::of(2));
    }
}

#[test]
fn bouncing() {
    for (name, to) in [
        ("deliver, bounce", "a@ok.test"),
        ("defer, bounce", "a@first.test"),
    ] {
        let stage = sent(to);
        let programs = [pass(1), order(Action::Bounce(by()))];
        Pair::new(name, &stage, programs, |case, said| {
            if matches!(said[0], Said::Passed(_)) {
                case.nothing_asked();
            }
            let id = case.stage.ids[0];
            let late = case.delivered(id) == 1;
            match acted(&said[1]) {
                Some(Acted::Done) => assert!(!late, "done, but delivered"),
                // The message may be bounced and gone when its state is read.
                Some(Acted::Requested | Acted::Absent) => {}
                other => panic!("{other:?}"),
            }
            let end = if late { End::Delivered } else { End::Told };
            case.ends(said, &[(id, to, &[end])]);
        })
        .holds(Bound::of(2));
    }
}

#[test]
fn thawing() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&["a@ok.test"]);
        stage.act(id, &freeze());
    });
    let programs = [pass(1), order(Action::Thaw(by()))];
    Pair::new("run, thaw", &stage, programs, |case, said| {
        assert!(matches!(acted(&said[1]), Some(Acted::Done) | None));
        case.ends(said, &[]);
        let thawed = case.delivered(case.stage.ids[0]) == 1;
        assert!(thawed || acted(&said[1]).is_none());
    })
    .holds(Bound::of(2).kills(0));
}

#[test]
fn retrying_what_is_due() {
    let stage = deferred();
    let programs = [pass(20), order(Action::Retry(by()))];
    let ends = [(stage.ids[0], "a@first.test", &[End::Delivered][..])];
    Pair::new("due, retry", &stage, programs, |case, said| {
        let acted = acted(&said[1]);
        assert!(!matches!(
            acted,
            Some(Acted::Refused(_) | Acted::OtherWaits)
        ));
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

#[test]
fn flushing_beside_a_run() {
    let stage = deferred();
    let ends = [(stage.ids[0], "a@first.test", &[End::Delivered][..])];
    for (name, minutes) in [("not due, flush", 12), ("due, flush", 20)] {
        let programs = [pass(minutes), flushing()];
        Pair::new(name, &stage, programs, |case, said| {
            assert!(matches!(said[1], Said::Flushed(0 | 1)));
            case.ends(said, &ends);
        })
        .holds(Bound::of(2));
    }
}

#[test]
fn thawing_what_thaws_by_itself() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&["a@ok.test"]);
        let until = Some(stage.at(30));
        stage.act(
            id,
            &Action::Freeze {
                by: by(),
                until,
                then: Then::Thaw,
            },
        );
    });
    let programs = [pass(40), order(Action::Thaw(by()))];
    let ends = [(stage.ids[0], "a@ok.test", &[End::Delivered][..])];
    Pair::new("expire, thaw", &stage, programs, |case, said| {
        if matches!(said[0], Said::Passed(_)) {
            case.nothing_asked();
        }
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

#[test]
fn taking_back_what_is_forgotten() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&["a@ok.test"]);
        stage.act(id, &discard(stage, 30));
    });
    let programs = [pass(40), order(Action::Retry(by()))];
    Pair::new("purge, retry", &stage, programs, |case, said| {
        let end = match acted(&said[1]) {
            Some(Acted::Done) => &[End::Delivered][..],
            Some(Acted::Requested) => &[End::Delivered, End::Gone],
            Some(Acted::Absent) => &[End::Gone],
            other => panic!("{other:?}"),
        };
        if matches!(said[0], Said::Passed(_)) {
            case.nothing_asked();
        }
        case.ends(said, &[(case.stage.ids[0], "a@ok.test", end)]);
    })
    .holds(Bound::of(2));
}

/// A failed message from the null sender is discarded when its hold expires, while an operator thaws it.
#[test]
fn thawing_what_is_discarded_by_itself() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&["a@ok.test"]);
        let freeze = Action::Freeze {
            by: by(),
            until: Some(stage.at(30)),
            then: Then::Discard,
        };
        stage.act(id, &freeze);
    });
    let programs = [pass(40), order(Action::Thaw(by()))];
    Pair::new("lapse, thaw", &stage, programs, |case, said| {
        let end = match acted(&said[1]) {
            Some(Acted::Done) => &[End::Delivered][..],
            Some(Acted::Requested) => &[End::Delivered, End::Gone],
            Some(Acted::Absent) => &[End::Gone],
            other => panic!("{other:?}"),
        };
        case.ends(said, &[(case.stage.ids[0], "a@ok.test", end)]);
    })
    .holds(Bound::of(2));
}

#[test]
fn two_requests() {
    let stage = sent("a@ok.test");
    let programs = [order(freeze()), order(discard(&stage, LONG))];
    let mut pair = Pair::new("request, request", &stage, programs, |case, said| {
        let said_so = |what: &Acted| said.iter().filter(|one| acted(one) == Some(what)).count();
        assert_eq!(said_so(&Acted::Requested), 1, "{said:?}");
        assert_eq!(said_so(&Acted::OtherWaits), 1, "{said:?}");
        case.ends(said, &[(case.stage.ids[0], "a@ok.test", &[End::Kept])]);
    });
    pair.held = true;
    pair.holds(Bound::of(3));
}

#[test]
fn two_orders() {
    let stage = sent("a@ok.test");
    let programs = [order(freeze()), order(discard(&stage, LONG))];
    Pair::new("freeze, discard", &stage, programs, |case, said| {
        case.nothing_asked();
        case.ends(said, &[(case.stage.ids[0], "a@ok.test", &[End::Kept])]);
        for one in said {
            // A discarded message refuses the freeze. A frozen one does not refuse the discard.
            if let Some(Acted::Refused(_)) = acted(one) {
                assert_eq!(acted(&said[1]), Some(&Acted::Done));
            }
        }
    })
    .holds(Bound::of(2));
}
