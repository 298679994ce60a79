//! Logs and output that are never read: they delay nothing and change no outcome.

use std::fs::{self, File};
use std::io::{PipeReader, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};

use super::logs::beside;
use super::program::{BOX, Ended, LETTER, Site, names, outcome};

/// A socket that is full and never read.
struct Deaf {
    _socket: UnixDatagram,
    path: PathBuf,
}

impl Deaf {
    fn new(path: PathBuf) -> Deaf {
        let socket = UnixDatagram::bind(&path).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", &path).is_ok() {}
        Deaf {
            _socket: socket,
            path,
        }
    }
}

/// A pipe that is full and never read.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = pipe().unwrap();
    let size = fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    writer.write_all(&vec![b'x'; size as usize]).unwrap();
    (reader, writer.into())
}

/// No command here takes this long unless it waits forever.
const SOON: Duration = Duration::from_secs(8);

/// Runs a command to its end, and collects the output that can be read.
fn run(mut command: Command, err: Option<Stdio>) -> Ended {
    let letter = tempfile::NamedTempFile::new().unwrap();
    fs::write(letter.path(), LETTER).unwrap();
    command
        .stdin(File::open(letter.path()).unwrap())
        .stdout(Stdio::piped())
        .stderr(err.unwrap_or_else(Stdio::piped));
    let begun = Instant::now();
    let ended = outcome(command.spawn().unwrap(), &command);
    assert!(begun.elapsed() < SOON, "{:?}: {ended}", begun.elapsed());
    ended
}

const RECEIVE: &[&str] = &["receive", "-f", "a@example.org", "b@example.test"];
const SEND: &[&str] = &[
    "send",
    "--queue-only",
    "-f",
    "a@example.org",
    "b@example.test",
];

#[test]
fn a_log_that_nothing_reads_changes_no_outcome() {
    let quick = "[accept]\ntimeout = \"3s\"\n";
    for to in ["journald", "syslog", "stderr"] {
        let config = format!("{quick}{BOX}\n[log]\nto = \"{to}\"\n");
        let site = Site::new(&config);
        let deaf = Deaf::new(site.dir().join("log"));
        let journal = (to == "journald").then_some(deaf.path.as_path());
        let syslog = (to == "syslog").then_some(deaf.path.as_path());
        let with = |arguments: &[&str]| {
            let mut kept = None;
            let err = (to == "stderr").then(|| {
                let (reader, err) = full_pipe();
                kept = Some(reader);
                err
            });
            run(beside(&site, journal, syslog, arguments), err)
        };
        let received = with(RECEIVE);
        assert_eq!((received.ok().as_str(), received.err.as_str()), ("", ""));
        assert_eq!(names(&site.spool().join("incoming")).len(), 1, "{to}");

        let sent = with(SEND);
        let id = sent.ok();
        let lost = match to {
            "stderr" => "",
            _ => "mailspool: 1 log line was lost: the log does not take them\n",
        };
        assert_eq!(sent.err, lost, "{to}");
        let id = id.trim_end();
        assert_eq!(names(&site.spool().join("active")), [id], "{to}");
        with(&["freeze", id]).ok();
        assert_eq!(site.shown(id)["queue"], "frozen");
        with(&["thaw", "--queue-only", id]).ok();
        assert_eq!(
            with(&["run"]).ok(),
            "2 messages: 2 delivered, 0 deferred, 0 failed.\n",
            "{to}"
        );
        assert_eq!(site.boxed().len(), 2);
        site.is_clean_and_empty();
    }
}

#[test]
fn output_that_nothing_reads_changes_no_outcome() {
    let site = Site::with_box();
    let letter = site.dir().join("letter");
    fs::write(&letter, LETTER).unwrap();
    let with_full_output = |arguments: &[&str]| {
        let (_reader, out) = full_pipe();
        let (_other, err) = full_pipe();
        let mut command = site.command(arguments);
        command
            .stdin(File::open(&letter).unwrap())
            .stdout(out)
            .stderr(err);
        let begun = Instant::now();
        let code = super::program::code_of(&mut command.spawn().unwrap(), &command);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        code
    };
    assert_eq!(with_full_output(SEND), 0);
    assert_eq!(names(&site.spool().join("active")).len(), 1);
    assert_eq!(with_full_output(&["run"]), 0);
    assert_eq!(site.boxed().len(), 1);
    // A refusal, which makes an MTA keep the message, also comes in time.
    assert_eq!(with_full_output(&["receive", "--nonsense"]), 75);
    assert_eq!(
        with_full_output(&["receive", "-f", "a@example.org", "--", ""]),
        75
    );
    site.configure(&format!("[accept]\nmax_size = \"1\"\n{BOX}"));
    assert_eq!(with_full_output(RECEIVE), 65);
    site.is_clean_and_empty();
}
