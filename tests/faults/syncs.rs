//! Named cases of failing syncs, and what must not be trusted after them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use mailspool::testing::disk::Call;
use mailspool::testing::message::{EnhancedCode, Entrance};
use mailspool::testing::operator::{Acted, act, check};
use mailspool::testing::queue::{Action, Bucket, Outcome, Routes, Then};
use mailspool::testing::runner::{Budget, Error, Runner, Summary};
use mailspool::testing::spool::Queue;
use mailspool::testing::transport::from_fn;

use super::queue::by;
use super::scene::{Fails, Scene};
use super::world::{HOST, accept, files, findings};

fn syncs_history(call: &Call<'_>) -> bool {
    matches!(call, Call::SyncFile { path } if path.starts_with("history"))
}

fn starts_part(call: &Call<'_>) -> bool {
    matches!(call, Call::Open { path, create: true } if path.extension().is_some())
}

/// Returns whether a call writes into the block.
fn in_queue(call: &Call<'_>) -> bool {
    matches!(call, Call::Write { at: Some(_), .. })
}

fn creates_history(call: &Call<'_>) -> bool {
    matches!(call, Call::Open { path, create: true } if path.starts_with("history"))
}

fn is_bucket(call: &Call<'_>) -> bool {
    matches!(call, Call::SyncDir { path } if path.starts_with("deferred"))
}

/// The first recipient's delivery causes a notice, so it is synced in the history. The second recipient is
/// deferred.
const HELD_UP: [&str; 2] = ["a@told.test", "b@first.test"];

#[test]
fn a_history_is_written_anew_after_its_sync_failed() {
    let scene = Scene::new(&HELD_UP);
    let seam = Fails::new(|call, failed| syncs_history(call) && failed == 0);
    let summary = scene.pass(seam.open(&scene.path)).unwrap();
    // One of the two is the notice.
    assert_eq!(
        (summary.delivered, summary.deferred, summary.trouble),
        (2, 1, 0)
    );
    let failed = seam.at(0, &format!("fsync history/{}", scene.id));
    let part = format!("history/{}.part", scene.id);
    let synced = seam.at(failed + 1, &format!("fsync {part}"));
    let named = seam.at(synced, &format!("rename {part}"));
    let entry = seam.at(named, "fsync history");
    seam.at(entry, "rename active/");
    assert_eq!(findings(&scene.spool), []);
    scene.clock.forward(60);
    scene.pass(scene.spool.clone()).unwrap();
    assert_eq!(scene.mailed(), 2);
    assert_eq!(files(&scene.path), Vec::<PathBuf>::new());
}

/// A deferral is not synced. If it is lost, the recipient is tried too early, and nothing else happens.
#[test]
fn a_deferral_waits_for_no_disk() {
    let scene = Scene::new(&["a@first.test"]);
    let seam = Fails::new(|call, _| call.name() == "fsync" && !is_bucket(call));
    let summary = scene.pass(seam.open(&scene.path)).unwrap();
    assert_eq!((summary.deferred, summary.trouble), (1, 0));
    assert!(matches!(scene.queue(), Some(Queue::Deferred(_))));
    assert_eq!(findings(&scene.spool), []);
    // If the deferral cannot even be written, the message still waits.
    let scene = Scene::new(&["a@first.test"]);
    let seam = Fails::new(|call, _| creates_history(call));
    let summary = scene.pass(seam.open(&scene.path)).unwrap();
    assert_eq!((summary.deferred, summary.trouble), (1, 0));
    assert!(matches!(scene.queue(), Some(Queue::Deferred(_))));
    assert_eq!(findings(&scene.spool), []);
    scene.clock.forward(60);
    scene.pass(scene.spool.clone()).unwrap();
    assert_eq!(scene.mailed(), 1);
    assert_eq!(files(&scene.path), Vec::<PathBuf>::new());
}

/// Killed after the sync had failed. A later sync of the same file would report nothing.
#[test]
fn a_history_found_astray_is_written_anew() {
    let scene = Scene::new(&HELD_UP);
    let seam = Fails::new(|call, failed| syncs_history(call) || failed > 0);
    let _ = scene.pass(seam.open(&scene.path));
    assert_eq!(scene.queue(), Some(Queue::Active));
    let before = scene.inode();
    scene.pass(scene.spool.clone()).unwrap();
    assert!(matches!(scene.queue(), Some(Queue::Deferred(_))));
    assert_ne!(scene.inode(), before);
    // At rest the history is durable, so the next attempt can begin without rewriting it.
    scene.clock.forward(60);
    let seam = Fails::new(|call, failed| starts_part(call) || failed > 0);
    scene.pass(seam.open(&scene.path)).unwrap();
    assert_eq!(scene.mailed(), 2);
}

#[test]
fn what_could_not_be_recorded_is_written_anew_before_it_is_thawed() {
    let scene = Scene::new(&HELD_UP);
    // The line is written, its sync fails, and no other file can be created.
    let seam = Fails::new(|call, _| syncs_history(call) || starts_part(call));
    let error = scene.pass(seam.open(&scene.path)).unwrap_err();
    assert!(matches!(error, Error::NotRecorded { id, .. } if id == scene.id));
    assert_eq!(scene.queue(), Some(Queue::Frozen(Bucket::Never)));
    let found = check(&scene.spool, false).unwrap();
    assert!(
        found
            .iter()
            .any(|finding| finding.what.contains("could not be recorded")),
        "{found:?}"
    );
    let seam = Fails::new(|_, _| false);
    let thaw = Action::Thaw(by("the disk is repaired"));
    let acted = act(
        &seam.open(&scene.path),
        &[scene.id],
        &thaw,
        scene.clock.now(),
    )
    .unwrap();
    assert_eq!(acted, [(scene.id, Acted::Done)]);
    let synced = seam.at(0, &format!("fsync history/{}.part", scene.id));
    seam.at(synced, "rename frozen/never/");
}

/// If the end of a discarded message cannot be recorded, the message stays where it is: no delivery happened
/// that must not be repeated.
#[test]
fn what_is_discarded_for_good_needs_no_record() {
    let scene = Scene::new(&["a@ok.test"]);
    let discard = Action::Discard {
        by: by("rubbish"),
        until: scene.clock.now() + SignedDuration::from_mins(10),
    };
    let acted = act(&scene.spool, &[scene.id], &discard, scene.clock.now()).unwrap();
    assert_eq!(acted, [(scene.id, Acted::Done)]);
    let queue = scene.queue();
    assert!(matches!(queue, Some(Queue::Discarded(_))), "{queue:?}");
    scene.clock.forward(20);
    let ends = |call: &Call<'_>| matches!(call, Call::Rename { to, .. } if to.starts_with("done"));
    let seam = Fails::new(move |call, _| ends(call) || in_queue(call) || starts_part(call));
    let summary = scene.pass(seam.open(&scene.path)).unwrap();
    assert_eq!((summary.delivered, summary.trouble), (0, 1));
    assert_eq!(scene.queue(), queue);
    let summary = scene.pass(scene.spool.clone()).unwrap();
    assert_eq!((summary.delivered, summary.trouble), (0, 0));
    assert_eq!(scene.queue(), None);
}

/// Two transactions: the outcome of the first to end cannot be recorded. The other used to be dropped, and
/// its delivery was not recorded.
fn two_transactions(repaired: bool) -> (Scene, Result<Summary, Error>) {
    let scene = Scene::new(&["a@one.test", "b@two.test", "c@later.test"]);
    let broken = Arc::new(AtomicBool::new(true));
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let breaks = Arc::clone(&broken);
    let seam = Fails::new(move |call, _| {
        let fails =
            breaks.load(SeqCst) && (in_queue(call) || syncs_history(call) || starts_part(call));
        // After this rename the first outcome is no longer retried.
        if matches!(call, Call::Rename { to, .. } if to.starts_with("frozen")) {
            breaks.store(!repaired, SeqCst);
            tell.lock().unwrap().send(()).unwrap();
        }
        fails
    });
    let told: Mutex<Receiver<()>> = Mutex::new(told);
    let ledger = scene.ledger.clone();
    let relay = from_fn(move |message, recipients| {
        let to = &recipients[0];
        match to.domain().unwrap() {
            "later.test" => {
                return vec![Outcome::deferred(EnhancedCode::new(4, 2, 1), "later")];
            }
            "two.test" => told.lock().unwrap().recv().unwrap(),
            _ => {}
        }
        vec![ledger.deliver(message, to)]
    });
    let clock = scene.clock.clone();
    let run = Runner::builder(seam.open(&scene.path), HOST)
        .transport("relay", relay)
        .routes(Routes::all_by("relay"))
        .budget(Budget {
            jobs: 4,
            ..Budget::default()
        })
        .clock(move || clock.now())
        .build()
        .pass();
    (scene, run)
}

#[test]
fn transactions_under_way_are_recorded_with_what_could_not_be() {
    let (scene, run) = two_transactions(true);
    assert!(matches!(run, Err(Error::NotRecorded { id, .. }) if id == scene.id));
    // In the end every outcome was recorded.
    let queue = scene.queue();
    assert!(matches!(queue, Some(Queue::Deferred(_))), "{queue:?}");
    assert_eq!(findings(&scene.spool), []);
    for _ in 0..3 {
        scene.clock.forward(150);
        scene.pass(scene.spool.clone()).unwrap();
    }
    assert_eq!(
        scene.ledger.counts().values().copied().collect::<Vec<_>>(),
        [1, 1, 1]
    );
    assert_eq!(files(&scene.path), Vec::<PathBuf>::new());
}

#[test]
fn transactions_under_way_come_to_their_end_when_nothing_can_be_recorded() {
    let (scene, run) = two_transactions(false);
    assert!(matches!(run, Err(Error::NotRecorded { id, .. }) if id == scene.id));
    assert_eq!(scene.queue(), Some(Queue::Frozen(Bucket::Never)));
    assert_eq!(scene.ledger.all().len(), 2);
}

/// A deferral is not synced, and must not be taken for a record of the delivery before it.
#[test]
fn a_deferral_after_what_could_not_be_recorded_holds_the_message_back() {
    let scene = Scene::new(&["a@one.test", "c@later.test"]);
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let seam = Fails::new(move |call, _| {
        if matches!(call, Call::Rename { to, .. } if to.starts_with("frozen")) {
            let _ = tell.lock().unwrap().send(());
        }
        in_queue(call) || syncs_history(call) || starts_part(call)
    });
    let told: Mutex<Receiver<()>> = Mutex::new(told);
    let ledger = scene.ledger.clone();
    let relay = from_fn(move |message, recipients| {
        let to = &recipients[0];
        if to.domain() == Some("later.test") {
            told.lock().unwrap().recv().unwrap();
            return vec![Outcome::deferred(EnhancedCode::new(4, 2, 1), "later")];
        }
        vec![ledger.deliver(message, to)]
    });
    let clock = scene.clock.clone();
    let run = Runner::builder(seam.open(&scene.path), HOST)
        .transport("relay", relay)
        .routes(Routes::all_by("relay"))
        .budget(Budget {
            jobs: 4,
            ..Budget::default()
        })
        .clock(move || clock.now())
        .build()
        .pass();
    assert!(matches!(run, Err(Error::NotRecorded { id, .. }) if id == scene.id));
    assert_eq!(scene.queue(), Some(Queue::Frozen(Bucket::Never)));
    assert_eq!(scene.mailed(), 1);
}

/// A notice that is staged but not recorded may have lost its barrier.
#[test]
fn a_notice_that_is_not_recorded_is_written_again() {
    let scene = Scene::new(&["a@no.test"]);
    let notices = |call: &Call<'_>| {
        matches!(call, Call::Write { path, bytes, .. } if path.starts_with("history")
            && String::from_utf8_lossy(bytes).contains("\"event\":\"notice\""))
    };
    let seam = Fails::new(move |call, failed| notices(call) || failed > 0);
    let _ = scene.pass(seam.open(&scene.path));
    let staged = || {
        let mut names = fs::read_dir(scene.path.join("staged")).unwrap();
        names.next().unwrap().unwrap()
    };
    let (name, ino) = (staged().file_name(), staged().metadata().unwrap().ino());
    // Kept open, so that its inode number is not reused.
    let _kept = fs::File::open(staged().path()).unwrap();
    let seam = Fails::new(move |call, failed| {
        matches!(call, Call::Rename { from, .. } if from.starts_with("staged")) || failed > 0
    });
    let _ = scene.pass(seam.open(&scene.path));
    assert_eq!(staged().file_name(), name);
    assert_ne!(staged().metadata().unwrap().ino(), ino);
    scene.pass(scene.spool.clone()).unwrap();
    scene.pass(scene.spool.clone()).unwrap();
    let told: Vec<usize> = scene
        .ledger
        .notices()
        .values()
        .map(|ids| ids.len())
        .collect();
    assert_eq!(told, [1]);
}

/// A delay notice is staged, and the process dies before it records it. The next attempt delivers the
/// message, so the staged notice reports a delay that is over.
#[test]
fn a_delay_that_is_over_is_not_told() {
    let scene = Scene::new(&["a@long.test"]);
    scene.pass(scene.spool.clone()).unwrap();
    scene.clock.forward(240);
    let notices = |call: &Call<'_>| {
        matches!(call, Call::Write { path, bytes, .. } if path.starts_with("history")
            && String::from_utf8_lossy(bytes).contains("\"event\":\"notice\""))
    };
    let seam = Fails::new(move |call, failed| notices(call) || failed > 0);
    let _ = scene.pass(seam.open(&scene.path));
    assert_eq!(fs::read_dir(scene.path.join("staged")).unwrap().count(), 1);
    // While the message waits, its notice waits too.
    let hold = scene.spool.lock(scene.queue().unwrap(), scene.id).unwrap();
    scene.pass(scene.spool.clone()).unwrap();
    assert_eq!(fs::read_dir(scene.path.join("staged")).unwrap().count(), 1);
    drop(hold);
    scene.clock.forward(100);
    scene.pass(scene.spool.clone()).unwrap();
    scene.pass(scene.spool.clone()).unwrap();
    assert_eq!(scene.ledger.counts().len(), 1);
    assert_eq!(scene.ledger.notices().len(), 0);
    assert_eq!(files(&scene.path), [] as [std::path::PathBuf; 0]);
}

/// With its name lost and the one in `active/` gone, the message would be in no directory.
#[test]
fn a_bucket_is_made_again_if_its_name_may_be_lost() {
    let scene = Scene::new(&["a@first.test"]);
    let seam = Fails::new(|call, failed| {
        failed == 0 && matches!(call, Call::SyncDir { path } if path.ends_with("deferred"))
    });
    let summary = scene.pass(seam.open(&scene.path)).unwrap();
    assert_eq!(summary.trouble, 1);
    assert_eq!(
        fs::read_dir(scene.path.join("deferred")).unwrap().count(),
        0
    );
    scene.pass(scene.spool.clone()).unwrap();
    assert!(matches!(scene.queue(), Some(Queue::Deferred(_))));
}

/// An operator's process thawed the message and was killed before its barrier. Repeating the action also
/// makes the removal of the old name durable.
#[test]
fn an_action_repeated_syncs_the_place_that_was_left() {
    let scene = Scene::new(&["a@first.test"]);
    let freeze = Action::Freeze {
        by: by("wait"),
        until: None,
        then: Then::Thaw,
    };
    let now = scene.clock.now();
    let _ = act(&scene.spool, &[scene.id], &freeze, now).unwrap();
    let seam = Fails::new(|call, failed| {
        failed > 0 || matches!(call, Call::SyncDir { path } if path.starts_with("active"))
    });
    let thaw = Action::Thaw(by("enough"));
    act(&seam.open(&scene.path), &[scene.id], &thaw, now).unwrap_err();
    assert_eq!(scene.queue(), Some(Queue::Active));
    let seam = Fails::new(|_, _| false);
    let acted = act(&seam.open(&scene.path), &[scene.id], &thaw, now).unwrap();
    assert_eq!(acted, [(scene.id, Acted::Done)]);
    let synced = seam.at(0, "fsync frozen/never");
    seam.at(synced, &format!("write history/{}", scene.id));
}

/// After a failed barrier over `done/`, the same run forgets nothing.
#[test]
fn no_barrier_is_trusted_after_one_that_failed() {
    let scene = Scene::new(&["a@ok.test"]);
    accept(
        &scene.spool,
        Entrance::Active,
        "n",
        "s@sender.test",
        &["b@ok.test"],
    );
    let seam = Fails::new(|call, failed| {
        failed == 0 && matches!(call, Call::SyncDir { path } if path.ends_with("done"))
    });
    scene.pass(seam.open(&scene.path)).unwrap_err();
    let done = fs::read_dir(scene.path.join("done")).unwrap().count();
    assert_eq!(done, scene.ledger.all().len());
    scene.pass(scene.spool.clone()).unwrap();
    assert_eq!(files(&scene.path), Vec::<PathBuf>::new());
    assert_eq!(scene.ledger.all().len(), 2);
}

/// A kill left half of a history that was being rewritten.
#[test]
fn every_part_is_accounted_for() {
    let scene = Scene::new(&["a@ok.test"]);
    let part = format!("history/{}.part", scene.id);
    fs::write(scene.path.join(&part), "{").unwrap();
    let found = check(&scene.spool, true).unwrap();
    assert!(
        matches!(&found[..], [one] if one.path == Path::new(&part) && one.repaired == Some(true))
    );
    assert!(!scene.path.join(&part).exists());
    fs::write(scene.path.join(&part), "{").unwrap();
    fs::write(scene.path.join(format!("history/{}", scene.id)), "").unwrap();
    scene.pass(scene.spool.clone()).unwrap();
    assert_eq!(files(&scene.path), Vec::<PathBuf>::new());
    // The message is gone as well.
    fs::write(scene.path.join(&part), "{").unwrap();
    let found = check(&scene.spool, true).unwrap();
    assert!(
        matches!(&found[..], [one] if one.path == Path::new(&part) && one.repaired == Some(true))
    );
    assert_eq!(files(&scene.path), Vec::<PathBuf>::new());
}
