//! mailspool as a pipe(8) command of a real Postfix: Postfix keeps every message that mailspool does not accept.
//!
//! Every test starts a private Postfix on a free loopback port, with configuration, queue and log in a
//! temporary directory; the system's instance is neither used nor changed. The tests need root (Postfix
//! starts as root; the program runs as the system user `mailspooltest`, which is created if missing) and
//! Debian's `postfix`. If something is missing, they fail with a message that says so.
//!
//! | recipient | what Postfix does with the mail |
//! |---|---|
//! | `…@example.test` | pipes it into `mailspool receive` |
//! | `…@sender.test` | puts it, a bounce for instance, into a Maildir, [`Site::bounces`] |

mod postfix;
mod site;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use site::{Site, directories, files, fill, must, read_all};

const ALICE: &str = "alice@sender.test";
const BOB: &str = "bob@example.test";

#[test]
fn mail_arrives_with_its_envelope_and_every_byte() {
    let site = Site::new();
    site.init();
    let carol = "carol@example.test";
    let to = [BOB, carol, "\"odd one\"@example.test", "-d@example.test"];
    // What a careless pipe would change: dots, `From `, eight-bit text, blanks at line ends, a long line.
    let body = ".\n..two dots\nFrom here on\n>From there\n\tgrüße\nblank \n\n\n.\n";
    let sent = message("whole", &format!("{}\n{body}", "long ".repeat(1000)));
    let mail = site.smtp().send(ALICE, &to, &sent);
    site.until_postfix_let_go_of(&[mail]);

    // The spool, created on first use, holds the envelope until the mail is delivered.
    assert_eq!(site.info("sender"), [ALICE]);
    let recipients = site.info("recipients");
    assert_eq!(sorted(&recipients), sorted(&to));
    let lines = site.info("transport");
    let original = lines.iter().filter(|line| line.starts_with("orcpt: "));
    let each = recipients.iter().zip(1..);
    let expected: Vec<String> = each
        .map(|(to, n)| format!("orcpt: {n} rfc822;{to}"))
        .collect();
    assert!(original.eq(&expected), "{lines:?}");

    site.run();
    let copies = read_all(&site.outbox());
    // Either one file for all recipients or one per recipient: the Maildir transport's tests check which.
    assert!([1, to.len()].contains(&copies.len()), "{copies:?}");
    for copy in copies {
        assert!(
            copy.starts_with(&format!("Return-Path: <{ALICE}>\n")),
            "{copy}"
        );
        assert!(copy.ends_with(&sent), "not what was sent:\n{copy}");
        let received = fields(&copy, "Received");
        assert_eq!(received.len(), 2, "ours, then Postfix's:\n{copy}");
        assert!(received[0].contains("mailspool"), "{}", received[0]);
        assert!(received[1].contains("(Postfix)"), "{}", received[1]);
    }
    let left = files(&site.spool().join("info"));
    assert_eq!(left, [] as [PathBuf; 0], "left after delivery");
}

#[test]
fn the_null_sender_stays_null() {
    let site = Site::new();
    site.init();
    let notice = site
        .smtp()
        .send("", &[BOB], &message("null", "A notice.\n"));
    site.until_postfix_let_go_of(&[notice]);
    assert_eq!(site.info("sender").concat(), "");
    site.run();
    let copies = read_all(&site.outbox());
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(copies[0].starts_with("Return-Path: <>\n"), "{}", copies[0]);
}

#[test]
fn an_unwritable_spool_leaves_mail_with_postfix_until_it_is_mended() {
    let site = Site::new();
    site.init();
    let only_new = vec![site.spool().join("new")];
    for (id, broken) in [("new", only_new), ("all", directories(&site.spool()))] {
        let mode = |dir| fs::metadata(dir).unwrap().permissions();
        let modes: Vec<_> = broken.iter().map(mode).collect();
        for dir in &broken {
            fs::set_permissions(dir, Permissions::from_mode(0o500)).unwrap();
        }
        let mail = site.smtp().send(ALICE, &[BOB], &message(id, "Keep me.\n"));
        site.until_postfix_defers(&mail);
        for (dir, mode) in broken.iter().zip(modes) {
            fs::set_permissions(dir, mode).unwrap();
        }
        site.until_postfix_let_go_of(&[mail]);
    }
    site.run();
    assert_delivered_once(&site, ["new", "all"]);
}

#[test]
fn a_full_disk_leaves_mail_with_postfix_until_there_is_room() {
    let site = Site::on_a_disk_of_its_own("64M");
    site.init();
    site.configure("min_free = \"0\""); // so that it is the write that fails
    let filler = site.disk().join("filler");
    fill(&filler);
    let sent = message("full", &"No room for me.\n".repeat(1000));
    let mail = site.smtp().send(ALICE, &[BOB], &sent);
    site.until_postfix_defers(&mail);
    site.until_spool_is_empty();
    fs::remove_file(filler).unwrap();
    site.until_postfix_let_go_of(&[mail]);
    site.run();
    assert_delivered_once(&site, ["full"]);
}

#[test]
fn a_disk_below_the_default_reserve_leaves_mail_with_postfix_until_there_is_room() {
    let site = Site::on_a_disk_of_its_own("400M");
    site.init();
    let filler = site.disk().join("filler");
    // Less than the default reserve of 100M is left, but more than the message needs.
    must(Command::new("fallocate").args(["-l", "300M"]).arg(&filler));
    let mail = site
        .smtp()
        .send(ALICE, &[BOB], &message("reserve", "Not yet.\n"));
    site.until_postfix_defers(&mail);
    site.until_spool_is_empty();
    fs::remove_file(filler).unwrap();
    site.until_postfix_let_go_of(&[mail]);
    site.run();
    assert_delivered_once(&site, ["reserve"]);
}

#[test]
fn mail_over_the_size_limit_goes_back_to_its_sender_with_our_reason() {
    let site = Site::new();
    site.init();
    site.configure("max_size = \"10k\"");
    // More than a pipe holds: we may stop reading before Postfix stops writing.
    let large = message("large", &"Too much.\n".repeat(20_000));
    let (code, said) = site.receive_directly(ALICE, BOB, &large);
    let reason = said.strip_prefix("5.3.4 ").expect(&said);
    assert!(!matches!(code, None | Some(0 | 75)), "{code:?}");

    let small = message("small", &"Just right.\n".repeat(500));
    let mails = [large, small].map(|mail| site.smtp().send(ALICE, &[BOB], &mail));
    site.until_postfix_let_go_of(&mails);
    let bounces = read_all(&site.bounces());
    assert_eq!(bounces.len(), 1, "{bounces:?}");
    assert!(bounces[0].contains("\nStatus: 5.3.4\n"), "{}", bounces[0]);
    assert!(
        words(&bounces[0]).contains(&words(reason)),
        "no {reason:?} in {}",
        bounces[0]
    );
    site.run();
    assert_delivered_once(&site, ["small"]);
}

#[test]
fn a_hundred_messages_over_several_connections_all_arrive_once() {
    let site = Site::new();
    site.init();
    let id = |n: usize| format!("many-{n}");
    let mails: Vec<String> = thread::scope(|scope| {
        let connections = (0..100).step_by(20).map(|first| {
            let mut smtp = site.smtp();
            let mut send = move |n| smtp.send(ALICE, &[BOB], &message(&id(n), "One of many.\n"));
            scope.spawn(move || (first..first + 20).map(&mut send).collect::<Vec<_>>())
        });
        let connections: Vec<_> = connections.collect(); // all of them at once
        connections
            .into_iter()
            .flat_map(|sending| sending.join().unwrap())
            .collect()
    });
    site.until_postfix_let_go_of(&mails);
    thread::scope(|scope| {
        scope.spawn(|| site.run());
        scope.spawn(|| site.run());
    });
    site.run(); // what those two held from each other
    assert_delivered_once(&site, (0..100).map(id));
}

/// Asserts that the outbox holds each of these once and nothing else, and that every bounce was expected.
fn assert_delivered_once<S: Into<String>>(site: &Site, ids: impl IntoIterator<Item = S>) {
    let mut arrived = BTreeMap::new();
    for copy in read_all(&site.outbox()) {
        *arrived
            .entry(fields(&copy, "Message-ID").concat())
            .or_insert(0) += 1;
    }
    let expected = ids
        .into_iter()
        .map(|id| (format!("<{}@sender.test>", id.into()), 1));
    assert_eq!(arrived, expected.collect());
    let bounced = site.postfix_log().matches("status=bounced").count();
    assert_eq!(bounced, files(&site.bounces()).len());
}

fn message(id: &str, body: &str) -> String {
    format!(
        "From: Alice <{ALICE}>\nTo: Bob <{BOB}>\nSubject: {id}\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0000\nMessage-ID: <{id}@sender.test>\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 8bit\n\n{body}"
    )
}

/// The values of every such header field, unfolded.
fn fields(message: &str, name: &str) -> Vec<String> {
    let header = message.split("\n\n").next().unwrap();
    let unfolded = header.replace("\n\t", " ").replace("\n ", " ");
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(": ")
            .map(String::from)
    };
    unfolded.lines().filter_map(value).collect()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sorted<S: AsRef<str>>(words: &[S]) -> Vec<&str> {
    let mut words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    words.sort();
    words
}
