//! Folds: the history of a message is rewritten shorter when an event is added to it.

use mailspool::testing::queue::{Action, Fold, History, What};

use super::super::judge::End::{Delivered, Frozen, Heard, Told, Warned};
use super::super::judge::Fate;
use super::super::log::Step;
use super::super::stage::{Stage, by};
use super::super::story::{Story, When, fate};
use super::mail::late;
use super::moments::{noted_notice, replaced, rewritten, rewritten_durably};
use super::operate::{ends, freeze, frozen};
use super::{A, LONG, NO, SLOW, TOLD, deferred};

/// Returns the fates of the message of [`told`].
pub fn fates() -> Vec<Fate> {
    vec![
        fate("one", A, Delivered),
        fate("one", SLOW, Delivered),
        fate("one", LONG, Warned),
    ]
}

/// Sends a message that is deferred three times, and delivers a delay notice. The history has the only record of
/// the notice.
pub fn told(stage: &Stage) {
    stage.send("one", &[A, SLOW, LONG]);
    for minutes in [1, 34, 36, 5] {
        stage.pass_after(minutes);
    }
}

/// Returns the fold that a step writes.
pub fn fold(step: &Step) -> Option<Fold> {
    let Step::Overwrite(_, 0, bytes) = step else {
        return None;
    };
    let first = History::parse(bytes).ok()?.events.into_iter().next()?;
    match first.what {
        What::Fold(fold) if rewritten(step) => Some(*fold),
        _ => None,
    }
}

fn folds(step: &Step) -> bool {
    fold(step).is_some()
}

/// Records a story in which every process folds early.
fn story(title: &str, fates: Vec<Fate>, prepare: impl FnOnce(&Stage), deed: fn(&Stage)) -> Story {
    let story = Story::record(title, fates, prepare, |stage| {
        stage.fold_early();
        deed(stage);
    });
    assert!(story.steps.iter().any(folds), "{title}: nothing is folded");
    story
}

pub fn all() -> Vec<Story> {
    let mut all = vec![deferral(), delay(), notices(), held(), released()];
    all.push(staged());
    all.extend(killed());
    all
}

/// The fold replaces three attempts and a notice.
pub fn deferral() -> Story {
    story("fold at a deferral", fates(), told, |stage| {
        stage.pass_after(30)
    })
}

pub fn delay() -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
    let title = "fold at a notice of a delay";
    story(title, fates, late, |stage| stage.pass_after(5))
}

/// A delivery of which the sender is to be told is only in the fold.
fn notices() -> Story {
    let fates = vec![
        fate("one", TOLD, Heard),
        fate("one", NO, Told),
        fate("one", SLOW, Delivered),
    ];
    let prepare = |stage: &Stage| stage.send("one", &[TOLD, NO, SLOW]);
    let title = "fold at a notice of a delivery";
    story(title, fates, prepare, Stage::pass)
}

pub fn held() -> Story {
    let fates = ends(&[Delivered, Frozen], &[Frozen]);
    story("fold at a freeze", fates, deferred, |stage| {
        stage.act(&freeze());
    })
}

/// The reason why the message is in `frozen/` is only in the fold.
fn released() -> Story {
    let fates = ends(&[Delivered, Frozen], &[Delivered]);
    story("fold at a thaw", fates, frozen, |stage| {
        stage.act(&Action::Thaw(by()));
        stage.pass_after(34);
    })
}

/// The record of a notice is folded while the notice is still in `staged/`.
fn staged() -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", LONG, Warned)];
    let title = "fold the record of a notice in staged/";
    let prepare = |stage: &Stage| {
        late(stage);
        stage.forward(5);
        stage.killed_before(noted_notice, |stage| drop(stage.try_pass()));
    };
    let story = story(title, fates, prepare, |stage| {
        drop(stage.try_act(&Action::Retry(by())));
        stage.pass_after(1);
    });
    let told = |step: &Step| fold(step).is_some_and(|fold| !fold.notices.is_empty());
    assert!(story.steps.iter().any(told), "no record is folded");
    story
}

fn killed() -> Vec<Story> {
    let kills: [(&str, When); 3] = [
        ("written", rewritten),
        ("durable", rewritten_durably),
        ("named", replaced),
    ];
    let story = |(what, kill): (&str, When)| {
        let title = format!("killed with a fold {what}");
        Story::record(&title, fates(), told, |stage| {
            stage.fold_early();
            stage.forward(30);
            stage.killed_at(kill, || drop(stage.try_pass()));
            stage.pass_after(1);
        })
    };
    kills.map(story).into()
}
