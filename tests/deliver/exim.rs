//! Delivery to an Exim.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::program::{BOX, Site, route};
use super::servers::exim::Exim;
use super::{attempted, everything_by, is_deferred};

/// Configuration that delivers all mail to Exim, except bounces to the senders.
fn to(exim: &Exim, more: &str) -> String {
    let keys = format!(
        "type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"\n{more}",
        exim.port()
    );
    let back = BOX.split_once("[[route]]").unwrap().0.to_owned();
    back + &route("recipient", "sender@example.org", "box") + &everything_by(&keys)
}

/// What Exim must have stored for this recipient of a message from `sender@example.org`.
fn stored(recipient: &str, message: &[u8]) -> Vec<u8> {
    let head = format!("Return-path: <sender@example.org>\nEnvelope-to: {recipient}\n");
    [head.as_bytes(), message].concat()
}

/// Queues a message with all usual header fields and this body. Returns it as it is sent below our trace field.
fn send(site: &Site, recipients: &[&str], body: &[u8]) -> Vec<u8> {
    let message = [HEADER, body].concat();
    let send = ["send", "--queue-only", "-f", "sender@example.org", "--"];
    site.program(send.iter().chain(recipients), &message).ok();
    message
}

const HEADER: &[u8] = b"Date: Sun, 22 Nov 2026 09:00:00 +0000\nMessage-ID: <1@example.org>\n\
    From: sender@example.org\nSubject: octets\n\n";

/// The message below our `Received` field.
fn without_trace(mail: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(mail).into_owned();
    let from = text.find("Received: ").unwrap();
    let to = text.find("\nDate: ").unwrap() + 1;
    [&mail[..from], &mail[to..]].concat()
}

#[test]
fn every_octet_arrives_by_data_and_by_bdat() {
    let exim = Exim::start("mx.exim.test", "");
    let site = Site::new(&to(&exim, ""));
    let long = [&b"x".repeat(5000)[..], b"\n"].concat();
    for (n, body) in [
        &b"hello\n"[..],
        b".\n..\n.. x\n\n\n.\n",
        "gr\u{fc}\u{df}e \u{1f4ec}\n".as_bytes(),
        b"\xff\xfe\x80 no text at all\n",
        // DATA cannot carry this.
        &long,
        b"",
    ]
    .iter()
    .enumerate()
    {
        let message = send(&site, &[&format!("{n}@x.test")], body);
        let said = site.run().ok();
        assert_eq!(said, "1 message: 1 delivered, 0 deferred, 0 failed.\n");
        site.is_clean_and_empty();
        let expected = stored(&format!("{n}@x.test"), &message);
        let mails: Vec<_> = exim.mails(n + 1).iter().map(|m| without_trace(m)).collect();
        assert!(
            mails.contains(&expected),
            "{n}: {}",
            mails.concat().escape_ascii()
        );
        let taken = exim.taken().pop().unwrap();
        // Exim's letters: P protocol (s: TLS), L pipelining, K chunking, M8S BODY=8BITMIME.
        assert!(taken.contains(" P=esmtps L"), "{taken}");
        assert_eq!(taken.contains(" K "), n == 4, "{taken}");
        assert_eq!(taken.contains(" M8S=8 "), matches!(n, 2 | 3), "{taken}");
    }
}

#[test]
fn one_is_taken_one_is_refused_and_one_has_to_come_back() {
    let exim = Exim::start("mx.exim.test", "");
    let site = Site::new(&to(&exim, ""));
    let all = ["a@x.test", "absent@x.test", "grey@x.test", "b@x.test"];
    let message = send(&site, &all, b"hello\n");
    assert_eq!(
        site.run().ok(),
        "2 messages: 3 delivered, 1 deferred, 1 failed, 1 notice.\n"
    );
    let row = site.row();
    let replies: Vec<String> = (0..4)
        .map(|n| row["recipients"][n]["reply"].to_string())
        .collect();
    assert_eq!(replies[1], "\"550 5.1.1 no such user here\"");
    assert_eq!(replies[2], "\"451 4.7.1 come back later\"");
    let bounce = site.boxed().concat();
    assert!(bounce.contains("550 5.1.1 no such user here"), "{bounce}");
    exim.mails(2);
    assert_eq!(exim.taken().len(), 1, "one transaction");

    exim.know_grey();
    let id = row["id"].as_str().unwrap();
    site.program(["retry", "--queue-only", id], b"").ok();
    assert_eq!(
        site.run().ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
    site.is_clean_and_empty();
    let mails: Vec<_> = exim.mails(3).iter().map(|m| without_trace(m)).collect();
    let expected = ["a@x.test", "b@x.test", "grey@x.test"].map(|to| stored(to, &message));
    assert_eq!(mails, expected);
}

#[test]
fn what_is_too_large_comes_back_and_is_not_sent() {
    let exim = Exim::start("mx.exim.test", "");
    let site = Site::new(&to(&exim, ""));
    send(&site, &["a@x.test"], &b"0123456789\n".repeat(20_000));
    site.run().ok();
    let bounce = site.boxed().concat();
    let words = "5.3.4 the message has ";
    assert!(bounce.contains(words), "{bounce}");
    site.is_clean_and_empty();
    assert_eq!(exim.taken(), Vec::<String>::new());
}

#[test]
fn the_right_password_authenticates_by_plain_and_by_login() {
    let only_with = "auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}\n\
                     acl_smtp_mail = ${if def:sender_host_authenticated{accept}{deny}}";
    let exim = Exim::start("mx.exim.test", only_with);
    for (n, auth) in ["plain", "login"].iter().enumerate() {
        let site = Site::new("");
        let password = site.dir().join("password");
        let keys = format!(
            "tls_name = \"mx.exim.test\"\ntls_ca = {:?}\nusername = \"alice\"\n\
             password_file = {password:?}\nauth = \"{auth}\"",
            exim.roots()
        );
        fs::write(&password, "geheim\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        site.configure(&to(&exim, &keys));
        site.queue(&["a@x.test"]);
        let said = site.run().ok();
        assert_eq!(said, "1 message: 1 delivered, 0 deferred, 0 failed.\n");
        exim.mails(n + 1);
        let taken = exim.taken().pop().unwrap();
        assert!(taken.contains(&format!(" A={auth}:alice")), "{taken}");
        assert!(taken.contains(" P=esmtpsa "), "{taken}");

        fs::write(&password, "falsch\n").unwrap();
        site.queue(&["a@x.test"]);
        site.run().ok();
        is_deferred(&site, "535 Incorrect authentication data");
    }
    // Without a password the relay refuses permanently, and the sender is notified.
    let site = Site::new(&to(&exim, ""));
    site.queue(&["a@x.test"]);
    site.run().ok();
    let bounce = site.boxed().concat();
    assert!(
        bounce.contains("550 Administrative prohibition"),
        "{bounce}"
    );
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let exim = Exim::start("mx.exim.test", "");
    for (name, words) in [("mx.other.test", Some("4.7.5")), ("mx.exim.test", None)] {
        let keys = format!(
            "tls = \"verified\"\ntls_name = \"{name}\"\ntls_ca = {:?}",
            exim.roots()
        );
        let site = attempted(&to(&exim, &keys), "a@x.test");
        match words {
            Some(words) => is_deferred(&site, words),
            None => site.is_clean_and_empty(),
        }
    }
    exim.mails(1);
}

#[test]
fn what_is_not_ascii_goes_where_smtputf8_is_offered() {
    let exim = Exim::start("mx.exim.test", "smtputf8_advertise_hosts = *");
    let site = Site::new(&to(&exim, ""));
    send(&site, &["\u{f6}@x.test"], b"hello\n");
    let said = site.run().ok();
    assert_eq!(said, "1 message: 1 delivered, 0 deferred, 0 failed.\n");
    let mail = String::from_utf8(exim.mails(1).remove(0)).unwrap();
    assert!(mail.contains("Envelope-to: \u{f6}@x.test\n"), "{mail}");
    let taken = exim.taken().pop().unwrap();
    assert!(taken.contains(" P=utf8esmtps "), "{taken}");
}

/// If only the domain is not ASCII, the address has an ASCII form; a local part has none.
#[test]
fn where_it_is_not_offered_only_domains_may_be_other_than_ascii() {
    let exim = Exim::start("mx.exim.test", "smtputf8_advertise_hosts =");
    let site = attempted(&to(&exim, ""), "a@b\u{fc}cher.test");
    site.is_clean_and_empty();
    let mail = String::from_utf8(exim.mails(1).remove(0)).unwrap();
    let wire = "Envelope-to: a@xn--bcher-kva.test\n";
    assert!(mail.contains(wire), "{mail}");
    // The sender too.
    let send = [
        "send",
        "--queue-only",
        "-f",
        "s@b\u{fc}cher.test",
        "--",
        "a@x.test",
    ];
    site.program(send, b"Subject: x\n\nx\n").ok();
    site.run().ok();
    assert!(exim.taken()[1].contains(" <= s@xn--bcher-kva.test "));

    // The sender of a failed message gets the bounce through Exim too.
    let site = Site::new(&to(&exim, ""));
    site.program(
        [
            "send",
            "--queue-only",
            "-f",
            "s@b\u{fc}cher.test",
            "--",
            "absent@x.test",
        ],
        b"Subject: x\n\nx\n",
    )
    .ok();
    site.run().ok();
    site.is_clean_and_empty();
    let mails = exim.mails(3);
    let bounce = mails
        .iter()
        .find(|mail| mail.starts_with(b"Return-path: <>\n"));
    let bounce = String::from_utf8(bounce.unwrap().clone()).unwrap();
    assert!(
        bounce.contains("\nTo: <s@xn--bcher-kva.test>\n"),
        "{bounce}"
    );

    for (recipient, words) in [
        (
            "\u{f6}@x.test",
            "5.6.7 the address's local part is not ASCII",
        ),
        ("\u{f6}@b\u{fc}cher.test", "5.6.7 the address's local part"),
    ] {
        let site = attempted(&to(&exim, ""), recipient);
        let bounce = site.boxed().concat();
        assert!(bounce.contains(words), "{recipient}: {bounce}");
    }
    assert_eq!(exim.taken().len(), 3);
}
