//! Two processes at once.

use jiff::SignedDuration;
use mailspool::testing::message::Entrance;
use mailspool::testing::queue::{Action, Then};

use super::super::judge::End::{Both, Delivered, Frozen, Gone, Told, Warned};
use super::super::judge::{Fate, RESUMED};
use super::super::log::Step;
use super::super::stage::{Stage, by};
use super::super::story::{Story, changed, fate};
use super::moments::{accepted, finished, noted_notice, staged, written};
use super::operate::{discard, freeze};
use super::{A, B, BOX, BUSY, DEAD, FAR, GONE, LONG, NO, SLOW, deferred, mail};

type Deed<'a> = &'a (dyn Fn(&Stage) + Sync);

/// Returns all pairs, in the order of a seed.
pub fn all(seed: u64) -> Vec<Story> {
    let pair = |title: &str, fates: Vec<Fate>, prepare: &dyn Fn(&Stage), deeds: [Deed<'_>; 2]| {
        pair(title, seed, fates, prepare, deeds)
    };
    let killed = |title: &str, fates: Vec<Fate>, kill: fn(&Step) -> bool| {
        let title = format!("two recoveries, {title}, seed {seed}");
        let prepare = |stage: &Stage| stage.send("one", &[A, NO]);
        let story = Story::record(&title, fates, prepare, |stage| {
            stage.killed_at(kill, || drop(stage.try_pass()));
            stage.forward(1);
            stage.at_once(seed, [&run, &run]);
        });
        assert_no_repeats(&story);
        story
    };
    let keyed = |title: &str, before: Deed<'_>, deeds: [Deed<'_>; 2]| {
        let fates = vec![fate("one", A, Delivered)];
        let title = format!("{title}, seed {seed}");
        let mut story = Story::record(
            &title,
            fates,
            |_| {},
            |stage| {
                before(stage);
                stage.at_once(seed, deeds);
            },
        );
        story.key = Some("one");
        assert_no_repeats(&story);
        story
    };
    let told = || vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let mixed = || {
        vec![
            fate("one", A, Delivered),
            fate("one", SLOW, Delivered),
            fate("two", B, Delivered),
            fate("two", NO, Told),
            fate("three", BOX, Delivered),
        ]
    };
    let queue = |stage: &Stage| {
        deferred(stage);
        stage.forward(34);
        stage.send("two", &[B, NO]);
        stage.send("three", &[BOX]);
    };
    let due = |stage: &Stage| {
        deferred(stage);
        stage.forward(34);
    };
    let slow = |before: &[_], after: &[_]| {
        vec![
            fate("one", A, Delivered),
            changed("one", SLOW, before, after),
        ]
    };
    let frozen = |stage: &Stage| {
        deferred(stage);
        stage.act(&freeze());
        stage.forget_deed();
        stage.forward(34);
    };
    let both_accepted = || {
        vec![
            fate("one", A, Delivered),
            fate("two", B, Delivered),
            fate("two", NO, Told),
        ]
    };
    let one = |stage: &Stage| stage.send("one", &[A]);
    let mut all = vec![
        pair("a run beside a run", mixed(), &queue, [&run, &run]),
        pair(
            "accepting beside a run",
            both_accepted(),
            &one,
            [
                &|stage| stage.accept(Entrance::Incoming, "two", "s@sender.test", &[B, NO]),
                &run,
            ],
        ),
        pair(
            "accepting twice",
            both_accepted(),
            &|_| {},
            [&one, &|stage| stage.send("two", &[B, NO])],
        ),
        pair(
            "a freeze beside a run",
            slow(&[Delivered, Frozen], &[Frozen]),
            &due,
            [&|stage| stage.act_if_possible(&freeze()), &run],
        ),
        pair(
            "a discard beside a run",
            slow(&[Delivered, Gone], &[Gone]),
            &due,
            [&|stage| stage.act_if_possible(&discard(stage)), &run],
        ),
        pair(
            "a thaw beside a run",
            slow(&[Delivered, Frozen], &[Delivered]),
            &frozen,
            [&|stage| stage.act_if_possible(&Action::Thaw(by())), &run],
        ),
        pair(
            "a bounce beside a run",
            slow(&[Delivered, Told, Both], &[Told]),
            &due,
            [&|stage| stage.act_if_possible(&Action::Bounce(by())), &run],
        ),
        pair(
            "a repair beside a run",
            mixed(),
            &queue,
            [&Stage::repair, &run],
        ),
        pair(
            "a repair beside accepting",
            both_accepted(),
            &one,
            [&Stage::repair, &|stage| stage.send("two", &[B, NO])],
        ),
        keyed("one key by two", &|_| {}, [&submit, &submit]),
        keyed("a key beside a run", &|_| {}, [&submit, &run]),
        keyed(
            "a key that was cut off, by a run and again",
            &|stage| stage.killed_at(accepted, || submit(stage)),
            [&submit, &run],
        ),
        killed("a notice not durable", told(), written),
        killed("a notice durable", told(), staged),
        killed("a notice recorded", told(), noted_notice),
        finished_by_two(seed),
    ];
    all.extend(held_back(seed));
    all.extend(in_time(seed));
    all
}

/// Records two processes at once, in the order of a seed.
fn pair(
    title: &str,
    seed: u64,
    fates: Vec<Fate>,
    prepare: &dyn Fn(&Stage),
    deeds: [Deed<'_>; 2],
) -> Story {
    let title = format!("{title}, seed {seed}");
    let story = Story::record(&title, fates, prepare, |stage| {
        stage.at_once(seed, deeds);
    });
    assert_no_repeats(&story);
    story
}

/// An operator holds mail back or releases it, while a run handles it.
fn held_back(seed: u64) -> Vec<Story> {
    const DOMAIN: &str = "other.test";
    const END: i64 = 50;
    let both = |held| {
        let mut late = fate("one", B, Delivered);
        late.held = held;
        vec![fate("one", A, Delivered), late]
    };
    let send = |stage: &Stage| stage.send("one", &[A, B]);
    let held = |stage: &Stage| {
        send(stage);
        stage.suspend(DOMAIN, END);
        stage.forget_deed();
        stage.pass();
    };
    let suspend = |stage: &Stage| stage.suspend(DOMAIN, END);
    let resume = |stage: &Stage| stage.resume_beside(DOMAIN);
    let resumed = format!("{RESUMED} beside a run");
    let slow = |before: &[_], after: &[_]| {
        vec![
            fate("one", A, Delivered),
            changed("one", SLOW, before, after),
        ]
    };
    let thrown_away = |stage: &Stage| {
        deferred(stage);
        stage.act(&discard(stage));
        stage.forget_deed();
        stage.forward(31);
    };
    let lapsing = |stage: &Stage| {
        deferred(stage);
        let until = Some(stage.soon());
        let freeze = Action::Freeze {
            by: by(),
            until,
            then: Then::Thaw,
        };
        stage.act(&freeze);
        stage.forget_deed();
        stage.forward(31);
    };
    let retry = |stage: &Stage| stage.act_if_possible(&Action::Retry(by()));
    let thaw = |stage: &Stage| stage.act_if_possible(&Action::Thaw(by()));
    let delivered = || slow(&[Delivered], &[Delivered]);
    let pair = |title: &str, fates, prepare: &dyn Fn(&Stage), deed: Deed<'_>| {
        pair(title, seed, fates, prepare, [deed, &run])
    };
    vec![
        pair(
            "a suspension beside a run",
            both(Some(END)),
            &send,
            &suspend,
        ),
        pair(&resumed, both(None), &held, &resume),
        pair(
            "what is purged is taken back",
            slow(&[Delivered, Gone], &[Delivered]),
            &thrown_away,
            &retry,
        ),
        pair("a hold that lapses is thawed", delivered(), &lapsing, &thaw),
        pair("a flush beside a run", delivered(), &deferred, &|stage| {
            stage.forward(12);
            stage.flush_beside();
        }),
    ]
}

/// Two processes handle mail that is due, or the same hosts.
fn in_time(seed: u64) -> Vec<Story> {
    let pair = |title: &str, fates, prepare: &dyn Fn(&Stage), deeds: [Deed<'_>; 2]| {
        pair(title, seed, fates, prepare, deeds)
    };
    let later = |stage: &Stage| {
        stage.send_at("one", &[A, NO], SignedDuration::from_mins(20));
    };
    let released = |stage: &Stage| {
        later(stage);
        stage.forward(25);
    };
    let told = || vec![fate("one", A, Delivered), fate("one", NO, Told)];
    let retry = |stage: &Stage| stage.act_if_possible(&Action::Retry(by()));
    let late = |stage: &Stage| {
        mail::late(stage);
        stage.forward(5);
    };
    let warned = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
    let parts = vec![
        fate("one", FAR[0], Delivered),
        fate("one", BUSY, Delivered),
        fate("one", GONE, Told),
        fate("two", FAR[1], Delivered),
        fate("two", DEAD, Delivered),
    ];
    let hosts = |stage: &Stage| {
        stage.send("one", &[FAR[0], BUSY, GONE]);
        stage.send("two", &[DEAD, FAR[1]]);
    };
    let title = "a key is over, and is used again";
    let mut over = Story::record(
        &format!("{title}, seed {seed}"),
        vec![fate("one", A, Delivered)],
        |stage| {
            stage.submit_and_forget("two", B, 1);
            stage.pass();
            stage.forward(70);
        },
        |stage| stage.at_once(seed, [&submit, &run]),
    );
    over.key = Some("one");
    assert_no_repeats(&over);
    vec![
        pair("a release by two", told(), &released, [&run, &run]),
        pair("a release, early", told(), &later, [&retry, &run]),
        pair("a delay, by two", warned, &late, [&run, &run]),
        pair("hosts, by two", parts, &hosts, [&run, &run]),
        over,
    ]
}

fn run(stage: &Stage) {
    stage.pass();
}

fn submit(stage: &Stage) {
    stage.submit("one", A);
}

fn finished_by_two(seed: u64) -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let title = format!("done/ finished by two, seed {seed}");
    Story::record(&title, fates, deferred, |stage| {
        stage.forward(34);
        stage.killed_at(finished, || drop(stage.try_pass()));
        stage.at_once(seed, [&run, &run]);
    })
}

/// Asserts that without a power cut no recipient gets a message twice, whatever the order.
fn assert_no_repeats(story: &Story) {
    let mut seen = std::collections::HashSet::new();
    for step in &story.steps {
        if let Step::Delivered(id, to) = step {
            assert!(
                seen.insert((*id, to.clone())),
                "{}: {to} twice",
                story.title
            );
        }
    }
}
