//! A spool, the two programs that race in it, and what must hold when both have ended.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, Finding, Level, act};
use mailspool::testing::queue::{Action, By, QueueUntil, Routes};
use mailspool::testing::runner::{MessageOutcome, RunnerBuilder, Summary};
use mailspool::testing::spool::{Changed, Claim, Listing, Locked, Queue, Spool};
use tempfile::TempDir;

use super::explore::{Bound, Explored, caught, explore};
use super::net::{self, Net};
use super::programs::At;
use super::proof;
use super::schedule::{Schedule, follow};
use super::shared::{Clock, Ledger, accept, configured, copy_of, files, findings, runner, tempdir};
use super::touch::Sees;
use super::trace::Trace;
use super::turns::{self, Choice, Hand};

/// A spool; each schedule runs on a copy of it.
pub struct Stage {
    dir: TempDir,
    /// The time when the spool was made; minutes are counted from it.
    pub start: Timestamp,
    pub ids: Vec<QueueId>,
    /// The minute of the first pass after both processes have ended.
    pub then: i64,
    /// Whether the hosts have recovered; see `net.rs`.
    pub is_over: bool,
    /// The most connections of each host at once.
    pub connections: usize,
    /// The most transactions of each transport at once; none is unlimited.
    pub together: Option<usize>,
    /// Whether the two processes fold each history that has doubled, however short it is.
    pub folds: bool,
}

/// One copy of a stage, in one schedule.
pub struct Case<'a> {
    pub stage: &'a Stage,
    pub path: PathBuf,
    pub ledger: Ledger,
    /// The hosts, which both processes connect to.
    pub net: Net,
    /// Whether the hosts have recovered.
    pub is_over: Arc<AtomicBool>,
    /// The last millisecond in which something was accepted.
    latest: AtomicI64,
}

/// The result of a process.
#[derive(Debug)]
pub enum Said {
    Passed(Summary),
    MessageOutcome(MessageOutcome),
    Acted(Acted),
    Flushed(usize),
    Accepted(QueueId),
    /// Another process holds the key.
    Busy,
    Listed(Vec<Listing>),
    Checked(Vec<Finding>),
    Made,
    Changed(Changed),
    Failed(String),
    /// The process was killed and has no result.
    Killed,
}

/// The program of a process.
pub type Program = Box<dyn Fn(&Case<'_>, Arc<dyn Seam>) -> Result<Said, String> + Send + Sync>;

/// Asserts what must hold of the results and of the spool.
pub type Judge<'j> = Box<dyn Fn(&Case<'_>, &[Said; 2]) + 'j>;

/// Returns the seam below a process's [`Hand`], for the spool of a schedule.
pub type Below<'p> = &'p dyn Fn(usize, &Path) -> Option<Arc<dyn Seam>>;

/// The end of a message for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    /// It failed, and the sender got one notice.
    Told,
    /// It was delivered, and the sender got one success notice.
    Heard,
    /// It was delivered, after the sender got one delay notice.
    Warned,
    /// It is where an operator put it.
    Kept,
    /// An operator discarded it.
    Gone,
}

/// Two programs to run at once.
pub struct Pair<'p> {
    pub name: &'p str,
    pub stage: &'p Stage,
    pub programs: [Program; 2],
    pub judge: Judge<'p>,
    /// What each process observes besides its calls.
    pub sees: [Sees; 2],
    /// A third process holds the first message all the time.
    pub held: bool,
    /// Each schedule begins without a spool.
    pub empty: bool,
    /// The seam below each process's hand.
    pub below: Below<'p>,
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
            then: 60,
            is_over: false,
            connections: Net::CONNECTIONS,
            together: None,
            folds: false,
        };
        // The state after the first run of a boot: the runs of a pair neither repair the view nor fill the reserve.
        let spool = Spool::create(&stage.path()).unwrap();
        assert!(spool.repair_views().is_empty());
        assert!(spool.fill_reserve().unwrap());
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
        let id = accept(&self.spool(), Entrance::Active, &name, "s@sender.test", to);
        self.ids.push(id);
        id
    }

    pub fn pass(&self, minutes: i64) {
        let clock = Clock::at(self.at(minutes));
        let pass = runner(self.spool(), &Ledger::default(), &clock, self.start).pass();
        assert_eq!(pass.unwrap().trouble, 0);
    }

    /// Runs a pass that defers everything to the minute `next`.
    pub fn pass_to(&self, minutes: i64, next: i64) {
        let clock = Clock::at(self.at(minutes));
        let runner = configured(self.spool(), &Ledger::default(), &clock, self.start);
        let pass = runner.retry(At(self.at(next))).build().pass();
        assert_eq!(pass.unwrap().trouble, 0);
    }

    pub fn act(&self, id: QueueId, action: &Action) {
        let acted = act(&self.spool(), &[id], action, self.at(1)).unwrap();
        assert_eq!(acted, [(id, Acted::Done)]);
    }

    /// Makes an empty bucket, which the next run removes.
    pub fn bucket(&self, resting: QueueUntil) {
        let dir = self.path().join(Queue::from(resting).dir());
        DirBuilder::new().mode(0o700).create(dir).unwrap();
    }

    /// Moves a message file by hand.
    pub fn put(&self, id: QueueId, to: Queue) {
        let from = self.spool().locate(id).unwrap().queue().unwrap().path(id);
        let path = self.path();
        std::fs::rename(path.join(from), path.join(to.path(id))).unwrap();
    }
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
        let dir = if self.empty {
            tempdir()
        } else {
            copy_of(&self.stage.path())
        };
        let ledger = Ledger::default();
        let is_over = Arc::new(AtomicBool::new(self.stage.is_over));
        let (taking, over) = (ledger.clone(), Arc::clone(&is_over));
        let net = Net::new(
            move |message, to| taking.deliver(message, to),
            move || over.load(SeqCst),
        );
        let case = Case {
            stage: self.stage,
            path: dir.path().join("spool"),
            ledger,
            net: net
                .taking(self.stage.connections)
                .together(self.stage.together)
                .once(),
            is_over,
            latest: AtomicI64::new(0),
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
        let ended = turns::run(programs, below, decide);
        drop(hand);
        let raw = std::mem::take(&mut *decisions.lock().unwrap());
        let killed = |process| raw.iter().any(|one| one.choice == Choice::Kill(process));
        let killed = [killed(0), killed(1)];
        let trace = Arc::new(Trace::new(raw, &self.stage.ids, self.sees));
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

impl Case<'_> {
    pub fn spool(&self) -> Spool {
        Spool::open(&self.path).unwrap()
    }

    /// Waits for a millisecond in which nothing was accepted yet. The ids of the same millisecond have a random
    /// order, which would make a schedule differ each time.
    pub fn next_millisecond(&self) {
        // The other process may get its id later than the millisecond that it reserved here.
        let entered = Timestamp::now().as_millisecond();
        loop {
            let now = Timestamp::now().as_millisecond();
            if now > entered && self.latest.fetch_max(now, SeqCst) < now {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Returns a runner with the transports for the hosts.
    pub fn runner(&self, spool: Spool, clock: &Clock) -> RunnerBuilder {
        let mut routes = net::rules();
        routes.extend(Routes::all_by("relay").0);
        configured(spool, &self.ledger, clock, self.stage.start)
            .transport("net", self.net.clone())
            .transport("strict", self.net.strict())
            .routes(Routes(routes))
    }

    /// Asserts that no process failed because of the other one, and that `check` finds nothing.
    fn sound(&self, said: &[Said; 2]) {
        for one in said {
            match one {
                Said::Failed(why) => panic!("failed: {why}"),
                Said::Passed(summary) => assert_eq!(summary.trouble, 0, "{summary:?}"),
                Said::MessageOutcome(MessageOutcome::Trouble(why)) => panic!("trouble: {why}"),
                _ => {}
            }
        }
        if Spool::open(&self.path).is_ok() {
            self.nothing_wrong();
        }
    }

    pub fn nothing_wrong(&self) {
        let mut found = findings(&self.spool());
        found.retain(|finding| finding.level > Level::Note);
        assert_eq!(found, [], "check finds something");
    }

    /// Runs passes until only held messages are left. Then asserts that each of these recipients has come to one of
    /// its permitted ends, and that nothing else is left.
    pub fn ends(&self, said: &[Said; 2], ends: &[(QueueId, &str, &[End])]) {
        let killed = said.iter().any(|one| matches!(one, Said::Killed));
        let mut minutes = self.stage.then;
        let held = |queue: &Queue| {
            matches!(
                queue,
                Queue::Frozen(_) | Queue::Discarded(_) | Queue::Corrupt
            )
        };
        let spool = self.spool();
        let clock = Clock::at(self.stage.at(minutes));
        self.is_over.store(true, SeqCst);
        let kept = loop {
            let before = spool.listing().messages;
            let pass = self.runner(spool.clone(), &clock).build().pass();
            assert_eq!(pass.unwrap().trouble, 0);
            let messages = spool.listing().messages;
            let unfinished = [Queue::New, Queue::Staged]
                .iter()
                .any(|queue| !spool.ids_in(*queue).unwrap().is_empty());
            let still = messages.is_empty() || messages == before;
            if !unfinished && still && messages.iter().all(|(_, queue)| held(queue)) {
                break messages;
            }
            minutes += 150;
            assert!(minutes < 2000, "no end of it: {messages:?}");
            clock.forward(150);
        };
        self.nothing_wrong();
        if kept.is_empty() {
            let mut left = files(&self.path);
            // A kill may leave a temporary file that did not get its final name.
            left.retain(|path| !killed || path.extension().is_none_or(|end| end != "part"));
            assert_eq!(left, [] as [PathBuf; 0], "left over");
        }
        let (counts, notices) = (self.ledger.counts(), self.ledger.notices());
        for (id, to, allowed) in ends {
            let delivered = counts.get(&(*id, (*to).to_owned())).copied().unwrap_or(0);
            let told = |what: &str| {
                let notices = notices.get(&(id.to_string(), format!("{what}{to}")));
                notices.map_or(0, |ids| ids.len())
            };
            let (told, heard, warned) = (told(""), told("delivered "), told("delayed "));
            let kept = kept.iter().filter(|(one, _)| one == id).count();
            let what = format!(
                "{to}: delivered {delivered}, told {told}, {heard} and {warned}, kept {kept}; {said:?}"
            );
            // A message in flight at a kill may be delivered twice, or delivered and held.
            let at_most = if killed { 2 } else { 1 };
            assert!(told <= 1 && kept <= 1 && delivered <= at_most, "{what}");
            assert!(heard <= 1 && warned <= 1, "{what}");
            assert!(killed || delivered + told + kept <= 1, "{what}");
            let right = allowed.iter().any(|end| match end {
                End::Delivered => delivered > 0 && heard + warned == 0,
                End::Heard => delivered > 0 && heard == 1,
                End::Warned => delivered > 0 && warned == 1,
                End::Told => told == 1,
                End::Kept => kept == 1,
                End::Gone => delivered + told + kept == 0,
            });
            assert!(right, "not one of {allowed:?}: {what}");
        }
        // Notices must not be delivered twice either.
        for ((id, to), count) in &counts {
            assert!(*count == 1 || killed, "{id} {to}: {count} times");
        }
    }

    /// Returns the queue that a message is in.
    pub fn queue(&self, id: QueueId) -> Option<Queue> {
        self.spool().locate(id).unwrap().queue()
    }

    pub fn delivered(&self, id: QueueId) -> usize {
        let counts = self.ledger.counts();
        counts.iter().filter(|((one, _), _)| *one == id).count()
    }

    /// Asserts that no request is waiting.
    pub fn nothing_asked(&self) {
        let requests = self.spool().requests().unwrap();
        assert_eq!(requests, [], "a request waits although no process runs");
    }
}

/// Locks a message, outside of any schedule.
pub fn hold(spool: &Spool, id: QueueId) -> Locked {
    let queue = spool.locate(id).unwrap().queue().unwrap();
    match spool.lock(queue, id).unwrap() {
        Claim::Locked(locked) => locked,
        other => panic!("{other:?}"),
    }
}
