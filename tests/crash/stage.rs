//! The stage of a story: a spool, and hands to do things with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::accept::{Acceptor, Error as Refused, Limits};
use mailspool::disk::{self, Disk};
use mailspool::message::{Entrance, QueueId};
use mailspool::operator::{Acted, act, check, flush, wake};
use mailspool::queue::{Action, By};
use mailspool::runner::Error;
use mailspool::spool::{Changed, Claim, Spool, Suspension, Target};
use tempfile::TempDir;

use super::judge::Times;
use super::log::{Fault, Recorder, Step};
use super::shared::{Clock, keyed_request, limits, request, tempdir, text};
use super::story::When;
use super::world::{Known, Ledger, Site};

/// At first nothing is recorded. A clone is the same stage.
#[derive(Clone)]
pub struct Stage {
    dir: Arc<TempDir>,
    pub clock: Clock,
    start: Timestamp,
    ledger: Ledger,
    known: Arc<Mutex<Known>>,
    recorder: Option<Arc<Recorder>>,
    /// Which process does what is done.
    who: usize,
}

/// Hands a message in under the one key there is.
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

/// Ends a process's part, however it ends.
struct Leave<'a>(&'a Recorder, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// What a name suspends: a domain, or with a star all mail.
fn target(name: &str) -> Target {
    match name {
        "*" => Target::All,
        domain => Target::destination(domain),
    }
}

impl Stage {
    /// A spool with nothing in it, a minute after the beginning. A run has been there, so its view is
    /// complete for this boot.
    pub fn new() -> Stage {
        let start = Timestamp::now();
        let stage = Stage {
            dir: Arc::new(tempdir()),
            clock: Clock::at(start),
            start,
            ledger: Ledger::default(),
            known: Arc::default(),
            recorder: None,
            who: 0,
        };
        Spool::create(&stage.path(), None).unwrap();
        stage.pass();
        // No disk is full here. Files of the reserve that are as many and empty make no run do anything else, and
        // no case heavy.
        for one in std::fs::read_dir(stage.path().join("reserve")).unwrap() {
            let file = std::fs::File::options()
                .write(true)
                .open(one.unwrap().path());
            file.unwrap().set_len(0).unwrap();
        }
        stage.forward(1);
        stage
    }

    /// So many minutes later.
    pub fn forward(&self, minutes: i64) {
        self.clock.forward(minutes);
        self.mark(Step::Clock(self.clock.now()));
    }

    /// From now on everything is recorded. Says what the world knows.
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

    fn site(&self) -> Site<'_> {
        Site {
            dir: self.dir(),
            ledger: &self.ledger,
            clock: &self.clock,
            start: self.start,
            recorder: self.recorder.as_ref().map(|recorder| (recorder, self.who)),
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

    /// A spool that an older program made.
    pub fn without_keys(&self) {
        std::fs::remove_dir_all(self.path().join("keys")).unwrap();
    }

    /// Not to be delivered before so long after the beginning.
    pub fn send_at(&self, name: &'static str, to: &[&str], ahead: SignedDuration) {
        let mut request = request(Entrance::Active, "s@sender.test", to);
        request.release = Some(self.start + ahead);
        let acceptor = Acceptor::new(self.spool(), limits());
        if let Ok(id) = acceptor.accept(request, text(name).as_slice()) {
            self.acked(name, id);
        }
    }

    /// The first message in the queue must not be lost, although the process that accepted it was killed before
    /// it could report that.
    pub fn know(&self, name: &'static str) {
        self.acked(name, self.ids()[0]);
    }

    fn acked(&self, name: &'static str, id: QueueId) {
        // The next one gets an id that comes behind this one.
        while Timestamp::now().as_millisecond() <= id.accepted().as_millisecond() {
            std::hint::spin_loop();
        }
        self.mark(Step::Acked(name, id));
    }

    /// Under the one key there is.
    pub fn submit(&self, name: &'static str, to: &str) {
        if let Ok(id) = submit(&self.spool(), name, to, None) {
            self.acked(name, id);
        }
    }

    /// The same, for a key that lasts so many milliseconds, and nobody is told.
    pub fn submit_and_forget(&self, name: &str, to: &str, lifetime: i64) {
        submit(&self.spool(), name, to, Some(lifetime)).unwrap();
    }

    /// A message whose input breaks off when most of it is written.
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

    /// From an application, from somebody.
    pub fn send(&self, name: &'static str, to: &[&str]) {
        self.accept(Entrance::Active, name, "s@sender.test", to);
    }

    pub fn try_pass(&self) -> Result<(), Error> {
        self.site().runner(self.spool()).pass().map(drop)
    }

    pub fn pass(&self) {
        self.try_pass().unwrap();
    }

    /// A run in the background, as `send` begins one.
    pub fn pass_in_slot(&self) {
        let summary = self.site().runner(self.spool()).pass_in_slot(2).unwrap();
        assert!(summary.is_some(), "no slot was free");
    }

    /// A pass when so much later.
    pub fn pass_after(&self, minutes: i64) {
        self.forward(minutes);
        self.pass();
    }

    /// What is due goes to a destination that is down, and is probed so much later.
    pub fn put_off(&self, minutes: i64) {
        let spool = self.spool();
        let until = self.clock.now() + SignedDuration::from_mins(minutes);
        for id in self.ids() {
            let place = spool.locate(id).unwrap().queue().unwrap();
            let Claim::Locked(locked) = spool.lock(place, id).unwrap() else {
                panic!("{id} is not to be had")
            };
            locked.read().unwrap().postpone(until).unwrap();
        }
    }

    /// An operator wants every host tried that is down.
    pub fn clear(&self) {
        let spool = self.spool();
        let all = spool.all_down().unwrap();
        assert!(!all.is_empty(), "nobody is down");
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

    /// Suspends a domain until so many minutes after the beginning.
    pub fn suspend(&self, domain: &str, minutes: i64) {
        let changed = self.try_suspend(domain, minutes).unwrap();
        assert_eq!(changed, Changed::Done);
        self.mark(Step::Did);
    }

    pub fn try_resume(&self, domain: &str) -> disk::Result<Changed> {
        self.spool().resume(&target(domain).file_name())
    }

    /// Lets its mail go, and makes due what has waited.
    pub fn resume(&self, domain: &str) {
        assert_eq!(self.try_resume(domain).unwrap(), Changed::Done);
        self.mark(Step::Did);
        let woken = wake(&self.spool(), &|_, _| true, self.clock.now());
        assert_eq!(woken.unwrap(), 1);
    }

    /// The same, whoever else makes it due.
    pub fn resume_beside(&self, domain: &str) {
        assert_eq!(self.try_resume(domain).unwrap(), Changed::Done);
        self.mark(Step::Did);
        wake(&self.spool(), &|_, _| true, self.clock.now()).unwrap();
    }

    /// The same when somebody was killed who had got that far.
    pub fn resume_again(&self, domain: &str) {
        assert_eq!(self.try_resume(domain).unwrap(), Changed::Absent);
        self.mark(Step::Did);
        wake(&self.spool(), &|_, _| true, self.clock.now()).unwrap();
    }

    /// The process is killed behind a step like this; nothing it does then has any effect.
    pub fn killed_behind(&self, when: When, deed: impl FnOnce()) {
        self.recorder().stop_behind(when);
        deed();
        assert!(self.recorder().revive(), "it was not killed");
    }

    /// The process is killed behind its next steps but so many. False if it made no more.
    pub fn killed_after(&self, steps: usize, deed: impl FnOnce()) -> bool {
        self.recorder().stop_after(steps);
        deed();
        self.recorder().revive()
    }

    /// Such calls fail meanwhile.
    pub fn refusing(&self, which: Fault, deed: impl FnOnce()) {
        self.recorder().refuse(Some(which));
        deed();
        self.recorder().refuse(None);
    }

    /// Two processes at once, in an order that the seed decides.
    pub fn at_once(&self, seed: u64, deeds: [&(dyn Fn(&Stage) + Sync); 2]) {
        let recorder = self.recorder();
        recorder.take_turns(seed);
        std::thread::scope(|scope| {
            for (who, deed) in deeds.into_iter().enumerate() {
                let stage = Stage {
                    who,
                    ..self.clone()
                };
                scope.spawn(move || {
                    let _leave = Leave(recorder, who);
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

    /// Does an operator's action to everything in the queue.
    pub fn act(&self, action: &Action) {
        let acted = self.try_act(action).unwrap();
        let done = |(_, acted): &(QueueId, Acted)| *acted == Acted::Done;
        assert!(acted.iter().all(done), "{acted:?}");
        self.mark(Step::Did);
    }

    /// Does it if nobody is in the way.
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

    /// The same, whoever else has it in hand.
    pub fn flush_beside(&self) {
        flush(&self.spool(), &Action::Retry(by()), self.clock.now()).unwrap();
        self.mark(Step::Did);
    }

    pub fn repair(&self) {
        check(&self.spool(), true).unwrap();
        self.mark(Step::Did);
    }

    /// What was to be done is reported as done.
    pub fn did(&self) {
        self.mark(Step::Did);
    }

    /// What an operator did while the spool was prepared is over.
    pub fn forget_deed(&self) {
        self.known.lock().unwrap().did = false;
    }

    /// Asks for an action on the first message while somebody has it in hand.
    pub fn ask(&self, action: &Action) {
        self.ask_silently(action);
        self.mark(Step::Did);
    }

    /// The same, and it is not what is to be done in the end.
    pub fn ask_silently(&self, action: &Action) {
        let (spool, id) = (Spool::open(&self.path()).unwrap(), self.ids()[0]);
        let place = spool.locate(id).unwrap().queue().unwrap();
        let hand = spool.lock(place, id).unwrap();
        let acted = act(&self.spool(), &[id], action, self.clock.now()).unwrap();
        assert_eq!(acted, [(id, Acted::Requested)]);
        drop(hand);
    }

    /// Flips a bit of the first message, as a failing disk may. What it was is kept as `aside`.
    pub fn damage(&self) {
        let spool = Spool::open(&self.path()).unwrap();
        let (id, place) = spool.listing().messages[0];
        let path = self.path().join(place.path(id));
        std::fs::copy(&path, self.aside()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    /// A pass that leaves what is damaged where it is.
    pub fn pass_over_damage(&self) {
        let spool = Spool::open(&self.path()).unwrap();
        let (id, place) = spool.listing().messages[0];
        let hand = spool.lock(place, id).unwrap();
        self.pass();
        drop(hand);
    }

    /// A person brings back, durably, what stands damaged in `corrupt/`.
    pub fn restore(&self) {
        let id = self.ids()[0].to_string();
        let seam = self.recorder.as_ref();
        let seam = seam.map(|recorder| recorder.hand(self.dir(), self.who));
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

    /// Half an hour from now.
    pub fn soon(&self) -> Timestamp {
        self.clock.now() + SignedDuration::from_mins(30)
    }
}
