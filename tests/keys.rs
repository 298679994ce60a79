//! Submissions with a key: repeated, concurrent, killed, and after the key expires.
//!
//! What belongs here: exactly one of all submissions with a key is accepted, whichever process is killed and when,
//! and a key is forgotten no sooner and no later than promised.

mod program;
mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Accepted, Acceptor, Limits, Request};
use mailspool::testing::message::{Address, Entrance, ReversePath, SubmissionKey};
use mailspool::testing::runner::Runner;
use mailspool::testing::spool::Spool;
use program::crowd::Random;
use program::{BOX, Ended, LETTER, Site, files, names, outcome, until};

fn send(site: &Site, key: &[u8], to: &str, letter: &[u8]) -> Ended {
    let key = std::ffi::OsStr::from_bytes(key);
    let mut command = site.command(["send", "--queue-only", "-f", "s@example.org", "--key"]);
    program::ended(command.arg(key).arg("--").arg(to), letter)
}

#[test]
fn the_second_submission_prints_the_first_ones_id_and_queues_nothing() {
    let site = Site::with_box();
    let first = send(&site, b"order 5", "a@example.test", LETTER).ok();
    // Even with another message for another recipient.
    let again = || {
        send(
            &site,
            b"order 5",
            "b@example.test",
            b"Subject: other\n\nother\n",
        )
        .ok()
    };
    assert_eq!(again(), first);
    assert_eq!(names(&site.spool().join("info/sender")).len(), 1);
    let other = send(&site, b"order 6", "a@example.test", LETTER).ok();
    assert_ne!(other, first);
    site.run().ok();
    assert!(site.is_empty());
    assert_eq!(
        again(),
        first,
        "also when it has been delivered and forgotten"
    );
    site.run().ok();
    assert_eq!(again(), first, "also after another run");
    assert_eq!(site.boxed().len(), 2);
    site.is_clean_and_empty();
}

#[test]
fn a_repeated_submission_is_read_to_its_end() {
    let site = Site::with_box();
    let first = send(&site, b"k", "a@example.test", LETTER).ok();
    let mut long = LETTER.to_vec();
    long.resize(3_000_000, b'x');
    let mut child = site
        .command(["send", "--queue-only", "--key", "k", "a@example.test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &long).expect("a broken pipe");
    drop(stdin);
    let command = site.command(["send"]);
    assert_eq!(outcome(child, &command).ok(), first);
}

#[test]
fn any_octets_are_a_key_and_not_too_many() {
    let site = Site::with_box();
    let odd: [&[u8]; 4] = [b"\xff\xfe\n", b"+41", b"A", b"-f"];
    let ids: BTreeSet<String> = odd
        .iter()
        .map(|key| send(&site, key, "a@example.test", LETTER).ok())
        .collect();
    assert_eq!(ids.len(), odd.len());
    for key in odd {
        assert!(ids.contains(&send(&site, key, "a@example.test", LETTER).ok()));
    }
    for bad in [vec![], vec![b'k'; 257]] {
        let refused = send(&site, &bad, "a@example.test", LETTER);
        assert_eq!(refused.code, 64, "{refused}");
    }
    assert_eq!(site.rows().len(), odd.len());
    assert_eq!(site.program(["check"], b"").code, 0);
}

#[test]
fn an_mta_that_tries_again_hands_in_once() {
    let site = Site::with_box();
    let receive = |key: &str, letter: &[u8]| {
        let command = [
            "receive",
            "--key",
            key,
            "-f",
            "s@example.org",
            "--",
            "a@example.test",
        ];
        site.program(command, letter)
    };
    for _ in 0..3 {
        let received = receive("4Zm1Xq0Bz", LETTER);
        assert_eq!((received.code, received.text()), (0, String::new()));
    }
    assert_eq!(site.row()["queue"], "incoming");
    let too_long = receive(&"k".repeat(257), LETTER);
    assert_eq!(too_long.code, 75, "{too_long}");
    // A message that is not accepted leaves its key free.
    site.configure(&format!("[accept]\nmax_size = \"100k\"\n{BOX}"));
    assert_eq!(receive("other", &vec![b'x'; 200_000]).code, 65);
    assert_eq!(receive("other", LETTER).code, 0);
    assert_eq!(site.rows().len(), 2);
    // The same message again, for recipients that did not fit into one command.
    let rest = ["receive", "--key", "4Zm1Xq0Bz", "-f", "s@example.org", "--"];
    let rest = rest.iter().chain(&["b@example.test", "c@example.test"]);
    let rest: Vec<&str> = rest.copied().collect();
    site.program(&rest, LETTER).ok();
    site.program(&rest, LETTER).ok();
    assert_eq!(site.rows().len(), 3);
}

#[test]
fn a_key_is_free_when_its_time_is_over() {
    let site = Site::new(&format!("[accept]\nkey_lifetime = \"1s\"\n{BOX}"));
    let first = send(&site, b"k", "a@example.test", LETTER).ok();
    let mut second = first.clone();
    until("the key is free", || {
        second = send(&site, b"k", "a@example.test", LETTER).ok();
        second != first
    });
    assert_eq!(site.rows().len(), 2);
    assert_eq!(site.program(["check"], b"").code, 0);
}

/// A spool and its submissions under a key, through the library.
struct Shelf {
    _dir: tempfile::TempDir,
    spool: Spool,
}

impl Shelf {
    fn new() -> Shelf {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        Shelf { _dir: dir, spool }
    }

    fn submit(&self, key: &str) -> Accepted {
        let mut limits = Limits::new("mail.test");
        limits.min_free = 0;
        let request = Request {
            entrance: Entrance::Active,
            sender: ReversePath::Null,
            recipients: vec![Address::parse("a@example.test").unwrap()],
            transport: None,
            dsn: mailspool::testing::message::Dsn::default(),
            submitter: "shelf".into(),
            key: Some(SubmissionKey::new(key).unwrap()),
            release: None,
        };
        let acceptor = Acceptor::new(self.spool.clone(), limits);
        acceptor.submit(request, LETTER).unwrap()
    }

    fn pass_in(&self, hours: i64) {
        let now = Timestamp::now() + SignedDuration::from_hours(hours);
        let runner = Runner::builder(self.spool.clone(), "mail.test")
            .clock(move || now)
            .build();
        runner.pass().unwrap();
    }

    fn keys(&self) -> usize {
        files(&self.spool.path().join("keys")).len()
    }
}

#[test]
fn runs_forget_keys_when_their_time_is_over_and_not_before() {
    let shelf = Shelf::new();
    let first = shelf.submit("k");
    assert!(!first.repeated);
    shelf.pass_in(23);
    assert_eq!(shelf.keys(), 1);
    let again = shelf.submit("k");
    assert_eq!((again.id, again.repeated), (first.id, true));
    // The bucket is of the hour in which the key's day ends.
    shelf.pass_in(26);
    assert_eq!(shelf.keys(), 0);
    assert_eq!(names(&shelf.spool.path().join("keys")), ["lock", "new"]);
    assert!(!shelf.submit("k").repeated);
}

#[test]
fn a_key_further_ahead_than_its_lifetime_is_kept_until_then() {
    let shelf = Shelf::new();
    let first = shelf.submit("k");
    // To the spool it looks as if the clock had been a year ahead at acceptance.
    shelf.pass_in(-24 * 365);
    assert_eq!(shelf.keys(), 1);
    assert_eq!(shelf.submit("k").id, first.id);
}

#[test]
fn a_spool_without_keys_gets_them_with_the_first() {
    let site = Site::with_box();
    fs::remove_dir_all(site.spool().join("keys")).unwrap();
    site.run().ok();
    assert_eq!(site.program(["check"], b"").code, 0);
    let first = send(&site, b"k", "a@example.test", LETTER).ok();
    assert_eq!(send(&site, b"k", "a@example.test", LETTER).ok(), first);
    assert_eq!(site.program(["check"], b"").code, 0);
}

#[test]
fn check_reports_and_removes_a_damaged_key() {
    let site = Site::with_box();
    send(&site, b"k", "a@example.test", LETTER).ok();
    let record = files(&site.spool().join("keys")).remove(0);
    fs::write(&record, "id: torn").unwrap();
    let found = site.program(["check"], b"");
    assert_eq!(found.code, 65, "{found}");
    assert!(found.text().contains("would be accepted again"), "{found}");
    site.program(["check", "--repair"], b"").ok();
    assert!(!record.exists());
}

/// A user that can make a link there could do worse. Still, nothing is read or removed through a link.
#[test]
fn links_among_the_keys_lead_nowhere() {
    let site = Site::with_box();
    let first = send(&site, b"k", "a@example.test", LETTER).ok();
    let keys = site.spool().join("keys");
    let record = files(&keys).remove(0);
    let aside = site.dir().join("aside");
    fs::rename(record.parent().unwrap(), &aside).unwrap();
    std::os::unix::fs::symlink(&aside, keys.join("2026-01-01T0000Z")).unwrap();
    site.run().ok();
    assert_eq!(files(&aside).len(), 1, "not purged");
    let second = send(&site, b"k", "a@example.test", LETTER).ok();
    assert_ne!(second, first, "not read");
    fs::remove_file(keys.join("2026-01-01T0000Z")).unwrap();
    fs::remove_dir(keys.join("new")).unwrap();
    std::os::unix::fs::symlink(&aside, keys.join("new")).unwrap();
    assert_eq!(send(&site, b"k", "a@example.test", LETTER).code, 75);
}

fn start(site: &Site, key: &str, to: &str) -> Child {
    let mut command = site.command(["send", "--queue-only", "--key", key, "--", to]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

fn feed(child: &mut Child) {
    let mut stdin = child.stdin.take().unwrap();
    // A killed process does not read it.
    let _ = std::io::Write::write_all(&mut stdin, LETTER);
}

#[test]
fn fifty_at_the_same_moment_are_one() {
    let site = Site::with_box();
    let to = |n: usize| format!("r{n}@example.test");
    let mut children: Vec<Child> = (0..50).map(|n| start(&site, "k", &to(n))).collect();
    // All of them wait for their message.
    children.iter_mut().for_each(feed);
    let command = site.command(["send"]);
    let ids: BTreeSet<String> = children
        .into_iter()
        .map(|child| outcome(child, &command).ok())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(site.rows().len(), 1);
    assert_eq!(
        files(&site.spool().join("keys")).len(),
        1,
        "and no lock is left"
    );
    assert_eq!(files(&site.spool().join("new")), [] as [&Path; 0]);
    assert_eq!(site.program(["check"], b"").code, 0);
}

/// The shared state of a storm's submitters.
struct Storm {
    random: Random,
    waiting: Vec<usize>,
    /// The submitters that are running. One of them may be killed, and its key wait again.
    busy: usize,
    ids: BTreeMap<usize, String>,
    kills: usize,
    repeats: usize,
}

/// Submitters are killed at random moments and repeated until they succeed, while runs sweep, deliver and forget.
#[test]
fn killed_submitters_that_are_repeated_are_accepted_once() {
    const KEYS: usize = 60;
    const AT_ONCE: usize = 6;
    let site = Site::with_box();
    let command = site.command(["send"]);
    let submit = |key: usize, killed_after: Option<Duration>| {
        let to = format!("r{key}@example.test");
        let mut child = start(&site, &format!("key {key}"), &to);
        feed(&mut child);
        if let Some(after) = killed_after {
            thread::sleep(after);
            let _ = child.kill();
        }
        outcome(child, &command)
    };
    // The duration of a submission on this machine, so that kills fall into it.
    let begun = Instant::now();
    let first = submit(0, None).ok();
    let life = begun.elapsed().as_micros() as usize;
    let storm = Mutex::new(Storm {
        random: Random::new(proof::seed()),
        waiting: (1..KEYS).collect(),
        busy: 0,
        ids: [(0, first)].into(),
        kills: 0,
        repeats: 0,
    });
    let changed = Condvar::new();
    // One in three is not killed. None means that the storm is over.
    let take = || {
        let mut storm = storm.lock().unwrap();
        let key = loop {
            match storm.waiting.pop() {
                Some(key) => break key,
                None if storm.busy == 0 => return None,
                None => storm = changed.wait(storm).unwrap(),
            }
        };
        storm.busy += 1;
        let after = Duration::from_micros(storm.random.pick(life) as u64);
        let is_run = storm.random.pick(40) == 0;
        Some((key, (storm.random.pick(3) > 0).then_some(after), is_run))
    };
    let submitter = || {
        while let Some((key, killed_after, is_run)) = take() {
            let ran = is_run.then(|| site.run());
            let ended = submit(key, killed_after);
            let mut storm = storm.lock().unwrap();
            let _ = ran.map(|ran| ran.ok());
            storm.busy -= 1;
            match ended.code {
                0 => {
                    let id = ended.text();
                    let first = storm.ids.entry(key).or_insert_with(|| id.clone());
                    assert_eq!(*first, id, "key {key}");
                    // Some are repeated although they succeeded.
                    if storm.random.pick(4) == 0 {
                        storm.repeats += 1;
                        storm.waiting.push(key);
                    }
                }
                -1 => {
                    storm.kills += 1;
                    storm.waiting.push(key);
                }
                _ => panic!("key {key}: {ended}"),
            }
            changed.notify_all();
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(submitter);
        }
    });
    let Storm {
        ids,
        kills,
        repeats,
        ..
    } = storm.into_inner().unwrap();
    assert!(kills > 0 && repeats > 0, "no storm: {kills}, {repeats}");
    println!("{kills} killed, {repeats} repeated");
    until("everything is delivered", || {
        site.run().ok();
        site.is_empty()
    });
    let boxed = site.boxed();
    assert_eq!(boxed.len(), KEYS, "lost or doubled");
    for (key, id) in &ids {
        let copies = boxed.iter().filter(|copy| copy.contains(id.trim_end()));
        assert_eq!(copies.count(), 1, "key {key}, {id}");
    }
    site.is_clean_and_empty();
    let keys = site.spool().join("keys");
    assert_eq!(
        files(&keys.join("new")).len() + files(&keys.join("lock")).len(),
        0
    );
}
