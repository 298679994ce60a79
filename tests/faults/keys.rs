//! Keyed and scheduled submissions under faults: submitted, repeated, forgotten, purged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Acceptor, Error};
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::act;
use mailspool::testing::queue::{Action, Bucket, By};
use mailspool::testing::spool::{Queue, Spool};
use tempfile::TempDir;

use super::explore::explore;
use super::inject::{Case, Fault, Injector, all_cases, faults_at, sample};
use super::losing::Disk;
use super::scratch::Scratch;
use super::world::{
    Clock, Ledger, files, findings, is_whole, limits, request, runner, submit, submit_briefly,
    tempdir, text, walk,
};

const TO: &str = "a@ok.test";
/// The result of an operation under faults.
#[derive(Default)]
struct Done {
    /// The id that was acknowledged.
    told: Option<QueueId>,
    /// A run was cut off or could not record an outcome, so its locked message may be delivered twice.
    cut_off: bool,
}

/// A spool before the operation, and the id that holds the key by then.
struct Scene {
    _dir: TempDir,
    template: PathBuf,
    first: Option<QueueId>,
    /// `first` has been delivered and is to be forgotten.
    is_done: bool,
    start: Timestamp,
}

impl Scene {
    fn new(prepare: impl FnOnce(&Spool) -> Option<QueueId>) -> Scene {
        let dir = tempdir();
        let template = dir.path().join("spool");
        let spool = Spool::create(&template).unwrap();
        Scene {
            first: prepare(&spool),
            is_done: !spool.ids_in(Queue::Done).unwrap().is_empty(),
            _dir: dir,
            template,
            start: Timestamp::now(),
        }
    }

    fn pass(&self, spool: &Spool, ledger: &Ledger, minutes: i64) -> Result<(), String> {
        let clock = Clock::at(self.start + SignedDuration::from_mins(minutes));
        let runner = runner(spool.clone(), ledger, &clock, self.start);
        let passed = runner.pass().map_err(|error| error.to_string())?;
        match (passed.corrupt, passed.trouble) {
            (0, 0) => Ok(()),
            _ => Err(format!("{passed:?}")),
        }
    }

    /// Whatever the operation did, a repeated submission finds the same message, and it is delivered once.
    fn is_one(&self, path: &Path, done: &Done, ledger: &Ledger) -> String {
        let Done { told, cut_off } = *done;
        let spool = Spool::open(path).unwrap();
        let before = ledger.all().len();
        let again = submit(&spool, TO).unwrap();
        let first = told.or(self.first).unwrap_or(again.id);
        assert_eq!(again.id, first, "{again:?}");
        // Messages deferred under faults are due by then. Unrecorded outcomes leave the message frozen.
        let held = spool.ids_in(Queue::Frozen(Bucket::Never)).unwrap();
        let thaw = Action::Thaw(By::rule("the disk is well again"));
        let _ = act(&spool, &held, &thaw, Timestamp::now()).unwrap();
        for minutes in [100, 160, 220] {
            self.pass(&spool, ledger, minutes).unwrap();
        }
        let late = submit(&spool, TO).unwrap();
        assert_eq!((late.id, late.repeated), (first, true));
        let got = ledger.all();
        let ours = got.iter().filter(|one| one.recipient == TO);
        let ours: Vec<_> = ours.collect();
        assert!(ours.iter().all(|one| is_whole(&one.bytes, &text("keyed"))));
        assert!(ours.iter().all(|one| one.id == first), "{ours:?}");
        assert_eq!(ours.is_empty(), self.is_done, "{ours:?}");
        let most = if cut_off { 2 } else { 1 };
        assert!(ours.len() <= most, "{} times", ours.len());
        assert_eq!(files(path), [] as [PathBuf; 0], "left");
        assert_eq!(findings(&spool), []);
        let told = if told.is_some() { "told" } else { "not told" };
        let knew = if again.repeated { "known" } else { "free" };
        format!("{told}, {knew}, {} before", before.min(1))
    }

    /// Runs the operation under every fault at every call.
    fn explore(&self, what: &str, most: usize, deed: impl Fn(&Deed<'_>) -> Done + Sync) {
        let run = |seam: Arc<dyn Seam>, path: &Path, ledger: &Ledger| {
            let scene = self;
            let spool = Spool::open_through(path, Some(seam));
            spool.map_or(Done::default(), |spool| {
                deed(&Deed {
                    scene,
                    spool,
                    ledger,
                })
            })
        };
        let scratch = Scratch::copy(&self.template);
        let seam = Injector::new(Case::clean());
        let hand = Arc::clone(&seam) as Arc<dyn Seam>;
        run(hand, &scratch.spool(), &Ledger::default());
        let seen = seam.seen();
        let all = all_cases(&seen, None);
        let count = all.len();
        let tally = explore(what, &sample(all, most), |case| {
            let dir = Scratch::copy(&self.template);
            let ledger = Ledger::default();
            let done = run(Injector::new(*case), &dir.spool(), &ledger);
            let ended = self.is_one(&dir.spool(), &done, &ledger);
            dir.end();
            ended
        });
        let calls = seen.len();
        tally.print(&format!("{what}, {calls} calls, of {count}"));
    }
}

/// An operation that runs under faults.
struct Deed<'a> {
    scene: &'a Scene,
    spool: Spool,
    ledger: &'a Ledger,
}

impl Deed<'_> {
    /// An acknowledged id is reliable.
    fn submit(&self) -> Done {
        let told = match submit(&self.spool, TO) {
            Ok(accepted) => Some(accepted.id),
            Err(Error::Disk(_) | Error::KeyBusy) => None,
            Err(error) => panic!("{error}"),
        };
        Done {
            told,
            cut_off: false,
        }
    }

    fn pass(&self, minutes: i64) -> Done {
        let passed = self.scene.pass(&self.spool, self.ledger, minutes);
        Done {
            told: None,
            cut_off: passed.is_err(),
        }
    }
}

fn nothing(_: &Spool) -> Option<QueueId> {
    None
}

/// The submitter was killed after the message had left `new/`.
fn cut_off(spool: &Spool) -> Option<QueueId> {
    let id = submitted(spool)?;
    set_back(spool, id, Queue::Active);
    Some(id)
}

/// The same, and the process that made its name durable again was killed between its two renames.
fn cut_off_again(spool: &Spool) -> Option<QueueId> {
    let id = submitted(spool)?;
    set_back(spool, id, Queue::Staged);
    Some(id)
}

/// The submitter was killed before that, so the key is free.
fn cut_short(spool: &Spool) -> Option<QueueId> {
    let id = submitted(spool)?;
    set_back(spool, id, Queue::New);
    None
}

fn submitted(spool: &Spool) -> Option<QueueId> {
    Some(submit(spool, TO).unwrap().id)
}

/// Undoes the rename of the key's record and moves the message back to `queue`.
fn set_back(spool: &Spool, id: QueueId, queue: Queue) {
    let path = spool.path();
    let keys = path.join("keys");
    let record = walk(&keys).remove(0);
    fs::rename(&record, keys.join("new").join(record.file_name().unwrap())).unwrap();
    let from = path.join(Queue::Active.path(id));
    fs::rename(from, path.join(queue.path(id))).unwrap();
}

#[test]
fn submitted_under_a_key() {
    Scene::new(nothing).explore("submit", 200, |deed| deed.submit());
}

#[test]
fn repeated_under_a_key() {
    Scene::new(submitted).explore("repeat", 80, |deed| deed.submit());
    Scene::new(cut_off).explore("repeat what was cut off", 200, |deed| deed.submit());
    Scene::new(cut_off_again).explore("repeat what was cut off twice", 200, |deed| deed.submit());
    Scene::new(cut_short).explore("repeat what was cut short", 200, |deed| deed.submit());
}

#[test]
fn moved_on_delivered_and_forgotten_with_a_key() {
    Scene::new(cut_off).explore("deliver", 200, |deed| deed.pass(50));
    Scene::new(cut_off_again).explore("sweep and deliver", 200, |deed| deed.pass(50));
    let in_hand = |spool: &Spool| {
        let id = submitted(spool)?;
        set_back(spool, id, Queue::Done);
        Some(id)
    };
    Scene::new(in_hand).explore("forget", 120, |deed| deed.pass(50));
}

#[test]
fn a_key_that_is_over_is_purged() {
    let scene = Scene::new(|spool| {
        submit_briefly(spool, "b@ok.test");
        None
    });
    scene.explore("purge", 120, |deed| {
        deed.pass(70);
        deed.submit()
    });
}

/// A sync of a submission fails, and a later power cut loses what it covered.
#[test]
fn lost_under_a_key() {
    let scene = Scene::new(nothing);
    let scratch = Scratch::copy(&scene.template);
    let seam = Injector::new(Case::clean());
    let hand = Arc::clone(&seam) as Arc<dyn Seam>;
    submit(
        &Spool::open_through(&scratch.spool(), Some(hand)).unwrap(),
        TO,
    )
    .unwrap();
    let seen = seam.seen();
    let mut cases = Vec::new();
    for (at, one) in seen.iter().enumerate().filter(|(_, one)| one.is_sync()) {
        // Also killed before, during and after its cleanup.
        let killed = (0..12).map(Fault::ThenStop);
        let case = |fault| Case {
            fault,
            at,
            ..Case::clean()
        };
        cases.extend(faults_at(*one).into_iter().chain(killed).map(case));
    }
    let tally = explore("lost, keyed", &sample(cases, 120), |case| {
        let dir = Scratch::copy(&scene.template);
        let disk = Disk::new(&dir.spool());
        let seam = disk.process(Injector::new(*case));
        let told = Spool::open_through(&dir.spool(), Some(seam)).ok();
        let mut told = told.and_then(|spool| submit(&spool, TO).ok());
        if told.is_none() {
            // Another submitter is acknowledged, and all its syncs succeed.
            let seam = disk.process(Injector::new(Case::clean()));
            let spool = Spool::open_through(&dir.spool(), Some(seam)).unwrap();
            told = Some(submit(&spool, TO).unwrap());
        }
        let lost = disk.lose();
        let done = Done {
            told: told.map(|one| one.id),
            cut_off: false,
        };
        scene.is_one(&dir.spool(), &done, &Ledger::default());
        dir.end();
        format!("{} lost", lost.min(2))
    });
    tally.print("lost, keyed");
}

/// A scheduled submission under faults is not delivered before its time, and then once.
#[test]
fn submitted_for_later() {
    let scene = Scene::new(nothing);
    let hand_in = |spool: &Spool| {
        let mut request = request(Entrance::Active, "s@sender.test", &[TO]);
        request.release = Some(scene.start + SignedDuration::from_mins(90));
        let acceptor = Acceptor::new(spool.clone(), limits());
        acceptor.accept(request, text("keyed").as_slice())
    };
    let scratch = Scratch::copy(&scene.template);
    let seam = Injector::new(Case::clean());
    let hand = Arc::clone(&seam) as Arc<dyn Seam>;
    hand_in(&Spool::open_through(&scratch.spool(), Some(hand)).unwrap()).unwrap();
    let all = all_cases(&seam.seen(), None);
    let tally = explore("for later", &sample(all, 150), |case| {
        let dir = Scratch::copy(&scene.template);
        let seam = Injector::new(*case);
        let told = Spool::open_through(&dir.spool(), Some(seam)).ok();
        let told = told.and_then(|spool| hand_in(&spool).ok());
        let (spool, ledger) = (Spool::open(&dir.spool()).unwrap(), Ledger::default());
        scene.pass(&spool, &ledger, 80).unwrap();
        assert_eq!(ledger.all().len(), 0, "too early");
        let waits = spool.listing().messages;
        let scheduled = |queue: &Queue| matches!(queue, Queue::Deferred(_));
        assert!(waits.iter().all(|(_, queue)| scheduled(queue)), "{waits:?}");
        scene.pass(&spool, &ledger, 92).unwrap();
        let got: Vec<QueueId> = ledger.all().iter().map(|one| one.id).collect();
        assert!(
            got.len() <= 1 && told.is_none_or(|id| got == [id]),
            "{got:?}"
        );
        assert_eq!(files(&dir.spool()), [] as [PathBuf; 0], "left");
        assert_eq!(findings(&spool), []);
        drop(spool);
        dir.end();
        match (told, got.len()) {
            (Some(_), _) => "accepted".to_owned(),
            (None, 0) => "refused".to_owned(),
            (None, _) => "refused, yet whole".to_owned(),
        }
    });
    tally.print("for later");
}
