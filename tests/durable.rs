//! What acceptance makes durable before it says yes, as the kernel saw it.
//!
//! What belongs here: traces of system calls of the whole program. Needs `strace`, and a system
//! that permits tracing; where either is missing these tests fail, because nothing else shows
//! that a success was not given too early.

mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use program::{LETTER, Site, ended, names};

#[test]
fn send_is_durable_before_it_says_so() {
    let site = Site::with_box();
    let trace = Trace::of(&site, &["send", "--queue-only", "b@example.test"], LETTER);
    trace.shows_one_durable_message(&site);
}

#[test]
fn receive_is_durable_before_it_says_so() {
    let site = Site::with_box();
    let trace = Trace::of(
        &site,
        &["receive", "-f", "a@example.org", "b@example.test"],
        LETTER,
    );
    trace.shows_one_durable_message(&site);
}

/// Written in many pieces.
#[test]
fn a_large_message_is_durable_too() {
    let site = Site::with_box();
    let letter = format!(
        "Subject: s\n\n{}",
        "a line of a large message\n".repeat(40_000)
    );
    let trace = Trace::of(
        &site,
        &["receive", "-f", "", "b@example.test"],
        letter.as_bytes(),
    );
    trace.shows_one_durable_message(&site);
}

/// The directories of a spool that is made on the way are as necessary as the message's own.
#[test]
fn so_is_a_spool_before_init_says_so() {
    let site = Site::with_box();
    fs::remove_dir_all(site.spool()).unwrap();
    let trace = Trace::of(&site, &["init"], b"");
    let made: Vec<_> = trace
        .calls
        .iter()
        .filter(|call| call.made_directory().is_some())
        .collect();
    assert!(made.len() > 10, "{made:?}");
    for call in made {
        let dir = call.made_directory().unwrap();
        let parent = dir.parent().unwrap().to_owned();
        assert!(trace.is_durable(&dir, call.end), "{}", dir.display());
        assert!(
            trace.is_durable(&parent, call.end),
            "{} in its parent",
            dir.display()
        );
    }
}

/// A call of the program's, with its place in the trace.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    result: i64,
    begin: usize,
    end: usize,
}

/// The calls of a program that ended with success, up to that end.
struct Trace {
    calls: Vec<Call>,
    end: usize,
}

const CALLS: &str = "trace=openat,open,creat,write,pwrite64,writev,ftruncate,fallocate,fsync,fdatasync,syncfs,\
                     sync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,exit_group";

impl Trace {
    fn of(site: &Site, arguments: &[&str], input: &[u8]) -> Trace {
        let to = site.dir().join("trace");
        let program = site.command(arguments);
        let mut strace = Command::new("strace");
        strace
            .args([
                "-f",
                "-y",
                "-s",
                "0",
                "-e",
                CALLS,
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(&to);
        strace.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => strace.env(name, value),
                None => strace.env_remove(name),
            };
        }
        if let Err(error) = Command::new("strace").arg("-V").output() {
            panic!(
                "strace cannot be run ({error}); install it: nothing else shows what is durable"
            );
        }
        let traced = ended(&mut strace, input);
        let text = fs::read_to_string(&to).unwrap_or_default();
        if text.is_empty() {
            panic!(
                "this system does not permit tracing (ptrace), without which nobody can see \
                    what is durable: {traced}"
            );
        }
        traced.ok();
        Trace::parse(&text)
    }

    fn parse(text: &str) -> Trace {
        let mut calls = Vec::new();
        let mut begun = BTreeMap::<&str, (String, usize)>::new();
        for (n, line) in text.lines().enumerate() {
            let (pid, what) = line.split_once(' ').unwrap();
            let what = what.trim_start();
            if let Some(first) = what.strip_suffix(" <unfinished ...>") {
                begun.insert(pid, (first.to_owned(), n));
                continue;
            }
            let (whole, begin) = match what.strip_prefix("<... ") {
                Some(rest) => {
                    let (first, begin) = begun.remove(pid).unwrap();
                    let (_, rest) = rest.split_once(" resumed>").unwrap();
                    (first + rest, begin)
                }
                None => (what.to_owned(), n),
            };
            if whole.starts_with("exit_group(0)") {
                return Trace { calls, end: n };
            }
            let (Some((call, result)), true) = (whole.rsplit_once(" = "), whole.contains('('))
            else {
                continue;
            };
            let (name, arguments) = call.split_once('(').unwrap();
            let result = result
                .split([' ', '<'])
                .next()
                .unwrap()
                .parse()
                .unwrap_or(-1);
            let (name, arguments) = (name.to_owned(), arguments.trim_end().to_owned());
            calls.push(Call {
                name,
                arguments,
                result,
                begin,
                end: n,
            });
        }
        panic!("the program did not end with success:\n{text}");
    }

    /// The one message that the spool holds: its file is written, made durable, renamed, and its new
    /// name made durable, in this order and by one sync each.
    fn shows_one_durable_message(&self, site: &Site) {
        // Where the kernel sees it: the temporary directory may be reached through a link.
        let spool = fs::canonicalize(site.spool()).unwrap();
        let ids = names(&spool.join("info/sender"));
        assert_eq!(ids.len(), 1);
        let path = spool.join("new").join(&ids[0]);
        let made = self
            .calls
            .iter()
            .find(|call| call.created().as_deref() == Some(&*path));
        assert!(made.is_some(), "{} was never made", path.display());
        let written = self.calls.iter().filter(|call| call.writes(&path));
        let last = written.map(|call| call.end).max();
        let last = last.unwrap_or_else(|| panic!("{} was never written", path.display()));
        let moved = self
            .calls
            .iter()
            .find(|call| call.name.starts_with("rename") && call.arguments.contains(&ids[0]));
        let moved = moved.expect("it was moved on");
        let [file] = self.syncs(&path, last..self.end)[..] else {
            panic!("not one sync of the file: {:#?}", self.calls)
        };
        assert!(file < moved.begin, "moved on before it was durable");
        let places = ["incoming", "active"].map(|place| spool.join(place));
        let after = |place: &PathBuf| self.syncs(place, moved.end..self.end).len();
        assert_eq!(
            places.iter().map(after).sum::<usize>(),
            1,
            "{:#?}",
            self.calls
        );
        let new = self.syncs(&spool.join("new"), 0..self.end);
        assert_eq!(new.len(), 0, "new/ is not synced");
    }

    /// Where the syncs of a path end that began in these lines.
    fn syncs(&self, path: &Path, lines: std::ops::Range<usize>) -> Vec<usize> {
        let covers = |call: &&Call| lines.contains(&call.begin) && call.covers(path);
        self.calls
            .iter()
            .filter(covers)
            .map(|call| call.end)
            .collect()
    }

    /// Whether a sync that covers the path began after the line and succeeded before the end.
    fn is_durable(&self, path: &Path, after: usize) -> bool {
        let covers = |call: &&Call| call.begin > after && call.end < self.end && call.covers(path);
        self.calls.iter().find(covers).is_some()
    }
}

impl Call {
    /// The file that a first argument, a descriptor, leads to.
    fn descriptor(&self) -> Option<PathBuf> {
        let (_, rest) = self.arguments.split_once('<')?;
        let (path, _) = rest.split_once('>')?;
        Some(PathBuf::from(path))
    }

    /// The path of a call on a directory's descriptor and a name, or on a path.
    fn path(&self) -> Option<PathBuf> {
        let name = self.arguments.split('"').nth(1)?;
        if self.arguments.starts_with('"') {
            Some(PathBuf::from(name))
        } else {
            Some(self.descriptor()?.join(name))
        }
    }

    fn created(&self) -> Option<PathBuf> {
        let creates = self.name.starts_with("open") && self.arguments.contains("O_CREAT");
        (creates && self.result >= 0).then(|| self.path())?
    }

    fn made_directory(&self) -> Option<PathBuf> {
        (self.name.starts_with("mkdir") && self.result == 0).then(|| self.path())?
    }

    fn writes(&self, path: &Path) -> bool {
        let writes = ["write", "pwrite64", "writev", "ftruncate", "fallocate"];
        writes.contains(&self.name.as_str()) && self.descriptor().as_deref() == Some(path)
    }

    fn is_sync(&self) -> bool {
        ["fsync", "fdatasync"].contains(&self.name.as_str())
    }

    fn covers(&self, path: &Path) -> bool {
        self.is_sync() && self.result == 0 && self.descriptor().as_deref() == Some(path)
    }
}
