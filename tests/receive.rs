//! The contract of `receive` with an MTA: its exit status and output, and that the only change to a message
//! is one added field on top.
//!
//! What belongs here: anything that an MTA could see, or a reader of the stored message.

mod program;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use program::{
    BOX, Ended, LETTER, Site, code_of, ended, files, names, outcome, pipe, program, route, until,
};

const RECEIVE: [&str; 5] = ["receive", "-f", "a@example.org", "--", "b@example.test"];

/// The MTA keeps the message and tries again: status 75, empty standard output, nothing stored.
#[track_caller]
fn is_tempfail(site: &Site, ended: &Ended) {
    assert_eq!((ended.code, ended.text().as_str()), (75, ""), "{ended}");
    assert!(
        ended.err.contains("mailspool") || ended.err.contains("error:"),
        "{ended}"
    );
    assert!(!ended.err.contains("panicked"), "{ended}");
    let kept = site.message_files();
    assert!(kept.is_empty(), "{kept:?} stayed after {ended}");
    let infos = files(&site.spool().join("info"));
    assert!(infos.is_empty(), "{infos:?} stayed after {ended}");
}

#[test]
fn success_says_nothing_and_the_message_waits_in_incoming() {
    let site = Site::with_box();
    let received = site.program(RECEIVE, LETTER);
    assert_eq!((received.ok().as_str(), received.err.as_str()), ("", ""));
    assert_eq!(names(&site.spool().join("incoming")).len(), 1);
    let row = site.row();
    assert_eq!(
        (&row["queue"], &row["status"]),
        (&"incoming".into(), &"incoming".into())
    );
    assert_eq!(site.processes(), [], "nothing was started");
    assert_eq!(
        site.run().ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
    site.is_clean_and_empty();
}

/// A typo in the MTA's configuration must not create a spool that no run examines.
#[test]
fn no_spool_is_made() {
    let site = Site::with_box();
    let spool = site.dir().join("fresh");
    let mut command = program();
    let received = ended(command.arg("--spool").arg(&spool).args(RECEIVE), LETTER);
    assert_eq!(received.code, 75, "{received}");
    assert!(
        received.err.contains("`mailspool init` makes one"),
        "{received}"
    );
    assert!(!spool.exists());
}

#[test]
fn bad_usage_is_temporary() {
    let site = Site::with_box();
    for usage in [
        &["receive"][..],
        &["receive", "-f", "a@example.org"],
        &["receive", "b@example.test"],
        &[
            "receive",
            "-f",
            "a@example.org",
            "--frobnicate",
            "b@example.test",
        ],
        &["receive", "-f", "a@example.org", "-t", "b@example.test"],
        &[
            "--frobnicate",
            "receive",
            "-f",
            "a@example.org",
            "b@example.test",
        ],
        &[
            "receive",
            "-f",
            "a@example.org",
            "-f",
            "c@example.org",
            "b@example.test",
        ],
        // An empty address: a variable that the MTA's configuration does not set.
        &["receive", "-f", "a@example.org", ""],
        &["receive", "-f", "a@example.org", "<>"],
    ] {
        is_tempfail(&site, &site.program(usage, LETTER));
    }
}

/// A retry would not help, and the sender would learn of the failure only after days.
#[test]
fn an_address_that_is_none_is_refused_for_good() {
    let site = Site::with_box();
    let good = "a@example.org";
    let long = "x".repeat(70_000);
    let bad: [&[u8]; 14] = [
        b"b@example.test\r\nDATA",
        b"b\n",
        b"b\xff@example.test",
        b"@",
        b"b@",
        b" ",
        b"a b@example.test",
        b"b@example..test",
        b"b@[192.0.2]",
        // Lists and comments are for people: if an MTA does not quote, its mail must not go to other recipients.
        b"Joe <joe@example.test>",
        b"b@example.test,c@example.test",
        b"root@example.test (cron)",
        b"host!joe",
        long.as_bytes(),
    ];
    let large = [LETTER, "x".repeat(1 << 20).as_bytes()].concat();
    for bad in bad.map(OsStr::from_bytes) {
        for (from, to, code) in [
            (good.as_ref(), bad, "5.1.3 "),
            (bad, good.as_ref(), "5.1.7 "),
        ] {
            let usage = ["receive".as_ref(), "-f".as_ref(), from, "--".as_ref(), to];
            // The message is read, because the MTA could take a broken pipe for another failure.
            let refused = site.program(usage, &large);
            is_refused(&refused, code);
            assert!(refused.out.len() < 500, "{refused}");
            assert!(site.is_empty());
        }
    }
    // One of several is enough, because a status applies to all of them.
    let usage = [
        "receive",
        "-f",
        good,
        "--",
        "b@example.test",
        "c d@example.test",
    ];
    let refused = site.program(usage, LETTER);
    is_refused(&refused, "5.1.3 ");
    assert!(refused.text().contains("c d@example.test"), "{refused}");
    assert!(site.is_empty());
}

/// Status 0 tells the MTA to forget the message. A recipient such as `-h@example.test` must not cause that.
#[test]
fn help_is_no_acceptance() {
    let site = Site::with_box();
    for asked in ["-h", "--help", "-h@example.test"] {
        let ended = site.program(["receive", "-f", "a@example.org", asked], LETTER);
        assert_eq!(ended.code, 75, "{asked}: {ended}");
        assert!(site.is_empty());
    }
}

#[test]
fn bad_configuration_is_temporary() {
    let site = Site::with_box();
    for bad in [
        "nonsense",
        "[accept]\nmax_size = \"a lot\"",
        "[accept]\nmax_sice = 1",
        "[[route]]\ndomain = \"*\"\ntransport = \"nowhere\"",
        "[transport.x]\ntype = \"pigeon\"",
    ] {
        site.configure(bad);
        let ended = site.program(RECEIVE, LETTER);
        is_tempfail(&site, &ended);
        assert!(
            ended.err.contains("config.toml:"),
            "names its line: {ended}"
        );
    }
    fs::write(site.spool().join("config.toml"), b"hostname = \"\xff\"\n").unwrap();
    is_tempfail(&site, &site.program(RECEIVE, LETTER));

    site.configure(BOX);
    let missing = ["--config", "/nonexistent/config.toml"];
    let ended = site.program(missing.iter().chain(&RECEIVE), LETTER);
    is_tempfail(&site, &ended);
    assert!(ended.err.contains("/nonexistent/config.toml"), "{ended}");

    // A dangling link is a named configuration that is missing.
    fs::remove_file(site.spool().join("config.toml")).unwrap();
    std::os::unix::fs::symlink("/nonexistent/config.toml", site.spool().join("config.toml"))
        .unwrap();
    is_tempfail(&site, &site.program(RECEIVE, LETTER));
}

#[test]
fn a_spool_that_cannot_be_used_is_temporary() {
    let nowhere = Site::with_box();
    for place in ["/proc/not/writable/here", "/dev/null"] {
        let mut command = program();
        is_tempfail(
            &nowhere,
            &ended(command.args(["--spool", place]).args(RECEIVE), LETTER),
        );
    }
    for (name, harm) in [
        ("a newer version", &harm_version as &dyn Fn(&Site)),
        ("a missing directory", &|site| {
            fs::remove_dir(site.spool().join("history")).unwrap()
        }),
        ("a file for a directory", &|site| {
            fs::remove_dir(site.spool().join("active")).unwrap();
            fs::write(site.spool().join("active"), "").unwrap();
        }),
        ("one that others may write to", &|site| {
            mode(site, ".", 0o777)
        }),
        ("one that cannot be written to", &|site| {
            belongs_to_a_user(site);
            mode(site, "new", 0o500);
        }),
        ("one with another spool's owner inside", &|site| {
            mode(site, "config.toml", 0)
        }),
    ] {
        let site = Site::with_box();
        harm(&site);
        if name.starts_with("one with another") {
            // Root can read everything, so the spool must belong to another user.
            belongs_to_a_user(&site);
        }
        println!("{name}");
        is_tempfail(&site, &site.program(RECEIVE, LETTER));
    }
}

fn harm_version(site: &Site) {
    fs::write(site.spool().join("version"), "3\n").unwrap();
}

fn mode(site: &Site, name: &str, mode: u32) {
    fs::set_permissions(site.spool().join(name), Permissions::from_mode(mode)).unwrap();
}

/// Gives the spool to an unprivileged user; the program run by root switches to the spool's owner.
fn belongs_to_a_user(site: &Site) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    fs::set_permissions(site.dir(), Permissions::from_mode(0o755)).unwrap();
    let mut all = vec![site.spool()];
    while let Some(path) = all.pop() {
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        if path.is_dir() {
            all.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}

#[test]
fn the_reserve_is_not_used_up() {
    let site = Site::new(&format!("[accept]\nmin_free = \"1EB\"\n{BOX}"));
    let ended = site.program(RECEIVE, LETTER);
    is_tempfail(&site, &ended);
    assert!(ended.err.contains("reserve"), "{ended}");
    site.configure(&format!(
        "[accept]\nmin_free_inodes = 1000000000000000\n{BOX}"
    ));
    is_tempfail(&site, &site.program(RECEIVE, LETTER));
}

#[test]
fn input_that_is_no_message_is_temporary() {
    let site = Site::with_box();
    is_tempfail(&site, &site.program(RECEIVE, b""));

    // A read error is not the end of the input.
    let mut command = site.command(RECEIVE);
    command
        .stdin(File::open(site.dir()).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let broken = outcome(command.spawn().unwrap(), &command);
    is_tempfail(&site, &broken);
    assert!(broken.err.contains("reading the message"), "{broken}");

    let mut shell = std::process::Command::new("/bin/sh");
    shell.env_clear().args([
        "-c",
        "exec \"$@\" <&-",
        "sh",
        env!("CARGO_BIN_EXE_mailspool"),
    ]);
    shell.arg("--spool").arg(site.spool()).args(RECEIVE);
    is_tempfail(&site, &ended(&mut shell, b""));
}

/// Descriptors that the MTA has closed must not affect a message, nor be reused as files of ours.
#[test]
fn closed_output_is_no_trouble() {
    let site = Site::with_box();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.env_clear().args([
        "-c",
        "exec \"$@\" >&- 2>&-",
        "sh",
        env!("CARGO_BIN_EXE_mailspool"),
    ]);
    shell.arg("--spool").arg(site.spool()).args(RECEIVE);
    ended(&mut shell, LETTER).ok();
    site.run().ok();
    let copies = site.boxed();
    assert!(
        copies.len() == 1 && copies[0].ends_with("\n\nHello.\n"),
        "{copies:?}"
    );
}

#[test]
fn a_message_too_large_is_refused_for_good() {
    let site = Site::new(&format!("[accept]\nmax_size = \"10k\"\n{BOX}"));
    let letter = |size: usize| format!("Subject: s\n\n{}", "x".repeat(size - 12)).into_bytes();
    site.program(RECEIVE, &letter(10_000)).ok();
    for size in [10_001, 15_000, 3_000_000] {
        let refused = site.program(RECEIVE, &letter(size));
        is_refused(&refused, "5.3.4 ");
        assert!(refused.text().contains("10000 octets"), "{refused}");
    }
    assert_eq!(site.rows().len(), 1);
}

#[test]
fn a_message_in_a_loop_is_refused_for_good() {
    let site = Site::new(&format!("[accept]\nhop_limit = 20\n{BOX}"));
    let letter = |hops: usize| {
        format!(
            "{}Subject: s\n\nb\n",
            "Received: by x;\n\tdate\n".repeat(hops)
        )
    };
    // Only fields count, not their continuations and not the body.
    let innocent = letter(20) + &letter(30) + "X: a\n Received: b\n";
    site.program(RECEIVE, innocent.as_bytes()).ok();
    is_refused(&site.program(RECEIVE, letter(21).as_bytes()), "5.4.6 ");
    is_refused(&site.program(RECEIVE, letter(100_000).as_bytes()), "5.4.6 ");
    let shouted = letter(21).replace("Received", "rEcEiVeD");
    is_refused(&site.program(RECEIVE, shouted.as_bytes()), "5.4.6 ");
    assert_eq!(site.rows().len(), 1);
}

#[track_caller]
fn is_refused(ended: &Ended, code: &str) {
    assert_eq!(ended.code, 65, "{ended}");
    assert!(ended.text().starts_with(code), "{ended}");
    assert_eq!(ended.text().lines().count(), 1, "{ended}");
}

#[test]
fn the_sender_may_come_in_the_environment() {
    let site = Site::with_box();
    let receive = |sender: Option<&str>| {
        let mut command = site.command(["receive", "--", "b@example.test"]);
        sender.map(|sender| command.env("SENDER", sender));
        ended(&mut command, LETTER)
    };
    is_tempfail(&site, &receive(None));
    receive(Some("a@example.org")).ok();
    receive(Some("")).ok();
    let senders: Vec<_> = site
        .rows()
        .iter()
        .map(|row| row["sender"].clone())
        .collect();
    assert_eq!(senders, ["a@example.org", ""]);
}

#[test]
fn the_null_sender_is_accepted() {
    let site = Site::with_box();
    for null in ["", "<>"] {
        site.program(["receive", "-f", null, "b@example.test"], LETTER)
            .ok();
    }
    site.program(["receive", "--from=", "b@example.test"], LETTER)
        .ok();
    let senders: Vec<_> = site
        .rows()
        .iter()
        .map(|row| row["sender"].clone())
        .collect();
    assert_eq!(senders, ["", "", ""]);
    site.run().ok();
    assert!(
        site.boxed()
            .iter()
            .all(|copy| copy.starts_with("Return-Path: <>\n"))
    );
}

#[test]
fn addresses_are_taken_as_they_are() {
    let site = Site::with_box();
    let to = [
        "-h@example.test",
        "--help",
        "\"odd one\"@example.test",
        "Bob@Example.TEST",
        "bare",
        "-",
        // Parts that do not belong to the address.
        "<c@example.test.>",
        "@relay.test,@[192.0.2.1]:d@example.test",
        // The same mailboxes again.
        "Bob@example.test.",
        "\"bare\"",
        "e@[ipv6:0::1]",
        "e@[IPv6:::1]",
    ];
    site.program(
        ["receive", "-f", "-f@example.org", "--"].iter().chain(&to),
        LETTER,
    )
    .ok();
    let row = site.row();
    assert_eq!(row["sender"], "-f@example.org");
    let kept: Vec<_> = row["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|to| to["address"].clone())
        .collect();
    let expected = [
        "-h@example.test",
        "--help@mail.test",
        to[2],
        to[3],
        "bare@mail.test",
        "-@mail.test",
        "c@example.test",
        "d@example.test",
        "e@[ipv6:0::1]",
    ];
    assert_eq!(kept, expected);
}

#[test]
fn no_byte_of_a_message_changes() {
    let site = Site::with_box();
    let long = [b"Subject: s\n\n", "long ".repeat(30_000).as_bytes(), b"\n"].concat();
    let letters: [&[u8]; 16] = [
        b"Subject: crcrlf\r\r\nBcc: x\r\r\n\r\r\nb\r\r\n",
        b"Subject: cr\rBcc: y\nBcc: x\n\nb\rc\n",
        b"Subject: lf\n\na\nb\n",
        b"Subject: crlf\r\n\r\na\r\nb\r\n",
        b"Subject: mixed\r\n\na\r\nb\nc\rd\r\n",
        b"Subject: nul\n\na\0b\0\0\n\0",
        b"Subject: no end\n\nno final newline",
        b"Subject: no blank line\n",
        b"Subject: not even a newline",
        b"no header at all\n",
        b"\nonly a body\n",
        b"\r\nonly a body\r\n",
        b"Subject: eight\n\ngr\xfc\xdfe \xff\xfe\n.\n..\nFrom here\n>From there\n",
        b"Subject: =?bad?=\nNo-Value:\nX:\t folded \n\t more \n\nb\n",
        b".\n",
        &long,
    ];
    for letter in letters {
        site.program(RECEIVE, letter).ok();
        let stored = stored(&site);
        let shown = String::from_utf8_lossy(letter);
        let added = stored
            .len()
            .checked_sub(letter.len())
            .expect("nothing is lost");
        let (field, rest) = stored.split_at(added);
        assert!(rest == letter, "changed: {shown:.200}");
        let field = String::from_utf8(field.to_vec()).unwrap();
        let first_line = letter
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .unwrap();
        let eol = if first_line.ends_with(b"\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        // A message without a header gets the empty line that ends one, because its text could be taken for a
        // header.
        let headless = letter.starts_with(b"no header") || letter.starts_with(b".");
        let end = if headless {
            format!("+0000{eol}{eol}")
        } else {
            format!("+0000{eol}")
        };
        assert!(field.starts_with("Received: by mail.test ("), "{field}");
        assert!(field.contains("for <b@example.test>"), "{field}");
        assert!(field.ends_with(&end), "{field:?} before {shown:.200}");
        let mut others = field.trim_end().lines().skip(1);
        assert!(
            others.all(|line| line.starts_with('\t')),
            "one field: {field}"
        );
    }
}

#[test]
fn the_separator_of_an_mbox_is_no_part_of_a_message() {
    let site = Site::with_box();
    site.program(
        RECEIVE,
        b"From a@example.org Sun Nov 22 05:00:00 2026\nSubject: s\n\nFrom b\n",
    )
    .ok();
    let found = String::from_utf8(stored(&site)).unwrap();
    assert!(found.starts_with("Received: "), "{found}");
    assert!(!found.contains("From a@"), "{found}");
    assert!(found.ends_with("\nSubject: s\n\nFrom b\n"), "{found}");
    for (input, kept) in [
        // Two separators, as in a mailbox that was quoted and piped.
        (
            "From a Sun\n>From b Mon\nSubject: s\n\nb\n",
            "Subject: s\n\nb\n",
        ),
        ("From a Sun\r\nFrom b Mon\r\nX: y\r\n", "X: y\r\n"),
        // A field with a blank before its colon (RFC 5322, 4.5).
        (
            "From : Jo <jo@x.test>\nTo: b\n\nb\n",
            "From : Jo <jo@x.test>\nTo: b\n\nb\n",
        ),
        // Text of a message without a header.
        (
            "From now on\nthe disk is full\n",
            "From now on\nthe disk is full\n",
        ),
    ] {
        site.program(RECEIVE, input.as_bytes()).ok();
        let found = String::from_utf8(stored(&site)).unwrap();
        let (_, after) = found.split_once("+0000").unwrap();
        assert_eq!(after.trim_start(), kept, "{input}");
    }
}

/// Returns the bytes of the only message, and removes it.
fn stored(site: &Site) -> Vec<u8> {
    let id = site.row()["id"].as_str().unwrap().to_owned();
    let shown = site.program(["show", "--message", &id], b"");
    shown.ok();
    site.program(["run", "--quiet"], b"").ok();
    assert!(site.is_empty());
    shown.out
}

#[test]
fn ten_thousand_recipients() {
    let site = Site::with_box();
    let to: Vec<String> = (0..10_000).map(|n| format!("r{n}@example.test")).collect();
    let all = RECEIVE[..4]
        .iter()
        .map(|word| (*word).to_owned())
        .chain(to.clone());
    site.program(all, LETTER).ok();
    let row = site.row();
    let kept = row["recipients"].as_array().unwrap();
    assert_eq!(kept.len(), 10_000);
    assert_eq!(kept[9_999]["address"], to[9_999].as_str());
    let letter = String::from_utf8(stored_only(&site)).unwrap();
    assert!(
        !letter.contains("example.test"),
        "recipients are not told of each other:\n{letter}"
    );
}

fn stored_only(site: &Site) -> Vec<u8> {
    program::message_in(&site.message_files()[0])
}

#[test]
fn memory_does_not_grow_with_the_message() {
    const SIZE: usize = 30_000_000;
    let site = Site::with_box();
    // In a file, because our own memory would count for our children too.
    let path = site.dir().join("large");
    let mut large = BufWriter::new(File::create(&path).unwrap());
    large.write_all(b"Subject: large\n\n").unwrap();
    for n in 0..SIZE / 64 {
        writeln!(large, "{n:063}").unwrap();
    }
    drop(large);
    let mut command = site.command(RECEIVE);
    let mut child = command.stdin(File::open(&path).unwrap()).spawn().unwrap();
    assert_eq!(code_of(&mut child, &command), 0);
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    // In kilobytes, the maximum over our children.
    let peak = usage.unwrap().max_rss() * 1000;
    println!("{peak} octets of memory");
    assert!(peak < 20_000_000, "{peak} octets of memory");
    assert!(stored_only(&site).ends_with(&fs::read(path).unwrap()));
}

#[test]
fn attempt_now_delivers_in_the_background() {
    let config =
        pipe("slow", ": <{dir}/gate; cat >{dir}/delivered") + &route("domain", "*", "slow");
    let site = Site::new(&format!("[accept]\nattempt = \"now\"\n{config}"));
    let mut gate = site.gate("gate");
    // Ends and closes its output while the command is still blocked.
    let received = site.program(RECEIVE, LETTER);
    assert_eq!((received.ok().as_str(), received.err.as_str()), ("", ""));
    until("it is being delivered", || {
        site.row()["status"] == "in-progress"
    });
    gate.open();
    site.until_empty();
    assert!(
        site.lines("delivered")
            .contains(&"Subject: hello".to_owned())
    );
    until("no process is left running", || site.processes().is_empty());
    site.is_clean_and_empty();
}
