//! DSN parameters (RFC 3461): how the next host handles them, and what we report if it does not support them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use tempfile::TempDir;

use super::everything_by;
use super::postfix::Postfix;
use super::program::{LETTER, Site, pipe, route};
use super::servers::directory;
use super::servers::dovecot::Dovecot;
use super::servers::store::Store;
use super::site::{User, read_all, until};

/// A Postfix that delivers mail for `sender.test` into one mailbox, and bounces that for `example.test`.
struct Inbox {
    postfix: Postfix,
    dir: TempDir,
}

impl Inbox {
    fn start() -> Inbox {
        let (dir, user) = (directory(), User::for_tests());
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(user.uid), Some(user.gid)).unwrap();
        // The command to which it pipes mail for `example.test`.
        let command = dir.path().join("mailspool");
        fs::write(&command, "#!/bin/sh\ncat >/dev/null\nexit 67\n").unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        let postfix = Postfix::start(dir.path(), &dir.path().join("spool"), &user, "");
        Inbox { postfix, dir }
    }

    fn keys(&self) -> String {
        format!(
            "type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"",
            self.postfix.port()
        )
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("home/box/new")
    }

    /// Returns the mail that has arrived, once there are `count` messages.
    fn mail(&self, count: usize) -> Vec<String> {
        until("mail to come", || read_all(&self.path()).len() >= count);
        let mail = read_all(&self.path());
        assert_eq!(mail.len(), count, "{mail:?}");
        mail
    }
}

fn send(site: &Site, dsn_params: &[&str], to: &[&str]) {
    let send = ["send", "--queue-only", "-f", "alice@sender.test"];
    let arguments: Vec<&str> = [&send[..], dsn_params, &["--"], to].concat();
    site.program(arguments, LETTER).ok();
}

/// The values of every such field, in order.
fn fields(mail: &str, name: &str) -> Vec<String> {
    let lines = mail.lines().filter_map(|line| line.strip_prefix(name));
    lines.map(|value| value.trim().to_owned()).collect()
}

/// The only notice among these.
fn notice(mail: &[String]) -> &String {
    let mut notices = mail.iter().filter(|one| one.contains("\nAction: "));
    let notice = notices.next().expect("a notice");
    assert_eq!(notices.next(), None);
    assert!(notice.starts_with("Return-Path: <>\n"), "{notice}");
    notice
}

/// Postfix reports the delivery with the parameters that it was given, so it got all of them.
#[test]
fn a_host_that_knows_dsn_is_given_everything_and_tells() {
    let inbox = Inbox::start();
    let site = Site::new(&everything_by(&inbox.keys()));
    let dsn_params = ["-N", "success", "-R", "hdrs", "-V", "order 17+1=18"];
    let original = [
        "--orcpt=rfc822;List+b@origin.test",
        "--orcpt=rfc822;c d=e@origin.test",
    ];
    let to = ["b@sender.test", "c@sender.test"];
    send(&site, &[&dsn_params[..], &original].concat(), &to);
    let said = site.run().ok();
    assert_eq!(said, "1 message: 2 delivered, 0 deferred, 0 failed.\n");
    // We send no notice, and nothing is left.
    site.is_clean_and_empty();
    let mail = inbox.mail(3);
    let told = notice(&mail);
    assert_eq!(fields(told, "Original-Envelope-Id:"), ["order 17+1=18"]);
    assert_eq!(fields(told, "Action:"), ["delivered", "delivered"]);
    let mut both: Vec<_> = fields(told, "Final-Recipient: rfc822;")
        .into_iter()
        .zip(fields(told, "Original-Recipient:"))
        .collect();
    both.sort();
    // A notice has the original address in plain or encoded form (RFC 3464, 2.3.1).
    let [(b, list), (c, odd)] = &both[..] else {
        panic!("{both:?}")
    };
    assert_eq!((&**b, &**c), ("b@sender.test", "c@sender.test"));
    assert!(
        ["rfc822;List+b@origin.test", "rfc822;List+2Bb@origin.test"].contains(&&**list),
        "{list}"
    );
    assert!(
        ["rfc822;c d=e@origin.test", "rfc822;c+20d+3De@origin.test"].contains(&&**odd),
        "{odd}"
    );
    // HDRS: only the header is returned.
    assert!(!told.contains("\nHello.\n"), "{told}");
}

#[test]
fn a_host_that_knows_dsn_is_asked_for_no_notice() {
    let inbox = Inbox::start();
    let site = Site::new(&everything_by(&inbox.keys()));
    let dsn_params = ["never", "success", "delay,failure"];
    for (wish, sent) in dsn_params.into_iter().zip(1..) {
        send(&site, &["-N", wish], &["b@example.test"]);
        site.run().ok();
        site.is_clean_and_empty();
        let returned = usize::from(sent == dsn_params.len());
        until("Postfix to be done with it", || {
            let log = inbox.postfix.log();
            let count = |words| log.matches(words).count();
            count("status=bounced") == sent && count(": removed") == sent + returned
        });
        inbox.mail(returned);
    }
}

/// Our own notice, received by Postfix.
#[test]
fn a_notice_of_ours_arrives_and_asks_for_none() {
    let inbox = Inbox::start();
    let no = pipe("no", "cat >/dev/null; echo 5.1.1 no such user; exit 67");
    let config = no + &route("domain", "no.test", "no") + &everything_by(&inbox.keys());
    let site = Site::new(&config);
    send(&site, &["-N", "failure", "-V", "mark"], &["x@no.test"]);
    let said = site.run().ok();
    assert!(said.contains("1 notice"), "{said}");
    site.is_clean_and_empty();
    let mail = inbox.mail(1);
    assert_eq!(fields(notice(&mail), "Action:"), ["failed"]);
    assert_eq!(fields(&mail[0], "Final-Recipient:"), ["rfc822; x@no.test"]);

    // Here the notice fails too, and no notice is sent about that.
    let store = Store::start();
    let keys = format!("type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"", store.port());
    let no = pipe("no", "cat >/dev/null; echo 5.1.1 no such user; exit 67");
    site.configure(&(no + &route("domain", "no.test", "no") + &everything_by(&keys)));
    let arguments = [
        "send",
        "--queue-only",
        "-f",
        "absent@x.test",
        "--",
        "x@no.test",
    ];
    site.program(arguments, LETTER).ok();
    site.run().ok();
    let row = site.row();
    assert_eq!(row["queue"], "frozen", "{row}");
    let id = row["id"].as_str().unwrap();
    let lines = fs::read_to_string(site.spool().join("info/transport").join(id)).unwrap();
    assert!(lines.contains("\nnotify: 1 never\n"), "{lines}");
}

/// aiosmtpd does not support DSN, so we report the message as relayed.
#[test]
fn where_a_host_does_not_know_dsn_we_tell() {
    let store = Store::start();
    let keys = format!("type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"", store.port());
    let site = Site::new(&everything_by(&keys));
    send(
        &site,
        &["-N", "success,failure", "-V", "mark"],
        &["b@x.test", "absent@x.test"],
    );
    site.run().ok();
    site.is_clean_and_empty();
    // The message and two notices, and no parameter that aiosmtpd does not know.
    assert_eq!(store.count(), 3);
    assert!(
        !store.envelope(0).contains("ENVID"),
        "{}",
        store.envelope(0)
    );
    let mut told: Vec<_> = (1..3)
        .map(|n| {
            let text = String::from_utf8(store.message(n)).unwrap();
            assert!(store.envelope(n).starts_with("<>\nalice@sender.test\n"));
            [
                fields(&text, "Action:"),
                fields(&text, "Final-Recipient: rfc822;"),
            ]
            .concat()
        })
        .collect();
    told.sort();
    assert_eq!(told, [["failed", "absent@x.test"], ["relayed", "b@x.test"]]);
}

/// Dovecot's LMTP is the final delivery.
#[test]
fn a_mail_store_has_it_for_good() {
    let dovecot = Dovecot::start();
    let socket = dovecot.socket("lmtp");
    let keys = format!("type = \"lmtp\"\nhost = \"unix:{}\"", socket.display());
    let site = Site::new(&everything_by(&keys));
    until("it listens", || socket.exists());
    let send = [
        "send",
        "--queue-only",
        "-f",
        "bob@x.test",
        "-N",
        "success",
        "--",
        "alice@x.test",
    ];
    site.program(send, LETTER).ok();
    site.run().ok();
    site.is_clean_and_empty();
    assert_eq!(dovecot.mail("alice").len(), 1);
    let told = dovecot.mail("bob");
    assert_eq!(fields(notice(&told), "Action:"), ["delivered"]);
}
