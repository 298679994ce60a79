//! The reserve: two fill it, two want some of it on a full disk, one fills it as another takes some.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use mailspool::disk::{Call, Seam, Verdict};
use mailspool::message::Entrance;
use nix::errno::Errno;

use super::explore::Bound;
use super::programs::{attempting, filling, pass};
use super::shared::accept;
use super::stage::{Case, End, Pair, Said, Stage};

const FILES: usize = 32;
const SIZE: u64 = 32 << 10;

/// No file can be made where a history or a notice is written.
struct Full;

impl Seam for Full {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Open { path, create: true }
                if path.starts_with("history") || path.starts_with("new") =>
            {
                Verdict::Fail(Errno::ENOSPC)
            }
            _ => Verdict::Pass,
        }
    }
}

fn stage(messages: &[&str]) -> Stage {
    Stage::new(|stage| {
        for to in messages {
            stage.send(&[to]);
        }
    })
}

/// Most files of the reserve are gone, and a kill left one that is shorter. There are enough for one message.
fn used(messages: &[&str]) -> Stage {
    let stage = stage(messages);
    let dir = stage.path().join("reserve");
    for n in 5..FILES {
        fs::remove_file(dir.join(format!("{n:02}"))).unwrap();
    }
    let short = OpenOptions::new().write(true).open(dir.join("04"));
    short.unwrap().set_len(100).unwrap();
    stage
}

/// Each file of the reserve is filled, and has no other name.
fn is_whole(case: &Case<'_>) {
    assert!(case.spool().fill_reserve().unwrap());
    let dir = case.path.join("reserve");
    let sizes = fs::read_dir(dir).unwrap().map(|one| {
        let stat = one.unwrap().metadata().unwrap();
        (stat.nlink(), stat.size())
    });
    assert_eq!(sizes.collect::<Vec<_>>(), vec![(1, SIZE); FILES]);
}

#[test]
fn two_fill_it() {
    let stage = used(&["a@ok.test"]);
    let programs = [filling(), filling()];
    Pair::new("fill, fill", &stage, programs, |case, said| {
        is_whole(case);
        case.ends(said, &[(stage.ids[0], "a@ok.test", &[End::Delivered])]);
    })
    .holds(Bound::of(2).costly().kills(0));
}

/// Two runs write histories on a full disk, of messages that fail and have no sender to tell: each has a file of
/// its own.
#[test]
fn two_want_some_of_it() {
    let to = ["a@no.test", "b@no.test"];
    let stage = Stage::new(|stage| {
        for one in to {
            let id = accept(&stage.spool(), Entrance::Active, one, "", &[one]);
            stage.ids.push(id);
        }
    });
    let ends = [0, 1].map(|n| (stage.ids[n], to[n], &[End::Kept][..]));
    let below = |_: usize, _: &Path| -> Option<Arc<dyn Seam>> { Some(Arc::new(Full)) };
    let judge = |case: &Case<'_>, said: &[Said; 2]| {
        case.ends(said, &ends);
        is_whole(case);
    };
    let pair = Pair::new("claim, claim", &stage, [pass(1), pass(1)], judge);
    let pair = Pair {
        below: &below,
        ..pair
    };
    pair.holds(Bound::of(2).costly().kills(0));
}

/// What is being filled is not taken, and what is taken is not filled: not even what is a history or a notice by the
/// time it is locked to be filled. A fill was cut off, so that each file is looked at.
#[test]
fn one_fills_it_as_another_takes_some() {
    let to = "a@no.test";
    let stage = Stage::new(|stage| {
        stage.send(&[to]);
        fs::write(stage.path().join("reserve/filling"), "").unwrap();
    });
    let below = |process: usize, _: &Path| -> Option<Arc<dyn Seam>> {
        (process == 1).then(|| Arc::new(Full) as Arc<dyn Seam>)
    };
    let judge = |case: &Case<'_>, said: &[Said; 2]| {
        case.ends(said, &[(stage.ids[0], to, &[End::Told])]);
        is_whole(case);
    };
    let pair = Pair::new("fill, claim", &stage, [filling(), attempting()], judge);
    let pair = Pair {
        below: &below,
        ..pair
    };
    pair.holds(Bound::of(2).kills(0));
}
