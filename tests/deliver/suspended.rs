//! `suspend` and `resume`: which mail is held back, which is not, and which commands report it.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::program::{Site, outcome, pipe, route, until};

/// A site with a transport that writes every recipient's address to a file.
fn noting() -> Site {
    let note = "cat >/dev/null; echo \"$RECIPIENT\" >>{dir}/log";
    let routes = route("domain", "other.test", "two") + &route("domain", "*", "one");
    Site::new(&(pipe("one", note) + &pipe("two", note) + &routes))
}

fn objects(text: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).unwrap();
    text.lines().map(object).collect()
}

#[test]
fn suspended_mail_waits_and_all_other_mail_goes() {
    let site = noting();
    let say = |arguments: &[&str]| site.program(arguments, b"");
    let first = site.queue(&["a@Held.test", "b@free.test"]);
    let suspend = [
        "suspend",
        "HELD.test",
        "--for",
        "2d",
        "--reason",
        "they move",
    ];
    let said = say(&suspend).ok();
    assert!(said.starts_with("held.test is suspended until "), "{said}");
    let second = site.queue(&["c@held.test"]);
    let third = site.queue(&["d@sub.held.test"]);
    site.run().ok();
    let log = || {
        let mut log = site.lines("log");
        log.sort();
        log
    };
    assert_eq!(log(), ["b@free.test", "d@sub.held.test"]);
    assert!(!site.rows().iter().any(|row| row["id"] == *third));
    // A message without an attempt has no history.
    let shown = site.shown(&second);
    assert_eq!(
        (&shown["queue"], &shown["attempts"]),
        (&json!("deferred"), &json!(0))
    );
    assert_eq!(shown["history"], json!([]));
    let listed = objects(&say(&["destinations", "--json"]).ok());
    assert_eq!(listed.len(), 1);
    let one = &listed[0];
    assert_eq!(
        (&one["state"], &one["destination"], &one["reason"]),
        (
            &json!("suspended"),
            &json!("held.test"),
            &json!("they move")
        )
    );
    for id in [&first, &second] {
        let shown = site.shown(id);
        assert_eq!(shown["next_attempt"], one["until"]);
        let why = shown["last_error"].as_str().unwrap();
        assert!(why.starts_with("held.test is suspended by "), "{why}");
        assert!(why.ends_with(": they move"), "{why}");
    }
    let table = say(&["destinations"]).ok();
    assert!(table.contains("held.test    suspended"), "{table}");
    let way = &objects(&say(&["route", "--json", "x@held.test"]).ok())[0];
    assert!(way["suspended"].is_string(), "{way}");
    let way = &objects(&say(&["route", "--json", "x@sub.held.test"]).ok())[0];
    assert_eq!(way["suspended"], Value::Null);
    // After any action of an operator, the message's mail stays held back.
    let said = say(&["retry", "--queue-only", &second]).ok();
    assert!(
        said.contains("made due, but waits: held.test is suspended"),
        "{said}"
    );
    site.run().ok();
    say(&["flush", "--queue-only"]).ok();
    site.run().ok();
    assert_eq!(site.lines("log").len(), 2);
    assert_eq!(site.rows().len(), 2);
    assert!(say(&["check"]).ok().ends_with("no problems.\n"));
    assert_eq!(
        say(&["resume", "--queue-only", "held.test"]).ok(),
        "held.test is no longer suspended.\n2 messages made due.\n"
    );
    site.run().ok();
    assert_eq!(
        log(),
        [
            "a@Held.test",
            "b@free.test",
            "c@held.test",
            "d@sub.held.test"
        ]
    );
    site.is_clean_and_empty();
    let again = say(&["resume", "held.test"]);
    assert_eq!(
        (again.code, again.text()),
        (69, "held.test is not suspended.\n".to_owned())
    );
}

#[test]
fn transports_are_suspended_by_name_and_time_lets_them_go() {
    let site = noting();
    let say = |arguments: &[&str]| site.program(arguments, b"");
    for wrong in [
        &["suspend", "--transport", "three"][..],
        &["suspend", "x@held.test"],
        &["suspend", ""],
        &["suspend"],
    ] {
        assert_eq!(say(wrong).code, 64, "{wrong:?}");
    }
    assert!(!site.spool().join("suspended").exists());
    let hint = say(&["suspend", "two"]).ok();
    assert!(
        hint.contains("use --transport for the transport two"),
        "{hint}"
    );
    say(&["suspend", "--transport", "two", "--for", "20s"]).ok();
    site.queue(&["a@other.test", "b@x.test"]);
    site.run().ok();
    assert_eq!(site.lines("log"), ["b@x.test"]);
    // After it expires, the next run removes it.
    say(&["suspend", "--transport", "two", "--for", "0s"]).ok();
    site.run().ok();
    assert!(!site.spool().join("suspended/transport=two").exists());
    assert!(site.spool().join("suspended/two").exists());
    say(&[
        "retry",
        "--queue-only",
        &site.row()["id"].as_str().unwrap()[24..],
    ])
    .ok();
    site.run().ok();
    assert_eq!(site.lines("log"), ["b@x.test", "a@other.test"]);
}

#[test]
fn a_damaged_suspension_is_found_and_stays_until_it_is_resumed() {
    let site = noting();
    let say = |arguments: &[&str]| site.program(arguments, b"");
    say(&["suspend", "held.test"]).ok();
    fs::write(
        site.spool().join("suspended/held.test"),
        "{\"destination\":",
    )
    .unwrap();
    site.queue(&["a@held.test"]);
    site.queue(&["b@free.test"]);
    site.run().ok();
    assert_eq!(site.lines("log"), ["b@free.test"]);
    for arguments in [&["check"][..], &["check", "--repair"]] {
        let found = say(arguments);
        assert_eq!(found.code, 65, "{found}");
        assert!(
            found.text().contains("held.test stays suspended"),
            "{found}"
        );
    }
    let why = site.row()["last_error"].as_str().unwrap().to_owned();
    assert!(why.contains("its file is damaged"), "{why}");
    let listed = say(&["destinations"]).ok();
    assert!(listed.contains("`mailspool resume` removes it"), "{listed}");
    say(&["resume", "--queue-only", "held.test"]).ok();
    site.run().ok();
    assert_eq!(site.lines("log"), ["b@free.test", "a@held.test"]);
    site.is_clean_and_empty();
}

/// A running `run --watch` obeys each change as soon as the command has reported it.
#[test]
fn a_run_that_stays_heeds_what_is_suspended_and_resumed() {
    let site = noting();
    let say = |arguments: &[&str]| site.program(arguments, b"").ok();
    let mut command = site.command(["run", "--watch", "--quiet"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let watch = command.stderr(Stdio::piped()).spawn().unwrap();
    let has = |to: &str| site.lines("log").iter().any(|line| line == to);
    site.queue(&["a@held.test"]);
    until("the first is delivered", || has("a@held.test"));
    for round in 0..3 {
        say(&["suspend", "held.test"]);
        let held = format!("h{round}@held.test");
        let free = format!("f{round}@free.test");
        let id = site.queue(&[&held]);
        site.queue(&[&free]);
        until("the other is delivered", || has(&free));
        until("it is put off", || site.shown(&id)["queue"] == "deferred");
        assert!(!has(&held), "although it is suspended");
        say(&["resume", "--queue-only", "held.test"]);
        until("it is delivered", || has(&held));
    }
    kill(Pid::from_raw(watch.id() as i32), Signal::SIGTERM).unwrap();
    outcome(watch, &command).ok();
    site.is_clean_and_empty();
}

#[test]
fn what_can_match_nothing_is_not_suspended() {
    let site = noting();
    for name in [
        "*",
        "*.held.test",
        "h?ld.test",
        "held test",
        "held..test",
        ".held.test",
        "three:held.test",
        "held.test:25",
        "/no/such/box",
        "192.0.2.1",
        "[not.an.address]",
    ] {
        let said = site.program(["suspend", name], b"");
        assert_eq!(said.code, 64, "{name}: {said}");
    }
    assert!(!site.spool().join("suspended").exists());
    let star = site.program(["suspend", "*"], b"");
    assert!(star.err.contains("`--all` suspends everything"), "{star}");
    for name in [
        "held.test.",
        "one:held.test",
        "xn--bcher-kva.test",
        "[192.0.2.1]",
    ] {
        site.program(["suspend", name], b"").ok();
        // It is resumed by the same name, even after the configuration has changed.
        site.program(["resume", "--queue-only", name], b"").ok();
    }
}

/// The end of a suspension does not release scheduled mail.
#[test]
fn what_is_for_later_is_due_at_its_release() {
    let site = Site::with_box();
    let send = ["send", "--at", "+3h", "--", "a@x.test"];
    site.program(send, b"Subject: s\n\nx\n").ok();
    let release = site.row()["next_attempt"].clone();
    site.program(["suspend", "x.test", "--for", "1h"], b"").ok();
    assert_eq!(site.row()["next_attempt"], release);
    site.program(["suspend", "x.test", "--for", "9h"], b"").ok();
    assert!(site.row()["next_attempt"].as_str() > release.as_str());
}

#[test]
fn it_is_said_what_a_suspension_concerns() {
    let site = noting();
    site.queue(&["a@held.test", "b@free.test"]);
    site.queue(&["c@held.test"]);
    site.queue(&["d@other.test"]);
    let concerns = |arguments: &[&str]| {
        let said = site.program(arguments, b"").ok();
        said.lines().last().unwrap().to_owned()
    };
    let (two, all) = (
        "[[route]] number 1 (domain other.test)",
        "[[route]] number 2 (everything)",
    );
    for (arguments, count, routes) in [
        (
            &["suspend", "HELD.test"][..],
            "2 messages",
            format!("by {all}"),
        ),
        (
            &["suspend", "exmaple.net"],
            "0 messages",
            format!("by {all}"),
        ),
        (&["suspend", "other.test"], "1 message", format!("by {two}")),
        (
            &["suspend", "one:other.test"],
            "0 messages",
            "no route leads there".into(),
        ),
        (
            &["suspend", "--transport", "two"],
            "1 message",
            format!("by {two}"),
        ),
        (
            &["suspend", "--all"],
            "3 messages",
            format!("by {two}, {all}"),
        ),
    ] {
        let said = concerns(arguments);
        assert_eq!(
            said,
            format!("It concerns {count} in the queue; {routes}."),
            "{arguments:?}"
        );
    }
}

#[test]
fn everything_is_suspended_and_resumed() {
    let site = noting();
    let say = |arguments: &[&str]| site.program(arguments, b"");
    assert_eq!(say(&["suspend", "--all", "held.test"]).code, 64);
    let said = say(&["suspend", "--all", "--reason", "a move"]).ok();
    assert!(
        said.starts_with("everything is suspended until `mailspool resume --all`."),
        "{said}"
    );
    say(&["suspend", "other.test"]).ok();
    for to in ["a@one.test", "b@other.test", "root"] {
        site.queue(&[to]);
    }
    site.run().ok();
    assert_eq!(site.lines("log"), [] as [String; 0]);
    for row in site.rows() {
        let why = row["last_error"].as_str().unwrap();
        assert!(why.contains(" is suspended by "), "{row}");
    }
    let listed = objects(&say(&["destinations", "--json"]).ok());
    let all = listed.iter().find(|one| one["all"] == true).unwrap();
    assert_eq!(
        (&all["destination"], &all["transport"]),
        (&json!(null), &json!(null))
    );
    assert!(say(&["check"]).ok().ends_with("no problems.\n"));
    let resumed = say(&["resume", "--all", "--queue-only"]).ok();
    assert!(
        resumed.starts_with("everything is no longer suspended.\nother.test is suspended by "),
        "{resumed}"
    );
    site.run().ok();
    let mut log = site.lines("log");
    log.sort();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(!log.contains(&"b@other.test".to_owned()), "{log:?}");
    assert_eq!(say(&["resume", "--all"]).code, 69);
}
