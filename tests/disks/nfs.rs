//! The program on NFS: storms, cuts of the server's power, and a server that is killed and boots again.
//!
//! `scripts/nfs` boots a User Mode Linux kernel with a server and two clients, and runs one of the tests of the module
//! `inside` there. They share a directory: the image of the server's disk is in it. What is acknowledged
//! inside is a line of its output, and the work goes on when the line has been read here.
//!
//! All of this is ignored, and `scripts/test --long` runs it: it needs packages that nothing else needs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::cut::Cuts;
use super::cuts::{Promise, TEETH, explore_all, is_found_out};
use super::device::{Device, Image};
use super::ground::{Ground, Kind, must, unmount};
use super::program::crowd::Random;
use super::proof;
use super::work::Mark;

/// Begins a line that has a mark.
const MARK: &str = "mark: ";
/// The line after which what is logged counts.
const READY: &str = "the spool is ready";
/// A machine that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(1800);

/// A kernel with a server and its clients, and a test that runs there.
struct Machine {
    child: Child,
    lines: Receiver<String>,
    /// Shared with it.
    dir: PathBuf,
    heard: usize,
    /// What it said, except marks.
    words: String,
}

impl Machine {
    /// Boots it, and runs a test of `inside`.
    fn boot(dir: &Path, test: &str) -> Machine {
        Machine::boot_with("sync", dir, test)
    }

    /// The same with an option of the export.
    fn boot_with(export: &str, dir: &Path, test: &str) -> Machine {
        // From the boot before.
        let _ = fs::remove_dir_all(dir.join("heard"));
        fs::create_dir(dir.join("heard")).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/nfs");
        // It ends with this test, also if that is killed.
        let mut script = {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", script]);
            command
        };
        script.arg(dir).arg(std::env::current_exe().unwrap());
        script.args(["--exact", "--ignored", "--nocapture"]);
        script.arg(format!("nfs::inside::{test}"));
        script.env("MAILSPOOL_NFS", dir);
        script.env("NFS_EXPORT", export);
        // All its processes share one slow processor.
        script.env("MAILSPOOL_PACE", "20");
        script.env("MAILSPOOL_SEED", proof::seed().to_string());
        script.env("RUST_BACKTRACE", "0");
        script.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        Machine {
            child,
            lines,
            dir: dir.to_owned(),
            heard: 0,
            words: String::new(),
        }
    }

    /// The next line, or the end, at which none of its processes is left.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(SILENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it hangs:\n{}", self.all()),
        }
    }

    /// Listens until a line that is wanted. Says whether it came; marks are taken and answered.
    fn listen(&mut self, mut note: impl FnMut(Mark), wanted: impl Fn(&str, usize) -> bool) -> bool {
        while let Some(line) = self.line() {
            match line.split_once(MARK) {
                Some((_, mark)) => {
                    note(Mark::parse(mark));
                    fs::write(self.dir.join(format!("heard/{}", self.heard)), "").unwrap();
                    self.heard += 1;
                }
                None => {
                    self.words.push_str(&line);
                    self.words.push('\n');
                }
            }
            if wanted(&line, self.heard) {
                return true;
            }
        }
        false
    }

    /// Listens to the end. What runs in it succeeds.
    #[track_caller]
    fn succeed(mut self, note: impl FnMut(Mark)) {
        self.listen(note, |_, _| false);
        let status = self.child.wait().unwrap();
        println!("{}", self.words);
        assert!(status.success(), "{status}:\n{}", self.all());
    }

    /// Takes its power away. What it said until then is still heard.
    fn cut(&mut self, note: impl FnMut(Mark)) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.listen(note, |_, _| false);
    }

    /// What it and its kernel said.
    fn all(&self) -> String {
        let kernel = fs::read(self.dir.join("kernel")).unwrap_or_default();
        format!("{}\n{}", self.words, String::from_utf8_lossy(&kernel))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory in memory, to be shared.
fn shared(ground: &Ground) -> PathBuf {
    let dir = ground.dir().join("shared");
    fs::create_dir(&dir).unwrap();
    dir
}

#[test]
#[ignore = "scripts/test --long runs it: it boots a kernel"]
fn storms_of_two_clients() {
    let ground = Ground::new();
    let dir = shared(&ground);
    Machine::boot(&dir, "storms").succeed(|_| {});
    let counts = fs::read_to_string(dir.join("counts")).unwrap();
    for line in counts.lines() {
        let (number, name) = line.split_once(' ').unwrap();
        proof::count(name, number.parse().unwrap());
    }
}

/// Works on NFS, and returns what the device of the server saw.
fn record(ground: &Ground, export: &str) -> Cuts {
    let dir = shared(ground);
    let [image, fuse] = ["image", "fuse"].map(|name| ground.dir().join(name));
    Kind::Ext4.make(&image, Kind::Ext4.size(), &[]);
    let before = Image::read_from(&image);
    fs::remove_file(&image).unwrap();
    fs::create_dir(&fuse).unwrap();
    let device = Device::new(&fuse, before.clone());
    fs::write(dir.join("image"), "").unwrap();
    let mut bind = Command::new("mount");
    bind.arg("--bind").arg(&device.path);
    must(bind.arg(dir.join("image")));
    let mut machine = Machine::boot_with(export, &dir, "work_that_ends");
    assert!(
        machine.listen(|_| {}, |line, _| line.contains(READY)),
        "{}",
        machine.all()
    );
    let from = device.log.len() - 1;
    machine.succeed(|mark| device.log.mark(mark));
    // Where the judge looks for them.
    fs::rename(dir.join("noted"), ground.dir().join("noted")).unwrap();
    unmount(&dir.join("image"));
    fs::create_dir(ground.dir().join("disk")).unwrap();
    Cuts::new(before, device.end(), from, 4096)
}

/// Every disk that a cut of the server's power may leave is mounted and worked off here, without NFS: what the server
/// said was durable is durable.
#[test]
#[ignore = "scripts/test --long runs it: it boots a kernel"]
fn power_cuts_of_the_server() {
    let ground = Ground::new();
    let mut cuts = record(&ground, "sync");
    explore_all(&ground, Kind::Ext4, &mut cuts, Promise::All);
}

/// The cuts show that such a server loses what it has acknowledged.
#[test]
#[ignore = "scripts/test --long runs it: it boots a kernel"]
fn a_server_that_does_not_sync_is_found_out() {
    let storm = |ground: &Ground| record(ground, "async");
    assert!(is_found_out(Kind::Ext4, &TEETH, storm), "nothing was found");
}

/// The machine of the server and its clients is killed in the midst of the work, and boots again with the same disk.
/// What lay in its memory is lost. On NFS again, everything that was acknowledged comes to its end, once.
#[test]
#[ignore = "scripts/test --long runs it: it boots a kernel"]
fn a_server_that_is_killed_and_boots_again() {
    let rounds = if proof::long() { 12 } else { 2 };
    let mut random = Random::new(proof::seed());
    for round in 0..rounds {
        let ground = Ground::new();
        let dir = shared(&ground);
        let mut machine = Machine::boot(&dir, "work_without_end");
        let mut marks = Vec::new();
        let last = 10 + random.pick(60);
        let came = machine.listen(|mark| marks.push(mark), |_, heard| heard == last);
        assert!(came, "{}", machine.all());
        // Some time after that, at any point of what follows.
        let end = Instant::now() + random.below(300);
        while Instant::now() < end {
            std::thread::yield_now();
        }
        machine.cut(|mark| marks.push(mark));
        println!("round {round}: cut after {} marks", marks.len());
        let lines: Vec<String> = marks.iter().map(Mark::to_string).collect();
        fs::write(dir.join("marks"), lines.join("\n")).unwrap();
        Machine::boot(&dir, "judgement").succeed(|_| {});
        let is_accepted = |mark: &&Mark| matches!(mark, Mark::Accepted(_));
        proof::count("power cuts", 1);
        proof::count("acknowledged", marks.iter().filter(is_accepted).count());
        proof::count("lost", 0);
        proof::count("doubled", 0);
    }
}

/// What runs where NFS is mounted.
mod inside {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::Mutex;

    use super::super::cuts::as_it_is;
    use super::super::judge::{Known, Notes, judge};
    use super::super::program::crowd::storm_over_a_command;
    use super::super::program::{Site, until};
    use super::super::weather::{Sky, Weather};
    use super::super::work::{Crew, config, prepare, work};
    use super::*;

    /// The directory that the other side sees, too.
    fn dir() -> PathBuf {
        let dir = std::env::var_os("MAILSPOOL_NFS");
        dir.expect("this runs below another test, where scripts/nfs has mounted NFS")
            .into()
    }

    /// The mount of a client.
    fn client(name: &str) -> PathBuf {
        let point = Path::new("/nfs").join(name);
        let kind = nix::sys::statfs::statfs(&point).unwrap().filesystem_type();
        assert_eq!(kind, nix::sys::statfs::NFS_SUPER_MAGIC, "{point:?}");
        point
    }

    /// One process for each client, with a spool of its own on the same export.
    #[test]
    #[ignore = "runs below another test"]
    fn storms() {
        let this = std::env::current_exe().unwrap();
        let storm = |name: &str| {
            let mut storm = Command::new("nsenter");
            storm.arg(format!("--net=/run/netns/{name}"));
            storm.arg(format!("--uts=/run/uts/{name}"));
            storm
                .arg(&this)
                .args(["--exact", "--ignored", "--nocapture"]);
            storm
                .arg("nfs::inside::storm")
                .env("MAILSPOOL_CLIENT", name);
            storm.env("MAILSPOOL_COUNTS", dir().join("counts"));
            storm.stdin(Stdio::null()).spawn().unwrap()
        };
        let mut both = ["one", "two"].map(storm);
        let both = both.each_mut().map(|child| child.wait().unwrap());
        assert!(both.iter().all(|status| status.success()), "{both:?}");
    }

    #[test]
    #[ignore = "runs below another test"]
    fn storm() {
        dir();
        let name = std::env::var("MAILSPOOL_CLIENT").unwrap();
        let own = client(&name).join(&name);
        fs::create_dir(&own).unwrap();
        let mut weather = Weather::new(&own);
        weather.blow(if proof::long() { 300 } else { 40 }, Sky::Sound);
        weather.clear_up();
        let own = own.join("commands");
        fs::create_dir(&own).unwrap();
        let messages = if proof::long() { 200 } else { 60 };
        let mut random = Random::new(proof::seed());
        let (kills, doubled) = storm_over_a_command(&own, messages, &mut random);
        proof::count("kills", kills);
        proof::count("acknowledged", messages);
        proof::count("lost", 0);
        proof::count("doubled", doubled);
    }

    /// Says a mark to the other side, and waits until it has been heard.
    fn say(said: &Mutex<usize>, mark: &Mark) {
        let mut said = said.lock().unwrap();
        println!("{MARK}{mark}");
        let heard = dir().join(format!("heard/{said}"));
        until("the mark is heard", || heard.exists());
        *said += 1;
    }

    fn work_for(messages: usize) {
        let site = Site::new_in(&client("one"), &config(&dir().join("noted")));
        prepare(&site);
        println!("{READY}");
        let said = Mutex::new(0);
        let note = |mark| say(&said, &mark);
        work(
            &site,
            &note,
            messages,
            &as_it_is,
            Crew::All,
            &dir().join("noted"),
        );
    }

    #[test]
    #[ignore = "runs below another test"]
    fn work_that_ends() {
        work_for(if proof::long() { 100 } else { 32 });
    }

    #[test]
    #[ignore = "runs below another test"]
    fn work_without_end() {
        work_for(100_000);
    }

    /// What a cut has left is worked off by one client.
    #[test]
    #[ignore = "runs below another test"]
    fn judgement() {
        let marks = fs::read_to_string(dir().join("marks")).unwrap();
        let marks: Vec<Mark> = marks.lines().map(Mark::parse).collect();
        let known = Known::of(marks.iter());
        let [before, after] = ["noted", "noted-after"].map(|name| dir().join(name));
        let notes = Notes { before, after };
        let mut random = Random::new(proof::seed());
        let verdict = judge(&client("one"), &known, &notes, &mut random);
        println!("{} acknowledged", verdict.acknowledged);
        assert!(verdict.wrong.is_empty(), "{}", verdict.wrong.join("\n"));
    }
}
