//! To the mail exchanges of the recipient's domain.

use super::dns::{Dns, Mood};
use super::program::Site;
use super::servers::store::Store;
use super::{attempted, everything_by, is_bounced, is_deferred};

/// Configuration that delivers all mail to the mail exchanges, on this port.
pub fn to_exchanges(dns: &Dns, port: u16) -> String {
    let server = dns.address();
    format!("\n[dns]\nservers = [\"{server}\"]\ntimeout = \"200ms\"\nlocal_mx = true\n")
        + &everything_by(&format!("type = \"smtp\"\nport = {port}"))
}

#[test]
fn mail_goes_to_the_best_exchange_that_answers() {
    let (dns, store) = (Dns::new(), Store::start());
    // The address of the first has no listener.
    dns.mx("example.test", 10, "dead.example.test.");
    dns.mx("example.test", 20, "mx.example.test.");
    dns.host("dead.example.test", "127.99.99.99");
    dns.host("mx.example.test", "127.0.0.1");
    let site = Site::new(&to_exchanges(&dns, store.port()));
    let message = b"From: a@example.org\r\nDate: Sun, 22 Nov 2026 09:00:00 +0000\r\n\
        Message-ID: <1@example.org>\r\nSubject: octets\r\n\r\n.\r\n..\r\n\xff\xfe\r\n";
    let send = ["send", "--queue-only", "-f", "a@example.org", "--"];
    let to = ["b@Example.test", "c@example.test"];
    site.program(send.iter().chain(&to), message).ok();
    let said = site.run().ok();
    assert_eq!(said, "1 message: 2 delivered, 0 deferred, 0 failed.\n");
    site.is_clean_and_empty();
    // Both recipients in one transaction, with every octet.
    assert_eq!(store.count(), 1);
    let envelope = store.envelope(0);
    assert!(
        envelope.starts_with("a@example.org\nb@Example.test\nc@example.test\n"),
        "{envelope}"
    );
    let stored = store.message(0);
    assert!(stored.ends_with(&message[..]), "{}", stored.escape_ascii());
}

#[test]
fn what_is_final_bounces_and_what_may_pass_is_deferred() {
    let dns = Dns::new();
    dns.mx("null.test", 0, ".");
    dns.mood("broken.test", Mood::ServFail);
    dns.mood("silent.test", Mood::Silent);
    dns.mx("nowhere.test", 10, "gone.nowhere.test.");
    dns.mx("nowhere.test", 20, "broken.test.");
    dns.mx("unnamed.test", 10, "gone.unnamed.test.");
    dns.mx("dead.test", 10, "mx.dead.test.");
    dns.host("mx.dead.test", "127.99.99.99");
    let config = to_exchanges(&dns, 2);
    for (domain, words) in [
        ("nosuch.test", "5.1.2"),
        ("null.test", "5.1.10"),
        ("unnamed.test", "5.4.4"),
    ] {
        is_bounced(&attempted(&config, &format!("x@{domain}")), words);
    }
    for (domain, words) in [
        ("broken.test", "4.4.3 MX lookup of broken.test failed"),
        ("silent.test", "4.4.3 MX lookup of silent.test failed"),
        ("nowhere.test", "4.4.3 address lookup of broken.test failed"),
        (
            "dead.test",
            "4.4.1 cannot connect to mx.dead.test[127.99.99.99]:2",
        ),
    ] {
        is_deferred(&attempted(&config, &format!("x@{domain}")), words);
    }
}

/// If a domain's exchange is this machine, its mail would be sent to our own services.
#[test]
fn an_exchange_with_an_address_of_this_machine_is_a_loop() {
    let (dns, store) = (Dns::new(), Store::start());
    dns.mx("loop.test", 10, "mx.loop.test.");
    dns.mx("loop.test", 20, "later.loop.test.");
    dns.host("mx.loop.test", "127.0.0.1");
    dns.host("later.loop.test", "127.0.0.2");
    dns.host("bare.test", "0.0.0.0");
    let config = to_exchanges(&dns, store.port()).replace("local_mx = true\n", "");
    for to in [
        "x@loop.test",
        "x@bare.test",
        "x@[127.0.0.1]",
        "x@[IPv6:::1]",
    ] {
        is_bounced(&attempted(&config, to), "5.4.6");
    }
    assert_eq!(store.count(), 0);
    // A host that the configuration names may have any address.
    let host = everything_by(&format!(
        "type = \"smtp\"\nhost = \"[127.0.0.1]:{}\"",
        store.port()
    ));
    let site = Site::new(&host);
    site.program(
        ["send", "--queue-only", "--", "x@loop.test"],
        b"Subject: x\n\nx\n",
    )
    .ok();
    site.run().ok();
    assert_eq!(store.count(), 1);
}
