//! Mail with a release time.

use jiff::SignedDuration;
use mailspool::testing::queue::Action;

use super::super::judge::End::{Delivered, Frozen};
use super::super::stage::{Stage, by};
use super::super::story::{Story, changed, fate};
use super::moments::{accepted, written};
use super::operate::freeze;
use super::{A, NO, nothing};

/// The release time in minutes after the beginning.
const AHEAD: i64 = 50;

fn send_later(stage: &Stage) {
    stage.send_at("one", &[A], SignedDuration::from_mins(AHEAD));
}

fn held(title: &str, prepare: fn(&Stage), deed: impl FnOnce(&Stage)) -> Story {
    let mut fates = vec![fate("one", A, Delivered)];
    fates[0].held = Some(AHEAD);
    Story::record(title, fates, prepare, |stage| {
        // The release time applies from the first moment.
        stage.did();
        deed(stage);
    })
}

pub fn all() -> Vec<Story> {
    let sent = held("accept for later", nothing, send_later);
    let released = held("release", send_later, |stage| {
        stage.pass_after(20);
        stage.pass_after(40);
    });
    let cut_off = held("move on what is for later", nothing, |stage| {
        stage.killed_at(accepted, || send_later(stage));
        stage.know("one");
        stage.pass();
    });
    let torn = held("move on what was cut off for later", nothing, |stage| {
        stage.killed_at(written, || send_later(stage));
        stage.pass();
    });
    let fates = vec![changed("one", A, &[Delivered, Frozen], &[Frozen])];
    let title = "freeze what is for later";
    let frozen = Story::record(title, fates, send_later, |stage| stage.act(&freeze()));
    let mut fates = vec![changed("one", A, &[Delivered, Frozen], &[Delivered])];
    fates[0].held = Some(AHEAD);
    let before = |stage: &Stage| {
        send_later(stage);
        stage.act(&freeze());
        stage.forget_deed();
    };
    let title = "thaw what is for later";
    let thawed = Story::record(title, fates, before, |stage| {
        stage.act(&Action::Thaw(by()));
        stage.pass_after(10);
    });
    vec![sent, released, cut_off, torn, frozen, thawed, early()]
}

/// An operator releases it before its time.
fn early() -> Story {
    let fates = vec![
        fate("one", A, Delivered),
        fate("one", NO, super::super::judge::End::Told),
    ];
    let prepare = |stage: &Stage| {
        stage.send_at("one", &[A, NO], SignedDuration::from_mins(AHEAD));
    };
    Story::record("retry what is for later", fates, prepare, |stage| {
        stage.act(&Action::Retry(by()));
        stage.pass_after(1);
    })
}
