//! `send`: for people and programs. Its output and exit status, the fields it adds, the recipients it takes
//! from a header, and the attempts that it starts in the background.
//!
//! What belongs here: anything that the caller of `send` sees, and the limits on background processes.

mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use program::{BOX, LETTER, Site, code_of, ended, pipe, route, until};

#[test]
fn it_prints_the_id_and_nothing_else() {
    let site = Site::with_box();
    let sent = site.program(
        [
            "send",
            "--queue-only",
            "-f",
            "a@example.org",
            "b@example.test",
        ],
        LETTER,
    );
    let id = sent.ok();
    assert_eq!(sent.err, "");
    assert_eq!((id.len(), id.ends_with('\n')), (37, true), "{id:?}");
    let row = site.row();
    assert_eq!(row["id"], id.trim_end());
    assert_eq!(
        (&row["queue"], &row["sender"]),
        (&"active".into(), &"a@example.org".into())
    );
    assert_eq!(site.processes(), [], "nothing was started");
}

fn send_at(site: &Site, at: &str) -> program::Ended {
    let command = ["send", "-f", "a@example.org", "--at", at, "b@example.test"];
    site.program(command, LETTER)
}

#[test]
fn for_later_is_a_time_that_is_not_past() {
    let site = Site::new("[log]\nto = \"none\"\n");
    let sent = send_at(&site, "2020-01-01T00:00Z");
    assert_eq!(sent.code, 64, "{sent:?}");
    assert!(sent.err.contains("is past, by "), "{}", sent.err);
    assert_eq!(site.rows().len(), 0);
    for (at, days) in [("tomorrow 23:59", 1..3), ("0:00", 0..2)] {
        let sent = send_at(&site, at);
        assert_eq!(sent.code, 0, "{sent:?}");
        let row = site.rows().pop().unwrap();
        let time = |of: &str| {
            row[of]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap()
        };
        let ahead = time("next_attempt").duration_since(time("added"));
        assert!(days.contains(&(ahead.as_hours() / 24)), "{at}: {row}");
    }
}

#[test]
fn for_later_it_is_left_alone_until_an_operator_releases_it() {
    let site = Site::with_box();
    let sent = send_at(&site, "+2h");
    let goes =
        |text: &str| text.starts_with("mailspool: to be sent in 2h, 2") && text.ends_with('\n');
    assert!(goes(&sent.err), "{}", sent.err);
    let id = sent.ok();
    let id = id.trim_end();
    assert_eq!(id.len(), 36, "programs read nothing else");
    assert_eq!(site.processes(), [], "nothing was started");
    let scheduled = |site: &Site| {
        let row = site.row();
        assert_eq!(
            (&row["queue"], &row["attempts"]),
            (&"deferred".into(), &0.into())
        );
        row["next_attempt"].clone()
    };
    let next = scheduled(&site);
    site.run().ok();
    // A flush tries mail that failed; this mail was not due.
    site.program(["flush"], b"").ok();
    site.run().ok();
    assert_eq!(scheduled(&site), next);
    // A thaw ends a freeze, not the schedule.
    site.program(["freeze", id], b"").ok();
    site.run().ok();
    assert_eq!(site.row()["queue"], "frozen");
    site.program(["thaw", id], b"").ok();
    until("it is scheduled again", || {
        site.row()["queue"] == "deferred"
    });
    assert_eq!(scheduled(&site), next);
    assert_eq!(site.program(["check"], b"").code, 0);
    site.program(["retry", id], b"").ok();
    site.until_empty();
    assert_eq!(site.boxed().len(), 1);
}

#[test]
fn a_time_for_later_is_within_a_limit() {
    let site = Site::new(&format!("[accept]\nmax_hold = \"3d\"\n{BOX}"));
    let refused = send_at(&site, "+4d");
    assert_eq!(refused.code, 64, "{refused}");
    assert!(refused.err.contains("at most 3 days"), "{refused}");
    assert_eq!(send_at(&site, "tomorrow").code, 64);
    assert!(site.is_empty());
    send_at(&site, "+0s").ok();
    site.until_empty();
    assert_eq!(site.boxed().len(), 1);
    send_at(&site, "+2d").ok();
    assert_eq!(site.row()["status"], "scheduled");
}

#[test]
fn it_delivers_at_once() {
    let site = Site::with_box();
    site.program(["send", "-f", "a@example.org", "b@example.test"], LETTER)
        .ok();
    site.until_empty();
    assert_eq!(site.boxed().len(), 1);
    until("no process is left running", || site.processes().is_empty());
    site.is_clean_and_empty();
}

#[test]
fn a_shell_has_the_id_while_delivery_takes_its_time() {
    let config =
        pipe("slow", ": <{dir}/gate; cat >{dir}/delivered") + &route("domain", "*", "slow");
    let site = Site::new(&config);
    let mut gate = site.gate("gate");
    let mut shell = Command::new("/bin/sh");
    let script = "id=$(\"$@\" </dev/fd/3); echo \"id is $id\"";
    let letter = site.dir().join("letter");
    fs::write(&letter, LETTER).unwrap();
    let script = script.replace("/dev/fd/3", letter.to_str().unwrap());
    shell
        .env_clear()
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_mailspool")]);
    shell
        .arg("--spool")
        .arg(site.spool())
        .args(["send", "b@example.test"]);
    let said = ended(&mut shell, b"").ok();
    until("it is being delivered", || {
        site.row()["status"] == "in-progress"
    });
    assert_eq!(
        said,
        format!("id is {}\n", site.row()["id"].as_str().unwrap())
    );

    let runners = site.processes();
    assert_eq!(runners.len(), 1);
    for runner in &runners {
        let own = nix::unistd::getsid(Some(*runner)).unwrap();
        assert_eq!(own, *runner, "a separate session");
        for descriptor in 0..3 {
            let leads_to = fs::read_link(format!("/proc/{runner}/fd/{descriptor}")).unwrap();
            assert_eq!(leads_to.to_str(), Some("/dev/null"));
        }
    }
    gate.open();
    site.until_empty();
    assert!(site.lines("delivered").contains(&"Hello.".to_owned()));
}

/// `flock lock mailspool send` frees its lock, and a reader of any descriptor gets its end.
#[test]
fn an_attempt_in_the_background_keeps_nothing_of_its_caller() {
    let config = pipe("slow", ": <{dir}/gate; cat >/dev/null") + &route("domain", "*", "slow");
    let site = Site::new(&config);
    let mut gate = site.gate("gate");
    let lock = site.dir().join("lock");
    let inner = site.command(["send", "b@example.test"]);
    let mut shell = Command::new("/bin/sh");
    let script = "exec 9>\"$1\"; flock 9; shift; exec \"$@\"";
    shell.args(["-c", script, "sh"]).arg(&lock);
    shell.arg(inner.get_program()).args(inner.get_args());
    ended(&mut shell, LETTER).ok();
    until("it is being delivered", || {
        site.row()["status"] == "in-progress"
    });
    fs::File::open(&lock).unwrap().try_lock().unwrap();
    let open = |pid: &nix::unistd::Pid| {
        let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let targets = all.map(|one| fs::read_link(one.unwrap().path()).unwrap_or_default());
        targets.collect::<Vec<_>>()
    };
    let processes = site.processes();
    assert_eq!(processes.len(), 1);
    assert!(!processes.iter().flat_map(open).any(|target| target == lock));
    gate.open();
    site.until_empty();
}

/// Submits and delivers messages under a process 1 that never waits for orphans. Prints how many zombies and
/// how many processes of the program are left.
const CONTAINER: &str = "
import fcntl, os, signal, subprocess, sys, time
hears, spool, box = sys.argv[1], sys.argv[2], sys.argv[3]
if hears == 'hears':
    signal.signal(signal.SIGCHLD, lambda *_: None)
def until(what):
    end = time.monotonic() + 50
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
def ours():
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try: stat = open('/proc/' + pid + '/stat').read()
        except OSError: continue
        if '(mailspool)' in stat: found.append(stat.rsplit(') ', 1)[1][0])
    return found
def resides():
    try: file = open(spool + '/state/resident-0', 'r+')
    except OSError: return False
    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: return True
    return False
for n in range(4):
    subprocess.run(sys.argv[4:], input=b'Subject: x\\n\\nbody\\n', check=True, stdout=subprocess.DEVNULL)
    until(lambda: os.path.isdir(box) and len(os.listdir(box)) == n + 1)
    if hears != 'hears' or n: until(resides)
    else: until(lambda: 'Z' in ours())
until(lambda: not os.listdir(spool + '/done') and not os.listdir(spool + '/info/sender'))
print(ours().count('Z'), len(ours()) - ours().count('Z'))
";

/// Because process 1 never waits, a process avoids becoming a zombie there only by not ending.
#[test]
fn attempts_in_the_background_do_not_become_zombies() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    for (hears, expected) in [("deaf", "0 1\n"), ("hears", "1 1\n")] {
        let site = Site::with_box();
        let inner = site.command(["send", "b@example.test"]);
        let mut container = Command::new("unshare");
        container
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["python3", "-c", CONTAINER, hears])
            .arg(site.spool())
            .arg(site.dir().join("box/new"))
            .arg(inner.get_program())
            .args(inner.get_args());
        assert_eq!(ended(&mut container, b"").ok(), expected, "{hears}");
        site.is_clean_and_empty();
    }
}

#[test]
fn a_delivery_that_hangs_delays_no_other() {
    let config = pipe("slow", ": <{dir}/gate; cat >/dev/null")
        + &pipe("quick", "cat >/dev/null; echo $RECIPIENT >>{dir}/log")
        + "[run]\nbackground = 1\n"
        + &route("domain", "slow.test", "slow")
        + &route("domain", "*", "quick");
    let site = Site::new(&config);
    let mut gate = site.gate("gate");
    site.program(["send", "b@slow.test"], LETTER).ok();
    until("it is being delivered", || {
        site.row()["status"] == "in-progress"
    });
    // The only slot is taken, and its runner is waiting.
    site.program(["send", "c@example.test"], LETTER).ok();
    until("the other one is delivered", || {
        site.lines("log") == ["c@example.test"]
    });
    assert_eq!(site.processes().len(), 1);
    gate.open();
    site.until_empty();
}

#[test]
fn senders_and_recipients_without_a_domain_get_ours() {
    let site = Site::with_box();
    site.program(
        ["send", "--queue-only", "bob", "Carol@Example.Test"],
        LETTER,
    )
    .ok();
    let row = site.row();
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap()
        .name;
    assert_eq!(row["sender"], format!("{user}@mail.test"));
    assert_eq!(row["recipients"][0]["address"], "bob@mail.test");
    assert_eq!(row["recipients"][1]["address"], "Carol@Example.Test");
}

#[test]
fn date_and_message_id_are_added_where_they_are_missing() {
    let site = Site::with_box();
    for (has, date, id) in [
        ("", true, true),
        ("From: me\nDate: yesterday\n", false, true),
        ("MESSAGE-ID: <x@y>\n", true, false),
        ("date: yesterday\nMessage-Id: <x@y>\n", false, false),
    ] {
        let letter = format!("Subject: s\n{has}To: b\n\nDate: no\nMessage-ID: no\n");
        let sent = site
            .program(
                ["send", "--queue-only", "b@example.test"],
                letter.as_bytes(),
            )
            .ok();
        let stored = site.program(["show", "--message", sent.trim()], b"").ok();
        let (header, body) = stored.split_once("\n\n").unwrap();
        assert_eq!(body, "Date: no\nMessage-ID: no\n");
        let count = |name: &str| {
            let lines = header.lines().map(str::to_ascii_lowercase);
            lines.filter(|line| line.starts_with(name)).count()
        };
        assert_eq!((count("date: "), count("message-id: ")), (1, 1), "{header}");
        let rest = format!("\nSubject: s\n{has}To: b");
        let (before, added) = header.split_once(&rest).expect("the rest as it was");
        assert!(before.starts_with("Received: "), "{header}");
        assert_eq!(added.contains("\nDate: "), date, "{header}");
        let ours = format!("\nMessage-ID: <{}@mail.test>", sent.trim());
        assert_eq!(added.contains(&ours), id, "{header}");
    }
}

#[test]
fn the_sender_is_the_author_if_none_is_named() {
    let site = Site::with_box();
    for (sender, header, from) in [
        ("me@example.test", "", Some("From: <me@example.test>")),
        ("me", "From:x: y\n", None),
        ("me", "X-From: y\n", Some("From: <me@mail.test>")),
        ("me@example.test", "FROM : Jo <jo@x.test>\n", None),
        ("<>", "", Some("From: <MAILER-DAEMON@mail.test>")),
        ("me@bücher.test", "", Some("From: <me@xn--bcher-kva.test>")),
        ("ö@bücher.test", "", Some("From: <ö@bücher.test>")),
        (
            "\"a  b\"@example.test",
            "",
            Some("From: <\"a  b\"@example.test>"),
        ),
    ] {
        let command = ["send", "--queue-only", "-f", sender, "b@example.test"];
        let letter = format!("{header}Subject: s\r\n\r\nFrom: no\r\n");
        let id = site.program(command, letter.as_bytes()).ok();
        let stored = site.program(["show", "--headers", id.trim()], b"").ok();
        let ours: Vec<_> = stored
            .lines()
            .filter(|l| l.starts_with("From: <"))
            .collect();
        assert_eq!(ours, Vec::from_iter(from), "{sender} {header}");
        assert!(!stored.contains(header) || stored.contains("Subject: s"));
    }
    // A line has a maximum length.
    let long = format!("{}@example.test", "x".repeat(980));
    let command = ["send", "--queue-only", "-f", &long, &long];
    let id = site.program(command, LETTER).ok();
    let stored = site.program(["show", "--headers", id.trim()], b"").ok();
    assert!(stored.lines().all(|line| line.len() <= 998), "{stored}");
}

/// Addresses as in each header field, and as in each argument.
#[test]
fn an_argument_is_a_list_as_in_a_header() {
    let site = Site::with_box();
    for (given, addresses) in [
        (&["Joe <joe@x.test>"][..], &["joe@x.test"][..]),
        (
            &["a@x.test,b@y.test", "c"],
            &["a@x.test", "b@y.test", "c@mail.test"],
        ),
        (&["@r.test:a@x.test.", "a@X.test"], &["a@x.test"]),
        (&["root@x.test (cron)"], &["root@x.test"]),
        (
            &["team: a@x.test, \"b c\"@x.test;"],
            &["a@x.test", "\"b c\"@x.test"],
        ),
        (&["joe . doe@x.test"], &["joe.doe@x.test"]),
    ] {
        let command = [
            &["send", "--queue-only", "-f", "Me <me@x.test> (me)", "--"],
            given,
        ]
        .concat();
        let id = site.program(command, LETTER).ok();
        assert_eq!(recipients(&site, id.trim()), addresses);
        let shown = site.program(["show", "--json", id.trim()], b"").ok();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["sender"], "me@x.test");
        site.program(["discard", id.trim()], b"").ok();
    }
}

#[track_caller]
fn recipients(site: &Site, id: &str) -> Vec<String> {
    let shown = site.program(["show", "--json", id], b"").ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let all = shown["recipients"].as_array().unwrap().iter();
    all.map(|recipient| recipient["address"].as_str().unwrap().to_owned())
        .collect()
}

/// Exit 0 means that a copy is queued for every recipient. If an element is no address, the error names it
/// and nothing is queued.
#[test]
fn an_element_of_a_header_that_is_no_address_is_named() {
    let site = Site::with_box();
    for (header, named) in [
        ("To: a@x.test, bob at x\n", "To: \"bob at x\""),
        ("To: a@x.test\nCc: host!joe\n", "Cc: \"host!joe\""),
        ("Bcc: a@x.test, \"open <b@x.test>\n", "Bcc: \"\\\"open"),
        (
            "To: a@x.test, =?utf-8?q?b@x.test?=\n",
            "To: \"=?utf-8?q?b@x.test?=\"",
        ),
        ("To: a@x.test\n b@x.test\n", "To: \"a@x.test b@x.test\""),
        ("To: a@x.test b@x.test\n", "To: \"a@x.test b@x.test\""),
        (
            "To: Joe <a@x.test, b@x.test\n",
            "To: \"Joe <a@x.test, b@x.test\"",
        ),
        (
            "To: a@x.test\rBcc: b@x.test\n",
            "To: \"a@x.test Bcc: b@x.test\"",
        ),
        (
            "To: a@x.test\nResent-Bcc: b at x\n",
            "Resent-Bcc: \"b at x\"",
        ),
        // An invalid line ends the header, and would turn the fields after it into text.
        (
            "To: a@x.test\nX-\u{fc}: y\nBcc: b@x.test\n",
            "\"X-\u{fc}: y\" is no header field, so the header ends there and Bcc",
        ),
        (
            "To: a@x.test\nFrom me Sun\nResent-To: b@x.test\n",
            "\"From me Sun\" is no header field, so the header ends there and Resent-To",
        ),
        (
            "To: a@x.test\nB\0cc: b@x.test\n",
            "\"B\\0cc: b@x.test\" is no header field, so the header ends there and Bcc",
        ),
    ] {
        let sent = site.program(
            ["send", "-t", "--queue-only"],
            format!("{header}\nb\n").as_bytes(),
        );
        assert_eq!(sent.code, 65, "{header}: {sent}");
        assert!(sent.err.contains(named), "{header}: {sent}");
        assert!(site.is_empty());
    }
    let latin = site.program(["send", "-t", "--queue-only"], b"To: j\xf6@x.test\n\nb\n");
    assert_eq!(latin.code, 65, "{latin}");
    assert!(site.is_empty());
    // A body may begin without an empty line, and after an empty line any line is text.
    for text in ["Hello,\nthere\n", "Hello\n\nBcc: b@x.test\n"] {
        let input = format!("To: a@x.test\n{text}");
        let sent = site.program(["send", "-t", "--queue-only"], input.as_bytes());
        let id = sent.ok();
        assert_eq!(recipients(&site, id.trim()), ["a@x.test"]);
    }
}

/// The fields that are removed are exactly those that were read, whatever comes before them.
#[test]
fn blind_recipients_are_taken_from_where_they_are_taken_out() {
    let site = Site::with_box();
    for (input, expected) in [
        (
            "From me Sun Nov 22\nTo: a@x.test\nBcc: hid@x.test\n\nb\n",
            &["a@x.test", "hid@x.test"][..],
        ),
        (
            "From me Sun\n>From me Sun\nBcc: hid@x.test\n\nb\n",
            &["hid@x.test"],
        ),
        (
            "From : Jo <jo@x.test>\nTo: root\nBcc : hid@x.test\n\nb\n",
            &["root@mail.test", "hid@x.test"],
        ),
        (
            "Bcc: hid@x.test\r\r\nTo: a@x.test\r\r\n\r\r\nb\n",
            &["hid@x.test", "a@x.test"],
        ),
        (
            "To: a@x.test\nBcc: hid@x.test,\n hid2@x.test",
            &["a@x.test", "hid@x.test", "hid2@x.test"],
        ),
        (
            "To: old@x.test\nResent-To: a@x.test\nResent-Bcc: hid@x.test\n\nb\n",
            &["a@x.test", "hid@x.test"],
        ),
    ] {
        let id = site
            .program(["send", "-t", "--queue-only"], input.as_bytes())
            .ok();
        assert_eq!(recipients(&site, id.trim()), expected, "{input}");
        let stored = site.program(["show", "--message", id.trim()], b"").ok();
        // A sole recipient may find the own address in `Received`.
        let (_, rest) = stored.split_once("Date: ").unwrap();
        assert!(!rest.contains("hid"), "{stored}");
        // An id is hexadecimal, and may contain these letters in sequence.
        let fields = stored.replace(id.trim(), "id").to_ascii_lowercase();
        assert!(!fields.contains("bcc"), "{stored}");
        assert!(!stored.contains("From me"), "{stored}");
        assert_eq!(
            stored.matches("\nFrom ").count(),
            usize::from(input.starts_with("From :"))
        );
        site.program(["discard", id.trim()], b"").ok();
    }
}

#[test]
fn blind_fields_do_not_go_out_when_recipients_are_named() {
    let site = Site::with_box();
    let letter = b"To: x@x.test\nBcc: hid@x.test,\n\thid2@x.test\nSubject: s\nRESENT-BCC: hid3@x.test\n\nBcc: b\n";
    let id = site
        .program(["send", "--queue-only", "a@x.test"], letter)
        .ok();
    assert_eq!(recipients(&site, id.trim()), ["a@x.test"]);
    let stored = site.program(["show", "--message", id.trim()], b"").ok();
    assert!(!stored.contains("hid"), "{stored}");
    assert!(stored.contains("\nTo: x@x.test\nSubject: s\n"), "{stored}");
    assert!(stored.ends_with("\n\nBcc: b\n"), "{stored}");
    // A message from an MTA must not be edited.
    site.program(["discard", id.trim()], b"").ok();
    site.program(["receive", "-f", "", "a@x.test"], letter).ok();
    let row = site
        .rows()
        .into_iter()
        .find(|row| row["queue"] == "incoming")
        .unwrap();
    let stored = site
        .program(["show", "--message", row["id"].as_str().unwrap()], b"")
        .ok();
    assert!(
        stored.ends_with(std::str::from_utf8(letter).unwrap()),
        "{stored}"
    );
}

#[test]
fn an_mta_gets_no_field_added_that_is_not_trace() {
    let site = Site::with_box();
    site.program(
        ["receive", "-f", "", "b@example.test"],
        b"Subject: s\n\nb\n",
    )
    .ok();
    let id = site.row()["id"].as_str().unwrap().to_owned();
    let header = site.program(["show", "--headers", &id], b"").ok();
    let names = header.lines().filter(|line| !line.starts_with('\t'));
    let names: Vec<_> = names
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["Received", "Subject"]);
}

#[test]
fn recipients_come_from_the_header() {
    let site = Site::with_box();
    let letter = "To: Bob <b@example.test>, c@example.test,\n\t\"X, Y\" <d@example.test>\n\
                  Subject: s\nBcc: hidden@example.test,\n  \"Also hidden\" <e@example.test>\n\
                  Cc: team: f@example.test, g@example.test;\nbcc: h@example.test\n\n\
                  Bcc: this is the body\n";
    let id = site
        .program(
            ["send", "-t", "--queue-only", "z@example.test"],
            letter.as_bytes(),
        )
        .ok();
    let row = site.row();
    let to: BTreeSet<_> = row["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|to| {
            to["address"]
                .as_str()
                .unwrap()
                .split('@')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let expected = ["b", "c", "d", "e", "f", "g", "h", "hidden", "z"].map(str::to_owned);
    assert_eq!(to, expected.into());
    let stored = site.program(["show", "--message", id.trim()], b"").ok();
    assert!(!stored.to_ascii_lowercase().contains("hidden"), "{stored}");
    assert!(!stored.contains("h@example.test"), "{stored}");
    assert!(stored.contains("\nTo: Bob <b@example.test>, c@example.test,\n\t\"X, Y\" <d@example.test>\nSubject: s\nCc: team:"), "{stored}");
    assert!(stored.ends_with("\n\nBcc: this is the body\n"), "{stored}");
}

#[test]
fn statuses_are_those_of_sysexits() {
    let site = Site::new(&format!("[accept]\nmax_size = \"10k\"\n{BOX}"));
    let large = format!("Subject: s\n\n{}", "x".repeat(20_000));
    for (arguments, input, status, words) in [
        (&["send"][..], "Subject: s\n\nb\n", 64, "no recipients"),
        (
            &["send", "--transport", "pigeon", "b@example.test"],
            "Subject: s\n\nb\n",
            64,
            "pigeon",
        ),
        (
            &["send", "--frobnicate", "b@example.test"],
            "Subject: s\n\nb\n",
            64,
            "--frobnicate",
        ),
        (&["send", "b\n@example.test"], "Subject: s\n\nb\n", 64, ""),
        (&["send", ""], "Subject: s\n\nb\n", 64, "empty"),
        (&["send", " "], "Subject: s\n\nb\n", 64, "empty"),
        (&["send", "@"], "Subject: s\n\nb\n", 64, "\"@\""),
        (&["send", "b@"], "Subject: s\n\nb\n", 64, "\"b@\""),
        (&["send", "b c@x.test"], "Subject: s\n\nb\n", 64, "words"),
        (&["send", "none:;"], "Subject: s\n\nb\n", 64, "no address"),
        (
            &["send", "-f", "a@x.test, b@x.test", "b@example.test"],
            "Subject: s\n\nb\n",
            64,
            "2 senders",
        ),
        (
            &["send", "-f", "a@", "b@example.test"],
            "Subject: s\n\nb\n",
            64,
            "\"a@\"",
        ),
        (&["send", "-t"], "To: none:;\n\nb\n", 65, "no recipients"),
        (
            &["send", "-f", "a\r@example.org", "b@example.test"],
            "Subject: s\n\nb\n",
            64,
            "",
        ),
        (&["send", "b@example.test"], &large, 65, "10000 octets"),
        (&["send", "b@example.test"], "", 65, "empty"),
        (&["send", "-t"], "Subject: s\n\nb\n", 65, "no recipients"),
    ] {
        let ended = site.program(arguments, input.as_bytes());
        assert_eq!(ended.code, status, "{arguments:?}: {ended}");
        assert_eq!(ended.text(), "", "{ended}");
        assert!(ended.err.contains(words), "{ended}");
        assert!(site.is_empty());
    }
    fs::remove_dir(site.spool().join("history")).unwrap();
    assert_eq!(site.program(["send", "b@example.test"], LETTER).code, 75);
}

#[test]
fn a_named_transport_goes_before_the_routes() {
    let site = Site::new(&(BOX.to_owned() + &pipe("other", "cat >{dir}/other")));
    site.program(["send", "--transport", "other", "b@example.test"], LETTER)
        .ok();
    site.until_empty();
    assert!(site.lines("other").contains(&"Hello.".to_owned()));
    assert_eq!(site.boxed().len(), 0);
}

/// Sixty at once: few runners, and yet no message is left for a later run.
#[test]
fn a_storm_of_submissions_is_no_storm_of_runners() {
    const RUNNERS: usize = 3;
    const JOBS: usize = 2;
    let script =
        "cat >/dev/null; echo \"+ $PPID\" >>{dir}/log; : <{dir}/gate; echo \"- $PPID\" >>{dir}/log";
    let config = pipe("slow", script) + &route("domain", "*", "slow");
    let run = format!("[run]\njobs = {JOBS}\nbackground = {RUNNERS}\n");
    let site = Site::new(&(run + &config));
    let mut gate = site.gate("gate");
    let letter = site.dir().join("letter");
    fs::write(&letter, LETTER).unwrap();
    let crowd: Vec<_> = (0..60)
        .map(|n| {
            // Each for a separate destination, so that no runner defers one.
            let mut send = site.command(["send", &format!("r@d{n}.test")]);
            send.stdin(fs::File::open(&letter).unwrap())
                .stdout(Stdio::null());
            (send.spawn().unwrap(), send)
        })
        .collect();
    for (mut child, command) in crowd {
        assert_eq!(code_of(&mut child, &command), 0);
    }
    until("the maximum number of runners is busy", || {
        most_at_once(&site.lines("log")) == RUNNERS
    });
    until("no other process is left running", || {
        site.processes().len() == RUNNERS
    });
    assert_eq!(site.rows().len(), 60);
    gate.open();
    site.until_empty();
    until("no process is left running", || site.processes().is_empty());
    let log = site.lines("log");
    assert_eq!(log.iter().filter(|line| line.starts_with('-')).count(), 60);
    assert!(most_at_once(&log) <= RUNNERS, "{log:?}");
    site.is_clean_and_empty();
}

/// The maximum number of runners with a command under way at the same time, from the commands' log.
fn most_at_once(log: &[String]) -> usize {
    let mut commands = BTreeMap::<&str, usize>::new();
    let mut most = 0;
    for line in log {
        let (what, runner) = line.split_once(' ').unwrap();
        let running = commands.entry(runner).or_default();
        *running = if what == "+" {
            *running + 1
        } else {
            *running - 1
        };
        most = most.max(commands.values().filter(|running| **running > 0).count());
    }
    most
}

/// A typo must not create a spool that no run examines.
#[test]
fn only_the_default_spool_is_made() {
    let site = Site::with_box();
    let home = site.dir();
    let typo = home.join("typo");
    let named = |variable: bool, arguments: &[&str]| {
        let mut command = program::program();
        command.env("HOME", home);
        if variable {
            command.env("MAILSPOOL_SPOOL", &typo)
        } else {
            command.arg("--spool").arg(&typo)
        };
        program::ended(command.args(arguments), LETTER)
    };
    for variable in [false, true] {
        for (arguments, status) in [
            (&["send", "b@example.test"][..], 66),
            (&["run"], 66),
            (&["schedule"], 66),
            (&["receive", "-f", "", "b@example.test"], 75),
        ] {
            let ended = named(variable, arguments);
            assert_eq!(ended.code, status, "{arguments:?}: {ended}");
            assert!(ended.err.contains("`mailspool init` makes one"), "{ended}");
            assert!(!typo.exists(), "{arguments:?}");
        }
    }
    let default = |arguments: &[&str]| {
        let mut command = program::program();
        program::ended(command.env("HOME", home).args(arguments), LETTER)
    };
    if Path::new("/var/spool/mailspool").exists() {
        return println!("not tried: this machine has a default spool");
    }
    let spool = home.join(".local/state/mailspool");
    assert_eq!(default(&["receive", "-f", "", "b@example.test"]).code, 75);
    assert_eq!(default(&["list"]).code, 66);
    assert!(!spool.exists());
    default(&["send", "--queue-only", "b@example.test"]).ok();
    assert!(spool.join("config.toml").exists());
}

/// A spool of an earlier or later layout is neither used nor changed.
#[test]
fn a_spool_of_another_version_is_left_alone() {
    let site = Site::with_box();
    site.queue(&["b@example.test"]);
    for version in ["1", "3"] {
        fs::write(site.spool().join("version"), format!("{version}\n")).unwrap();
        let before = program::files(&site.spool());
        for (words, code) in [
            (&["send", "b@example.test"][..], 78),
            (&["receive", "b@example.test"], 75),
            (&["run"], 78),
            (&["list"], 78),
            (&["check", "--repair"], 78),
            (&["init"], 78),
        ] {
            let refused = site.program(words, LETTER);
            assert_eq!(refused.code, code, "{words:?}: {refused}");
            let says = format!("has version {version}, this program knows version 2");
            let text = refused.text() + &refused.err;
            assert!(text.contains(&says), "{words:?}: {refused}");
        }
        assert_eq!(program::files(&site.spool()), before);
    }
}

/// XDG_STATE_HOME and HOME count if they are absolute, the other variables if they are not empty.
#[test]
fn an_unusable_variable_is_as_none() {
    if Path::new("/var/spool/mailspool").exists() {
        return println!("not tried: this machine has a default spool");
    }
    let site = Site::with_box();
    let home = site.dir().to_str().unwrap();
    let (state, local) = (format!("{home}/state"), format!("{home}/.local/state"));
    let run = |home: &str, state: &str| {
        let mut command = program::program();
        command.current_dir(site.dir()).env("HOME", home);
        command.env("XDG_STATE_HOME", state);
        command
            .env("MAILSPOOL_SPOOL", "")
            .env("MAILSPOOL_CONFIG", "");
        program::ended(command.args(["run"]), b"")
    };
    for (home, xdg, made) in [
        (home, "", Some(&local)),
        (home, "state", Some(&local)),
        (home, "./state", Some(&local)),
        (home, &state, Some(&state)),
        ("", &state, Some(&state)),
        ("", "state", None),
        (".", "", None),
        ("home", ".", None),
    ] {
        let ended = run(home, xdg);
        let Some(made) = made else {
            assert_eq!(ended.code, 66, "{home} {xdg}: {ended}");
            continue;
        };
        ended.ok();
        fs::remove_dir_all(Path::new(made).join("mailspool")).unwrap();
    }
    let left = program::names(site.dir());
    assert!(!left.contains(&"home".to_owned()), "{left:?}");
}
