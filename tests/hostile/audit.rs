//! `check` finds everything, reports nothing that is merely in transit, and its repair does what it
//! announced, loses nothing, and is complete after one run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::guard::{Snapshot, assert_terminal};
use crate::program::{BOX, Ended, Site, files, pipe, route, until};

const STRANGER: &str = "01a201cc-662b-77ed-897a-de904870b4d3";
const RANDOM: &str = "6d3b4f52-4c7e-4b5e-9a57-0d9f0c5b8a11";

fn site() -> Site {
    let later = pipe("later", "cat >/dev/null; echo busy; exit 75");
    Site::new(&format!(
        "{later}{}{BOX}",
        route("domain", "later.test", "later")
    ))
}

fn objects(ended: &Ended, kind: &str) -> Vec<Value> {
    let text = ended.text();
    let all = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["kind"] == kind).collect()
}

/// A spool with every kind of damage that a repair can fix, and some that it cannot.
fn mess() -> Site {
    let site = site();
    let spool = site.spool();
    let put = |path: &str, bytes: &[u8]| {
        fs::write(spool.join(path), bytes).unwrap();
        fs::set_permissions(spool.join(path), fs::Permissions::from_mode(0o600)).unwrap();
    };
    let waiting = site.queue(&["a@later.test"]);
    let frozen = site.queue(&["b@later.test"]);
    site.run().ok();
    site.program(["freeze", "--reason", "to look at it", &frozen], b"")
        .ok();
    let stands = |path: &PathBuf| path.ends_with(&waiting);
    let old = files(&spool.join("deferred")).into_iter().find(stands);
    let never = spool.join("deferred/never");
    fs::create_dir(&never).unwrap();
    fs::set_permissions(&never, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(old.unwrap(), never.join(&waiting)).unwrap();

    let torn = site.queue(&["c@x.test"]);
    let path = format!("active/{torn}");
    let whole = fs::read(spool.join(&path)).unwrap();
    put(&path, &whole[..whole.len() - 1]);
    let twice = site.queue(&["d@x.test"]);
    fs::hard_link(
        spool.join(format!("active/{twice}")),
        spool.join(format!("incoming/{twice}")),
    )
    .unwrap();
    let open = site.queue(&["e@x.test"]);
    let wide = fs::Permissions::from_mode(0o644);
    fs::set_permissions(spool.join(format!("info/recipients/{open}")), wide).unwrap();
    put(&format!("requests/{open}"), b"{\"event\":\"dance\"}");
    for dir in ["info/sender", "history", "requests"] {
        put(&format!("{dir}/{STRANGER}"), b"view");
    }
    put(&format!("history/{STRANGER}"), b"what happened");
    put(&format!("info/recipients/{frozen}"), b"view, edited");
    fs::remove_file(spool.join(format!("info/sender/{frozen}"))).unwrap();
    put(
        &format!("corrupt/{STRANGER}.history"),
        b"moved there before",
    );
    for part in [
        format!("state/{RANDOM}.part"),
        format!("requests/{RANDOM}.part"),
        format!("version.{RANDOM}.part"),
    ] {
        put(&part, b"half");
    }
    put("active/core", b"not ours");
    put("state/what", b"not ours either");
    fs::set_permissions(spool.join("frozen"), fs::Permissions::from_mode(0o755)).unwrap();
    site
}

#[test]
fn a_repair_does_what_was_announced_and_does_it_once() {
    let site = mess();
    let before = contents(&site.spool());
    let untouched = Snapshot::of(&site.spool());
    let looked = site.program(["check", "--json"], b"");
    let announced = site.program(["check", "--repair", "--dry-run", "--json"], b"");
    assert_eq!((looked.code, announced.code), (65, 65), "{announced}");
    assert_eq!(looked.text(), announced.text());
    untouched.assert_untouched(&site.spool(), "looking");

    let done = site.program(["check", "--repair", "--json"], b"");
    assert_eq!(done.code, 0, "{done}");
    let (announced, done) = (objects(&announced, "finding"), objects(&done, "finding"));
    assert_eq!(announced.len(), done.len());
    let mut repaired = 0;
    for (will, did) in announced.iter().zip(&done) {
        assert_eq!((&will["path"], &will["what"]), (&did["path"], &did["what"]));
        let Some(words) = will["repair"].as_str() else {
            assert!(did["repair"].is_null());
            continue;
        };
        repaired += 1;
        assert_eq!(did["mended"], true, "{did}");
        let past = words
            .replace("moves it to", "moved to")
            .replace("keeps only", "kept only")
            .replace("sets its mode", "set its mode")
            .replace("writes it again", "wrote it again")
            .replace("removes it", "removed");
        assert_eq!(did["repair"], past.as_str());
        let path = site.spool().join(did["path"].as_str().unwrap());
        if let Some(to) = past.strip_prefix("moved to ") {
            assert!(!path.exists() && site.spool().join(to).exists(), "{did}");
        }
        let stays = past.starts_with("set its mode") || past == "wrote it again";
        assert_eq!(path.exists(), stays, "{did}");
    }
    // One message out of time, one torn, one with two names, a world-readable file, a request, two strays, a
    // view edited and one missing, three half-written files, a world-readable directory.
    assert_eq!(repaired, 13, "{done:?}");

    // Moved, not deleted: all content still exists.
    let after = contents(&site.spool());
    for (content, count) in before {
        // Views are not moved: the message contains what they showed.
        if content != b"half" && !content.starts_with(b"view") {
            assert!(
                after.get(&content).is_some_and(|now| *now >= count),
                "{content:?} is gone"
            );
        }
    }
    let left = Snapshot::of(&site.spool());
    let again = site.program(["check", "--repair", "--json"], b"");
    assert_eq!(again.code, 0, "{again}");
    assert!(!again.text().contains("\"mended\":true"), "{again}");
    left.assert_untouched(&site.spool(), "a second repair");
    assert_eq!(site.program(["run"], b"").code, 0);
    assert_eq!(site.program(["check"], b"").code, 0);
}

/// The content of every file, and how often it exists. A file with two names counts once.
fn contents(spool: &Path) -> BTreeMap<Vec<u8>, usize> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = BTreeMap::new();
    for path in files(spool) {
        seen.insert(fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap());
    }
    let mut counts = BTreeMap::new();
    for content in seen.into_values() {
        *counts.entry(content).or_default() += 1;
    }
    counts
}

#[test]
fn operators_are_told_the_state_of_everything() {
    let site = mess();
    let said = site.program(["check"], b"");
    assert_eq!(said.code, 65, "{said}");
    let text = said.text();
    assert_terminal(&text);
    assert!(text.contains("--repair removes it"), "{text}");
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    assert_eq!(last[0], "5 messages, 6 problems.", "{text}");
    assert!(
        last.iter()
            .any(|line| line.starts_with("1         frozen    Frozen     on request")),
        "{text}"
    );
    site.program(["check", "--repair"], b"").ok();
    site.run().ok();
    let said = site.program(["check", "--json"], b"");
    let states = objects(&said, "state");
    let deferred = states
        .iter()
        .find(|one| one["queue"] == "deferred")
        .unwrap();
    assert!(deferred["next"].is_string(), "a next time: {said}");
    let sums = objects(&said, "sums");
    let total: u64 = states
        .iter()
        .map(|one| one["messages"].as_u64().unwrap())
        .sum();
    assert_eq!(sums[0]["messages"], total);
    let dry = site.program(["check", "--dry-run"], b"");
    assert_eq!(
        dry.code, 64,
        "there is nothing to do without --repair: {dry}"
    );
}

#[test]
fn a_file_that_is_being_written_is_not_a_leftover() {
    let site = site();
    let path = site.spool().join(format!("state/{RANDOM}.part"));
    let writer = File::create(&path).unwrap();
    writer.lock().unwrap();
    let said = site.program(["check", "--repair"], b"").ok();
    assert!(said.contains("being written at this moment"), "{said}");
    assert!(path.exists());
    drop(writer);
    let said = site.program(["check", "--repair"], b"").ok();
    assert!(said.contains("removed") && !path.exists(), "{said}");
}

#[test]
fn a_message_at_rest_without_a_reason_is_a_problem() {
    let site = site();
    let spool = site.spool();
    let take = |id: &str, to: &str| {
        fs::create_dir_all(spool.join(to)).unwrap();
        fs::set_permissions(spool.join(to), fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(spool.join("active").join(id), spool.join(to).join(id)).unwrap();
    };
    for (to, words) in [
        ("frozen/never", "does not say why"),
        ("frozen/2999-01-01T0000Z", "does not say why"),
        ("deferred/2999-01-01T0000Z", "but in the bucket"),
        ("deferred/never", "no next time"),
        ("discarded/2999-01-01T0000Z", "does not record it"),
        ("discarded/never", "no next time"),
        ("corrupt", "in quarantine without a reason"),
    ] {
        let id = site.queue(&["a@later.test"]);
        take(&id, to);
        let said = site.program(["check"], b"");
        // A power cut may have taken the record of a deferral.
        let code = if to.starts_with("deferred/2999") {
            0
        } else {
            65
        };
        assert_eq!(said.code, code, "{to}: {said}");
        assert!(said.text().contains(words), "{to}: {said}");
        site.program(["discard", &id], b"").ok();
        assert_eq!(site.program(["check"], b"").code, 0, "{to}");
    }
}

/// Runners, submitters and operators at work, some of them killed: everything that `check` sees is in
/// transit, and it reports no problem.
#[test]
fn a_crowd_at_work_is_no_problem() {
    const CHECKS: usize = 40;
    let site = site();
    site.queue_many(30, |n| format!("r{n}@later.test"));
    let over = AtomicBool::new(false);
    let again = |work: &(dyn Fn() + Sync)| {
        while !over.load(Ordering::SeqCst) {
            work();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| again(&|| drop(site.program(["run", "--quiet"], b""))));
        scope.spawn(|| {
            again(&|| {
                let mut run = site.command(["run", "--quiet"]).spawn().unwrap();
                let started = std::time::Instant::now();
                until("a run has begun, or is over", || {
                    run.try_wait().unwrap().is_some() || started.elapsed().as_millis() > 15
                });
                let _ = run.kill();
                run.wait().unwrap();
            })
        });
        scope.spawn(|| again(&|| drop(site.program(["flush", "--queue-only"], b"").ok())));
        scope.spawn(|| again(&|| drop(site.queue(&["r@passes.test"]))));
        scope.spawn(|| {
            again(&|| {
                for row in site.rows().iter().take(5) {
                    let id = row["id"].as_str().unwrap();
                    site.program(["freeze", id], b"");
                    site.program(["thaw", "--queue-only", id], b"");
                }
            })
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..CHECKS {
                // Every other check repairs, if it must. Even then nothing was wrong.
                let repair = if n % 2 == 0 { "--json" } else { "--repair" };
                let ended = site.program(["check", repair], b"");
                assert_eq!(ended.code, 0, "{ended}");
                let moved = ended.text().contains("moved to");
                assert!(!moved, "{ended}");
            }
        }));
        over.store(true, Ordering::SeqCst);
        checked.unwrap();
    });
}
