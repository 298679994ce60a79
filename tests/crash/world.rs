//! The world around a spool: its transports and their recipients, and what they know at each moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Address, Block, EnhancedCode, QueueId, ReversePath, Seal};
use mailspool::testing::queue::{
    DelayAges, History, Outcome, Pattern, Phase, RecipientResult, Routes, Rule, Schedule, Status,
    What,
};
use mailspool::testing::runner::{Budget, Runner};
use mailspool::testing::spool::{self, Spool};
use mailspool::testing::transport::{
    BoxFuture, Maildir, Message, Pipe, Session, Transport, from_fn,
};
use tempfile::TempDir;

use super::judge::Fate;
use super::log::{Recorder, Step};
use super::model::Renames;
use super::net::{self, Net};
use super::shared::{Clock, HOST, tempdir};
use super::stories::fold::fold;
use super::tree::Tree;

/// Between fork and exec a child also holds its parent's locks. So no other case is judged while a command runs.
static FORKS: RwLock<()> = RwLock::new(());

/// The right to run commands, or to rely on locks being free.
pub struct Calm {
    _reading: Option<RwLockReadGuard<'static, ()>>,
    _writing: Option<RwLockWriteGuard<'static, ()>>,
}

impl Calm {
    pub fn for_mail_to<'a>(mut recipients: impl Iterator<Item = &'a str>) -> Calm {
        let forks = recipients.any(|recipient| recipient.ends_with("@pipe.test"));
        Calm {
            _writing: forks.then(|| FORKS.write().unwrap_or_else(PoisonError::into_inner)),
            _reading: (!forks).then(|| FORKS.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// The deliveries to the world. With a recorder they are also in the log.
#[derive(Clone, Default)]
pub struct Ledger {
    all: Arc<Mutex<Vec<Delivery>>>,
    recorder: Option<Arc<Recorder>>,
    /// The directory where the pipe's command writes its input.
    piped: Arc<OnceLock<TempDir>>,
}

/// One delivery to one recipient.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: QueueId,
    pub null_sender: bool,
    pub to: String,
    pub bytes: Vec<u8>,
    pub at: Timestamp,
}

impl Delivery {
    /// Returns the values of a field, anywhere in the message.
    pub fn fields(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|value| value.trim().to_owned()).collect()
    }

    /// Returns the steps for the log: the delivery, and for a notice the recipients that it is about.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Delivered(self.id, self.to.clone())];
        for origin in self.fields("X-Mailspool-Id:") {
            let actions = self.fields("Action:").into_iter();
            let about = self.fields("Final-Recipient: rfc822;").into_iter();
            // An action other than a failure comes before the recipient.
            let about = about
                .zip(actions)
                .map(|(to, action)| match action.as_str() {
                    "failed" => to,
                    action => format!("{action} {to}"),
                });
            steps.extend(about.map(|to| Step::Told(self.id, origin.clone(), to)));
        }
        steps
    }
}

impl Ledger {
    pub fn recorded(recorder: &Arc<Recorder>) -> Ledger {
        Ledger {
            recorder: Some(Arc::clone(recorder)),
            ..Ledger::default()
        }
    }

    pub fn all(&self) -> Vec<Delivery> {
        self.all.lock().unwrap().clone()
    }

    fn deliver(&self, message: &Message, to: &Address, at: Timestamp) -> Outcome {
        let mut bytes = Vec::new();
        if let Err(error) = message.body.reader().read_to_end(&mut bytes) {
            return Outcome::deferred(EnhancedCode::new(4, 3, 0), error.to_string());
        }
        let delivery = Delivery {
            id: message.id,
            null_sender: message.sender == ReversePath::Null,
            to: to.as_str().to_owned(),
            bytes,
            at,
        };
        self.book(delivery);
        Outcome::delivered("taken")
    }

    fn book(&self, delivery: Delivery) {
        if let Some(recorder) = &self.recorder {
            delivery
                .steps()
                .into_iter()
                .for_each(|step| recorder.mark(step));
        }
        self.all.lock().unwrap().push(delivery);
    }

    /// Records what the command got, without the `Return-Path` field.
    fn take_piped(&self, message: &Message, to: &Address) {
        let dir = self.piped.get().unwrap();
        let bytes = fs::read(dir.path().join(message.id.to_string())).unwrap();
        let field = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        assert!(bytes.starts_with(b"Return-Path: "));
        self.book(Delivery {
            id: message.id,
            null_sender: message.sender == ReversePath::Null,
            to: to.as_str().to_owned(),
            bytes: bytes[field + 1..].to_vec(),
            at: Timestamp::now(),
        });
    }
}

/// A recorded pipe. Its command's work is durable when it ends, and outside the modelled power cuts.
struct Piped(Ledger);

struct PipedSession(Box<dyn Session>, Ledger);

impl Piped {
    fn pipe(&self) -> Pipe {
        let command = [
            "/bin/sh",
            "-c",
            "cat >\"$1/$MAILSPOOL_ID\" && sync \"$1/$MAILSPOOL_ID\"",
            "pipe",
            self.0.piped.get_or_init(tempdir).path().to_str().unwrap(),
        ];
        Pipe::new(command.map(str::to_owned).to_vec()).unwrap()
    }
}

impl Transport for Piped {
    fn next_hop(&self, _: &Address) -> String {
        String::new()
    }

    fn deadline(&self, _: u64) -> Option<Duration> {
        Some(Pipe::TIMEOUT)
    }

    fn connect<'a>(
        &'a self,
        next_hop: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        Box::pin(async move {
            let session = self.pipe().connect(next_hop).await?;
            let session: Box<dyn Session> = Box::new(PipedSession(session, self.0.clone()));
            Ok(session)
        })
    }
}

impl Session for PipedSession {
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let outcomes = self.0.deliver(message, recipients).await;
            for (to, outcome) in recipients.iter().zip(&outcomes) {
                if outcome.status == Status::Delivered {
                    self.1.take_piped(message, to);
                }
            }
            outcomes
        })
    }
}

/// A spool and its surroundings.
pub struct Site<'a> {
    /// The directory that contains the spool and, after the first mail for it, the Maildir `box`.
    pub dir: &'a Path,
    pub ledger: &'a Ledger,
    pub clock: &'a Clock,
    /// When the story began.
    pub start: Timestamp,
    /// The recorder of every change, and the number of the process.
    pub recorder: Option<(&'a Arc<Recorder>, usize)>,
    /// Whether histories are folded however short they are.
    pub folds: bool,
}

/// Returns a spool that folds each history that has doubled, however short it is.
pub fn folding(spool: Spool) -> Spool {
    spool.folding_from(1)
}

impl Site<'_> {
    fn seam(&self, path: &Path) -> Option<Arc<dyn Seam>> {
        let (recorder, process) = self.recorder?;
        Some(recorder.hand(path, process))
    }

    pub fn spool(&self) -> spool::Result<Spool> {
        let path = self.dir.join("spool");
        let spool = Spool::open_through(&path, self.seam(&path))?;
        Ok(if self.folds { folding(spool) } else { spool })
    }

    /// Returns a runner that delivers by the recipient's domain: `box.test` into the Maildir, `pipe.test` through a
    /// command, the hosts of `net.rs` over connections (with their failures for ten minutes), all others by a
    /// function. The function fails `no.test` and `hush.test` permanently, and defers `never.test` always,
    /// `first.test` for ten minutes, `later.test` for an hour, `long.test` for two hours, and `late.test` until
    /// its last attempt. It delivers to all other domains. Delay notices are sent after 75 minutes.
    pub fn runner(&self, spool: Spool) -> Runner {
        let (ledger, at, time) = (self.ledger.clone(), self.clock.clone(), self.clock.clone());
        let start = self.start;
        let relay = from_fn(move |message, recipients| {
            let age = at.now().duration_since(start);
            let young = |minutes| age < SignedDuration::from_mins(minutes);
            let outcome = |to: &Address| match to.domain() {
                Some("no.test" | "hush.test") => {
                    Outcome::failed(EnhancedCode::new(5, 1, 1), "no such user")
                }
                Some("first.test") if young(10) => later(),
                Some("later.test") if young(60) => later(),
                Some("long.test") if young(120) => later(),
                Some("late.test") if young(235) => later(),
                Some("never.test") => later(),
                _ => ledger.deliver(message, to, at.now()),
            };
            recipients.iter().map(outcome).collect()
        });
        let path = self.dir.join("box");
        let maildir = Maildir::new(path.clone(), HOST.into()).with_seam(self.seam(&path));
        let rule =
            |domain: &str, transport: &str| Rule::new(Pattern::Domain(domain.into()), transport);
        let mut routes = vec![rule("box.test", "box"), rule("pipe.test", "pipe")];
        routes.extend(net::rules());
        routes.extend(Routes::all_by("relay").0);
        let (ledger, at, over) = (self.ledger.clone(), self.clock.clone(), self.clock.clone());
        let net = Net::new(
            move |message, to| ledger.deliver(message, to, at.now()),
            move || over.now().duration_since(start) >= SignedDuration::from_mins(10),
        );
        let runner = Runner::builder(spool, HOST)
            .transport("relay", relay)
            .transport("box", maildir)
            .transport("pipe", Piped(self.ledger.clone()))
            .transport("net", net.clone())
            .transport("strict", net.strict())
            .routes(Routes(routes))
            .retry(schedule())
            .delays(DelayAges::new([SignedDuration::from_mins(75)]))
            .budget(Budget {
                jobs: 1,
                ..Budget::default()
            })
            .clock(move || time.now());
        match self.recorder {
            // One call after the other, so that each recording of a story is the same.
            Some(_) => runner.threads(1).build(),
            None => runner.build(),
        }
    }
}

/// Returns the retry schedule: every half hour, after two hours every hour, for four hours.
fn schedule() -> Schedule {
    let phase = |until, every| Phase {
        until: SignedDuration::from_hours(until),
        every: SignedDuration::from_mins(every),
        factor: 1.0,
    };
    Schedule::new(vec![phase(2, 30), phase(4, 60)]).unwrap()
}

fn later() -> Outcome {
    Outcome::deferred(EnhancedCode::new(4, 2, 1), "later")
}

/// A set of messages that equality and hashes ignore.
#[derive(Clone, Debug, Default)]
struct Aside(BTreeSet<QueueId>);

impl PartialEq for Aside {
    fn eq(&self, _: &Aside) -> bool {
        true
    }
}

impl Eq for Aside {}

impl std::hash::Hash for Aside {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

/// The beginning of a state line that says that a message is done.
const DONE: &[u8] = b"Mailspool-State: done ";

/// What the world knows when the power is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// The acknowledged messages.
    pub acked: BTreeMap<&'static str, QueueId>,
    /// Whether the story's action was reported as done.
    pub did: bool,
    /// The deliveries: message and recipient.
    pub delivered: BTreeSet<(QueueId, String)>,
    /// The notices: notice, origin, recipient.
    pub told: BTreeSet<(QueueId, String, String)>,
    /// The current time.
    pub now: Option<Timestamp>,
    /// Messages of which nothing need be left.
    pub forgotten: BTreeSet<QueueId>,
    /// Messages with a block that says done.
    ending: Aside,
    /// Those of `ending` with a block that was synced since.
    ended: Aside,
    /// Recipients that a history or a block says are delivered.
    noted: BTreeSet<(QueueId, String)>,
    /// Those of `noted` that were written by processes that still run.
    fresh: BTreeSet<(QueueId, String)>,
    /// Recipients that must not get the message again, because the outcome is durable.
    pub settled: BTreeSet<(QueueId, String)>,
    /// Recipients for which a history says that the answer was lost.
    doubtful: BTreeSet<(QueueId, String)>,
    /// Recipients that must not get the message before their time, because the lost answer is durably recorded.
    pub put_off: BTreeSet<(QueueId, String)>,
}

impl Known {
    /// Adds what the world learns by a step.
    pub fn learn(&mut self, step: &Step) {
        match step {
            Step::Acked(name, id) => drop(self.acked.insert(name, *id)),
            Step::Did => self.did = true,
            Step::Clock(now) => self.now = Some(*now),
            Step::Killed => self.fresh.clear(),
            // The octet of a finished recipient. If there is no room for a history, it is the only record.
            Step::Overwrite(path, _, bytes) if bytes == b"+" => {
                let id = id_of(path);
                let got = self.delivered.iter().filter(|(one, _)| Some(*one) == id);
                let got: Vec<_> = got.cloned().collect();
                self.fresh.extend(got.iter().cloned());
                self.noted.extend(got);
            }
            Step::Overwrite(path, _, bytes) if bytes.starts_with(DONE) => {
                self.ending.0.extend(id_of(path));
            }
            Step::SyncFile(path) => {
                let id = id_of(path).filter(|id| self.ending.0.contains(id));
                self.ended.0.extend(id);
            }
            Step::Unlink(path) if under(path, "done") => self.forgotten.extend(id_of(path)),
            // If there is no room for a name in `done/`, the message is unlinked where it is.
            Step::Unlink(path) if !under(path, "info") && !under(path, "history") => {
                let id = id_of(path).filter(|id| self.ended.0.contains(id));
                self.forgotten.extend(id);
            }
            Step::Delivered(id, to) => drop(self.delivered.insert((*id, to.clone()))),
            Step::Told(notice, origin, to) => {
                self.told.insert((*notice, origin.clone(), to.clone()));
            }
            // A history that is rewritten is written over an empty file.
            Step::Write(path, bytes) | Step::Overwrite(path, 0, bytes)
                if under(path, "history") =>
            {
                let events = History::parse(bytes).unwrap_or_default().events;
                for event in events {
                    // A history that is rewritten has the suffix `.part` at first.
                    let id = id_of(&path.with_extension(""));
                    if let (
                        What::Outcome {
                            results, transport, ..
                        },
                        Some(id),
                    ) = (event.what, id)
                    {
                        let named =
                            |result: &RecipientResult| (id, result.recipient.as_str().to_owned());
                        let lost = |result: &&RecipientResult| result.status == Status::Unknown;
                        let lost = results.iter().filter(lost).map(named);
                        // The record of an interruption, without a transport, may be lost: it is found again.
                        let doubtful: Vec<_> = lost.filter(|_| transport.is_some()).collect();
                        let to = results.into_iter();
                        let to = to.filter(|result| result.status == Status::Delivered);
                        let to = to.map(|result| (id, result.recipient.as_str().to_owned()));
                        let to: Vec<_> = to.collect();
                        self.fresh.extend(to.iter().cloned());
                        self.noted.extend(to);
                        self.doubtful.extend(doubtful);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a recipient must not get it before its time, because it may have it.
    pub fn is_put_off(&self, fate: &Fate) -> bool {
        let id = self.acked.get(fate.name);
        id.is_some_and(|id| self.put_off.contains(&(*id, fate.to.to_owned())))
    }

    /// Drops what the histories and blocks say, and keeps what the world itself knows.
    pub fn forget_notes(&mut self) {
        self.noted.clear();
        self.fresh.clear();
        self.doubtful.clear();
    }

    /// Replaces the notes by what the histories and blocks say after a cut.
    pub fn note(&mut self, tree: &Tree) {
        self.forget_notes();
        for (path, bytes) in tree.files() {
            if path.starts_with("spool/history") {
                self.learn(&Step::Write(path.to_owned(), bytes.to_vec()));
            }
            self.noted.extend(finished(bytes));
        }
        self.fresh.clear();
    }

    /// Adds what the code itself treats as durable, as its next step shows. It defers or freezes a message, and
    /// tries another recipient, only after all deliveries that any process wrote down are durable. On a file system
    /// with atomic renames it unlinks nothing of a message before the message's end is durable.
    pub fn foresee(&mut self, step: &Step, renames: Renames) {
        let (id, all) = match step {
            Step::Delivered(id, _) => (Some(*id), &self.noted),
            Step::Rename(_, to) if ["deferred", "frozen"].iter().any(|dir| under(to, dir)) => {
                (id_of(to), &self.noted)
            }
            Step::Unlink(path)
                if (under(path, "info") || under(path, "history"))
                    && renames == Renames::Atomic =>
            {
                (id_of(path), &self.delivered)
            }
            Step::Overwrite(path, ..) if fold(step).is_some() => {
                (id_of(&path.with_extension("")), &self.fresh)
            }
            // A delivery is durable before anything else is done with the message.
            Step::Rename(_, to) if under(to, "done") => (id_of(to), &self.fresh),
            Step::Mark(path, false) => (id_of(path), &self.fresh),
            Step::Write(path, _) if under(path, "history") => (id_of(path), &self.fresh),
            _ => return,
        };
        let theirs = |all: &BTreeSet<(QueueId, String)>| -> Vec<_> {
            let theirs = all.iter().filter(|(one, _)| Some(*one) == id);
            theirs.cloned().collect()
        };
        let (settled, put_off) = (theirs(all), theirs(&self.doubtful));
        self.settled.extend(settled);
        if let Step::Delivered(..) | Step::Rename(..) = step {
            self.put_off.extend(put_off);
        }
    }
}

/// Returns the recipients that a message file's block marks as finished.
fn finished(bytes: &[u8]) -> Vec<(QueueId, String)> {
    let block = Seal::parse(bytes)
        .ok()
        .and_then(|seal| Block::parse(bytes.get(..seal.block as usize)?).ok());
    let Some(block) = block else {
        return Vec::new();
    };
    let all = block.envelope.recipients.iter().zip(&block.finished);
    let all = all.filter(|(_, finished)| **finished);
    all.map(|(to, _)| (block.id, to.as_str().to_owned()))
        .collect()
}

fn id_of(path: &Path) -> Option<QueueId> {
    path.file_name()?.to_str()?.parse().ok()
}

fn under(path: &Path, dir: &str) -> bool {
    path.iter().nth(1).is_some_and(|part| part == dir)
}
