//! The log: one line per recipient and attempt, to every destination, whatever it contains.
//!
//! The sockets of journald and syslogd are the test's, bind-mounted over the system's in a mount namespace of
//! the program.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::everything_by;
use super::program::{BOX, Ended, Site, code_of, ended};

/// A server with replies that attack the reader of a log.
struct Rude {
    port: u16,
}

/// Ends lines, clears the screen, rings, reorders text, and imitates a field.
const RUDE: &[u8] =
    b"no\x1b[2J\x07\xe2\x80\xa8such\xe2\x80\xae\xc2\x85user\x00\" status=\"delivered\" \xff";

impl Rude {
    fn start() -> Rude {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = &stream;
                    stream.write_all(b"220 rude.test\r\n").unwrap();
                    let mut line = Vec::new();
                    while lines
                        .read_until(b'\n', &mut line)
                        .is_ok_and(|read| read > 0)
                    {
                        let text = String::from_utf8_lossy(&line).into_owned();
                        let reply = match &text {
                            text if text.starts_with("EHLO") => {
                                b"250-rude.test\r\n250 SMTPUTF8\r\n".to_vec()
                            }
                            text if text.contains("refused") => {
                                [b"550-5.1.1 ", RUDE, b"\r\n550 5.1.1 really\r\n"].concat()
                            }
                            text if text.contains("later") => b"450 not now\r\n".to_vec(),
                            text if text.starts_with("DATA") => b"354 go on\r\n".to_vec(),
                            text if text.starts_with(".\r") => b"250 taken\r\n".to_vec(),
                            text if ["MAIL", "RCPT", "RSET", "QUIT"]
                                .iter()
                                .any(|verb| text.starts_with(verb)) =>
                            {
                                b"250 2.1.0 fine\r\n".to_vec()
                            }
                            _ => Vec::new(),
                        };
                        if stream.write_all(&reply).is_err() {
                            return;
                        }
                        line.clear();
                    }
                });
            }
        });
        Rude { port }
    }
}

/// A socket that receives datagrams.
struct Ear {
    path: PathBuf,
    heard: Receiver<Vec<u8>>,
}

impl Ear {
    fn new(path: PathBuf) -> Ear {
        let socket = UnixDatagram::bind(&path).unwrap();
        let (say, heard) = channel();
        thread::spawn(move || {
            let mut bytes = vec![0; 1 << 18];
            while let Ok(size) = socket.recv(&mut bytes) {
                if say.send(bytes[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ear { path, heard }
    }

    /// Returns all datagrams up to one that contains `words`.
    fn until(&self, words: &str) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let said = self.heard.recv_timeout(Duration::from_secs(60)).unwrap();
            let is_last = String::from_utf8_lossy(&said).contains(words);
            all.push(said);
            if is_last {
                return all;
            }
        }
    }
}

/// Runs the program with these sockets of journald and syslogd, or without any.
fn run_beside(site: &Site, journal: Option<&Path>, syslog: Option<&Path>) -> Ended {
    ended(&mut beside(site, journal, syslog, &["run", "--quiet"]), b"")
}

/// The same for other commands.
pub(super) fn beside(
    site: &Site,
    journal: Option<&Path>,
    syslog: Option<&Path>,
    arguments: &[&str],
) -> Command {
    const SCRIPT: &str = r#"
        mount -t tmpfs none /run
        if [ -n "$1" ]; then
            mkdir -p /run/systemd/journal
            : >/run/systemd/journal/socket
            mount --bind "$1" /run/systemd/journal/socket
        fi
        mkdir /run/dev
        for device in null zero urandom; do
            : >"/run/dev/$device"
            mount --bind "/dev/$device" "/run/dev/$device"
        done
        if [ -n "$2" ]; then
            : >/run/dev/log
            mount --bind "$2" /run/dev/log
        fi
        mount --rbind /run/dev /dev
        shift 2
        exec "$@""#;
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let path = |path: Option<&Path>| path.map(Path::to_owned).unwrap_or_default();
    let inner = site.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", SCRIPT, "sh"]);
    command.arg(path(journal)).arg(path(syslog));
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// A site with a message to four recipients, three of which get a reply.
fn site(port: u16, to: &str, format: &str) -> (Site, String) {
    let keys = format!("type = \"smtp\"\nhost = \"[127.0.0.1]:{port}\"\ntls = \"none\"");
    let log = format!("\n[log]\nto = \"{to}\"\nformat = \"{format}\"\n");
    // The bounces are not examined.
    let back = "\n[transport.box]\ntype = \"maildir\"\npath = \"{dir}/box\"\n".to_owned()
        + &super::route("recipient", "sender@example.org", "box");
    let site = Site::new(&(back + &everything_by(&keys) + &log));
    let id = site.queue(&["fine@x.test", "refused@x.test", "later@x.test", ODD]);
    (site, id)
}

/// A valid address that looks like a field of the log.
const ODD: &str = "\"a  b status=\\\"failed\\\" to=\"@x.test";

/// Checks the attempt's three lines in JSON, by recipient.
fn check_objects(objects: &[Value], id: &str) {
    let attempts: Vec<&Value> = objects
        .iter()
        .filter(|object| object["message"] == "attempt" && object["id"] == id)
        .collect();
    assert_eq!(attempts.len(), 4, "{objects:#?}");
    let by = |to: &str| *attempts.iter().find(|one| one["to"] == to).unwrap();
    for (to, dsn, status, reply) in [
        ("fine@x.test", "2.0.0", "delivered", "250 taken"),
        ("later@x.test", "4.0.0", "deferred", "450 not now"),
        (ODD, "2.0.0", "delivered", "250 taken"),
        ("refused@x.test", "5.1.1", "failed", ""),
    ] {
        let line = by(to);
        assert_eq!(line["from"], "sender@example.org");
        assert_eq!(line["transport"], "out");
        let relay = line["relay"].as_str().unwrap();
        assert!(relay.starts_with("[127.0.0.1]:"), "{relay}");
        assert_eq!(
            (&line["dsn"], &line["status"]),
            (&dsn.into(), &status.into())
        );
        assert!(
            line["delay"].as_f64().is_some_and(|delay| delay < 60.0),
            "{line}"
        );
        let said = line["reply"].as_str().unwrap();
        assert!(said == reply || reply.is_empty(), "{line}");
    }
    let reply = by("refused@x.test")["reply"].as_str().unwrap();
    assert!(reply.starts_with("550 5.1.1 no[2J"), "{reply}");
    assert!(reply.ends_with(" really"), "{reply}");
    assert!(!reply.contains(|c: char| c.is_control()), "{reply:?}");
}

/// Checks the same lines as text.
fn check_lines(lines: &[String], id: &str) {
    for line in lines {
        let harmful = |c: char| c.is_control() || "\u{2028}\u{202e}\u{85}".contains(c);
        assert!(!line.contains(harmful), "{line:?}");
    }
    let start = format!("attempt id={id} from=\"sender@example.org\" to=");
    let attempts: Vec<&String> = lines.iter().filter(|line| line.contains(&start)).collect();
    assert_eq!(attempts.len(), 4, "{lines:#?}");
    for (to, end) in [
        (
            "to=\"fine@x.test\"",
            "dsn=\"2.0.0\" status=\"delivered\" reply=\"250 taken\"",
        ),
        (
            "to=\"later@x.test\"",
            "dsn=\"4.0.0\" status=\"deferred\" reply=\"450 not now\"",
        ),
        (
            "to=\"\\\"a  b status=",
            "dsn=\"2.0.0\" status=\"delivered\" reply=\"250 taken\"",
        ),
        ("to=\"refused@x.test\"", "really\""),
    ] {
        let line = attempts.iter().find(|line| line.contains(to));
        let line = line.unwrap_or_else(|| panic!("{to}: {lines:#?}"));
        assert!(
            line.contains(" transport=\"out\" relay=\"[127.0.0.1]:"),
            "{line}"
        );
        assert!(line.ends_with(end), "{line}");
    }
    let refused = attempts
        .iter()
        .find(|line| line.contains("refused@"))
        .unwrap();
    let part = "dsn=\"5.1.1\" status=\"failed\" reply=\"550 5.1.1 no[2J";
    // The server's text stays within its quotes.
    assert!(
        refused.contains(part) && refused.contains("\\\" status=\\\"delivered\\\""),
        "{refused}"
    );
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn on_standard_error() {
    let rude = Rude::start();
    let (text, id) = site(rude.port, "stderr", "text");
    let said = run_beside(&text, None, None);
    check_lines(
        &said.err.lines().map(str::to_owned).collect::<Vec<_>>(),
        &id,
    );
    let (json, id) = site(rude.port, "stderr", "json");
    let said = run_beside(&json, None, None);
    check_objects(&said.err.lines().map(object).collect::<Vec<_>>(), &id);
}

/// RFC 3164 format, one datagram per line.
#[test]
fn by_syslog() {
    let rude = Rude::start();
    for (to, format) in [("syslog", "text"), ("auto", "json")] {
        let (site, id) = site(rude.port, to, format);
        let ear = Ear::new(site.dir().join("log"));
        let said = run_beside(&site, None, Some(&ear.path));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said}");
        let all = ear.until(
            "to=\"sender@example.org\""
                .replace("to=", if format == "json" { "\"to\":" } else { "to=" })
                .as_str(),
        );
        let line = |bytes: &Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            // Facility mail, severity informational or warning.
            let text = text.strip_prefix("<22>").or(text.strip_prefix("<20>"));
            let (head, line) = text.unwrap().split_once("]: ").unwrap();
            assert!(head.contains(" mailspool["), "{head}");
            line.trim_end_matches('\0').to_owned()
        };
        let lines: Vec<String> = all.iter().map(line).collect();
        match format {
            "text" => check_lines(&lines, &id),
            _ => check_objects(
                &lines.iter().map(|line| object(line)).collect::<Vec<_>>(),
                &id,
            ),
        }
    }
}

/// The native protocol: a name, a newline, a length in 64 bits, the value, a newline.
fn journal_fields(datagram: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let allowed = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(
            name.chars().all(allowed) && !name.starts_with('_'),
            "{name}"
        );
        let (length, after) = rest[end + 1..].split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let value = String::from_utf8(after[..length].to_vec()).unwrap();
        assert_eq!(after[length], b'\n');
        rest = &after[length + 1..];
        assert!(fields.insert(name, value).is_none());
    }
    fields
}

#[test]
fn by_journald() {
    let rude = Rude::start();
    for (to, format) in [("journald", "text"), ("auto", "json")] {
        let (site, id) = site(rude.port, to, format);
        let ear = Ear::new(site.dir().join("journal"));
        let said = run_beside(&site, Some(&ear.path), None);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said}");
        let all: Vec<_> = ear
            .until("MAILSPOOL_TO\n\u{12}\0\0\0\0\0\0\0sender@")
            .iter()
            .map(|d| journal_fields(d))
            .collect();
        let lines: Vec<String> = all.iter().map(|one| one["MESSAGE"].clone()).collect();
        match format {
            "text" => check_lines(&lines, &id),
            _ => check_objects(
                &lines.iter().map(|line| object(line)).collect::<Vec<_>>(),
                &id,
            ),
        }
        let later = all.iter().find(|line| {
            line.get("MAILSPOOL_TO")
                .is_some_and(|to| to == "later@x.test")
        });
        for (name, value) in [
            ("PRIORITY", "6"),
            ("SYSLOG_FACILITY", "2"),
            ("SYSLOG_IDENTIFIER", "mailspool"),
            ("MAILSPOOL_ID", &*id),
            ("MAILSPOOL_FROM", "sender@example.org"),
            ("MAILSPOOL_DSN", "4.0.0"),
            ("MAILSPOOL_STATUS", "deferred"),
            ("MAILSPOOL_REPLY", "450 not now"),
        ] {
            assert_eq!(later.unwrap()[name], value, "{name}");
            let relay = &later.unwrap()["MAILSPOOL_RELAY"];
            assert!(relay.starts_with("[127.0.0.1]:"), "{relay}");
        }
        let odd =
            |name: &&BTreeMap<String, String>| name.get("MAILSPOOL_TO").is_some_and(|to| to == ODD);
        assert_eq!(all.iter().filter(odd).count(), 1);
    }
}

/// If the socket has no listener, the lines go to standard error, not away.
#[test]
fn without_a_listener_it_goes_to_standard_error() {
    let rude = Rude::start();
    for to in ["auto", "syslog", "journald"] {
        let (site, id) = site(rude.port, to, "text");
        let said = run_beside(&site, None, None);
        check_lines(
            &said.err.lines().map(str::to_owned).collect::<Vec<_>>(),
            &id,
        );
    }
    let (site, _) = site(rude.port, "none", "text");
    assert_eq!(run_beside(&site, None, None).err, "");
}

fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn end(child: &mut Child, command: &Command) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(code_of(child, command), 0);
}

/// A reload switches to a log that exists, and keeps the old one if the new one is missing.
#[test]
fn a_run_that_stays_goes_from_log_to_log() {
    const IN_FORCE: &str = "the configuration has been read again and is in force";
    let dir = tempfile::tempdir().unwrap();
    let journal = Ear::new(dir.path().join("journal"));
    let syslog = Ear::new(dir.path().join("syslog"));
    let text = |to: &str| format!("{BOX}\n[log]\nto = \"{to}\"\n");
    let site = Site::new(&text("syslog"));
    let mut command = beside(
        &site,
        Some(&journal.path),
        Some(&syslog.path),
        &["run", "--watch"],
    );
    let mut child = start(&mut command);
    let first = site.queue(&["b@example.test"]);
    syslog.until(&format!("attempt id={first}"));
    site.configure(&text("journald"));
    syslog.until("this is the last line in this log");
    journal.until(IN_FORCE);
    let second = site.queue(&["b@example.test"]);
    journal.until(&format!("attempt id={second}"));
    site.configure(&text("syslog"));
    journal.until("this is the last line in this log");
    syslog.until(IN_FORCE);
    let third = site.queue(&["b@example.test"]);
    syslog.until(&format!("attempt id={third}"));
    assert_eq!(journal.heard.try_iter().count(), 0);
    end(&mut child, &command);

    // Without journald the log stays as it was, and the rest of the configuration takes effect.
    let site = Site::new(&text("syslog"));
    let mut command = beside(&site, None, Some(&syslog.path), &["run", "--watch"]);
    let mut child = start(&mut command);
    let first = site.queue(&["b@example.test"]);
    syslog.until(&format!("attempt id={first}"));
    site.configure(&text("journald"));
    syslog.until("[log] cannot be used; the previous log stays in use");
    syslog.until(IN_FORCE);
    let second = site.queue(&["b@example.test"]);
    syslog.until(&format!("attempt id={second}"));
    end(&mut child, &command);
}
