use super::*;
use crate::message::{Address, EnhancedCode, QueueId, ReversePath};
use crate::queue::Outcome;

fn mins(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn phase(until: i64, every: i64, factor: f64) -> Phase {
    Phase {
        until: mins(until),
        every: mins(every),
        factor,
    }
}

fn delays(delays: &[i64], lifetime: i64) -> Schedule {
    let delays = delays.iter().copied().map(mins).collect();
    Schedule::of_delays(delays, mins(lifetime)).unwrap()
}

/// Returns the next attempt after a failure.
fn next(schedule: &Schedule, id: QueueId, attempts: u32, now: Timestamp) -> Option<Timestamp> {
    let sender = ReversePath::parse(b"s@z").unwrap();
    let recipient = Address::parse("a@x").unwrap();
    let outcome = Outcome::deferred(EnhancedCode::new(4, 0, 0), "later");
    schedule.next_attempt(&FailedAttempt {
        id,
        begin: id.accepted(),
        sender: &sender,
        recipient: &recipient,
        transport: None,
        attempts,
        status: outcome.status,
        reply: &outcome.reply,
        now,
    })
}

fn id() -> QueueId {
    QueueId::new("2026-11-22T00:00:00Z".parse().unwrap(), [9; 10])
}

/// The ages of the attempts of a message that always fails, with each attempt made when it is due.
fn lived(schedule: &Schedule) -> Vec<SignedDuration> {
    let id = id();
    let (mut now, mut attempts) = (id.accepted(), 1);
    let mut ages = Vec::new();
    while let Some(next) = next(schedule, id, attempts, now) {
        assert!(next > now);
        assert!(next.duration_since(now) <= schedule.longest_delay());
        now = next;
        attempts += 1;
        ages.push(now.duration_since(id.accepted()));
    }
    ages
}

fn minutes(ages: &[SignedDuration]) -> Vec<f64> {
    ages.iter().map(|age| age.as_secs_f64() / 60.0).collect()
}

/// Every attempt of each schedule, in minutes, as documented.
#[test]
fn each_schedule_is_as_documented() {
    let hours = |from: i64, to: i64, step: usize| (from..=to).step_by(step).map(|h| h * 60);
    let quarters: Vec<f64> = (1..=8).map(|n| f64::from(n * 15)).collect();
    // From 15 minutes, each delay 1.5 times the one before, from 2 hours until 16 hours.
    let growing = [
        135.0,
        157.5,
        191.25,
        241.875,
        317.8125,
        431.71875,
        602.578125,
        858.8671875,
        960.0,
    ];
    let mut default = [quarters.as_slice(), &growing].concat();
    default.extend(hours(22, 94, 6).map(|minute| minute as f64));
    default.push(96.0 * 60.0);
    let day = |of: &[f64]| {
        of.iter()
            .copied()
            .filter(|age| *age < 1440.0)
            .collect::<Vec<_>>()
    };
    let capped: Vec<f64> = (1..=384).map(|n| f64::from(n * 15)).collect();
    let of = Schedule::default;
    for (schedule, expected) in [
        (of(), default.clone()),
        (
            of().with_lifetime(mins(1440)).unwrap(),
            [day(&default), vec![1440.0]].concat(),
        ),
        (
            of().ended_at(mins(1440)),
            [day(&default), vec![1440.0]].concat(),
        ),
        (of().ended_at(mins(100_000)), default.clone()),
        (
            of().with_lifetime(mins(100 * 60)).unwrap(),
            [&default[..default.len() - 1], &[100.0 * 60.0]].concat(),
        ),
        (of().with_cap(mins(15)).unwrap(), capped),
        (
            delays(&[5, 15, 60], 200),
            vec![5.0, 20.0, 80.0, 140.0, 200.0],
        ),
        (
            delays(&[5, 15, 60], 150),
            vec![5.0, 20.0, 80.0, 140.0, 150.0],
        ),
        (delays(&[5, 15, 60], 10), vec![5.0, 10.0]),
        (
            delays(&[5, 15, 60], 80).with_cap(mins(10)).unwrap(),
            vec![5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 80.0],
        ),
        (of().ended_at(SignedDuration::ZERO), vec![]),
        (of().ended_at(mins(1)), vec![1.0]),
        // A lifetime that is shortened and restored.
        (
            of().with_lifetime(mins(1))
                .and_then(|short| short.with_lifetime(mins(96 * 60)))
                .unwrap(),
            default.clone(),
        ),
    ] {
        assert_eq!(minutes(schedule.ages()), expected, "{schedule:?}");
        let steady = Schedule {
            jitter: 0.0,
            ..schedule
        };
        // Times are whole seconds, rounded up.
        let expected: Vec<f64> = expected.iter().map(|age| (age * 60.0).ceil()).collect();
        let real: Vec<f64> = lived(&steady).iter().map(|age| age.as_secs_f64()).collect();
        assert_eq!(real, expected, "{steady:?}");
    }
}

#[test]
fn jitter_is_limited_and_does_not_move_the_end() {
    for jitter in [0.1, 0.5, 1.0] {
        let schedule = delays(&[60], 601).with_jitter(jitter).unwrap();
        let (mut before, mut any) = (SignedDuration::ZERO, false);
        let id = id();
        for (n, ideal) in schedule.ages().iter().copied().enumerate() {
            let now = id.accepted() + before;
            let next = next(&schedule, id, n as u32 + 1, now).unwrap();
            let late = next.duration_since(id.accepted()) - ideal;
            let most = (ideal - before).as_secs_f64() * jitter;
            assert!((0.0..=most + 1.0).contains(&late.as_secs_f64()), "{late}");
            any |= !late.is_zero();
            before = ideal;
        }
        assert!(any, "{jitter}");
        assert_eq!(lived(&schedule).last(), Some(&mins(601)));
    }
}

#[test]
fn no_delay_exceeds_the_cap_or_the_longest_delay() {
    let schedule = Schedule::default()
        .with_jitter(1.0)
        .and_then(|schedule| schedule.with_cap(mins(60)))
        .unwrap();
    let mut before = SignedDuration::ZERO;
    for age in lived(&schedule) {
        assert!(age - before <= mins(60), "{before} {age}");
        before = age;
    }
    let short = Schedule::new(vec![phase(1, 2, 1.0)]).unwrap();
    for schedule in [schedule, short, Schedule::default(), delays(&[1, 600], 900)] {
        for age in 0..6000 {
            let now = id().accepted() + mins(age);
            if let Some(next) = next(&schedule, id(), 1, now) {
                let ahead = next.duration_since(now);
                assert!(ahead <= schedule.longest_delay(), "{age}: {ahead}");
                assert!(ahead > SignedDuration::ZERO);
            }
        }
    }
}

#[test]
fn an_old_message_still_gets_the_minimum_of_attempts() {
    let schedule = Schedule::default();
    let id = QueueId::new("2026-11-01T00:00:00Z".parse().unwrap(), [9; 10]);
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    assert_eq!(next(&schedule, id, 1, now), Some(now + mins(15)));
    assert_eq!(next(&schedule, id, 2, now), Some(now + mins(15)));
    assert_eq!(next(&schedule, id, 3, now), None);
    // A schedule with fewer attempts requires only those.
    let once = Schedule::new(vec![phase(1, 2, 1.0)]).unwrap();
    assert_eq!(next(&once, id, 1, now), Some(now + mins(1)));
    assert_eq!(next(&once, id, 2, now), None);
    assert_eq!(next(&once.ended_at(SignedDuration::ZERO), id, 1, now), None);
}

#[test]
fn a_clock_that_went_back_is_harmless() {
    let schedule = Schedule::default();
    let id = QueueId::new("2030-01-01T00:00:00Z".parse().unwrap(), [9; 10]);
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    for attempts in [1, 2, 3, 1000] {
        let next = next(&schedule, id, attempts, now).unwrap();
        assert!(next.duration_since(now) <= mins(17));
    }
}

#[test]
fn invalid_schedules_are_refused() {
    use ScheduleError::{Cap, Delay, Empty, Factor, Jitter, Lifetime, Order, TooMany};
    let of = Schedule::default;
    let list = |list: &[i64], lifetime| {
        Schedule::of_delays(list.iter().copied().map(mins).collect(), mins(lifetime))
    };
    for (schedule, error) in [
        (Schedule::new(vec![]), Empty),
        (
            Schedule::new(vec![phase(9, 1, 1.0), phase(9, 1, 1.0)]),
            Order,
        ),
        (Schedule::new(vec![phase(9, 0, 1.0)]), Delay),
        (Schedule::new(vec![phase(9, -5, 1.0)]), Delay),
        (Schedule::new(vec![phase(9, 1, 0.5)]), Factor),
        (Schedule::new(vec![phase(9, 1, f64::NAN)]), Factor),
        (Schedule::new(vec![phase(10_002, 1, 1.0)]), TooMany),
        (list(&[], 60), Empty),
        (list(&[5, 0], 60), Delay),
        (list(&[5], 0), Lifetime),
        (list(&[5], -5), Lifetime),
        (list(&[5], 1 << 25), TooMany),
        (list(&[1 << 50], 1 << 50), Lifetime),
        (list(&[1], 10_002), TooMany),
        (of().with_lifetime(mins(0)), Lifetime),
        (of().with_cap(mins(0)), Cap),
        (of().with_cap(mins(-1)), Cap),
        (of().with_jitter(-0.1), Jitter),
        (of().with_jitter(1.1), Jitter),
        (of().with_jitter(f64::NAN), Jitter),
    ] {
        assert_eq!(schedule, Err(error));
    }
    assert!(Schedule::new(vec![phase(9, 1, 1.0)]).is_ok());
    assert!(of().with_jitter(0.0).is_ok());
}
