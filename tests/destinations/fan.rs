//! One message to many destinations, and transports with a limit on concurrent use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::message::Entrance;
use mailspool::testing::operator::{Acted, act, wake};
use mailspool::testing::queue::{Action, By, Outcome, Pattern, Routes, Rule, Then};
use mailspool::testing::runner::{Budget, Runner, RunnerBuilder};
use mailspool::testing::spool::{Changed, Listing, Queue, Spool, Suspension, Target};
use mailspool::testing::transport::{FromFn, from_fn};

use super::Scene;
use super::world::{HOST, accept, findings};

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("host{n}.test")).collect()
}

impl Scene {
    /// Accepts one message with a recipient at each host.
    pub fn fan_out(&self, hosts: &[String]) -> mailspool::testing::message::QueueId {
        let to: Vec<String> = hosts.iter().map(|host| format!("r@{host}")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        accept(&self.spool, Entrance::Active, "fan", "s@sender.test", &to)
    }

    fn with_jobs(&self, jobs: usize) -> RunnerBuilder {
        self.configured().budget(Budget {
            jobs,
            ..Budget::default()
        })
    }
}

#[test]
fn a_message_to_many_hosts_has_as_many_transactions_as_there_are_jobs() {
    for jobs in [1, 4] {
        let scene = Scene::new();
        let hosts = hosts(60);
        scene.fan_out(&hosts);
        let summary = scene.with_jobs(jobs).build().pass().unwrap();
        assert_eq!((summary.messages, summary.delivered), (1, 60));
        assert!(hosts.iter().all(|host| scene.net.delivered(host) == 1));
        let most = scene.net.most_at_work();
        assert!(most <= jobs && most >= jobs.div_ceil(2), "{most}");
        assert_eq!(scene.slots(), 0);
        assert_eq!(findings(&scene.spool), []);
    }
}

#[test]
fn what_is_tried_in_many_parts_is_one_attempt() {
    let scene = Scene::new();
    let hosts = hosts(20);
    hosts.iter().for_each(|host| scene.net.kill(host));
    let id = scene.fan_out(&hosts);
    let summary = scene.with_jobs(2).build().pass().unwrap();
    assert_eq!((summary.messages, summary.deferred), (1, 20));
    let state = scene.state(id).state;
    assert_eq!((state.attempts, state.interrupted), (1, 0));
    assert!(
        state
            .recipients
            .iter()
            .all(|recipient| recipient.attempts == 1)
    );
}

#[test]
fn a_message_to_many_hosts_leaves_a_job_to_others() {
    let scene = Scene::new();
    let silent = hosts(40);
    silent.iter().for_each(|host| scene.net.hang(host, true));
    scene.fan_out(&silent);
    thread::scope(|scope| {
        let near = from_fn(|_, to| vec![Outcome::delivered("taken"); to.len()]);
        let near_by = Rule::new(Pattern::Domain("near.test".into()), "near");
        let routes = [vec![near_by], Routes::all_by("net").0].concat();
        let runner = scene.with_jobs(4).transport("near", near);
        let runner = runner.routes(Routes(routes)).build();
        let stop = runner.stop_handle();
        let pass = scope.spawn(move || runner.pass_in_slot(1).unwrap().unwrap());
        let tried = || {
            silent
                .iter()
                .map(|host| scene.net.connects(host))
                .sum::<usize>()
        };
        while tried() < 2 {
            thread::sleep(Duration::from_millis(1));
        }
        // It arrives while the other message waits for replies.
        let id = scene.queue(1, "near.test")[0];
        while scene.spool.locate(id).unwrap().queue().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
        let tried_meanwhile = tried();
        stop.stop();
        silent.iter().for_each(|host| scene.net.hang(host, false));
        // The transactions under way end, and no other begins.
        assert_eq!(pass.join().unwrap().delivered, 3);
        assert_eq!((tried_meanwhile, tried()), (2, 2));
    });
    assert_eq!(findings(&scene.spool), []);
    scene.clock.forward(1);
    assert_eq!(scene.pass().delivered, 38);
    assert!(silent.iter().all(|host| scene.net.delivered(host) == 1));
    assert_eq!(scene.slots(), 0);
}

/// Runs a pass with one job. While the first host, `host0.test`, holds back its reply, calls `act`; then the
/// host replies.
fn meanwhile(scene: &Scene, act: impl FnOnce()) {
    scene.net.hang("host0.test", true);
    let runner = scene.with_jobs(1).build();
    thread::scope(|scope| {
        let pass = scope.spawn(|| runner.pass().unwrap());
        while scene.net.connects("host0.test") == 0 {
            assert!(!pass.is_finished());
            thread::sleep(Duration::from_millis(1));
        }
        act();
        scene.net.hang("host0.test", false);
    });
}

fn suspend(scene: &Scene, name: &str) -> Suspension {
    let one = Suspension {
        target: Target::destination(name),
        since: scene.clock.now(),
        until: None,
        by: By::rule("test"),
    };
    assert_eq!(scene.spool.suspend(&one).unwrap(), Changed::Done);
    one
}

fn resume(scene: &Scene, one: &Suspension) {
    let resumed = scene.spool.resume(&one.target.file_name());
    assert_eq!(resumed.unwrap(), Changed::Done);
    wake(&scene.spool, &|_, _| true, scene.clock.now()).unwrap();
}

/// Suspended: a domain, a destination of a transport, and the destination under way, for which it is too late.
#[test]
fn what_is_suspended_during_an_attempt_is_left_out_of_its_further_parts() {
    let scene = Scene::new();
    let hosts = hosts(5);
    scene.fan_out(&hosts);
    let mut suspended = Vec::new();
    meanwhile(&scene, || {
        let names = ["host0.test", "host2.test", "net:host4.test"];
        suspended = names.map(|name| suspend(&scene, name)).to_vec();
    });
    let delivered = || hosts.iter().map(|host| scene.net.delivered(host));
    assert!(delivered().eq([1, 1, 0, 1, 0]));
    assert_eq!(scene.net.connects("host2.test"), 0);
    assert!(matches!(scene.queues().first(), Some(Queue::Deferred(_))));
    assert_eq!(scene.pass().messages, 0);
    suspended.iter().for_each(|one| resume(&scene, one));
    assert_eq!(scene.pass().delivered, 2);
    assert!(delivered().eq([1; 5]));
    assert_eq!(scene.slots(), 0);
    assert_eq!(findings(&scene.spool), []);
}

/// The rest for a destination with an open connection waits too.
#[test]
fn the_rest_for_a_destination_that_is_suspended_waits() {
    let mut scene = Scene::new();
    scene.net = scene.net.clone().most_recipients(1);
    let to = ["a@host0.test", "b@host0.test", "c@host0.test"];
    let id = accept(&scene.spool, Entrance::Active, "fan", "s@sender.test", &to);
    let mut suspended = None;
    meanwhile(&scene, || suspended = Some(suspend(&scene, "host0.test")));
    assert_eq!(scene.net.delivered("host0.test"), 1);
    let attempts = || {
        let queue = scene.spool.locate(id).unwrap().queue().unwrap();
        let view = scene.spool.view(id, queue, &Listing::default()).unwrap();
        let state = view.unwrap().content.unwrap().state;
        let attempts = state.recipients.iter().map(|recipient| recipient.attempts);
        attempts.collect::<Vec<_>>()
    };
    assert_eq!(attempts(), [1, 0, 0]);
    assert_eq!(scene.slots(), 0);
    resume(&scene, &suspended.unwrap());
    assert_eq!(scene.pass().delivered, 2);
    assert_eq!(scene.net.delivered("host0.test"), 3);
    assert_eq!(findings(&scene.spool), []);
}

/// An operator's request ends the attempt after the transactions under way.
#[test]
fn a_message_that_is_taken_back_during_its_attempt_goes_to_no_further_host() {
    let by = || By::rule("test");
    let until = Timestamp::now() + SignedDuration::from_hours(100);
    let (end, then) = (None, Then::Thaw);
    for (action, is_over) in [
        (
            Action::Freeze {
                by: by(),
                until: end,
                then,
            },
            true,
        ),
        (Action::Discard { by: by(), until }, true),
        (Action::Bounce(by()), true),
        (Action::Retry(by()), false),
        // A request that does not apply, and is refused after the attempt.
        (Action::Thaw(by()), false),
    ] {
        let scene = Scene::new();
        let hosts = hosts(4);
        let id = scene.fan_out(&hosts);
        meanwhile(&scene, || {
            let acted = act(&scene.spool, &[id], &action, scene.clock.now()).unwrap();
            assert_eq!(acted, [(id, Acted::Requested)]);
        });
        let delivered: usize = hosts.iter().map(|host| scene.net.delivered(host)).sum();
        assert_eq!(delivered, if is_over { 1 } else { 4 }, "{action:?}");
        let queue = scene.spool.locate(id).unwrap().queue();
        match action {
            Action::Freeze { .. } => assert!(matches!(queue, Some(Queue::Frozen(_)))),
            Action::Discard { .. } => assert!(matches!(queue, Some(Queue::Discarded(_)))),
            Action::Bounce(_) => {
                // Its sender gets a bounce for the remaining recipients.
                scene.pass();
                assert_eq!(scene.net.delivered("sender.test"), 1);
            }
            _ => assert_eq!(queue, None),
        }
        assert!(!scene.spool.has_request(id).unwrap());
        assert_eq!(scene.slots(), 0);
        assert_eq!(findings(&scene.spool), []);
    }
}

/// A transport that counts its concurrent uses.
fn counting(most: &Arc<AtomicUsize>) -> FromFn {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::clone(most));
    from_fn(move |_, recipients| {
        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::sleep(Duration::from_millis(2));
        now.fetch_sub(1, SeqCst);
        vec![Outcome::delivered("taken"); recipients.len()]
    })
}

#[test]
fn a_transport_is_used_by_so_many_over_all_processes() {
    let scene = Scene::new();
    for host in hosts(20) {
        scene.queue(2, &host);
    }
    scene.fan_out(&hosts(20));
    let most = Arc::new(AtomicUsize::new(0));
    let relay = counting(&most).with_concurrency(2);
    let pass = || {
        let clock = scene.clock.clone();
        Runner::builder(Spool::open(&scene.path).unwrap(), HOST)
            .transport("relay", relay.clone())
            .routes(Routes::all_by("relay"))
            .clock(move || clock.now())
            .build()
            .pass()
            .unwrap()
            .delivered
    };
    let delivered: u64 = thread::scope(|scope| {
        let passes: Vec<_> = (0..4).map(|_| scope.spawn(pass)).collect();
        passes.into_iter().map(|pass| pass.join().unwrap()).sum()
    });
    // A pass that finds no free slot leaves its messages. If other passes meet them while they are locked,
    // the next pass delivers them.
    assert_eq!(delivered + pass(), 60);
    assert_eq!(most.load(SeqCst), 2);
}

#[test]
fn a_pass_leaves_what_others_have_all_the_places_for() {
    let scene = Scene::new();
    let many: usize = hosts(30)
        .iter()
        .map(|host| scene.queue(1, host).len())
        .sum();
    let relay = counting(&Arc::default()).with_concurrency(2);
    let pass = || {
        let clock = scene.clock.clone();
        let runner = Runner::builder(Spool::open(&scene.path).unwrap(), HOST);
        let runner = runner.transport("relay", relay.clone());
        let runner = runner.routes(Routes::all_by("relay"));
        runner.clock(move || clock.now()).build().pass().unwrap()
    };
    let taken: Vec<_> = (0..2)
        .map(|n| scene.spool.take_place("relay", 2, n).unwrap().unwrap())
        .collect();
    let summary = pass();
    assert_eq!((summary.messages, summary.delivered), (0, 0));
    assert_eq!(scene.tried(), 0, "and nothing is said about it");
    assert_eq!(scene.spool.ids_in(Queue::Active).unwrap().len(), many);
    drop(taken);
    assert_eq!(pass().delivered, 30);
}
