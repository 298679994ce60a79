//! Two processes and hosts that are down, or that limit their connections.

use mailspool::testing::queue::{Action, QueueUntil};
use mailspool::testing::spool::{Destination, Down, Queue};

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

/// Records that `dead.test` is down since the first minute, with a probe in the sixth.
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

/// Returns a stage with `count` messages for a host that is recorded as down.
fn down_for(count: usize) -> Stage {
    Stage::new(|stage| {
        for _ in 0..count {
            stage.send(&[TO]);
        }
        is_down(stage);
    })
}

/// Asserts that no connection slot is left, unless a process was killed.
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

/// Two runs want to probe a host at once: one of them does.
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
                .expect("no record that it is down");
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

/// An operator retries or discards a message that waits for a host, or clears the host's down state.
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
        // A run that looked after the clearing has tried the host, and recorded it as down again.
        assert_eq!((down.is_some(), tries <= 1), (tries == 1, true), "{down:?}");
        case.ends(said, &[(id, TO, &[End::Delivered])]);
    })
    .holds(Bound::of(2));
}

/// An operator clears a down state while a run records it.
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

/// A message is put off into a bucket that another run finds empty and removes.
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

/// A host with a limit of one connection never gets two.
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
            // A process that is killed between taking its slot and connecting may have blocked the other one.
            let killed = said.iter().any(|one| matches!(one, Said::Killed));
            let never = killed && host.most == 0;
            assert!(host.open == 0 && (host.most == 1 || never), "{host:?}");
            no_slots(case, said);
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(1).costly());
}

/// What one host of a destination defers goes to the next host, after what the first one took is recorded.
/// Whichever process is killed or goes on in between, the first host does not get the message again.
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

/// A transport with a limit of one transaction never has two.
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
            // A process that is killed between taking a transaction slot and connecting may have blocked the other.
            let never = said.iter().any(|one| matches!(one, Said::Killed)) && host.most == 0;
            assert!(host.open == 0 && (host.most == 1 || never), "{host:?}");
            case.ends(said, &ends);
        },
    )
    .holds(Bound::of(2).kills(1).costly());
}
