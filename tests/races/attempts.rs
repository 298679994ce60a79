//! Two runs at once, and a run during acceptance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::Entrance;
use mailspool::testing::queue::{Action, QueueUntil, Then};
use mailspool::testing::spool::{Queue, Spool};
use nix::errno::Errno;

use super::explore::Bound;
use super::programs::{accepting, order, pass, pass_to, sweeping};
use super::shared::{Clock, Ledger, runner};
use super::stage::{End, Pair, Said, Stage, by};

#[test]
fn two_deliver_one_message() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@ok.test"]);
    });
    let ends = [(stage.ids[0], "a@ok.test", &[End::Delivered][..])];
    Pair::new(
        "deliver, deliver",
        &stage,
        [pass(1), pass(1)],
        |case, said| {
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(1));
}

#[test]
fn two_deliver_what_is_due() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.pass(1);
    });
    let ends = [(stage.ids[0], "a@first.test", &[End::Delivered][..])];
    Pair::new("due, due", &stage, [pass(20), pass(20)], |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

/// One run defers a message into a bucket that another run finds empty and removes.
#[test]
fn deferring_into_a_bucket_that_goes() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.bucket(QueueUntil::Deferred(stage.at(30)));
    });
    let ends = [(stage.ids[0], "a@first.test", &[End::Delivered][..])];
    let programs = [pass_to(1, 30), pass_to(40, 90)];
    Pair::new("defer, rmdir", &stage, programs, |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

/// One run defers a message into a bucket from which another run takes a message.
#[test]
fn deferring_into_a_bucket_in_use() {
    let stage = Stage::new(|stage| {
        stage.send(&["b@first.test"]);
        stage.pass_to(1, 30);
        stage.send(&["a@first.test"]);
    });
    let ends = [
        (stage.ids[0], "b@first.test", &[End::Delivered][..]),
        (stage.ids[1], "a@first.test", &[End::Delivered][..]),
    ];
    let programs = [pass_to(1, 30), pass_to(40, 90)];
    Pair::new("defer, due", &stage, programs, |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

/// An operator freezes a message into a bucket that a run finds empty and removes.
#[test]
fn freezing_into_a_bucket_that_goes() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@ok.test"]);
        stage.bucket(QueueUntil::Frozen(Some(stage.at(30))));
    });
    let freeze = Action::Freeze {
        by: by(),
        until: Some(stage.at(30)),
        then: Then::Thaw,
    };
    let ends = [(stage.ids[0], "a@ok.test", &[End::Delivered][..])];
    let programs = [order(freeze), pass(40)];
    Pair::new("freeze, rmdir", &stage, programs, |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

#[test]
fn two_finish_done() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&["a@ok.test"]);
        stage.put(id, Queue::Done);
    });
    let ends = [(stage.ids[0], "a@ok.test", &[End::Gone][..])];
    Pair::new("done, done", &stage, [pass(1), pass(1)], |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2).kills(1));
}

#[test]
fn accepting_beside_the_sweeper() {
    let stage = Stage::new(|_| {});
    for (name, entrance) in [
        ("receive, sweep", Entrance::Incoming),
        ("send, sweep", Entrance::Active),
    ] {
        // Accepted messages have their time from the real clock, which must not be after the run's clock.
        let programs = [accepting(entrance, &["a@ok.test"]), pass(50)];
        Pair::new(name, &stage, programs, |case, said| match said[0] {
            Said::Accepted(id) => case.ends(said, &[(id, "a@ok.test", &[End::Delivered])]),
            _ => {
                // A message that was not acknowledged may still be delivered, once.
                case.ends(said, &[]);
                assert!(case.ledger.all().len() <= 1);
            }
        })
        .holds(Bound::of(2).kills(1));
    }
}

/// A sweep without the rest of a run, which covers more of the acceptor's calls. An acknowledged message exists;
/// any other is whole or absent.
#[test]
fn accepting_beside_a_sweep_alone() {
    let stage = Stage::new(|_| {});
    for (name, entrance) in [
        ("receive, sweep alone", Entrance::Incoming),
        ("send, sweep alone", Entrance::Active),
    ] {
        let programs = [accepting(entrance, &["a@ok.test"]), sweeping()];
        Pair::new(name, &stage, programs, |case, said| match said[0] {
            Said::Accepted(id) => {
                let queue = match entrance {
                    Entrance::Incoming => Queue::Incoming,
                    Entrance::Active => Queue::Active,
                };
                assert_eq!(case.queue(id), Some(queue));
                case.ends(said, &[(id, "a@ok.test", &[End::Delivered])]);
            }
            _ => {
                case.ends(said, &[]);
                assert!(case.ledger.all().len() <= 1);
            }
        })
        .holds(Bound::of(2).kills(2));
    }
}

/// One message in `new/` is whole and another is torn; neither was acknowledged.
#[test]
fn two_sweep() {
    let stage = Stage::new(|stage| {
        let id = stage.send(&["a@ok.test"]);
        stage.put(id, Queue::New);
        let torn = stage.send(&["b@ok.test"]);
        stage.put(torn, Queue::New);
        let path = stage.path().join(Queue::New.path(torn));
        std::fs::write(path, "Mailspool-Seal: 2 00").unwrap();
    });
    let ends = [
        (stage.ids[0], "a@ok.test", &[End::Gone][..]),
        (stage.ids[1], "b@ok.test", &[End::Gone][..]),
    ];
    Pair::new("sweep, sweep", &stage, [pass(1), pass(1)], |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

#[test]
fn two_holders_tell() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@no.test"]);
    });
    let ends = [(stage.ids[0], "a@no.test", &[End::Told][..])];
    Pair::new("tell, tell", &stage, [pass(1), pass(1)], |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2).kills(0));
}

#[test]
fn two_holders_tell_of_a_delivery() {
    // Only one recipient, because the order of two deliveries is not fixed.
    let stage = Stage::new(|stage| {
        stage.send(&["a@told.test"]);
    });
    let ends = [(stage.ids[0], "a@told.test", &[End::Heard][..])];
    let programs = [pass(1), pass(1)];
    Pair::new("tell of success", &stage, programs, |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2).kills(0));
}

/// Returns a stage with a message that is due for a delay notice, but not for an attempt.
fn late() -> Stage {
    Stage::new(|stage| {
        stage.send(&["a@long.test"]);
        stage.pass(1);
        stage.pass(239);
        stage.then = 243;
    })
}

#[test]
fn two_holders_tell_of_a_delay() {
    let stage = late();
    let ends = [(stage.ids[0], "a@long.test", &[End::Warned][..])];
    let programs = [pass(242), pass(242)];
    Pair::new("tell of delay", &stage, programs, |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2));
}

/// One run sends the delay notice and may be killed during that; the other has a later clock and delivers the
/// message.
#[test]
fn a_delay_is_told_and_a_delivery_made() {
    let stage = late();
    let ends = [(
        stage.ids[0],
        "a@long.test",
        &[End::Warned, End::Delivered][..],
    )];
    let programs = [pass(242), pass(310)];
    Pair::new("tell of delay, deliver", &stage, programs, |case, said| {
        case.ends(said, &ends);
    })
    .holds(Bound::of(2).kills(0));
}

/// Returns a stage with a notice in `staged/` that its origin has not recorded.
pub fn staged() -> Stage {
    Stage::new(|stage| {
        stage.send(&["a@no.test"]);
        let seam: Arc<dyn Seam> = Arc::new(DiesAtRecord::default());
        let spool = Spool::open_through(&stage.path(), Some(seam)).unwrap();
        let clock = Clock::at(stage.at(1));
        let _ = runner(spool, &Ledger::default(), &clock, stage.start).pass();
        let staged = stage.spool().ids_in(Queue::Staged).unwrap();
        assert_eq!(staged.len(), 1);
        stage.ids.extend(staged);
    })
}

#[test]
fn a_staged_notice() {
    let stage = staged();
    let ends = [(stage.ids[0], "a@no.test", &[End::Told][..])];
    Pair::new(
        "staged, staged",
        &stage,
        [pass(1), pass(1)],
        |case, said| {
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(0));
}

/// A sweep without the rest of a run, which covers more of the holder's calls. It leaves the notice until the
/// origin has recorded it, and the holder writes the notice again.
#[test]
fn a_staged_notice_beside_a_sweep_alone() {
    for (name, stage) in [
        ("staged, sweep alone", staged()),
        ("recorded, sweep alone", recorded()),
    ] {
        let ends = [(stage.ids[0], "a@no.test", &[End::Told][..])];
        Pair::new(name, &stage, [pass(1), sweeping()], |case, said| {
            case.ends(said, &ends);
        })
        .holds(Bound::of(2).kills(1).costly());
    }
}

/// Returns a stage with a notice in `staged/` that its origin has recorded, after the recording process was killed.
fn recorded() -> Stage {
    Stage::new(|stage| {
        stage.send(&["a@no.test"]);
        let seam: Arc<dyn Seam> = Arc::new(DiesAtRelease::default());
        let spool = Spool::open_through(&stage.path(), Some(seam)).unwrap();
        let clock = Clock::at(stage.at(1));
        let _ = runner(spool, &Ledger::default(), &clock, stage.start).pass();
        let staged = stage.spool().ids_in(Queue::Staged).unwrap();
        assert_eq!(staged.len(), 1);
        stage.ids.extend(staged);
    })
}

/// Kills the process when it is about to move a notice out of `staged/`.
#[derive(Default)]
struct DiesAtRelease(AtomicBool);

impl Seam for DiesAtRelease {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if let Call::Rename { from, .. } = call
            && from.starts_with("staged")
        {
            self.0.store(true, SeqCst);
        }
        if self.0.load(SeqCst) {
            Verdict::Fail(Errno::EIO)
        } else {
            Verdict::Pass
        }
    }
}

/// Kills the process when it is about to record a notice.
#[derive(Default)]
struct DiesAtRecord(AtomicBool);

impl Seam for DiesAtRecord {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if let Call::Write { path, bytes, .. } = call
            && path.starts_with("history")
            && String::from_utf8_lossy(bytes).contains("\"event\":\"notice\"")
        {
            self.0.store(true, SeqCst);
        }
        if self.0.load(SeqCst) {
            Verdict::Fail(Errno::EIO)
        } else {
            Verdict::Pass
        }
    }
}
