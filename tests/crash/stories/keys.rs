//! Submissions under a key: repeated, cut off, expired. Each is repeated once more by whoever judges
//! what a cut left.

use mailspool::disk::Method;

use super::super::judge::End::Delivered;
use super::super::stage::Stage;
use super::super::story::{Story, When, fate};
use super::moments::{durable, intended, kept, written};
use super::{A, B, nothing};

fn story(
    title: &str,
    method: Method,
    prepare: impl FnOnce(&Stage),
    deed: impl FnOnce(&Stage),
) -> Story {
    let fates = vec![fate("one", A, Delivered)];
    let mut story = Story::record(title, method, fates, prepare, deed);
    story.key = Some("one");
    story
}

fn submit(stage: &Stage) {
    stage.submit("one", A);
}

pub fn all(method: Method) -> Vec<Story> {
    let again = "submit under a key, again and again";
    let mut all = vec![
        story("submit under a key", method, nothing, submit),
        story(again, method, submit, |stage| {
            submit(stage);
            stage.pass();
            submit(stage);
        }),
        over(method),
        // Older programs made none of its directories.
        story(
            "submit under the first key",
            method,
            Stage::without_keys,
            submit,
        ),
    ];
    let kills: [(&str, When); 4] = [
        ("intended", intended),
        ("written", written),
        ("durable", durable(method)),
        ("kept", kept),
    ];
    for (what, kill) in kills {
        let title = format!("killed with a key {what}, and repeated");
        all.push(story(&title, method, nothing, |stage| {
            stage.killed_behind(kill, || submit(stage));
            submit(stage);
            stage.pass();
        }));
        let title = format!("killed with a key {what}, and swept");
        all.push(story(&title, method, nothing, |stage| {
            stage.killed_behind(kill, || submit(stage));
            stage.pass();
            submit(stage);
        }));
    }
    all
}

/// A key's time is over, and another message gets it.
fn over(method: Method) -> Story {
    let prepare = |stage: &Stage| {
        stage.submit_and_forget("two", B, 1);
        stage.pass();
        stage.forward(70);
    };
    story("a key is over", method, prepare, |stage| {
        stage.pass();
        submit(stage);
        stage.pass();
    })
}
