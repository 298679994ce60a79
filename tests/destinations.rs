//! Many destinations, some of them dead: connections per host, and which messages wait in which queue.
//!
//! What belongs here: the runner with transports that reuse connections. Most tests use a simulated network
//! of hosts that count; the last ones speak SMTP over TCP.

#[path = "destinations/fan.rs"]
mod fan;
#[path = "destinations/hosts.rs"]
mod hosts;
#[path = "destinations/net.rs"]
mod net;
#[path = "destinations/sink.rs"]
mod sink;
#[path = "faults/world.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::queue::{Action, Bucket, By, Phase, Routes, Schedule};
use mailspool::testing::runner::{Budget, Runner, RunnerBuilder, Summary};
use mailspool::testing::spool::{Claim, Destination, Queue, Spool, apply};
use mailspool::testing::transport::OnUnknown;
use tempfile::TempDir;

use net::Net;
use world::{Clock, HOST, accept, findings, tempdir};

struct Scene {
    _dir: TempDir,
    path: PathBuf,
    spool: Spool,
    clock: Clock,
    net: Net,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempdir();
        let path = dir.path().join("spool");
        Scene {
            spool: Spool::create(&path).unwrap(),
            path,
            _dir: dir,
            // So that messages accepted during the test are not in the future.
            clock: Clock::at(Timestamp::now() + SignedDuration::from_mins(2)),
            net: Net::default(),
        }
    }

    fn queue(&self, count: usize, domain: &str) -> Vec<QueueId> {
        let one = |n: usize| {
            let to = format!("r{n}@{domain}");
            accept(&self.spool, Entrance::Active, &to, "s@sender.test", &[&to])
        };
        (0..count).map(one).collect()
    }

    /// A runner that opens the spool itself, as another process would.
    fn runner(&self) -> Runner {
        self.configured().build()
    }

    fn configured(&self) -> RunnerBuilder {
        let clock = self.clock.clone();
        Runner::builder(Spool::open(&self.path).unwrap(), HOST)
            .transport("net", self.net.clone())
            .routes(Routes::all_by("net"))
            .clock(move || clock.now())
    }

    /// The same with another transport.
    fn runner_by(
        &self,
        transport: impl mailspool::testing::transport::Transport + 'static,
    ) -> Runner {
        self.configured().transport("net", transport).build()
    }

    fn pass(&self) -> Summary {
        self.runner().pass().unwrap()
    }

    /// Two runners at once.
    fn passes(&self) {
        let runners = [self.runner(), self.runner()];
        thread::scope(|scope| {
            for runner in &runners {
                scope.spawn(|| runner.pass().unwrap());
            }
        });
    }

    /// Runs passes, one minute apart, until the queue is empty.
    fn passes_until_empty(&self, most: usize) {
        for _ in 0..most {
            self.passes();
            if self.spool.messages().unwrap().is_empty() {
                return;
            }
            self.clock.forward(1);
        }
        panic!("left: {:?}", self.queues());
    }

    fn queues(&self) -> BTreeSet<Queue> {
        let all = self.spool.messages().unwrap();
        all.into_iter().map(|(_, queue)| queue).collect()
    }

    fn destination(domain: &str) -> Destination {
        Destination {
            transport: "net".into(),
            next_hop: domain.into(),
        }
    }

    /// How many messages have a history.
    fn tried(&self) -> usize {
        fs::read_dir(self.path.join("history")).unwrap().count()
    }

    /// How many slots are left.
    fn slots(&self) -> usize {
        ["to", "probe"]
            .iter()
            .filter_map(|dir| fs::read_dir(self.path.join("state").join(dir)).ok())
            .map(Iterator::count)
            .sum()
    }

    fn retry(&self, ids: &[QueueId]) {
        let mut entries: Vec<_> = ids
            .iter()
            .map(|id| {
                let queue = self.spool.locate(*id).unwrap().queue().unwrap();
                match self.spool.lock(queue, *id).unwrap() {
                    Claim::Locked(locked) => locked.read().unwrap(),
                    _ => panic!("not to be had"),
                }
            })
            .collect();
        let by = By {
            by: "op".into(),
            reason: None,
        };
        apply(&mut entries, self.clock.now(), &Action::Retry(by)).unwrap();
    }

    fn state(&self, id: QueueId) -> mailspool::testing::spool::Content {
        let listing = self.spool.listing();
        let queue = self.spool.locate(id).unwrap().queue().unwrap();
        let view = self.spool.view(id, queue, &listing).unwrap().unwrap();
        view.content.unwrap()
    }
}

#[test]
fn a_dead_host_costs_one_connection_a_probe_and_delays_no_other() {
    let scene = Scene::new();
    scene.net.kill("dead.test");
    scene.queue(300, "dead.test");
    scene.queue(40, "ok.test");
    let summary = scene.pass();
    assert_eq!((summary.delivered, summary.deferred), (40, 1));
    assert_eq!(scene.net.connects("dead.test"), 1);
    assert_eq!(scene.net.delivered("ok.test"), 40);
    assert_eq!(
        scene.tried(),
        1,
        "only the message that was tried has events"
    );
    let down = scene.spool.down(&Scene::destination("dead.test")).unwrap();
    assert_eq!(down.reply, "4.4.1 timed out");
    let probe = Queue::Deferred(Bucket::for_time(down.probe));
    assert_eq!(scene.spool.ids_in(probe).unwrap().len(), 299);
    assert_eq!(findings(&scene.spool), []);

    // Too early: no message is examined.
    scene.clock.forward(3);
    scene.queue(5, "dead.test");
    scene.passes();
    assert_eq!(scene.net.connects("dead.test"), 1);
    assert_eq!(scene.spool.ids_in(probe).unwrap().len(), 304);

    // The probe fails, in one of the processes.
    scene.clock.forward(3);
    scene.passes();
    assert_eq!(scene.net.connects("dead.test"), 2);
    let again = scene.spool.down(&Scene::destination("dead.test")).unwrap();
    assert_eq!((again.since, again.tries), (down.since, 2));
    assert_eq!(scene.tried(), 2);

    // In the end the probe succeeds.
    scene.net.revive("dead.test");
    scene.clock.forward(11);
    scene.passes_until_empty(20);
    assert_eq!(scene.net.delivered("dead.test"), 305);
    assert_eq!(scene.spool.all_down().unwrap(), []);
    assert_eq!(scene.slots(), 0);
}

#[test]
fn a_message_retried_by_an_operator_probes_once() {
    let scene = Scene::new();
    scene.net.kill("dead.test");
    let ids = scene.queue(20, "dead.test");
    scene.pass();
    scene.clock.forward(1);
    scene.retry(&ids);
    scene.clock.forward(1);
    scene.pass();
    assert_eq!(scene.net.connects("dead.test"), 2);
    scene.pass();
    assert_eq!(scene.net.connects("dead.test"), 2);
    scene.net.revive("dead.test");
    scene.clock.forward(1);
    scene.retry(&ids[5..6]);
    scene.clock.forward(1);
    scene.pass();
    assert_eq!(scene.net.delivered("dead.test"), 1);
    assert_eq!(scene.spool.all_down().unwrap(), []);
}

#[test]
fn what_expires_while_its_host_is_down_bounces_in_time() {
    let scene = Scene::new();
    scene.net.kill("dead.test");
    let phase = Phase {
        until: SignedDuration::from_mins(60),
        every: SignedDuration::from_mins(15),
        factor: 1.0,
    };
    scene.queue(10, "dead.test");
    for _ in 0..=95 {
        let schedule = Schedule::new(vec![phase.clone()]).unwrap();
        scene.configured().retry(schedule).build().pass().unwrap();
        scene.clock.forward(1);
    }
    assert_eq!(scene.queues(), BTreeSet::new());
    // The bounces go to the sender's domain, which answers.
    assert_eq!(scene.net.delivered("sender.test"), 10);
    let connects = scene.net.connects("dead.test");
    assert!((4..=12).contains(&connects), "{connects}");
}

#[test]
fn only_recipients_of_a_dead_host_wait() {
    let scene = Scene::new();
    scene.net.kill("dead.test");
    scene.queue(1, "dead.test");
    scene.pass();
    let to = ["a@ok.test", "b@dead.test", "c@later.test"];
    let id = accept(&scene.spool, Entrance::Active, "m", "s@sender.test", &to);
    scene.pass();
    assert_eq!(scene.net.delivered("ok.test"), 1);
    assert_eq!(scene.net.connects("dead.test"), 1);
    let content = scene.state(id);
    assert!(content.state.recipients[1].last.is_none(), "no event");
    let down = scene.spool.down(&Scene::destination("dead.test")).unwrap();
    let queue = scene.spool.locate(id).unwrap().queue();
    assert_eq!(queue, Some(Queue::Deferred(Bucket::for_time(down.probe))));
    assert_eq!(findings(&scene.spool), []);
    scene.net.revive("dead.test");
    scene.net.revive("later.test");
    for _ in 0..40 {
        scene.clock.forward(1);
        scene.pass();
    }
    let delivered = ["ok.test", "dead.test", "later.test"].map(|to| scene.net.delivered(to));
    assert_eq!(delivered, [1, 2, 1]);
    assert_eq!(scene.queues(), BTreeSet::new());
}

/// Messages for a host that answers, each with a copy for a dead host that is not yet recorded as down.
#[test]
fn waiting_for_a_first_connection_delays_no_other() {
    let scene = Scene::new();
    scene.net.kill("dead.test");
    for n in 0..30 {
        let to = [format!("a{n}@ok.test"), format!("b{n}@dead.test")];
        let to = to.each_ref().map(String::as_str);
        accept(&scene.spool, Entrance::Active, to[0], "s@sender.test", &to);
    }
    scene.pass();
    assert_eq!(scene.net.delivered("ok.test"), 30);
    assert_eq!(scene.net.connects("dead.test"), 1);
    assert!(
        scene
            .queues()
            .iter()
            .all(|queue| matches!(queue, Queue::Deferred(_)))
    );
    scene.net.revive("dead.test");
    scene.clock.forward(6);
    scene.passes_until_empty(20);
    assert_eq!(scene.net.delivered("ok.test"), 30);
    assert_eq!(scene.net.delivered("dead.test"), 30);
}

/// Many hosts that do not answer, one message for each, among those for one that does.
#[test]
fn many_silent_hosts_delay_no_other() {
    let scene = Scene::new();
    let silent: Vec<String> = (0..40).map(|n| format!("silent{n}.test")).collect();
    scene.queue(1, "ok.test");
    for host in &silent {
        scene.net.hang(host, true);
        scene.queue(1, host);
    }
    scene.queue(19, "ok.test");
    thread::scope(|scope| {
        let pass = scope.spawn(|| scene.pass());
        while scene.net.delivered("ok.test") < 20 {
            assert!(!pass.is_finished(), "some were left");
            thread::sleep(Duration::from_millis(1));
        }
        let tried = silent.iter().filter(|host| scene.net.connects(host) > 0);
        assert!(tried.count() <= 10, "more than half of the jobs");
        silent.iter().for_each(|host| scene.net.hang(host, false));
        assert_eq!(pass.join().unwrap().delivered, 60);
    });
}

#[test]
fn the_first_connection_is_alone_and_the_others_follow() {
    let scene = Scene::new();
    scene.queue(60, "ok.test");
    scene.pass();
    let host = scene.net.host("ok.test");
    assert_eq!(host.delivered, 60);
    assert_eq!(host.at_first, 1, "connections before one was answered");
    assert!(host.most > 1 && host.most <= 3, "{}", host.most);
    assert_eq!(host.connects, host.most, "sessions are used again");
    assert_eq!(scene.slots(), 0);
}

#[test]
fn connections_are_bounded_over_all_processes() {
    let scene = Scene::new();
    scene.queue(200, "ok.test");
    scene.passes_until_empty(50);
    let host = scene.net.host("ok.test");
    assert_eq!(host.delivered, 200);
    assert!(host.most <= 3, "{}", host.most);
    assert_eq!(scene.slots(), 0);
}

#[test]
fn a_pass_leaves_what_others_have_all_the_connections_for() {
    let scene = Scene::new();
    let ids = scene.queue(20, "ok.test");
    scene.queue(5, "else.test");
    let destination = Scene::destination("ok.test");
    let taken: Vec<_> = (0..3)
        .map(|_| {
            scene
                .spool
                .take_connection(&destination, 3)
                .unwrap()
                .unwrap()
        })
        .collect();
    let summary = scene.pass();
    assert_eq!(summary.delivered, 5);
    assert_eq!(scene.net.connects("ok.test"), 0);
    assert_eq!(scene.tried(), 0, "and nothing is said about it");
    let left: BTreeSet<QueueId> = scene
        .spool
        .ids_in(Queue::Active)
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(left, ids.into_iter().collect());
    // A run in a slot continues as soon as a connection slot is free.
    thread::scope(|scope| {
        let runner = scene.runner();
        let run = scope.spawn(move || runner.pass_in_slot(1).unwrap().unwrap());
        // The result does not depend on the order.
        thread::sleep(Duration::from_millis(100));
        drop(taken);
        assert_eq!(run.join().unwrap().delivered, 20);
    });
}

#[test]
fn an_answer_that_is_lost_is_tried_again_or_held() {
    let scene = Scene::new();
    scene.net.lose_answers("lost.test");
    let again = scene.queue(1, "lost.test")[0];
    let summary = scene.pass();
    assert_eq!(summary.deferred, 1);
    let queue = scene.spool.locate(again).unwrap().queue().unwrap();
    assert!(matches!(queue, Queue::Deferred(_)), "{queue:?}");

    let held = scene.queue(1, "lost.test")[0];
    let runner = scene
        .configured()
        .transport("net", scene.net.clone().on_unknown(OnUnknown::Freeze))
        .build();
    runner.pass().unwrap();
    let queue = scene.spool.locate(held).unwrap().queue().unwrap();
    assert_eq!(queue, Queue::Frozen(Bucket::Never));
    let content = scene.state(held);
    let mailspool::testing::queue::Hold::Frozen { by, .. } = content.state.hold else {
        panic!("not held")
    };
    let reason = by.reason.unwrap();
    assert!(
        reason.starts_with("the answer to the message was lost"),
        "{reason}"
    );
    assert_eq!(findings(&scene.spool), []);
}

#[test]
fn smtp_messages_share_few_connections() {
    let scene = Scene::new();
    let sink = sink::Sink::start();
    let count = 500;
    scene.queue(count, "any.test");
    let budget = Budget {
        jobs: 8,
        ..Budget::default()
    };
    let runner = scene.configured().budget(budget);
    let summary = runner
        .transport("net", sink.smtp(4, 100))
        .build()
        .pass()
        .unwrap();
    assert_eq!(summary.delivered, count as u64);
    let seen = sink.seen();
    assert_eq!(seen.messages, count);
    assert!(seen.most <= 4, "{} at once", seen.most);
    assert!(seen.connections <= 9, "{} connections", seen.connections);
    assert_eq!(scene.slots(), 0);
}

#[test]
fn an_smtp_host_that_refuses_is_down_until_it_answers() {
    let scene = Scene::new();
    let sink = sink::Sink::start();
    scene.queue(50, "any.test");
    let dead = sink.dead();
    let runner = |smtp| scene.configured().transport("net", smtp).build();
    let summary = runner(dead.smtp(4, 100)).pass().unwrap();
    assert_eq!((summary.delivered, summary.deferred), (0, 1));
    let down = scene.spool.all_down().unwrap();
    assert_eq!(down.len(), 1);
    assert!(down[0].reply.contains("cannot connect"), "{down:?}");
    assert_eq!(scene.tried(), 1);
    drop(sink);
    let sink = dead.revive();
    scene.clock.forward(6);
    let summary = runner(sink.smtp(4, 100)).pass().unwrap();
    assert_eq!(summary.delivered, 49);
    assert_eq!(scene.spool.all_down().unwrap(), []);
}
