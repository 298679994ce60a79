//! A queue with a message of every kind.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, act};
use mailspool::testing::queue::{
    Action, By, DelayAges, Event, FailedAttempt, Handover, Outcome, RecipientResult, RetryPolicy,
    Schedule, Status, Then, What,
};
use mailspool::testing::spool::{Claim, Entry, Queue, Spool};
use nix::errno::Errno;
use tempfile::TempDir;

use super::world::{Clock, Ledger, accept, files, runner, tempdir, text};

/// What must happen to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The recipient gets the message.
    Delivered,
    /// The sender gets a failure notice, once.
    Told,
    /// The recipient gets the message, and the sender gets a success notice, once.
    Heard,
    /// The recipient gets the message, and before that the sender gets a delay notice, once.
    Warned,
    /// Nothing: the message was done, torn or damaged, or has no sender to notify.
    Nothing,
}

pub struct Expected {
    pub name: &'static str,
    pub id: QueueId,
    pub recipients: Vec<(&'static str, End)>,
}

/// A spool with a message of every kind, to be copied.
pub struct QueueScene {
    dir: TempDir,
    pub start: Timestamp,
    pub expected: Vec<Expected>,
    pub frozen: QueueId,
    pub corrupt: QueueId,
    expires: QueueId,
    /// Whether the pass under faults folds each history that has doubled, however short it is.
    pub folds: bool,
}

/// Ends a process at the first call that `at` selects, or after it.
struct Dies {
    at: fn(&Call<'_>) -> bool,
    after: bool,
    dead: AtomicBool,
}

impl Seam for Dies {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let dead = self.dead.load(SeqCst);
        let now = (self.at)(call);
        self.dead.fetch_or(now, SeqCst);
        if dead || now && !self.after {
            Verdict::Fail(Errno::EIO)
        } else {
            Verdict::Pass
        }
    }
}

/// Opens the spool for a process that dies at such a call.
fn dying(spool: &Path, at: fn(&Call<'_>) -> bool, after: bool) -> Spool {
    let dead = AtomicBool::new(false);
    Spool::open_through(spool, Some(Arc::new(Dies { at, after, dead }))).unwrap()
}

fn renames(call: &Call<'_>) -> bool {
    call.name() == "rename"
}

fn is_dir(call: &Call<'_>) -> bool {
    matches!(call, Call::SyncDir { .. })
}

fn records_notice(call: &Call<'_>) -> bool {
    matches!(call, Call::Write { path, bytes, .. } if path.starts_with("history")
        && String::from_utf8_lossy(bytes).contains("\"event\":\"notice\""))
}

/// Gives up on one message at its first failure, and uses the usual schedule for the others.
#[derive(Clone)]
pub struct GivesUp(QueueId);

impl RetryPolicy for GivesUp {
    fn next_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        (failed.id != self.0).then(|| Schedule::default().next_attempt(failed))?
    }

    fn longest_delay(&self) -> SignedDuration {
        Schedule::default().longest_delay()
    }
}

fn entry(spool: &Spool, queue: Queue, id: QueueId) -> Entry {
    match spool.lock(queue, id).unwrap() {
        Claim::Locked(locked) => locked.read().unwrap(),
        other => panic!("{other:?}"),
    }
}

pub fn by(reason: &str) -> By {
    By {
        by: "operator".into(),
        reason: Some(reason.into()),
    }
}

impl QueueScene {
    pub fn new() -> QueueScene {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        let start = Timestamp::now();
        let unset = mailspool::testing::accept::new_id(start);
        let mut queue = QueueScene {
            dir,
            start,
            expected: Vec::new(),
            frozen: unset,
            corrupt: unset,
            expires: unset,
            folds: false,
        };
        queue.in_deferred(&spool);
        queue.with_notice("staged", false);
        queue.with_notice("recorded", true);
        queue.in_active(&spool);
        queue.held(&spool);
        queue.in_new(&path);
        queue.unusual(&spool);
        queue.views();
        queue
    }

    /// The same, without messages that have two names: if one of two names is missed for a moment, the other
    /// is shown, which is equally true.
    pub fn with_one_name_each() -> QueueScene {
        let queue = QueueScene::new();
        for dir in ["new", "incoming"] {
            for entry in fs::read_dir(queue.path().join(dir)).unwrap() {
                let entry = entry.unwrap();
                if entry.metadata().unwrap().nlink() > 1 {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        queue
    }

    /// The first pass sends delay notices for the messages accepted before.
    pub fn delays() -> DelayAges {
        DelayAges::new([SignedDuration::from_mins(15)])
    }

    /// The retry policy of its messages.
    pub fn policy(&self) -> GivesUp {
        GivesUp(self.expires)
    }

    pub fn path(&self) -> PathBuf {
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
        let entrance = match self.expected.len() % 2 {
            0 => Entrance::Active,
            _ => Entrance::Incoming,
        };
        let id = accept(spool, entrance, name, sender, &addresses);
        self.expected.push(Expected {
            name,
            id,
            recipients: to.to_vec(),
        });
        id
    }

    /// A message that was deferred and is due after 15 minutes.
    fn in_deferred(&mut self, spool: &Spool) {
        let to = [("due@first.test", End::Delivered)];
        self.add(spool, "due", "due@sender.test", &to);
        let clock = Clock::at(self.start);
        clock.forward(1);
        let pass = runner(spool.clone(), &Ledger::default(), &clock, self.start).pass();
        assert_eq!(pass.unwrap().deferred, 1);
    }

    fn in_active(&mut self, spool: &Spool) {
        use End::{Delivered, Heard, Nothing, Told, Warned};
        self.add(
            spool,
            "plain",
            "plain@sender.test",
            &[("a@ok.test", Delivered)],
        );
        let mixed = [
            ("b@ok.test", Delivered),
            ("c@later.test", Warned),
            ("d@no.test", Told),
        ];
        self.add(spool, "mixed", "mixed@sender.test", &mixed);
        let failing = [
            ("e@no.test", Told),
            ("f@never.test", Told),
            ("v@told.test", Heard),
        ];
        self.add(spool, "failing", "failing@sender.test", &failing);
        self.frozen = self.add(spool, "null", "", &[("g@no.test", Nothing)]);
        let id = self.add(
            spool,
            "again",
            "again@sender.test",
            &[("h@ok.test", Warned)],
        );
        self.interrupted(spool, id);
        let heard = [("t@told.test", Heard), ("u@hush.test", Nothing)];
        self.add(spool, "heard", "heard@sender.test", &heard);
        // The first recipient was delivered to before.
        let between = [("w@ok.test", Nothing), ("x@ok.test", Warned)];
        let id = self.add(spool, "between", "between@sender.test", &between);
        self.interrupted_between(spool, id);
    }

    /// A message with a notice that was staged when the process died, before or after the notice's record. It
    /// is made in a spool that holds no other message.
    fn with_notice(&mut self, name: &'static str, recorded: bool) {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        let sender = format!("{name}@sender.test");
        self.add(&spool, name, &sender, &[("p@no.test", End::Told)]);
        let clock = Clock::at(self.start);
        clock.forward(1);
        let dying = dying(&path, records_notice, recorded);
        drop(runner(dying, &Ledger::default(), &clock, self.start).pass());
        let files = files(&path);
        assert!(
            files.iter().any(|file| file.starts_with("staged")),
            "{files:?}"
        );
        for file in files {
            fs::rename(path.join(&file), self.path().join(&file)).unwrap();
        }
    }

    /// Messages that an operator held until a moment before the pass.
    fn held(&mut self, spool: &Spool) {
        let until = self.start + SignedDuration::from_mins(10);
        let to = [("q@ok.test", End::Nothing)];
        let purged = self.add(spool, "purged", "purged@sender.test", &to);
        let to = [("r@ok.test", End::Delivered)];
        let thawed = self.add(spool, "thawed", "thawed@sender.test", &to);
        let discard = Action::Discard {
            by: by("rubbish"),
            until,
        };
        let freeze = Action::Freeze {
            by: by("wait"),
            until: Some(until),
            then: Then::Thaw,
        };
        let lapsed = self.add(spool, "lapsed", "", &[("t@ok.test", End::Nothing)]);
        let failed = Action::Freeze {
            by: By::rule("it failed"),
            until: Some(until),
            then: Then::Discard,
        };
        for (id, action) in [(purged, discard), (thawed, freeze), (lapsed, failed)] {
            let acted = act(spool, &[id], &action, self.start).unwrap();
            assert_eq!(acted, [(id, Acted::Done)]);
        }
        let to = [("s@always.test", End::Told)];
        self.expires = self.add(spool, "expires", "expires@sender.test", &to);
    }

    /// Begins an attempt without an end, and tears the last line of the history.
    fn interrupted(&self, spool: &Spool, id: QueueId) {
        let queue = spool.locate(id).unwrap().queue().unwrap();
        entry(spool, queue, id).begin(self.start).unwrap();
        self.write(&format!("history/{id}"), "{\"at\":\"2026-11-");
    }

    /// The same for an attempt that had delivered to the first recipient and recorded it in the block without
    /// a sync.
    fn interrupted_between(&self, spool: &Spool, id: QueueId) {
        let queue = spool.locate(id).unwrap().queue().unwrap();
        let mut entry = entry(spool, queue, id);
        entry.begin(self.start).unwrap();
        let results = vec![RecipientResult {
            recipient: entry.envelope().recipients[0].clone(),
            status: Status::Delivered,
            handover: Handover::Final,
            reply: Outcome::delivered("taken").reply,
            next: None,
            warn: None,
            expired: false,
        }];
        let what = What::Outcome {
            began: self.start,
            transport: Some("relay".into()),
            results,
        };
        let at = self.start;
        entry.apply_unrecorded(Event { at, what });
        assert!(entry.write_finished(&[0]).unwrap());
    }

    fn write(&self, path: &str, text: &str) {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.path().join(path)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn in_new(&mut self, path: &Path) {
        type At = fn(&Call<'_>) -> bool;
        let cut_off = |name: &str, to: &[&str], at: At| -> QueueId {
            let ids = || -> BTreeSet<QueueId> {
                let spool = Spool::open(path).unwrap();
                let queues = [Queue::New, Queue::Incoming, Queue::Active];
                let ids = queues.map(|queue| spool.ids_in(queue).unwrap());
                ids.into_iter().flatten().collect()
            };
            let before = ids();
            let spool = dying(path, at, false);
            let sender = format!("{name}@sender.test");
            let request = super::world::request(Entrance::Active, &sender, to);
            let acceptor = mailspool::testing::accept::Acceptor::new(spool, super::world::limits());
            acceptor.accept(request, text(name).as_slice()).unwrap_err();
            *ids().difference(&before).next().unwrap()
        };
        // Killed after it had left `new/`: whole, and not acknowledged.
        let to = ["i@ok.test", "j@other.test"];
        let id = cut_off("whole", &to, |call| call.name() == "fsync" && is_dir(call));
        self.expected.push(Expected {
            name: "whole",
            id,
            recipients: to.map(|to| (to, End::Delivered)).to_vec(),
        });
        // Killed during the write, after the whole write, and after that was durable.
        let cuts: [(&str, At); 4] = [
            ("empty", |call| call.name() == "write"),
            (
                "shown",
                |call| matches!(call, Call::Write { path, .. } if path.starts_with("new")),
            ),
            ("unsynced", |call| call.name() == "fsync"),
            ("synced", renames),
        ];
        for (name, at) in cuts {
            cut_off(name, &["t@ok.test"], at);
        }
        // A power cut kept everything except the end of the message.
        let id = cut_off("cut", &["t@ok.test"], renames);
        let file = OpenOptions::new()
            .write(true)
            .open(path.join(format!("new/{id}")))
            .unwrap();
        file.set_len(20).unwrap();
    }

    /// Views that are missing, empty, torn, edited, or of no message.
    fn views(&self) {
        let id = |name: &str| {
            let one = self.expected.iter().find(|one| one.name == name);
            one.unwrap().id
        };
        let path = |info: &str, name: &str| format!("info/{info}/{}", id(name));
        for info in ["sender", "recipients", "transport"] {
            fs::remove_file(self.path().join(path(info, "plain"))).unwrap();
        }
        fs::remove_file(self.path().join(path("sender", "failing"))).unwrap();
        self.write(&path("recipients", "mixed"), "");
        self.write(&path("recipients", "whole"), "i@ok.te");
        self.write(&path("sender", "again"), "elsewhere@sender.test\n");
        self.write(&path("transport", "thawed"), "\0\0\0");
        let gone = mailspool::testing::accept::new_id(self.start);
        self.write(&format!("info/sender/{gone}"), "gone@sender.test\n");
        // Without `state/boot`, the next run assumes that the view is from an earlier boot.
        fs::remove_file(self.path().join("state/boot")).unwrap();
    }

    fn unusual(&mut self, spool: &Spool) {
        let path = self.path();
        let done = self.add(
            spool,
            "done",
            "done@sender.test",
            &[("k@ok.test", End::Nothing)],
        );
        let from = spool.locate(done).unwrap().queue().unwrap().path(done);
        fs::rename(path.join(from), path.join(format!("done/{done}"))).unwrap();
        // Finished, but not moved to `done/`, or brought back by a power cut.
        let to = [("n@ok.test", End::Nothing)];
        let said = self.add(spool, "said", "said@sender.test", &to);
        let queue = spool.locate(said).unwrap().queue().unwrap();
        entry(spool, queue, said).say_done().unwrap();
        // A power cut left both names of a rename.
        for (name, to, other) in [
            ("twice", "o@ok.test", "active"),
            ("entered", "y@ok.test", "new"),
        ] {
            let to = [(to, End::Delivered)];
            let id = self.add(spool, name, "twice@sender.test", &to);
            let queue = spool.locate(id).unwrap().queue().unwrap();
            let dir = if queue == Queue::Active && other == "active" {
                "incoming"
            } else {
                other
            };
            fs::hard_link(path.join(queue.path(id)), path.join(format!("{dir}/{id}"))).unwrap();
        }

        let held = self.add(
            spool,
            "asked",
            "asked@sender.test",
            &[("l@ok.test", End::Delivered)],
        );
        let queue = spool.locate(held).unwrap().queue().unwrap();
        let hand = spool.lock(queue, held).unwrap();
        let freeze = Action::Freeze {
            by: by("wait"),
            until: Some(self.start + SignedDuration::from_mins(40)),
            then: Then::Thaw,
        };
        let acted = act(spool, &[held], &freeze, self.start).unwrap();
        assert_eq!(acted, [(held, Acted::Requested)]);
        drop(hand);
        let gone = mailspool::testing::accept::new_id(self.start);
        fs::write(path.join(format!("requests/{gone}")), "{}").unwrap();

        self.corrupt = self.add(
            spool,
            "damaged",
            "bad@sender.test",
            &[("m@ok.test", End::Nothing)],
        );
        let queue = spool.locate(self.corrupt).unwrap().queue().unwrap();
        let message = path.join(queue.path(self.corrupt));
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
}
