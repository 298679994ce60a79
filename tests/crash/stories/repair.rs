//! Damaged messages and leftovers, and their repair.

use std::fs;

use mailspool::testing::message::QueueId;
use mailspool::testing::queue::Action;

use super::super::judge::End::{Corrupt, Delivered};
use super::super::stage::{Stage, by};
use super::super::story::{Story, changed, fate};
use super::{A, B, SLOW};

/// The next run finds the damage; an operator repairs the file and releases the message.
pub fn quarantine() -> Story {
    let fates = vec![changed("one", A, &[Corrupt, Delivered], &[Delivered])];
    let prepare = |stage: &Stage| {
        stage.send("one", &[A]);
        stage.damage();
    };
    let title = "quarantine, and out again";
    Story::record(title, fates, prepare, |stage| {
        stage.pass();
        stage.restore();
        stage.act(&Action::Retry(by()));
        stage.pass();
    })
}

/// A repair of everything that it can repair: leftovers, a second name, a damaged message. One intact message is
/// beside them.
pub fn repair() -> Story {
    let fates = vec![
        fate("damaged", A, Corrupt),
        fate("double", SLOW, Delivered),
        fate("well", B, Delivered),
    ];
    let prepare = |stage: &Stage| {
        let spool = stage.path();
        stage.send("damaged", &[A]);
        stage.damage();
        stage.send("double", &[SLOW]);
        let double = stage.ids()[1].to_string();
        stage.pass_over_damage();
        let buckets = fs::read_dir(spool.join("deferred")).unwrap();
        let bucket = buckets.map(|one| one.unwrap().path()).next().unwrap();
        fs::hard_link(bucket.join(&double), spool.join("active").join(&double)).unwrap();
        stage.send("well", &[B]);
        let stray: QueueId = "01a2021c-bff6-75ef-9344-1a834d1db9b8".parse().unwrap();
        for dir in [
            "info/sender",
            "info/recipients",
            "info/transport",
            "history",
            "requests",
        ] {
            let path = spool.join(dir).join(stray.to_string());
            fs::write(path, "stray\n").unwrap();
        }
    };
    Story::record("check --repair", fates, prepare, |stage| {
        stage.repair();
        stage.repair();
    })
}
