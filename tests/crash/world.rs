//! The world around a spool, and what it knows at each moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::message::{Address, EnhancedCode, QueueId, ReversePath};
use mailspool::queue::{History, Outcome, Routes, Status, What};
use mailspool::runner::{Budget, Runner};
use mailspool::spool::Spool;
use mailspool::transport::{Message, Relay};

use super::log::{Recorder, Step};
use super::shared::{Clock, HOST};
use super::tree::Tree;

/// What the world got. With a recorder, the log is told.
#[derive(Clone, Default)]
pub struct Ledger {
    all: Arc<Mutex<Vec<Delivery>>>,
    recorder: Option<Arc<Recorder>>,
}

/// Somebody got something.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: QueueId,
    pub null_sender: bool,
    pub to: String,
    pub bytes: Vec<u8>,
}

impl Delivery {
    /// The values of a field, anywhere in the message.
    pub fn fields(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|value| value.trim().to_owned()).collect()
    }

    /// What the world knows by it: of a notice, whom it is about.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Delivered(self.id, self.to.clone())];
        for origin in self.fields("X-Mailspool-Id:") {
            let about = self.fields("Final-Recipient: rfc822;").into_iter();
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

    fn deliver(&self, message: &Message, to: &Address) -> Outcome {
        let mut bytes = Vec::new();
        if let Err(error) = message.body.reader().read_to_end(&mut bytes) {
            return Outcome::deferred(EnhancedCode::new(4, 3, 0), error.to_string());
        }
        let delivery = Delivery {
            id: message.id,
            null_sender: message.sender == ReversePath::Null,
            to: to.as_str().to_owned(),
            bytes,
        };
        if let Some(recorder) = &self.recorder {
            delivery
                .steps()
                .into_iter()
                .for_each(|step| recorder.mark(step));
        }
        self.all.lock().unwrap().push(delivery);
        Outcome::delivered("taken")
    }
}

/// A runner whose transport does as the recipient's domain says: `no.test` fails for good,
/// `first.test` is deferred for ten minutes, `later.test` for an hour, everybody else gets the
/// mail.
pub fn runner(spool: Spool, ledger: &Ledger, clock: &Clock, start: Timestamp) -> Runner {
    let (ledger, at, time) = (ledger.clone(), clock.clone(), clock.clone());
    let relay = Relay::new(move |message, recipients| {
        let age = at.now().duration_since(start);
        let young = |minutes| age < SignedDuration::from_mins(minutes);
        let outcome = |to: &Address| match to.domain() {
            Some("no.test") => Outcome::failed(EnhancedCode::new(5, 1, 1), "no such user"),
            Some("first.test") if young(10) => later(),
            Some("later.test") if young(60) => later(),
            _ => ledger.deliver(message, to),
        };
        recipients.iter().map(outcome).collect()
    });
    Runner::new(spool, HOST)
        .transport("relay", relay)
        .routes(Routes::all_by("relay"))
        .budget(Budget {
            jobs: 1,
            ..Budget::default()
        })
        .clock(move || time.now())
}

fn later() -> Outcome {
    Outcome::deferred(EnhancedCode::new(4, 2, 1), "later")
}

/// What the world knows when the power goes off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// Messages it was told are safe.
    pub acked: BTreeMap<&'static str, QueueId>,
    /// Whether it was told that it was done.
    pub did: bool,
    /// Who got what.
    pub delivered: BTreeSet<(QueueId, String)>,
    /// Whom it was told about: notice, origin, recipient.
    pub told: BTreeSet<(QueueId, String, String)>,
    /// Whose mail the history says to be delivered.
    noted: BTreeSet<(QueueId, String)>,
    /// Who must not get it again: the outcome is durable.
    pub settled: BTreeSet<(QueueId, String)>,
}

impl Known {
    /// One step more.
    pub fn learn(&mut self, step: &Step) {
        match step {
            Step::Acked(name, id) => drop(self.acked.insert(name, *id)),
            Step::Did => self.did = true,
            Step::Delivered(id, to) => drop(self.delivered.insert((*id, to.clone()))),
            Step::Told(notice, origin, to) => {
                self.told.insert((*notice, origin.clone(), to.clone()));
            }
            Step::Write(path, bytes) if under(path, "info") => {
                let events = History::parse(bytes).unwrap_or_default().events;
                for event in events {
                    if let (What::Outcome { results, .. }, Some(id)) = (event.what, id_of(path)) {
                        let to = results.into_iter();
                        let to = to.filter(|one| one.status == Status::Delivered);
                        let to = to.map(|one| (id, one.recipient.as_str().to_owned()));
                        self.noted.extend(to);
                    }
                }
            }
            _ => {}
        }
    }

    /// What stands in the histories after a cut: no more than that was noted.
    pub fn note(&mut self, tree: &Tree) {
        self.noted.clear();
        for (path, node) in &tree.names {
            if let Some(group) = node
                && path.starts_with("spool/info/attempts")
            {
                self.learn(&Step::Write(path.clone(), tree.contents[*group].clone()));
            }
        }
    }

    /// What the code itself takes to be durable, as the step it is about to make shows: it
    /// lets a message rest only when its outcomes are recorded, and unlinks its envelope only
    /// behind the barrier.
    pub fn foresee(&mut self, step: &Step) {
        let (path, all) = match step {
            Step::Rename(_, to) if ["deferred", "frozen"].iter().any(|dir| under(to, dir)) => {
                (to, &self.noted)
            }
            Step::Unlink(path) if under(path, "info") => (path, &self.delivered),
            _ => return,
        };
        let theirs = all.iter().filter(|(id, _)| Some(*id) == id_of(path));
        let theirs: Vec<_> = theirs.cloned().collect();
        self.settled.extend(theirs);
    }
}

fn id_of(path: &Path) -> Option<QueueId> {
    path.file_name()?.to_str()?.parse().ok()
}

fn under(path: &Path, dir: &str) -> bool {
    path.iter().nth(1).is_some_and(|part| part == dir)
}
