//! The view, missing or written again, while messages come, move and go.

use std::fs;

use mailspool::testing::message::Entrance;
use mailspool::testing::queue::{Action, Then};

use super::explore::Bound;
use super::looks::LOOKS;
use super::programs::{accepting, checking, listing, order, pass, showing};
use super::shared::submit;
use super::stage::{Case, End, Pair, Said, Stage, by};
use super::touch::Sees;

const TO: &str = "a@ok.test";
const VIEW: [&str; 3] = ["info/sender", "info/recipients", "info/transport"];

/// Removes the view of all messages, as a power cut may, and the file that says that it is complete since the boot.
fn hide(stage: &Stage) {
    let path = stage.path();
    for dir in VIEW {
        for id in &stage.ids {
            fs::remove_file(path.join(dir).join(id.to_string())).unwrap();
        }
    }
    fs::remove_file(path.join("state/boot")).unwrap();
}

/// Returns a stage with a message that the view does not show.
pub fn unseen(to: &'static str) -> Stage {
    Stage::new(|stage| {
        stage.send(&[to]);
        hide(stage);
    })
}

/// Asserts that the view shows exactly the messages that exist, unless a process was killed.
fn is_shown(case: &Case<'_>, said: &[Said; 2]) {
    if said.iter().any(|one| matches!(one, Said::Killed)) {
        return;
    }
    for id in &case.stage.ids {
        let shown = VIEW.map(|dir| case.path.join(dir).join(id.to_string()).exists());
        let there = case.queue(*id).is_some();
        assert_eq!(
            shown, [there; 3],
            "the view shows {id}, which is there: {there}"
        );
    }
}

/// A message is finished while its view is written again: no view of it is left.
#[test]
fn a_view_written_again_beside_a_run() {
    for (name, to, end) in [
        ("show, deliver", TO, End::Delivered),
        ("show, fail", "a@no.test", End::Told),
    ] {
        let stage = unseen(to);
        Pair::new(name, &stage, [showing(), pass(1)], |case, said| {
            assert!(case.spool().repair_views().is_empty());
            is_shown(case, said);
            case.ends(said, &[(case.stage.ids[0], to, &[end])]);
        })
        .holds(Bound::of(2).kills(1).costly());
    }
}

/// The view of a message is written again, by this run or the next one, wherever the message was when a run looked
/// for it. The view is not marked complete before it is.
#[test]
fn a_view_written_again_as_its_message_moves() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.pass(1);
        hide(stage);
    });
    let ends = [(stage.ids[0], "a@first.test", &[End::Delivered][..])];
    let by = Action::Retry(by());
    for (name, other) in [("show, retry", order(by)), ("show, due", pass(12))] {
        Pair::new(name, &stage, [showing(), other], |case, said| {
            assert!(case.spool().repair_views().is_empty());
            is_shown(case, said);
            case.ends(said, &ends);
        })
        .holds(Bound::of(2));
    }
}

/// Two runs write the view again.
#[test]
fn two_write_the_view_again() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.pass(1);
        hide(stage);
    });
    Pair::new(
        "show, show",
        &stage,
        [showing(), showing()],
        |case, said| {
            assert!(case.spool().repair_views().is_empty());
            is_shown(case, said);
            case.ends(
                said,
                &[(case.stage.ids[0], "a@first.test", &[End::Delivered])],
            );
        },
    )
    .holds(Bound::of(2).kills(1));
}

/// A run repairs the view while a message is accepted: the view of that message stays.
#[test]
fn a_look_through_the_view_beside_acceptance() {
    let stage = Stage::new(|stage| hide(stage));
    let programs = [showing(), accepting(Entrance::Active, &[TO])];
    Pair::new("show, accept", &stage, programs, |case, said| {
        match said[1] {
            Said::Accepted(id) => {
                let shown = VIEW.map(|dir| case.path.join(dir).join(id.to_string()).exists());
                assert_eq!(shown, [true; 3], "accepted, and not shown");
                case.ends(said, &[(id, TO, &[End::Delivered])]);
            }
            _ => case.ends(said, &[]),
        }
    })
    .holds(Bound::of(2).kills(1));
}

/// A run removes the view of a message that is gone, while the message is submitted again under its key: the key
/// stays.
#[test]
fn a_ghost_in_the_view_beside_a_submission() {
    let stage = Stage::new(|stage| {
        let id = submit(&stage.spool(), TO).unwrap().id;
        stage.ids.push(id);
        stage.pass(1);
        let ghost = stage.path().join(VIEW[0]).join(id.to_string());
        fs::write(ghost, "s@sender.test\n").unwrap();
        fs::remove_file(stage.path().join("state/boot")).unwrap();
    });
    let programs = [super::programs::submitting(TO), pass(50)];
    Pair::new("ghost, submit", &stage, programs, |case, said| {
        match said[0] {
            Said::Accepted(id) => assert_eq!(id, case.stage.ids[0]),
            Said::Killed => {}
            ref other => panic!("{other:?}"),
        }
        case.ends(said, &[(case.stage.ids[0], TO, &[End::Gone])]);
    })
    .holds(Bound::of(2).kills(1).costly());
}

/// A listing shows each message that exists throughout exactly once, although the view shows none: a message that
/// is due, one that is deferred, one that an operator makes due.
#[test]
fn listing_without_a_view() {
    let moved = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.send(&["b@later.test"]);
        stage.pass(1);
        hide(stage);
    });
    let fresh = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        hide(stage);
    });
    let freeze = Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    let frozen = Stage::new(|stage| {
        let id = stage.send(&["a@first.test"]);
        stage.act(id, &freeze);
        hide(stage);
    });
    for (name, stage, other) in [
        ("list unseen, defer", &fresh, pass(1)),
        ("list unseen, try again", &moved, pass(5)),
        ("list unseen, retry", &moved, order(Action::Retry(by()))),
        ("list unseen, thaw", &frozen, order(Action::Thaw(by()))),
        ("list unseen, freeze", &fresh, order(freeze)),
    ] {
        // Mark the view complete, so that the run does not write it again and help the listing.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        fs::write(stage.path().join("state/boot"), boot).unwrap();
        let mut pair = Pair::new(name, stage, [listing(1), other], |case, said| {
            let Said::Listed(listings) = &said[0] else {
                panic!("{said:?}")
            };
            for listing in listings {
                for id in &case.stage.ids {
                    let times = (listing.messages.iter())
                        .filter(|(one, _)| one == id)
                        .count();
                    assert_eq!(times, 1, "it was there all the time: {listing:?}");
                }
            }
        });
        pair.sees = [LOOKS, Sees::default()];
        pair.holds(Bound::of(2).costly());
    }
}

/// `check --repair` writes the view again while a run finishes the message.
#[test]
fn a_view_repaired_beside_a_run() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&[TO]);
        fs::write(stage.path().join(VIEW[1]).join(id.to_string()), "").unwrap();
    });
    let mut pair = Pair::new(
        "repair the view, deliver",
        &stage,
        [checking(true), pass(1)],
        |case, said| {
            case.ends(said, &[(case.stage.ids[0], TO, &[End::Delivered])]);
        },
    );
    pair.sees = [LOOKS, Sees::default()];
    pair.holds(Bound::of(2).costly().kills(0));
}
