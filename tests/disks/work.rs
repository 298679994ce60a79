//! What is done on a disk until its power is cut: submitters, runners and operators, at once.
//! Whatever was acknowledged to them stands in the device's log.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::device::Log;
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

/// What the test knew, and when.
#[derive(Clone, Debug)]
pub enum Mark {
    /// The message with this number was acknowledged.
    Accepted(usize),
    /// An action begins on the message with this number and id.
    Begins(usize, String, Action),
    /// It was acknowledged.
    Done(usize, Action),
}

/// Small disks would be refused.
const SMALL: &str = "[accept]\nmin_free = \"0\"\nmin_free_inodes = 0\n";
/// Nothing may expire; what failed is tried again soon.
const RETRY: &str = "[retry]\nphases = [{ until = \"1h\", every = \"1m\" }]\n";

/// The configuration under which the work is done: some mail is always deferred.
pub fn config() -> String {
    let later = pipe("later", "cat >/dev/null; exit 75");
    format!(
        "{SMALL}{RETRY}{later}{}{BOX}",
        route("domain", "held.test", "later")
    )
}

/// The one under which everything is delivered.
pub fn config_afterwards() -> String {
    format!("{SMALL}{RETRY}{BOX}")
}

/// How the program is started: as it is, or below another command that changes what it does.
pub type Wrap<'a> = &'a (dyn Fn(&Command) -> Command + Sync);

/// Does the work for so many messages. Every fourth of them an operator has his hands on.
pub fn work(site: &Site, log: &Log<Mark>, messages: usize, wrap: Wrap) {
    const SUBMITTERS: usize = 3;
    const RUNNERS: usize = 2;
    let serials = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let (hand_over, held) = channel();
    thread::scope(|scope| {
        for _ in 0..RUNNERS {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut run = wrap(&site.command(["run", "--quiet", "--jobs", "4"]));
                    run.stdin(Stdio::null()).stdout(Stdio::null());
                    let code = code_of(&mut run.spawn().unwrap(), &run);
                    assert_eq!(code, 0, "a runner");
                }
            });
        }
        let operator = scope.spawn(|| operate(site, log, held, wrap));
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
                    submit(site, log, serial, &hand_over, wrap);
                }
            }));
        }
        drop(hand_over);
        // Whatever fails, the runners are told to end.
        let ends: Vec<_> = submitters.into_iter().map(|one| one.join()).collect();
        let operator = operator.join();
        done.store(true, Ordering::Relaxed);
        assert!(operator.is_ok() && ends.iter().all(Result::is_ok));
    });
}

fn submit(
    site: &Site,
    log: &Log<Mark>,
    serial: usize,
    hand_over: &Sender<(usize, String)>,
    wrap: Wrap,
) {
    let held = serial.is_multiple_of(4);
    let to = if held {
        "h@held.test"
    } else {
        "b@example.test"
    };
    let command = match held || serial % 4 == 1 {
        true => site.command(["send", "--queue-only", "-f", "a@example.org", to]),
        false => site.command(["receive", "-f", "a@example.org", to]),
    };
    let mut command = wrap(&command);
    command.stdin(letter(serial)).stdout(Stdio::piped());
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "submitter {serial}: {output:?}"
    );
    log.mark(Mark::Accepted(serial));
    if held {
        let id = String::from_utf8(output.stdout).unwrap();
        hand_over.send((serial, id.trim().to_owned())).unwrap();
    }
}

fn operate(site: &Site, log: &Log<Mark>, held: Receiver<(usize, String)>, wrap: Wrap) {
    for (serial, id) in held {
        let actions: &[Action] = match serial / 4 % 4 {
            0 => &[Action::Freeze, Action::Thaw],
            1 => &[Action::Discard],
            2 => &[Action::Freeze],
            _ => &[Action::Discard, Action::Retry],
        };
        for action in actions {
            let begins = Mark::Begins(serial, id.clone(), *action);
            let verb = match action {
                Action::Freeze => "freeze",
                Action::Thaw => "thaw",
                Action::Discard => "discard",
                Action::Retry => "retry",
            };
            log.mark(begins);
            let words = [verb, "--queue-only", "--reason", "test", &id];
            let acted = ended(&mut wrap(&site.command(words)), b"");
            match acted.code {
                0 => log.mark(Mark::Done(serial, *action)),
                // In somebody's hand with another request before this one, or not yet held.
                69 | 75 => {}
                _ => panic!("{acted}"),
            }
        }
    }
}

/// Makes a spool with its Maildir, durable before anything is logged that counts.
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
