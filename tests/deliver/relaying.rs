//! Delivery to hosts that the configuration names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::program::{LETTER, Site};
use super::servers::dovecot::Dovecot;
use super::servers::relay::Relay;
use super::servers::sink::Sink;
use super::servers::store::Store;
use super::site::{read_all, until};
use super::{attempted, everything_by, is_deferred};

/// The keys of a relay that requires the password in this file.
fn relay_keys(relay: &Relay, password: &Path) -> String {
    format!(
        "type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"\ntls_name = \"mx.relay.test\"\n\
         tls_ca = {:?}\nusername = \"alice\"\npassword_file = {password:?}",
        relay.port(),
        relay.roots(),
    )
}

/// A file with a password that only the owner can read.
fn password(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join(format!("password-{text}"));
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_sink_gets_everything() {
    let sink = Sink::start(&[]);
    until("it listens", || sink.path().exists());
    let keys = format!("type = \"smtp\"\nhost = \"unix:{}\"", sink.path().display());
    let site = Site::new(&everything_by(&keys));
    site.queue_many(100, |n| format!("{n}@x{}.test", n % 3));
    let said = site.run().ok();
    assert_eq!(
        said,
        "100 messages: 100 delivered, 0 deferred, 0 failed.\n",
        "{:?}",
        site.rows()
    );
    site.is_clean_and_empty();
}

#[test]
fn a_lost_answer_is_tried_again_or_waits_for_a_person() {
    let sink = Sink::start(&["-q", "."]);
    until("it listens", || sink.path().exists());
    for (on_unknown, queue) in [("retry", "deferred"), ("freeze", "frozen")] {
        let path = sink.path();
        let keys = format!(
            "type = \"smtp\"\nhost = \"unix:{}\"\non_unknown = \"{on_unknown}\"",
            path.display()
        );
        let site = attempted(&everything_by(&keys), "x@x.test");
        assert_eq!(site.row()["queue"], queue);
    }
}

#[test]
fn a_refused_recipient_bounces_and_the_others_have_their_mail() {
    let store = Store::start();
    let keys = format!("type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"", store.port());
    let site = Site::new(&everything_by(&keys));
    site.queue(&["b@x.test", "absent@x.test"]);
    site.run().ok();
    site.is_clean_and_empty();
    assert!(
        store
            .envelope(0)
            .starts_with("sender@example.org\nb@x.test\n")
    );
    assert!(store.message(0).ends_with(b"\r\nHello.\r\n"));
    // The bounce went through the same server, in the same run.
    assert!(store.envelope(1).starts_with("<>\nsender@example.org\n"));
    let bounce = String::from_utf8(store.message(1)).unwrap();
    assert!(bounce.contains("550 5.1.1 no such user here"), "{bounce}");
}

#[test]
fn every_line_of_the_log_has_addresses_host_and_reply() {
    let store = Store::start();
    let keys = format!("type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"", store.port());
    let log = |format: &str| format!("\n[log]\nto = \"stderr\"\nformat = \"{format}\"\n");
    let site = Site::new(&(everything_by(&keys) + &log("json")));
    let id = site.queue(&["b@x.test"]);
    let said = site.run();
    let object = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let lines: Vec<Value> = said.err.lines().map(object).collect();
    let line = lines
        .iter()
        .find(|line| line["status"] == "delivered")
        .unwrap();
    for (key, value) in [
        ("id", &*id),
        ("from", "sender@example.org"),
        ("to", "b@x.test"),
        ("transport", "out"),
        ("relay", &*format!("[127.0.0.1]:{}", store.port())),
        ("dsn", "2.0.0"),
        ("reply", "250 2.0.0 stored"),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert!(line["delay"].as_f64().unwrap() < 60.0, "{line}");

    site.configure(&(everything_by(&keys) + &log("text")));
    site.queue(&["absent@x.test"]);
    let said = site.run().err;
    for part in [
        "transport=\"out\"",
        &*format!("relay=\"[127.0.0.1]:{}\"", store.port()),
        "dsn=\"5.1.1\"",
        "status=\"failed\"",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_right_password_delivers_and_a_wrong_one_never_bounces() {
    let relay = Relay::start();
    let dir = tempfile::tempdir().unwrap();
    let wrong = password(dir.path(), "falsch");
    let site = attempted(&everything_by(&relay_keys(&relay, &wrong)), "x@sender.test");
    is_deferred(&site, "535 5.7.8");
    let shown = site
        .program(["show", site.row()["id"].as_str().unwrap()], b"")
        .ok();
    assert!(!shown.contains("falsch"), "{shown}");

    let right = password(dir.path(), "geheim");
    let keys = relay_keys(&relay, &right);
    site.configure(&everything_by(&keys));
    let probe = site.program(["probe", "--json", "x@sender.test"], b"").ok();
    let probe: Value = serde_json::from_str(&probe).unwrap();
    assert_eq!(probe["auth"], "SCRAM-SHA-256", "{probe}");
    assert_eq!(probe["tls"]["verified"], true, "{probe}");
    assert_eq!(probe["error"], Value::Null);
    site.program(["destinations", "clear"], b"").ok();
    site.program(["flush", "--queue-only"], b"").ok();
    site.run().ok();
    site.is_clean_and_empty();
    until("it arrives", || read_all(&relay.inbox()).len() == 1);

    // The certificate's signer is not trusted by the system, and the certificate is for another name.
    for (keys, why) in [
        (
            keys.replace("tls_ca", "# tls_ca"),
            "is not signed by a trusted authority",
        ),
        (
            keys.replace("mx.relay.test", "mx.other.test"),
            "is not for mx.other.test, but for mx.relay.test",
        ),
        (
            keys.replace("\ntls_name", "\ntls_implicit = true\ntls_name"),
            "does not speak TLS here",
        ),
    ] {
        let site = attempted(&everything_by(&keys), "x@sender.test");
        is_deferred(&site, "4.7.5 [127.0.0.1]:");
        is_deferred(&site, why);
    }
}

#[test]
fn nothing_goes_in_clear_where_tls_is_required() {
    let store = Store::start();
    for tls in ["required", "verified"] {
        let keys = format!(
            "type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"\ntls = \"{tls}\"",
            store.port()
        );
        is_deferred(&attempted(&everything_by(&keys), "x@x.test"), "4.7.");
    }
    assert_eq!(store.count(), 0);
}

#[test]
fn lmtp_has_an_answer_for_each_recipient() {
    let dovecot = Dovecot::start();
    let socket = dovecot.socket("lmtp");
    let keys = format!("type = \"lmtp\"\nhost = \"unix:{}\"", socket.display());
    let site = Site::new(&everything_by(&keys));
    until("it listens", || socket.exists());
    let send = ["send", "--queue-only", "-f", "sender@example.org", "--"];
    let to = ["alice@x.test", "full@x.test", "bob@x.test"];
    site.program(send.iter().chain(&to), LETTER).ok();
    assert_eq!(
        site.run().ok(),
        "1 message: 2 delivered, 1 deferred, 0 failed.\n"
    );
    let row = site.row();
    let statuses: Vec<_> = (0..3)
        .map(|n| row["recipients"][n]["status"].clone())
        .collect();
    assert_eq!(statuses, ["delivered", "deferred", "delivered"], "{row}");
    for user in ["alice", "bob"] {
        let mail = dovecot.mail(user);
        assert_eq!(mail.len(), 1);
        assert!(mail[0].ends_with("\nHello.\n"), "{mail:?}");
    }
}
