//! Suspended and resumed destinations.

use super::super::judge::End::Delivered;
use super::super::judge::{Fate, RESUMED};
use super::super::stage::Stage;
use super::super::story::{Story, fate};
use super::moments::{resumed, suspended};
use super::{A, B};

const DOMAIN: &str = "other.test";
/// End of a suspension in minutes after the beginning.
const END: i64 = 50;

/// Returns the fates: both recipients get the message, `B` not before `held` once the suspension is reported.
fn fates(held: Option<i64>) -> Vec<Fate> {
    let mut late = fate("one", B, Delivered);
    late.held = held;
    vec![fate("one", A, Delivered), late]
}

fn send(stage: &Stage) {
    stage.send("one", &[A, B]);
}

/// Sends a message and suspends its domain, without a report; then runs a pass.
fn held(stage: &Stage) {
    send(stage);
    stage.suspend(DOMAIN, END);
    stage.forget_deed();
    stage.pass();
}

pub fn suspend() -> Vec<Story> {
    let title = "suspend, and a pass";
    let first = Story::record(title, fates(Some(END)), send, |stage| {
        stage.suspend(DOMAIN, END);
        stage.pass();
        stage.pass_after(30);
    });
    let early = |stage: &Stage| {
        send(stage);
        stage.suspend(DOMAIN, 10);
        stage.forget_deed();
    };
    let title = "suspend anew, for longer";
    let anew = Story::record(title, fates(Some(END)), early, |stage| {
        stage.suspend(DOMAIN, END);
        stage.pass_after(20);
    });
    let title = "killed when it suspends";
    let killed = Story::record(title, fates(Some(END)), send, |stage| {
        stage.killed_at(suspended, || drop(stage.try_suspend(DOMAIN, END)));
        stage.pass_after(1);
        stage.suspend(DOMAIN, END);
        stage.pass_after(1);
    });
    let title = "suspend everything, and a pass";
    let mut all = fates(Some(END));
    all[0].held = Some(END);
    let all = Story::record(title, all, send, |stage| {
        stage.suspend("*", END);
        stage.pass();
        stage.pass_after(30);
    });
    vec![first, anew, killed, all]
}

pub fn end() -> Vec<Story> {
    let title = "a suspension runs out";
    let over = Story::record(title, fates(Some(END)), held, |stage| {
        stage.did();
        stage.pass_after(40);
        stage.pass_after(20);
    });
    let title = format!("{RESUMED}, and a pass");
    let ended = Story::record(&title, fates(None), held, |stage| {
        stage.resume(DOMAIN);
        stage.pass();
    });
    let title = format!("{RESUMED} by a process that is killed");
    let killed = Story::record(&title, fates(None), held, |stage| {
        stage.killed_at(resumed, || drop(stage.try_resume(DOMAIN)));
        stage.resume_again(DOMAIN);
        stage.pass_after(1);
    });
    let title = format!("{RESUMED}, all of it, and a pass");
    let all_held = |stage: &Stage| {
        send(stage);
        stage.suspend("*", END);
        stage.forget_deed();
        stage.pass();
    };
    let everything = Story::record(&title, fates(None), all_held, |stage| {
        stage.resume("*");
        stage.pass();
    });
    vec![over, ended, killed, everything]
}
