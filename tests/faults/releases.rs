//! Scheduled mail: what a pass reads, and what it records in `state/releases`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Acceptor, Request};
use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Level, check};
use mailspool::testing::queue::Bucket;
use mailspool::testing::runner::Summary;
use mailspool::testing::spool::{Queue, Spool};
use tempfile::TempDir;

use super::explore::explore;
use super::inject::{Case, Fault, Injector, all_cases, sample};
use super::scratch::Scratch;
use super::world::{
    Clock, Ledger, accept, files, findings, limits, request, runner, tempdir, text,
};

/// Minutes until the first release: later than any delay of the schedule.
const FAR: i64 = 20 * 24 * 60;

/// The message files that a pass opened.
#[derive(Default)]
struct Opened(Mutex<Vec<PathBuf>>);

impl Seam for Opened {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if let Call::Open { path, .. } = call
            && path
                .file_name()
                .is_some_and(|name| name.len() == QueueId::LEN)
        {
            self.0.lock().unwrap().push((*path).to_owned());
        }
        Verdict::Pass
    }
}

struct Scene {
    dir: TempDir,
    start: Timestamp,
    ledger: Ledger,
    clock: Clock,
}

impl Scene {
    /// A spool with scheduled messages: `counts[n]` of them are released at minute n.
    fn new(counts: &[usize]) -> Scene {
        let dir = tempdir();
        let start = Timestamp::now();
        let spool = dir.path().join("spool");
        Spool::create(&spool).unwrap();
        // Otherwise the first pass reads every message, to show it in `info/`.
        fs::copy("/proc/sys/kernel/random/boot_id", spool.join("state/boot")).unwrap();
        let scene = Scene {
            dir,
            start,
            ledger: Ledger::default(),
            clock: Clock::at(start + SignedDuration::from_mins(1)),
        };
        for (n, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                scene.submit(n as i64);
            }
        }
        scene
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn spool(&self) -> Spool {
        Spool::open(&self.path()).unwrap()
    }

    fn release(&self, minute: i64) -> Timestamp {
        self.start + SignedDuration::from_mins(FAR + minute)
    }

    fn submit(&self, minute: i64) -> QueueId {
        let request = Request {
            release: Some(self.release(minute)),
            ..request(Entrance::Active, "s@sender.test", &["a@ok.test"])
        };
        let acceptor = Acceptor::new(self.spool(), limits());
        acceptor.accept(request, text("m").as_slice()).unwrap()
    }

    /// A message that a fast clock put into a bucket of scheduled messages.
    fn misplaced(&self) -> QueueId {
        let spool = self.spool();
        let id = accept(
            &spool,
            Entrance::Active,
            "w",
            "s@sender.test",
            &["w@ok.test"],
        );
        let from = spool.locate(id).unwrap().queue().unwrap().path(id);
        let to = Queue::Deferred(Bucket::for_time(self.release(0))).path(id);
        fs::rename(self.path().join(from), self.path().join(to)).unwrap();
        id
    }

    fn file(&self) -> PathBuf {
        self.path().join("state/releases")
    }

    /// Runs a pass and returns the message files that it opened.
    fn pass(&self) -> (Summary, Vec<PathBuf>) {
        let seam = Arc::new(Opened::default());
        let spool = Spool::open_through(&self.path(), Some(Arc::clone(&seam) as _)).unwrap();
        let pass = runner(spool, &self.ledger, &self.clock, self.start).pass();
        let opened = std::mem::take(&mut *seam.0.lock().unwrap());
        (pass.unwrap(), opened)
    }

    /// After the last release every message is delivered once, and nothing is left.
    fn is_released(&self, count: usize) {
        assert_eq!(self.ledger.all().len(), 0, "before its release");
        self.clock.forward(FAR + 10);
        self.pass();
        assert_eq!(self.ledger.counts().len(), count);
        assert_eq!(self.ledger.all().len(), count, "more than once");
        assert_eq!(files(&self.path()), [] as [PathBuf; 0], "left");
        self.pass();
        assert!(!self.file().exists(), "kept although nothing waits");
    }
}

fn write_whole(path: &Path, lines: &str) {
    let sum = xxhash_rust::xxh3::xxh3_128(lines.as_bytes());
    fs::write(path, format!("{lines}xxh128 {sum:032x}\n")).unwrap();
}

#[test]
fn a_pass_opens_nothing_of_what_waits_for_its_release() {
    let scene = Scene::new(&[20, 1, 4]);
    assert_eq!(scene.pass().1.len(), 25, "each is looked at once");
    for _ in 0..2 {
        assert_eq!(scene.pass().1, [] as [PathBuf; 0]);
    }
    let id = scene.submit(1);
    let looked = Queue::Deferred(Bucket::for_time(scene.release(1))).path(id);
    assert_eq!(scene.pass().1, [looked], "the one that is new");
    assert_eq!(scene.pass().1, [] as [PathBuf; 0]);
    assert_eq!(findings(&scene.spool()), []);
    scene.is_released(26);
}

/// A message misplaced there is tried at once, whatever is recorded of the others.
#[test]
fn what_a_wrong_clock_put_beside_releases_is_tried() {
    let scene = Scene::new(&[3]);
    scene.pass();
    let id = scene.misplaced();
    assert_eq!(scene.pass().0.delivered, 1);
    let got: Vec<QueueId> = scene.ledger.all().iter().map(|one| one.id).collect();
    assert_eq!(got, [id]);
    assert_eq!(scene.pass().1, [] as [PathBuf; 0]);
}

#[test]
fn what_is_remembered_of_releases_may_be_lost_or_damaged() {
    type Damage = fn(&Scene, &Path, Vec<u8>);
    let cases: [(&str, Damage); 9] = [
        ("lost", |_, _, _| {}),
        ("empty", |_, path, _| fs::write(path, "").unwrap()),
        ("torn", |_, path, bytes| {
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap()
        }),
        ("without its sum", |_, path, bytes| {
            fs::write(path, &bytes[..bytes.len() - 40]).unwrap();
        }),
        ("zeros", |_, path, bytes| {
            fs::write(path, vec![0; bytes.len()]).unwrap()
        }),
        ("a bit", |_, path, mut bytes| {
            bytes[30] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("link", |_, path, _| {
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap()
        }),
        ("another minute", |scene, path, bytes| {
            let (here, there) = (scene.release(0), scene.release(9));
            let [here, there] = [here, there].map(|at| Bucket::for_time(at).to_string());
            let text = String::from_utf8(bytes).unwrap().replace(&here, &there);
            let lines = text.rsplit_once("xxh128").unwrap().0;
            write_whole(path, lines);
        }),
        ("other messages", |scene, path, _| {
            let bucket = Bucket::for_time(scene.release(0));
            let id = mailspool::testing::accept::new_id(scene.start);
            write_whole(path, &format!("{bucket} {id}\n"));
        }),
    ];
    for (what, damage) in cases {
        let scene = Scene::new(&[3, 1]);
        scene.pass();
        let bytes = fs::read(scene.file()).unwrap();
        fs::remove_file(scene.file()).unwrap();
        damage(&scene, &scene.file(), bytes);
        let mut found = check(&scene.spool(), false).unwrap();
        found.retain(|finding| finding.level > Level::Note);
        assert_eq!(found, [], "{what}");
        let (summary, opened) = scene.pass();
        assert_eq!((summary.messages, summary.trouble), (0, 0), "{what}");
        assert!(opened.len() >= 3, "{what}: {opened:?}");
        assert_eq!(scene.pass().1, [] as [PathBuf; 0], "{what}");
        assert_eq!(findings(&scene.spool()), [], "{what}");
        scene.is_released(4);
    }
}

/// If a directory blocks the file, each pass reads every message and reports no trouble.
#[test]
fn a_directory_in_the_place_of_what_is_remembered_is_left_alone() {
    let scene = Scene::new(&[3]);
    fs::create_dir_all(scene.file()).unwrap();
    for _ in 0..2 {
        let (summary, opened) = scene.pass();
        assert_eq!((summary.trouble, opened.len()), (0, 3));
    }
    assert!(scene.file().is_dir());
    let left: Vec<_> = fs::read_dir(scene.path().join("state")).unwrap().collect();
    // The other file records the boot for which the view is complete.
    assert_eq!(left.len(), 2, "{left:?}");
    let found = check(&scene.spool(), true).unwrap();
    assert!(
        found
            .iter()
            .all(|finding| finding.level == Level::Note && finding.repair.is_none()),
        "{found:?}"
    );
}

/// No crash leaves such a file. `check` finds a message that it delays, and the repair releases it.
#[test]
fn a_check_finds_what_is_untrue_of_releases() {
    let scene = Scene::new(&[2]);
    let id = scene.misplaced();
    let bucket = Bucket::for_time(scene.release(0));
    fs::create_dir_all(scene.path().join("state")).unwrap();
    write_whole(&scene.file(), &format!("{bucket} {id}\n"));
    assert_eq!(scene.pass().0.delivered, 0);
    let untrue = |repair| {
        let found = check(&scene.spool(), repair).unwrap();
        let mut found = found
            .into_iter()
            .filter(|finding| finding.path == Path::new("state/releases"));
        found
            .next()
            .map(|finding| (finding.level, finding.repaired, finding.what))
    };
    let what = format!("makes {id} wait for a release that its submitter did not ask for");
    assert_eq!(untrue(false), Some((Level::Problem, None, what.clone())));
    assert_eq!(untrue(true), Some((Level::Problem, Some(true), what)));
    assert_eq!(scene.pass().0.delivered, 1);
    assert_eq!(findings(&scene.spool()), []);
}

/// A pass under faults: no message is delivered before its release, every message once after it, and a
/// misplaced message at once.
#[test]
fn passes_that_remember_releases() {
    let scene = Scene::new(&[2, 1]);
    scene.pass();
    scene.submit(1);
    let misplaced = scene.misplaced();
    let pass = |path: &Path, seam: Arc<Injector>, ledger: &Ledger| {
        let spool = Spool::open_through(path, Some(seam)).map_err(|error| error.to_string())?;
        let runner = runner(spool, ledger, &scene.clock, scene.start);
        runner.pass().map_err(|error| error.to_string())
    };
    let clean = Injector::new(Case::clean());
    let dir = Scratch::copy(&scene.path());
    pass(&dir.spool(), Arc::clone(&clean), &Ledger::default()).unwrap();
    dir.end();
    let cases = all_cases(&clean.seen(), None);
    let tally = explore("releases", &sample(cases, 300), |case| {
        let dir = Scratch::copy(&scene.path());
        let ledger = Ledger::default();
        let ended = pass(&dir.spool(), Injector::new(*case), &ledger);
        let clock = Clock::at(scene.clock.now());
        let clean = || {
            let spool = Spool::open(&dir.spool()).unwrap();
            let summary = runner(spool, &ledger, &clock, scene.start).pass().unwrap();
            assert_eq!(summary.trouble, 0, "{summary:?}");
        };
        clean();
        // An attempt that was interrupted or has an unknown outcome is repeated.
        clock.forward(24 * 60);
        clean();
        let all = ledger.all();
        assert!(
            all.iter().all(|one| one.id == misplaced),
            "before its release"
        );
        let frozen = Queue::Frozen(Bucket::Never);
        let spool = Spool::open(&dir.spool()).unwrap();
        let is_frozen = spool.locate(misplaced).unwrap().queue() == Some(frozen);
        assert!((1..=2).contains(&all.len()) || is_frozen, "{all:?}");
        assert!(
            fs::read(dir.spool().join("state/releases")).is_ok(),
            "not kept"
        );
        clock.forward(FAR);
        clean();
        let mut counts = ledger.counts();
        counts.retain(|(id, _), _| *id != misplaced);
        assert_eq!(counts.values().collect::<Vec<_>>(), [&1; 4]);
        let mut found = findings(&spool);
        found.retain(|finding| finding.level > Level::Note);
        assert!(found.is_empty() || is_frozen, "{found:?}");
        drop(spool);
        dir.end();
        match (ended, case.fault) {
            (Ok(summary), _) if summary.trouble > 0 => "through, with trouble",
            (Ok(_), _) => "through",
            (Err(_), Fault::Stop) => "stopped",
            (Err(_), _) => "failed",
        }
        .to_owned()
    });
    tally.print(&format!("releases, {} calls", clean.seen().len()));
}
