//! Recipients of one message with separate schedules, and clocks that jump.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::message::{EnhancedCode, Entrance, QueueId};
use mailspool::testing::queue::{
    Bucket, By, DelayAges, Glob, Hold, Outcome, Pattern, ReplyRule, Routes, Rule, Schedule,
    Schedules, Then,
};
use mailspool::testing::runner::{Runner, Summary};
use mailspool::testing::spool::{Changed, Queue, Spool, Suspension, Target};
use mailspool::testing::transport::from_fn;
use tempfile::TempDir;

use super::world::{HOST, accept, findings, tempdir};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The attempts per recipient.
type Tried = Arc<Mutex<BTreeMap<String, Vec<Timestamp>>>>;

/// A clock that stands still until it is set, to any time.
#[derive(Clone)]
struct Clock(Arc<Mutex<Timestamp>>);

impl Clock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn set(&self, time: Timestamp) {
        *self.0.lock().unwrap() = time;
    }

    fn forward(&self, minutes: i32) {
        *self.0.lock().unwrap() += MINUTE * minutes;
    }
}

struct Scene {
    _dir: TempDir,
    spool: Spool,
    clock: Clock,
    tried: Tried,
    schedules: Schedules,
    delays: DelayAges,
}

fn schedule(delays: &[i32], lifetime: i32) -> Schedule {
    let delays = delays.iter().map(|delay| MINUTE * *delay).collect();
    let schedule = Schedule::of_delays(delays, MINUTE * lifetime);
    schedule.unwrap().with_jitter(0.0).unwrap()
}

/// Default without jitter; 10 minutes for one domain, 30 and 60 for a transport; greylisting retries after 5
/// minutes while the message is young; one hour for the null sender.
fn schedules() -> Schedules {
    Schedules::new(Schedule::default().with_jitter(0.0).unwrap())
        .with_domain("own.test", schedule(&[10], 45))
        .with_transport("slow", schedule(&[30, 60], 180))
        .with_null_lifetime(MINUTE * 60)
        .with_rule(ReplyRule {
            status: Some("4.7".parse().unwrap()),
            reply: Some(Glob::new("*greylist*")),
            after: MINUTE * 5,
            until: Some(MINUTE * 30),
        })
}

impl Scene {
    fn new(schedules: Schedules) -> Scene {
        let dir = tempdir();
        Scene {
            spool: Spool::create(&dir.path().join("spool")).unwrap(),
            _dir: dir,
            clock: Clock(Arc::new(Mutex::new(Timestamp::now()))),
            tried: Tried::default(),
            schedules,
            delays: DelayAges::default(),
        }
    }

    /// Accepts a message, and sets the clock to that moment.
    fn accept(&self, sender: &str, to: &[&str]) -> QueueId {
        let id = accept(&self.spool, Entrance::Active, "m", sender, to);
        self.clock.set(id.accepted());
        id
    }

    /// Runs a pass that defers all mail except to `sender.test`.
    fn pass(&self) -> Summary {
        let relay = || {
            let (tried, clock) = (Arc::clone(&self.tried), self.clock.clone());
            from_fn(move |_, recipients| {
                let deliver = |to: &mailspool::testing::message::Address| {
                    let mut tried = tried.lock().unwrap();
                    let of = tried.entry(to.to_string()).or_default();
                    of.push(clock.now());
                    let code = EnhancedCode::new(4, 7, 1);
                    match to.domain() {
                        Some("sender.test") => Outcome::delivered("taken"),
                        Some("grey.test") => Outcome::deferred(code, "Greylisted, come back"),
                        _ => Outcome::deferred(code, "later"),
                    }
                };
                recipients.iter().map(deliver).collect()
            })
        };
        let rule = |pattern, transport: &str| Rule::new(pattern, transport);
        let routes = Routes(vec![
            rule(Pattern::Domain("slow.test".into()), "slow"),
            rule(Pattern::Domain("own.test".into()), "slow"),
            rule(Pattern::Any, "relay"),
        ]);
        let clock = self.clock.clone();
        let runner = Runner::builder(self.spool.clone(), HOST)
            .transport("relay", relay())
            .transport("slow", relay())
            .routes(routes)
            .retry(self.schedules.clone())
            .delays(self.delays.clone())
            .clock(move || clock.now())
            .build();
        runner.pass().unwrap()
    }

    fn bucket(&self, id: QueueId) -> Option<Bucket> {
        match self.spool.locate(id).unwrap().queue()? {
            Queue::Deferred(bucket) => Some(bucket),
            _ => None,
        }
    }

    /// Runs a pass at each minute for which the message waits, and one just before it.
    fn live(&self, id: QueueId) {
        self.pass();
        while let Some(bucket) = self.bucket(id) {
            let due = bucket.due().unwrap();
            self.clock.set(due - SignedDuration::from_millis(1));
            assert_eq!(self.pass(), Summary::default());
            self.clock.set(due);
            assert_ne!(self.pass(), Summary::default());
        }
        // Finishes what is left, such as notices.
        self.pass();
    }

    fn tried(&self, recipient: &str) -> Vec<Timestamp> {
        self.tried
            .lock()
            .unwrap()
            .get(recipient)
            .cloned()
            .unwrap_or_default()
    }
}

/// The first full minute at or after `time`.
fn minute(time: Timestamp) -> Timestamp {
    Bucket::for_time(time).due().unwrap()
}

/// The first attempt, and those at these ages, each at the first full minute at or after it.
fn at_ages(id: QueueId, ages: &[f64]) -> Vec<Timestamp> {
    let at = |age: &f64| minute(id.accepted() + SignedDuration::from_secs_f64(age * 60.0));
    std::iter::once(id.accepted())
        .chain(ages.iter().map(at))
        .collect()
}

#[test]
fn each_recipient_has_its_own_times_and_its_own_end() {
    let scene = Scene::new(schedules());
    let to = ["a@own.test", "b@slow.test", "c@rest.test", "d@grey.test"];
    let id = scene.accept("s@sender.test", &to);
    scene.live(id);
    assert_eq!(
        scene.tried("a@own.test"),
        at_ages(id, &[10.0, 20.0, 30.0, 40.0, 45.0])
    );
    assert_eq!(
        scene.tried("b@slow.test"),
        at_ages(id, &[30.0, 90.0, 150.0, 180.0])
    );
    let default: Vec<f64> = Schedule::default()
        .ages()
        .iter()
        .map(|age| age.as_secs_f64() / 60.0)
        .collect();
    assert_eq!(default.len(), 31);
    assert_eq!(scene.tried("c@rest.test"), at_ages(id, &default));
    // Greylisted: 5 minutes after each failure while the message is younger than 30 minutes, then like the others.
    let mut grey = vec![id.accepted()];
    while grey[grey.len() - 1].duration_since(id.accepted()) < MINUTE * 30 {
        grey.push(minute(grey[grey.len() - 1] + MINUTE * 5));
    }
    assert!((7..=8).contains(&grey.len()), "{grey:?}");
    grey.extend(&at_ages(id, &default)[3..]);
    grey.dedup();
    let tried = scene.tried("d@grey.test");
    assert_eq!(tried, grey);
    // Three ends, three bounces: the last two end together. They also had one delay notice.
    assert_eq!(scene.tried("s@sender.test").len(), 4);
    let warned = minute(id.accepted() + SignedDuration::from_hours(4));
    assert_eq!(scene.tried("s@sender.test")[2], warned);
    assert_eq!(scene.spool.messages().unwrap(), []);
    assert_eq!(findings(&scene.spool), []);
}

#[test]
fn mail_of_the_null_sender_is_frozen_when_its_time_is_up() {
    for (lifetime, ages) in [(60, &[15.0, 30.0, 45.0, 60.0][..]), (0, &[])] {
        let schedules = schedules().with_null_lifetime(MINUTE * lifetime);
        let scene = Scene::new(schedules);
        let id = scene.accept("", &["c@rest.test"]);
        scene.live(id);
        assert_eq!(scene.tried("c@rest.test"), at_ages(id, ages));
        // Rounded up to the hour.
        let end = (scene.clock.now() + Runner::FROZEN_LIFETIME).as_second() / 3600 + 1;
        let bucket = Bucket::for_time(Timestamp::from_second(end * 3600).unwrap());
        let queue = scene.spool.locate(id).unwrap().queue();
        assert_eq!(queue, Some(Queue::Frozen(bucket)), "{lifetime}");
        assert_eq!(findings(&scene.spool), []);
        let listing = scene.spool.listing();
        let view = scene.spool.view(id, queue.unwrap(), &listing).unwrap();
        let state = view.unwrap().content.unwrap().state;
        let Hold::Frozen { by, then, .. } = &state.hold else {
            panic!("{:?}", state.hold)
        };
        let reason = "its time is up and there is no sender to tell: 4.7.1 later";
        assert_eq!((by.reason.as_deref(), then), (Some(reason), &Then::Discard));
        // Nothing happens until then, and nothing is left after it.
        scene
            .clock
            .set(bucket.due().unwrap() - SignedDuration::from_millis(1));
        assert_eq!(scene.pass(), Summary::default());
        scene.clock.forward(1);
        assert_eq!(scene.pass().messages, 1);
        assert_eq!(scene.spool.messages().unwrap(), []);
        assert_eq!(scene.tried("c@rest.test").len(), ages.len() + 1);
        assert_eq!(findings(&scene.spool), []);
    }
}

/// Suspended mail does not expire, and its sender gets one delay notice. The reason is recorded for that,
/// which counts as an attempt.
#[test]
fn suspended_mail_outlives_its_lifetime() {
    let scene = Scene::new(schedules());
    let id = scene.accept("s@sender.test", &["c@rest.test", "d@sender.test"]);
    let end = id.accepted() + SignedDuration::from_hours(6 * 24);
    let suspension = Suspension {
        target: Target::destination("rest.test"),
        since: id.accepted(),
        until: Some(end),
        by: By::rule("they move"),
    };
    assert_eq!(scene.spool.suspend(&suspension).unwrap(), Changed::Done);
    scene.live(id);
    // At the end, and one more time after the shortest delay.
    let first = minute(end);
    let second = minute(first + MINUTE * 15);
    let tried = scene.tried("c@rest.test");
    assert_eq!(tried, [first, second]);
    assert_eq!(scene.tried("d@sender.test"), [id.accepted()]);
    // Then it is bounced.
    let told = scene.tried("s@sender.test");
    assert_eq!(told[0], minute(id.accepted() + MINUTE * 240));
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(scene.spool.messages().unwrap(), []);
    assert_eq!(findings(&scene.spool), []);
}

/// A delay that one of the schedules gives is not a clock error; a longer one is.
#[test]
fn what_is_further_ahead_than_any_schedule_is_due() {
    let schedules = schedules().with_domain("far.test", schedule(&[1200], 10_000));
    let mut scene = Scene::new(schedules);
    scene.delays = DelayAges::never();
    let id = scene.accept("s@sender.test", &["a@far.test"]);
    scene.pass();
    let bucket = scene.bucket(id).unwrap();
    let expected = minute(id.accepted() + MINUTE * 1200);
    assert_eq!(bucket.due(), Some(expected));
    scene.clock.forward(1);
    assert_eq!(scene.pass(), Summary::default());
    // The clock goes back a month: what seems a month in the future is due, and nothing expires.
    let back = id.accepted() - SignedDuration::from_hours(30 * 24);
    for n in 0..5 {
        scene.clock.set(back + MINUTE * (1300 * n));
        scene.pass();
        assert_eq!(scene.tried("a@far.test").len() as i32, 2 + n);
        let ahead = scene.bucket(id).unwrap().due().unwrap();
        let ahead = ahead.duration_since(scene.clock.now());
        // The age counts from the first attempt by this clock, and so does the schedule.
        let next = 1200 - 100 * n;
        assert!(
            ahead > MINUTE * (next - 1) && ahead <= MINUTE * (next + 1),
            "{ahead}"
        );
    }
    // The clock is right again.
    scene.clock.set(expected);
    scene.pass();
    assert_eq!(scene.tried("a@far.test").len(), 7);
    assert!(scene.bucket(id).is_some());
}

/// A spool at rest, or a clock that jumped forward, beyond every lifetime.
#[test]
fn nothing_expires_before_three_attempts_of_each_recipient() {
    let scene = Scene::new(schedules());
    let id = scene.accept("s@sender.test", &["a@own.test", "c@rest.test"]);
    // One recipient has been tried often, the other once.
    scene.pass();
    for _ in 0..3 {
        scene.clock.forward(10);
        scene.clock.set(minute(scene.clock.now()));
        scene.pass();
    }
    assert_eq!(scene.tried("a@own.test").len(), 4);
    let before = scene.tried("c@rest.test").len();
    assert!((2..=3).contains(&before));
    scene.clock.forward(10 * 24 * 60);
    scene.live(id);
    assert_eq!(scene.tried("a@own.test").len(), 5);
    assert_eq!(scene.tried("c@rest.test").len(), 3.max(before + 1));
    assert_eq!(scene.spool.messages().unwrap(), []);
}

#[test]
fn a_delay_is_told_once_at_each_age_whatever_the_clock_does() {
    let hours = SignedDuration::from_hours;
    let mut scene = Scene::new(schedules());
    scene.delays = DelayAges::new([hours(4), hours(24)]);
    let id = scene.accept("s@sender.test", &["c@rest.test", "d@rest.test"]);
    scene.pass();
    let told = || scene.tried("s@sender.test");
    // Runs at various hours, due or not, with the clock going back in between.
    for hour in 0..12 {
        scene.clock.set(id.accepted() + hours(hour % 4));
        scene.pass();
    }
    assert_eq!(told(), []);
    let due = minute(id.accepted() + hours(4));
    scene.clock.set(due - MINUTE);
    scene.pass();
    assert_eq!(told(), []);
    scene.clock.set(due);
    scene.pass();
    assert_eq!(told(), [due]);
    for hour in [4, 3, 2, 1, 0, -24, 5, 20] {
        scene.clock.set(id.accepted() + hours(hour));
        scene.pass();
        assert_eq!(told(), [due]);
    }
    for _ in 0..3 {
        scene.clock.set(minute(id.accepted() + hours(25)));
        scene.pass();
        assert_eq!(told().len(), 2);
    }
}
