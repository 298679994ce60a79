//! Submissions under a key: repeated, cut off, expired. Each is repeated once more by whoever judges
//! what a cut left.

use super::super::judge::End::Delivered;
use super::super::stage::Stage;
use super::super::story::{Story, When, fate};
use super::moments::{accepted, entered, intended, kept, sealed, set_aside, set_back, written};
use super::{A, B, nothing};

fn story(title: &str, prepare: impl FnOnce(&Stage), deed: impl FnOnce(&Stage)) -> Story {
    let fates = vec![fate("one", A, Delivered)];
    let mut story = Story::record(title, fates, prepare, deed);
    story.key = Some("one");
    story
}

fn submit(stage: &Stage) {
    stage.submit("one", A);
}

pub fn all() -> Vec<Story> {
    let again = "submit under a key, again and again";
    let mut all = vec![
        story("submit under a key", nothing, submit),
        story(again, submit, |stage| {
            submit(stage);
            stage.pass();
            submit(stage);
        }),
        over(),
        // Older programs made none of its directories.
        story("submit under the first key", Stage::without_keys, submit),
    ];
    let kills: [(&str, When); 6] = [
        ("intended", intended),
        ("written", written),
        ("sealed", sealed),
        ("entered", entered),
        ("accepted", accepted),
        ("kept", kept),
    ];
    for (what, kill) in kills {
        let title = format!("killed with a key {what}, and repeated");
        all.push(story(&title, nothing, |stage| {
            stage.killed_behind(kill, || submit(stage));
            submit(stage);
            stage.pass();
        }));
        let title = format!("killed with a key {what}, and swept");
        all.push(story(&title, nothing, |stage| {
            stage.killed_behind(kill, || submit(stage));
            stage.pass();
            submit(stage);
        }));
    }
    // The name of a message whose acceptor was killed is made anew before another submission is told of it.
    let kills: [(&str, When); 2] = [("aside", set_aside), ("back", set_back)];
    for (what, kill) in kills {
        let cut_off = move |stage: &Stage| {
            stage.killed_behind(accepted, || submit(stage));
            stage.killed_behind(kill, || submit(stage));
        };
        let title = format!("killed with a keyed message set {what}, and repeated");
        all.push(story(&title, nothing, |stage| {
            cut_off(stage);
            submit(stage);
            stage.pass();
        }));
        let title = format!("killed with a keyed message set {what}, and swept");
        all.push(story(&title, nothing, |stage| {
            cut_off(stage);
            stage.pass();
            submit(stage);
        }));
    }
    all
}

/// A key's time is over, and another message gets it.
fn over() -> Story {
    let prepare = |stage: &Stage| {
        stage.submit_and_forget("two", B, 1);
        stage.pass();
        stage.forward(70);
    };
    story("a key is over", prepare, |stage| {
        stage.pass();
        submit(stage);
        stage.pass();
    })
}
