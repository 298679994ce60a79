//! `run`: what a pass takes and leaves, in which queue messages are afterwards, and its output.
//!
//! What belongs here: how mail passes through a run, and what must not stop a run. Many concurrent runners
//! are in `storm.rs`, operators' actions in `operate.rs`.

mod program;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mailspool::testing::message::QueueId;
use mailspool::testing::queue::Bucket;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::{BOX, LETTER, Site, code_of, names, outcome, pipe, route, until};
use serde_json::{Value, json};

/// Starts a run with piped output, for [`outcome`].
fn started(site: &Site, arguments: &[&str]) -> (Child, Command) {
    let mut command = site.command(["run"].iter().chain(arguments));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    (command.spawn().unwrap(), command)
}

#[test]
fn one_line_says_what_was_done() {
    let site = Site::with_box();
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    site.queue(&["b@example.test"]);
    let run = site.run();
    assert_eq!(run.ok(), "1 message: 1 delivered, 0 deferred, 0 failed.\n");
    assert_eq!(run.err, "");
    site.queue(&["b@example.test", "c@example.test"]);
    site.queue(&["d@example.test"]);
    assert_eq!(
        site.run().ok(),
        "2 messages: 3 delivered, 0 deferred, 0 failed.\n"
    );
    site.queue(&["d@example.test"]);
    assert_eq!(site.program(["run", "--quiet"], b"").ok(), "");
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    site.is_clean_and_empty();
}

#[test]
fn no_more_messages_than_the_budget() {
    let site = Site::with_box();
    site.queue_many(5, |n| format!("r{n}@d{n}.test"));
    let run = site.program(["run", "--max-messages", "3"], b"");
    assert_eq!(run.ok(), "3 messages: 3 delivered, 0 deferred, 0 failed.\n");
    assert_eq!((site.rows().len(), site.boxed().len()), (2, 3));
    assert_eq!(
        site.run().ok(),
        "2 messages: 2 delivered, 0 deferred, 0 failed.\n"
    );
}

#[test]
fn no_message_is_taken_after_the_time_but_those_in_hand_are_finished() {
    let script = "cat >/dev/null; echo x >>{dir}/log; : <{dir}/gate";
    let site = Site::new(&(pipe("slow", script) + &route("domain", "*", "slow")));
    let mut gate = site.gate("gate");
    site.queue_many(3, |n| format!("r{n}@example.test"));
    // The first message must be locked by then, even on a busy machine.
    let limit = Duration::from_secs(5);
    let (run, command) = started(&site, &["--jobs", "1", "--max-time", "5s"]);
    until("the first is in progress", || site.lines("log").len() == 1);
    // The run began before its first message was locked.
    let begun = Instant::now();
    until("the time is over", || begun.elapsed() > limit);
    gate.open();
    assert_eq!(
        outcome(run, &command).ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
    assert_eq!((site.lines("log").len(), site.rows().len()), (1, 2));
}

/// Two hundred for a destination that hangs; the last one in the queue is for another.
#[test]
fn one_destination_does_not_starve_another() {
    let script = "cat >/dev/null; case $RECIPIENT in *@slow.test) : <{dir}/gate;; esac; echo $RECIPIENT >>{dir}/log";
    let site = Site::new(&(pipe("both", script) + &route("domain", "*", "both")));
    let mut gate = site.gate("gate");
    site.queue_many(200, |n| format!("r{n}@slow.test"));
    site.queue(&["r@quick.test"]);
    let (run, command) = started(&site, &["--jobs", "4"]);
    until("the quick one is delivered", || {
        site.lines("log") == ["r@quick.test"]
    });
    gate.open();
    assert_eq!(
        outcome(run, &command).ok(),
        "201 messages: 201 delivered, 0 deferred, 0 failed.\n"
    );
    site.is_clean_and_empty();
}

#[test]
fn watching_delivers_what_comes_in_until_told_to_stop() {
    let script = "cat >/dev/null; echo $RECIPIENT >>{dir}/log; : <{dir}/gate";
    let config = pipe("slow", script) + &route("domain", "slow.test", "slow") + BOX;
    let site = Site::new(&config);
    let mut gate = site.gate("gate");
    let (mut watch, command) = started(&site, &["--watch"]);
    for n in 1..=3 {
        match n {
            1 => drop(site.queue(&["b@example.test"])),
            _ => drop(
                site.program(["receive", "-f", "", "b@example.test"], LETTER)
                    .ok(),
            ),
        }
        until("it is delivered", || {
            site.boxed().len() == n && site.is_empty()
        });
    }
    site.queue(&["b@slow.test"]);
    until("it is in progress", || site.lines("log").len() == 1);
    kill(Pid::from_raw(watch.id() as i32), Signal::SIGTERM).unwrap();
    // The run may not have noticed the signal when this message arrives. Then it delivers the message;
    // otherwise the message stays.
    site.queue(&["late@example.test"]);
    assert_eq!(site.lines("log"), ["b@slow.test"]);
    assert!(
        watch.try_wait().unwrap().is_none(),
        "it waits for what is in flight"
    );
    gate.open();
    outcome(watch, &command).ok();
    let (waiting, delivered) = (site.rows(), site.boxed().len());
    assert_eq!(waiting.len() + delivered, 4, "{waiting:?}");
    assert!(
        waiting
            .iter()
            .all(|row| row["recipients"][0]["address"] == "late@example.test")
    );
    site.run().ok();
    site.is_clean_and_empty();
}

/// A scan is no reason for another scan.
#[test]
fn watching_an_idle_spool_costs_nothing() {
    let site = Site::with_box();
    let leftover = site
        .spool()
        .join("new/01a201cc-662b-77ed-897a-de904870b4d3");
    fs::write(&leftover, "never accepted").unwrap();
    let (watch, command) = started(&site, &["--watch"]);
    until("the first look is over", || !leftover.exists());
    let reads = || -> u64 {
        let counts = fs::read_to_string(format!("/proc/{}/io", watch.id())).unwrap();
        let reads = counts.lines().find_map(|line| line.strip_prefix("syscr: "));
        reads.unwrap().parse().unwrap()
    };
    let (before, begun) = (reads(), Instant::now());
    until("a second is over", || {
        begun.elapsed() > Duration::from_secs(1)
    });
    let reads = reads() - before;
    assert!(
        reads < 20,
        "{reads} reads in a second in which nothing happened"
    );
    kill(Pid::from_raw(watch.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(outcome(watch, &command).ok(), "Nothing is due.\n");
}

/// The periodic scan finds messages without a notification.
#[test]
fn watching_looks_again_by_itself() {
    let (site, other) = (Site::with_box(), Site::with_box());
    let leftover = site
        .spool()
        .join("new/01a201cc-662b-77ed-897a-de904870b4d3");
    fs::write(&leftover, "never accepted").unwrap();
    let (watch, command) = started(&site, &["--watch"]);
    until("the first look is over", || !leftover.exists());
    // Into `staged/`, which is not watched: as if the process that was to move it on had been killed.
    let id = other.queue(&["b@example.test"]);
    fs::copy(
        other.spool().join("active").join(&id),
        site.spool().join("staged").join(&id),
    )
    .unwrap();
    until("it is delivered", || site.boxed().len() == 1);
    kill(Pid::from_raw(watch.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(
        outcome(watch, &command).ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
}

#[test]
fn recipients_of_one_message_go_their_own_ways() {
    let config = pipe("later", "echo later >&2; exit 75")
        + &pipe("count", "cat >/dev/null; echo $RECIPIENT >>{dir}/log")
        + &route("recipient", "b@example.test", "count")
        + &route("recipient", "c@example.test", "later");
    let site = Site::new(&config);
    let id = site.queue(&["b@example.test", "c@example.test", "d@example.test"]);
    assert_eq!(
        site.run().ok(),
        "1 message: 1 delivered, 2 deferred, 0 failed.\n"
    );
    let row = site.row();
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&json!("deferred"), &json!("scheduled"))
    );
    assert_eq!(row["recipients"][0]["status"], "delivered");
    assert_eq!(
        row["recipients"][1],
        json!({"address": "c@example.test", "status": "deferred", "reply": "4.0.0 later"})
    );
    assert_eq!(
        row["recipients"][2],
        json!({"address": "d@example.test", "status": "deferred", "reply": "4.4.4 no route"})
    );
    assert_eq!(site.run().ok(), "Nothing is due.\n");

    // A repaired configuration fixes queued mail; recipients that have the message do not get it again.
    site.configure(
        &(pipe("count", "cat >/dev/null; echo $RECIPIENT >>{dir}/log")
            + &route("domain", "*", "count")),
    );
    site.program(["retry", "--queue-only", &id], b"").ok();
    assert_eq!(
        site.run().ok(),
        "1 message: 2 delivered, 0 deferred, 0 failed.\n"
    );
    let mut log = site.lines("log");
    log.sort();
    assert_eq!(log, ["b@example.test", "c@example.test", "d@example.test"]);
    site.is_clean_and_empty();
}

#[test]
fn a_deferral_waits_in_the_bucket_of_its_time() {
    let site = Site::new("");
    let id = site.queue(&["b@example.test"]);
    site.run().ok();
    let row = site.row();
    let buckets = names(&site.spool().join("deferred"));
    assert_eq!(
        names(&site.spool().join("deferred").join(&buckets[0])),
        [id.as_str()]
    );
    let due: jiff::Timestamp = row["next_attempt"].as_str().unwrap().parse().unwrap();
    assert_eq!(due.strftime("%Y-%m-%dT%H%MZ").to_string(), buckets[0]);
    // A quarter of an hour, at most a tenth of it for jitter, and up to the full minute.
    let accepted = id.parse::<QueueId>().unwrap().accepted();
    let wait = due.duration_since(accepted).as_secs_f64() / 60.0;
    assert!((15.0..=17.5).contains(&wait), "{wait} minutes");
    assert_eq!(
        (&row["attempts"], &row["last_error"]),
        (&json!(1), &json!("4.4.4 no route"))
    );
}

#[test]
fn a_failure_is_told_to_the_sender_by_a_report() {
    let config = pipe(
        "users",
        "cat >/dev/null; echo \"no user $RECIPIENT here\"; exit 67",
    ) + &route("domain", "users.test", "users")
        + BOX;
    let site = Site::new(&format!("postmaster = \"help@mail.test\"\n{config}"));
    let id = site.queue(&["b@users.test", "c@example.test"]);
    let run = site.run().ok();
    assert_eq!(
        run,
        "2 messages: 2 delivered, 0 deferred, 1 failed, 1 notice.\n"
    );
    site.is_clean_and_empty();
    let copies = site.boxed();
    let bounce = copies
        .iter()
        .find(|copy| copy.starts_with("Return-Path: <>\n"))
        .unwrap();
    let report = parsed(bounce);
    assert_eq!(report["defects"], json!([]), "{bounce}");
    assert_eq!(
        report["types"],
        json!([
            "multipart/report",
            "text/plain",
            "message/delivery-status",
            "message/rfc822"
        ])
    );
    assert_eq!(report["report-type"], "delivery-status");
    assert_eq!(report["header"]["Auto-Submitted"], "auto-replied");
    assert_eq!(report["header"]["To"], "sender@example.org");
    assert_eq!(report["header"]["Delivered-To"], "sender@example.org");
    assert_eq!(report["header"]["MIME-Version"], "1.0");
    assert!(
        report["header"]["From"]
            .as_str()
            .unwrap()
            .contains("MAILER-DAEMON@mail.test")
    );
    for name in ["Date", "Message-ID", "Subject"] {
        assert!(report["header"][name].is_string(), "{name}:\n{bounce}");
    }
    let status = report["status"].as_array().unwrap();
    assert_eq!(
        status.len(),
        2,
        "one block for the message, one for each recipient: {status:?}"
    );
    assert_eq!(status[0]["Reporting-MTA"], "dns; mail.test");
    assert_eq!(status[1]["Final-Recipient"], "rfc822; b@users.test");
    assert_eq!(
        (&status[1]["Action"], &status[1]["Status"]),
        (&json!("failed"), &json!("5.1.1"))
    );
    let diagnostic = status[1]["Diagnostic-Code"].as_str().unwrap();
    assert!(
        diagnostic.contains("no user b@users.test here"),
        "{diagnostic}"
    );
    let text = report["text"].as_str().unwrap();
    assert!(
        text.contains("b@users.test") && text.contains("help@mail.test"),
        "{text}"
    );
    assert!(
        !text.contains("c@example.test"),
        "told of what succeeded: {text}"
    );
    let original = report["original"].as_str().unwrap();
    assert!(
        original.contains("Subject: hello") && original.contains(&id),
        "{original}"
    );
}

/// A message as Python's email package parses it.
fn parsed(message: &str) -> Value {
    const SCRIPT: &str = "
import email, email.policy, json, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP)
parts = m.get_payload()
print(json.dumps({
    'defects': [repr(d) for p in [m, *parts] for d in p.defects],
    'types': [p.get_content_type() for p in [m, *parts]],
    'report-type': m.get_param('report-type'),
    'header': {name: str(value) for name, value in m.items()},
    'text': parts[0].get_content(),
    'status': [dict((n, str(v)) for n, v in block.items()) for block in parts[1].get_payload()],
    'original': parts[2].get_payload()[0].as_string(),
}))";
    let mut python = Command::new("python3");
    let python = python.args(["-c", SCRIPT]);
    let text = program::ended(python, message.as_bytes()).ok();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_failure_without_a_sender_to_notify_is_kept() {
    let config = pipe("users", "exit 67") + &route("domain", "*", "users");
    let site = Site::new(&config);
    site.program(["receive", "-f", "<>", "b@users.test"], LETTER)
        .ok();
    assert_eq!(
        site.run().ok(),
        "1 message: 0 delivered, 0 deferred, 1 failed, 1 frozen.\n"
    );
    let row = site.row();
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&json!("frozen"), &json!("frozen"))
    );
    assert_eq!(
        row["last_error"],
        "delivery failed and there is no sender to tell: 5.1.1 the command exited with status 67"
    );
    assert_eq!(row["recipients"][0]["status"], "failed");
    let (hold, frozen) = (&row["hold"], names(&site.spool().join("frozen")));
    assert_eq!(
        (&hold["by"], &hold["then"]),
        (&json!("mailspool"), &json!("discard"))
    );
    assert_eq!(row["next_attempt"], Value::Null);
    let time = |name: &str| -> Timestamp { hold[name].as_str().unwrap().parse().unwrap() };
    let kept = time("until").duration_since(time("since"));
    assert_eq!(kept.as_hours(), 14 * 24);
    assert_eq!(frozen, [Bucket::for_time(time("until")).to_string()]);
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    site.configure(BOX);
    let id = row["id"].as_str().unwrap();
    site.program(["thaw", "--queue-only", id], b"").ok();
    assert_eq!(
        site.run().ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
}

/// A message that kills every process that tries it is frozen after three attempts.
#[test]
fn poison_is_frozen() {
    let config = pipe("poison", "kill -9 $PPID") + &route("domain", "poison.test", "poison") + BOX;
    let site = Site::new(&config);
    let id = site.queue(&["b@poison.test"]);
    for attempt in 1..=3 {
        let (mut run, command) = started(&site, &[]);
        assert_eq!(code_of(&mut run, &command), -1, "killed");
        let row = site.row();
        assert_eq!(
            (&row["queue"], &row["attempts"]),
            (&json!("active"), &json!(attempt - 1))
        );
        // The next run sees the interruption, and does not try the message at once.
        let run = site.run().ok();
        if attempt < 3 {
            assert_eq!(site.row()["queue"], "deferred", "{run}");
            assert!(
                site.row()["last_error"]
                    .as_str()
                    .unwrap()
                    .contains("interrupted")
            );
            make_due(&site, &id);
        }
    }
    let row = site.row();
    assert_eq!(row["queue"], "frozen");
    assert_eq!(row["last_error"], "3 attempts in a row were interrupted");
    let checked = site.program(["check"], b"").ok();
    assert!(
        checked.ends_with("\n1 message, no problems.\n"),
        "{checked}"
    );
}

/// Makes a deferred message due without an operator's action: in its history and by its bucket.
fn make_due(site: &Site, id: &str) {
    let history = site.spool().join("history").join(id);
    let text = fs::read_to_string(&history).unwrap();
    // The hour of each time; the bucket is rounded up and may be in the next hour.
    let (first, rest) = text.split_once("\"next\":\"").unwrap();
    let past = |part: &str| format!("\"next\":\"2020-01-01T00:{}", &part[14..]);
    let rest: String = rest.split("\"next\":\"").map(past).collect();
    let text = format!("{first}{rest}");
    fs::write(&history, text).unwrap();
    let deferred = site.spool().join("deferred");
    let bucket = names(&deferred).remove(0);
    fs::rename(deferred.join(bucket), deferred.join("2020-01-01T0000Z")).unwrap();
}

/// Changes a byte of the message file, and keeps its size.
fn harm(site: &Site, id: &str) {
    let path = site.spool().join("active").join(id);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(b"!", end - 2).unwrap();
}

#[test]
fn a_corrupt_message_is_put_aside_and_can_come_back() {
    let site = Site::with_box();
    let bad = site.queue(&["b@example.test"]);
    site.queue(&["c@example.test"]);
    harm(&site, &bad);
    let run = site.run();
    assert_eq!(run.code, 75, "{run}");
    assert!(run.err.contains("1 message moved to corrupt/"), "{run}");
    assert_eq!(site.boxed().len(), 1, "the run goes on");
    assert_eq!(
        names(&site.spool().join("corrupt")),
        [bad.clone(), format!("{bad}.reason")]
    );
    let row = site.row();
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&json!("corrupt"), &json!("corrupt"))
    );
    let reason = fs::read_to_string(site.spool().join(format!("corrupt/{bad}.reason"))).unwrap();
    assert_eq!(row["last_error"], reason.trim_end());
    assert!(reason.contains("seal"), "{reason}");
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    assert_eq!(site.program(["check"], b"").code, 0);
    let retried = site.program(["retry", "--queue-only", &bad], b"");
    assert_eq!(retried.code, 69, "{retried}");
    assert_eq!(site.row()["queue"], "corrupt", "still");

    let file = fs::OpenOptions::new()
        .write(true)
        .open(site.spool().join("corrupt").join(&bad))
        .unwrap();
    file.write_all_at(b".", file.metadata().unwrap().len() - 2)
        .unwrap();
    site.program(["retry", "--queue-only", &bad], b"").ok();
    assert_eq!(site.row()["queue"], "active");
    assert_eq!(
        site.run().ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
    assert_eq!(names(&site.spool().join("corrupt")), [] as [&str; 0]);
    site.is_clean_and_empty();
}

/// A kill after the creation of the history leaves an empty file. It is removed with its message.
#[test]
fn a_history_without_a_line_goes_with_its_message() {
    for left in [&b""[..], b"\0\0\0\0", b"{\"at\":"] {
        let site = Site::with_box();
        let id = site.queue(&["b@example.test"]);
        fs::write(site.spool().join("history").join(&id), left).unwrap();
        site.run().ok();
        assert_eq!(site.boxed().len(), 1);
        site.is_clean_and_empty();
    }
}

/// If a file system does not keep renames, a name may remain after its message is gone, with the inode of
/// another message.
#[test]
fn another_message_under_a_name_that_came_back_is_kept() {
    let other = "01a2021c-bff6-75ef-9344-1a834d1db9b8";
    for place in ["new", "done"] {
        let site = Site::with_box();
        let id = site.queue(&["b@example.test"]);
        let own = site.spool().join("active").join(&id);
        let text = fs::read(&own).unwrap();
        fs::rename(&own, site.spool().join(place).join(other)).unwrap();
        site.run();
        let kept = site.spool().join("corrupt").join(other);
        assert_eq!(fs::read(&kept).unwrap(), text, "{place}");
        let reason = fs::read_to_string(kept.with_extension("reason")).unwrap();
        assert_eq!(
            reason,
            format!("it is another message: its envelope block says {id}\n")
        );
        // An operator's repair.
        fs::remove_file(kept.with_extension("reason")).unwrap();
        fs::rename(&kept, &own).unwrap();
        site.run().ok();
        assert_eq!(site.boxed().len(), 1);
        site.program(["check", "--repair"], b"").ok();
        site.is_clean_and_empty();
    }
}

/// A power cut may tear the last line of the history; any other damage is corruption.
#[test]
fn a_torn_history_is_no_damage() {
    let site = Site::with_box();
    let id = site.queue(&["b@example.test"]);
    site.program(["freeze", &id], b"").ok();
    let history = site.spool().join("history").join(&id);
    let mut file = fs::OpenOptions::new().append(true).open(&history).unwrap();
    file.write_all(b"{\"at\":\"2026-11-22T14:05:00Z\",\"ev")
        .unwrap();
    assert_eq!(site.row()["queue"], "frozen");
    site.program(["thaw", "--queue-only", &id], b"").ok();
    let whole = fs::read_to_string(&history).unwrap();
    assert!(
        whole
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{whole}"
    );
    assert_eq!(
        site.run().ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
}

/// If no message is whole, the messages are not the cause. Ten are moved, by however many runs.
#[test]
fn where_no_message_is_whole_only_ten_are_moved() {
    let site = Site::with_box();
    let ids: Vec<String> = (0..12)
        .map(|n| site.queue(&[&format!("r{n}@example.test")]))
        .collect();
    for id in &ids {
        fs::write(site.spool().join("active").join(id), "").unwrap();
    }
    for _ in 0..2 {
        let run = site.program(["run", "--jobs", "1"], b"");
        assert_eq!(run.code, 75, "{run}");
        assert!(
            run.err
                .contains("no message is intact, and 2 that look corrupt stay"),
            "{run}"
        );
        let corrupt = names(&site.spool().join("corrupt"));
        let moved = corrupt.iter().filter(|name| !name.contains('.')).count();
        assert_eq!(moved, 10);
        assert_eq!(names(&site.spool().join("active")).len(), 2);
    }
    // One is whole, though it is the last: so the others are really corrupt.
    site.queue(&["whole@example.test"]);
    let run = site.program(["run", "--jobs", "1"], b"");
    assert_eq!((run.code, site.boxed().len()), (75, 1), "{run}");
    assert_eq!(names(&site.spool().join("active")).len(), 0);
}

#[test]
fn names_that_are_not_ours_are_left_alone() {
    let site = Site::with_box();
    let id = site.queue(&["b@example.test"]);
    let active = site.spool().join("active");
    let (an_id, another) = (
        "01a201cc-662b-77ed-897a-de904870b4d3",
        "01a201cc-662b-77ed-897a-de904870b4d4",
    );
    fs::write(active.join(".nfs0001"), "x").unwrap();
    fs::write(active.join(format!("{id}~")), "x").unwrap();
    fs::write(active.join(OsStr::from_bytes(b"caf\xe9")), "x").unwrap();
    fs::write(active.join(id.to_uppercase()), "x").unwrap();
    fs::create_dir(active.join("directory")).unwrap();
    fs::create_dir(active.join(an_id)).unwrap();
    let read_write = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&active.join("fifo"), read_write).unwrap();
    nix::unistd::mkfifo(&active.join(another), read_write).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", active.join("link")).unwrap();
    fs::create_dir(site.spool().join("deferred/soon")).unwrap();
    fs::write(site.spool().join("deferred/2020-01-01T0000Z"), "x").unwrap();
    fs::write(site.spool().join("new/draft.txt"), "x").unwrap();
    fs::write(site.spool().join("info/sender/.swp"), "x").unwrap();
    let before = names(&active).len();

    let run = site.run();
    assert_eq!(run.ok(), "1 message: 1 delivered, 0 deferred, 0 failed.\n");
    assert_eq!(run.err, "");
    assert_eq!(names(&active).len(), before - 1);
    assert_eq!(site.program(["run"], b"").ok(), "Nothing is due.\n");
    let checked = site.program(["check"], b"");
    assert_eq!(checked.code, 0, "{checked}");
    let check = checked.text();
    assert!(check.ends_with("\n0 messages, no problems.\n"), "{check}");
    for name in [
        ".nfs0001",
        &format!("{id}~"),
        "caf",
        &id.to_uppercase(),
        "directory",
        "fifo",
        "link",
        an_id,
        another,
    ] {
        assert!(
            check.contains(&format!("active/{name}")),
            "{name}:\n{check}"
        );
    }
    for name in [
        "deferred/soon",
        "deferred/2020-01-01T0000Z",
        "new/draft.txt",
        "info/sender/.swp",
    ] {
        assert!(check.contains(name), "{name}:\n{check}");
    }
    site.program(["check", "--repair"], b"");
    assert!(
        active.join(an_id).is_dir() && active.join(".nfs0001").exists(),
        "left alone"
    );
}
