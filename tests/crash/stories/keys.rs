//! Submissions under a key: repeated, cut off, expired. The judge repeats each once more after a cut.

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
        // Older versions did not make its directories.
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
            stage.killed_at(kill, || submit(stage));
            submit(stage);
            stage.pass();
        }));
        let title = format!("killed with a key {what}, and swept");
        all.push(story(&title, nothing, |stage| {
            stage.killed_at(kill, || submit(stage));
            stage.pass();
            submit(stage);
        }));
    }
    // After an acceptor was killed, its message's name is made anew before another submission gets the id.
    let kills: [(&str, When); 2] = [("aside", set_aside), ("back", set_back)];
    for (what, kill) in kills {
        let cut_off = move |stage: &Stage| {
            stage.killed_at(accepted, || submit(stage));
            stage.killed_at(kill, || submit(stage));
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

/// A key expires, and another message uses it.
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
