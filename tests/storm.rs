//! Many processes on one spool, killed with SIGKILL or stopped at random moments.
//!
//! What belongs here: crowds of processes that must not harm each other or the mail. The moments are random, the
//! outcome is not: no message is lost, only messages in flight may be doubled, nothing stays locked.
//! `MAILSPOOL_SEED` decides the random choices; the scheduler adds its own.

mod program;
mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::crowd::{
    Crowd, RETRY, Random, Storm, nothing_is_left, nothing_is_lost_or_doubled, start_runner,
    start_submitter, storm_over_a_command,
};
use program::{BOX, LONG, Site, code_of, names, pipe, route, until};

#[test]
fn killed_runners_lose_nothing_and_a_maildir_gets_each_message_once() {
    const MESSAGES: usize = 1000;
    let site = Site::new(&format!("{RETRY}{BOX}"));
    let mut random = Random::new(proof::seed());
    site.queue_many(MESSAGES, |n| format!("r{n}@example.test"));
    let kills = Storm::new(&site, &mut random).blow();

    let mut subjects = BTreeMap::<String, usize>::new();
    for copy in site.boxed() {
        assert!(copy.ends_with("\n\nbody\n"), "torn:\n{copy}");
        let subject = copy.lines().find(|line| line.starts_with("Subject: "));
        *subjects.entry(subject.unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(subjects.len(), MESSAGES, "lost");
    let doubled: Vec<_> = subjects.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let unfinished = names(&site.dir().join("box/tmp"));
    println!("{} unfinished copies in tmp/", unfinished.len());
    nothing_is_left(&site);
    report(kills, MESSAGES, 0);
}

#[test]
fn killed_runners_double_at_most_what_they_had_locked() {
    const MESSAGES: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(proof::seed());
    let (kills, doubled) = storm_over_a_command(dir.path(), MESSAGES, &mut random);
    report(kills, MESSAGES, doubled);
}

#[test]
fn killed_submitters_leave_whole_messages_or_none() {
    const SUBMITTERS: usize = 240;
    const AT_ONCE: usize = 8;
    let site = Site::with_box();
    let mut random = Random::new(proof::seed());
    let mut accepted = BTreeSet::new();
    let mut serials = 0..SUBMITTERS;
    let mut crowd = Crowd::new();
    loop {
        while crowd.len() < AT_ONCE {
            let Some(serial) = serials.next() else { break };
            crowd.join(serial, start_submitter(&site, serial), random.below(120));
        }
        if crowd.len() == 0 {
            break;
        }
        for (serial, code) in crowd.bury() {
            match code {
                Some(0) => drop(accepted.insert(serial)),
                Some(code) => panic!("submitter {serial} ended with {code}"),
                None => {}
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    let killed = crowd.kills;
    println!("{} accepted, {killed} killed", accepted.len());
    assert!(killed > 0 && !accepted.is_empty(), "no storm");

    until("everything is delivered", || {
        site.run().ok();
        site.is_empty()
    });
    nothing_is_lost_or_doubled(&site, &accepted);
    nothing_is_left(&site);
    report(killed, accepted.len(), 0);
}

/// A stopped process keeps the lock of its message for as long as it is stopped: locks do not time out. It blocks
/// no other message.
#[test]
fn stopped_processes_hold_up_only_what_they_have_locked() {
    const RUNNERS: usize = 5;
    let site = Site::new(&format!("{RETRY}{BOX}"));
    let mut random = Random::new(proof::seed());
    let rounds = if proof::long() { 8 } else { 1 };
    let (mut next, mut accepted) = (0, BTreeSet::new());
    let mut crowd: Crowd<Option<usize>> = Crowd::new();
    for submissions in (1..=rounds).map(|round| round * 250) {
        until("everything that was submitted is delivered", || {
            while next < submissions && crowd.count(Option::is_some) < 6 {
                crowd.join(Some(next), start_submitter(&site, next), LONG);
                next += 1;
            }
            while crowd.count(Option::is_none) < RUNNERS {
                crowd.join(None, start_runner(&site), LONG);
            }
            let which = random.pick(crowd.len());
            if !crowd.is_stopped(which) {
                crowd.stop(which, random.below(150));
            }
            thread::sleep(random.below(5));
            crowd.go_on(false);
            for (submission, code) in crowd.bury() {
                assert_eq!(code, Some(0), "{submission:?}");
                accepted.extend(submission);
            }
            next == submissions && crowd.count(Option::is_some) == 0 && site.is_empty()
        });
    }
    // After this no process is left that could hold several messages.
    crowd.go_on(true);
    until("all processes have ended", || {
        let ended = crowd.bury();
        assert!(ended.iter().all(|(_, code)| *code == Some(0)));
        crowd.len() == 0 && site.processes().is_empty()
    });
    // A runner that holds a message stays stopped; the others deliver all other messages.
    let gate = site.dir().join("begun");
    let script = format!(
        "cat >/dev/null; if mkdir {0}; then kill -STOP $PPID; fi",
        gate.display()
    );
    site.configure(&format!(
        "{RETRY}{}{}",
        pipe("stop", &script),
        route("domain", "*", "stop")
    ));
    site.queue_many(20, |n| format!("r{n}@example.test"));
    let mut stopped = site
        .command(["run", "--quiet", "--jobs", "1"])
        .spawn()
        .unwrap();
    until("it is stopped", || gate.exists());
    until("the others have done the rest", || {
        site.run().ok();
        site.message_files().len() == 1
    });
    let pid = Pid::from_raw(stopped.id().try_into().unwrap());
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(code_of(&mut stopped, &Command::new("run")), 0);
    until("it is done as well", || {
        site.run().ok();
        site.is_empty()
    });
    nothing_is_lost_or_doubled(&site, &accepted);
    proof::count("stops", crowd.stops);
    drop(crowd);
    nothing_is_left(&site);
    report(0, accepted.len(), 0);
}

fn report(kills: usize, messages: usize, doubled: usize) {
    proof::count("kills", kills);
    proof::count("acknowledged", messages);
    proof::count("lost", 0);
    proof::count("doubled", doubled);
}
