//! The stage of a story: a spool, and the operations on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Acceptor, Error as Refused, Limits};
use mailspool::testing::disk::{self, Disk};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, act, check, flush, wake};
use mailspool::testing::queue::{Action, By};
use mailspool::testing::runner::Error;
use mailspool::testing::spool::{Changed, Claim, Spool, Suspension, Target};
use tempfile::TempDir;

use super::judge::Times;
use super::log::{Fault, Recorder, Step};
use super::shared::{Clock, keyed_request, limits, request, tempdir, text};
use super::story::When;
use super::world::{Known, Ledger, Site};

/// A spool and its world. Nothing is recorded until [`begin`](Stage::begin). A clone is the same stage.
#[derive(Clone)]
pub struct Stage {
    dir: Arc<TempDir>,
    pub clock: Clock,
    start: Timestamp,
    ledger: Ledger,
    known: Arc<Mutex<Known>>,
    recorder: Option<Arc<Recorder>>,
    /// The number of the process that makes the calls.
    process: usize,
    folds: Arc<AtomicBool>,
}

/// Submits a message under the key that all stories use. `lifetime` is the key's lifetime in milliseconds.
pub fn submit(
    spool: &Spool,
    name: &str,
    to: &str,
    lifetime: Option<i64>,
) -> Result<QueueId, Refused> {
    let mut limits: Limits = limits();
    if let Some(milliseconds) = lifetime {
        limits.key_lifetime = SignedDuration::from_millis(milliseconds);
    }
    Acceptor::new(spool.clone(), limits).accept(keyed_request(to), text(name).as_slice())
}

pub fn by() -> By {
    By {
        by: "operator".into(),
        reason: Some("because".into()),
    }
}

/// Reports on drop that a process makes no more calls, also after a panic.
struct Leave<'a>(&'a Recorder, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// Returns the target of a suspension: a domain, or all mail for `*`.
fn target(name: &str) -> Target {
    match name {
        "*" => Target::All,
        domain => Target::destination(domain),
    }
}

impl Stage {
    /// Returns an empty spool, a minute after the beginning. A run has completed its view for this boot.
    pub fn new() -> Stage {
        let start = Timestamp::now();
        let stage = Stage {
            dir: Arc::new(tempdir()),
            clock: Clock::at(start),
            start,
            ledger: Ledger::default(),
            known: Arc::default(),
            recorder: None,
            process: 0,
            folds: Arc::default(),
        };
        Spool::create(&stage.path()).unwrap();
        stage.pass();
        // The disk is not full here, so empty reserve files do: runs behave the same, and the cases are smaller.
        for one in std::fs::read_dir(stage.path().join("reserve")).unwrap() {
            let file = std::fs::File::options()
                .write(true)
                .open(one.unwrap().path());
            file.unwrap().set_len(0).unwrap();
        }
        stage.forward(1);
        stage
    }

    /// Moves the clock forward.
    pub fn forward(&self, minutes: i64) {
        self.clock.forward(minutes);
        self.mark(Step::Clock(self.clock.now()));
    }

    /// Starts the recording. Returns what the world knows so far.
    pub fn begin(&mut self) -> Known {
        let mut known = std::mem::take(&mut *self.known.lock().unwrap());
        for delivery in self.ledger.all() {
            delivery.steps().iter().for_each(|step| known.learn(step));
        }
        known.settled = known.delivered.clone();
        let recorder = Recorder::new(self.dir());
        self.ledger = Ledger::recorded(&recorder);
        self.recorder = Some(recorder);
        known
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn times(&self) -> Times {
        Times {
            start: self.start,
            cut: self.clock.now(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir().join("spool")
    }

    /// From now on processes fold each history that has doubled, however short it is.
    pub fn fold_early(&self) {
        self.folds.store(true, Ordering::Relaxed);
    }

    pub fn folds(&self) -> bool {
        self.folds.load(Ordering::Relaxed)
    }

    fn site(&self) -> Site<'_> {
        Site {
            folds: self.folds(),
            dir: self.dir(),
            ledger: &self.ledger,
            clock: &self.clock,
            start: self.start,
            recorder: self
                .recorder
                .as_ref()
                .map(|recorder| (recorder, self.process)),
        }
    }

    pub fn spool(&self) -> Spool {
        self.site().spool().unwrap()
    }

    fn mark(&self, step: Step) {
        match &self.recorder {
            Some(recorder) => recorder.mark(step),
            None => self.known.lock().unwrap().learn(&step),
        }
    }

    pub fn recorder(&self) -> &Recorder {
        self.recorder.as_deref().unwrap()
    }

    pub fn accept(&self, entrance: Entrance, name: &'static str, sender: &str, to: &[&str]) {
        let acceptor = Acceptor::new(self.spool(), limits());
        let request = request(entrance, sender, to);
        if let Ok(id) = acceptor.accept(request, text(name).as_slice()) {
            self.acked(name, id);
        }
    }

    /// Removes `keys/`, as in a spool that an older version made.
    pub fn without_keys(&self) {
        std::fs::remove_dir_all(self.path().join("keys")).unwrap();
    }

    /// Sends a message with a release time `ahead` of the beginning.
    pub fn send_at(&self, name: &'static str, to: &[&str], ahead: SignedDuration) {
        let mut request = request(Entrance::Active, "s@sender.test", to);
        request.release = Some(self.start + ahead);
        let acceptor = Acceptor::new(self.spool(), limits());
        if let Ok(id) = acceptor.accept(request, text(name).as_slice()) {
            self.acked(name, id);
        }
    }

    /// Treats the first message of the spool as acknowledged, although its acceptor was killed before the report.
    pub fn know(&self, name: &'static str) {
        self.acked(name, self.ids()[0]);
    }

    fn acked(&self, name: &'static str, id: QueueId) {
        // The next message must get a higher id.
        while Timestamp::now().as_millisecond() <= id.accepted().as_millisecond() {
            std::hint::spin_loop();
        }
        self.mark(Step::Acked(name, id));
    }

    /// Submits a message under the key, and records the acknowledgement.
    pub fn submit(&self, name: &'static str, to: &str) {
        if let Ok(id) = submit(&self.spool(), name, to, None) {
            self.acked(name, id);
        }
    }

    /// Submits a message under the key with a lifetime in milliseconds, and records no acknowledgement.
    pub fn submit_and_forget(&self, name: &str, to: &str, lifetime: i64) {
        submit(&self.spool(), name, to, Some(lifetime)).unwrap();
    }

    /// Sends a message; its input fails after most of it is written.
    pub fn break_off(&self) {
        struct Broken;
        impl std::io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::ConnectionReset.into())
            }
        }
        let acceptor = Acceptor::new(self.spool(), limits());
        let long = [text("long"), vec![b'x'; 100_000]].concat();
        let input = std::io::Read::chain(long.as_slice(), Broken);
        let request = request(Entrance::Active, "s@sender.test", &["a@ok.test"]);
        assert!(acceptor.accept(request, input).is_err());
    }

    /// Sends a message to `active/` with a sender.
    pub fn send(&self, name: &'static str, to: &[&str]) {
        self.accept(Entrance::Active, name, "s@sender.test", to);
    }

    pub fn try_pass(&self) -> Result<(), Error> {
        self.site().runner(self.spool()).pass().map(drop)
    }

    pub fn pass(&self) {
        self.try_pass().unwrap();
    }

    /// Runs a background pass, as `send` starts one.
    pub fn pass_in_slot(&self) {
        let summary = self.site().runner(self.spool()).pass_in_slot(2).unwrap();
        assert!(summary.is_some(), "no slot was free");
    }

    /// Moves the clock forward and runs a pass.
    pub fn pass_after(&self, minutes: i64) {
        self.forward(minutes);
        self.pass();
    }

    /// Postpones all messages to the probe of a destination that is down, `minutes` from now.
    pub fn put_off(&self, minutes: i64) {
        let spool = self.spool();
        let until = self.clock.now() + SignedDuration::from_mins(minutes);
        for id in self.ids() {
            let place = spool.locate(id).unwrap().queue().unwrap();
            let Claim::Locked(locked) = spool.lock(place, id).unwrap() else {
                panic!("{id} cannot be locked")
            };
            locked.read().unwrap().postpone(until).unwrap();
        }
    }

    /// Clears all down states, as an operator does.
    pub fn clear(&self) {
        let spool = self.spool();
        let all = spool.all_down().unwrap();
        assert!(!all.is_empty(), "no destination is down");
        for down in all {
            assert!(spool.forget_down(&down.destination).unwrap());
        }
    }

    pub fn try_suspend(&self, domain: &str, minutes: i64) -> disk::Result<Changed> {
        let suspension = Suspension {
            target: target(domain),
            since: self.clock.now(),
            until: Some(self.start + SignedDuration::from_mins(minutes)),
            by: by(),
        };
        self.spool().suspend(&suspension)
    }

    /// Suspends a domain until `minutes` after the beginning.
    pub fn suspend(&self, domain: &str, minutes: i64) {
        let changed = self.try_suspend(domain, minutes).unwrap();
        assert_eq!(changed, Changed::Done);
        self.mark(Step::Did);
    }

    pub fn try_resume(&self, domain: &str) -> disk::Result<Changed> {
        self.spool().resume(&target(domain).file_name())
    }

    /// Resumes a domain and makes its one waiting message due.
    pub fn resume(&self, domain: &str) {
        assert_eq!(self.try_resume(domain).unwrap(), Changed::Done);
        self.mark(Step::Did);
        let woken = wake(&self.spool(), &|_, _| true, self.clock.now());
        assert_eq!(woken.unwrap(), 1);
    }

    /// Resumes a domain while another process may make its message due.
    pub fn resume_beside(&self, domain: &str) {
        assert_eq!(self.try_resume(domain).unwrap(), Changed::Done);
        self.mark(Step::Did);
        wake(&self.spool(), &|_, _| true, self.clock.now()).unwrap();
    }

    /// Resumes a domain after a killed process has already removed its suspension.
    pub fn resume_again(&self, domain: &str) {
        assert_eq!(self.try_resume(domain).unwrap(), Changed::Absent);
        self.mark(Step::Did);
        wake(&self.spool(), &|_, _| true, self.clock.now()).unwrap();
    }

    /// Kills the process after the first step like this; its later calls have no effect.
    pub fn killed_at(&self, when: When, deed: impl FnOnce()) {
        self.recorder().stop_at(when);
        deed();
        assert!(self.recorder().revive(), "it was not killed");
    }

    /// The same before the recording begins.
    pub fn killed_before(&self, when: When, deed: impl FnOnce(&Stage)) {
        let stage = Stage {
            recorder: Some(Recorder::new(self.dir())),
            ..self.clone()
        };
        stage.killed_at(when, || deed(&stage));
    }

    /// Kills the process after `steps` steps and one more. Returns false if it ended before.
    pub fn killed_after(&self, steps: usize, deed: impl FnOnce()) -> bool {
        self.recorder().stop_after(steps);
        deed();
        self.recorder().revive()
    }

    /// Makes such calls fail during `deed`.
    pub fn refusing(&self, which: Fault, deed: impl FnOnce()) {
        self.recorder().refuse(Some(which));
        deed();
        self.recorder().refuse(None);
    }

    /// Runs two processes at once, in an order that the seed decides.
    pub fn at_once(&self, seed: u64, deeds: [&(dyn Fn(&Stage) + Sync); 2]) {
        let recorder = self.recorder();
        recorder.take_turns(seed);
        std::thread::scope(|scope| {
            for (process, deed) in deeds.into_iter().enumerate() {
                let stage = Stage {
                    process,
                    ..self.clone()
                };
                scope.spawn(move || {
                    let _leave = Leave(recorder, process);
                    deed(&stage);
                });
            }
        });
    }

    pub fn ids(&self) -> Vec<QueueId> {
        let listing = Spool::open(&self.path()).unwrap().listing();
        listing.messages.into_iter().map(|(id, _)| id).collect()
    }

    pub fn try_act(&self, action: &Action) -> disk::Result<Vec<(QueueId, Acted)>> {
        act(&self.spool(), &self.ids(), action, self.clock.now())
    }

    /// Applies an operator's action to all messages.
    pub fn act(&self, action: &Action) {
        let acted = self.try_act(action).unwrap();
        let done = |(_, acted): &(QueueId, Acted)| *acted == Acted::Done;
        assert!(acted.iter().all(done), "{acted:?}");
        self.mark(Step::Did);
    }

    /// Applies an operator's action, and reports it only if no other process prevented it.
    pub fn act_if_possible(&self, action: &Action) {
        let acted = self.try_act(action).unwrap();
        if !acted.is_empty() && acted.iter().all(|(_, acted)| *acted == Acted::Done) {
            self.mark(Step::Did);
        }
    }

    pub fn flush(&self) {
        let retry = Action::Retry(by());
        assert_eq!(flush(&self.spool(), &retry, self.clock.now()).unwrap(), 1);
        self.mark(Step::Did);
    }

    /// Flushes while another process may hold the message.
    pub fn flush_beside(&self) {
        flush(&self.spool(), &Action::Retry(by()), self.clock.now()).unwrap();
        self.mark(Step::Did);
    }

    pub fn repair(&self) {
        check(&self.spool(), true).unwrap();
        self.mark(Step::Did);
    }

    /// Reports the story's action as done.
    pub fn did(&self) {
        self.mark(Step::Did);
    }

    /// Forgets the report of an action that was part of the preparation.
    pub fn forget_deed(&self) {
        self.known.lock().unwrap().did = false;
    }

    /// Requests an action on the first message while another process holds its lock.
    pub fn ask(&self, action: &Action) {
        self.ask_silently(action);
        self.mark(Step::Did);
    }

    /// Requests an action in the same way, but does not report it as the story's action.
    pub fn ask_silently(&self, action: &Action) {
        let (spool, id) = (Spool::open(&self.path()).unwrap(), self.ids()[0]);
        let place = spool.locate(id).unwrap().queue().unwrap();
        let hand = spool.lock(place, id).unwrap();
        let acted = act(&self.spool(), &[id], action, self.clock.now()).unwrap();
        assert_eq!(acted, [(id, Acted::Requested)]);
        drop(hand);
    }

    /// Flips a bit of the first message, as a failing disk may. Keeps the original as `aside`.
    pub fn damage(&self) {
        let spool = Spool::open(&self.path()).unwrap();
        let (id, place) = spool.listing().messages[0];
        let path = self.path().join(place.path(id));
        std::fs::copy(&path, self.aside()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    /// Runs a pass that skips the damaged message, because its lock is held.
    pub fn pass_over_damage(&self) {
        let spool = Spool::open(&self.path()).unwrap();
        let (id, place) = spool.listing().messages[0];
        let hand = spool.lock(place, id).unwrap();
        self.pass();
        drop(hand);
    }

    /// Durably restores the damaged message in `corrupt/`, as an operator does.
    pub fn restore(&self) {
        let id = self.ids()[0].to_string();
        let seam = self.recorder.as_ref();
        let seam = seam.map(|recorder| recorder.hand(self.dir(), self.process));
        let disk = Disk::open(self.dir(), seam).unwrap();
        let bytes = std::fs::read(self.aside()).unwrap();
        let (last, rest) = bytes.split_last().unwrap();
        let file = disk.open_rw(&Path::new("spool/corrupt").join(id)).unwrap();
        disk.write_all_at(&file, &[*last], rest.len() as u64)
            .unwrap();
        disk.durable(&[&file], &[]).unwrap();
    }

    fn aside(&self) -> PathBuf {
        self.dir().join("aside")
    }

    /// Returns the time half an hour from now.
    pub fn soon(&self) -> Timestamp {
        self.clock.now() + SignedDuration::from_mins(30)
    }
}
