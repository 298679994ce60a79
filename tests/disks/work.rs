//! The work on a disk until its power is cut: concurrent submitters, runners and operators. Everything
//! acknowledged to them is in the device's log.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::ground::must;
use super::program::crowd::letter;
use super::program::{BOX, Site, code_of, ended, names, pipe, route};

/// An operator's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Freeze,
    Thaw,
    Discard,
    Retry,
}

/// What the test knew, in the order of the log.
#[derive(Clone, Debug)]
pub enum Mark {
    /// The message with this number was acknowledged.
    Accepted(usize),
    /// An action begins on the message with this number and id.
    Begins(usize, String, Action),
    /// The action was acknowledged.
    Done(usize, Action),
    /// The message with this number was delivered to one of its recipients, and the outcome is recorded.
    Partly(usize),
}

impl Action {
    const ALL: [Action; 4] = [Action::Freeze, Action::Thaw, Action::Discard, Action::Retry];

    /// What the program calls it.
    fn verb(self) -> &'static str {
        match self {
            Action::Freeze => "freeze",
            Action::Thaw => "thaw",
            Action::Discard => "discard",
            Action::Retry => "retry",
        }
    }

    fn parse(verb: &str) -> Action {
        let named = |action: &Action| action.verb() == verb;
        Action::ALL.into_iter().find(named).expect("an action")
    }
}

/// A line for another process.
impl Display for Mark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Accepted(serial) => write!(f, "{serial} accepted"),
            Mark::Partly(serial) => write!(f, "{serial} partly"),
            Mark::Begins(serial, id, action) => write!(f, "{serial} {} {id}", action.verb()),
            Mark::Done(serial, action) => write!(f, "{serial} {} done", action.verb()),
        }
    }
}

impl Mark {
    /// Such a line.
    pub fn parse(line: &str) -> Mark {
        let words: Vec<&str> = line.split(' ').collect();
        let serial = words[0].parse().unwrap();
        match words[1..] {
            ["accepted"] => Mark::Accepted(serial),
            ["partly"] => Mark::Partly(serial),
            [verb, "done"] => Mark::Done(serial, Action::parse(verb)),
            [verb, id] => Mark::Begins(serial, id.to_owned(), Action::parse(verb)),
            _ => panic!("no mark: {line}"),
        }
    }
}

/// Takes a mark, and writes it down before it returns.
pub type Note<'a> = &'a (dyn Fn(Mark) + Sync);

/// The processes at work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Crew {
    All,
    /// Only submitters, so no message is moved.
    Submitters,
}

/// By default small disks would be refused.
const SMALL: &str = "[accept]\nmin_free = \"0\"\nmin_free_inodes = 0\n";
/// Nothing may expire; failed attempts are repeated soon.
const RETRY: &str = "[retry]\nphases = [{ until = \"1h\", every = \"1m\" }]\n";

/// A command that records a message's number in a file on a disk that keeps its power. Unlike a Maildir, it
/// sees each delivery.
fn notes(file: &Path) -> String {
    let script = format!("sed -n \"s/^X-Serial: //p\" >>{}", file.display());
    pipe("notes", &script) + &route("domain", "once.test", "notes")
}

/// The configuration for the work: some mail is always deferred.
pub fn config(noted: &Path) -> String {
    let later = pipe("later", "cat >/dev/null; exit 75");
    format!(
        "{SMALL}{RETRY}{later}{}{}{BOX}",
        route("domain", "held.test", "later"),
        notes(noted)
    )
}

/// The configuration that delivers everything.
pub fn config_afterwards(noted: &Path) -> String {
    format!("{SMALL}{RETRY}{}{BOX}", notes(noted))
}

/// The numbers recorded in a file.
pub fn noted(file: &Path) -> Vec<usize> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// How the program is started: directly, or under another command that changes what it does.
pub type Wrap<'a> = &'a (dyn Fn(&Command) -> Command + Sync);

const RUNNERS: usize = 2;

/// The numbers recorded, and for each the runners that may not have recorded the outcome yet: those at work
/// when it was seen.
struct Noted {
    file: PathBuf,
    seen: BTreeSet<usize>,
    waiting: Vec<(usize, [bool; RUNNERS])>,
}

impl Noted {
    /// What a runner delivered is recorded, durably, when it has ended.
    fn ended(&mut self, runner: usize, note: Note) {
        for (_, at_work) in &mut self.waiting {
            at_work[runner] = false;
        }
        self.waiting.retain(|(serial, at_work)| {
            let is_recorded = !at_work.contains(&true);
            if is_recorded {
                note(Mark::Partly(*serial));
            }
            !is_recorded
        });
        for serial in noted(&self.file) {
            if self.seen.insert(serial) {
                let mut at_work = [true; RUNNERS];
                at_work[runner] = false;
                self.waiting.push((serial, at_work));
            }
        }
    }
}

/// Does the work for so many messages. An operator acts on every fourth of them; of every fourth one, the
/// first recipient's delivery is noted in a file, and the second one's is deferred.
pub fn work(site: &Site, note: Note, messages: usize, wrap: Wrap, crew: Crew, file: &Path) {
    const SUBMITTERS: usize = 3;
    let noted = Mutex::new(Noted {
        file: file.to_owned(),
        seen: BTreeSet::new(),
        waiting: Vec::new(),
    });
    let serials = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let (hand_over, held) = channel();
    thread::scope(|scope| {
        for runner in (0..RUNNERS).filter(|_| crew == Crew::All) {
            let (noted, done) = (&noted, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let mut run = wrap(&site.command(["run", "--quiet", "--jobs", "4"]));
                    run.stdin(Stdio::null()).stdout(Stdio::null());
                    let code = code_of(&mut run.spawn().unwrap(), &run);
                    assert_eq!(code, 0, "a runner");
                    noted.lock().unwrap().ended(runner, note);
                }
            });
        }
        let operator = scope.spawn(|| match crew {
            Crew::All => operate(site, note, held, wrap),
            Crew::Submitters => drop(held),
        });
        let mut submitters = Vec::new();
        for _ in 0..SUBMITTERS {
            let hand_over = hand_over.clone();
            let serials = &serials;
            submitters.push(scope.spawn(move || {
                loop {
                    let serial = serials.fetch_add(1, Ordering::Relaxed);
                    if serial >= messages {
                        return;
                    }
                    submit(site, note, serial, &hand_over, wrap);
                }
            }));
        }
        drop(hand_over);
        // Even after a failure, the runners must be stopped.
        let ends: Vec<_> = submitters.into_iter().map(|one| one.join()).collect();
        let operator = operator.join();
        done.store(true, Ordering::Relaxed);
        assert!(operator.is_ok() && ends.iter().all(Result::is_ok));
    });
}

fn submit(site: &Site, note: Note, serial: usize, hand_over: &Sender<(usize, String)>, wrap: Wrap) {
    let held = serial.is_multiple_of(4);
    let to: &[&str] = match serial % 4 {
        0 => &["h@held.test"],
        3 => &["n@once.test", "h@held.test"],
        _ => &["b@example.test"],
    };
    let words: &[&str] = match serial % 4 {
        0 | 1 => &["send", "--queue-only"],
        _ => &["receive"],
    };
    let words = words.iter().chain(&["-f", "a@example.org"]).chain(to);
    let mut command = wrap(&site.command(words));
    command.stdin(letter(serial)).stdout(Stdio::piped());
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "submitter {serial}: {output:?}"
    );
    note(Mark::Accepted(serial));
    if held {
        let id = String::from_utf8(output.stdout).unwrap();
        // Without an operator the message is dropped here.
        let _ = hand_over.send((serial, id.trim().to_owned()));
    }
}

fn operate(site: &Site, note: Note, held: Receiver<(usize, String)>, wrap: Wrap) {
    for (serial, id) in held {
        let actions: &[Action] = match serial / 4 % 4 {
            0 => &[Action::Freeze, Action::Thaw],
            1 => &[Action::Discard],
            2 => &[Action::Freeze],
            _ => &[Action::Discard, Action::Retry],
        };
        for action in actions {
            let begins = Mark::Begins(serial, id.clone(), *action);
            note(begins);
            let words = [action.verb(), "--queue-only", "--reason", "test", &id];
            let acted = ended(&mut wrap(&site.command(words)), b"");
            match acted.code {
                0 => note(Mark::Done(serial, *action)),
                // Locked with another request pending, or not yet held.
                69 | 75 => {}
                _ => panic!("{acted}"),
            }
        }
    }
}

/// Makes a spool with its Maildir, durable before the log matters.
pub fn prepare(site: &Site) {
    site.program(
        ["send", "--queue-only", "x@example.test"],
        b"Subject: first\n\n",
    )
    .ok();
    site.run().ok();
    let boxed = site.dir().join("box/new");
    let first = names(&boxed).remove(0);
    fs::remove_file(boxed.join(first)).unwrap();
    must(Command::new("sync").arg("-f").arg(site.dir()));
}
