//! Five days of a dead destination, with the program under faketime(1): runs at the times that the queue
//! names, and just before them.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::queue::Bucket;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::program::{BOX, Ended, LETTER, Site, ended, names, pipe, route, until};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

struct Life {
    site: Site,
    begin: Timestamp,
    /// When runs tried the message, by the line count of the command's log.
    tried: Vec<Timestamp>,
}

impl Life {
    /// A message from `sender`, accepted at the beginning, with this transport to `dead.test`.
    fn new(sender: &str, transport: &str) -> Life {
        let config = format!("{transport}{}{BOX}", route("domain", "dead.test", "dead"));
        let life = Life {
            site: Site::new(&config),
            begin: "2026-11-22T10:00:07Z".parse().unwrap(),
            tried: Vec::new(),
        };
        let send = ["send", "--queue-only", "-f", sender, "--", "a@dead.test"];
        life.at(life.begin, &send, LETTER);
        life
    }

    /// The program started at that time. Its clock runs on from there; only its waits use the real clock.
    fn command(&self, time: Timestamp, arguments: &[&str]) -> Command {
        let inner = self.site.command(arguments);
        let mut command = Command::new("faketime");
        command.arg("--exclude-monotonic").arg("-f");
        command.arg(time.strftime("@%Y-%m-%d %H:%M:%S").to_string());
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("NO_FAKE_STAT", "1");
        command
    }

    /// Runs it to its end.
    fn at(&self, time: Timestamp, arguments: &[&str], input: &[u8]) -> String {
        self.try_at(time, arguments, input).ok()
    }

    fn try_at(&self, time: Timestamp, arguments: &[&str], input: &[u8]) -> Ended {
        ended(&mut self.command(time, arguments), input)
    }

    fn id(&self) -> String {
        self.site.row()["id"].as_str().unwrap().to_owned()
    }

    /// When the frozen message is discarded.
    fn frozen_until(&self) -> Timestamp {
        let row = self.site.row();
        assert_eq!(
            (&row["queue"], &row["hold"]["then"]),
            (&"frozen".into(), &"discard".into())
        );
        row["hold"]["until"].as_str().unwrap().parse().unwrap()
    }

    fn log_to_stderr(&self) {
        let config = fs::read_to_string(self.site.spool().join("config.toml")).unwrap();
        let config = config.replace("to = \"none\"", "to = \"stderr\"");
        fs::write(self.site.spool().join("config.toml"), config).unwrap();
    }

    /// Runs the program. Returns whether it tried the message, according to the log.
    fn run(&mut self, time: Timestamp) -> bool {
        let before = self.site.lines("log").len();
        self.at(time, &["run"], b"");
        let tried = self.site.lines("log").len() - before;
        assert!(tried <= 1, "{tried} attempts by one run at {time}");
        self.tried.extend((tried == 1).then_some(time));
        tried == 1
    }

    /// When the queue examines the message next, and whether it is tried then. `None` if it rests forever, or
    /// is gone.
    fn next(&self) -> Option<(Timestamp, bool)> {
        let rows = self.site.rows();
        let row = rows.iter().find(|row| row["queue"] == "deferred")?;
        let attempt: Timestamp = row["next_attempt"].as_str().unwrap().parse().unwrap();
        let buckets = names(&self.site.spool().join("deferred")).into_iter();
        let first = buckets
            .filter_map(|name| name.parse::<Bucket>().ok()?.due())
            .min()?;
        assert!(first <= attempt);
        Some((first, first == attempt))
    }

    /// Runs five days. Nothing happens a moment before it is due, or after the end. If `warns`, one delay
    /// notice is sent when the message is 4 hours old.
    fn live(&mut self, each_is_tried: bool, warns: bool) {
        // Some seconds later, because a message in the future is not due.
        let first = self.begin + SignedDuration::from_secs(30);
        assert!(self.run(first) || !each_is_tried);
        let mut runs = 0;
        let mut warned = None;
        while let Some((next, is_tried)) = self.next() {
            runs += 1;
            assert!(runs < 200, "no end");
            let before = next - SignedDuration::from_secs(10);
            assert!(!self.run(before), "before it was due: {next}");
            assert_eq!(self.next(), Some((next, is_tried)));
            assert_eq!(
                self.run(next) || !each_is_tried && is_tried,
                is_tried,
                "due and not tried, or not due and tried: {next}"
            );
            if warned.is_none() && !self.site.boxed().is_empty() {
                warned = Some(next);
            }
        }
        let at_four = Bucket::for_time(self.begin + SignedDuration::from_secs(4 * 3600 + 3)).due();
        assert_eq!(warned.filter(|_| warns), at_four.filter(|_| warns));
        for hours in (97..=120).step_by(6) {
            let late = self.begin + SignedDuration::from_hours(hours);
            assert!(!self.run(late));
        }
    }

    /// The time range of each attempt, as `mailspool schedule` announced them at the beginning. The message
    /// is accepted within this second or the next few, and a run waits for the full minute.
    fn promised(&self, arguments: &[&str]) -> Vec<(Timestamp, Timestamp)> {
        let command = [&["schedule", "--json", "a@dead.test"], arguments].concat();
        let said = self.at(self.begin, &command, b"");
        let said: Value = serde_json::from_str(&said).unwrap();
        let time = |value: &Value| -> Timestamp { value.as_str().unwrap().parse().unwrap() };
        let window = |value: &Value| {
            let latest = time(&value["latest"]) + SignedDuration::from_secs(60 + 30);
            (time(&value["time"]), latest)
        };
        said["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(window)
            .collect()
    }

    fn is_as_promised(&self, arguments: &[&str]) {
        let promised = self.promised(arguments);
        assert_eq!(self.tried.len(), promised.len(), "{:?}", self.tried);
        for (real, (from, to)) in self.tried.iter().zip(promised) {
            assert!(*real >= from && *real <= to, "{real}: {from} to {to}");
        }
    }

    /// Asserts that there are one delay notice and one failure notice. Returns the failure notice.
    fn notices(&self) -> Vec<String> {
        let is = |action: &'static str| {
            move |notice: &String| {
                notice
                    .lines()
                    .any(|line| line == format!("Action: {action}"))
            }
        };
        let (bounces, others): (Vec<_>, Vec<_>) =
            self.site.boxed().into_iter().partition(is("failed"));
        assert_eq!(
            (bounces.len(), others.len()),
            (1, 1),
            "{bounces:?} {others:?}"
        );
        assert!(is("delayed")(&others[0]), "{others:?}");
        bounces
    }

    fn ages(&self) -> Vec<i64> {
        let age = |time: &Timestamp| time.duration_since(self.begin).as_mins();
        self.tried.iter().map(age).collect()
    }
}

fn temporary() -> String {
    pipe(
        "dead",
        "cat >/dev/null; echo x >>{dir}/log; echo 4.4.1 no answer; exit 75",
    )
}

#[test]
fn five_days_of_a_dead_destination_end_in_one_bounce() {
    let mut life = Life::new("sender@example.org", &temporary());
    life.live(true, true);
    life.is_as_promised(&[]);
    // The documented numbers: every 15 minutes for 2 hours, every 6 hours from 16 hours on, a last attempt at
    // 4 days; each up to a tenth of its delay later, and rounded up to the minute.
    let ages = life.ages();
    assert_eq!(ages.len(), 32);
    for n in 1..=8 {
        assert!(
            (n * 15..=n * 15 + 3).contains(&ages[n as usize]),
            "{ages:?}"
        );
    }
    for (n, hours) in (16..=94).step_by(6).enumerate() {
        let late = if hours == 16 { 27 } else { 38 };
        assert!(
            (hours * 60..=hours * 60 + late).contains(&ages[17 + n]),
            "{ages:?}"
        );
    }
    assert_eq!(ages[31], 96 * 60);
    let bounces = life.notices();
    for part in [
        "Return-Path: <>\n",
        "a@dead.test",
        "Action: failed\n",
        "4.4.1",
    ] {
        assert!(bounces[0].contains(part), "{part}\n{}", bounces[0]);
    }
    life.site.is_clean_and_empty();
}

#[test]
fn mail_of_the_null_sender_is_frozen_after_a_day_of_it() {
    let mut life = Life::new("<>", &temporary());
    life.live(true, false);
    life.is_as_promised(&["--bounce"]);
    let end = Bucket::for_time(life.begin + DAY).due();
    assert_eq!(life.tried.last().copied(), end);
    assert_eq!(life.site.row()["queue"], "frozen");
    assert_eq!(life.site.boxed(), Vec::<String>::new());
    let gone = life.frozen_until();
    let kept = gone.duration_since(end.unwrap());
    assert!((DAY * 14..=DAY * 14 + HOUR).contains(&kept), "{kept:#}");
    for line in [
        "Frozen, will be discarded Dec 07",
        "Held        by mailspool",
    ] {
        let shown = life.at(end.unwrap(), &["show", &life.id()], b"");
        assert!(shown.contains(line), "{shown}");
    }
    // One run per day, all without work, and one just before the end.
    let mut day = end.unwrap() + DAY;
    while day < gone {
        assert_eq!(life.at(day, &["run"], b""), "Nothing is due.\n");
        day += DAY;
    }
    life.at(gone - SignedDuration::from_secs(1), &["run"], b"");
    assert_eq!(life.site.row()["queue"], "frozen");
    life.log_to_stderr();
    let bucket = Bucket::for_time(gone).due().unwrap();
    let run = life.try_at(bucket, &["run"], b"");
    assert_eq!(
        run.text(),
        "1 message: 0 delivered, 0 deferred, 0 failed.\n"
    );
    for words in [
        "discarded: no operator acted on it",
        "a@dead.test",
        "its time is up",
    ] {
        assert!(run.err.contains(words), "{words}: {}", run.err);
    }
    assert_eq!(life.site.boxed(), Vec::<String>::new());
    life.site.is_clean_and_empty();
}

/// A retry restarts the lifetime. After an operator's own freeze the message stays.
#[test]
fn a_frozen_failure_that_an_operator_handles_stays() {
    let refuses = pipe("dead", "cat >/dev/null; echo x >>{dir}/log; exit 67");
    let mut life = Life::new("<>", &refuses);
    let first = life.begin + MINUTE;
    assert!(life.run(first));
    let ends = life.frozen_until();
    let tenth = first + DAY * 10;
    life.at(tenth, &["retry", "--queue-only", &life.id()], b"");
    assert!(life.run(tenth + MINUTE));
    let later = life.frozen_until();
    assert!((later - ends.duration_since(first) - DAY * 10).duration_since(first) < HOUR * 2);
    let held = ["freeze", "--reason", "evidence", &life.id()].map(str::to_owned);
    life.at(tenth + DAY, &held.each_ref().map(String::as_str), b"");
    for year in 1..3 {
        let run = life.at(tenth + DAY * (365 * year), &["run"], b"");
        assert_eq!(run, "Nothing is due.\n");
    }
    let row = life.site.row();
    let hold = &row["hold"];
    assert_eq!(
        (&hold["reason"], &hold["until"]),
        (&"evidence".into(), &Value::Null)
    );
    assert_eq!(
        (&row["queue"], &hold["then"]),
        (&"frozen".into(), &Value::Null)
    );
}

/// With lifetime `"never"`.
#[test]
fn what_is_frozen_without_end_is_never_discarded() {
    let refuses = pipe("dead", "cat >/dev/null; exit 67");
    let never = format!("{refuses}\n[frozen]\nlifetime = \"never\"\n");
    let mut life = Life::new("<>", &never);
    life.run(life.begin + MINUTE);
    assert_eq!(life.site.row()["hold"]["until"], Value::Null);
    life.at(life.begin + DAY * 400, &["run"], b"");
    assert_eq!(life.site.row()["queue"], "frozen");
}

/// A lifetime of 0 freezes at the first failure, even a temporary one.
#[test]
fn bounces_may_have_one_attempt_only() {
    let once = format!("{}\n[bounce]\nlifetime = \"0\"\n", temporary());
    let mut life = Life::new("<>", &once);
    assert!(life.run(life.begin + MINUTE));
    let row = life.site.row();
    let reason = "its time is up and there is no sender to tell: 4.4.1 no answer";
    assert_eq!(
        (&row["queue"], &row["last_error"]),
        (&"frozen".into(), &reason.into())
    );
    life.frozen_until();
}

/// The program reports the release time, no run tries the message before it, and its age counts from it.
#[test]
fn what_is_for_later_has_all_its_time_from_its_release() {
    let config = format!(
        "{}{}{BOX}",
        temporary(),
        route("domain", "dead.test", "dead")
    );
    let accepted: Timestamp = "2026-11-22T10:00:07Z".parse().unwrap();
    let mut life = Life {
        site: Site::new(&config),
        begin: "2026-12-10T08:30:00Z".parse().unwrap(),
        tried: Vec::new(),
    };
    let send = [
        "send",
        "-f",
        "sender@example.org",
        "--at",
        "2026-12-10 08:30",
        "a@dead.test",
    ];
    life.at(accepted, &send, LETTER);
    let row = life.site.row();
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&"deferred".into(), &"scheduled".into())
    );
    assert_eq!(life.next(), Some((life.begin, true)));
    let shown = life.site.shown(row["id"].as_str().unwrap());
    assert_eq!(shown["release"], "2026-12-10T08:30:00Z");
    // Further in the future than the longest delay, which elsewhere counts as a clock error.
    for before in [
        SignedDuration::from_mins(17 * 24 * 60),
        SignedDuration::from_secs(1),
    ] {
        assert!(!life.run(life.begin - before));
        assert_eq!(life.next(), Some((life.begin, true)));
    }
    assert!(life.run(life.begin));
    let mut runs = 0;
    let mut warned = None;
    while let Some((next, is_tried)) = life.next() {
        runs += 1;
        assert!(runs < 200, "no end");
        assert_eq!(life.run(next), is_tried, "at {next}");
        if !life.site.boxed().is_empty() {
            warned.get_or_insert(next);
        }
    }
    // At this age since its release.
    assert_eq!(warned, Some(life.begin + SignedDuration::from_hours(4)));
    let ages = life.ages();
    assert_eq!(
        (ages[0], ages.len(), ages[ages.len() - 1]),
        (0, 32, 96 * 60),
        "{ages:?}"
    );
    assert_eq!(life.site.boxed().len(), 2, "a delay and a bounce");
    life.site.is_clean_and_empty();
}

#[test]
fn a_run_that_stays_delivers_at_the_time() {
    let life = Life {
        site: Site::with_box(),
        begin: "2026-12-10T08:30:00Z".parse().unwrap(),
        tried: Vec::new(),
    };
    let before = life.begin - SignedDuration::from_secs(6);
    let mut run = life.command(before, &["run", "--watch"]);
    let mut run = run
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let send = [
        "send",
        "-f",
        "sender@example.org",
        "--at",
        "2026-12-10T08:30Z",
        "a@dead.test",
    ];
    life.at(before, &send, LETTER);
    assert_eq!(life.next(), Some((life.begin, true)));
    until("it is delivered", || !life.site.boxed().is_empty());
    // Not the wrapper: it would leave its semaphore, named after a pid that is reused.
    let wrapper = run.id();
    let inner = fs::read_to_string(format!("/proc/{wrapper}/task/{wrapper}/children")).unwrap();
    kill(
        Pid::from_raw(inner.trim().parse().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(run.wait().unwrap().success());
    let delivery = &life.site.boxed()[0];
    assert!(delivery.contains("Subject: hello"), "{delivery}");
}

/// A host that refuses connections is probed on a separate schedule, but its mail expires in time.
#[test]
fn a_host_that_is_down_for_days_ends_in_one_bounce_too() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let transport = format!("\n[transport.dead]\ntype = \"smtp\"\nhost = \"127.0.0.1:{port}\"\n");
    let mut life = Life::new("sender@example.org", &transport);
    life.live(false, true);
    let bounces = life.notices();
    let field = |name: &str| {
        let line = bounces[0].lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} {}", bounces[0]))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Action:"), "failed");
    let last = jiff::fmt::rfc2822::parse(&field("Last-Attempt-Date:")).unwrap();
    let end = life.begin + DAY * 4;
    let late = last.timestamp().duration_since(end);
    assert!((0..=70).contains(&late.as_secs()), "{last}");
    life.site.is_clean_and_empty();
}

/// While a host is down, one message probes it and the others are not tried. Their senders still get delay
/// notices, with the reply of the last probe. In this test the probe never becomes due.
#[test]
fn a_message_that_was_never_tried_is_told_of_when_it_is_late() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let transport = format!("\n[transport.dead]\ntype = \"smtp\"\nhost = \"127.0.0.1:{port}\"\n");
    let life = Life::new("sender@example.org", &transport);
    life.at(life.begin + SignedDuration::from_secs(30), &["run"], b"");
    let second = life.begin + SignedDuration::from_secs(100);
    let send = [
        "send",
        "--queue-only",
        "-f",
        "second@example.org",
        "--",
        "a@dead.test",
    ];
    let id = life.at(second, &send, LETTER);
    life.at(second + SignedDuration::from_secs(10), &["run"], b"");
    let late = second + SignedDuration::from_hours(4);
    let mut told = Vec::new();
    loop {
        let buckets = names(&life.site.spool().join("deferred")).into_iter();
        let next = buckets.filter_map(|name| name.parse::<Bucket>().ok()?.due());
        let next = next.min().unwrap();
        if next > late + SignedDuration::from_mins(2) {
            break;
        }
        let later = next + SignedDuration::from_mins(20);
        for file in crate::program::files(&life.site.spool().join("state/down")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let mut down: Value = serde_json::from_str(&text).unwrap();
            down["probe"] = later.to_string().into();
            std::fs::write(&file, down.to_string()).unwrap();
        }
        life.at(next, &["run"], b"");
        for mail in life.site.boxed() {
            let to = mail
                .lines()
                .find_map(|line| line.strip_prefix("Delivered-To: "));
            let to = to.unwrap().to_owned();
            if !told.iter().any(|(one, _)| *one == to) {
                assert!(mail.contains("\nAction: delayed\n"), "{mail}");
                assert!(mail.contains("4.4.1"), "{mail}");
                told.push((to, next));
            }
        }
    }
    let at =
        |begin: Timestamp| Bucket::for_time(begin + SignedDuration::from_secs(4 * 3600 + 5)).due();
    let expected = [
        ("sender@example.org", at(life.begin)),
        ("second@example.org", at(second)),
    ];
    let expected: Vec<_> = expected.map(|(to, at)| (to.to_owned(), at.unwrap())).into();
    assert_eq!(told, expected);
    assert_eq!(life.site.boxed().len(), 2);
    // The message was not tried before, and its one outcome belongs to no transport.
    let shown = life.site.shown(id.trim());
    let outcomes: Vec<&Value> = shown["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"] == "outcome")
        .collect();
    assert_eq!(outcomes.len(), 1, "{shown}");
    assert_eq!(outcomes[0]["transport"], Value::Null, "{shown}");
}
