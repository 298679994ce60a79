//! Mail for hosts: several transactions of one message, hosts that are down, lost answers.

use super::super::judge::End::{Delivered, Told};
use super::super::judge::LOOKED_AT;
use super::super::stage::Stage;
use super::super::story::{Story, fate};
use super::moments::{noted_outcome, remembered};
use super::{A, BUSY, DEAD, FAR, GONE, HELD, LOST, TWINS};

/// One message with a transaction for each host, and one more where a host takes no more recipients at once:
/// delivered, deferred, failed.
pub fn in_parts() -> Vec<Story> {
    let fates = || {
        let mut fates: Vec<_> = FAR.iter().map(|to| fate("one", to, Delivered)).collect();
        fates.push(fate("one", BUSY, Delivered));
        fates.push(fate("one", GONE, Told));
        fates
    };
    let prepare = |stage: &Stage| stage.send("one", &[FAR[0], BUSY, FAR[1], GONE, FAR[2]]);
    let title = "deliver, defer and fail in one pass";
    let at_once = Story::record(title, fates(), prepare, Stage::pass);
    let title = "killed between two transactions";
    let killed = Story::record(title, fates(), prepare, |stage| {
        stage.killed_at(noted_outcome, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(60);
    });
    let fates = || TWINS.map(|to| fate("one", to, Delivered)).to_vec();
    let prepare = |stage: &Stage| stage.send("one", &TWINS);
    let title = "what one host puts off goes to the next";
    let twins = Story::record(title, fates(), prepare, Stage::pass);
    let title = "killed between two hosts";
    let between = Story::record(title, fates(), prepare, |stage| {
        stage.killed_at(noted_outcome, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(60);
    });
    vec![at_once, killed, twins, between]
}

/// Sends two messages to a host that is down; the second also has another recipient.
fn two(stage: &Stage) {
    stage.send("one", &[DEAD]);
    stage.send("two", &[DEAD, A]);
}

pub fn down() -> Vec<Story> {
    let fates = || {
        vec![
            fate("one", DEAD, Delivered),
            fate("two", DEAD, Delivered),
            fate("two", A, Delivered),
        ]
    };
    let title = "a host is found to be down";
    let found = Story::record(title, fates(), two, Stage::pass);
    let three = |stage: &Stage| {
        two(stage);
        stage.send("three", &[DEAD]);
        stage.pass();
    };
    let more = || {
        let mut fates = fates();
        fates.push(fate("three", DEAD, Delivered));
        fates
    };
    let title = "a host is probed in vain";
    let vain = Story::record(title, more(), three, |stage| stage.pass_after(6));
    let title = "a host is probed, and answers";
    let answers = Story::record(title, more(), three, |stage| stage.pass_after(12));
    let prepare = |stage: &Stage| {
        two(stage);
        stage.pass();
    };
    let title = "that a host is down is cleared by hand";
    let cleared = Story::record(title, more(), prepare, |stage| {
        stage.clear();
        stage.send("three", &[DEAD]);
        stage.pass_after(1);
    });
    let title = "killed with a host remembered to be down";
    let killed = Story::record(title, fates(), two, |stage| {
        stage.killed_at(remembered, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.pass_after(6);
    });
    vec![found, vain, answers, cleared, killed]
}

/// The answer to a transaction is lost.
pub fn lost() -> Vec<Story> {
    let fates = vec![fate("one", A, Delivered), fate("one", LOST, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[A, LOST]);
    let title = "an answer is lost, and it is tried again";
    let retried = Story::record(title, fates, prepare, |stage| {
        stage.pass();
        stage.pass_after(34);
    });
    // Until the lost answer is recorded, only the process that made the attempt knows of it. If that process is
    // killed, the attempt counts as interrupted.
    let fates = || {
        let mut held = fate("one", HELD, Delivered);
        held.held = Some(LOOKED_AT);
        vec![fate("one", A, Delivered), held]
    };
    let prepare = |stage: &Stage| stage.send("one", &[HELD, A]);
    let title = "an answer is lost, and it is frozen";
    // After the cut no more answers are lost: a host that is tried again takes the message.
    let late = |stage: &Stage| {
        prepare(stage);
        stage.forward(8);
    };
    let frozen = Story::record(title, fates(), late, |stage| {
        stage.pass();
        stage.did();
    });
    let title = "killed at an answer that is lost";
    let killed = Story::record(title, fates(), prepare, |stage| {
        stage.killed_at(super::moments::noted_freeze, || drop(stage.try_pass()));
        stage.pass_after(1);
        stage.did();
    });
    vec![retried, frozen, killed]
}
