//! The stories.

use jiff::SignedDuration;
use mailspool::disk::Method;
use mailspool::message::Door;
use mailspool::queue::Action;

use super::judge::End::{Delivered, Frozen, Gone, Told};
use super::moments::{durable, finished, half_gone, noted, noted_notice, noted_outcome, written};
use super::story::{Stage, Story, When, by, changed, fate};

const A: &str = "a@ok.test";
const B: &str = "b@other.test";
const SLOW: &str = "slow@first.test";
const SLOWER: &str = "slower@later.test";
const NO: &str = "no@no.test";

fn nothing(_: &Stage) {}

/// A deferred message.
fn deferred(stage: &Stage) {
    stage.send("one", &[A, SLOW]);
    stage.pass();
}

fn freeze() -> Action {
    Action::Freeze {
        by: by(),
        until: None,
    }
}

fn discard(stage: &Stage) -> Action {
    Action::Discard {
        by: by(),
        until: stage.clock.now() + SignedDuration::from_mins(30),
    }
}

pub fn accept(method: Method, door: Door) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let title = format!("accept by {door:?}");
    Story::record(&title, method, fates, nothing, |stage| {
        stage.accept(door, "one", "s@sender.test", &[A, NO]);
    })
}

pub fn move_on(method: Method) -> [Story; 2] {
    let fates = || vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let title = "move on what was cut off in new/";
    let cut_off = Story::record(title, method, fates(), nothing, |stage| {
        stage.killed_behind(written, || stage.send("one", &[A, SLOW]));
        stage.pass();
    });
    let title = "move on what was accepted";
    let accepted = Story::record(title, method, fates(), nothing, |stage| {
        stage.killed_behind(durable(stage.method), || stage.send("one", &[A, SLOW]));
        stage.pass();
    });
    [cut_off, accepted]
}

pub fn deliver(method: Method) -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", B, Delivered),
        fate("two", A, Delivered),
    ];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, B]);
        stage.accept(Door::Incoming, "two", "", &[A]);
    };
    Story::record("deliver", method, fates, prepare, Stage::pass)
}

pub fn defer(method: Method) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[A, SLOW]);
    Story::record(
        "deliver in part and defer",
        method,
        fates,
        prepare,
        Stage::pass,
    )
}

pub fn due_again(method: Method) -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", SLOW, Delivered),
        fate("one", SLOWER, Delivered),
    ];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, SLOW, SLOWER]);
        stage.pass();
    };
    Story::record("due again, and again", method, fates, prepare, |stage| {
        stage.pass_after(30);
        stage.pass_after(60);
        stage.pass_after(1);
    })
}

pub fn bounce(method: Method) -> [Story; 2] {
    let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
    let all = Story::record("fail and bounce", method, fates, prepare, Stage::pass);
    let fates = vec![fate("one", SLOW, Delivered), fate("one", NO, Told)];
    let prepare = |stage: &Stage| stage.send("one", &[SLOW, NO]);
    let title = "fail in part, bounce and defer";
    let part = Story::record(title, method, fates, prepare, Stage::pass);
    [all, part]
}

pub fn bounce_killed(method: Method) -> [Story; 3] {
    let kills: [(&str, When); 3] = [
        ("not durable", written),
        ("durable", durable(method)),
        ("recorded", noted_notice),
    ];
    kills.map(|(when, kill)| {
        let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
        let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
        let title = format!("killed with a notice {when}");
        Story::record(&title, method, fates, prepare, |stage| {
            stage.killed_behind(kill, || drop(stage.try_pass()));
            stage.pass_after(30);
        })
    })
}

pub fn interrupt(method: Method) -> [Story; 2] {
    let begun = {
        let fates = vec![fate("one", A, Delivered), fate("one", B, Delivered)];
        let prepare = |stage: &Stage| stage.send("one", &[A, B]);
        Story::record("killed while trying", method, fates, prepare, |stage| {
            stage.killed_behind(noted, || drop(stage.try_pass()));
            stage.pass_after(1);
            stage.pass_after(60);
        })
    };
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[A, SLOW]);
    let title = "killed before recording";
    let ended = Story::record(title, method, fates, prepare, |stage| {
        stage.killed_behind(noted_outcome, || drop(stage.try_pass()));
        stage.pass_after(1);
    });
    [begun, ended]
}

/// An operator is killed when his word is written and not durable.
pub fn hold_killed(method: Method) -> [Story; 2] {
    [("freeze", Frozen), ("discard", Gone)].map(|(what, end)| {
        let fates = vec![
            fate("one", A, Delivered),
            changed("one", SLOW, &[Delivered, end], &[end]),
        ];
        let title = format!("killed at a {what}");
        Story::record(&title, method, fates, deferred, |stage| {
            let action = match end {
                Gone => discard(stage),
                _ => freeze(),
            };
            stage.killed_behind(noted, || drop(stage.try_act(&action)));
            stage.pass_after(20);
        })
    })
}

pub fn null_sender(method: Method) -> Story {
    let fates = vec![fate("one", NO, Frozen)];
    let prepare = |stage: &Stage| stage.accept(Door::Incoming, "one", "", &[NO]);
    Story::record("null sender, frozen", method, fates, prepare, Stage::pass)
}

pub fn hold(method: Method) -> [Story; 2] {
    let fates = vec![
        fate("one", A, Delivered),
        changed("one", SLOW, &[Delivered, Frozen], &[Frozen]),
    ];
    let frozen = Story::record("freeze", method, fates, deferred, |stage| {
        stage.act(&freeze());
    });
    let fates = vec![
        fate("one", A, Delivered),
        changed("one", SLOW, &[Delivered, Frozen], &[Delivered]),
    ];
    let prepare = |stage: &Stage| {
        deferred(stage);
        stage.act(&freeze());
        stage.forget_deed();
    };
    let thawed = Story::record("thaw, and a pass", method, fates, prepare, |stage| {
        stage.act(&Action::Thaw(by()));
        stage.pass_after(30);
    });
    [frozen, thawed]
}

pub fn throw_away(method: Method) -> [Story; 3] {
    let ends = |before: &[_], after: &[_]| {
        vec![
            fate("one", A, Delivered),
            changed("one", SLOW, before, after),
        ]
    };
    let discarded = |stage: &Stage| {
        deferred(stage);
        stage.act(&discard(stage));
        stage.forget_deed();
    };
    let fates = ends(&[Delivered, Gone], &[Gone]);
    let away = Story::record("discard, for good", method, fates, deferred, |stage| {
        stage.act(&discard(stage));
        stage.pass_after(60);
        stage.pass();
    });
    let fates = ends(&[Delivered, Gone], &[Delivered]);
    let back = Story::record("take back", method, fates, discarded, |stage| {
        stage.act(&Action::Retry(by()));
        stage.pass_after(20);
    });
    let fates = ends(&[Delivered, Told], &[Told]);
    let bounced = Story::record("bounce by hand", method, fates, deferred, |stage| {
        stage.act(&Action::Bounce(by()));
        stage.pass();
    });
    [away, back, bounced]
}

pub fn ask(method: Method) -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        changed("one", SLOW, &[Delivered, Frozen], &[Frozen]),
    ];
    Story::record("request, served", method, fates, deferred, |stage| {
        stage.ask(&freeze());
        stage.pass();
    })
}

pub fn forget(method: Method) -> [Story; 2] {
    let kills: [(&str, When); 2] = [("in done/", finished), ("half forgotten", half_gone)];
    kills.map(|(what, kill)| {
        let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
        let title = format!("forget what was left {what}");
        Story::record(&title, method, fates, deferred, |stage| {
            stage.clock.forward(30);
            stage.killed_behind(kill, || drop(stage.try_pass()));
            stage.pass();
        })
    })
}

pub fn life(method: Method) -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", SLOW, Delivered),
        fate("one", SLOWER, Delivered),
        fate("two", B, Delivered),
        fate("two", NO, Told),
    ];
    Story::record("two lives", method, fates, nothing, |stage| {
        stage.send("one", &[A, SLOW, SLOWER]);
        stage.pass();
        stage.accept(Door::Incoming, "two", "s@sender.test", &[B, NO]);
        stage.pass_after(30);
        stage.pass_after(60);
        stage.pass_after(1);
    })
}
