//! Named cases for bugs found by faults or by review.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::{EnhancedCode, Entrance};
use mailspool::testing::operator::{Acted, Level, act, check};
use mailspool::testing::queue::{Action, By, Outcome, Routes, Then};
use mailspool::testing::runner::Runner;
use mailspool::testing::spool::{Queue, Served, Spool};
use mailspool::testing::transport::from_fn;
use nix::errno::Errno;

use super::world::{Clock, HOST, Ledger, accept, files, runner, tempdir};

fn by() -> By {
    By {
        by: "operator".into(),
        reason: None,
    }
}

/// A request was carried out on the message in `done/`. That brought the message back into the queue while
/// its envelope was being removed.
#[test]
fn a_request_does_not_bring_back_what_was_delivered_meanwhile() {
    let freeze = Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    for action in [Action::Retry(by()), freeze] {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        accept(
            &spool,
            Entrance::Active,
            "m",
            "s@sender.test",
            &["a@ok.test"],
        );
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (asked, there) = (Arc::clone(&answers), spool.clone());
        let relay = from_fn(move |message, _| {
            let acted = act(&there, &[message.id], &action, Timestamp::now()).unwrap();
            asked.lock().unwrap().extend(acted);
            vec![Outcome::delivered("taken")]
        });
        let runner = Runner::builder(spool.clone(), HOST)
            .transport("relay", relay)
            .routes(Routes::all_by("relay"))
            .build();
        let summary = runner.pass().unwrap();
        assert_eq!((summary.delivered, summary.corrupt), (1, 0));
        runner.pass().unwrap();
        let answers = answers.lock().unwrap();
        assert!(
            matches!(answers.as_slice(), [(_, Acted::Requested)]),
            "{answers:?}"
        );
        assert_eq!(files(&path), Vec::<std::path::PathBuf>::new());
    }
}

/// A scan error dropped the attempts under way: delivered, but not recorded.
#[test]
fn what_is_in_hand_is_finished_when_the_scan_fails() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@ok.test"],
    );
    // A due, empty bucket: the scan removes it at its end, after the delivery has begun.
    std::fs::create_dir(path.join("deferred/2026-01-01T0000Z")).unwrap();
    let (begun, delivery) = channel();
    let seam = FailsRmdir {
        delivery: Mutex::new(delivery),
    };
    let spool = Spool::open_through(&path, Some(Arc::new(seam))).unwrap();
    let relay = from_fn(move |_, _| {
        begun.send(()).unwrap();
        // Gives the scan time to fail meanwhile. If it does not, the test shows nothing.
        std::thread::sleep(Duration::from_millis(100));
        vec![Outcome::delivered("taken")]
    });
    let runner = Runner::builder(spool, HOST)
        .transport("relay", relay)
        .routes(Routes::all_by("relay"))
        .build();
    let summary = runner.pass().unwrap();
    assert_eq!((summary.delivered, summary.unread), (1, 1), "{summary:?}");
    assert_eq!(files(&path), Vec::<std::path::PathBuf>::new());
}

/// Fails to remove directories once a delivery is under way.
struct FailsRmdir {
    delivery: Mutex<Receiver<()>>,
}

impl Seam for FailsRmdir {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Rmdir { .. } => {
                self.delivery.lock().unwrap().recv().unwrap();
                Verdict::Fail(Errno::EIO)
            }
            _ => Verdict::Pass,
        }
    }
}

/// The record of a notice was trusted before it was durable. A power cut could have undone it while the
/// notice was being delivered, and the sender would have been notified twice.
#[test]
fn a_staged_notice_moves_on_after_a_durable_record() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    let id = accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@no.test"],
    );
    let pass = |seam: Arc<dyn Seam>| {
        let relay = from_fn(|_, recipients| {
            let code = EnhancedCode::new(5, 1, 1);
            vec![Outcome::failed(code, "no"); recipients.len()]
        });
        let spool = Spool::open_through(&path, Some(seam)).unwrap();
        Runner::builder(spool, HOST)
            .transport("relay", relay)
            .routes(Routes::all_by("relay"))
            .build()
            .pass()
    };
    // Killed between the record and its barrier.
    drop(pass(Arc::new(DiesAfterRecord::default())));
    let watched = Arc::new(Watched::default());
    pass(Arc::clone(&watched) as Arc<dyn Seam>).unwrap();
    let calls = watched.calls.lock().unwrap();
    let at = |call: &str| calls.iter().position(|one| one.starts_with(call)).unwrap();
    assert!(at(&format!("fsync history/{id}")) < at("rename staged/"));
}

/// Ends the process when the record of a notice has been written.
#[derive(Default)]
struct DiesAfterRecord(Mutex<bool>);

impl Seam for DiesAfterRecord {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut dead = self.0.lock().unwrap();
        let verdict = if *dead {
            Verdict::Fail(Errno::EIO)
        } else {
            Verdict::Pass
        };
        if let Call::Write { path, bytes, .. } = call {
            let record = String::from_utf8_lossy(bytes).contains("\"event\":\"notice\"");
            *dead |= path.starts_with("history") && record;
        }
        verdict
    }
}

/// Records the order of barriers and renames.
#[derive(Default)]
struct Watched {
    calls: Mutex<Vec<String>>,
}

impl Seam for Watched {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if let Call::SyncFile { path } | Call::Rename { from: path, .. } = call {
            let line = format!("{} {}", call.name(), path.display());
            self.calls.lock().unwrap().push(line);
        }
        Verdict::Pass
    }
}

/// The outcome that leaves no recipient is recorded by the rename to `done/` alone. When the rename failed,
/// no record existed, and the message was delivered again.
#[test]
fn a_delivery_is_recorded_although_the_rename_to_done_fails() {
    struct NoRename;
    impl Seam for NoRename {
        fn before(&self, call: &Call<'_>) -> Verdict {
            match call {
                Call::Rename { to, .. } if to.starts_with("done") => Verdict::Fail(Errno::EIO),
                _ => Verdict::Pass,
            }
        }
    }
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@ok.test"],
    );
    let (ledger, start) = (Ledger::default(), Timestamp::now());
    let clock = Clock::at(start + SignedDuration::from_mins(1));
    let broken = Spool::open_through(&path, Some(Arc::new(NoRename))).unwrap();
    let summary = runner(broken, &ledger, &clock, start).pass().unwrap();
    assert_eq!((summary.delivered, summary.trouble), (1, 1));
    clock.forward(60);
    runner(spool, &ledger, &clock, start).pass().unwrap();
    assert_eq!(ledger.all().len(), 1);
    assert_eq!(files(&path), Vec::<std::path::PathBuf>::new());
}

/// Runs `what` once, before the n-th call of a name on a path.
struct At<F> {
    name: &'static str,
    path: &'static str,
    what: Mutex<(usize, Option<F>)>,
}

impl<F: FnOnce() + Send> At<F> {
    fn new(number: usize, name: &'static str, path: &'static str, what: F) -> Arc<At<F>> {
        let what = Mutex::new((number, Some(what)));
        Arc::new(At { name, path, what })
    }
}

impl<F: FnOnce() + Send> Seam for At<F> {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let path = match call {
            Call::SyncDir { path } | Call::List { path } => *path,
            Call::Open { path, .. } | Call::Write { path, .. } => *path,
            _ => return Verdict::Pass,
        };
        let mut what = self.what.lock().unwrap();
        if call.name() == self.name && path.starts_with(self.path) {
            what.0 = what.0.saturating_sub(1);
        }
        if what.0 == 0
            && let Some(what) = what.1.take()
        {
            what();
        }
        Verdict::Pass
    }
}

fn discard() -> Action {
    Action::Discard {
        by: by(),
        until: Timestamp::now() + SignedDuration::from_hours(1),
    }
}

/// The lock holder carried out the request before the requester got the lock. The requester then found the
/// message discarded and reported the action as refused.
#[test]
fn what_the_holder_carried_out_is_not_refused() {
    for action in [discard(), Action::Bounce(by())] {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        let id = accept(
            &spool,
            Entrance::Active,
            "m",
            "s@sender.test",
            &["a@ok.test"],
        );
        let queue = spool.locate(id).unwrap().queue().unwrap();
        let hand = spool.lock(queue, id).unwrap();
        let holder = spool.clone();
        let seam = At::new(1, "fsync", "requests", move || {
            drop(hand);
            let served = holder.serve_request(id, Timestamp::now()).unwrap();
            assert!(matches!(served, Served::Done(_)), "{served:?}");
        });
        let asking = Spool::open_through(&path, Some(seam)).unwrap();
        let acted = act(&asking, &[id], &action, Timestamp::now()).unwrap();
        assert_eq!(acted, [(id, Acted::Done)]);
    }
}

/// While operator A's process held the lock, operator B's request was accepted, but A's process did not look
/// for requests when it released the lock.
#[test]
fn an_operator_looks_for_requests_too() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    let id = accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@ok.test"],
    );
    let other = spool.clone();
    let seam = At::new(1, "write", "history", move || {
        let freeze = Action::Freeze {
            by: by(),
            until: None,
            then: Then::Thaw,
        };
        let acted = act(&other, &[id], &freeze, Timestamp::now()).unwrap();
        assert_eq!(acted, [(id, Acted::Requested)]);
    });
    let first = Spool::open_through(&path, Some(seam)).unwrap();
    let acted = act(&first, &[id], &Action::Retry(by()), Timestamp::now()).unwrap();
    assert_eq!(acted, [(id, Acted::Done)]);
    assert_eq!(spool.requests().unwrap(), []);
    let queue = spool.locate(id).unwrap().queue();
    assert!(matches!(queue, Some(Queue::Frozen(_))), "{queue:?}");
}

/// A repair that read a message while it was being forgotten found some of its files missing, and quarantined
/// the delivered message for an operator to retry.
#[test]
fn a_repair_leaves_what_is_being_forgotten() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    let id = accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@ok.test"],
    );
    let there = path.clone();
    let seam = At::new(1, "open", "info/sender", move || {
        // A run got this far, and continues after the repair.
        let at = |name: &str| there.join(name).join(id.to_string());
        std::fs::rename(at("active"), at("done")).unwrap();
        std::fs::remove_file(at("info/transport")).unwrap();
        std::fs::remove_file(at("info/recipients")).unwrap();
    });
    let checked = Spool::open_through(&path, Some(seam)).unwrap();
    let mut found = check(&checked, true).unwrap();
    found.retain(|finding| finding.level > Level::Note);
    assert_eq!(found, []);
    assert_eq!(spool.locate(id).unwrap().queue(), Some(Queue::Done));
}

/// Another run removed a bucket between the mkdir that found it and the open before its use. The move failed,
/// and with it the operator's action or the run's work.
#[test]
fn a_bucket_that_goes_between_mkdir_and_open_is_made_again() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    let id = accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@ok.test"],
    );
    let freeze = Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    let bucket = path.join("frozen/never");
    std::fs::create_dir(&bucket).unwrap();
    let seam = At::new(1, "open", "frozen/never", move || {
        std::fs::remove_dir(bucket).unwrap();
    });
    let spool = Spool::open_through(&path, Some(seam)).unwrap();
    let acted = act(&spool, &[id], &freeze, Timestamp::now()).unwrap();
    assert_eq!(acted, [(id, Acted::Done)]);
}

/// A power cut restores the name in `new/` beside a later name. The sweeper does not read the message there.
/// It removes that name only, whatever state the message and its history are in.
#[test]
fn a_sweeper_removes_no_message_that_has_left_new() {
    let what = mailspool::testing::queue::What::Action(Action::Retry(by()));
    let at = Timestamp::now();
    // An intact line after a damaged one: an interrupted write cannot leave that.
    let history = [
        b"damaged\n",
        &mailspool::testing::queue::Event { at, what }.line()[..],
    ]
    .concat();
    let damages: [(&str, &[u8]); 3] = [("", b""), ("history", &history), ("active", b"damaged")];
    for (damaged, bytes) in damages {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        let id = accept(
            &spool,
            Entrance::Active,
            "m",
            "s@sender.test",
            &["a@ok.test"],
        );
        let at = |name: &str| path.join(name).join(id.to_string());
        std::fs::hard_link(at("active"), at("new")).unwrap();
        let sound = std::fs::read(at("active")).unwrap();
        if !damaged.is_empty() {
            std::fs::write(at(damaged), bytes).unwrap();
        }
        let (ledger, start) = (Ledger::default(), Timestamp::now());
        let clock = Clock::at(start);
        let pass = || {
            runner(spool.clone(), &ledger, &clock, start)
                .pass()
                .unwrap()
        };
        pass();
        assert!(!at("new").exists(), "{damaged}");
        if !damaged.is_empty() {
            assert_eq!(spool.locate(id).unwrap().queue(), Some(Queue::Corrupt));
            // An operator repairs the message and retries it.
            let _ = std::fs::remove_file(at("history"));
            std::fs::write(at("corrupt"), sound).unwrap();
            act(&spool, &[id], &Action::Retry(by()), Timestamp::now()).unwrap();
            clock.forward(1);
            pass();
        }
        assert_eq!(ledger.all().len(), 1, "{damaged}");
        assert_eq!(files(&path), Vec::<std::path::PathBuf>::new());
    }
}

/// A notice waited forever for its removed origin, if a power cut had restored the origin's envelope and a
/// history without the record.
#[test]
fn a_notice_does_not_wait_for_a_removed_origin() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path).unwrap();
    let origin = accept(
        &spool,
        Entrance::Active,
        "m",
        "s@first.test",
        &["a@no.test"],
    );
    let (ledger, start) = (Ledger::default(), Timestamp::now());
    let clock = Clock::at(start);
    let pass = || runner(spool.clone(), &ledger, &clock, start).pass();
    pass().unwrap();
    let [(notice, queue)] = spool.messages().unwrap()[..] else {
        panic!()
    };
    // The state after a power cut: neither the notice's rename out of `staged/` nor the origin's unlinks were
    // synced.
    std::fs::rename(
        path.join(queue.path(notice)),
        path.join(format!("staged/{notice}")),
    )
    .unwrap();
    let _ = std::fs::remove_file(path.join(format!("history/{notice}")));
    for file in [
        "info/sender",
        "info/recipients",
        "info/transport",
        "history",
    ] {
        std::fs::write(path.join(format!("{file}/{origin}")), "").unwrap();
    }
    clock.forward(20);
    pass().unwrap();
    assert_eq!(ledger.all().len(), 1);
    assert!(spool.messages().unwrap().is_empty());
}

/// Attempts begin at whole milliseconds. An action later in the same millisecond made the message wait for
/// the next minute.
#[test]
fn what_is_let_go_is_tried_in_the_same_millisecond() {
    let start = Timestamp::now();
    let end = start.as_millisecond() * 1_000_000 + 60_999_999_999;
    let at = Timestamp::from_nanosecond(i128::from(end)).unwrap();
    for action in [Action::Thaw(by()), Action::Retry(by())] {
        let dir = tempdir();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let id = accept(
            &spool,
            Entrance::Active,
            "m",
            "s@sender.test",
            &["a@ok.test"],
        );
        let freeze = Action::Freeze {
            by: by(),
            until: None,
            then: Then::Thaw,
        };
        for action in [&freeze, &action] {
            let acted = act(&spool, &[id], action, at).unwrap();
            assert_eq!(acted, [(id, Acted::Done)]);
        }
        let ledger = Ledger::default();
        let pass = runner(spool, &ledger, &Clock::at(at), start).pass();
        assert_eq!(pass.unwrap().delivered, 1, "{action:?}");
    }
}
