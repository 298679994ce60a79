//! Domains with two spellings, `bücher.test` and `xn--bcher-kva.test`, each with and without a final dot.

use serde_json::Value;

use super::dns::Dns;
use super::exchanges::to_exchanges;
use super::program::{LETTER, Site, route};
use super::servers::exim::Exim;
use super::servers::store::Store;
use super::{attempted, everything_by, is_bounced, is_deferred};

const SPELLINGS: [&str; 3] = [
    "b\u{fc}cher.test.",
    "B\u{dc}CHER.test",
    "xn--bcher-kva.test.",
];

#[test]
fn all_of_them_have_one_exchange_and_one_transaction() {
    let (dns, store) = (Dns::new(), Store::start());
    dns.mx("xn--bcher-kva.test", 10, "mx.xn--bcher-kva.test.");
    dns.host("mx.xn--bcher-kva.test", "127.0.0.1");
    let site = Site::new(&to_exchanges(&dns, store.port()));
    let mut send: Vec<String> = ["send", "--queue-only", "-f", "s@b\u{fc}cher.test", "--"]
        .map(str::to_owned)
        .to_vec();
    send.extend(
        SPELLINGS
            .iter()
            .enumerate()
            .map(|(n, domain)| format!("{n}@{domain}")),
    );
    // The same mailbox three times.
    send.push("0@xn--bcher-kva.test".to_owned());
    send.push("\"0\"@xn--bcher-kva.test.".to_owned());
    site.program(&send, LETTER).ok();
    let said = site.run().ok();
    assert_eq!(said, "1 message: 3 delivered, 0 deferred, 0 failed.\n");
    assert_eq!(store.count(), 1);
    let envelope = store.envelope(0);
    // The server offers SMTPUTF8, and nothing here needs it.
    let expected = "s@xn--bcher-kva.test\n0@xn--bcher-kva.test\n1@xn--bcher-kva.test\n\
                    2@xn--bcher-kva.test\n";
    assert!(envelope.starts_with(expected), "{envelope}");
    assert!(!envelope.contains("SMTPUTF8"), "{envelope}");
    site.is_clean_and_empty();

    // A local part that needs it is sent unchanged.
    site.queue(&["\u{f6}@b\u{fc}cher.test"]);
    site.run().ok();
    let envelope = store.envelope(1);
    assert!(
        envelope.contains("\n\u{f6}@b\u{fc}cher.test\n"),
        "{envelope}"
    );
    assert!(envelope.contains("SMTPUTF8"), "{envelope}");
}

#[test]
fn all_of_them_are_one_destination_and_one_route() {
    let dns = Dns::new();
    dns.mx("xn--bcher-kva.test", 10, "mx.xn--bcher-kva.test.");
    dns.host("mx.xn--bcher-kva.test", "127.99.99.99");
    let site = Site::new(&to_exchanges(&dns, 2));
    for n in 0..2 {
        for domain in SPELLINGS {
            site.queue(&[&format!("{n}@{domain}")]);
        }
    }
    site.run().ok();
    let listed = site.program(["destinations", "--json"], b"").ok();
    let all: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // The destination and its host.
    assert_eq!(all.len(), 2, "{listed}");
    assert_eq!(all[0]["destination"], "[127.99.99.99]:2");
    assert_eq!(all[1]["destination"], "xn--bcher-kva.test");
    assert_eq!(all[1]["hosts"][0], "[127.99.99.99]:2");
    // One message has been tried; the others have not.
    assert_eq!(
        (&all[0]["tries"], &all[1]["tries"]),
        (&1.into(), &1.into()),
        "{listed}"
    );
    for domain in SPELLINGS {
        let way = site
            .program(["route", "--json", &format!("x@{domain}")], b"")
            .ok();
        let way: Value = serde_json::from_str(&way).unwrap();
        assert_eq!(way["destination"], "xn--bcher-kva.test");
        assert_eq!(way["hosts"][0], "mx.xn--bcher-kva.test:2");
        assert!(way["down"].is_string(), "{way}");
    }
    let cleared = site
        .program(["destinations", "clear", "b\u{fc}cher.test"], b"")
        .ok();
    assert_eq!(
        cleared,
        "out:xn--bcher-kva.test is attempted again.\nout:[127.99.99.99]:2 is attempted again.\n"
    );

    let config = to_exchanges(&dns, 2);
    for domain in SPELLINGS {
        let own = "\n[transport.own]\ntype = \"maildir\"\npath = \"{dir}/box\"\n".to_owned();
        site.configure(&(own + &route("domain", domain, "own") + &config));
        for spelling in SPELLINGS {
            let way = site
                .program(["route", "--json", &format!("x@{spelling}")], b"")
                .ok();
            assert!(way.contains("\"transport\":\"own\""), "{domain}: {way}");
        }
    }
}

#[test]
fn what_dns_does_not_know_comes_back() {
    let dns = Dns::new();
    let config = to_exchanges(&dns, 2);
    for (to, words) in [
        (
            "x@b\u{fc}cher.test",
            "the domain xn--bcher-kva.test does not exist",
        ),
        ("x@none.test.", "the domain none.test does not exist"),
    ] {
        let site = attempted(&config, to);
        is_bounced(&site, words);
        is_bounced(&site, "5.1.2");
    }
    // The bounce's text has the address as the sender wrote it, and its report has the ASCII form.
    let site = attempted(&config, "x@b\u{fc}cher.test");
    is_bounced(&site, "x@b=C3=BCcher.test");
    is_bounced(&site, "Final-Recipient: rfc822; x@xn--bcher-kva.test");
}

/// The ASCII form of the configured host is looked up, and matched against the certificate.
#[test]
fn a_host_of_the_configuration_may_be_spelled_in_any_way() {
    let dns = Dns::new();
    dns.host("mx.xn--bcher-kva.test", "127.0.0.1");
    let exim = Exim::start("mx.xn--bcher-kva.test", "");
    let config = |host: &str, more: &str| {
        let (server, port, roots) = (dns.address(), exim.port(), exim.roots());
        format!("\n[dns]\nservers = [\"{server}\"]\nlocal_mx = true\n")
            + &everything_by(&format!(
                "type = \"smtp\"\nhost = \"{host}:{port}\"\ntls = \"verified\"\n\
                 tls_ca = {roots:?}\n{more}"
            ))
    };
    for (host, name) in [
        ("MX.b\u{fc}cher.test", ""),
        (
            "mx.xn--bcher-kva.test",
            "tls_name = \"mx.b\u{fc}cher.test\"",
        ),
    ] {
        let site = attempted(&config(host, name), "x@x.test");
        site.is_clean_and_empty();
        let shown = site.program(["probe", "x@x.test"], b"").ok();
        assert!(
            shown.contains("Host          mx.xn--bcher-kva.test[127.0.0.1]:"),
            "{shown}"
        );
        assert!(shown.contains(", verified\n"), "{shown}");
    }
    exim.mails(2);
    let other = "tls_name = \"mx.b\u{fc}cher2.test\"";
    let site = attempted(&config("mx.b\u{fc}cher.test", other), "x@x.test");
    is_deferred(&site, "4.7.5");
}
