//! What acceptance makes durable before it reports success, as traces of system calls show.
//!
//! What belongs here: traces of the whole program. They need `strace`, and a system that permits tracing. If either
//! is missing, these tests fail, because nothing else shows that success was not reported too early.

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

/// The message is written by many calls.
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

/// `init` makes the spool's directories durable before it reports success, because messages depend on them.
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

/// A system call of the program, with the lines of the trace where it begins and ends.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    result: i64,
    begin: usize,
    end: usize,
}

/// The calls of a program up to its successful exit.
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
                "this system does not permit tracing (ptrace); nothing else shows what is \
                    durable: {traced}"
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

    /// Asserts that the spool's only message was written, made durable, renamed, and its new name made durable, in
    /// this order and with one sync each.
    fn shows_one_durable_message(&self, site: &Site) {
        // The kernel's path: the temporary directory may be reached through a link.
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

    /// Returns the ends of the syncs of a path that began in these lines.
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
    /// Returns the file of the descriptor in the first argument.
    fn descriptor(&self) -> Option<PathBuf> {
        let (_, rest) = self.arguments.split_once('<')?;
        let (path, _) = rest.split_once('>')?;
        Some(PathBuf::from(path))
    }

    /// Returns the path of a call: its arguments are a directory's descriptor and a name, or a path.
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
