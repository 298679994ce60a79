//! A DKIM signature stays valid through every transport: dkimpy (Debian's python3-dkim) signs the mail, and
//! verifies what arrives.
//!
//! | | DATA | BDAT | LMTP | Maildir | pipe |
//! |---|---|---|---|---|---|
//! | text, 8 bit, dots, blanks and empty lines at ends, no final newline | holds | holds | holds | holds | holds |
//! | lines of more than 998 octets | holds | holds | holds | holds | holds |
//! | NULs, lone CRs | breaks: DATA cannot carry them | holds | as in DATA | holds | holds |

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use super::everything_by;
use super::program::{Site, names};

const HEADER: &str = "From: Sender <sender@example.org>\nTo: a@users.test\nSubject: signed\n\
    Date: Fri, 27 Nov 2026 08:00:00 +0000\nMessage-ID: <signed@example.org>\n";

/// Messages that every transport carries unchanged.
fn texts() -> Vec<(&'static str, Vec<u8>)> {
    let odd = "\n.\n..dots\n a\tb  \n  \nhällo\nend\n\n\n";
    let long = format!("\n{}\n.{}\n", "x".repeat(5000), "ü ".repeat(3000));
    let header = format!("X-Long: {}\n\nbody\n", "y".repeat(2000));
    let of = |rest: &str| [HEADER, rest].concat();
    vec![
        ("odd", of(odd).into()),
        ("odd-crlf", of(odd).replace('\n', "\r\n").into()),
        ("open", of("\nno end").into()),
        ("long", of(&long).into()),
        ("long-crlf", of(&long).replace('\n', "\r\n").into()),
        ("long-header", of(&header).into()),
    ]
}

/// Messages that DATA cannot carry.
fn binaries() -> Vec<(&'static str, Vec<u8>)> {
    let of = |rest: &[u8]| [HEADER.as_bytes(), rest].concat();
    vec![
        ("nul", of(b"\na\0b\n\0\n")),
        ("lone-cr", of(b"\na\rb\r\rc\n.\r.\n")),
    ]
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    texts().into_iter().chain(binaries()).collect()
}

/// Each message, signed twice.
fn signed(messages: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, message) in messages {
        fs::write(dir.path().join(name), message).unwrap();
    }
    dkimpy("sign", &[dir.path()]);
    let ways = |(name, _): &(&str, _)| [format!("{name}.simple"), format!("{name}.relaxed")];
    let read = |name: String| fs::read(dir.path().join(name)).unwrap();
    messages.iter().flat_map(ways).map(read).collect()
}

fn dkimpy(verb: &str, paths: &[impl AsRef<Path>]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deliver/signed.py");
    // Debian's own interpreter, because the package is Debian's.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(verb);
    command.args(paths.iter().map(AsRef::as_ref));
    let ended = command.output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success(),
        "this test needs python3-dkim: {err}"
    );
    String::from_utf8(ended.stdout).unwrap()
}

/// Asserts that the signature of each message that arrived is valid, or is not.
#[track_caller]
fn assert_verified(arrived: &[Vec<u8>], holds: bool) {
    let dir = tempfile::tempdir().unwrap();
    let name = |n: usize| dir.path().join(n.to_string());
    let paths: Vec<PathBuf> = (0..arrived.len()).map(name).collect();
    for (path, message) in paths.iter().zip(arrived) {
        fs::write(path, message).unwrap();
    }
    let said = dkimpy("verify", &paths);
    for (said, message) in said.lines().zip(arrived) {
        let message = String::from_utf8_lossy(message);
        assert_eq!(said, holds.to_string(), "{message}");
    }
    assert_eq!(said.lines().count(), arrived.len());
}

/// Delivers each message, signed, through a transport with these keys.
fn deliver(keys: &str, messages: &[(&str, Vec<u8>)]) -> Site {
    let site = Site::new(&everything_by(keys));
    let send = "send --queue-only -f s@example.org -- a@users.test";
    for message in signed(messages) {
        site.program(send.split(' '), &message).ok();
    }
    site.run().ok();
    assert!(site.is_empty(), "{:?}", site.rows());
    site
}

/// Every file of a directory.
fn read_all(dir: &Path) -> Vec<Vec<u8>> {
    let read = |name: &String| fs::read(dir.join(name)).unwrap();
    names(dir).iter().map(read).collect()
}

type Kept = Mutex<Vec<Vec<u8>>>;

/// A server that stores messages, octet by octet.
struct Keeper {
    port: u16,
    kept: Arc<Kept>,
}

impl Keeper {
    fn start(offers: &'static str) -> Keeper {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::new(Kept::default());
        let keep = Arc::clone(&kept);
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let keep = Arc::clone(&keep);
                thread::spawn(move || serve(stream.unwrap(), offers, &keep));
            }
        });
        Keeper { port, kept }
    }

    fn keys(&self, kind: &str) -> String {
        let port = self.port;
        format!("type = \"{kind}\"\nhost = \"[127.0.0.1]:{port}\"\ntls = \"none\"")
    }

    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.kept.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, offers: &str, kept: &Kept) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    stream.write_all(b"220 keeper\r\n")?;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let reply = match words[0] {
            "EHLO" | "LHLO" => format!("250-keeper\r\n250 {offers}\r\n"),
            "DATA" => {
                stream.write_all(b"354 go\r\n")?;
                let mut message = Vec::new();
                loop {
                    let mut line = Vec::new();
                    input.read_until(b'\n', &mut line)?;
                    if line == b".\r\n" {
                        break;
                    }
                    message.extend(line.strip_prefix(b".").unwrap_or(&line));
                }
                kept.lock().unwrap().push(message);
                "250 kept\r\n".into()
            }
            "BDAT" => {
                let mut message = vec![0; words[1].parse().unwrap()];
                input.read_exact(&mut message)?;
                kept.lock().unwrap().push(message);
                "250 kept\r\n".into()
            }
            _ => "250 fine\r\n".into(),
        };
        stream.write_all(reply.as_bytes())?;
    }
}

#[test]
fn a_signature_holds_through_data() {
    let keeper = Keeper::start("8BITMIME");
    deliver(&keeper.keys("smtp"), &texts());
    let arrived = keeper.take();
    assert_eq!(arrived.len(), 2 * texts().len());
    assert_verified(&arrived, true);
    // Messages that DATA cannot carry arrive changed, so their signatures break.
    deliver(&keeper.keys("smtp"), &binaries());
    let arrived = keeper.take();
    assert_eq!(arrived.len(), 2 * binaries().len());
    assert_verified(&arrived, false);
}

#[test]
fn a_signature_holds_through_bdat() {
    let keeper = Keeper::start("CHUNKING");
    deliver(&keeper.keys("smtp"), &all());
    let arrived = keeper.take();
    assert_eq!(arrived.len(), 2 * all().len());
    assert_verified(&arrived, true);
}

#[test]
fn a_signature_holds_through_lmtp() {
    let keeper = Keeper::start("8BITMIME");
    deliver(&keeper.keys("lmtp"), &texts());
    let arrived = keeper.take();
    assert_eq!(arrived.len(), 2 * texts().len());
    assert_verified(&arrived, true);
}

#[test]
fn a_signature_holds_in_a_maildir() {
    let site = deliver("type = \"maildir\"\npath = \"{dir}/box\"", &all());
    let arrived = read_all(&site.dir().join("box/new"));
    assert_eq!(arrived.len(), 2 * all().len());
    assert_verified(&arrived, true);
}

#[test]
fn a_signature_holds_through_a_pipe() {
    let command = "mkdir -p {dir}/piped && cat >{dir}/piped/$MAILSPOOL_ID";
    let keys = format!("type = \"pipe\"\ncommand = [\"/bin/sh\", \"-c\", \"{command}\"]");
    let site = deliver(&keys, &all());
    let arrived = read_all(&site.dir().join("piped"));
    assert_eq!(arrived.len(), 2 * all().len());
    assert_verified(&arrived, true);
}
