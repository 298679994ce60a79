//! A runner's pass under faults, over a queue with something of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::disk::{Call, Method, Seam, Verdict};
use mailspool::message::{Door, QueueId};
use mailspool::operator::{Acted, act};
use mailspool::queue::{Action, By, Hold, What};
use mailspool::runner::{Error, Summary};
use mailspool::spool::{Claim, Entry, Place, Spool};
use nix::errno::Errno;
use tempfile::TempDir;

use super::inject::{Case, Fault, Injector, all_cases, explore, sample};
use super::world::{
    Clock, Ledger, accept, copy_of, files, findings, is_whole, runner, tempdir, text,
};

/// What must become of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It gets the message.
    Delivered,
    /// The sender is told, once.
    Told,
    /// Nothing: the message was done, torn or damaged, or there is nobody to tell.
    Nothing,
}

struct Expected {
    name: &'static str,
    id: QueueId,
    recipients: Vec<(&'static str, End)>,
}

/// A spool with something of everything in it, to be copied.
struct Queue {
    dir: TempDir,
    start: Timestamp,
    expected: Vec<Expected>,
    frozen: QueueId,
    corrupt: QueueId,
}

/// Lets a call of one name fail: the n-th and whatever comes after it.
struct FailFrom {
    name: &'static str,
    path: &'static str,
    struck: std::sync::atomic::AtomicBool,
}

impl Seam for FailFrom {
    fn before(&self, call: &Call<'_>) -> Verdict {
        use std::sync::atomic::Ordering::SeqCst;
        let path = match call {
            Call::Open { path, .. } => path.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        if call.name() == self.name && path.starts_with(self.path) {
            self.struck.store(true, SeqCst);
        }
        match self.struck.load(SeqCst) {
            true => Verdict::Fail(Errno::EIO),
            false => Verdict::Pass,
        }
    }
}

/// The spool, for a process that dies at the first call of a name below a path.
fn dying(spool: &Path, name: &'static str, path: &'static str) -> Spool {
    let seam = FailFrom {
        name,
        path,
        struck: false.into(),
    };
    Spool::open_through(spool, Some(Arc::new(seam))).unwrap()
}

fn entry(spool: &Spool, place: Place, id: QueueId) -> Entry {
    match spool.lock(place, id).unwrap() {
        Claim::Locked(locked) => locked.read().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn by(reason: &str) -> By {
    By {
        by: "operator".into(),
        reason: Some(reason.into()),
    }
}

impl Queue {
    fn new() -> Queue {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path, None).unwrap();
        let start = Timestamp::now();
        let mut queue = Queue {
            dir,
            start,
            expected: Vec::new(),
            frozen: super::world::accept(&spool, Door::Active, "null", "", &["n@no.test"]),
            corrupt: super::world::accept(
                &spool,
                Door::Active,
                "bad",
                "s@sender.test",
                &["x@ok.test"],
            ),
        };
        fs::remove_dir_all(&path).unwrap();
        let spool = Spool::create(&path, None).unwrap();
        queue.in_deferred(&spool);
        queue.in_active(&spool);
        queue.in_new(&path);
        queue.unusual(&spool);
        queue
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn add(
        &mut self,
        spool: &Spool,
        name: &'static str,
        sender: &str,
        to: &[(&'static str, End)],
    ) -> QueueId {
        let addresses: Vec<&str> = to.iter().map(|(address, _)| *address).collect();
        let door = match self.expected.len() % 2 {
            0 => Door::Active,
            _ => Door::Incoming,
        };
        let id = accept(spool, door, name, sender, &addresses);
        self.expected.push(Expected {
            name,
            id,
            recipients: to.to_vec(),
        });
        id
    }

    /// One that was deferred and is due after 15 minutes.
    fn in_deferred(&mut self, spool: &Spool) {
        let to = [("due@first.test", End::Delivered)];
        self.add(spool, "due", "due@sender.test", &to);
        let clock = Clock::at(self.start);
        clock.forward(1);
        let pass = runner(spool.clone(), &Ledger::default(), &clock, self.start).pass();
        assert_eq!(pass.unwrap().deferred, 1);
    }

    fn in_active(&mut self, spool: &Spool) {
        use End::{Delivered, Nothing, Told};
        self.add(
            spool,
            "plain",
            "plain@sender.test",
            &[("a@ok.test", Delivered)],
        );
        let mixed = [
            ("b@ok.test", Delivered),
            ("c@later.test", Delivered),
            ("d@no.test", Told),
        ];
        self.add(spool, "mixed", "mixed@sender.test", &mixed);
        let failing = [("e@no.test", Told), ("f@never.test", Told)];
        self.add(spool, "failing", "failing@sender.test", &failing);
        self.frozen = self.add(spool, "null", "", &[("g@no.test", Nothing)]);
        let id = self.add(
            spool,
            "again",
            "again@sender.test",
            &[("h@ok.test", Delivered)],
        );
        self.interrupted(spool, id);
    }

    /// An attempt began and nobody saw its end; another line was torn.
    fn interrupted(&self, spool: &Spool, id: QueueId) {
        let place = spool.locate(id).unwrap().unwrap();
        let mut entry = entry(spool, place, id);
        entry.activate().unwrap();
        let started = What::Started {
            host: "elsewhere".into(),
            pid: 1,
            recipients: None,
        };
        entry.record(self.start, started).unwrap();
        entry.sync().unwrap();
        let attempts = self.path().join(format!("info/attempts/{id}"));
        let mut file = OpenOptions::new().append(true).open(attempts).unwrap();
        file.write_all(b"{\"at\":\"2026-11-").unwrap();
    }

    fn in_new(&mut self, path: &Path) {
        // Killed when it was durable, before it could be seen: accepted.
        let spool = dying(path, "rename", "");
        let to = [
            ("i@ok.test", End::Delivered),
            ("j@other.test", End::Delivered),
        ];
        self.add(&spool, "whole", "whole@sender.test", &to);
        // Killed while it was written: never accepted.
        for (name, call, at) in [("torn", "create", "info/transport"), ("empty", "write", "")] {
            let spool = dying(path, call, at);
            let request = super::world::request(Door::Active, "t@sender.test", &["t@ok.test"]);
            let acceptor = mailspool::accept::Acceptor::new(spool, super::world::limits());
            acceptor.accept(request, text(name).as_slice()).unwrap_err();
        }
        // A power cut kept everything but the end of the message.
        let spool = dying(path, "rename", "");
        let id = accept(&spool, Door::Active, "cut", "t@sender.test", &["t@ok.test"]);
        let file = OpenOptions::new()
            .write(true)
            .open(path.join(format!("new/{id}")))
            .unwrap();
        file.set_len(20).unwrap();
    }

    fn unusual(&mut self, spool: &Spool) {
        let path = self.path();
        let done = self.add(
            spool,
            "done",
            "done@sender.test",
            &[("k@ok.test", End::Nothing)],
        );
        let from = spool.locate(done).unwrap().unwrap().path(done);
        fs::rename(path.join(from), path.join(format!("done/{done}"))).unwrap();

        let held = self.add(
            spool,
            "asked",
            "asked@sender.test",
            &[("l@ok.test", End::Delivered)],
        );
        let place = spool.locate(held).unwrap().unwrap();
        let hand = spool.lock(place, held).unwrap();
        let freeze = Action::Freeze {
            by: by("wait"),
            until: Some(self.start + SignedDuration::from_mins(40)),
        };
        let acted = act(spool, &[held], &freeze, self.start).unwrap();
        assert_eq!(acted, [(held, Acted::Requested)]);
        drop(hand);
        let gone = mailspool::accept::new_id(self.start);
        fs::write(path.join(format!("info/request/{gone}")), "{}").unwrap();

        self.corrupt = self.add(
            spool,
            "damaged",
            "bad@sender.test",
            &[("m@ok.test", End::Nothing)],
        );
        let place = spool.locate(self.corrupt).unwrap().unwrap();
        let message = path.join(place.path(self.corrupt));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(message)
            .unwrap();
        file.seek(SeekFrom::End(-5)).unwrap();
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::End(-5)).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    }

    /// The pass under the case's fault.
    fn faulted(
        &self,
        spool: &Path,
        seam: Arc<Injector>,
        ledger: &Ledger,
        clock: &Clock,
    ) -> Result<Summary, String> {
        let seam: Arc<dyn Seam> = seam;
        let spool = Spool::open_through(spool, Some(seam)).map_err(|error| error.to_string())?;
        let pass = runner(spool, ledger, clock, self.start).pass();
        pass.map_err(|error| match error {
            Error::NotRecorded { id, .. } => format!("{id} not recorded"),
            error => error.to_string(),
        })
    }

    fn judge(&self, case: &Case) -> String {
        let dir = copy_of(&self.path());
        let path = dir.path().join("spool");
        let (ledger, clock) = (Ledger::default(), Clock::at(self.start));
        clock.forward(20);
        let seam = Injector::new(*case);
        let pass = self.faulted(&path, Arc::clone(&seam), &ledger, &clock);

        let spool = Spool::open(&path).unwrap();
        self.thaw_what_could_not_be_recorded(&spool, &pass, &clock);
        let mut rounds = 0;
        loop {
            let summary = runner(spool.clone(), &ledger, &clock, self.start).pass();
            let summary = summary.unwrap_or_else(|error| panic!("a clean pass: {error}"));
            assert_eq!(summary.trouble, 0, "{summary:?}");
            assert_eq!(
                findings(&spool)
                    .iter()
                    .filter(|one| one.level > mailspool::operator::Level::Note)
                    .collect::<Vec<_>>(),
                Vec::<&mailspool::operator::Finding>::new()
            );
            let left = spool.listing().unwrap().messages;
            if left
                .iter()
                .all(|(_, place)| matches!(place, Place::Frozen(_) | Place::Corrupt))
                && summary.messages == 0
            {
                break;
            }
            rounds += 1;
            assert!(rounds < 12, "no end of it: {left:?}");
            clock.forward(150);
        }
        self.verify(&spool, &ledger);
        let twice = ledger.counts().values().any(|count| *count > 1);
        // One call that fails is no reason to lose a record, unless the run says so.
        if let (true, Fault::Once(_) | Fault::ButMade(_)) = (twice, case.fault) {
            let why = pass.clone().unwrap_err();
            assert!(why.ends_with("not recorded"), "doubled, although: {why}");
        }
        let kind = match &pass {
            Ok(summary) if summary.trouble > 0 => "through, with trouble",
            Ok(_) => "through",
            Err(why) if why.ends_with("not recorded") => "stopped, not recorded",
            Err(_) => "stopped",
        };
        match twice {
            false => kind.to_owned(),
            true => format!("{kind}, one in flight doubled"),
        }
    }

    /// A message whose outcome could not be recorded is frozen by its place alone, and a person
    /// has to decide. This one says: thaw it.
    fn thaw_what_could_not_be_recorded(
        &self,
        spool: &Spool,
        pass: &Result<Summary, String>,
        clock: &Clock,
    ) {
        let listing = spool.listing().unwrap();
        for (id, place) in &listing.messages {
            if !matches!(place, Place::Frozen(_)) {
                continue;
            }
            let view = spool.view(*id, *place, &listing).unwrap().unwrap();
            let content = view.content.unwrap_or_else(|why| {
                let name = self
                    .expected
                    .iter()
                    .find(|one| one.id == *id)
                    .map(|one| one.name);
                panic!("{name:?} in {place:?}: {why}")
            });
            if content.state.hold != Hold::None {
                continue;
            }
            assert_eq!(pass.clone().unwrap_err(), format!("{id} not recorded"));
            let acted = act(spool, &[*id], &Action::Thaw(by("looked at")), clock.now()).unwrap();
            assert_eq!(acted, [(*id, Acted::Done)]);
        }
    }

    fn verify(&self, spool: &Spool, ledger: &Ledger) {
        let counts = ledger.counts();
        let twice: BTreeSet<QueueId> = counts
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|((id, _), _)| *id)
            .collect();
        assert!(
            twice.len() <= 1,
            "more than the one in flight was doubled: {counts:?}"
        );
        assert!(counts.values().all(|count| *count <= 2), "{counts:?}");

        let notices = ledger.notices();
        let mut wanted = BTreeMap::new();
        for one in &self.expected {
            for (to, end) in &one.recipients {
                let count = counts
                    .get(&(one.id, (*to).to_owned()))
                    .copied()
                    .unwrap_or(0);
                let told = notices
                    .get(&(one.id.to_string(), (*to).to_owned()))
                    .map_or(0, BTreeSet::len);
                let right = match end {
                    End::Delivered => count >= 1 && told == 0,
                    End::Told => count == 0 && told == 1,
                    End::Nothing => count == 0 && told == 0,
                };
                assert!(
                    right,
                    "{} to {to}: {end:?}, but delivered {count} times, told {told} times",
                    one.name
                );
                if *end == End::Told {
                    wanted.insert((one.id.to_string(), (*to).to_owned()), ());
                }
            }
        }
        assert!(
            notices.keys().all(|key| wanted.contains_key(key)),
            "{notices:?}"
        );
        for delivery in ledger.all().iter().filter(|one| !one.sender.is_empty()) {
            let one = self.expected.iter().find(|one| one.id == delivery.id);
            let one = one.unwrap_or_else(|| panic!("never accepted: {delivery:?}"));
            assert!(
                is_whole(&delivery.bytes, &text(one.name)),
                "torn: {delivery:?}"
            );
        }
        self.verify_rest(spool);
    }

    /// What is left is left on purpose, and nothing besides.
    fn verify_rest(&self, spool: &Spool) {
        let (frozen, corrupt) = (self.frozen, self.corrupt);
        let mut expected: Vec<PathBuf> = ["sender", "recipients", "transport"]
            .iter()
            .flat_map(|info| [frozen, corrupt].map(|id| format!("info/{info}/{id}").into()))
            .collect();
        expected.extend([
            format!("info/attempts/{frozen}").into(),
            format!("frozen/never/{frozen}").into(),
            format!("corrupt/{corrupt}").into(),
            format!("corrupt/{corrupt}.reason").into(),
        ]);
        expected.sort();
        let left = files(spool.path());
        assert_eq!(left, expected, "not what is left on purpose");
        assert_eq!(findings(spool), []);
        let listing = spool.listing().unwrap();
        for (id, place) in &listing.messages {
            let view = spool.view(*id, *place, &listing).unwrap().unwrap();
            match (place, view.content) {
                (Place::Frozen(_), Ok(content)) => {
                    assert!(matches!(content.state.hold, Hold::Frozen { .. }))
                }
                (Place::Corrupt, Err(reason)) => assert!(reason.contains("seal"), "{reason}"),
                (place, content) => panic!("{place:?}: {content:?}"),
            }
        }
    }

    fn calls(&self, case: Case) -> Vec<super::inject::Seen> {
        let dir = copy_of(&self.path());
        let (ledger, clock) = (Ledger::default(), Clock::at(self.start));
        clock.forward(20);
        let seam = Injector::new(case);
        let path = dir.path().join("spool");
        let summary = self
            .faulted(&path, Arc::clone(&seam), &ledger, &clock)
            .unwrap();
        assert_eq!(
            (summary.trouble, summary.corrupt, summary.notices),
            (0, 1, 2),
            "{summary:?}"
        );
        seam.seen()
    }
}

fn explored(what: &str, queue: &Queue, case: Case, wanted: impl Fn(Fault) -> bool, most: usize) {
    let seen = queue.calls(case);
    let mut cases = all_cases(case.method, &seen, case.length);
    cases.retain(|case| wanted(case.fault));
    let all = cases.len();
    let cases = sample(cases, most);
    let tally = explore(what, &cases, |case| queue.judge(case));
    tally.print(&format!(
        "{what}, {:?}, {} calls, of {all}",
        case.method,
        seen.len()
    ));
}

#[test]
fn pass_stopped_behind_each_call() {
    let queue = Queue::new();
    for method in [Method::Each, Method::SyncExt] {
        explored(
            "pass, stopped",
            &queue,
            Case::clean(method),
            |fault| fault == Fault::Stop,
            150,
        );
    }
}

#[test]
fn pass_with_one_failing_call() {
    let queue = Queue::new();
    let wanted = |fault| matches!(fault, Fault::Once(_));
    for method in [Method::Each, Method::SyncExt] {
        explored("pass, once", &queue, Case::clean(method), wanted, 170);
    }
}

#[test]
fn pass_with_every_call_failing_from_one_on() {
    let queue = Queue::new();
    let wanted = |fault| matches!(fault, Fault::ForGood(_) | Fault::Full);
    for method in [Method::Each, Method::SyncExt] {
        explored("pass, for good", &queue, Case::clean(method), wanted, 170);
    }
}

#[test]
fn pass_with_calls_that_are_made_and_fail() {
    let queue = Queue::new();
    let wanted = |fault| matches!(fault, Fault::ButMade(_));
    for method in [Method::Each, Method::SyncExt] {
        explored(
            "pass, made and failed",
            &queue,
            Case::clean(method),
            wanted,
            200,
        );
    }
}

/// Lines of the history come in pieces here, and are torn when the process ends between them.
#[test]
fn pass_with_short_reads_and_writes() {
    let queue = Queue::new();
    let case = Case {
        length: Some(100),
        ..Case::clean(Method::Each)
    };
    let wanted = |fault| matches!(fault, Fault::Stop | Fault::Full | Fault::Once(Errno::EIO));
    explored("pass, short", &queue, case, wanted, 170);
}
