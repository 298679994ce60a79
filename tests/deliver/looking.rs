//! `route`, `probe` and `destinations`, and what `list` and `show` report of mail that waits for a host.

use serde_json::Value;

use jiff::Timestamp;
use mailspool::testing::spool::{Destination, Down, Spool};

use super::dns::{Dns, Mood};
use super::everything_by;
use super::exchanges::to_exchanges;
use super::program::{BOX, Site, route};
use super::servers::store::Store;

fn objects(text: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).unwrap();
    text.lines().map(object).collect()
}

/// Subdomains and senders choose the transport, in a delivery as in `route`.
#[test]
fn mail_goes_by_the_domain_above_and_by_its_sender() {
    let (head, _) = BOX.split_once("[[route]]").unwrap();
    let boxes = "[transport.below]\ntype = \"maildir\"\npath = \"below\"\n\
                 [transport.boss]\ntype = \"maildir\"\npath = \"boss\"\n";
    let rules = "[[route]]\nsender = \"boss@mail.test\"\ntransport = \"boss\"\n\
                 [[route]]\ndomain = \".corp.test\"\ntransport = \"below\"\n\
                 [[route]]\ndomain = \"*\"\ntransport = \"box\"\n";
    let site = Site::new(&format!("{head}{boxes}{rules}"));
    let mail = |from: &str, to: &str, transport: &str| {
        let way = site.program(["route", "--json", "-f", from, to], b"").ok();
        assert_eq!(objects(&way)[0]["transport"], transport, "{from} {to}");
        let id = site.program(
            ["send", "--queue-only", "-f", from, "--", to],
            b"Subject: t\n\nx\n",
        );
        id.ok();
    };
    mail("boss@mail.test", "x@a.corp.test", "boss");
    mail("boss", "x@a.corp.test", "boss");
    mail("me@mail.test", "x@a.corp.test", "below");
    mail("<>", "x@corp.test", "box");
    site.program(["run"], b"").ok();
    let delivered = |name: &str| {
        let path = site.spool().join(name).join("new");
        std::fs::read_dir(path).map_or(0, Iterator::count)
    };
    assert_eq!((delivered("boss"), delivered("below")), (2, 1));
}

#[test]
fn route_says_which_way_and_why() {
    let dns = Dns::new();
    dns.mx("example.test", 20, "second.example.test.");
    dns.mx("example.test", 10, "first.example.test.");
    dns.mx("null.test", 0, ".");
    dns.mood("broken.test", Mood::ServFail);
    let local = route("recipient", "root@mail.test", "box");
    let (head, routes) = BOX.split_once("[[route]]").unwrap();
    assert!(routes.contains("box"));
    let site = Site::new(&format!("{head}{local}{}", to_exchanges(&dns, 25)));
    let ask = |to: &[&str]| site.program(["route", "--json"].iter().chain(to), b"");

    let ways = objects(&ask(&["root", "x@example.test"]).ok());
    assert_eq!(ways[0]["address"], "root@mail.test");
    assert_eq!(ways[0]["route"], 1);
    assert_eq!(ways[0]["type"], "maildir");
    assert_eq!(ways[1]["route"], 2);
    assert_eq!(ways[1]["transport"], "out");
    let hosts = ["first.example.test:25", "second.example.test:25"];
    assert_eq!(ways[1]["hosts"], serde_json::json!(hosts));
    assert!(
        ways[1]["tls"]
            .as_str()
            .unwrap()
            .starts_with("opportunistic")
    );
    for (to, code, words) in [
        ("x@null.test", 69, "it is bounced: 5.1.10"),
        ("x@nosuch.test", 69, "it is bounced: 5.1.2"),
        ("x@broken.test", 75, "it is deferred: 4.4.3"),
    ] {
        let ended = ask(&[to]);
        assert_eq!(ended.code, code, "{ended}");
        let way = &objects(&ended.text())[0];
        assert!(way["error"].as_str().unwrap().starts_with(words), "{way}");
    }
    let shown = site.program(["route", "x@example.test"], b"").ok();
    let expected = "x@example.test\n    \
        Route       [[route]] number 2 (everything)\n    \
        Transport   out (smtp)\n    \
        Destination example.test\n    \
        Hosts       first.example.test:25\n                \
        second.example.test:25\n    \
        TLS         opportunistic: used if offered, not verified\n";
    assert_eq!(shown, expected);
}

#[test]
fn probe_says_what_is_there_or_why_not() {
    let store = Store::start();
    let keys = |port: u16| format!("type = \"smtp\"\nhost = \"[127.0.0.1]:{port}\"");
    let site = Site::new(&everything_by(&keys(store.port())));
    let shown = site.program(["probe", "x@x.test"], b"").ok();
    for part in ["store.test", "TLS           none", "SMTPUTF8", "not used"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(store.count(), 0);
    site.configure(&everything_by(&keys(1)));
    let ended = site.program(["probe", "--json", "x@x.test"], b"");
    assert_eq!(ended.code, 75, "{ended}");
    let error = objects(&ended.text())[0]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    let words = "it is deferred: 4.4.1 cannot connect to [127.0.0.1]:1: ";
    assert!(error.starts_with(words), "{error}");
    // Permanent failures are reported as such.
    let dns = Dns::new();
    site.configure(&to_exchanges(&dns, 25));
    let ended = site.program(["probe", "x@nosuch.test"], b"");
    assert_eq!(ended.code, 69, "{ended}");
    let words = "Failed        it is bounced: 5.1.2 the domain nosuch.test does not exist\n";
    assert!(ended.text().ends_with(words), "{ended}");
    site.configure(BOX);
    assert_eq!(site.program(["probe", "x@x.test"], b"").code, 69);
}

#[test]
fn looking_makes_no_spool() {
    let site = Site::with_box();
    let elsewhere = site.dir().join("elsewhere");
    for arguments in [
        &["route", "x@x.test"][..],
        &["probe", "x@x.test"],
        &["destinations"],
        &["config"],
        &["config", "check"],
        &["schedule"],
        &["list"],
    ] {
        let mut command = super::program::program();
        command.arg("--spool").arg(&elsewhere).args(arguments);
        let ended = super::program::ended(&mut command, b"");
        assert_eq!(ended.code, 66, "{arguments:?}: {ended}");
        assert!(ended.err.contains("`mailspool init` makes one"), "{ended}");
        assert!(!elsewhere.exists(), "{arguments:?}");
    }
}

#[test]
fn destinations_that_are_down_are_listed_explain_and_are_cleared() {
    let site = Site::new(&everything_by("type = \"smtp\"\nport = 2"));
    let destinations = |more: &[&str]| site.program(["destinations"].iter().chain(more), b"");
    assert_eq!(destinations(&[]).ok(), "All destinations are up.\n");
    assert_eq!(destinations(&["clear", "x.test"]).code, 69);
    assert_eq!(destinations(&["clear"]).ok(), "All destinations are up.\n");
    let spool = Spool::open(&site.spool()).unwrap();
    let now = Timestamp::now();
    for name in ["x.test", "y.test", "\u{1b}[31mz.test"] {
        let destination = Destination {
            transport: "out".into(),
            next_hop: name.into(),
        };
        let down = Down::again(None, &destination, "4.4.1 no\u{7} answer", now);
        spool.remember_down(&down).unwrap();
    }
    let listed = destinations(&[]).ok();
    assert!(listed.contains("\nout:x.test "), "{listed}");
    assert!(listed.contains("    4.4.1 no answer\n"), "{listed}");
    assert!(!listed.contains(['\u{1b}', '\u{7}']), "{listed:?}");
    let all = objects(&destinations(&["--json"]).ok());
    assert_eq!(all.len(), 3);
    assert_eq!(all[1]["transport"], "out");
    assert_eq!(all[1]["tries"], 1);

    let way = site.program(["route", "--json", "x@x.test"], b"");
    assert!(objects(&way.text())[0]["down"].is_string(), "{way}");
    assert_eq!(
        destinations(&["clear", "y.test"]).ok(),
        "out:y.test is attempted again.\n"
    );
    assert_eq!(
        destinations(&["clear", "out:x.test"]).ok(),
        "out:x.test is attempted again.\n"
    );
    assert_eq!(objects(&destinations(&["--json"]).ok()).len(), 1);
}

#[test]
fn mail_that_waits_for_a_host_says_so() {
    let site = Site::new(&everything_by("type = \"smtp\"\nhost = \"[127.0.0.1]:1\""));
    site.queue(&["x@x.test"]);
    site.run().ok();
    let all = objects(&site.program(["destinations", "--json"], b"").ok());
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["destination"], "[127.0.0.1]:1");
    // The second message has had no attempt: its destination is down.
    let second = site.queue(&["y@y.test"]);
    site.run().ok();
    let shown = site.shown(&second);
    assert_eq!(shown["queue"], "deferred", "{shown}");
    assert_eq!(shown["recipients"][0]["reply"], Value::Null, "{shown}");
    let why = shown["last_error"].as_str().unwrap();
    assert!(
        why.starts_with("destination [127.0.0.1]:1 is down since "),
        "{why}"
    );
    assert!(why.contains("cannot connect"), "{why}");
    let listed = site.program(["list"], b"").ok();
    assert!(
        listed.contains("    destination [127.0.0.1]:1 is down since "),
        "{listed}"
    );
}

/// A name for EHLO that many servers refuse causes a warning, not an error.
#[test]
fn a_name_without_a_domain_is_warned_of() {
    for (hello, warns) in [
        ("vm", true),
        ("vm.example.org", false),
        ("[192.0.2.1]", false),
        ("mail..example.org", true),
        ("[IPv6:::1", true),
    ] {
        let keys = format!("type = \"smtp\"\nhost = \"[127.0.0.1]:9\"\nhello = \"{hello}\"");
        let site = Site::new(&everything_by(&keys));
        let checked = site.program(["config", "check"], b"");
        assert_eq!(checked.code, 0, "{hello}: {checked}");
        assert_eq!(checked.err.contains("EHLO sends "), warns, "{checked}");
    }
}
