//! An operator that suspends or resumes, during a run, and two such operators.

use jiff::Timestamp;
use mailspool::testing::spool::{Changed, Queue, Standing};

use super::explore::Bound;
use super::programs::{pass, resuming, suspending, suspension};
use super::shared::Clock;
use super::stage::{Case, End, Pair, Said, Stage};

const DOMAIN: &str = "ok.test";
/// The targets that suspend the message: its domain, and all mail.
const NAMES: [&str; 2] = [DOMAIN, "*"];
const TO: &str = "a@ok.test";
/// End of a suspension, in minutes. By the real clock no message is put off for more than an hour.
const END: i64 = 55;

fn changed(said: &Said) -> Option<Changed> {
    match said {
        Said::Changed(changed) => Some(*changed),
        Said::Killed => None,
        other => panic!("{other:?}"),
    }
}

fn standing(case: &Case<'_>) -> Vec<Standing> {
    let all = case.spool().suspensions().unwrap();
    assert!(all.iter().all(|one| one.says.is_some()), "{all:?}");
    all
}

fn reason(case: &Case<'_>) -> Option<String> {
    let mut all = standing(case);
    assert!(all.len() <= 1, "{all:?}");
    all.pop()?.says?.by.reason
}

fn sent() -> Stage {
    Stage::new(|stage| {
        stage.send(&[TO]);
    })
}

/// Returns a stage with a suspension from the first minute, until a minute or without an end.
fn suspended(name: &'static str, until: Option<i64>) -> Stage {
    Stage::new(|stage| {
        stage.send(&[TO]);
        let one = suspension(stage, name, until, "first");
        assert_eq!(stage.spool().suspend(&one).unwrap(), Changed::Done);
    })
}

/// Resumes everything, and asserts that the mail is delivered.
fn ends_when_resumed(case: &Case<'_>, said: &[Said; 2]) {
    let spool = case.spool();
    for one in standing(case) {
        assert_eq!(spool.resume(&one.file).unwrap(), Changed::Done);
    }
    case.ends(said, &[(case.stage.ids[0], TO, &[End::Delivered])]);
}

/// An attempt that has begun is completed. After it, or without one, nothing is delivered.
#[test]
fn suspending_what_is_delivered() {
    for name in NAMES {
        let stage = sent();
        let programs = [pass(1), suspending(name, Some(END), "mine")];
        Pair::new("deliver, suspend", &stage, programs, |case, said| {
            let before = case.delivered(stage.ids[0]);
            let in_force = reason(case).is_some();
            // A killed operator may or may not have made the suspension.
            if let Some(done) = changed(&said[1]) {
                assert_eq!((done, in_force), (Changed::Done, true));
            }
            let clock = Clock::at(stage.at(40));
            case.runner(case.spool(), &clock).build().pass().unwrap();
            let after = case.delivered(stage.ids[0]);
            assert!(
                !in_force || after == before,
                "delivered although it is suspended"
            );
            ends_when_resumed(case, said);
        })
        .holds(Bound::of(2).kills(1));
    }
}

/// One of two suspensions takes effect, whole. The other operator succeeds before it, or gets `Busy`.
#[test]
fn two_suspend() {
    for stage in [sent(), suspended(DOMAIN, None)] {
        let programs = [
            suspending(DOMAIN, None, "one"),
            suspending(DOMAIN, Some(6000), "two"),
        ];
        Pair::new("suspend, suspend", &stage, programs, |case, said| {
            let mut may = Vec::new();
            for (said, reason) in said.iter().zip(["one", "two"]) {
                match changed(said) {
                    Some(Changed::Done) => may.push(reason),
                    Some(Changed::Busy) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(!may.is_empty(), "{said:?}");
            let reason = reason(case).expect("nothing is suspended");
            assert!(may.contains(&reason.as_str()), "{reason}: {said:?}");
            ends_when_resumed(case, said);
        })
        .holds(Bound::of(2).costly());
    }
}

#[test]
fn suspending_what_is_resumed() {
    let stage = suspended(DOMAIN, None);
    let programs = [suspending(DOMAIN, None, "second"), resuming(DOMAIN)];
    Pair::new("suspend, resume", &stage, programs, |case, said| {
        let reason = reason(case);
        match (changed(&said[0]), changed(&said[1])) {
            (Some(Changed::Done), Some(Changed::Busy)) => {
                assert_eq!(reason.as_deref(), Some("second"));
            }
            (Some(Changed::Busy), Some(Changed::Done)) => assert_eq!(reason, None),
            // The later one wins.
            (Some(Changed::Done), Some(Changed::Done)) => {
                assert!(reason.is_none_or(|reason| reason == "second"));
            }
            (None, _) | (_, None) => {}
            other => panic!("{other:?}"),
        }
        ends_when_resumed(case, said);
    })
    .holds(Bound::of(2).kills(1));
}

/// A run removes an expired suspension; one that is made anew at that moment stays.
#[test]
fn suspending_anew_what_has_run_out() {
    let stage = suspended(DOMAIN, Some(30));
    let programs = [pass(40), suspending(DOMAIN, Some(END), "anew")];
    Pair::new("run out, suspend", &stage, programs, |case, said| {
        match changed(&said[1]) {
            Some(Changed::Done) => assert_eq!(reason(case).as_deref(), Some("anew")),
            Some(Changed::Busy) => assert!(reason(case).is_none_or(|one| one == "first")),
            None => {}
            other => panic!("{other:?}"),
        }
        ends_when_resumed(case, said);
    })
    .holds(Bound::of(2).kills(0));
}

/// A message that a run puts off while its domain is resumed does not wait for the bucket's time.
#[test]
fn resuming_what_is_put_off() {
    for name in NAMES {
        let stage = suspended(name, Some(END));
        let programs = [pass(1), resuming(name)];
        Pair::new("put off, resume", &stage, programs, |case, said| {
            let killed = said.iter().any(|one| matches!(one, Said::Killed));
            let queue = case.queue(stage.ids[0]);
            if !killed {
                assert_eq!(changed(&said[1]), Some(Changed::Done));
                let waits = matches!(queue, Some(Queue::Deferred(_)));
                assert!(!waits, "it waits in {queue:?} for nothing");
            }
            if changed(&said[1]) == Some(Changed::Done) {
                assert_eq!(standing(case), []);
            }
            let longest = Timestamp::from_second(stage.at(END + 1).as_second()).unwrap();
            if let Some(Queue::Deferred(bucket)) = queue {
                assert!(bucket.due().unwrap() <= longest, "{queue:?}");
            }
            ends_when_resumed(case, said);
        })
        .holds(Bound::of(2).kills(0));
    }
}
