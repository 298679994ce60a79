//! Operators' actions, at once or by request.

use jiff::SignedDuration;
use mailspool::testing::message::Entrance;
use mailspool::testing::queue::{Action, Then};

use super::super::judge::End::{Delivered, Frozen, Gone, Told};
use super::super::judge::{End, Fate};
use super::super::stage::{Stage, by};
use super::super::story::{Story, changed, fate};
use super::moments::{finished, noted};
use super::{A, NO, SLOW, deferred};

pub fn freeze() -> Action {
    Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    }
}

pub fn discard(stage: &Stage) -> Action {
    Action::Discard {
        by: by(),
        until: stage.soon(),
    }
}

/// Returns the fates of a message that is delivered to one recipient and deferred for the other.
pub fn ends(before: &[End], after: &[End]) -> Vec<Fate> {
    vec![
        fate("one", A, Delivered),
        changed("one", SLOW, before, after),
    ]
}

pub fn frozen(stage: &Stage) {
    deferred(stage);
    stage.act(&freeze());
    stage.forget_deed();
}

fn discarded(stage: &Stage) {
    deferred(stage);
    stage.act(&discard(stage));
    stage.forget_deed();
}

pub fn null_sender() -> Story {
    // It is discarded when its hold expires.
    let fates = vec![fate("one", NO, Gone)];
    let prepare = |stage: &Stage| stage.accept(Entrance::Incoming, "one", "", &[NO]);
    Story::record("null sender, frozen", fates, prepare, Stage::pass)
}

/// A failed message from the null sender is frozen for a time, and then discarded.
pub fn frozen_for_good() -> Vec<Story> {
    let prepare = |stage: &Stage| {
        stage.accept(Entrance::Incoming, "one", "", &[NO]);
        stage.send("two", &[A, SLOW]);
        stage.pass();
    };
    // In minutes: fourteen days, and up to an hour more until the bucket is due.
    const KEPT: i64 = 14 * 24 * 60 + 61;
    let lapse = |stage: &Stage| stage.pass_after(KEPT);
    let fates = || {
        vec![
            fate("one", NO, Gone),
            fate("two", A, Delivered),
            fate("two", SLOW, Delivered),
        ]
    };
    let title = "frozen for its time, and discarded";
    let over = Story::record(title, fates(), prepare, lapse);
    let title = "killed when it is discarded";
    let killed = Story::record(title, fates(), prepare, |stage| {
        stage.forward(KEPT);
        stage.killed_at(finished, || drop(stage.try_pass()));
        stage.pass_after(1);
    });
    // An operator freezes it just before the hold expires.
    let fates = vec![
        changed("one", NO, &[Gone, Frozen], &[Frozen]),
        fate("two", A, Delivered),
        fate("two", SLOW, Delivered),
    ];
    let title = "an operator freezes what would be discarded";
    let kept = Story::record(title, fates, prepare, |stage| {
        stage.pass_after(14 * 24 * 60 - 5);
        stage.act(&freeze());
        stage.pass_after(80);
    });
    vec![over, killed, kept]
}

pub fn hold() -> Vec<Story> {
    let fates = ends(&[Delivered, Frozen], &[Frozen]);
    let held = Story::record("freeze", fates, deferred, |stage| {
        stage.act(&freeze());
    });
    let let_go = |title, action: Action| {
        let fates = ends(&[Delivered, Frozen], &[Delivered]);
        Story::record(title, fates, frozen, |stage| {
            stage.act(&action);
            stage.pass_after(34);
        })
    };
    let fates = ends(&[Told, Frozen], &[Told]);
    let bounced = Story::record("bounce what is frozen", fates, frozen, |stage| {
        stage.act(&Action::Bounce(by()));
        stage.pass();
    });
    vec![
        held,
        let_go("thaw, and a pass", Action::Thaw(by())),
        let_go("retry what is frozen", Action::Retry(by())),
        bounced,
    ]
}

/// A hold expires by itself.
pub fn hold_for_a_time() -> Story {
    let mut fates = ends(&[Delivered], &[Delivered]);
    // The first minute, and the fifty minutes of the hold.
    fates[1].held = Some(51);
    let title = "freeze until a time, and it comes";
    Story::record(title, fates, deferred, |stage| {
        let until = Some(stage.clock.now() + SignedDuration::from_mins(50));
        stage.act(&Action::Freeze {
            by: by(),
            until,
            then: Then::Thaw,
        });
        stage.pass_after(40);
        stage.pass_after(20);
    })
}

/// An operator's process is killed after its event is written, before it is durable.
pub fn hold_killed() -> Vec<Story> {
    let story = |(what, end): (&str, End)| {
        let fates = ends(&[Delivered, end], &[end]);
        let title = format!("killed at a {what}");
        Story::record(&title, fates, deferred, |stage| {
            let action = match end {
                Gone => discard(stage),
                _ => freeze(),
            };
            stage.killed_at(noted, || drop(stage.try_act(&action)));
            stage.pass_after(20);
        })
    };
    [("freeze", Frozen), ("discard", Gone)].map(story).into()
}

pub fn throw_away() -> Vec<Story> {
    let fates = ends(&[Delivered, Gone], &[Gone]);
    let away = Story::record("discard, for good", fates, deferred, |stage| {
        stage.act(&discard(stage));
        stage.pass_after(60);
        stage.pass();
    });
    let fates = ends(&[Delivered, Gone], &[Delivered]);
    let back = Story::record("take back", fates, discarded, |stage| {
        stage.act(&Action::Retry(by()));
        stage.pass_after(20);
    });
    let fates = ends(&[Delivered, Told], &[Told]);
    let bounced = Story::record("bounce by hand", fates, deferred, |stage| {
        stage.act(&Action::Bounce(by()));
        stage.pass();
    });
    let fates = ends(&[Delivered], &[Delivered]);
    let flushed = Story::record("flush", fates, deferred, |stage| {
        stage.forward(12);
        stage.flush();
        stage.pass();
    });
    vec![away, back, bounced, flushed]
}

/// Requested while another process holds the message, and handled by the next run.
pub fn ask() -> Vec<Story> {
    let asked = |title: &str, before: fn(&Stage), fates, action: fn(&Stage) -> Action| {
        let title = format!("request to {title}, served");
        Story::record(&title, fates, before, |stage| {
            stage.ask(&action(stage));
            stage.pass();
        })
    };
    let freezing = ends(&[Delivered, Frozen], &[Frozen]);
    let thawing = ends(&[Delivered, Frozen], &[Delivered]);
    let discarding = ends(&[Delivered, Gone], &[Gone]);
    let bouncing = ends(&[Delivered, Told], &[Told]);
    let retrying = ends(&[Delivered], &[Delivered]);
    let mut all = vec![
        asked("freeze", deferred, freezing, |_| freeze()),
        asked("thaw", frozen, thawing, |_| Action::Thaw(by())),
        asked("discard", deferred, discarding, discard),
        asked("bounce", deferred, bouncing, |_| Action::Bounce(by())),
        asked("retry", deferred, retrying, |_| Action::Retry(by())),
    ];
    // A request that was handled must not come back.
    let fates = ends(&[Delivered, Frozen], &[Delivered]);
    let title = "thaw what a request froze";
    all.push(Story::record(title, fates, deferred, |stage| {
        stage.ask_silently(&freeze());
        stage.pass();
        stage.act(&Action::Thaw(by()));
    }));
    all
}
