//! A storm over a disk: submitters, runners and operators, each killed at a random moment.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use super::program::crowd::{
    Crowd, Random, calm, delivered, hurry, letter, nothing_is_left, nothing_is_lost_or_doubled,
    release, start_runner, start_submitter, submitter,
};
use super::program::{BOX, LONG, Site, code_of, files, names, pace, until};
use super::proof;

/// The domain of all recipients.
const DOMAIN: &str = "example.test";

/// By default small disks would be refused, and retries would take too long.
const CONFIG: &str = "[accept]\nmin_free = \"0\"\nmin_free_inodes = 0\n\
                      [retry]\nphases = [{ until = \"1h\", every = \"1m\" }]\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Submitter(usize),
    Runner,
    Operator(&'static str),
}

/// The expected state of the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sky {
    /// No process may fail.
    Sound,
    /// Every process may end with status 75.
    Broken,
}

pub struct Weather {
    pub site: Site,
    random: Random,
    crowd: Crowd<Role>,
    /// The output of the operators' commands.
    words: fs::File,
    next: usize,
    accepted: BTreeSet<usize>,
    /// Submissions that ended with status 75.
    pub refused: BTreeSet<usize>,
    /// Runs that ended with status 75.
    pub troubled: usize,
}

impl Weather {
    /// Makes a spool, and a Maildir beside it.
    pub fn new(dir: &Path) -> Weather {
        Weather {
            site: Site::new_in(dir, &format!("{CONFIG}{BOX}")),
            random: Random::new(proof::seed()),
            crowd: Crowd::new(),
            words: tempfile::tempfile().unwrap(),
            next: 0,
            accepted: BTreeSet::new(),
            refused: BTreeSet::new(),
            troubled: 0,
        }
    }

    /// Runs the storm until this many more submitters have ended.
    pub fn blow(&mut self, submissions: usize, sky: Sky) {
        self.blow_and(submissions, sky, || {});
    }

    /// The same, and calls `happens` halfway.
    pub fn blow_and(&mut self, submissions: usize, sky: Sky, happens: impl FnOnce()) {
        let goal = self.next + submissions;
        let mut happens = Some(happens);
        let is_submitter = |role: &Role| matches!(role, Role::Submitter(_));
        until_long("the storm is over", || {
            while self.next < goal && self.crowd.count(is_submitter) < 4 {
                let submitter = self.start_submitter();
                let life = self.random.below(250) * pace();
                self.crowd.join(Role::Submitter(self.next), submitter, life);
                self.next += 1;
            }
            while self.crowd.count(|role| *role == Role::Runner) < 3 {
                let life = self.random.below(500) * pace();
                self.crowd
                    .join(Role::Runner, start_runner(&self.site), life);
            }
            if self.crowd.count(|role| matches!(role, Role::Operator(_))) < 1 {
                self.operate();
            }
            if self.next + submissions / 2 >= goal
                && let Some(happens) = happens.take()
            {
                happens();
            }
            let ended = self.crowd.bury();
            self.hear(ended, sky);
            self.next == goal && self.crowd.count(is_submitter) == 0
        });
        self.lull(sky);
    }

    /// Kills every process, and waits for the attempts that `send` left in the background.
    pub fn lull(&mut self, sky: Sky) {
        let ended = self.crowd.kill_all();
        self.hear(ended, sky);
        until("no process is at work", || self.site.processes().is_empty());
    }

    /// Queues this many messages without kills.
    pub fn queue(&mut self, count: usize) {
        for _ in 0..count {
            let send = [
                "send",
                "--queue-only",
                "-f",
                "a@example.org",
                "b@example.test",
            ];
            let mut send = self.site.command(send);
            send.stdin(letter(self.next)).stdout(Stdio::null());
            let code = code_of(&mut send.spawn().unwrap(), &send);
            assert_eq!(code, 0, "a submitter that is not killed");
            self.accepted.insert(self.next);
            self.next += 1;
        }
    }

    /// Submits a message without a kill. Returns the status.
    pub fn submit(&mut self) -> i32 {
        let child = start_submitter(&self.site, self.next);
        self.crowd
            .join(Role::Submitter(self.next), child, Duration::MAX / 4);
        self.next += 1;
        let mut code = None;
        until("the submitter ends", || {
            let ended = self.crowd.bury();
            code = ended.first().and_then(|(_, code)| *code).or(code);
            self.hear(ended, Sky::Broken);
            self.crowd.len() == 0
        });
        code.unwrap()
    }

    /// Some messages of `send`, and none of `receive`, are scheduled for later.
    fn start_submitter(&self) -> Child {
        match self.next % 10 {
            4 => submitter(&self.site, self.next, Some("--at=+1h".into())),
            _ => start_submitter(&self.site, self.next),
        }
    }

    /// Starts an operator's command on some messages, or on all of them.
    fn operate(&mut self) {
        let all = names(&self.site.spool().join("info/sender"));
        let verbs = [
            "freeze", "thaw", "discard", "retry", "flush", "check", "repair", "suspend", "resume",
        ];
        let verb = verbs[self.random.pick(verbs.len())];
        let mut words = vec![verb.to_owned()];
        match verb {
            "flush" => words.push("--queue-only".into()),
            "check" => {}
            "repair" => words = ["check", "--repair"].map(str::to_owned).into(),
            "suspend" | "resume" => words.push(DOMAIN.into()),
            _ if all.is_empty() => return,
            _ => {
                words.push("--queue-only".into());
                words.extend((0..3).map(|_| all[self.random.pick(all.len())].clone()));
            }
        }
        let mut command = self.site.command(words);
        let words = || self.words.try_clone().unwrap();
        command.stdin(Stdio::null()).stdout(words()).stderr(words());
        let life = self.random.below(200) * pace();
        self.crowd
            .join(Role::Operator(verb), command.spawn().unwrap(), life);
    }

    fn hear(&mut self, ended: Vec<(Role, Option<i32>)>, sky: Sky) {
        for (role, code) in ended {
            let broken = sky == Sky::Broken;
            match (role, code) {
                (_, None) => {}
                (Role::Submitter(serial), Some(0)) => drop(self.accepted.insert(serial)),
                (Role::Submitter(serial), Some(75)) if broken => drop(self.refused.insert(serial)),
                (Role::Runner, Some(75)) if broken => self.troubled += 1,
                (Role::Runner, Some(0)) => {}
                // 75: another request is pending; try again.
                (Role::Operator(_), Some(0 | 69 | 75)) => {}
                (Role::Submitter(serial), code) => panic!("submitter {serial}: {code:?}"),
                (Role::Runner, code) => panic!("a runner: {code:?}"),
                (Role::Operator(verb), code) => {
                    let mut words = String::new();
                    self.words.rewind().unwrap();
                    self.words.read_to_string(&mut words).unwrap();
                    panic!("{verb}: {code:?}\n{words}");
                }
            }
        }
    }

    /// Ends the storm: delivers everything, and asserts that nothing is lost.
    pub fn clear_up(mut self) {
        self.lull(Sky::Sound);
        calm(&self.site);
        let resumed = self.site.program(["resume", DOMAIN], b"");
        assert!([0, 69].contains(&resumed.code), "{resumed}");
        until_long("everything is delivered", || {
            hurry(&self.site);
            let held = [
                ("frozen", "thaw"),
                ("discarded", "retry"),
                ("deferred", "retry"),
            ];
            for (dir, verb) in held {
                let held = files(&self.site.spool().join(dir));
                let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_owned();
                let ids: Vec<String> = held
                    .iter()
                    .map(|path| name(path).into_string().unwrap())
                    .collect();
                release(&self.site, verb, &ids);
            }
            self.site.run().ok();
            self.site.is_empty()
        });
        proof::count("kills", self.crowd.kills);
        proof::count("acknowledged", self.accepted.len());
        assert!(self.crowd.kills > 0, "no storm");
        nothing_is_lost_or_doubled(&self.site, &self.accepted);
        let (delivered, _) = delivered(&self.site);
        let both: Vec<_> = self
            .refused
            .iter()
            .filter(|serial| delivered.contains_key(serial))
            .collect();
        assert!(both.is_empty(), "refused and delivered: {both:?}");
        proof::count("lost", 0);
        proof::count("doubled", 0);
        nothing_is_left(&self.site);
    }
}

/// Like [`until`], with a longer deadline in long runs.
#[track_caller]
fn until_long(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LONG * pace() * if proof::long() { 15 } else { 2 };
    while !holds() {
        assert!(
            std::time::Instant::now() < end,
            "waited in vain until {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}
