//! A private spool with its configuration, and the program that works on it.
//!
//! The caller's environment does not reach the program, and no process that it starts outlives the test.
//! Every wait is for an event, with a deadline that is reached only if something is broken.

// Each test crate uses only a part of this module.
#![allow(dead_code)]

pub mod crowd;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mailspool::testing::accept::{Acceptor, Limits, Request};
use mailspool::testing::message::{Address, Dsn, Entrance, ReversePath, Seal};
use mailspool::testing::spool::Spool;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A deadline that only a hang can exceed.
pub const LONG: Duration = Duration::from_secs(60);

/// How many times as long everything takes here: 1, or what `MAILSPOOL_PACE` says, where a machine is
/// emulated.
pub fn pace() -> u32 {
    let given = std::env::var("MAILSPOOL_PACE");
    given.map_or(1, |pace| pace.parse().expect("MAILSPOOL_PACE is a number"))
}

/// A spool below a directory, which is removed with it unless the caller owns it.
pub struct Site {
    dir: PathBuf,
    _own: Option<TempDir>,
}

/// How a program ended, and its output.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Site {
    /// A spool with this configuration, in which `{dir}` is replaced by the directory around it.
    pub fn new(config: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::at(dir.path());
        site._own = Some(dir);
        site.make(config);
        site
    }

    /// The same in the caller's directory, such as the root of a file system.
    pub fn new_in(dir: &Path, config: &str) -> Site {
        let site = Site::at(dir);
        site.make(config);
        site
    }

    /// An existing spool in this directory.
    pub fn at(dir: &Path) -> Site {
        Site {
            dir: dir.to_owned(),
            _own: None,
        }
    }

    fn make(&self, config: &str) {
        assert_eq!(
            self.program(["init"], b"").ok(),
            format!("The spool is {}.\n", self.spool().display())
        );
        self.configure(config);
    }

    /// A spool that delivers all mail into the Maildir `box`.
    pub fn with_box() -> Site {
        Site::new(BOX)
    }

    /// Replaces the configuration.
    pub fn configure(&self, config: &str) {
        let mut text = format!("hostname = \"mail.test\"\n{config}");
        if !config.contains("[log]") {
            text.push_str("\n[log]\nto = \"none\"\n");
        }
        let text = text.replace("{dir}", self.dir.to_str().unwrap());
        fs::write(self.spool().join("config.toml"), text).unwrap();
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// The program on this spool, in a clean environment.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = program();
        command.env("HOME", &self.dir);
        command.arg("--spool").arg(self.spool()).args(arguments);
        command
    }

    /// Runs the program to its end.
    pub fn program<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Ended {
        ended(&mut self.command(arguments), input)
    }

    /// Sends a message to `to` without starting an attempt, and returns its id.
    pub fn queue(&self, to: &[&str]) -> String {
        let send = ["send", "--queue-only", "-f", "sender@example.org", "--"];
        let id = self.program(send.iter().chain(to), LETTER).ok();
        id.trim_end().to_owned()
    }

    /// Queues messages quickly, half by each entrance: through the library, by threads that share barriers.
    /// The n-th message has its number as its subject.
    pub fn queue_many(&self, count: usize, to: impl Fn(usize) -> String + Sync) {
        const THREADS: usize = 10;
        let spool = Spool::open(&self.spool()).unwrap();
        let acceptor = Acceptor::new(spool, Limits::new("mail.test"));
        let accept = &|n: usize| {
            let entrance = match n % 2 {
                0 => Entrance::Active,
                _ => Entrance::Incoming,
            };
            let request = Request {
                entrance,
                sender: ReversePath::parse(b"a@example.org").unwrap(),
                recipients: vec![Address::parse(&to(n)).unwrap()],
                transport: None,
                dsn: Dsn::default(),
                submitter: "crowd".into(),
                key: None,
                release: None,
            };
            let message = format!("Subject: {n}\n\nbody\n");
            acceptor.accept(request, message.as_bytes()).unwrap();
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || (thread..count).step_by(THREADS).for_each(accept));
            }
        });
    }

    /// One pass.
    pub fn run(&self) -> Ended {
        self.program(["run"], b"")
    }

    /// `list --json`, parsed.
    pub fn rows(&self) -> Vec<Value> {
        let text = self.program(["list", "--json"], b"").ok();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The row of the only message.
    pub fn row(&self) -> Value {
        let mut rows = self.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    /// `show --json` of one message.
    pub fn shown(&self, id: &str) -> Value {
        serde_json::from_str(&self.program(["show", "--json", id], b"").ok()).unwrap()
    }

    /// The copies in the Maildir `box`.
    pub fn boxed(&self) -> Vec<String> {
        let names = names(&self.dir.join("box/new"));
        let read = |name: &String| fs::read(self.dir.join("box/new").join(name)).unwrap();
        names
            .iter()
            .map(|name| String::from_utf8_lossy(&read(name)).into_owned())
            .collect()
    }

    /// Whether the spool holds no message in any queue.
    pub fn is_empty(&self) -> bool {
        names(&self.spool().join("info/sender")).is_empty() && self.message_files().is_empty()
    }

    /// Every message file, in any queue.
    pub fn message_files(&self) -> Vec<PathBuf> {
        let places = [
            "new",
            "staged",
            "incoming",
            "active",
            "deferred",
            "frozen",
            "discarded",
            "done",
        ];
        let is_removed = |path: &PathBuf| {
            let name = path.file_name().unwrap();
            name.as_encoded_bytes().starts_with(b".nfs")
        };
        places
            .iter()
            .flat_map(|place| files(&self.spool().join(place)))
            .filter(|path| !is_removed(path))
            .collect()
    }

    /// Waits until the spool is empty.
    pub fn until_empty(&self) {
        until("the spool is empty", || self.is_empty());
    }

    /// Asserts that `check` finds nothing, and that the queue is empty.
    pub fn is_clean_and_empty(&self) {
        assert_eq!(
            self.program(["check"], b"").ok(),
            "0 messages, no problems.\n"
        );
    }

    /// Makes a gate at which a command can wait: `: <{dir}/name` in a shell script.
    pub fn gate(&self, name: &str) -> Gate {
        let path = self.dir.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        Gate { path, open: None }
    }

    /// The lines of a file that commands write to; none if it does not exist.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Processes of the program that work on this spool.
    pub fn processes(&self) -> Vec<Pid> {
        let spool = self.spool();
        let spool = spool.to_str().unwrap();
        let of_ours = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|word| word == spool.as_bytes())
        };
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw);
        let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let mut found: Vec<Pid> = all.filter(of_ours).filter_map(pid).collect();
        let all = found.clone();
        // A child just forked to run a command still has its parent's arguments.
        found.retain(|pid| {
            *pid != Pid::this() && parent(*pid).is_none_or(|parent| !all.contains(&parent))
        });
        found
    }
}

fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

impl Drop for Site {
    /// Waits for processes in the background, and kills those that are left after 5 seconds.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < deadline && !thread::panicking() {
            thread::sleep(Duration::from_millis(10));
        }
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// A gate that is closed until it is opened or dropped. Commands wait at it in the open of a FIFO that has no
/// writer.
pub struct Gate {
    path: PathBuf,
    open: Option<File>,
}

impl Gate {
    pub fn open(&mut self) {
        // For both directions: opening for writing alone would wait for a reader.
        self.open = Some(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&self.path)
                .unwrap(),
        );
    }
}

impl Drop for Gate {
    /// Releases every waiting command. Later readers find no FIFO.
    fn drop(&mut self) {
        // The kernel releases every waiting reader, even if the FIFO is closed before they run.
        drop(OpenOptions::new().read(true).write(true).open(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

impl Ended {
    /// The standard output of a program that succeeded.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.text()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "status {}\nstdout: {}\nstderr: {}",
            self.code,
            self.text(),
            self.err
        )
    }
}

/// Configuration that delivers all mail into the Maildir `box`.
pub const BOX: &str = r#"
[transport.box]
type = "maildir"
path = "{dir}/box"
[[route]]
domain = "*"
transport = "box"
"#;

/// A small message.
pub const LETTER: &[u8] = b"From: sender@example.org\nSubject: hello\n\nHello.\n";

/// Configuration of a transport that runs a shell script. `{dir}` is replaced in it; other braces are not allowed.
pub fn pipe(name: &str, script: &str) -> String {
    format!(
        "\n[transport.{name}]\ntype = \"pipe\"\ntimeout = \"50s\"\n\
         command = [\"/bin/sh\", \"-c\", '''{script}''']\n"
    )
}

/// Configuration of a route.
pub fn route(key: &str, value: &str, transport: &str) -> String {
    format!("\n[[route]]\n{key} = \"{value}\"\ntransport = \"{transport}\"\n")
}

/// The program, in a clean environment and without a spool.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailspool"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"MAILSPOOL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("XDG_STATE_HOME").env("TZ", "UTC");
    command
}

/// Runs a command to its end with this input, and collects its output. That includes processes that inherited
/// its output, so a program left in the background with the output open is noticed here.
#[track_caller]
pub fn ended(command: &mut Command, input: &[u8]) -> Ended {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Not waited for: a program may end without reading all of its input.
    thread::spawn(move || drop(stdin.write_all(&input)));
    outcome(child, command)
}

/// Collects the piped output of a child until it ends.
#[track_caller]
pub fn outcome(mut child: Child, command: &Command) -> Ended {
    let hear = |from: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            from.map(|mut from| from.read_to_end(&mut bytes).unwrap());
            bytes
        })
    };
    let out = hear(child.stdout.take().map(|from| Box::new(from) as _));
    let err = hear(child.stderr.take().map(|from| Box::new(from) as _));
    let code = code_of(&mut child, command);
    until("its output is closed", || {
        out.is_finished() && err.is_finished()
    });
    let err = String::from_utf8_lossy(&err.join().unwrap()).into_owned();
    Ended {
        code,
        out: out.join().unwrap(),
        err,
    }
}

/// Waits for a child, and kills it if it hangs.
#[track_caller]
pub fn code_of(child: &mut Child, command: &Command) -> i32 {
    let deadline = Instant::now() + LONG * pace();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it hangs: {command:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG * pace();
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a directory, sorted; none if it does not exist.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .map(Iterator::collect::<Vec<_>>)
        .unwrap_or_default();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .into_iter()
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every file below a directory. Files removed meanwhile may be missing.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}

/// The message in a message file, without its envelope block.
pub fn message_in(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let seal = Seal::parse(&bytes).unwrap();
    bytes.split_off(usize::try_from(seal.block).unwrap())
}
