//! One message to many destinations, and transports that take few at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use mailspool::message::Door;
use mailspool::queue::{Outcome, Pattern, Routes, Rule};
use mailspool::runner::{Budget, Runner, RunnerBuilder};
use mailspool::spool::{Place, Spool};
use mailspool::transport::Relay;

use super::Scene;
use super::world::{HOST, accept, findings};

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("host{n}.test")).collect()
}

impl Scene {
    /// One message to somebody at each host.
    fn fan_out(&self, hosts: &[String]) -> mailspool::message::QueueId {
        let to: Vec<String> = hosts.iter().map(|host| format!("r@{host}")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        accept(&self.spool, Door::Active, "fan", "s@sender.test", &to)
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
    assert!(state.recipients.iter().all(|one| one.attempts == 1));
}

#[test]
fn a_message_to_many_hosts_leaves_a_job_to_others() {
    let scene = Scene::new();
    let silent = hosts(40);
    silent.iter().for_each(|host| scene.net.hang(host, true));
    scene.fan_out(&silent);
    thread::scope(|scope| {
        let near = Relay::new(|_, to| vec![Outcome::delivered("taken"); to.len()]);
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
        // It comes in while the other one waits for answers.
        let id = scene.queue(1, "near.test")[0];
        while scene.spool.locate(id).unwrap().place().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
        let tried_meanwhile = tried();
        stop.stop();
        silent.iter().for_each(|host| scene.net.hang(host, false));
        // What was under way is finished, and nothing more begins.
        assert_eq!(pass.join().unwrap().delivered, 3);
        assert_eq!((tried_meanwhile, tried()), (2, 2));
    });
    assert_eq!(findings(&scene.spool), []);
    scene.clock.forward(1);
    assert_eq!(scene.pass().delivered, 38);
    assert!(silent.iter().all(|host| scene.net.delivered(host) == 1));
    assert_eq!(scene.slots(), 0);
}

/// A transport that counts how often it is used at once.
fn counting(most: &Arc<AtomicUsize>) -> Relay {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::clone(most));
    Relay::new(move |_, recipients| {
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
    // What one that found no place had in hand, when the others came to it, is left to the next.
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
    assert_eq!(scene.spool.ids_in(Place::Active).unwrap().len(), many);
    drop(taken);
    assert_eq!(pass().delivered, 30);
}
