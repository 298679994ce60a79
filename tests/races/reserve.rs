//! The reserve: two processes fill it; two claim files of it on a full disk; one fills it while another claims
//! files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::Entrance;
use nix::errno::Errno;

use super::explore::Bound;
use super::programs::{attempting, filling, pass};
use super::shared::accept;
use super::stage::{Case, End, Pair, Said, Stage};

const FILES: usize = 32;
const SIZE: u64 = 32 << 10;

/// Fails the creation of histories and notices.
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

/// Returns a stage in which most reserve files are used up, and a kill left a short one. The rest suffice for one
/// message.
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

/// Asserts that each file of the reserve is filled and has no other name.
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

/// Two runs write histories on a full disk, for failed messages from the null sender. Each history gets its own
/// file.
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

/// A file that is being filled is not claimed, and a claimed file is not filled, even if it becomes a history or a
/// notice before it is locked for filling. An earlier fill was cut off, so each file is examined.
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
