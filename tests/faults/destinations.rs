//! Mail for hosts under faults: several transactions for one message, two hosts of one destination, recorded
//! outages, slots, deferral, lost replies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, Level, act, check};
use mailspool::testing::queue::{Action, Routes, Status, What};
use mailspool::testing::runner::{Budget, Error, Runner, Summary};
use mailspool::testing::spool::{Destination, Queue, Spool};
use mailspool::testing::transport::from_fn;
use tempfile::TempDir;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Fault, Injector, Only, all_cases, sample};
use super::net::{self, Net};
use super::queue::by;
use super::said::Said;
use super::scratch::Scratch;
use super::world::{Clock, HOST, Ledger, accept, files, findings, is_whole, tempdir, text};

/// Minutes after which every host recovers; see `net.rs`.
const TROUBLE: i64 = 10;

/// The messages in the queue, with their recipients.
const MAIL: [(&str, &[&str]); 7] = [
    (
        "parts",
        &[
            "a@far.test",
            "b@busy.test",
            "c@far.test",
            "d@gone.test",
            "e@far.test",
        ],
    ),
    ("first", &["f@dead.test"]),
    ("second", &["g@dead.test", "h@far.test"]),
    ("third", &["i@dead.test"]),
    ("lost", &["j@lost.test"]),
    ("held", &["k@held.test", "l@far.test"]),
    ("twin", &["p@twin.test", "q@twin.test"]),
];

/// A spool at one moment, to be copied.
struct Hosts {
    dir: TempDir,
    start: Timestamp,
    ids: Vec<QueueId>,
    /// When the faults start, in minutes.
    at: i64,
}

/// The surroundings of one copy.
struct Around {
    ledger: Ledger,
    clock: Clock,
    net: Net,
}

impl Around {
    fn new(start: Timestamp, at: i64) -> Around {
        let clock = Clock::at(start);
        clock.forward(at);
        let (ledger, time) = (Ledger::default(), clock.clone());
        let (taking, over) = (ledger.clone(), start + SignedDuration::from_mins(TROUBLE));
        let net = Net::new(
            move |message, to| taking.deliver(message, to),
            move || time.now() >= over,
        );
        Around { ledger, clock, net }
    }

    fn runner(&self, spool: Spool) -> Runner {
        let (ledger, clock) = (self.ledger.clone(), self.clock.clone());
        let relay = from_fn(move |message, recipients| {
            let all = recipients.iter();
            all.map(|to| ledger.deliver(message, to)).collect()
        });
        let mut routes = net::rules();
        routes.extend(Routes::all_by("relay").0);
        Runner::builder(spool, HOST)
            .transport("relay", relay)
            .transport("net", self.net.clone())
            .transport("strict", self.net.strict())
            .routes(Routes(routes))
            .budget(Budget {
                jobs: 1,
                ..Budget::default()
            })
            .threads(1)
            .clock(move || clock.now())
            .build()
    }
}

/// Returns whether every help call from the case's call on that could fail removes a slot or unlinks a file.
fn is_tidying(case: &Case, seen: &[Seen]) -> bool {
    let Fault::ForGood(errno) = case.fault else {
        return false;
    };
    let from = case.at.min(seen.len());
    let mut left = seen[from..].iter().filter(|seen| seen.is_help);
    left.all(|seen| !seen.can(errno) || seen.name == "unlink")
}

/// How a run ended: its summary, or why it stopped.
type Ended = Result<Summary, String>;

impl Hosts {
    /// The queue before the first attempt.
    fn new() -> Hosts {
        let dir = tempdir();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let start = Timestamp::now();
        let send = |(name, to): (&str, &[&str])| {
            accept(&spool, Entrance::Active, name, "s@sender.test", to)
        };
        Hosts {
            ids: MAIL.map(send).into(),
            dir,
            start,
            at: 1,
        }
    }

    /// The same after a first pass at the start; `at` is in minutes after it.
    fn later(at: i64) -> Hosts {
        let hosts = Hosts::new();
        let around = Around::new(hosts.start, 1);
        let summary = around.runner(hosts.spool()).pass().unwrap();
        assert_eq!((summary.trouble, summary.frozen), (0, 1), "{summary:?}");
        assert!(hosts.spool().down(&dead()).is_some());
        Hosts { at, ..hosts }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn spool(&self) -> Spool {
        Spool::open(&self.path()).unwrap()
    }

    fn run(&self, path: &Path, seam: Arc<dyn Seam>, around: &Around) -> Ended {
        let spool = Spool::open_through(path, Some(seam)).map_err(|error| error.to_string())?;
        around.runner(spool).pass().map_err(|error| match error {
            Error::NotRecorded { id, .. } => format!("{id} not recorded"),
            error => error.to_string(),
        })
    }

    /// The calls of a run without faults.
    fn calls(&self) -> Vec<Seen> {
        let dir = Scratch::copy(&self.path());
        let seam = Injector::new(Case::clean());
        let around = Around::new(self.start, self.at);
        let through = Arc::clone(&seam) as Arc<dyn Seam>;
        let summary = self.run(&dir.spool(), through, &around).unwrap();
        assert_eq!(summary.trouble, 0, "{summary:?}");
        dir.end();
        seam.seen()
    }

    /// Runs one case from beginning to end and returns how it ended.
    fn judge(&self, case: &Case, is_of_help: bool) -> String {
        let dir = Scratch::copy(&self.path());
        let around = Around::new(self.start, self.at);
        let seam = Injector::new(*case);
        let through = Arc::clone(&seam) as Arc<dyn Seam>;
        let ended = self.run(&dir.spool(), through, &around);
        if is_of_help {
            let said = Said::about(dir.path());
            self.nothing_depends_on_it(case, &seam.seen(), &ended, &around, &said);
        }
        let unrecorded = ended
            .as_ref()
            .is_err_and(|why| why.ends_with("not recorded"));
        let stopped = matches!(
            case.fault,
            Fault::Stop | Fault::ForGood(_) | Fault::AndThen(_)
        );
        let spool = Spool::open(&dir.spool()).unwrap();
        let twice = self.work_off(&spool, &around);
        assert!(twice <= 1, "more than the one in flight was doubled");
        assert!(twice == 0 || unrecorded || stopped, "doubled: {ended:?}");
        drop((spool, around));
        dir.end();
        match (&ended, twice) {
            (_, 1) => "one in flight doubled",
            (Ok(summary), _) if summary.trouble > 0 => "through, with trouble",
            (Ok(_), _) => "through",
            (Err(_), _) => "stopped",
        }
        .to_owned()
    }

    /// Slots and recorded outages only help: a run that cannot use them does all its work, and logs the
    /// failure once.
    fn nothing_depends_on_it(
        &self,
        case: &Case,
        seen: &[Seen],
        ended: &Ended,
        around: &Around,
        said: &[String],
    ) {
        let summary = ended
            .as_ref()
            .unwrap_or_else(|why| panic!("stopped: {why}"));
        assert_eq!(summary.trouble, 0, "{said:?}");
        let far = |to: &&str| to.ends_with("@far.test");
        let counts = around.ledger.counts();
        let first = self.at == 1;
        for (id, (name, to)) in self.ids.iter().zip(MAIL) {
            for to in to.iter().copied().filter(far).filter(|_| first) {
                let count = counts.get(&(*id, to.to_owned()));
                assert_eq!(count, Some(&1), "{name} to {to} is held up: {said:?}");
            }
        }
        if self.at > TROUBLE {
            let dead = counts.keys().filter(|(_, to)| to.ends_with("@dead.test"));
            assert!(
                dead.count() >= 1,
                "the host answers, and gets nothing: {said:?}"
            );
        }
        let kinds: BTreeSet<&String> = said.iter().collect();
        assert_eq!(kinds.len(), said.len(), "said more than once: {said:?}");
        let lasting =
            matches!(case.fault, Fault::ForGood(errno) if errno != nix::errno::Errno::EINTR);
        // A run that fails only in cleanup may stay silent.
        assert!(
            !lasting || !said.is_empty() || is_tidying(case, seen),
            "nothing is said"
        );
    }

    /// Finishes, without faults, what a run left. Returns how many recipients got a message twice.
    fn work_off(&self, spool: &Spool, around: &Around) -> usize {
        let mut rounds = 0;
        loop {
            self.frozen_before_lost(spool);
            self.thaw(spool, around);
            let summary = around.runner(spool.clone()).pass();
            let summary = summary.unwrap_or_else(|error| panic!("a clean pass: {error}"));
            assert_eq!(summary.trouble, 0, "{summary:?}");
            let mut problems = findings(spool);
            problems.retain(|finding| finding.level > Level::Note);
            assert_eq!(problems, []);
            if files(spool.path()).is_empty() {
                break;
            }
            rounds += 1;
            assert!(rounds < 12, "no end of it: {:?}", files(spool.path()));
            around.clock.forward(30);
        }
        // A kill may leave half-written files and nothing else. The repair removes them.
        check(spool, true).unwrap();
        assert_eq!(findings(spool), []);
        assert_eq!(spool.all_down().unwrap(), []);
        self.verify(around)
    }

    /// An operator thaws every frozen message.
    fn thaw(&self, spool: &Spool, around: &Around) {
        for (id, queue) in spool.listing().messages {
            if matches!(queue, Queue::Frozen(_)) {
                let thaw = Action::Thaw(by("looked at"));
                let acted = act(spool, &[id], &thaw, around.clock.now()).unwrap();
                assert_eq!(acted, [(id, Acted::Done)]);
            }
        }
    }

    /// If a transport requires an operator's decision after a lost reply, the history never records the loss
    /// before the freeze.
    fn frozen_before_lost(&self, spool: &Spool) {
        let listing = spool.listing();
        for (id, queue) in &listing.messages {
            let Ok(content) = spool.view(*id, *queue, &listing).unwrap().unwrap().content else {
                continue;
            };
            let mut held = false;
            for event in content.events {
                match event.what {
                    What::Action(Action::Freeze { .. }) => held = true,
                    What::Outcome {
                        transport, results, ..
                    } if !held => {
                        let lost = results
                            .iter()
                            .any(|result| result.status == Status::Unknown);
                        let strict = transport.as_deref() == Some("strict");
                        assert!(!(lost && strict), "lost, and not held: {id}");
                    }
                    _ => {}
                }
            }
        }
    }

    fn verify(&self, around: &Around) -> usize {
        let (counts, notices) = (around.ledger.counts(), around.ledger.notices());
        let mut twice = BTreeSet::new();
        let mut told = BTreeMap::new();
        for (id, (name, recipients)) in self.ids.iter().zip(MAIL) {
            for to in recipients {
                let count = counts.get(&(*id, (*to).to_owned())).copied().unwrap_or(0);
                // Before the faults only these recipients got anything.
                let took = ["@far.test", "@twin.test"];
                let before = self.at > 1 && took.iter().any(|host| to.ends_with(host));
                match (to.ends_with("@gone.test"), before) {
                    (true, false) if self.at > 1 => assert_eq!(count, 0),
                    (true, _) => {
                        assert_eq!(count, 0);
                        told.insert((id.to_string(), (*to).to_owned()), 1);
                    }
                    (false, true) => assert_eq!(count, 0, "{name} to {to}, again"),
                    (false, false) => assert!((1..=2).contains(&count), "{name} to {to}: {count}"),
                }
                if count > 1 {
                    twice.insert(*id);
                }
            }
        }
        let notices: BTreeMap<_, _> = notices
            .into_iter()
            .map(|(of, ids)| (of, ids.len()))
            .collect();
        assert_eq!(notices, told, "bounced");
        for delivery in around
            .ledger
            .all()
            .iter()
            .filter(|one| !one.sender.is_empty())
        {
            let one = self
                .ids
                .iter()
                .zip(MAIL)
                .find(|(id, _)| **id == delivery.id);
            let (name, _) = one.unwrap().1;
            assert!(is_whole(&delivery.bytes, &text(name)), "torn: {delivery:?}");
        }
        twice.len()
    }
}

fn dead() -> Destination {
    Destination {
        transport: "net".into(),
        next_hop: "dead.test".into(),
    }
}

/// Before the first attempt; when the probe of the host fails; when the host answers.
fn moments() -> [(&'static str, Hosts); 3] {
    [
        ("first", Hosts::new()),
        ("in vain", Hosts::later(7)),
        ("answers", Hosts::later(12)),
    ]
}

/// Every fault at every call on the recorded outages and the slots.
#[test]
fn slots_and_memory_that_cannot_be_had() {
    Said::listen();
    for (when, hosts) in moments() {
        let seen = hosts.calls();
        let mut cases = all_cases(&seen, None);
        let helps = |case: &Case| {
            let fault = match case.fault {
                Fault::Once(_) | Fault::ButMade(_) | Fault::Half(_) => true,
                // The later calls that fail too are of the same kind.
                Fault::ForGood(_) => true,
                _ => false,
            };
            fault && seen[case.at].is_help
        };
        cases.retain(helps);
        for case in &mut cases {
            case.only = Only::Help;
        }
        let all = cases.len();
        let cases = sample(cases, 60);
        let tally = explore(when, &cases, |case| hosts.judge(case, true));
        tally.print(&format!("hosts, {when}, of help, of {all}"));
    }
}

/// Every fault at every call.
#[test]
fn pass_to_hosts() {
    for (when, hosts) in moments() {
        let seen = hosts.calls();
        let cases = all_cases(&seen, None);
        let all = cases.len();
        let cases = sample(cases, 20);
        let tally = explore(when, &cases, |case| hosts.judge(case, false));
        let calls = seen.len();
        tally.print(&format!("hosts, {when}, {calls} calls, of {all}"));
    }
}

/// A recorded outage damaged by a power cut is ignored, logged once and replaced.
#[test]
fn damaged_memory_is_nothing() {
    Said::listen();
    let damages: [&[u8]; 5] = [
        b"",
        b"\0\0\0\0",
        b"{\"hop\":",
        b"[]",
        b"{\"since\":\"now\"}",
    ];
    for (when, hosts) in moments() {
        for damage in damages {
            let dir = Scratch::copy(&hosts.path());
            let down = dir.spool().join("state/down/net:dead.test");
            std::fs::create_dir_all(down.parent().unwrap()).unwrap();
            std::fs::write(&down, damage).unwrap();
            let spool = Spool::open(&dir.spool()).unwrap();
            let found = check(&spool, false).unwrap();
            let found = found
                .iter()
                .find(|finding| dir.spool().join(&finding.path) == down);
            let found = found.expect("the damage is not reported");
            assert!(found.what.contains("damaged"), "{found:?}");
            let around = Around::new(hosts.start, hosts.at);
            let summary = around.runner(spool.clone()).pass().unwrap();
            assert_eq!(summary.trouble, 0);
            let said = Said::about(dir.path());
            assert_eq!(said.len(), 1, "{when}: {said:?}");
            assert!(said[0].contains("damaged"), "{said:?}");
            // Written again, or removed because the host answers.
            let is_down = spool.recall_down(&dead()).unwrap().is_some();
            assert_eq!(is_down, hosts.at < TROUBLE, "{when}");
            hosts.work_off(&spool, &around);
            drop((spool, around));
            dir.end();
        }
    }
}

/// A repair removes the damaged record, and only that.
#[test]
fn damaged_memory_is_mended() {
    let hosts = Hosts::later(7);
    let spool = hosts.spool();
    let down = hosts.path().join("state/down");
    std::fs::write(down.join("net:far.test"), "\0\0").unwrap();
    let repaired = check(&spool, true).unwrap();
    let repaired: Vec<_> = repaired
        .iter()
        .filter(|one| one.repaired == Some(true))
        .collect();
    assert_eq!(repaired.len(), 1, "{repaired:?}");
    assert!(!down.join("net:far.test").exists());
    assert!(spool.down(&dead()).is_some());
}
