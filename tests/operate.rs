//! The operator's side: listing the queue and acting on it, also while other processes work.
//!
//! What belongs here: `list`, `count`, `show`, `check`, and the actions, with the exact words and fields that
//! scripts rely on.

mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use program::{BOX, Ended, Gate, LETTER, Site, files, names, pipe, route, until};
use serde_json::{Value, json};

/// Configuration that defers all mail, with a reply that gives the reason.
fn later(words: &str) -> String {
    pipe(
        "later",
        &format!("cat >/dev/null; printf '{words}'; exit 75"),
    ) + &route("domain", "*", "later")
}

/// A message that was once in a bucket of this name may leave its envelope, and the search for it meets the file.
#[test]
fn a_file_with_the_name_of_a_bucket_blocks_nothing() {
    let site = Site::new(&later("4.0.0 later"));
    let bucket = site.spool().join("deferred/2026-11-22T0804Z");
    fs::write(&bucket, "").unwrap();
    let leftover = "01a20248-22b4-703e-8578-974f47058538";
    fs::write(site.spool().join("info/sender").join(leftover), "\n").unwrap();
    let id = site.queue(&["b@example.test"]);
    // Two names, as after a power cut: the process that takes the lock searches all queues.
    let active = site.spool().join("active").join(&id);
    fs::hard_link(&active, site.spool().join("incoming").join(&id)).unwrap();
    until("it has been tried", || {
        site.run().ok();
        site.row()["status"] == "scheduled"
    });
    site.program(["freeze", &id], b"").ok();
    let checked = site.program(["check", "--repair"], b"").ok();
    let end = "1 message, no problems.\n";
    assert!(checked.ends_with(end), "{checked}");
    assert!(bucket.is_file());
}

/// A killed operator's process may leave such a request, and any run removes it.
#[test]
fn a_request_for_a_message_that_is_gone_is_no_problem() {
    let site = Site::new("");
    let gone = "01a20248-22b4-703e-8578-974f47058538";
    let request = site.spool().join("requests").join(gone);
    fs::write(&request, "{}").unwrap();
    let checked = site.program(["check", "--repair"], b"").ok();
    assert_eq!(
        checked,
        format!(
            "note     requests/{gone}\n         \
             is a request for a message that is gone; the next run drops it\n\
             0 messages, no problems.\n"
        )
    );
    site.run().ok();
    assert!(!request.exists());
    site.is_clean_and_empty();
}

#[test]
fn the_words_about_the_queue() {
    let site = Site::new("");
    let list = || site.program(["list"], b"").ok();
    let count = || site.program(["count"], b"").ok();
    assert_eq!(
        (list().as_str(), count().as_str()),
        ("There is no message in queue.\n", "0\n")
    );
    assert_eq!(site.program(["list", "--json"], b"").ok(), "");
    let first = site.queue(&["b@example.test"]);
    assert!(list().starts_with("1 message in queue.\n"), "{}", list());
    let second = site.queue(&["c@example.test", "d@example.test"]);
    site.run().ok();
    site.program(["receive", "-f", "", "e@example.test"], LETTER)
        .ok();
    let text = list();
    assert!(text.starts_with("3 messages in queue.\n"), "{text}");
    assert_eq!(
        text.lines().count(),
        7,
        "a heading, one line each, and two reasons: {text}"
    );
    for words in [
        &first,
        &second,
        "c@example.test +1",
        "sender@example.org",
        "<>",
        "Scheduled",
        "no route",
        "Incoming",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.lines().all(|line| line.trim_end() == line), "{text:?}");
    assert_eq!(count(), "3\n");
    let counts: Value = serde_json::from_str(&site.program(["count", "--json"], b"").ok()).unwrap();
    assert_eq!(
        counts,
        json!({"incoming": 1, "active": 0, "deferred": 2, "frozen": 0, "discarded": 0, "corrupt": 0})
    );
}

#[test]
fn the_fields_of_a_listing_are_an_interface() {
    const FIELDS: [&str; 15] = [
        "added",
        "age",
        "attempts",
        "hold",
        "id",
        "last_error",
        "next_attempt",
        "process",
        "queue",
        "recipients",
        "sender",
        "since",
        "size",
        "status",
        "transport",
    ];
    let site = Site::new(&later("4.7.1 come back"));
    let id = site.queue(&["b@example.test", "c@example.test"]);
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    let row = site.row();
    assert_eq!(keys(&row), FIELDS.map(str::to_owned).into());
    assert_eq!(row["id"], id);
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&json!("active"), &json!("active"))
    );
    assert_eq!(
        (
            &row["attempts"],
            &row["next_attempt"],
            &row["last_error"],
            &row["transport"]
        ),
        (&json!(0), &Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(
        row["recipients"][0],
        json!({"address": "b@example.test", "status": "pending", "reply": null})
    );
    let file = &site.message_files()[0];
    assert_eq!(row["size"], program::message_in(file).len());
    assert!((0..60).contains(&row["age"].as_i64().unwrap()));
    let added = row["added"].as_str().unwrap();
    assert!(
        added.ends_with('Z') && added.parse::<jiff::Timestamp>().is_ok(),
        "{added}"
    );

    site.run().ok();
    let row = site.row();
    assert_eq!(keys(&row), FIELDS.map(str::to_owned).into());
    assert_eq!(
        (&row["queue"], &row["status"], &row["attempts"]),
        (&json!("deferred"), &json!("scheduled"), &json!(1))
    );
    assert_eq!(
        (&row["last_error"], &row["transport"]),
        (&json!("4.7.1 come back"), &json!("later"))
    );
    assert_eq!(
        row["recipients"][1],
        json!({"address": "c@example.test", "status": "deferred", "reply": "4.7.1 come back"})
    );
    let shown = site.shown(&id);
    let mut expected: BTreeSet<_> = FIELDS.map(str::to_owned).into();
    expected.extend(["history", "key", "release"].map(str::to_owned));
    assert_eq!(keys(&shown), expected);
    let events: Vec<_> = shown["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(events, ["outcome"]);
}

#[test]
fn a_message_can_be_looked_at() {
    let site = Site::new(&later("come back"));
    let id = site.queue(&["b@example.test"]);
    site.run().ok();
    let text = site.program(["show", &id], b"").ok();
    for words in [
        &id,
        "sender@example.org",
        "b@example.test",
        "deferred",
        "come back",
        "Scheduled",
        "History",
        "by later",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let message = site.program(["show", "--message", &id], b"").ok();
    let headers = site.program(["show", "--headers", &id], b"").ok();
    assert!(message.ends_with("\n\nHello.\n"), "{message}");
    assert_eq!(headers, message.strip_suffix("\nHello.\n").unwrap());
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_is_clear() {
    let site = Site::new("");
    let ids = [
        site.queue(&["b@example.test"]),
        site.queue(&["c@example.test"]),
    ];
    for id in &ids {
        // Version 7: the ids begin with the time and differ at the end.
        for part in [&id[24..], &id[26..30], &id.to_uppercase()] {
            let other = ids
                .iter()
                .any(|other| other != id && other.contains(&part.to_lowercase()));
            if !other {
                assert_eq!(site.shown(part)["id"], id.as_str());
            }
        }
    }
    for command in ["show", "freeze", "discard", "retry"] {
        let ambiguous = site.program([command, &ids[0][..4]], b"");
        assert_eq!(
            (ambiguous.code, ambiguous.text().as_str()),
            (64, ""),
            "{ambiguous}"
        );
        assert!(
            ids.iter().all(|id| ambiguous.err.contains(id)),
            "{ambiguous}"
        );
        let none = site.program([command, "zzz"], b"");
        assert_eq!((none.code, none.text().as_str()), (69, ""), "{none}");
        // One wrong id prevents the action on all.
        if command != "show" {
            let mixed = site.program([command, &ids[0], "zzz"], b"");
            assert_eq!((mixed.code, mixed.text().as_str()), (69, ""), "{mixed}");
        }
    }
    assert!(site.rows().iter().all(|row| row["queue"] == "active"));
}

#[test]
fn frozen_until_thawed() {
    let site = Site::with_box();
    let id = site.queue(&["b@example.test"]);
    let frozen = site
        .program(["freeze", "--reason", "look at it", &id], b"")
        .ok();
    assert_eq!(frozen, format!("{id} frozen.\n"));
    assert_eq!(names(&site.spool().join("frozen/never")), [id.as_str()]);
    let row = site.row();
    assert_eq!(
        (&row["status"], &row["last_error"]),
        (&json!("frozen"), &json!("look at it"))
    );
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    assert_eq!(
        site.program(["flush", "--queue-only"], b"").ok(),
        "0 messages made due.\n"
    );
    assert_eq!(
        site.row()["queue"],
        "frozen",
        "flush is about what is deferred"
    );
    assert_eq!(
        site.program(["thaw", "--queue-only", &id], b"").ok(),
        format!("{id} thawed.\n")
    );
    let again = site.program(["thaw", "--queue-only", &id], b"");
    assert_eq!(
        (again.code, again.text()),
        (69, format!("{id} not done: it is not frozen.\n"))
    );

    site.program(["freeze", "--for", "2h", &id], b"").ok();
    let until = site.row()["next_attempt"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    let minutes = until.duration_since(jiff::Timestamp::now()).as_secs() / 60;
    assert!((118..=121).contains(&minutes), "{minutes}");
    let history = site.shown(&id)["history"].clone();
    let events: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["freeze", "thaw", "freeze"]);
    assert!(
        history
            .as_array()
            .unwrap()
            .iter()
            .all(|event| event["by"].is_string()),
        "{history}"
    );
    // Thawed, and delivered at once in the background.
    site.program(["thaw", &id], b"").ok();
    site.until_empty();
    assert_eq!(site.boxed().len(), 1);
}

#[test]
fn discarded_and_taken_back() {
    let site = Site::with_box();
    let id = site.queue(&["b@example.test"]);
    let discarded = site.program(["discard", &id], b"").ok();
    assert!(
        discarded.starts_with(&format!(
            "{id} discarded; `mailspool retry` restores it until "
        )),
        "{discarded}"
    );
    let row = site.row();
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&json!("discarded"), &json!("will-be-discarded"))
    );
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    assert_eq!(site.program(["freeze", &id], b"").code, 69);
    site.program(["retry", &id], b"").ok();
    site.until_empty();
    assert_eq!(site.boxed().len(), 1);
    until("no process is left running", || site.processes().is_empty());
    site.is_clean_and_empty();
}

#[test]
fn bounced_by_hand() {
    let site = Site::with_box();
    let id = site.queue(&["b@example.test"]);
    let said = site
        .program(
            ["bounce", "--reason", "wrong list", "--queue-only", &id],
            b"",
        )
        .ok();
    assert_eq!(
        said,
        format!("{id} bounced; its sender will be notified.\n")
    );
    assert_eq!(site.row()["status"], "will-be-bounced");
    site.run().ok();
    site.is_clean_and_empty();
    let copies = site.boxed();
    assert_eq!(copies.len(), 1, "the bounce and nothing else");
    assert!(
        copies[0].contains("Delivered-To: sender@example.org") && copies[0].contains("wrong list"),
        "{}",
        copies[0]
    );

    // The notice contains the last reply, and not the name of the operator that gave up the message.
    let full = pipe("full", "cat >/dev/null; echo no room today; exit 75");
    let site = Site::new(&(full + &route("domain", "example.test", "full") + BOX));
    let id = site.queue(&["b@example.test"]);
    site.run().ok();
    site.program(["bounce", "--reason", "too late", &id], b"")
        .ok();
    site.until_empty();
    let bounce = site.boxed().pop().unwrap();
    let bounce = bounce.replace("\n ", " ");
    let words = "x-mailspool; 5.0.0 returned to the sender by the postmaster: too late; the last answer was: ";
    let told = bounce
        .split_once(words)
        .unwrap_or_else(|| panic!("{bounce}"))
        .1;
    assert!(
        told.lines().next().unwrap().contains("no room today"),
        "{bounce}"
    );
    let report = bounce.split_once("Diagnostic-Code").unwrap().1;
    let (report, _) = report.split_once("Your message").unwrap();
    assert!(!report.contains("root"), "{bounce}");

    site.program(["receive", "-f", "", "b@example.test"], LETTER)
        .ok();
    let id = site.row()["id"].as_str().unwrap().to_owned();
    let refused = site.program(["bounce", &id], b"");
    assert_eq!(refused.code, 69);
    assert!(refused.text().contains("null sender"), "{refused}");
}

#[test]
fn deferred_mail_is_made_due() {
    let site = Site::new(&later("not now"));
    let ids = [
        site.queue(&["b@example.test"]),
        site.queue(&["c@example.test"]),
    ];
    site.run().ok();
    assert!(site.rows().iter().all(|row| row["queue"] == "deferred"));
    site.program(["retry", "--queue-only", &ids[0]], b"").ok();
    let queues = || {
        site.rows()
            .iter()
            .map(|row| row["queue"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(queues(), ["active", "deferred"]);
    assert_eq!(
        site.program(["flush", "--queue-only"], b"").ok(),
        "1 message made due.\n"
    );
    assert_eq!(queues(), ["active", "active"]);
    assert_eq!(
        names(&site.spool().join("deferred")),
        [] as [&str; 0],
        "an empty bucket goes"
    );
    site.run().ok();
    site.configure(BOX);
    assert_eq!(site.program(["flush"], b"").ok(), "2 messages made due.\n");
    site.until_empty();
    assert_eq!(site.boxed().len(), 2);
}

/// The only allowed runner has tried the message already, and is busy with another one. It must try again,
/// because `retry` starts no other runner.
#[test]
fn what_is_made_due_while_every_slot_is_taken_is_not_left() {
    let script = "cat >/dev/null; test -e {dir}/ready || exit 75; echo $RECIPIENT >>{dir}/log";
    let config = pipe("once", script)
        + &pipe(
            "slow",
            "cat >/dev/null; : <{dir}/gate; echo $RECIPIENT >>{dir}/log",
        )
        + &route("domain", "once.test", "once")
        + &route("domain", "slow.test", "slow");
    for action in ["retry", "flush"] {
        let site = Site::new(&format!("[run]\nbackground = 1\n{config}"));
        let mut gate = site.gate("gate");
        let id = site.queue(&["b@once.test"]);
        site.program(["send", "-f", "", "b@slow.test"], LETTER).ok();
        until("one is deferred, the other in progress", || {
            let rows = site.rows();
            rows[0]["queue"] == "deferred" && rows[1]["status"] == "in-progress"
        });
        fs::write(site.dir().join("ready"), "").unwrap();
        let words: &[&str] = if action == "flush" {
            &["flush"]
        } else {
            &["retry", &id]
        };
        site.program(words, b"").ok();
        assert_eq!(site.processes().len(), 1, "no second runner");
        gate.open();
        site.until_empty();
        // In either order: the runner may try again before the gate opens.
        let mut log = site.lines("log");
        log.sort();
        assert_eq!(log, ["b@once.test", "b@slow.test"]);
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let site = Site::new(&later("not now"));
    let ids = [(); 4].map(|()| site.queue(&["b@example.test"]));
    site.run().ok();
    site.program(["freeze", &ids[1]], b"").ok();
    site.program(["discard", &ids[2]], b"").ok();
    site.program(["retry", "--queue-only", &ids[3]], b"").ok();
    // Slots are taken and released, which leaves a file; nothing else may change.
    let content = || -> BTreeMap<PathBuf, Vec<u8>> {
        let all = files(&site.spool());
        all.into_iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    };
    let before = content();
    for action in ["retry", "freeze", "thaw", "discard", "bounce"] {
        for id in &ids {
            let said = site.program([action, "--dry-run", id], b"").ok();
            assert!(
                said.starts_with(&format!("{id} would be ")) && said.lines().count() == 1,
                "{said}"
            );
        }
    }
    assert_eq!(
        site.program(["flush", "--dry-run"], b"").ok(),
        "1 message would be made due.\n"
    );
    assert_eq!(content(), before);
    assert_eq!(site.processes(), []);
}

/// A message that a run has locked until the gate opens; then it is deferred, or delivered.
struct Busy {
    site: Site,
    id: String,
    gate: Gate,
    run: Child,
}

impl Busy {
    fn new(status: u8) -> Busy {
        let script = format!("cat >/dev/null; : <{{dir}}/gate; exit {status}");
        let config = pipe("slow", &script) + &route("domain", "example.test", "slow") + BOX;
        let site = Site::new(&config);
        let gate = site.gate("gate");
        let id = site.queue(&["b@example.test"]);
        let run = site
            .command(["run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until("it is in progress", || {
            site.row()["status"] == "in-progress"
        });
        Busy {
            site,
            id,
            gate,
            run,
        }
    }

    fn act(&self, action: &str) -> Ended {
        self.site.program(
            [action, "--queue-only", "--reason", "by request", &self.id],
            b"",
        )
    }

    /// Opens the gate, and waits for the run to end.
    fn finish(&mut self) {
        self.gate.open();
        assert!(self.run.wait().unwrap().success());
    }
}

#[test]
fn an_action_on_a_message_in_hand_waits_for_the_hand_to_be_empty() {
    for (action, queue) in [
        ("freeze", "frozen"),
        ("discard", "discarded"),
        ("retry", "active"),
        ("bounce", "active"),
    ] {
        let mut busy = Busy::new(75);
        let said = busy.act(action);
        assert_eq!(
            said.ok(),
            format!(
                "{} in use; it will be done as soon as the message is free.\n",
                busy.id
            )
        );
        assert_eq!(
            names(&busy.site.spool().join("requests")),
            [busy.id.as_str()]
        );
        let other = busy.act("freeze");
        assert_eq!(other.code, 75, "{other}");
        assert!(
            other.text().contains("another request is pending"),
            "{other}"
        );
        busy.finish();
        let row = busy.site.row();
        assert_eq!(
            (&row["queue"], &row["attempts"]),
            (&json!(queue), &json!(1)),
            "{action}: {row}"
        );
        let shown = busy.site.shown(&busy.id);
        let events = shown["history"].as_array().unwrap();
        assert_eq!(events.last().unwrap()["event"], action, "{shown}");
        assert_eq!(events.last().unwrap()["reason"], "by request", "{shown}");
        assert_eq!(names(&busy.site.spool().join("requests")), [] as [&str; 0]);
        let checked = busy.site.program(["check"], b"").ok();
        assert!(
            checked.ends_with("\n1 message, no problems.\n"),
            "{checked}"
        );
    }
}

/// A request that would be refused at once is refused later too.
#[test]
fn a_request_that_makes_no_sense_when_it_is_served_is_dropped() {
    let thaw = Busy::new(75);
    let twice = Busy::new(75);
    // The second message is already discarded when its request is served.
    let path = twice.site.spool().join("history").join(&twice.id);
    for (mut busy, action) in [(thaw, "thaw"), (twice, "bounce")] {
        busy.act(action).ok();
        if action == "bounce" {
            let discard = r#"{"at":"2026-11-22T14:05:00Z","event":"discard","by":"x","until":"2126-11-22T14:05:00Z"}"#;
            let history = format!("{discard}\n");
            // Its run is killed, and the next run finds this history.
            busy.run.kill().unwrap();
            busy.run.wait().unwrap();
            fs::write(&path, history).unwrap();
            busy.site.run();
        } else {
            busy.finish();
        }
        let shown = busy.site.shown(&busy.id);
        let events = shown["history"].as_array().unwrap();
        assert!(!events.iter().any(|one| one["event"] == action), "{shown}");
        let requests = names(&busy.site.spool().join("requests"));
        assert_eq!(requests, [] as [&str; 0], "{action}");
    }
}

/// The run has finished the message: an action has no target, and nothing comes back.
#[test]
fn an_action_on_a_message_that_is_delivered_meanwhile_is_void() {
    for action in ["freeze", "discard", "retry", "bounce"] {
        let mut busy = Busy::new(0);
        busy.act(action).ok();
        busy.finish();
        busy.site.is_clean_and_empty();
        assert_eq!(busy.site.run().ok(), "Nothing is due.\n");
        assert_eq!(
            busy.site.boxed().len(),
            0,
            "{action} after delivery bounced"
        );
    }
}

/// The run that served the request was cut off between the record and the rename. The message used to stay in
/// `deferred/` until it was due.
#[test]
fn a_discard_that_was_half_done_is_done_by_the_next_run() {
    let site = Site::new(&later("later"));
    let id = site.queue(&["b@example.test"]);
    site.run().ok();
    let is_message = |path: &PathBuf| path.ends_with(&id);
    let deferred = files(&site.spool().join("deferred"))
        .into_iter()
        .find(is_message);
    let deferred = deferred.unwrap();
    site.program(["discard", "--queue-only", &id], b"").ok();
    let discarded = files(&site.spool().join("discarded"))
        .into_iter()
        .find(is_message);
    fs::create_dir_all(deferred.parent().unwrap()).unwrap();
    fs::rename(discarded.unwrap(), &deferred).unwrap();
    let request = json!({"event": "discard", "by": "root", "until": "2999-01-01T00:00:00Z"});
    let waiting = site.spool().join("requests").join(&id);
    fs::write(&waiting, request.to_string()).unwrap();
    site.run().ok();
    assert_eq!(site.row()["queue"], "discarded");
    assert!(!waiting.exists() && !deferred.exists());
    // The same request on the discarded message records nothing.
    fs::write(&waiting, request.to_string()).unwrap();
    site.run().ok();
    let shown = site.shown(&id);
    let discards = shown["history"].as_array().unwrap().iter();
    let discards = discards.filter(|event| event["event"] == "discard");
    assert_eq!((discards.count(), waiting.exists()), (2, false));
}

/// A request that outlives its run is served by the next one.
#[test]
fn a_request_outlives_a_killed_run() {
    let mut busy = Busy::new(75);
    busy.act("freeze").ok();
    busy.run.kill().unwrap();
    busy.run.wait().unwrap();
    assert_eq!(
        names(&busy.site.spool().join("requests")),
        [busy.id.as_str()]
    );
    busy.site.run().ok();
    let row = busy.site.row();
    assert_eq!(
        (&row["queue"], &row["last_error"]),
        (&json!("frozen"), &json!("by request"))
    );
    assert_eq!(names(&busy.site.spool().join("requests")), [] as [&str; 0]);
    busy.gate.open();
}

#[test]
fn what_others_wrote_does_nothing_to_a_terminal() {
    // A command, a message and another operator all try it.
    let site = Site::new(&later(
        r"4.2.0 \033[31mred\007 \033]0;title\033\\ \302\233x\rover",
    ));
    let letter = b"Subject: \x1b[31mred\x07\nX-\x1b: \x9b\n\n\x1b[2J\n";
    let sent = site.program(
        [
            "send",
            "--queue-only",
            "-f",
            "a@example.org",
            "b@example.test",
        ],
        letter,
    );
    let id = sent.ok().trim_end().to_owned();
    // Accepted or not; if accepted, it must not be printed raw.
    for odd in [
        "b\u{1b}[31m@example.test",
        "b\u{9b}31m@example.test",
        "\"b\u{7f}\"@example.test",
    ] {
        site.program(
            ["send", "--queue-only", "-f", odd, "b@example.test"],
            LETTER,
        );
        site.program(["send", "--queue-only", "-f", "a@example.org", odd], LETTER);
    }
    site.run().ok();
    site.program(
        ["freeze", "--reason", "\x1b[31mred\x07\rover\u{9b}", &id],
        b"",
    )
    .ok();
    let mut said = vec![
        site.program(["list"], b"").ok(),
        site.program(["list", "--json"], b"").ok(),
    ];
    for row in site.rows() {
        let id = row["id"].as_str().unwrap();
        said.extend([
            site.program(["show", id], b"").ok(),
            site.program(["show", "--json", id], b"").ok(),
        ]);
    }
    said.push(site.program(["check"], b"").ok());
    for text in said {
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{text:?}");
    }
    assert!(site.shown(&id).to_string().contains("red"));
    let raw = site.program(["show", "--message", &id], b"");
    assert!(raw.out.ends_with(b"\n\n\x1b[2J\n"), "raw, if requested");
}

/// With runners, submitters and an operator at work, a message that stays is listed exactly once.
#[test]
fn a_listing_sees_every_message_once() {
    let config =
        pipe("later", "cat >/dev/null; exit 75") + &route("domain", "stays.test", "later") + BOX;
    let site = Site::new(&config);
    site.queue_many(25, |n| format!("r{n}@stays.test"));
    let staying: BTreeSet<String> = site
        .rows()
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    let over = AtomicBool::new(false);
    let again = |work: &(dyn Fn() + Sync)| {
        while !over.load(Ordering::SeqCst) {
            work();
        }
    };
    let moves = thread::scope(|scope| {
        scope.spawn(|| again(&|| drop(site.program(["run", "--quiet"], b"").ok())));
        scope.spawn(|| again(&|| drop(site.program(["flush"], b"").ok())));
        scope.spawn(|| again(&|| drop(site.queue(&["r@passes.test"]))));
        let mut moves = BTreeSet::new();
        let listed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..60 {
                let mut seen = BTreeMap::<String, usize>::new();
                for row in site.rows() {
                    let id = row["id"].as_str().unwrap().to_owned();
                    if staying.contains(&id) {
                        moves.insert((id.clone(), row["queue"].as_str().unwrap().to_owned()));
                        assert!(row["sender"].is_string(), "{row}");
                    }
                    *seen.entry(id).or_default() += 1;
                }
                let wrong: Vec<_> = staying
                    .iter()
                    .filter(|id| seen.get(*id) != Some(&1))
                    .collect();
                assert!(wrong.is_empty(), "{wrong:?} of {seen:?}");
                let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
                assert!(twice.is_empty(), "{twice:?}");
            }
        }));
        over.store(true, Ordering::SeqCst);
        listed.unwrap();
        moves
    });
    assert!(moves.len() > staying.len(), "nothing moved");
}

/// An error in the configuration stops mail from being accepted and delivered, and nothing else.
#[test]
fn looking_and_holding_back_go_on_with_a_mistake_in_the_configuration() {
    let site = Site::new(&later("4.0.0 later"));
    let id = site.queue(&["b@example.test"]);
    site.configure("[retry]\njitter = 7\n");
    let mistake = "config.toml:3: jitter";
    let warned = |arguments: &[&str], code: i32| {
        let ended = site.program(arguments, b"");
        assert_eq!(ended.code, code, "{arguments:?}: {ended}");
        let warning = ended.err.lines().next().unwrap_or_default();
        let is_warning = warning.starts_with("mailspool: warning: ") && warning.contains(mistake);
        assert!(is_warning, "{arguments:?}: {ended}");
        ended.text()
    };
    assert!(warned(&["list"], 0).contains(&id));
    assert_eq!(warned(&["count"], 0), "1\n");
    assert!(warned(&["show", &id], 0).contains("b@example.test"));
    assert!(warned(&["check"], 0).ends_with("1 message, no problems.\n"));
    assert!(warned(&["config"], 0).contains("\n# the defaults, because of a mistake: /"));
    assert!(warned(&["config", "notices", "delay"], 0).contains("Auto-Submitted: "));
    warned(&["schedule", "b@example.test"], 0);
    let route = warned(&["route", "b@example.test"], 75);
    assert!(
        route.contains("it waits: ") && route.contains(mistake),
        "{route}"
    );
    warned(&["destinations"], 0);
    warned(&["destinations", "clear"], 0);
    let unknown = "its routes are unknown, because the configuration cannot be used.\n";
    for (suspend, count) in [
        (&["suspend", "example.test"][..], "at least 1 message in"),
        (
            &["suspend", "--transport", "later"],
            "at least 0 messages in",
        ),
        // No transport is known to lead there, and none is known not to.
        (&["suspend", "later:mx.test:25"], "at least 0 messages in"),
        (&["suspend", "unix:/run/x"], "at least 0 messages in"),
        (&["suspend", "--all"], "It concerns 1 message in"),
    ] {
        let said = warned(suspend, 0);
        assert!(said.contains(count) && said.ends_with(unknown), "{said}");
    }
    assert_eq!(site.program(["suspend", "*.test"], b"").code, 64);
    warned(&["resume", "--all"], 0);
    warned(&["resume", "unix:/run/x", "later:mx.test:25"], 0);
    warned(&["resume", "--transport", "later"], 0);
    warned(&["resume", "example.test"], 0);
    warned(&["freeze", &id], 0);
    warned(&["thaw", &id], 0);
    let retried = site.program(["retry", &id], b"");
    assert!(
        retried.err.contains("this command attempts nothing"),
        "{retried}"
    );
    warned(&["flush"], 0);
    warned(&["discard", &id], 0);
    warned(&["retry", "--queue-only", &id], 0);
    warned(&["bounce", &id], 0);
    assert!(site.processes().is_empty(), "no attempt is started");

    let refused = |arguments: &[&str], code: i32| {
        let ended = site.program(arguments, LETTER);
        assert_eq!(ended.code, code, "{arguments:?}: {ended}");
        assert!(ended.err.contains(mistake), "{arguments:?}: {ended}");
    };
    refused(&["run"], 78);
    refused(&["send", "b@example.test"], 78);
    refused(&["receive", "-f", "", "b@example.test"], 75);
    refused(&["probe", "b@example.test"], 78);
    refused(&["config", "check"], 78);
    assert_eq!(warned(&["count"], 0), "1\n");
}
