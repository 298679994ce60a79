//! Spools to break, a transport that records deliveries, and the final assertions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Accepted, Acceptor, Error as Refused, Limits, Request};
use mailspool::testing::message::{
    Address, Dsn, EnhancedCode, Entrance, QueueId, RecipientDsn, ReversePath, SubmissionKey,
};
use mailspool::testing::operator::{Finding, check};
use mailspool::testing::queue::{Outcome, Routes};
use mailspool::testing::runner::{Budget, Runner, RunnerBuilder};
use mailspool::testing::spool::Spool;
use mailspool::testing::transport::{Message, from_fn};
use tempfile::TempDir;

pub const HOST: &str = "test.example";

/// A directory for a test, in memory if possible: no test here cuts the power, and thousands of real barriers
/// would take minutes.
pub fn tempdir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir())
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

/// A copy of a spool that a case may break. Hard links stay hard links.
pub fn copy_of(spool: &Path) -> TempDir {
    let dir = tempdir();
    copy(spool, &dir.path().join("spool"), &mut HashMap::new());
    dir
}

fn copy(from: &Path, to: &Path, linked: &mut HashMap<u64, PathBuf>) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let (stat, to) = (entry.metadata().unwrap(), to.join(name));
        match linked.get(&stat.ino()) {
            _ if stat.is_dir() => copy(&path, &to, linked),
            Some(other) => fs::hard_link(other, &to).unwrap(),
            None => {
                fs::copy(&path, &to).unwrap();
                if stat.nlink() > 1 {
                    linked.insert(stat.ino(), to);
                }
            }
        }
    }
}

/// Every file below a directory. It may include files removed in the meantime.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found
}

/// Every file below a spool, except `version`, `state/`, `reserve/`, and known keys.
pub fn files(spool: &Path) -> Vec<PathBuf> {
    let mut found = walk(spool);
    let is_ours = |dir: &str, path: &PathBuf| path.starts_with(spool.join(dir));
    found.retain(|path| !["state", "reserve"].iter().any(|dir| is_ours(dir, path)));
    found.retain(|path| !path.ends_with("version"));
    let known = |path: &PathBuf| {
        let below = path.strip_prefix(spool.join("keys"));
        below.is_ok_and(|path| !path.starts_with("new") && !path.starts_with("lock"))
    };
    found.retain(|path| !known(path));
    found.sort();
    found
        .iter()
        .map(|path| path.strip_prefix(spool).unwrap().to_owned())
        .collect()
}

pub fn limits() -> Limits {
    Limits {
        min_free: 0,
        min_free_inodes: 0,
        ..Limits::new(HOST)
    }
}

/// The request for a message from `sender` (empty: the null sender). The sender asks for success notices for
/// `told.test`, and for no notices for `hush.test`.
pub fn request(entrance: Entrance, sender: &str, recipients: &[&str]) -> Request {
    let wish = |to: &&str| RecipientDsn {
        notify: match to.rsplit_once('@') {
            Some((_, "told.test")) => Some("success,failure".parse().unwrap()),
            Some((_, "hush.test")) => Some("never".parse().unwrap()),
            _ => None,
        },
        original: None,
    };
    Request {
        entrance,
        sender: ReversePath::parse(sender.as_bytes()).unwrap(),
        recipients: recipients
            .iter()
            .map(|text| Address::parse(text).unwrap())
            .collect(),
        transport: None,
        dsn: Dsn {
            recipients: recipients.iter().map(wish).collect(),
            ..Dsn::default()
        },
        submitter: "tester".into(),
        key: None,
        release: None,
    }
}

/// A complete message: acceptance adds only `Received:`.
pub fn text(name: &str) -> Vec<u8> {
    format!(
        "Date: Sun, 22 Nov 2026 14:05:00 +0000\nMessage-ID: <{name}@sender.test>\n\
         From: s@sender.test\nSubject: {name}\n\nThe message {name}.\n"
    )
    .into_bytes()
}

/// The request under the only key in these tests.
pub fn keyed_request(to: &str) -> Request {
    Request {
        key: Some(SubmissionKey::new("the key").unwrap()),
        ..request(Entrance::Active, "s@sender.test", &[to])
    }
}

/// Submits a message under the only key in these tests.
pub fn submit(spool: &Spool, to: &str) -> Result<Accepted, Refused> {
    let acceptor = Acceptor::new(spool.clone(), limits());
    acceptor.submit(keyed_request(to), text("keyed").as_slice())
}

/// The same for a key that expires at once.
pub fn submit_briefly(spool: &Spool, to: &str) -> QueueId {
    let mut limits = limits();
    limits.key_lifetime = SignedDuration::from_millis(1);
    let acceptor = Acceptor::new(spool.clone(), limits);
    let accepted = acceptor.submit(keyed_request(to), text("keyed").as_slice());
    accepted.unwrap().id
}

pub fn accept(spool: &Spool, entrance: Entrance, name: &str, sender: &str, to: &[&str]) -> QueueId {
    let acceptor = Acceptor::new(spool.clone(), limits());
    acceptor
        .accept(request(entrance, sender, to), text(name).as_slice())
        .unwrap()
}

/// Returns whether `bytes` are `input` with our `Received:` field before it, and nothing else.
pub fn is_whole(bytes: &[u8], input: &[u8]) -> bool {
    let Some(field) = bytes.strip_suffix(input) else {
        return false;
    };
    let field = String::from_utf8_lossy(field);
    let lines: Vec<&str> = field.split_inclusive('\n').collect();
    field.starts_with("Received: by test.example (mailspool,")
        && [3, 4].contains(&lines.len())
        && lines[1..].iter().all(|line| line.starts_with('\t'))
}

/// The deliveries that the transports made.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Delivery>>>);

#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: QueueId,
    pub sender: String,
    pub recipient: String,
    pub bytes: Arc<Vec<u8>>,
}

impl Ledger {
    pub fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().clone()
    }

    /// How often each recipient got each message.
    pub fn counts(&self) -> BTreeMap<(QueueId, String), usize> {
        let mut counts = BTreeMap::new();
        for one in self.all() {
            *counts.entry((one.id, one.recipient)).or_default() += 1;
        }
        counts
    }

    /// The delivered notices: their ids by message and recipient. For notices other than failures, the
    /// recipient has a prefix: `delayed a@x`.
    pub fn notices(&self) -> BTreeMap<(String, String), BTreeSet<QueueId>> {
        let mut notices: BTreeMap<_, BTreeSet<QueueId>> = BTreeMap::new();
        for one in self.all().iter().filter(|one| one.sender.is_empty()) {
            let text = String::from_utf8_lossy(&one.bytes).into_owned();
            let field = |name: &str| -> Vec<String> {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name));
                lines.map(|value| value.trim().to_owned()).collect()
            };
            for origin in field("X-Mailspool-Id:") {
                let actions = field("Action:").into_iter();
                for (to, action) in field("Final-Recipient: rfc822;").into_iter().zip(actions) {
                    let to = match action.as_str() {
                        "failed" => to,
                        action => format!("{action} {to}"),
                    };
                    notices
                        .entry((origin.clone(), to))
                        .or_default()
                        .insert(one.id);
                }
            }
        }
        notices
    }

    /// Records a delivery, if the message can be read.
    pub fn deliver(&self, message: &Message, to: &Address) -> Outcome {
        let mut bytes = Vec::new();
        if let Err(error) = message.body.reader().read_to_end(&mut bytes) {
            return Outcome::deferred(EnhancedCode::new(4, 3, 0), error.to_string());
        }
        self.0.lock().unwrap().push(Delivery {
            id: message.id,
            sender: message.sender.as_str().to_owned(),
            recipient: to.as_str().to_owned(),
            bytes: Arc::new(bytes),
        });
        Outcome::delivered("taken")
    }
}

/// A clock that stands still until it is set.
#[derive(Clone)]
pub struct Clock(Arc<Mutex<Timestamp>>);

impl Clock {
    pub fn at(time: Timestamp) -> Clock {
        Clock(Arc::new(Mutex::new(time)))
    }

    pub fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    pub fn forward(&self, minutes: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_mins(minutes);
    }
}

/// A runner with a transport that acts by the recipient's domain: `no.test` and `hush.test` fail permanently,
/// `first.test`, `later.test` and `long.test` are deferred until a time, `always.test` is always deferred,
/// every other domain accepts the mail.
pub fn runner(spool: Spool, ledger: &Ledger, clock: &Clock, start: Timestamp) -> Runner {
    configured(spool, ledger, clock, start).build()
}

/// The same runner as a builder, for a test that adds to it.
pub fn configured(spool: Spool, ledger: &Ledger, clock: &Clock, start: Timestamp) -> RunnerBuilder {
    let (ledger, at, time) = (ledger.clone(), clock.clone(), clock.clone());
    let relay = from_fn(move |message, recipients| {
        let age = at.now().duration_since(start);
        let outcome = |to: &Address| match to.domain() {
            Some("no.test" | "never.test" | "hush.test") => {
                Outcome::failed(EnhancedCode::new(5, 1, 1), "no such user")
            }
            Some("first.test") if age < SignedDuration::from_mins(10) => later(),
            Some("always.test") => later(),
            Some("later.test") if age < SignedDuration::from_mins(60) => later(),
            Some("long.test") if age < SignedDuration::from_mins(300) => later(),
            _ => ledger.deliver(message, to),
        };
        recipients.iter().map(outcome).collect()
    });
    Runner::builder(spool, HOST)
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

/// The findings of `check`, except quarantined messages.
pub fn findings(spool: &Spool) -> Vec<Finding> {
    let mut found = check(spool, false).unwrap();
    found.retain(|finding| !finding.what.starts_with("in quarantine: "));
    found
}
