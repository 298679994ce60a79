//! Read-only operations and repairs under faults.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Acceptor, Request};
use mailspool::testing::disk::{self, Seam};
use mailspool::testing::message::Entrance;
use mailspool::testing::operator::{Finding, Level, check, row};
use mailspool::testing::spool::Spool;
use nix::errno::Errno;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Fault, Injector, all_cases, sample};
use super::queue::QueueScene;
use super::scratch::Scratch;
use super::world::{limits, request, tempdir, text};

/// A question asked of a spool.
type Ask<T> = fn(&Spool) -> Result<T, String>;

fn said<T>(result: disk::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// What `list` shows of every message, except its age.
fn list(spool: &Spool) -> Result<Vec<String>, String> {
    let listing = spool.listing();
    if let Some(error) = listing.unread.first() {
        return Err(error.to_string());
    }
    let mut rows = Vec::new();
    for (id, place) in &listing.messages {
        if let Some(view) = said(spool.view(*id, *place, &listing))? {
            let mut row = row(&view, id.accepted());
            // The change time of the file, which a copy does not keep.
            row.since = None;
            rows.push(format!("{row:?}"));
        }
    }
    Ok(rows)
}

fn findings(spool: &Spool) -> Result<Vec<Finding>, String> {
    said(check(spool, false))
}

fn ask<T>(path: &Path, seam: Arc<Injector>, what: Ask<T>) -> Result<T, String> {
    let seam: Arc<dyn Seam> = seam;
    let spool = Spool::open_through(path, Some(seam)).map_err(|error| error.to_string())?;
    what(&spool)
}

/// The answer without faults, and its calls.
fn asked<T>(path: &Path, what: Ask<T>) -> (T, Vec<Seen>) {
    let seam = Injector::new(Case::clean());
    let answer = ask(path, Arc::clone(&seam), what).unwrap();
    (answer, seam.seen())
}

/// Every fault except those of syncs; a query makes none.
fn cases(seen: &[Seen], most: usize) -> Vec<Case> {
    sample(all_cases(seen, None), most)
}

#[test]
fn a_list_is_complete_or_fails() {
    let queue = QueueScene::with_one_name_each();
    let (rows, seen) = asked(&queue.path(), list);
    assert!(rows.len() > 10);
    let tally = explore("list", &cases(&seen, 250), |case| {
        let dir = Scratch::copy(&queue.path());
        let answer = ask(&dir.spool(), Injector::new(*case), list);
        dir.end();
        match answer {
            Ok(shown) => {
                assert_eq!(shown, rows);
                "the same"
            }
            Err(_) => "failed",
        }
        .to_owned()
    });
    tally.print(&format!("list, {} calls", seen.len()));
}

/// Each message is in a separate bucket. A check used to search all buckets for each file.
#[test]
fn a_look_at_many_messages_costs_as_much_for_each() {
    let calls = |count: usize| -> [usize; 2] {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let acceptor = Acceptor::new(Spool::create(&path).unwrap(), limits());
        for minutes in 1..=count {
            let hour = SignedDuration::from_hours(1) + SignedDuration::from_mins(minutes as i64);
            let request = Request {
                release: Some(Timestamp::now() + hour),
                ..request(Entrance::Active, "s@sender.test", &["a@ok.test"])
            };
            acceptor.accept(request, text("m").as_slice()).unwrap();
        }
        let (rows, listed) = asked(&path, list);
        let (found, checked) = asked(&path, findings);
        assert_eq!((rows.len(), found), (count, Vec::new()));
        [listed.len(), checked.len()]
    };
    let [few, some, many] = [20, 40, 60].map(calls);
    for (what, n) in [("list", 0), ("check", 1)] {
        assert_eq!(some[n] - few[n], many[n] - some[n], "calls of a {what}");
    }
}

#[test]
fn a_check_takes_nothing_for_damaged_that_cannot_be_read() {
    let queue = QueueScene::with_one_name_each();
    let (found, seen) = asked(&queue.path(), findings);
    let tally = explore("check", &cases(&seen, 300), |case| {
        let dir = Scratch::copy(&queue.path());
        let answer = ask(&dir.spool(), Injector::new(*case), findings);
        dir.end();
        let Ok(answer) = answer else {
            return "failed".to_owned();
        };
        let unread: Vec<&Path> = answer
            .iter()
            .filter(|one| one.what.starts_with("cannot be read: "))
            .map(|one| one.path.as_path())
            .collect();
        let unread = |finding: &Finding| unread.iter().any(|above| finding.is_hidden(above));
        for one in &answer {
            let unread = unread(one) && one.repair.is_none();
            assert!(found.contains(one) || unread, "{one:?}");
        }
        let told = |finding: &&Finding| answer.contains(finding) || unread(finding);
        let untold: Vec<&Finding> = found.iter().filter(|finding| !told(finding)).collect();
        // If a name is missing for a moment, the message seems to have moved; the next check reports it.
        let may_vanish = usize::from(case.fault == Fault::Once(Errno::ENOENT));
        let vanished: BTreeSet<_> = untold
            .iter()
            .map(|finding| finding.path.file_name())
            .collect();
        assert!(vanished.len() <= may_vanish, "not said: {untold:?}");
        if answer.iter().any(unread) {
            "some not to be read"
        } else {
            "the same"
        }
        .to_owned()
    });
    tally.print(&format!("check, {} calls", seen.len()));
}

/// Rubbish of every kind that a repair handles.
fn untidy(path: &Path, queue: &QueueScene) {
    let write = |name: String| fs::write(path.join(name), "left").unwrap();
    let gone = mailspool::testing::accept::new_id(queue.start);
    for dir in [
        "info/sender",
        "info/recipients",
        "info/transport",
        "history",
        "requests",
    ] {
        write(format!("{dir}/{gone}"));
    }
    write(format!("history/{gone}.part"));
}

fn repair(spool: &Spool) -> Result<Vec<Finding>, String> {
    said(check(spool, true))
}

#[test]
fn a_repair_loses_nothing() {
    let queue = QueueScene::new();
    untidy(&queue.path(), &queue);
    let kept = |path: &Path| -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = super::world::walk(path)
            .iter()
            // Ignores reasons, which come and go, half-written files that are never read, and views: a repair
            // may remove them.
            .filter(|file| {
                let ending = file.extension().unwrap_or_default();
                let below = file.strip_prefix(path).unwrap();
                ending != "reason" && ending != "part" && !below.starts_with("info")
            })
            .map(|file| fs::read(file).unwrap())
            .collect();
        all.sort();
        // A repair removes one of two names of a file.
        all.dedup();
        all
    };
    let before = kept(&queue.path());
    let seen = {
        let dir = Scratch::copy(&queue.path());
        asked(&dir.spool(), repair).1
    };
    let tally = explore("repair", &cases(&seen, 120), |case| {
        let dir = Scratch::copy(&queue.path());
        let (ledger, clock) = queue.beginning();
        let repaired = ask(&dir.spool(), Injector::new(*case), repair).is_ok();
        assert!(kept(&dir.spool()) == before, "something is gone");
        let spool = Spool::open(&dir.spool()).unwrap();
        check(&spool, true).unwrap();
        let mut found = check(&spool, false).unwrap();
        found.retain(|finding| finding.level > Level::Note);
        assert_eq!(found, []);
        drop(spool);
        remove_leftovers(&dir.spool(), &queue);
        let ended = Ok(Default::default());
        assert!(!queue.work_off(&dir.spool(), &ended, &ledger, &clock, 0));
        dir.end();
        match (repaired, case.fault) {
            (true, _) => "through",
            (false, Fault::Stop) => "stopped",
            (false, _) => "failed",
        }
        .to_owned()
    });
    tally.print(&format!("repair, {} calls", seen.len()));
}

/// Removes the files that a repair put into quarantine, as an operator would.
fn remove_leftovers(path: &Path, queue: &QueueScene) {
    let quarantine = fs::read_dir(path.join("corrupt")).unwrap();
    let kept: Vec<PathBuf> = ["", ".reason"]
        .map(|ending| path.join(format!("corrupt/{}{ending}", queue.corrupt)))
        .to_vec();
    for entry in quarantine {
        let file = entry.unwrap().path();
        if !kept.contains(&file) {
            fs::remove_file(file).unwrap();
        }
    }
}
