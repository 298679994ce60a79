//! Mail on its way: accepted, tried, delivered, told about, forgotten.

use mailspool::disk::Method;
use mailspool::message::Door;

use super::super::judge::End::{Delivered, Frozen, Gone, Heard, Told, Warned};
use super::super::stage::Stage;
use super::super::story::{Story, When, fate};
use super::moments::{
    durable, finished, half_gone, in_the_box, noted, noted_notice, noted_outcome, written,
};
use super::{A, AGAIN, B, BOX, HUSH, LONG, NEVER, NO, PIPE, SLOW, SLOWER, TOLD, deferred, nothing};

pub fn doors(method: Method) -> Vec<Story> {
    vec![accept(method, Door::Active), accept(method, Door::Incoming)]
}

pub fn accept(method: Method, door: Door) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let title = format!("accept by {door:?}");
    Story::record(&title, method, fates, nothing, |stage| {
        stage.accept(door, "one", "s@sender.test", &[A, NO]);
    })
}

pub fn break_off(method: Method) -> Story {
    let title = "accept, and the input breaks off";
    Story::record(title, method, Vec::new(), nothing, Stage::break_off)
}

pub fn move_on(method: Method) -> Vec<Story> {
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
    vec![cut_off, accepted]
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
    let title = "deliver in part and defer";
    Story::record(title, method, fates, prepare, Stage::pass_in_slot)
}

/// The first mail for a Maildir makes it; what goes elsewhere is deferred meanwhile.
pub fn boxed(method: Method) -> Story {
    let fates = vec![
        fate("one", BOX, Delivered),
        fate("two", BOX, Delivered),
        fate("two", SLOW, Delivered),
    ];
    let prepare = |stage: &Stage| stage.send("one", &[BOX]);
    Story::record("into a Maildir", method, fates, prepare, |stage| {
        stage.pass();
        stage.send("two", &[BOX, SLOW]);
        stage.pass();
    })
}

/// Killed when the copy has its name, before that is durable and recorded.
pub fn boxed_killed(method: Method) -> Story {
    let fates = vec![fate("one", BOX, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[BOX, SLOW]);
    let title = "killed with a copy in a Maildir";
    Story::record(title, method, fates, prepare, |stage| {
        stage.killed_behind(in_the_box, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(40);
    })
}

pub fn piped(method: Method) -> Story {
    let fates = vec![fate("one", PIPE, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[PIPE, SLOW]);
    Story::record("through a pipe", method, fates, prepare, |stage| {
        stage.pass();
        stage.pass_after(40);
    })
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
        stage.pass_after(34);
        stage.pass_after(60);
        stage.pass_after(1);
    })
}

/// Moved to the bucket of a probe: one that was tried before, and one that never was.
pub fn put_off(method: Method) -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", SLOW, Delivered),
        fate("two", B, Delivered),
    ];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, SLOW]);
        stage.pass();
        stage.forward(34);
        stage.send("two", &[B]);
    };
    let title = "move to the probe's bucket, twice";
    Story::record(title, method, fates, prepare, |stage| {
        stage.put_off(5);
        stage.forward(6);
        stage.put_off(10);
        stage.pass_after(11);
    })
}

pub fn bounce(method: Method) -> Vec<Story> {
    let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
    let all = Story::record("fail and bounce", method, fates, prepare, Stage::pass);
    let fates = vec![fate("one", SLOW, Delivered), fate("one", NO, Told)];
    let prepare = |stage: &Stage| stage.send("one", &[SLOW, NO]);
    let title = "fail in part, bounce and defer";
    let part = Story::record(title, method, fates, prepare, Stage::pass);
    vec![all, part]
}

/// The last attempt, at the end of the lifetime.
pub fn expire(method: Method) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", NEVER, Told)];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, NEVER]);
        stage.pass();
        stage.pass_after(70);
        stage.pass_after(70);
    };
    let title = "expire, and bounce";
    Story::record(title, method, fates, prepare, |stage| stage.pass_after(120))
}

pub fn bounce_killed(method: Method) -> Vec<Story> {
    let kills: [(&str, When); 3] = [
        ("not durable", written),
        ("durable", durable(method)),
        ("recorded", noted_notice),
    ];
    let story = |(when, kill): (&str, When)| {
        let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
        let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
        let title = format!("killed with a notice {when}");
        Story::record(&title, method, fates, prepare, |stage| {
            stage.killed_behind(kill, || drop(stage.try_pass()));
            stage.pass_after(30);
        })
    };
    kills.map(story).into()
}

/// What was delivered and is told, what failed and is told, and what failed and is not.
pub fn confirm(method: Method) -> Vec<Story> {
    let fates = vec![fate("one", TOLD, Heard), fate("one", HUSH, Gone)];
    let prepare = |stage: &Stage| stage.send("one", &[TOLD, HUSH]);
    let title = "tell of a delivery, and not of a failure";
    let one = Story::record(title, method, fates, prepare, Stage::pass);
    let fates = vec![
        fate("one", TOLD, Heard),
        fate("one", NO, Told),
        fate("one", SLOW, Delivered),
    ];
    let prepare = |stage: &Stage| stage.send("one", &[TOLD, NO, SLOW]);
    let title = "tell of a delivery and of a failure, and defer";
    let mixed = Story::record(title, method, fates, prepare, Stage::pass);
    vec![one, mixed]
}

pub fn confirm_killed(method: Method) -> Vec<Story> {
    let kills: [(&str, When); 2] = [("durable", durable(method)), ("recorded", noted_notice)];
    let story = |(when, kill): (&str, When)| {
        let fates = vec![fate("one", TOLD, Heard), fate("one", A, Delivered)];
        let prepare = |stage: &Stage| stage.send("one", &[A, TOLD]);
        let title = format!("killed with a notice of a delivery {when}");
        Story::record(&title, method, fates, prepare, |stage| {
            stage.killed_behind(kill, || drop(stage.try_pass()));
            stage.pass_after(30);
        })
    };
    kills.map(story).into()
}

/// A message that was tried for more than an hour, and is not due for another attempt.
pub fn late(stage: &Stage) {
    stage.send("one", &[A, LONG]);
    for minutes in [1, 34, 36] {
        stage.forward(minutes);
        stage.pass();
    }
}

pub fn warn(method: Method) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
    let title = "tell of a delay";
    Story::record(title, method, fates, late, |stage| stage.pass_after(5))
}

pub fn warn_killed(method: Method) -> Vec<Story> {
    let kills: [(&str, When); 3] = [
        ("not durable", written),
        ("durable", durable(method)),
        ("recorded", noted_notice),
    ];
    let story = |(when, kill): (&str, When)| {
        let fates = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
        let title = format!("killed with a notice of a delay {when}");
        Story::record(&title, method, fates, late, |stage| {
            stage.forward(5);
            stage.killed_behind(kill, || drop(stage.try_pass()));
            stage.pass_after(1);
        })
    };
    kills.map(story).into()
}

pub fn interrupt(method: Method) -> Vec<Story> {
    let begun = {
        let mut fates = vec![fate("one", A, Delivered), fate("one", B, Delivered)];
        fates[0].held = Some(AGAIN);
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
    vec![begun, ended]
}

/// A third interruption in a row freezes. A power cut may take back the count.
pub fn poison(method: Method) -> Story {
    let fates = vec![super::super::story::changed(
        "one",
        A,
        &[Frozen, Delivered],
        &[Frozen, Delivered],
    )];
    let prepare = |stage: &Stage| stage.send("one", &[A]);
    Story::record("killed three times", method, fates, prepare, |stage| {
        for _ in 0..3 {
            stage.killed_behind(noted, || drop(stage.try_pass()));
            stage.pass_after(1);
            stage.forward(40);
        }
    })
}

pub fn forget(method: Method) -> Vec<Story> {
    let kills: [(&str, When); 2] = [("in done/", finished), ("half forgotten", half_gone)];
    let story = |(what, kill): (&str, When)| {
        let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
        let title = format!("forget what was left {what}");
        Story::record(&title, method, fates, deferred, |stage| {
            stage.forward(34);
            stage.killed_behind(kill, || drop(stage.try_pass()));
            stage.pass();
        })
    };
    kills.map(story).into()
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
        stage.pass_after(34);
        stage.pass_after(60);
        stage.pass_after(1);
    })
}
