//! Delivery by the program to other hosts: real third-party servers, and a DNS server that answers as a test
//! demands.
//!
//! The tests need root, Debian's postfix, dovecot-lmtpd, python3-aiosmtpd and python3-dkim, and what
//! `scripts/exim` unpacks.

mod deaf;
#[path = "../dns/mod.rs"]
mod dns;
mod dsn_params;
mod exchanges;
mod exim;
mod logs;
mod looking;
#[path = "../postfix/postfix.rs"]
#[allow(dead_code)]
mod postfix;
#[path = "../program/mod.rs"]
mod program;
mod relaying;
#[path = "../servers/mod.rs"]
mod servers;
mod signed;
#[path = "../postfix/site.rs"]
#[allow(dead_code)]
mod site;
mod spellings;
mod suspended;
mod unusable;

use program::{Site, route};

/// Configuration that sends all mail through a transport with these keys.
fn everything_by(keys: &str) -> String {
    let text = format!("\n[transport.out]\n{keys}\n");
    text + &route("domain", "*", "out")
}

/// A site with a single message, to `to`, that has been attempted once.
fn attempted(config: &str, to: &str) -> Site {
    let site = Site::new(config);
    site.queue(&[to]);
    site.run().ok();
    site
}

/// The status and the last reply of the only recipient of the only message.
#[track_caller]
fn told(site: &Site) -> (String, String) {
    let row = site.row();
    let one = &row["recipients"][0];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&one["status"]), text(&one["reply"]))
}

/// Asserts that the message was deferred with a reply that contains `words`.
#[track_caller]
fn is_deferred(site: &Site, words: &str) {
    let (status, reply) = told(site);
    assert_eq!(status, "deferred", "{reply}");
    assert!(reply.contains(words), "{reply}");
}

/// Asserts that the message is gone, and that its sender has a bounce that contains `words`.
#[track_caller]
fn is_bounced(site: &Site, words: &str) {
    let row = site.row();
    assert_eq!(row["sender"], "", "{row}");
    assert_eq!(row["recipients"][0]["address"], "sender@example.org");
    let id = row["id"].as_str().unwrap();
    let bounce = site.program(["show", "--message", id], b"").ok();
    assert!(bounce.contains(words), "{bounce}");
}
