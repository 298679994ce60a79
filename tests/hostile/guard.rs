//! Watched commands: they end, in bounded memory, with a meaningful status and output that is safe for a
//! terminal. And snapshots of what must not change.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};

use crate::program::{Ended, Site, code_of};

/// The most memory of a command, in octets, including program text and libraries. More fails the test.
const MAX_MEMORY: i64 = 64 << 20;

/// The documented statuses; 70 is an internal error.
const STATUSES: [i32; 9] = [0, 64, 65, 66, 67, 69, 75, 77, 78];

/// Runs the program on a site. Its input is a file, which is not held in memory here.
#[track_caller]
pub fn watched(site: &Site, arguments: &[&str], input: Option<&Path>) -> Ended {
    let mut command = site.command(arguments);
    watch(site.dir(), &mut command, input)
}

#[track_caller]
pub fn watch(dir: &Path, command: &mut Command, input: Option<&Path>) -> Ended {
    // Files, not pipes: the test need not read while the command runs.
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let input = input.unwrap_or(Path::new("/dev/null"));
    command
        .stdin(File::open(input).unwrap())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let code = code_of(&mut child, command);
    let ended = Ended {
        code,
        out: head_of(&out),
        err: String::from_utf8_lossy(&head_of(&err)).into_owned(),
    };
    assert!(STATUSES.contains(&code), "{command:?}: {ended}");
    assert!(
        !ended.err.contains("panicked") && !ended.err.contains("internal error"),
        "{ended}"
    );
    if code != 0 {
        let said = !ended.err.trim().is_empty() || !ended.out.is_empty();
        assert!(said, "{command:?}: says nothing about status {code}");
    }
    assert_terminal(&ended.err);
    // In kilobytes, the maximum over all children waited for so far.
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() * 1024;
    assert!(memory <= MAX_MEMORY, "{command:?}: {memory} octets");
    ended
}

/// The beginning of a file: more than any command prints that does not show a message.
fn head_of(path: &Path) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)
        .unwrap()
        .take(8 << 20)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Asserts that a text cannot control a terminal.
#[track_caller]
pub fn assert_terminal(text: &str) {
    let wild = |c: &char| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c);
    let found = text.chars().find(wild);
    assert_eq!(found, None, "{:?}", &text[..text.len().min(2000)]);
}

/// The content of a directory: type, size, mode, owner, names, and the content of files.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, String>);

impl Snapshot {
    pub fn of(dir: &Path) -> Snapshot {
        let mut all = BTreeMap::new();
        walk(dir, &mut all);
        Snapshot(all)
    }

    #[track_caller]
    pub fn assert_untouched(&self, dir: &Path, by: &str) {
        assert_eq!(&Snapshot::of(dir), self, "{by}");
    }
}

fn walk(dir: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_file() && meta.len() < 1 << 20 {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let what = format!(
            "{kind:?} {} {:o} {} {content:?} {}",
            if kind.is_dir() { 0 } else { meta.len() },
            meta.mode(),
            meta.uid(),
            kind.is_fifo(),
        );
        if kind.is_dir() {
            walk(&path, all);
        }
        all.insert(path, what);
    }
}
