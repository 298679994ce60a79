//! Mail on its way: accepted, tried, delivered, reported, forgotten.

use mailspool::testing::message::Entrance;

use super::super::judge::End::{Delivered, Frozen, Gone, Heard, Told, Warned};
use super::super::log::Step;
use super::super::stage::Stage;
use super::super::story::{Story, When, changed, fate};
use super::moments::{
    accepted, begun, counted, crossed, entered, finished, half_gone, in_the_box, noted_notice,
    noted_outcome, sealed, staged, written,
};
use super::{A, B, BOX, HUSH, LATE, LONG, NEVER, NO, PIPE, SLOW, SLOWER, TOLD, deferred, nothing};

pub fn entrances() -> Vec<Story> {
    vec![accept(Entrance::Active), accept(Entrance::Incoming)]
}

pub fn accept(entrance: Entrance) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let title = format!("accept by {entrance:?}");
    Story::record(&title, fates, nothing, |stage| {
        stage.accept(entrance, "one", "s@sender.test", &[A, NO]);
    })
}

pub fn break_off() -> Story {
    let title = "accept, and the input breaks off";
    Story::record(title, Vec::new(), nothing, Stage::break_off)
}

pub fn move_on() -> Vec<Story> {
    let fates = || vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let kills: [(&str, When); 4] = [
        ("written", written),
        ("sealed", sealed),
        ("entered", entered),
        ("accepted", accepted),
    ];
    let story = |(what, kill): (&str, When)| {
        let title = format!("killed with a message {what}, and a pass");
        Story::record(&title, fates(), nothing, |stage| {
            stage.killed_at(kill, || stage.send("one", &[A, SLOW]));
            if what == "accepted" {
                stage.know("one");
            }
            stage.pass();
        })
    };
    kills.map(story).into()
}

pub fn deliver() -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", B, Delivered),
        fate("two", A, Delivered),
    ];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, B]);
        stage.accept(Entrance::Incoming, "two", "", &[A]);
    };
    Story::record("deliver", fates, prepare, Stage::pass)
}

pub fn defer() -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[A, SLOW]);
    let title = "deliver in part and defer";
    Story::record(title, fates, prepare, Stage::pass_in_slot)
}

/// The first mail for a Maildir creates it. The second message is deferred for its other recipient.
pub fn boxed() -> Story {
    let fates = vec![
        fate("one", BOX, Delivered),
        fate("two", BOX, Delivered),
        fate("two", SLOW, Delivered),
    ];
    let prepare = |stage: &Stage| stage.send("one", &[BOX]);
    Story::record("into a Maildir", fates, prepare, |stage| {
        stage.pass();
        stage.send("two", &[BOX, SLOW]);
        stage.pass();
    })
}

/// Killed after the copy has its name, before the name is durable and the delivery recorded.
pub fn boxed_killed() -> Story {
    let fates = vec![fate("one", BOX, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[BOX, SLOW]);
    let title = "killed with a copy in a Maildir";
    Story::record(title, fates, prepare, |stage| {
        stage.killed_at(in_the_box, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(40);
    })
}

pub fn piped() -> Story {
    let fates = vec![fate("one", PIPE, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[PIPE, SLOW]);
    Story::record("through a pipe", fates, prepare, |stage| {
        stage.pass();
        stage.pass_after(40);
    })
}

pub fn due_again() -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", SLOW, Delivered),
        fate("one", SLOWER, Delivered),
    ];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, SLOW, SLOWER]);
        stage.pass();
    };
    Story::record("due again, and again", fates, prepare, |stage| {
        stage.pass_after(34);
        stage.pass_after(60);
        stage.pass_after(1);
    })
}

/// Moved to the bucket of a probe: a message that was tried before, and one that never was.
pub fn put_off() -> Story {
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
    Story::record(title, fates, prepare, |stage| {
        stage.put_off(5);
        stage.forward(6);
        stage.put_off(10);
        stage.pass_after(11);
    })
}

pub fn bounce() -> Vec<Story> {
    let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
    let all = Story::record("fail and bounce", fates, prepare, Stage::pass);
    let fates = vec![fate("one", SLOW, Delivered), fate("one", NO, Told)];
    let prepare = |stage: &Stage| stage.send("one", &[SLOW, NO]);
    let title = "fail in part, bounce and defer";
    let part = Story::record(title, fates, prepare, Stage::pass);
    vec![all, part]
}

/// The last attempt, at the end of the lifetime.
pub fn expire() -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", NEVER, Told)];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A, NEVER]);
        stage.pass();
        stage.pass_after(70);
        stage.pass_after(70);
    };
    let title = "expire, and bounce";
    Story::record(title, fates, prepare, |stage| stage.pass_after(120))
}

pub fn bounce_killed() -> Vec<Story> {
    let kills: [(&str, When); 3] = [
        ("not durable", written),
        ("durable", staged),
        ("recorded", noted_notice),
    ];
    let story = |(when, kill): (&str, When)| {
        let fates = vec![fate("one", A, Delivered), fate("one", NO, Told)];
        let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
        let title = format!("killed with a notice {when}");
        Story::record(&title, fates, prepare, |stage| {
            stage.killed_at(kill, || drop(stage.try_pass()));
            stage.pass_after(30);
        })
    };
    kills.map(story).into()
}

/// Deliveries with a success notice, failures with a bounce, and failures without a notice.
pub fn confirm() -> Vec<Story> {
    let fates = vec![fate("one", TOLD, Heard), fate("one", HUSH, Gone)];
    let prepare = |stage: &Stage| stage.send("one", &[TOLD, HUSH]);
    let title = "tell of a delivery, and not of a failure";
    let one = Story::record(title, fates, prepare, Stage::pass);
    let fates = vec![
        fate("one", TOLD, Heard),
        fate("one", NO, Told),
        fate("one", SLOW, Delivered),
    ];
    let prepare = |stage: &Stage| stage.send("one", &[TOLD, NO, SLOW]);
    let title = "tell of a delivery and of a failure, and defer";
    let mixed = Story::record(title, fates, prepare, Stage::pass);
    vec![one, mixed]
}

pub fn confirm_killed() -> Vec<Story> {
    let kills: [(&str, When); 2] = [("durable", staged), ("recorded", noted_notice)];
    let story = |(when, kill): (&str, When)| {
        let fates = vec![fate("one", TOLD, Heard), fate("one", A, Delivered)];
        let prepare = |stage: &Stage| stage.send("one", &[A, TOLD]);
        let title = format!("killed with a notice of a delivery {when}");
        Story::record(&title, fates, prepare, |stage| {
            stage.killed_at(kill, || drop(stage.try_pass()));
            stage.pass_after(30);
        })
    };
    kills.map(story).into()
}

/// Sends a message that has been tried for more than an hour, and is not due for another attempt.
pub fn late(stage: &Stage) {
    stage.send("one", &[A, LONG]);
    for minutes in [1, 34, 36] {
        stage.forward(minutes);
        stage.pass();
    }
}

pub fn warn() -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
    let title = "tell of a delay";
    Story::record(title, fates, late, |stage| stage.pass_after(5))
}

pub fn warn_killed() -> Vec<Story> {
    let kills: [(&str, When); 3] = [
        ("not durable", written),
        ("durable", staged),
        ("recorded", noted_notice),
    ];
    let story = |(when, kill): (&str, When)| {
        let fates = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
        let title = format!("killed with a notice of a delay {when}");
        Story::record(&title, fates, late, |stage| {
            stage.forward(5);
            stage.killed_at(kill, || drop(stage.try_pass()));
            stage.pass_after(1);
        })
    };
    kills.map(story).into()
}

pub fn interrupt() -> Vec<Story> {
    let interrupted = {
        let fates = vec![fate("one", A, Delivered), fate("one", B, Delivered)];
        let prepare = |stage: &Stage| stage.send("one", &[A, B]);
        Story::record("killed while trying", fates, prepare, |stage| {
            stage.killed_at(begun, || drop(stage.try_pass()));
            stage.pass_after(1);
            stage.pass_after(60);
        })
    };
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[A, SLOW]);
    let title = "killed before recording";
    let ended = Story::record(title, fates, prepare, |stage| {
        stage.killed_at(noted_outcome, || drop(stage.try_pass()));
        stage.pass_after(1);
    });
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let title = "killed with an octet that is not durable";
    let octet = Story::record(title, fates, prepare, |stage| {
        stage.killed_at(crossed, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(60);
    });
    // The interruption may be counted twice, but never missed. One more freezes the message.
    let ends = [Delivered, Frozen];
    let fates = vec![
        changed("one", A, &ends, &ends),
        changed("one", B, &ends, &ends),
    ];
    let prepare = |stage: &Stage| stage.send("one", &[A, B]);
    let title = "killed while counting an interruption";
    let counting = Story::record(title, fates, prepare, |stage| {
        stage.killed_at(begun, || drop(stage.try_pass()));
        stage.forward(1);
        stage.killed_at(counted, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(60);
    });
    vec![interrupted, ended, octet, counting]
}

/// An interruption at the end of a recipient's lifetime bounces nothing, because the in-use bit may be stray.
pub fn last_chance() -> Story {
    let prepare = |stage: &Stage| {
        stage.send("one", &[LATE]);
        stage.pass();
        stage.pass_after(70);
        stage.pass_after(70);
    };
    let fates = vec![fate("one", LATE, Warned)];
    let title = "killed at the last attempt";
    Story::record(title, fates, prepare, |stage| {
        stage.forward(120);
        stage.killed_at(begun, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(20);
    })
}

/// Returns stories of a delivery at the first attempt, with the process killed at each of its calls.
pub fn killed_at_each_call() -> Vec<Story> {
    let mut all = Vec::new();
    let mut was_killed = true;
    // Call 0 opens the spool.
    for number in 1.. {
        let title = format!("killed after call {number} of an attempt without a history");
        let prepare = |stage: &Stage| stage.send("one", &[A]);
        let mut story = Story::record(&title, vec![fate("one", A, Delivered)], prepare, |stage| {
            was_killed = stage.killed_after(number, || drop(stage.try_pass()));
            if was_killed {
                stage.pass_after(1);
                stage.pass_after(60);
            }
        });
        if !was_killed {
            assert_is_cheap(&story.steps);
            return all;
        }
        story.one_in = 2;
        all.push(story);
    }
    all
}

/// Asserts that the only sync is of `done/`, and that no file is made.
fn assert_is_cheap(steps: &[Step]) {
    let syncs: Vec<&Step> = steps.iter().filter(|step| step.is_sync()).collect();
    let done = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("done"));
    assert!(matches!(syncs[..], [one] if done(one)), "{syncs:?}");
    let mut made = steps.iter().filter(|step| matches!(step, Step::Create(_)));
    assert!(made.next().is_none(), "{steps:?}");
}

/// A third interruption in a row freezes the message. A power cut may undo the count.
pub fn poison() -> Story {
    let ends = [Frozen, Delivered];
    let fates = vec![changed("one", A, &ends, &ends)];
    let prepare = |stage: &Stage| stage.send("one", &[A]);
    Story::record("killed three times", fates, prepare, |stage| {
        for _ in 0..3 {
            stage.killed_at(begun, || drop(stage.try_pass()));
            stage.pass_after(1);
            stage.forward(40);
        }
    })
}

pub fn forget() -> Vec<Story> {
    let kills: [(&str, When); 2] = [("in done/", finished), ("half forgotten", half_gone)];
    let story = |(what, kill): (&str, When)| {
        let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
        let title = format!("forget what was left {what}");
        Story::record(&title, fates, deferred, |stage| {
            stage.forward(34);
            stage.killed_at(kill, || drop(stage.try_pass()));
            stage.pass();
        })
    };
    let mut all: Vec<Story> = kills.map(story).into();
    all.extend(vanish());
    all
}

/// A message is finished and its history unlinked, and the sync of another message's history makes the unlink
/// durable. A power cut may then bring the message back without its history.
fn vanish() -> [Story; 2] {
    let another = |stage: &Stage| {
        stage.send("two", &[B, NO]);
        stage.pass();
    };
    let two = || [fate("two", B, Delivered), fate("two", NO, Told)];
    let mut fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    fates.extend(two());
    let prepare = |stage: &Stage| stage.send("one", &[A, SLOW]);
    let title = "a history vanishes that had a delivery";
    let delivered = Story::record(title, fates, prepare, |stage| {
        stage.pass();
        stage.pass_after(34);
        another(stage);
    });
    let mut fates = vec![fate("one", NO, Told), fate("one", SLOW, Delivered)];
    fates.extend(two());
    let prepare = |stage: &Stage| stage.send("one", &[NO, SLOW]);
    let title = "a history vanishes that had told the sender";
    let told = Story::record(title, fates, prepare, |stage| {
        stage.pass();
        stage.pass_after(34);
        another(stage);
    });
    [delivered, told]
}

pub fn life() -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", SLOW, Delivered),
        fate("one", SLOWER, Delivered),
        fate("two", B, Delivered),
        fate("two", NO, Told),
    ];
    Story::record("two lives", fates, nothing, |stage| {
        stage.send("one", &[A, SLOW, SLOWER]);
        stage.pass();
        stage.accept(Entrance::Incoming, "two", "s@sender.test", &[B, NO]);
        stage.pass_after(34);
        stage.pass_after(60);
        stage.pass_after(1);
    })
}
