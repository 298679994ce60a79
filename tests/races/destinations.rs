//! Hosts that are down, and connections to hosts, between two processes.

use mailspool::queue::{Action, QueueUntil};
use mailspool::spool::{Destination, Down, Queue};

use super::explore::Bound;
use super::net::Net;
use super::orders::carried_out;
use super::programs::{clearing, order, pass};
use super::stage::{Case, End, Pair, Said, Stage, by};

const TO: &str = "a@dead.test";

fn destination(host: &str) -> Destination {
    Destination {
        transport: "net".into(),
        next_hop: host.into(),
    }
}

/// Remembered to be down since the first minute, with a probe in the sixth.
fn is_down(stage: &Stage) -> Down {
    let down = Down::again(
        None,
        &destination("dead.test"),
        "4.4.1 timed out",
        stage.at(1),
    );
    stage.spool().remember_down(&down).unwrap();
    down
}

/// So many messages for a host that is remembered to be down.
fn down_for(count: usize) -> Stage {
    Stage::new(|stage| {
        for _ in 0..count {
            stage.send(&[TO]);
        }
        is_down(stage);
    })
}

/// No slot stays but those of somebody who was killed.
fn no_slots(case: &Case<'_>, said: &[Said; 2]) {
    if said.iter().any(|one| matches!(one, Said::Killed)) {
        return;
    }
    for dir in ["to", "probe"] {
        let slots = std::fs::read_dir(case.path.join("state").join(dir));
        assert_eq!(
            slots.map_or(0, Iterator::count),
            0,
            "slots are left in {dir}"
        );
    }
}

/// Two want to know at once whether a host is still down: one of them asks.
#[test]
fn two_probe_in_vain() {
    let stage = down_for(2);
    let ends = [0, 1].map(|n| (stage.ids[n], TO, &[End::Delivered][..]));
    Pair::new("probe, probe", &stage, [pass(7), pass(7)], |case, said| {
        let killed = said.iter().any(|one| matches!(one, Said::Killed));
        let tries = case.net.host("dead.test").tries;
        assert!(tries <= 1 + usize::from(killed), "{tries} tries");
        if !killed {
            let down = case
                .spool()
                .down(&destination("dead.test"))
                .expect("nobody remembers it");
            assert_eq!(down.tries, 2, "{down:?}");
            no_slots(case, said);
        }
        case.ends(said, &ends);
        assert_eq!(case.spool().all_down().unwrap(), []);
    })
    .holds(Bound::of(2).kills(1).costly());
}

/// The same, and the host answers.
#[test]
fn two_probe_what_answers() {
    let mut stage = down_for(2);
    stage.is_over = true;
    let ends = [0, 1].map(|n| (stage.ids[n], TO, &[End::Delivered][..]));
    Pair::new(
        "answers, answers",
        &stage,
        [pass(7), pass(7)],
        |case, said| {
            let host = case.net.host("dead.test");
            assert!(host.most <= Net::CONNECTIONS && host.open == 0, "{host:?}");
            no_slots(case, said);
            case.ends(said, &ends);
            assert_eq!(case.spool().all_down().unwrap(), []);
        },
    )
    .holds(Bound::of(2).costly());
}

/// A message that is put off is tried again by an operator, thrown away, or its host is to be
/// tried again.
#[test]
fn putting_off_and_an_operator() {
    let stage = down_for(1);
    let id = stage.ids[0];
    let retry = [pass(2), order(Action::Retry(by()))];
    Pair::new("put off, retry", &stage, retry, |case, said| {
        if matches!(said[0], Said::Passed(_)) {
            case.nothing_asked();
        }
        case.ends(said, &[(id, TO, &[End::Delivered])]);
    })
    .holds(Bound::of(2).kills(0));
    let discard = Action::Discard {
        by: by(),
        until: stage.at(6000),
    };
    Pair::new(
        "put off, discard",
        &stage,
        [pass(2), order(discard)],
        |case, said| {
            let there = |queue: &Queue| matches!(queue, Queue::Discarded(_));
            carried_out(case, said, TO, there, End::Kept);
        },
    )
    .holds(Bound::of(2));
    let clear = [pass(2), clearing()];
    Pair::new("put off, clear", &stage, clear, |case, said| {
        let down = case.spool().down(&destination("dead.test"));
        let tries = case.net.host("dead.test").tries;
        // Whoever looked behind it has tried, and knows again.
        assert_eq!((down.is_some(), tries <= 1), (tries == 1, true), "{down:?}");
        case.ends(said, &[(id, TO, &[End::Delivered])]);
    })
    .holds(Bound::of(2));
}

/// One forgets that a host is down as another one remembers it.
#[test]
fn clearing_what_is_probed() {
    let stage = down_for(1);
    let id = stage.ids[0];
    Pair::new(
        "probe, clear",
        &stage,
        [pass(7), clearing()],
        |case, said| {
            let killed = matches!(said[0], Said::Killed);
            let tries = case.net.host("dead.test").tries;
            assert!(tries == 1 || killed && tries == 0, "{tries} tries");
            case.ends(said, &[(id, TO, &[End::Delivered])]);
        },
    )
    .holds(Bound::of(2).kills(0));
}

/// A message is put off into a bucket that another run finds empty, and removes.
#[test]
fn putting_off_into_a_bucket_that_goes() {
    let stage = Stage::new(|stage| {
        stage.send(&[TO]);
        let down = is_down(stage);
        stage.bucket(QueueUntil::Deferred(down.probe));
    });
    let ends = [(stage.ids[0], TO, &[End::Delivered][..])];
    Pair::new(
        "put off, rmdir",
        &stage,
        [pass(2), pass(40)],
        |case, said| {
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(0));
}

/// A host that takes one connection at once never has two.
#[test]
fn connections_at_the_limit() {
    let mut stage = Stage::new(|stage| {
        stage.send(&["a@far.test"]);
        stage.send(&["b@far.test"]);
    });
    stage.connections = 1;
    let ends = [
        (stage.ids[0], "a@far.test", &[End::Delivered][..]),
        (stage.ids[1], "b@far.test", &[End::Delivered][..]),
    ];
    Pair::new(
        "connect, connect",
        &stage,
        [pass(1), pass(1)],
        |case, said| {
            let host = case.net.host("far.test");
            // Who is killed between his slot and his connection had the other one do without.
            let killed = said.iter().any(|one| matches!(one, Said::Killed));
            let never = killed && host.most == 0;
            assert!(host.open == 0 && (host.most == 1 || never), "{host:?}");
            no_slots(case, said);
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(1).costly());
}

/// What one host of a destination puts off goes to the next, after what it took is recorded: whoever is
/// killed in between, and whichever process goes on, it gets the message no more.
#[test]
fn failing_over() {
    let twins = ["p@twin.test", "q@twin.test"];
    let stage = Stage::new(|stage| {
        stage.send(&twins);
    });
    let ends = twins.map(|to| (stage.ids[0], to, &[End::Delivered][..]));
    Pair::new(
        "fail over, pass",
        &stage,
        [pass(1), pass(1)],
        |case, said| {
            no_slots(case, said);
            case.ends(said, &ends);
            assert_eq!(case.spool().all_down().unwrap(), []);
        },
    )
    .holds(Bound::of(2).kills(1).costly());
}

/// A transport that has one transaction at once never has two.
#[test]
fn places_at_the_limit() {
    let mut stage = Stage::new(|stage| {
        stage.send(&["a@far.test"]);
        stage.send(&["b@far.test"]);
    });
    stage.together = Some(1);
    let ends = [
        (stage.ids[0], "a@far.test", &[End::Delivered][..]),
        (stage.ids[1], "b@far.test", &[End::Delivered][..]),
    ];
    Pair::new(
        "transact, transact",
        &stage,
        [pass(1), pass(1)],
        |case, said| {
            let host = case.net.host("far.test");
            // Whoever is killed between its place and its connection had the other one do without.
            let never = said.iter().any(|one| matches!(one, Said::Killed)) && host.most == 0;
            assert!(host.open == 0 && (host.most == 1 || never), "{host:?}");
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(1).costly());
}
