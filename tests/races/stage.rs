//! A spool to race in, the two programs, and what must be true when both have ended.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use jiff::{SignedDuration, Timestamp};
use mailspool::accept::Acceptor;
use mailspool::disk::{Method, Seam};
use mailspool::message::{Door, QueueId};
use mailspool::operator::{Acted, Finding, Level, act, check, flush};
use mailspool::queue::{Action, By, Resting, RetryPolicy};
use mailspool::runner::Summary;
use mailspool::spool::{Claim, Listing, Locked, Place, Spool};
use tempfile::TempDir;

use super::explore::{Bound, Explored, Schedule, caught, explore};
use super::proof;
use super::shared::{
    Clock, Ledger, accept, copy_of, files, findings, limits, request, runner, tempdir, text,
};
use super::touch::Sees;
use super::trace::{Raw, Trace};
use super::turns::{self, Choice, Hand, Op, Point};

/// A spool that every schedule gets a copy of.
pub struct Stage {
    dir: TempDir,
    /// When the spool was made; minutes are counted from here.
    pub start: Timestamp,
    pub ids: Vec<QueueId>,
}

/// One copy of it, in one schedule.
pub struct Case<'a> {
    pub stage: &'a Stage,
    pub path: PathBuf,
    pub ledger: Ledger,
    /// What happened, when it is over.
    trace: OnceLock<Arc<Trace>>,
}

/// What a process said when it ended.
#[derive(Debug)]
pub enum Said {
    Passed(Summary),
    Acted(Acted),
    Flushed(usize),
    Accepted(QueueId),
    Listed(Vec<Listing>),
    Checked(Vec<Finding>),
    Made,
    Failed(String),
    /// Nothing any more.
    Killed,
}

/// What a process does.
pub type Program = Box<dyn Fn(&Case<'_>, Arc<dyn Seam>) -> Result<Said, String> + Send + Sync>;

/// What must be true of what was said and of what is there.
pub type Judge<'j> = Box<dyn Fn(&Case<'_>, &[Said; 2]) + 'j>;

/// What became of one recipient's mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    /// The sender was told, once.
    Told,
    /// It stands where an operator put it.
    Kept,
    /// Given up by an operator.
    Gone,
}

/// Two programs, side by side.
pub struct Pair<'p> {
    pub name: &'p str,
    pub stage: &'p Stage,
    pub programs: [Program; 2],
    pub judge: Judge<'p>,
    /// What can be told apart besides calls, by each of them.
    pub sees: [Sees; 2],
    /// Somebody else has the first message in hand all the time.
    pub held: bool,
    /// Each schedule begins without a spool.
    pub empty: bool,
    /// What stands behind a process's hand.
    pub below: &'p dyn Fn(usize, &Path) -> Option<Arc<dyn Seam>>,
}

pub fn by() -> By {
    By {
        by: "operator".into(),
        reason: Some("because".into()),
    }
}

impl Stage {
    pub fn new(prepare: impl FnOnce(&mut Stage)) -> Stage {
        let mut stage = Stage {
            dir: tempdir(),
            start: Timestamp::now(),
            ids: Vec::new(),
        };
        Spool::create(&stage.path(), None).unwrap();
        prepare(&mut stage);
        stage
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    pub fn spool(&self) -> Spool {
        Spool::open(&self.path()).unwrap()
    }

    pub fn at(&self, minutes: i64) -> Timestamp {
        self.start + SignedDuration::from_mins(minutes)
    }

    /// Accepts a message.
    pub fn send(&mut self, to: &[&str]) -> QueueId {
        let name = format!("n{}", self.ids.len());
        let id = accept(&self.spool(), Door::Active, &name, "s@sender.test", to);
        self.ids.push(id);
        id
    }

    pub fn pass(&self, minutes: i64) {
        let clock = Clock::at(self.at(minutes));
        let pass = runner(self.spool(), &Ledger::default(), &clock, self.start).pass();
        assert_eq!(pass.unwrap().trouble, 0);
    }

    /// A pass by which everything is deferred to the same minute.
    pub fn pass_to(&self, minutes: i64, next: i64) {
        let clock = Clock::at(self.at(minutes));
        let runner = runner(self.spool(), &Ledger::default(), &clock, self.start);
        let pass = runner.retry(At(self.at(next))).pass();
        assert_eq!(pass.unwrap().trouble, 0);
    }

    pub fn act(&self, id: QueueId, action: &Action) {
        let acted = act(&self.spool(), &[id], action, self.at(1)).unwrap();
        assert_eq!(acted, [(id, Acted::Done)]);
    }

    /// A bucket that a run emptied, and that the next one removes.
    pub fn bucket(&self, resting: Resting) {
        let dir = self.path().join(Place::from(resting).dir());
        DirBuilder::new().mode(0o700).create(dir).unwrap();
    }

    /// Moves a message file by hand.
    pub fn put(&self, id: QueueId, to: Place) {
        let from = self.spool().locate(id).unwrap().unwrap().path(id);
        let path = self.path();
        std::fs::rename(path.join(from), path.join(to.path(id))).unwrap();
    }
}

/// A runner's pass, by its own clock.
pub fn pass(minutes: i64) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let clock = Clock::at(case.stage.at(minutes));
        let runner = runner(spool, &case.ledger, &clock, case.stage.start).threads(1);
        runner.pass().map(Said::Passed).map_err(text_of)
    })
}

/// A pass with a schedule by which everything is due at the same minute.
pub fn pass_to(minutes: i64, next: i64) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let clock = Clock::at(case.stage.at(minutes));
        let runner = runner(spool, &case.ledger, &clock, case.stage.start)
            .retry(At(case.stage.at(next)))
            .threads(1);
        runner.pass().map(Said::Passed).map_err(text_of)
    })
}

/// Everything is tried again at this time.
pub struct At(pub Timestamp);

impl RetryPolicy for At {
    fn next_attempt(&self, _: QueueId, _: u32, _: Timestamp) -> Option<Timestamp> {
        Some(self.0)
    }

    fn longest_delay(&self) -> SignedDuration {
        SignedDuration::from_hours(100)
    }
}

/// An operator's action on the first message.
pub fn order(action: Action) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let ids = &case.stage.ids[..1];
        let acted = act(&spool, ids, &action, case.stage.at(2)).map_err(text_of)?;
        let (_, acted) = acted.into_iter().next().unwrap();
        Ok(Said::Acted(acted))
    })
}

pub fn flushing() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let flushed = flush(&spool, &Action::Retry(by()), case.stage.at(2));
        flushed.map(Said::Flushed).map_err(text_of)
    })
}

pub fn accepting(door: Door, to: &'static [&'static str]) -> Program {
    Box::new(move |case, seam| {
        let acceptor = Acceptor::new(open(case, seam)?, limits());
        let request = request(door, "s@sender.test", to);
        let accepted = acceptor.accept(request, text("accepted").as_slice());
        accepted.map(Said::Accepted).map_err(text_of)
    })
}

pub fn listing(times: usize) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let listings = (0..times).map(|_| spool.listing());
        let listings = listings.collect::<Result<_, _>>();
        listings.map(Said::Listed).map_err(text_of)
    })
}

pub fn checking(repair: bool) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        check(&spool, repair).map(Said::Checked).map_err(text_of)
    })
}

fn open(case: &Case<'_>, seam: Arc<dyn Seam>) -> Result<Spool, String> {
    Spool::open_through(&case.path, Some(seam)).map_err(text_of)
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl<'p> Pair<'p> {
    pub fn new(
        name: &'p str,
        stage: &'p Stage,
        programs: [Program; 2],
        judge: impl Fn(&Case<'_>, &[Said; 2]) + 'p,
    ) -> Pair<'p> {
        Pair {
            name,
            stage,
            programs,
            judge: Box::new(judge),
            sees: [Sees::default(); 2],
            held: false,
            empty: false,
            below: &|_, _| None,
        }
    }

    /// Explores; any failure fails the test.
    pub fn holds(&self, bound: Bound) {
        let explored = self.explore(bound);
        proof::count("interleavings", explored.schedules);
        if let Some(failure) = explored.failure {
            panic!("{failure}");
        }
    }

    pub fn explore(&self, bound: Bound) -> Explored {
        explore(self.name, bound, |schedule| self.run(schedule))
    }

    fn run(&self, schedule: &Schedule) -> (Arc<Trace>, Result<(), String>) {
        let dir = match self.empty {
            true => tempdir(),
            false => copy_of(&self.stage.path()),
        };
        let case = Case {
            stage: self.stage,
            path: dir.path().join("spool"),
            ledger: Ledger::default(),
            trace: OnceLock::new(),
        };
        let (decide, decisions) = follow(schedule.clone());
        type Run<'r> = Box<dyn FnOnce(Arc<Hand>) -> Said + Send + 'r>;
        let mut programs: Vec<Run<'_>> = Vec::new();
        for program in &self.programs {
            let case = &case;
            programs.push(Box::new(move |hand| {
                program(case, hand).unwrap_or_else(Said::Failed)
            }));
        }
        let hand = self.held.then(|| hold(&case.spool(), self.stage.ids[0]));
        let below = |process| (self.below)(process, &case.path);
        let ended = turns::run(programs, Method::Each, below, decide);
        drop(hand);
        let raw = std::mem::take(&mut *decisions.lock().unwrap());
        let killed = |process| raw.iter().any(|one| one.choice == Choice::Kill(process));
        let killed = [killed(0), killed(1)];
        let trace = Arc::new(Trace::new(raw, &self.stage.ids, self.sees));
        let _ = case.trace.set(Arc::clone(&trace));
        let judged = caught(|| {
            let mut said = Vec::new();
            for (process, ended) in ended.into_iter().enumerate() {
                let ended = ended.unwrap_or_else(|_| panic!("process {process} panicked"));
                said.push(if killed[process] { Said::Killed } else { ended });
            }
            let said: [Said; 2] = said.try_into().unwrap();
            case.sound(&said);
            (self.judge)(&case, &said);
        });
        (trace, judged)
    }
}

/// Decides as a schedule says, and writes down what was decided.
fn follow(
    schedule: Schedule,
) -> (
    impl FnMut(&Point<'_>) -> Choice + Send + 'static,
    Arc<Mutex<Vec<Raw>>>,
) {
    use super::explore::Change;
    let decisions: Arc<Mutex<Vec<Raw>>> = Arc::default();
    let written = Arc::clone(&decisions);
    let decide = move |point: &Point<'_>| {
        let mut written = written.lock().unwrap();
        let here = |process: usize| point.at[process].is_some();
        let on = point.last.unwrap_or(schedule.first);
        // Who only looks whether somebody's barrier is over looks in vain until he goes on.
        let vain = point.at[on].is_some_and(waits) && looked(&written, on);
        let on = if here(on) && !(vain && here(1 - on)) {
            on
        } else {
            1 - on
        };
        let change = schedule.changes.iter().find(|(at, _)| *at == written.len());
        let choice = match change {
            Some((_, Change::Switch)) if here(1 - on) => Choice::Go(1 - on),
            Some((_, Change::Kill(who))) if here(*who) => Choice::Kill(*who),
            _ => Choice::Go(on),
        };
        written.push(Raw {
            choice,
            at: [point.at[0].cloned(), point.at[1].cloned()],
        });
        choice
    };
    (decide, decisions)
}

/// Whether it is the look for the lock on the queue for a barrier.
fn waits(op: &Op) -> bool {
    op.name == "lock" && op.path == Path::new("state/sync")
}

/// Whether a process had that look, with nobody else doing anything since.
fn looked(decisions: &[Raw], process: usize) -> bool {
    let since = decisions.iter().rev();
    since
        .take_while(|one| one.choice == Choice::Go(process))
        .any(|one| one.at[process].as_ref().is_some_and(waits))
}

impl Case<'_> {
    pub fn spool(&self) -> Spool {
        Spool::open(&self.path).unwrap()
    }

    pub fn trace(&self) -> &Trace {
        self.trace.get().unwrap()
    }

    /// Nobody may fail because somebody else is there, and nothing may look wrong.
    fn sound(&self, said: &[Said; 2]) {
        for one in said {
            match one {
                Said::Failed(why) => panic!("failed: {why}"),
                Said::Passed(summary) => assert_eq!(summary.trouble, 0, "{summary:?}"),
                _ => {}
            }
        }
        if Spool::open(&self.path).is_ok() {
            self.nothing_wrong();
        }
    }

    pub fn nothing_wrong(&self) {
        let mut found = findings(&self.spool());
        found.retain(|one| one.level > Level::Note);
        assert_eq!(found, [], "check finds something");
    }

    /// One run after the other, alone, until all that is left is held; then each of these
    /// recipients has come to one of these ends, and nothing else is there.
    pub fn ends(&self, said: &[Said; 2], ends: &[(QueueId, &str, &[End])]) {
        let killed = said.iter().any(|one| matches!(one, Said::Killed));
        let mut minutes = 60;
        let held = |place: &Place| {
            matches!(
                place,
                Place::Frozen(_) | Place::Discarded(_) | Place::Corrupt
            )
        };
        let spool = self.spool();
        let clock = Clock::at(self.stage.at(minutes));
        let kept = loop {
            let before = spool.listing().unwrap().messages;
            let pass = runner(spool.clone(), &self.ledger, &clock, self.stage.start).pass();
            assert_eq!(pass.unwrap().trouble, 0);
            let messages = spool.listing().unwrap().messages;
            let staged = spool.ids_in(Place::New).unwrap().len();
            let still = messages.is_empty() || messages == before;
            if staged == 0 && still && messages.iter().all(|(_, place)| held(place)) {
                break messages;
            }
            minutes += 150;
            assert!(minutes < 2000, "no end of it: {messages:?}");
            clock.forward(150);
        };
        self.nothing_wrong();
        if kept.is_empty() {
            let mut left = files(&self.path);
            // What a kill left of a file that had not got its name.
            left.retain(|path| !killed || path.extension().is_none_or(|end| end != "part"));
            assert_eq!(left, [] as [PathBuf; 0], "left behind");
        }
        let (counts, notices) = (self.ledger.counts(), self.ledger.notices());
        for (id, to, allowed) in ends {
            let delivered = counts.get(&(*id, (*to).to_owned())).copied().unwrap_or(0);
            let notices = notices.get(&(id.to_string(), (*to).to_owned()));
            let told = notices.map_or(0, |ids| ids.len());
            let kept = kept.iter().filter(|(one, _)| one == id).count();
            let what = format!("{to}: delivered {delivered}, told {told}, kept {kept}; {said:?}");
            // What was in flight at a kill may come twice, or come and be held as well.
            let at_most = if killed { 2 } else { 1 };
            assert!(told <= 1 && kept <= 1 && delivered <= at_most, "{what}");
            assert!(killed || delivered + told + kept <= 1, "{what}");
            let right = allowed.iter().any(|end| match end {
                End::Delivered => delivered > 0,
                End::Told => told == 1,
                End::Kept => kept == 1,
                End::Gone => delivered + told + kept == 0,
            });
            assert!(right, "not one of {allowed:?}: {what}");
        }
        // A notice is mail, too.
        for ((id, to), count) in &counts {
            assert!(*count == 1 || killed, "{id} {to}: {count} times");
        }
    }

    /// Where a message stands, by what it says of itself.
    pub fn place(&self, id: QueueId) -> Option<Place> {
        self.spool().locate(id).unwrap()
    }

    pub fn delivered(&self, id: QueueId) -> usize {
        let counts = self.ledger.counts();
        counts.iter().filter(|((one, _), _)| *one == id).count()
    }

    /// Nobody waits for what was asked.
    pub fn nothing_asked(&self) {
        let requests = self.spool().requests().unwrap();
        assert_eq!(requests, [], "a request waits although nobody works");
    }
}

/// The lock of a message, outside of any schedule.
pub fn hold(spool: &Spool, id: QueueId) -> Locked {
    let place = spool.locate(id).unwrap().unwrap();
    match spool.lock(place, id).unwrap() {
        Claim::Locked(locked) => locked,
        other => panic!("{other:?}"),
    }
}
