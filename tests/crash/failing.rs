//! Failing syncs: each sync of a story fails in turn. The code handles the error, and the octets that the
//! sync covered may be lost even if a later sync succeeds.
//!
//! After the failure the power is cut after every call, as in every story. What was acknowledged or reported
//! as done is judged as in every story.

use mailspool::testing::queue::Action;

use super::explore::explore_all;
use super::judge::End::{Delivered, Frozen, Told};
use super::log::Step;
use super::proof;
use super::stage::{Stage, by};
use super::stories::operate::freeze;
use super::stories::{A, BOX, NO, SLOW, fold};
use super::story::{Story, changed, fate};

type Deed = fn(&Stage);

/// Explores a story once for each of its syncs, with that sync failing. Without `MAILSPOOL_LONG`, only one
/// sync in three.
fn tell(title: &str, fates: &[super::judge::Fate], prepare: Deed, deed: Deed) {
    let mut all = Vec::new();
    for number in 0.. {
        let title = format!("{title}, sync {number} fails");
        let story = Story::record(&title, fates.to_vec(), prepare, |stage| {
            stage.recorder().fail_sync(number);
            deed(stage);
        });
        if !story
            .steps
            .iter()
            .any(|step| matches!(step, Step::Failed(_)))
        {
            break;
        }
        all.push(story);
    }
    assert!(!all.is_empty(), "no sync in {title}");
    let step = if proof::long() { 1 } else { 3 };
    explore_all(all.into_iter().step_by(step).collect());
}

/// The message is there whole, or not at all.
#[test]
fn accepting() {
    let fates = [fate("one", A, Delivered), fate("one", NO, Told)];
    tell(
        "accept",
        &fates,
        |_| {},
        |stage| stage.send("one", &[A, NO]),
    );
}

/// The next run retries what failed.
#[test]
fn delivering() {
    let fates = [
        fate("one", BOX, Delivered),
        changed("one", SLOW, &[Delivered, Frozen], &[Delivered, Frozen]),
    ];
    let prepare: Deed = |stage| stage.send("one", &[BOX, SLOW]);
    tell("deliver", &fates, prepare, |stage| {
        drop(stage.try_pass());
        stage.forward(34);
        drop(stage.try_pass());
    });
}

/// A fold has the only record of the delay notice.
#[test]
fn folding() {
    tell("fold", &fold::fates(), fold::told, |stage| {
        stage.fold_early();
        stage.forward(30);
        drop(stage.try_pass());
        stage.forward(5);
        drop(stage.try_pass());
    });
    let fates = [
        fate("one", A, Delivered),
        changed("one", SLOW, &[Delivered, Frozen], &[Frozen]),
    ];
    let prepare: Deed = |stage| {
        stage.send("one", &[A, SLOW]);
        stage.pass();
        stage.fold_early();
    };
    tell("fold at a freeze", &fates, prepare, |stage| {
        if stage.try_act(&freeze()).is_ok() || stage.try_act(&freeze()).is_ok() {
            stage.did();
        }
    });
}

#[test]
fn freezing() {
    let fates = [
        fate("one", A, Delivered),
        changed("one", SLOW, &[Delivered, Frozen], &[Frozen]),
    ];
    let prepare: Deed = |stage| {
        stage.send("one", &[A, SLOW]);
        stage.pass();
    };
    tell("freeze", &fates, prepare, |stage| {
        if stage.try_act(&freeze()).is_ok() {
            stage.did();
        }
    });
    // The operator repeats the failed command, and it succeeds.
    tell("freeze, twice", &fates, prepare, |stage| {
        if stage.try_act(&freeze()).is_ok() || stage.try_act(&freeze()).is_ok() {
            stage.did();
        }
    });
    let fates = [
        fate("one", A, Delivered),
        changed("one", SLOW, &[Delivered, Told], &[Told]),
    ];
    tell("bounce", &fates, prepare, |stage| {
        if stage.try_act(&Action::Bounce(by())).is_ok() {
            stage.did();
        }
    });
}
