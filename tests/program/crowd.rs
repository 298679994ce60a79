//! Groups of processes that are killed with SIGKILL at random moments, and what they leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Site, code_of, files, names, pace, pipe, route, until};

/// Configuration: what was interrupted is tried again soon.
pub const RETRY: &str = "[retry]\nphases = [{ until = \"1h\", every = \"1m\" }]\n";

/// Processes, each killed after its lifetime.
pub struct Crowd<T> {
    members: Vec<Member<T>>,
    pub kills: usize,
    /// How many times a process was stopped.
    pub stops: usize,
}

struct Member<T> {
    role: T,
    child: Child,
    end: Instant,
    /// Stopped until then.
    stopped: Option<Instant>,
}

impl<T> Member<T> {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        // The child has not been waited for, so the pid is still valid.
        kill(pid, signal).unwrap();
    }
}

impl<T> Crowd<T> {
    pub fn new() -> Crowd<T> {
        Crowd {
            members: Vec::new(),
            kills: 0,
            stops: 0,
        }
    }

    pub fn join(&mut self, role: T, child: Child, life: Duration) {
        self.members.push(Member {
            role,
            child,
            end: Instant::now() + life,
            stopped: None,
        });
    }

    /// Stops a process at an arbitrary point, for `time`. It may be killed while it is stopped.
    pub fn stop(&mut self, which: usize, time: Duration) {
        let member = &mut self.members[which];
        member.signal(Signal::SIGSTOP);
        member.stopped = Some(Instant::now() + time);
        self.stops += 1;
    }

    pub fn is_stopped(&self, which: usize) -> bool {
        self.members[which].stopped.is_some()
    }

    /// Continues every stopped process after its time, or all.
    pub fn go_on(&mut self, all: bool) {
        let now = Instant::now();
        for member in &mut self.members {
            if member.stopped.is_some_and(|end| all || now >= end) {
                member.signal(Signal::SIGCONT);
                member.stopped = None;
            }
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn count(&self, is: impl Fn(&T) -> bool) -> usize {
        self.members.iter().filter(|one| is(&one.role)).count()
    }

    /// Reaps the processes that ended and kills those past their lifetime. Returns their roles, with the
    /// status if not killed: a success counts even if it came just before the kill.
    pub fn bury(&mut self) -> Vec<(T, Option<i32>)> {
        let now = Instant::now();
        self.end(|end| now >= end)
    }

    /// Kills every process at once.
    pub fn kill_all(&mut self) -> Vec<(T, Option<i32>)> {
        self.end(|_| true)
    }

    fn end(&mut self, is_over: impl Fn(Instant) -> bool) -> Vec<(T, Option<i32>)> {
        let mut ended = Vec::new();
        for mut member in std::mem::take(&mut self.members) {
            let status = match member.child.try_wait().unwrap() {
                Some(status) => status,
                None if is_over(member.end) => {
                    member.child.kill().unwrap();
                    member.child.wait().unwrap()
                }
                None => {
                    self.members.push(member);
                    continue;
                }
            };
            self.kills += usize::from(status.code().is_none());
            ended.push((member.role, status.code()));
        }
        ended
    }

    /// The processes that are left, to be waited for.
    pub fn disband(mut self) -> Vec<(T, Child)> {
        let members = std::mem::take(&mut self.members);
        members
            .into_iter()
            .map(|member| (member.role, member.child))
            .collect()
    }
}

impl<T> Drop for Crowd<T> {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

/// Runners that are killed and started again until nothing is left.
pub struct Storm<'a> {
    site: &'a Site,
    random: &'a mut Random,
    runners: Crowd<()>,
}

impl Storm<'_> {
    const RUNNERS: usize = 6;
    /// Messages in flight per runner.
    pub const JOBS: usize = 4;

    pub fn new<'a>(site: &'a Site, random: &'a mut Random) -> Storm<'a> {
        Storm {
            site,
            random,
            runners: Crowd::new(),
        }
    }

    /// Returns the number of kills.
    pub fn blow(mut self) -> usize {
        let all = self.left();
        let mut looked_at_locks = false;
        until("the storm has delivered everything", || {
            while self.runners.len() < Self::RUNNERS {
                let life = self.random.below(500) * pace();
                self.runners.join((), start_runner(self.site), life);
            }
            let ended = self.runners.bury();
            for (_, code) in &ended {
                let troubles = || {
                    let log = self.site.lines("log").into_iter();
                    let is_trouble = |line: &String| line.contains(" ERROR ");
                    log.filter(is_trouble).collect::<Vec<_>>().join("\n")
                };
                let is_well = matches!(code, Some(0) | None);
                assert!(is_well, "a runner: {code:?}\n{}", troubles());
            }
            let left = self.left();
            if !looked_at_locks && left < all * 2 / 3 {
                looked_at_locks = true;
                self.runners.kill_all();
                calm(self.site);
            }
            // A runner found no more due messages: make the interrupted ones due.
            if !ended.is_empty() {
                hurry(self.site);
            }
            left == 0 && self.site.is_empty()
        });
        let kills = self.runners.kills;
        for (_, mut runner) in self.runners.disband() {
            let code = code_of(&mut runner, &Command::new("run"));
            assert_eq!(code, 0, "a runner that was left alone");
        }
        assert!(kills > Self::RUNNERS, "no storm: {kills} kills");
        kills
    }

    fn left(&self) -> usize {
        names(&self.site.spool().join("info/sender")).len()
    }
}

/// Runners that are killed while they deliver so many messages to a command, into a new spool in a directory. None is
/// lost, and only what was in hand at a kill is doubled. Returns the numbers of kills and of the doubled.
pub fn storm_over_a_command(dir: &Path, messages: usize, random: &mut Random) -> (usize, usize) {
    // One write, of one line, to a file opened for appending.
    let script = "cat >/dev/null; echo \"$MAILSPOOL_ID $RECIPIENT\" >>{dir}/delivered";
    let config = pipe("count", script) + &route("domain", "*", "count");
    let config = format!("{config}\n[log]\nto = \"stderr\"\n");
    let site = Site::new_in(dir, &format!("{RETRY}{config}"));
    site.queue_many(messages, |n| format!("r{n}@example.test"));
    let kills = Storm::new(&site, random).blow();

    let delivered = site.lines("delivered");
    let distinct: BTreeSet<&String> = delivered.iter().collect();
    assert_eq!(distinct.len(), messages, "lost");
    assert!(
        distinct.iter().all(|line| line.ends_with("@example.test")),
        "{distinct:?}"
    );
    let doubled = delivered.len() - distinct.len();
    println!("{kills} kills, {doubled} doubled");
    assert!(
        doubled <= kills * Storm::JOBS,
        "{doubled} doubled by {kills} kills"
    );
    nothing_is_left(&site);
    (kills, doubled)
}

pub fn start_runner(site: &Site) -> Child {
    let mut command = site.command(["run", "--quiet", "--jobs", &Storm::JOBS.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // What it says is wanted when it fails.
    let log = site.dir().join("log");
    let log = fs::OpenOptions::new().append(true).create(true).open(log);
    command.stderr(log.map_or_else(|_| Stdio::inherit(), Stdio::from));
    command.spawn().unwrap()
}

/// Starts a submitter that reads its message from a file. Every second one uses `receive`, every third a key.
pub fn start_submitter(site: &Site, serial: usize) -> Child {
    let key = format!("--key={serial}");
    submitter(site, serial, serial.is_multiple_of(3).then_some(key))
}

/// The same with another word on its command line.
pub fn submitter(site: &Site, serial: usize, word: Option<String>) -> Child {
    let verb = ["send", "receive"][serial % 2];
    let words = ["-f", "a@example.org", "b@example.test"].map(str::to_owned);
    let mut command = site.command([verb]);
    command.args(word).args(words);
    command.stdin(letter(serial)).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// The message with this number, in an unnamed file.
pub fn letter(serial: usize) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    let text = format!("X-Serial: {serial}\n{}", body(serial));
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

/// Some are large enough to be killed in the middle of the write.
fn body(serial: usize) -> String {
    let lines = if serial.is_multiple_of(5) { 20_000 } else { 3 };
    format!(
        "\n{}end of {serial}\n",
        format!("a line of message {serial}\n").repeat(lines)
    )
}

/// The deliveries in the Maildir: how often each number occurs, and which copies are not whole.
pub fn delivered(site: &Site) -> (BTreeMap<usize, usize>, Vec<String>) {
    let mut counts = BTreeMap::new();
    let mut torn = Vec::new();
    for copy in site.boxed() {
        let serial = copy
            .lines()
            .find_map(|line| line.strip_prefix("X-Serial: "));
        let serial: Option<usize> = serial.and_then(|serial| serial.parse().ok());
        match serial.filter(|serial| copy.ends_with(&body(*serial))) {
            Some(serial) => *counts.entry(serial).or_default() += 1,
            None => torn.push(format!("{serial:?}, {} octets", copy.len())),
        }
    }
    (counts, torn)
}

/// Asserts that every accepted number is in the Maildir, whole, and none twice.
pub fn nothing_is_lost_or_doubled(site: &Site, accepted: &BTreeSet<usize>) {
    let (delivered, torn) = delivered(site);
    assert!(torn.is_empty(), "torn: {torn:?}");
    let lost: Vec<_> = accepted
        .iter()
        .filter(|serial| !delivered.contains_key(serial))
        .collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    let doubled: Vec<_> = delivered.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
}

/// Asserts that no process is at work: nothing is locked, and `check` reports no problem.
pub fn calm(site: &Site) {
    nothing_is_locked(site);
    let checked = site.program(["check"], b"");
    assert_eq!(checked.code, 0, "{checked}");
    let text = checked.text();
    assert!(text.ends_with("no problems.\n"), "{checked}");
}

/// Makes interrupted messages due, and thaws those that an interruption froze.
pub fn hurry(site: &Site) {
    site.program(["flush", "--queue-only"], b"").ok();
    release(site, "thaw", &names(&site.spool().join("frozen/never")));
}

/// Releases held messages. A message that is gone or already free is not a failure.
pub fn release(site: &Site, verb: &str, ids: &[String]) {
    if !ids.is_empty() {
        let words = [verb, "--queue-only"].map(str::to_owned);
        let released = site.program(words.iter().chain(ids), b"");
        assert!([0, 69].contains(&released.code), "{released}");
    }
}

pub fn nothing_is_left(site: &Site) {
    nothing_is_locked(site);
    // A command that a killed runner was starting may need a moment to end.
    until("no process is left", || site.processes().is_empty());
    // A killed process may leave a file that was not yet renamed. That is not a problem, and a repair removes it.
    let repaired = site.program(["check", "--repair"], b"").ok();
    assert!(
        !repaired.lines().any(|line| line.starts_with("problem")),
        "{repaired}"
    );
    site.is_clean_and_empty();
}

/// Waits until nothing is locked. A killed process holds no lock, but a command that it forked has its
/// parent's descriptors until the exec.
fn nothing_is_locked(site: &Site) {
    let is_locked = |path: &PathBuf| {
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        match file {
            Ok(file) => file.try_lock().is_err(),
            // On NFS a file that is removed while it is open has another name until it is closed.
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
                false
            }
        }
    };
    until("nothing is locked", || {
        !files(&site.spool()).iter().any(is_locked)
    });
}

/// A small generator (xorshift64*), seeded with the run's seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // The product is odd, so the state is never zero, from which the generator could not leave.
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A duration below this many milliseconds.
    pub fn below(&mut self, milliseconds: u64) -> Duration {
        Duration::from_micros((self.next() >> 11) % (milliseconds * 1000))
    }

    /// A number below `end`.
    pub fn pick(&mut self, end: usize) -> usize {
        ((self.next() >> 11) % end as u64) as usize
    }
}
