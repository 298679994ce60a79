//! Hosts of destinations: the next host is tried in the same attempt, and each host is recorded and counted
//! separately, for all its destinations.

use mailspool::testing::queue::Status;

use super::sink::{Mood, Sink, relay};
use super::{Scene, findings};

#[test]
fn a_host_that_says_421_to_each_mail_is_asked_once() {
    let scene = Scene::new();
    let sink = Sink::in_mood(Mood::Busy);
    scene.queue(60, "any.test");
    let summary = scene.runner_by(relay(&[&sink])).pass().unwrap();
    assert_eq!((summary.delivered, summary.deferred), (0, 1));
    assert_eq!(sink.seen().connections, 1);
    let down = scene.spool.all_down().unwrap();
    assert_eq!(down.len(), 1, "{down:?}");
    assert_eq!(down[0].reply, "421 4.3.2 busy");
    // Each probe connects once more, at growing intervals.
    for (minutes, tries) in [(6, 2), (11, 3)] {
        scene.clock.forward(minutes);
        scene.runner_by(relay(&[&sink])).pass().unwrap();
        assert_eq!(sink.seen().connections, tries);
        assert_eq!(scene.spool.all_down().unwrap()[0].tries as usize, tries);
    }
    assert_eq!(findings(&scene.spool), []);
}

/// If a server limits the messages of a session, the next message gets a new session in the same pass.
#[test]
fn what_a_used_connection_takes_no_more_goes_over_a_new_one() {
    let scene = Scene::new();
    let sink = Sink::in_mood(Mood::TakesTwoInASession);
    scene.queue(6, "any.test");
    let summary = scene.runner_by(sink.smtp(1, 100)).pass().unwrap();
    assert_eq!((summary.delivered, summary.deferred), (6, 0));
    assert_eq!((sink.seen().messages, sink.seen().connections), (6, 3));
    assert_eq!(scene.spool.all_down().unwrap(), []);
    assert_eq!(findings(&scene.spool), []);
}

/// So does a server that cannot reset a failed transaction.
#[test]
fn a_server_without_reset_gets_the_next_message_over_a_new_connection() {
    let scene = Scene::new();
    let sink = Sink::in_mood(Mood::KnowsNoReset);
    scene.queue(3, "any.test");
    let summary = scene.runner_by(sink.smtp(1, 100)).pass().unwrap();
    // The other two, and the bounce.
    assert_eq!((summary.delivered, summary.failed), (3, 1));
    assert_eq!(sink.seen().messages, 3);
}

#[test]
fn the_next_host_gets_the_mail_of_one_that_takes_none() {
    for mood in [Mood::Busy, Mood::HangsUpAtMail, Mood::Closed] {
        let scene = Scene::new();
        let (first, second) = (Sink::in_mood(mood), Sink::start());
        scene.queue(60, "any.test");
        let hosts = [&first, &second];
        let summary = scene.runner_by(relay(&hosts)).pass().unwrap();
        assert_eq!((summary.delivered, summary.deferred), (60, 0), "{mood:?}");
        assert_eq!(first.seen().connections, 1, "{mood:?}");
        assert_eq!(second.seen().messages, 60, "{mood:?}");
        let down = scene.spool.all_down().unwrap();
        assert_eq!(down.len(), 1, "the host, and not the destination: {down:?}");
    }
}

#[test]
fn the_next_host_gets_what_a_host_defers() {
    for mood in [Mood::QueueFull, Mood::Greylists, Mood::RefusesLater] {
        let scene = Scene::new();
        let (first, second) = (Sink::in_mood(mood), Sink::start());
        scene.queue(5, "any.test");
        let hosts = [&first, &second];
        let summary = scene.runner_by(relay(&hosts)).pass().unwrap();
        assert_eq!((summary.delivered, summary.deferred), (5, 0), "{mood:?}");
        // The better host is tried for each message, because it answers.
        assert_eq!(first.seen().connections, 5, "{mood:?}");
        assert_eq!(scene.spool.all_down().unwrap(), [], "{mood:?}");
        assert_eq!(scene.slots(), 0);
    }
}

/// If a host disconnects during a message, the message may be the cause, until it happens with several messages.
#[test]
fn a_host_that_breaks_off_over_each_message_is_left_alone_after_three() {
    for (mood, by_second) in [
        (Mood::HangsUpAtRcpt, 60),
        (Mood::HangsUpAtData, 60),
        // What the host may have accepted is sent to no other host.
        (Mood::LosesAnswer, 57),
    ] {
        let scene = Scene::new();
        let (first, second) = (Sink::in_mood(mood), Sink::start());
        scene.queue(60, "any.test");
        scene.runner_by(relay(&[&first, &second])).pass().unwrap();
        assert_eq!(first.seen().connections, 3, "{mood:?}");
        assert_eq!(second.seen().messages, by_second, "{mood:?}");
        let down = scene.spool.all_down().unwrap();
        assert_eq!(down.len(), 1, "the host, and not the destination: {down:?}");
        assert_eq!(findings(&scene.spool), []);

        // The same without another host.
        let scene = Scene::new();
        let only = Sink::in_mood(mood);
        scene.queue(60, "any.test");
        for (minutes, connections) in [(0, 3), (6, 6)] {
            scene.clock.forward(minutes);
            scene.runner_by(relay(&[&only])).pass().unwrap();
            assert_eq!(only.seen().connections, connections, "{mood:?}");
        }
        assert_eq!(scene.spool.all_down().unwrap().len(), 1, "{mood:?}");
        assert_eq!(scene.slots(), 0);
        assert_eq!(findings(&scene.spool), []);
    }
}

#[test]
fn a_host_that_breaks_off_over_two_messages_is_not_down() {
    for mood in [Mood::HangsUpAtRcpt, Mood::HangsUpAtData, Mood::LosesAnswer] {
        let scene = Scene::new();
        let sink = Sink::in_mood(mood);
        scene.queue(2, "any.test");
        for _ in 0..2 {
            scene.runner_by(relay(&[&sink])).pass().unwrap();
            scene.clock.forward(60);
        }
        assert_eq!(sink.seen().connections, 4, "{mood:?}");
        assert_eq!(scene.spool.all_down().unwrap(), [], "{mood:?}");
    }
}

/// Recipients are sent one by one if the server asks for that, but not after it fails.
#[test]
fn a_host_that_fails_for_one_recipient_is_not_asked_for_each() {
    let scene = Scene::new();
    let (first, second) = (Sink::in_mood(Mood::HangsUpAtRcpt), Sink::start());
    let hosts: Vec<String> = (0..20).map(|n| format!("host{n}.test")).collect();
    scene.fan_out(&hosts);
    let summary = scene.runner_by(relay(&[&first, &second])).pass().unwrap();
    assert_eq!((summary.delivered, summary.deferred), (20, 0));
    let seen = (first.seen().connections, second.seen().messages);
    assert_eq!(seen, (1, 1));
}

/// A connection that carried no message cannot have reached a session limit.
#[test]
fn a_host_that_puts_off_each_message_gets_no_connection_for_each() {
    let scene = Scene::new();
    let sink = Sink::in_mood(Mood::QueueFull);
    scene.queue(60, "any.test");
    let summary = scene.runner_by(sink.smtp(1, 100)).pass().unwrap();
    assert_eq!((summary.delivered, summary.deferred), (0, 60));
    assert_eq!(sink.seen().connections, 1);
}

#[test]
fn a_message_greylisted_everywhere_waits_with_a_reply_of_a_server() {
    let scene = Scene::new();
    let (first, second) = (Sink::in_mood(Mood::Greylists), Sink::in_mood(Mood::Closed));
    let id = scene.queue(1, "any.test")[0];
    scene.runner_by(relay(&[&first, &second])).pass().unwrap();
    let content = scene.state(id);
    let last = content.state.recipients[0].last.clone().unwrap();
    assert_eq!(last.to_string(), "450 4.7.1 come back later");
    assert_eq!(last.relay.as_deref(), Some(&*first.name()));
    assert_eq!(content.state.recipients[0].attempts, 1);
}

/// What may have been delivered is sent to no other host.
#[test]
fn an_answer_that_is_lost_ends_the_round() {
    let scene = Scene::new();
    let (first, second) = (Sink::in_mood(Mood::LosesAnswer), Sink::start());
    let id = scene.queue(1, "any.test")[0];
    scene.runner_by(relay(&[&first, &second])).pass().unwrap();
    assert_eq!(second.seen().connections, 0);
    let events = scene.state(id).events;
    let unknown = |event: &mailspool::testing::queue::Event| {
        matches!(&event.what, mailspool::testing::queue::What::Outcome { results, .. }
            if results[0].status == Status::Unknown)
    };
    assert!(events.iter().any(unknown), "{events:?}");
}

#[test]
fn destinations_that_share_a_dead_host_make_one_probe() {
    let scene = Scene::new();
    scene.net.kill("one.test");
    let all: Vec<String> = (0..10).map(|n| format!("shared{n}.test")).collect();
    for domain in &all {
        scene.queue(2, domain);
    }
    scene.pass();
    assert_eq!(scene.net.connects("one.test"), 1);
    assert_eq!(scene.tried(), 10, "and the others of each domain wait");
    scene.clock.forward(6);
    scene.passes();
    assert_eq!(scene.net.connects("one.test"), 2);
    scene.net.revive("one.test");
    scene.clock.forward(11);
    scene.passes_until_empty(30);
    let host = scene.net.host("one.test");
    assert_eq!(host.delivered, 20);
    assert!(host.most <= 3, "{} at once, over all", host.most);
    assert_eq!(scene.slots(), 0);
    // Destinations that were down because of the host are tried again, and are up.
    for domain in &all {
        scene.queue(1, domain);
    }
    scene.pass();
    assert_eq!(scene.net.delivered("one.test"), 30);
    assert_eq!(scene.spool.all_down().unwrap(), []);
}

/// Connections to a host are counted for all its destinations, and are reused for any of them.
#[test]
fn connections_to_a_shared_host_are_bounded() {
    let scene = Scene::new();
    for n in 0..30 {
        scene.queue(3, &format!("shared{n}.test"));
    }
    scene.passes_until_empty(30);
    let host = scene.net.host("one.test");
    assert_eq!(host.delivered, 90);
    assert!(host.most <= 3, "{} at once", host.most);
    assert_eq!(scene.slots(), 0);
}
