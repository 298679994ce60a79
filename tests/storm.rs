//! Many processes on one spool, killed with SIGKILL at random moments.
//!
//! What belongs here: crowds, and what they must not do to each other or to the mail. The moments
//! are random, the outcome is not: no message is lost, only those in flight can double, nothing
//! stays locked. A failure prints the seed; `STORM_SEED` repeats it, as far as a scheduler does.

mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use program::{BOX, Site, code_of, files, names, pipe, route, until};

const RETRY: &str = "[retry]\nphases = [{ until = \"1h\", every = \"1m\" }]\n";
const RUNNERS: usize = 6;
const JOBS: usize = 4;

#[test]
fn killed_runners_lose_nothing_and_a_maildir_gets_each_message_once() {
    const MESSAGES: usize = 1000;
    let site = Site::new(&format!("{RETRY}{BOX}"));
    let mut random = Random::new();
    site.queue_many(MESSAGES, |n| format!("r{n}@example.test"));
    Storm::new(&site, &mut random).blow();

    let mut subjects = BTreeMap::<String, usize>::new();
    for copy in site.boxed() {
        assert!(copy.ends_with("\n\nbody\n"), "torn:\n{copy}");
        let subject = copy.lines().find(|line| line.starts_with("Subject: "));
        *subjects.entry(subject.unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(subjects.len(), MESSAGES, "lost");
    let doubled: Vec<_> = subjects.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let unfinished = names(&site.dir().join("box/tmp"));
    println!("{} unfinished copies in tmp/", unfinished.len());
    nothing_is_left(&site);
}

#[test]
fn killed_runners_double_at_most_what_they_had_in_hand() {
    const MESSAGES: usize = 200;
    // One write, of one line, to a file opened for appending.
    let script = "cat >/dev/null; echo \"$MAILSPOOL_ID $RECIPIENT\" >>{dir}/delivered";
    let config = pipe("count", script) + &route("domain", "*", "count");
    let site = Site::new(&format!("{RETRY}{config}"));
    let mut random = Random::new();
    site.queue_many(MESSAGES, |n| format!("r{n}@example.test"));
    let kills = Storm::new(&site, &mut random).blow();

    let delivered = site.lines("delivered");
    let distinct: BTreeSet<&String> = delivered.iter().collect();
    assert_eq!(distinct.len(), MESSAGES, "lost");
    assert!(
        distinct.iter().all(|line| line.ends_with("@example.test")),
        "{distinct:?}"
    );
    let doubled = delivered.len() - distinct.len();
    println!("{kills} kills, {doubled} doubled");
    assert!(
        doubled <= kills * JOBS,
        "{doubled} doubled by {kills} kills"
    );
    nothing_is_left(&site);
}

#[test]
fn killed_submitters_leave_whole_messages_or_none() {
    const SUBMITTERS: usize = 240;
    const AT_ONCE: usize = 8;
    let site = Site::with_box();
    let mut random = Random::new();
    let mut accepted = BTreeSet::new();
    let mut killed = 0;
    let mut serials = 0..SUBMITTERS;
    let mut crowd: Vec<(usize, Child, Instant)> = Vec::new();
    loop {
        while crowd.len() < AT_ONCE {
            let Some(serial) = serials.next() else { break };
            let child = submit(&site, serial);
            crowd.push((serial, child, Instant::now() + random.below(120)));
        }
        if crowd.is_empty() {
            break;
        }
        crowd.retain_mut(|(serial, child, end)| {
            if let Some(status) = child.try_wait().unwrap() {
                // A success counts even where the order to kill came too late.
                match status.code() {
                    Some(0) => drop(accepted.insert(*serial)),
                    Some(code) => panic!("submitter {serial} ended with {code}"),
                    None => killed += 1,
                }
                return false;
            }
            if Instant::now() >= *end {
                child.kill().unwrap();
            }
            true
        });
        thread::sleep(Duration::from_millis(1));
    }
    println!("{} accepted, {killed} killed", accepted.len());
    assert!(killed > 0 && !accepted.is_empty(), "no storm");

    until("everything is delivered", || {
        site.run().ok();
        site.is_empty()
    });
    let mut delivered = BTreeSet::new();
    for copy in site.boxed() {
        let serial = copy
            .lines()
            .find_map(|line| line.strip_prefix("X-Serial: "))
            .unwrap();
        let serial: usize = serial.parse().unwrap();
        assert!(copy.ends_with(&body(serial)), "torn: {serial}");
        assert!(delivered.insert(serial), "{serial} was delivered twice");
    }
    let lost: Vec<_> = accepted.difference(&delivered).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    nothing_is_left(&site);
}

/// Starts a submitter that reads its message from a file, every second one as an MTA does.
fn submit(site: &Site, serial: usize) -> Child {
    let path = site.dir().join(format!("message-{serial}"));
    fs::write(&path, format!("X-Serial: {serial}\n{}", body(serial))).unwrap();
    let command = match serial % 2 {
        0 => ["send", "-f", "a@example.org", "b@example.test"],
        _ => ["receive", "-f", "a@example.org", "b@example.test"],
    };
    let mut command = site.command(command);
    command
        .stdin(fs::File::open(path).unwrap())
        .stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Some are large enough that a kill may come in the middle of writing them.
fn body(serial: usize) -> String {
    let lines = if serial.is_multiple_of(5) { 20_000 } else { 3 };
    format!(
        "\n{}end of {serial}\n",
        format!("a line of message {serial}\n").repeat(lines)
    )
}

/// Runners that are killed and started again until nothing is left.
struct Storm<'a> {
    site: &'a Site,
    random: &'a mut Random,
    runners: Vec<(Child, Instant)>,
    kills: usize,
}

impl Storm<'_> {
    fn new<'a>(site: &'a Site, random: &'a mut Random) -> Storm<'a> {
        Storm {
            site,
            random,
            runners: Vec::new(),
            kills: 0,
        }
    }

    fn start(&mut self) {
        let mut command = self
            .site
            .command(["run", "--quiet", "--jobs", &JOBS.to_string()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.runners
            .push((child, Instant::now() + self.random.below(500)));
    }

    fn blow(mut self) -> usize {
        let all = self.left();
        let mut looked_at_locks = false;
        until("the storm has delivered everything", || {
            while self.runners.len() < RUNNERS {
                self.start();
            }
            let before = self.runners.len();
            self.end_some();
            let left = self.left();
            if !looked_at_locks && left < all * 2 / 3 {
                looked_at_locks = true;
                self.calm();
            }
            // Somebody has come to the end of what was due: hurry what was interrupted along.
            if self.runners.len() < before {
                self.hurry();
            }
            left == 0 && self.site.is_empty()
        });
        for (mut runner, _) in std::mem::take(&mut self.runners) {
            let code = code_of(&mut runner, &Command::new("run"));
            assert_eq!(code, 0, "a runner that was left alone");
        }
        assert!(self.kills > RUNNERS, "no storm: {} kills", self.kills);
        self.kills
    }

    fn left(&self) -> usize {
        names(&self.site.spool().join("info/sender")).len()
    }

    /// Buries whoever ended, kills whose time has come.
    fn end_some(&mut self) {
        let (now, kills) = (Instant::now(), &mut self.kills);
        self.runners.retain_mut(|(child, end)| {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(
                    matches!(status.code(), Some(0) | None),
                    "a runner: {status}"
                );
                return false;
            }
            if now >= *end {
                child.kill().unwrap();
                child.wait().unwrap();
                *kills += 1;
                return false;
            }
            true
        });
    }

    /// Kills everybody at once, in the middle of it: nothing is locked, nothing is wrong.
    fn calm(&mut self) {
        for (mut child, _) in self.runners.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
            self.kills += 1;
        }
        nothing_is_locked(self.site);
        let checked = self.site.program(["check"], b"");
        assert_eq!(checked.code, 0, "{checked}");
        assert!(
            checked.text().ends_with("messages, no problems.\n"),
            "{checked}"
        );
    }

    fn hurry(&self) {
        self.site.program(["flush", "--queue-only"], b"").ok();
        let frozen = names(&self.site.spool().join("frozen/never"));
        if !frozen.is_empty() {
            let thaw = ["thaw", "--queue-only"].map(str::to_owned);
            let thawed = self.site.program(thaw.iter().chain(&frozen), b"");
            // One that is gone or thawed by now is no failure of this.
            assert!([0, 69].contains(&thawed.code), "{thawed}");
        }
    }
}

fn nothing_is_left(site: &Site) {
    nothing_is_locked(site);
    assert_eq!(site.processes(), []);
    site.is_clean_and_empty();
}

/// Nobody who was killed holds a lock. A command that was just being started may, for the moment
/// until it is executed: it still has its parent's descriptors.
fn nothing_is_locked(site: &Site) {
    let is_locked = |path: &PathBuf| {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        file.try_lock().is_err()
    };
    until("nothing is locked", || {
        !files(&site.spool()).iter().any(is_locked)
    });
}

/// A small generator (xorshift64*), the seed of which is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let given = std::env::var("STORM_SEED")
            .ok()
            .map(|seed| seed.parse().unwrap());
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_nanos() as u64;
        let seed: u64 = given.unwrap_or(now) | 1;
        println!("STORM_SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A time of less than so many milliseconds.
    fn below(&mut self, milliseconds: u64) -> Duration {
        Duration::from_micros((self.next() >> 11) % (milliseconds * 1000))
    }
}
