//! A full disk, and an outcome that cannot be recorded.

use mailspool::testing::disk::Call;
use nix::errno::Errno;

use super::super::judge::End::{Delivered, Gone, Told};
use super::super::log::{Fault, Step};
use super::super::stage::Stage;
use super::super::story::{Story, UNRECORDED, fate};
use super::{A, B, HUSH, NO, SLOW, SLOWER};

/// No file or directory can be made, and no file can grow.
fn no_room(call: &Call<'_>) -> Option<Errno> {
    let needs_room = matches!(
        call,
        Call::Open { create: true, .. }
            | Call::Write { at: None, .. }
            | Call::Mkdir { .. }
            | Call::Link { .. }
    );
    needs_room.then_some(Errno::ENOSPC)
}

/// Renames fail as well.
fn no_names(call: &Call<'_>) -> Option<Errno> {
    match call {
        Call::Rename { .. } => Some(Errno::ENOSPC),
        _ => no_room(call),
    }
}

/// An outcome can be written neither to the block nor to a history.
fn nothing_said(call: &Call<'_>) -> Option<Errno> {
    let says = match call {
        Call::Write { at: Some(_), .. } => true,
        Call::Open { path, create: true } | Call::Write { path, .. } => path.starts_with("history"),
        _ => false,
    };
    says.then_some(Errno::EIO)
}

/// What can be delivered is delivered, and not again once there is room. Failures are bounced then.
pub fn drain() -> Vec<Story> {
    let all: [(&str, Fault); 2] = [("octets", no_room), ("octets and names", no_names)];
    let story = |(what, refused): (&str, Fault)| {
        let fates = vec![
            fate("one", A, Delivered),
            fate("one", SLOW, Delivered),
            fate("one", NO, Told),
            fate("two", B, Delivered),
            fate("three", SLOWER, Delivered),
            fate("four", HUSH, Gone),
        ];
        let prepare = |stage: &Stage| {
            stage.send("one", &[A, SLOW, NO]);
            stage.send("two", &[B]);
            stage.send("three", &[SLOWER]);
            stage.send("four", &[HUSH]);
        };
        let title = format!("no room for {what}, and then there is");
        Story::record(&title, fates, prepare, |stage| {
            stage.refusing(refused, || drop(stage.try_pass()));
            stage.pass_after(40);
        })
    };
    all.map(story).into()
}

/// An operator thaws the message. A recipient that may have got it may get it again.
pub fn unrecorded() -> Story {
    let fates = vec![fate("one", A, Delivered), fate("one", SLOW, Delivered)];
    let prepare = |stage: &Stage| stage.send("one", &[A, SLOW]);
    let mut story = Story::record(UNRECORDED, fates, prepare, |stage| {
        stage.refusing(nothing_said, || drop(stage.try_pass()));
        stage.pass_after(1);
    });
    // It has few states, so all are judged.
    story.one_in = 1;
    let held =
        |step: &Step| matches!(step, Step::Rename(_, to) if to.iter().any(|part| part == "frozen"));
    assert!(story.steps.iter().any(held), "it is not held");
    story
}
