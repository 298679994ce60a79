//! Addresses: each is an argument, a line of a file and an environment variable, and stays a single one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use mailspool::testing::message::Address;

use crate::guard::{Snapshot, assert_terminal, watch, watched};
use crate::program::{Site, route};
use crate::proof::count;

/// Odd, but harmless.
const KEPT: &[&str] = &[
    "-f@example.test",
    "--spool=/nonexistent@example.test",
    "-@example.test",
    "--@example.test",
    "\"a b\"@example.test",
    "\"a  b\"@example.test",
    "\"a\\\"b\"@example.test",
    "\"a@b\"@example.test",
    "ö@exämple.test",
    "用户@例子.test",
    "a@[192.0.2.1]",
    "a@[IPv6:2001:db8::1]",
    "../../../etc/passwd@example.test",
    "/etc/passwd@example.test",
    "a..b@example.test",
    "\"$(touch {dir}/pwned)\"@example.test",
    "`touch${IFS}{dir}/pwned`@example.test",
    "\"a;touch pwned;\"@example.test",
    "\"|touch pwned\"@example.test",
    "a&b@example.test",
    "a'b@example.test",
    "\"a\\nb\"@example.test",
    "%s%n@example.test",
    "{recipient}{id}@example.test",
    "*@example.test",
    "\"a,b\"@example.test",
    "\"<a\"@example.test",
];

/// Accepted by an earlier version, and bounced later.
const REFUSED: &[&str] = &[
    "a b@example.test",
    "a@b@example.test",
    "..@..",
    "a;b@example.test",
    "a\\nb@example.test",
    "a,b@example.test",
    "a:b@example.test",
    "<a@example.test",
    "a>@example.test",
    "a@",
    "@example.test",
    "@",
    " ",
    "host!joe",
];

/// A site with a command that logs each recipient on one line.
fn site() -> Site {
    let sees = "[transport.sees]\ntype = \"pipe\"\ncommand = [\"/bin/sh\", \"-c\", \
        '''cat >/dev/null; printf \"%s\\n\" \"$RECIPIENT\" \"$1\" \"$SENDER\" >>{dir}/seen''', \"sh\", \
        \"{recipient}\"]\n";
    let log = "[log]\nto = \"stderr\"\n";
    Site::new(&format!("{log}{sees}{}", route("domain", "*", "sees")))
}

#[test]
fn an_odd_address_stays_one_address() {
    let site = site();
    let letter = site.dir().join("letter");
    fs::write(&letter, "Subject: x\n\nb\n").unwrap();
    fs::write(site.dir().join("seen"), "").unwrap();
    let kept: Vec<String> = KEPT
        .iter()
        .map(|one| one.replace("{dir}", site.dir().to_str().unwrap()))
        .collect();
    // Quoted strings and their escapes are above.
    let printable: Vec<String> = (b' '..b'\x7f')
        .filter(|byte| !b"\"\\".contains(byte))
        .map(|byte| format!("\"p{}q\"@example.test", char::from(byte)))
        .filter(|one| !kept.contains(one))
        .collect();
    let all: Vec<&str> = kept.iter().chain(&printable).map(String::as_str).collect();
    let around = |site: &Site| {
        let _ = fs::remove_file(site.dir().join("stdout"));
        let _ = fs::remove_file(site.dir().join("stderr"));
        let _ = fs::remove_dir_all(site.dir().join("watched"));
    };
    for sender in &kept {
        let mut receive = vec!["receive", "-f", sender, "--"];
        receive.extend(&all);
        watched(&site, &receive, Some(&letter)).ok();
    }
    assert_terminal(&watched(&site, &["list"], None).ok());
    for row in site.rows() {
        assert_terminal(&watched(&site, &["show", row["id"].as_str().unwrap()], None).ok());
    }
    // One of these messages is enough to deliver to all recipients.
    for row in site.rows().iter().skip(1) {
        watched(&site, &["discard", row["id"].as_str().unwrap()], None).ok();
    }
    around(&site);
    let run = watched(&site, &["run", "--jobs", "1"], None);
    assert_eq!(run.code, 0, "{run}");
    let seen = site.lines("seen");
    assert_eq!(seen.len(), 3 * all.len());
    let expected: BTreeSet<[String; 3]> = all
        .iter()
        .map(|given| {
            let to = if given.contains('@') {
                (*given).to_owned()
            } else {
                format!("{given}@mail.test")
            };
            [to.clone(), to, kept[0].clone()]
        })
        .collect();
    let seen: BTreeSet<[String; 3]> = seen
        .chunks_exact(3)
        .map(|three| three.to_vec().try_into().unwrap())
        .collect();
    assert_eq!(seen, expected);
    assert!(!site.dir().join("pwned").exists() && !site.spool().join("pwned").exists());
    count("hostile inputs", kept.len() + all.len());
}

#[test]
fn what_is_no_address_is_refused_by_every_entrance() {
    let site = site();
    let letter = site.dir().join("letter");
    fs::write(&letter, "Subject: x\n\nb\n").unwrap();
    let mut bad: Vec<Vec<u8>> = (1..=255_u8)
        .map(|byte| [b"a", &[byte][..], b"b@example.test"].concat())
        .filter(|one| Address::from_bytes(one).is_err())
        .collect();
    assert_eq!(
        bad.len(),
        31 + 1 + 128 + b" \"(),:;<>@[\\]".len(),
        "controls, DEL, all that is not UTF-8 by itself, and what needs quotes"
    );
    bad.extend(REFUSED.iter().map(|one| one.as_bytes().to_vec()));
    bad.extend([
        vec![b'x'; 64 << 10],
        b"<<a@example.test>>".to_vec(),
        b"<>".to_vec(),
        "a\u{9b}31m@example.test".into(),
        b"a@example.test\nb@example.test".to_vec(),
        // Short enough, until our host name is appended.
        vec![b'x'; 995],
    ]);
    for (n, one) in bad.iter().enumerate() {
        let one = OsStr::from_bytes(one);
        let (mut receive, mut send) = (
            site.command(["receive", "-f", "a@example.org", "--"]),
            site.command(["send", "--queue-only", "-f", "a@example.org", "--"]),
        );
        let by_receive = watch(site.dir(), receive.arg(one), Some(&letter));
        if one == OsStr::new("<>") {
            assert_eq!(by_receive.code, 75, "{one:?}: {by_receive}")
        } else {
            assert_eq!(by_receive.code, 65, "{one:?}: {by_receive}");
            assert!(by_receive.text().starts_with("5.1.3 "), "{by_receive}");
            assert_eq!(by_receive.text().lines().count(), 1, "{by_receive}");
            assert!(by_receive.out.len() < 1500, "{by_receive}");
        }
        // `send` reads it as a list of two addresses.
        if one == OsStr::new("a,b@example.test") {
            continue;
        }
        let by_send = watch(site.dir(), send.arg(one), Some(&letter));
        assert_eq!(by_send.code, 64, "{one:?}: {by_send}");
        // As a sender. The null sender is valid there.
        if (n % 8 == 0 || n > 160) && one != OsStr::new("<>") {
            let mut from = site.command(["send", "--queue-only", "-f"]);
            let from = watch(
                site.dir(),
                from.arg(one).args(["--", "b@example.test"]),
                Some(&letter),
            );
            assert_eq!(from.code, 64, "{one:?}: {from}");
        }
        assert!(site.is_empty(), "{one:?}");
    }
    count("hostile inputs", bad.len());
}

/// Without `--`, an address that begins with a dash is an option, and an unknown one.
#[test]
fn a_dash_is_no_option_after_two_dashes() {
    let site = site();
    let letter = site.dir().join("letter");
    fs::write(&letter, "Subject: x\n\nb\n").unwrap();
    for one in [
        "-oQ/tmp@example.test",
        "--config=/etc/passwd@example.test",
        "-h@example.test",
    ] {
        let before = Snapshot::of(&site.spool().join("info"));
        let bare = watched(
            &site,
            &["receive", "-f", "a@example.org", one],
            Some(&letter),
        );
        assert_eq!(bare.code, 75, "{one}: {bare}");
        before.assert_untouched(&site.spool().join("info"), one);
        let bare = watched(&site, &["send", "--queue-only", one], Some(&letter));
        assert!(
            [64, 78].contains(&bare.code) || one.starts_with("-h"),
            "{one}: {bare}"
        );
        before.assert_untouched(&site.spool().join("info"), one);
        watched(&site, &["receive", "-f", one, "--", one], Some(&letter)).ok();
        assert_eq!(site.row()["recipients"][0]["address"], one);
        watched(&site, &["run"], None).ok();
    }
    count("hostile inputs", 6);
}

/// Header fields made to take time or memory, or to name another recipient.
#[test]
fn recipients_out_of_a_hostile_header() {
    let site = site();
    let file = site.dir().join("letter");
    let long = |text: &str| text.repeat(900_000 / text.len());
    let cases = [
        ("encoded words", format!("To: {}\n\n", long("=?")), 65),
        (
            "whole encoded words",
            format!("To: {}\n\n", long("=?a?q?x?= ")),
            65,
        ),
        (
            "comments",
            format!("To: {}a@example.test\n\n", long("(")),
            65,
        ),
        ("quotes", format!("To: {}\n\n", long("\"")), 65),
        ("brackets", format!("To: {}\n\n", long("<")), 65),
        ("blanks", format!("To: {}a@example.test\n\n", long(" ")), 0),
        ("folds", format!("To: {}a@example.test\n\n", long("\n ")), 0),
        ("words", format!("To: {}\n\n", long("a ")), 65),
        ("commas", format!("To: {}\n\n", long(",")), 65),
        ("groups", format!("To: {}\n\n", long("a:;")), 65),
        ("empty groups", format!("To: {}\n\n", long("a:;,")), 65),
        ("fields", format!("{}\n", long("To: x\n")), 0),
        (
            "fields without an address",
            format!("{}\n", long("To: \n")),
            65,
        ),
        (
            "too long",
            format!("To: {0}{0}\n\n", long("a@example.test,")),
            65,
        ),
        ("quoted", "To: \"a b\"@example.test\n\n".into(), 0),
        ("control", "To: <a\u{1b}b@example.test>\n\n".into(), 65),
    ];
    for (name, header, code) in &cases {
        fs::write(&file, header).unwrap();
        let sent = watched(&site, &["send", "-t", "--queue-only"], Some(&file));
        assert_eq!(sent.code, *code, "{name}: {sent}");
        watched(&site, &["run"], None).ok();
        assert!(site.is_empty(), "{name}");
    }
    count("hostile inputs", cases.len());
}
