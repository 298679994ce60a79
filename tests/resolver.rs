//! The hosts that accept mail for a domain, according to a DNS server that gives every possible answer.

mod dns;

use std::time::Duration;

use dns::{Dns, Mood};
use hickory_resolver::proto::rr::RecordType;
use mailspool::testing::dns::{Exchange, Exchanges, Resolver};
use mailspool::testing::queue::{Outcome, Status};

const OWN: &str = "mail.own.test";

fn resolver(dns: &Dns) -> Resolver {
    Resolver::new(vec![dns.address()]).with_timeout(Duration::from_millis(100))
}

async fn names(resolver: &Resolver, domain: &str) -> Vec<String> {
    let found = resolver.exchanges(domain, OWN).await.unwrap();
    found.into_iter().map(|finding| finding.name).collect()
}

async fn refused(resolver: &Resolver, domain: &str) -> (Status, String) {
    told(resolver.exchanges(domain, OWN).await.unwrap_err())
}

fn told(outcome: Outcome) -> (Status, String) {
    let code = outcome.reply.enhanced.map(|code| code.to_string());
    (outcome.status, code.unwrap_or_default())
}

#[tokio::test]
async fn exchanges_come_best_first_and_equal_ones_shuffled() {
    let dns = Dns::new();
    for (preference, name) in [(20, "c"), (10, "a"), (10, "b"), (30, "D")] {
        dns.mx("many.test", preference, &format!("{name}.many.test."));
    }
    let mut firsts = [0, 0];
    for _ in 0..40 {
        let resolver = resolver(&dns);
        let found = names(&resolver, "many.test").await;
        assert_eq!(found[2..], ["c.many.test", "d.many.test"]);
        firsts[usize::from(found[0] == "b.many.test")] += 1;
    }
    assert!(firsts.iter().all(|count| *count > 0), "{firsts:?}");
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_exchange() {
    let dns = Dns::new();
    dns.host("plain.test", "192.0.2.7");
    let expected = Exchange {
        name: "plain.test".into(),
        preference: None,
    };
    let resolver = resolver(&dns);
    assert_eq!(
        resolver.exchanges("Plain.test", OWN).await.unwrap(),
        [expected]
    );
    assert_eq!(names(&resolver, "[192.0.2.9]").await, ["192.0.2.9"]);
    assert_eq!(
        names(&resolver, "[IPv6:2001:db8::9]").await,
        ["2001:db8::9"]
    );
}

#[tokio::test]
async fn what_is_final_fails_and_what_may_pass_defers() {
    let dns = Dns::new();
    dns.mx("null.test", 0, ".");
    dns.alias("dangling.test", "gone.test.");
    dns.mood("fail.test", Mood::ServFail);
    dns.mood("refused.test", Mood::Refused);
    dns.mood("silent.test", Mood::Silent);
    let resolver = resolver(&dns);
    for (domain, status, code) in [
        ("nosuch.test", Status::Failed, "5.1.2"),
        ("null.test", Status::Failed, "5.1.10"),
        ("[nonsense]", Status::Failed, "5.1.2"),
        ("dangling.test", Status::Failed, "5.1.2"),
        ("fail.test", Status::Deferred, "4.4.3"),
        ("refused.test", Status::Deferred, "4.4.3"),
        ("silent.test", Status::Deferred, "4.4.3"),
    ] {
        let expected = (status, code.to_owned());
        assert_eq!(refused(&resolver, domain).await, expected, "{domain}");
    }
}

#[tokio::test]
async fn a_domain_with_other_records_only_cannot_be_routed() {
    let dns = Dns::new();
    dns.records_of_no_use("txt.test");
    let resolver = resolver(&dns);
    let expected = (Status::Failed, "5.4.4".to_owned());
    assert_eq!(refused(&resolver, "txt.test").await, expected);
}

#[tokio::test]
async fn trouble_with_the_addresses_is_no_answer_about_the_domain() {
    let dns = Dns::new();
    dns.mx("half.test", 10, "mx.half.test.");
    dns.host("mx.half.test", "192.0.2.1");
    dns.host("mx.half.test", "2001:db8::1");
    dns.host("mx.half.test", "192.0.2.2");
    dns.mood("mx.fail.test", Mood::ServFail);
    let resolver = resolver(&dns);
    let found = resolver.addresses("mx.half.test").await.unwrap();
    assert_eq!(found.len(), 3);
    assert!(found[0].is_ipv6() && found[1].is_ipv4() && found[2].is_ipv4());
    let code = |code: &str| (Status::Deferred, code.to_owned());
    let missing = resolver.addresses("mx.gone.test").await.unwrap_err();
    assert_eq!(told(missing), code("4.4.4"));
    let failed = resolver.addresses("mx.fail.test").await.unwrap_err();
    assert_eq!(told(failed), code("4.4.3"));
    let literal = resolver.addresses("192.0.2.3").await.unwrap();
    assert_eq!(literal, ["192.0.2.3".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn an_alias_is_followed() {
    let dns = Dns::new();
    dns.alias("www.test", "real.test.");
    dns.mx("real.test", 10, "mx.real.test.");
    dns.alias("mx.real.test", "box.real.test.");
    dns.host("box.real.test", "192.0.2.5");
    let resolver = resolver(&dns);
    assert_eq!(names(&resolver, "www.test").await, ["mx.real.test"]);
    let found = resolver.addresses("mx.real.test").await.unwrap();
    assert_eq!(found, ["192.0.2.5".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn mail_never_goes_back_or_sideways() {
    let dns = Dns::new();
    dns.mx("second.test", 10, "first.second.test.");
    dns.mx("second.test", 20, "MAIL.own.test.");
    dns.mx("second.test", 20, "equal.second.test.");
    dns.mx("second.test", 30, "third.second.test.");
    dns.mx("best.test", 10, "mail.own.test.");
    dns.mx("best.test", 20, "backup.best.test.");
    let resolver = resolver(&dns);
    assert_eq!(names(&resolver, "second.test").await, ["first.second.test"]);
    let expected = (Status::Failed, "5.4.6".to_owned());
    assert_eq!(refused(&resolver, "best.test").await, expected);
}

#[tokio::test]
async fn a_domain_is_asked_for_in_ascii_however_it_is_spelled() {
    let dns = Dns::new();
    dns.mx("xn--bcher-kva.test", 10, "MX.xn--bcher-kva.test.");
    dns.host("xn--tda.test", "192.0.2.8");
    let resolver = resolver(&dns);
    for spelling in ["bücher.test", "BÜCHER.test", "Xn--Bcher-Kva.test"] {
        let found = names(&resolver, spelling).await;
        assert_eq!(found, ["mx.xn--bcher-kva.test"], "{spelling}");
    }
    assert_eq!(dns.asked("xn--bcher-kva.test", RecordType::MX), 1);
    assert_eq!(names(&resolver, "ü.test").await, ["xn--tda.test"]);
    // The name of this machine, in its other spelling.
    let own = resolver.exchanges("bücher.test", "mx.bücher.test").await;
    assert_eq!(told(own.unwrap_err()).1, "5.4.6");
    let long = "x".repeat(64) + ".test";
    let expected = (Status::Failed, "5.1.2".to_owned());
    for domain in [
        "ü..test",
        "bü cher.test",
        "a b.test",
        &long,
        "xn--zz-zz.test",
    ] {
        assert_eq!(refused(&resolver, domain).await, expected, "{domain}");
    }
}

#[tokio::test]
async fn answers_are_remembered() {
    let dns = Dns::new();
    dns.mx("many.test", 10, "mx.many.test.");
    let resolver = resolver(&dns);
    for _ in 0..10 {
        names(&resolver, "many.test").await;
    }
    assert_eq!(dns.asked("many.test", RecordType::MX), 1);
}

/// Each run of a runner has a new async runtime.
#[test]
fn it_works_in_one_runtime_after_another() {
    let dns = Dns::new();
    dns.mx("many.test", 10, "mx.many.test.");
    let resolver = resolver(&dns);
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let found = runtime.unwrap().block_on(names(&resolver, "many.test"));
        assert_eq!(found, ["mx.many.test"]);
    }
}

/// Every exchange with its address, or the final error.
async fn walk(resolver: &Resolver, domain: &str) -> Vec<Result<String, (Status, String)>> {
    let found = resolver.exchanges(domain, OWN).await.unwrap();
    let mut exchanges = Exchanges::new(domain, found);
    let mut all = Vec::new();
    while let Some(next) = exchanges.next(resolver).await {
        all.push(
            next.map(|(name, address)| format!("{name} {address}"))
                .map_err(told),
        );
    }
    all
}

#[tokio::test]
async fn addresses_are_looked_up_as_far_as_they_are_wanted() {
    let dns = Dns::new();
    dns.mx("many.test", 10, "gone.many.test.");
    dns.mx("many.test", 20, "a.many.test.");
    dns.mx("many.test", 30, "b.many.test.");
    dns.host("a.many.test", "198.51.100.1");
    dns.host("b.many.test", "198.51.100.2");
    let resolver = resolver(&dns);
    let found = resolver.exchanges("many.test", OWN).await.unwrap();
    let mut exchanges = Exchanges::new("many.test", found);
    let first = exchanges.next(&resolver).await.unwrap().unwrap();
    assert_eq!(first.0, "a.many.test");
    assert_eq!(dns.asked("b.many.test", RecordType::A), 0);
    let ok = |text: &str| Ok(text.to_owned());
    let expected = [
        ok("a.many.test 198.51.100.1"),
        ok("b.many.test 198.51.100.2"),
    ];
    assert_eq!(walk(&resolver, "many.test").await, expected);
}

#[tokio::test]
async fn exchanges_that_do_not_exist_fail_unless_one_may() {
    let dns = Dns::new();
    dns.mx("none.test", 10, "gone.none.test.");
    dns.mx("none.test", 20, "txt.none.test.");
    dns.records_of_no_use("txt.none.test");
    dns.mx("perhaps.test", 10, "gone.perhaps.test.");
    dns.mx("perhaps.test", 10, "fail.perhaps.test.");
    dns.mood("fail.perhaps.test", Mood::ServFail);
    let resolver = resolver(&dns);
    let failed = Err((Status::Failed, "5.4.4".to_owned()));
    assert_eq!(walk(&resolver, "none.test").await, [failed]);
    let deferred = Err((Status::Deferred, "4.4.3".to_owned()));
    assert_eq!(walk(&resolver, "perhaps.test").await, [deferred]);
}

#[tokio::test]
async fn what_is_no_better_than_this_machine_is_left_out() {
    let dns = Dns::new();
    dns.mx("best.test", 10, "own.test.");
    dns.mx("best.test", 20, "other.test.");
    dns.mx("second.test", 10, "other.test.");
    dns.mx("second.test", 20, "own.test.");
    dns.mx("second.test", 20, "equal.test.");
    dns.mx("second.test", 30, "worse.test.");
    for own in ["127.3.2.1", "::1", "0.0.0.0"] {
        dns.host(&format!("plain{}.test", own.len()), own);
    }
    dns.host("own.test", "198.51.100.8");
    dns.host("own.test", "127.0.0.1");
    for (n, name) in ["other.test", "equal.test", "worse.test"]
        .iter()
        .enumerate()
    {
        dns.host(name, &format!("198.51.100.{n}"));
    }
    let resolver = resolver(&dns);
    let looped = Err((Status::Failed, "5.4.6".to_owned()));
    for domain in [
        "best.test",
        "plain9.test",
        "plain3.test",
        "plain7.test",
        "[127.0.0.1]",
    ] {
        assert_eq!(
            walk(&resolver, domain).await,
            std::slice::from_ref(&looped),
            "{domain}"
        );
    }
    let expected = [Ok("other.test 198.51.100.0".to_owned())];
    assert_eq!(walk(&resolver, "second.test").await, expected);
    let meant = resolver.with_local_mx(true);
    assert_eq!(walk(&meant, "second.test").await.len(), 5);
    assert_eq!(
        walk(&meant, "[127.0.0.1]").await,
        [Ok("127.0.0.1 127.0.0.1".to_owned())]
    );
}
