use super::*;
use jiff::SignedDuration;

fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::create(&dir.path().join("spool")).unwrap();
    (dir, spool)
}

fn now() -> Timestamp {
    "2026-11-22T14:05:00Z".parse().unwrap()
}

fn suspension(target: Target, hours: Option<i64>) -> Suspension {
    Suspension {
        target,
        since: now(),
        until: hours.map(|hours| now() + SignedDuration::from_hours(hours)),
        by: By {
            by: "root".into(),
            reason: Some("they asked for it".into()),
        },
    }
}

fn ended(spool: &Spool, at: Timestamp) -> Vec<Suspension> {
    let (ended, failed) = spool.end_suspensions(at).unwrap();
    assert!(failed.is_empty());
    ended
}

fn found(spool: &Spool, to: &str) -> Option<Standing> {
    let names = spool.suspended().unwrap();
    let way = (Some("Relay"), Some("mx.example.net:587"));
    spool.suspension(&names, way, &Address::parse(to).unwrap(), now())
}

#[test]
fn each_target_suspends_only_its_mail() {
    let targets = [
        (Target::destination("bücher.TEST"), 1),
        (Target::destination("bücher.test."), 1),
        (Target::destination("MX.example.net.:587"), 3),
        (Target::destination("MX.example.net:587"), 3),
        (Target::destination("Relay:mx.example.net:587"), 3),
        (Target::destination("mx.example.net"), 3),
        (Target::destination("Relay:mx.example.net"), 3),
        (Target::destination("Other:mx.example.net"), 0),
        (Target::Transport("Relay".into()), 3),
        (Target::All, 3),
        (Target::destination("all"), 0),
        (Target::destination("all="), 0),
        (Target::destination("*"), 0),
        (Target::destination("test"), 0),
        (Target::destination("relay"), 0),
        (Target::Transport("relay".into()), 0),
        (Target::destination("unix:/run/x"), 0),
        (Target::destination("example.net"), 0),
        (Target::destination(&"x.".repeat(200)), 0),
        (Target::destination(".."), 0),
    ];
    for (target, count) in targets {
        let (_dir, spool) = spool();
        assert!(spool.suspended().unwrap().is_empty());
        let suspended = suspension(target.clone(), None);
        assert_eq!(spool.suspend(&suspended).unwrap(), Changed::Done);
        let all = ["a@xn--bcher-kva.test", "b@other.test", "root"];
        let held = all.iter().filter(|to| found(&spool, to).is_some());
        assert_eq!(held.count(), count, "{target}");
        let all = spool.suspensions().unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].says.as_ref(), Some(&suspended));
        assert_eq!(spool.resume(&target.file_name()).unwrap(), Changed::Done);
        assert_eq!(spool.resume(&target.file_name()).unwrap(), Changed::Absent);
        assert_eq!(spool.suspensions().unwrap(), []);
    }
}

/// Regression: `[IPv6:0::1]` was split at its colons, so its suspension had no effect.
#[test]
fn an_address_is_one_destination_in_each_of_its_spellings() {
    let literals = ["a@[IPv6:::1]", "a@[ipv6:0:0::1]", "a@[::1]"];
    for name in [
        "[IPv6:::1]",
        "[IPV6:0::1]",
        "[::1]",
        "[0::0:1]",
        "::1",
        "0::1",
        "relay:[IPv6:0::1]",
    ] {
        let target = Target::destination(name);
        for to in literals {
            let to = Address::parse(to).unwrap();
            let by_exchanges = target.is_on_way(Some("relay"), Some("[ipv6:::1]"), &to);
            assert!(by_exchanges, "{name} {to}");
            let other = Address::parse("a@[IPv6:::2]").unwrap();
            assert!(!target.is_on_way(Some("relay"), Some("[ipv6:::2]"), &other));
        }
    }
    let to = Address::parse("a@b.test").unwrap();
    for name in ["[0::1]:25", "relay:[0::1]:25", "[::1]", "0::1"] {
        let target = Target::destination(name);
        assert!(
            target.is_on_way(Some("relay"), Some("[::1]:25"), &to),
            "{name}"
        );
    }
    for name in ["[IPv6:::1]", "[IPv6:::1]:25", "[::1]:26", "[::1", "::1]:25"] {
        let target = Target::destination(name);
        assert!(
            !target.is_on_way(Some("relay"), Some("[::1]:25"), &to),
            "{name}"
        );
    }
    let to = Address::parse("a@[192.0.2.1]").unwrap();
    let target = Target::destination("[192.0.2.1]");
    assert!(target.is_on_way(None, None, &to));
}

#[test]
fn the_directory_is_optional() {
    let (_dir, spool) = spool();
    assert!(!spool.path().join(SUSPENDED).exists());
    assert_eq!(spool.resume("a.test").unwrap(), Changed::Absent);
    assert_eq!(ended(&spool, now()), []);
    assert!(!spool.path().join(SUSPENDED).exists());
}

#[test]
fn the_last_to_end_applies_and_expired_ones_are_removed() {
    let (_dir, spool) = spool();
    let domain = Target::destination("b.test");
    let transport = Target::Transport("Relay".into());
    for (target, hours) in [(&domain, 1), (&transport, 2)] {
        let suspension = suspension(target.clone(), Some(hours));
        assert_eq!(spool.suspend(&suspension).unwrap(), Changed::Done);
    }
    assert_eq!(found(&spool, "a@b.test").unwrap().target, transport);
    let later = now() + SignedDuration::from_hours(1);
    assert_eq!(ended(&spool, later), [suspension(domain.clone(), Some(1))]);
    // Suspended again, it has not expired.
    let anew = suspension(transport.clone(), None);
    assert_eq!(spool.suspend(&anew).unwrap(), Changed::Done);
    assert_eq!(ended(&spool, Timestamp::MAX), []);
    assert_eq!(found(&spool, "a@b.test").unwrap().says, Some(anew));
}

#[test]
fn a_damaged_file_suspends_until_it_is_resumed() {
    let (_dir, spool) = spool();
    let dir = spool.path().join(SUSPENDED);
    let other = suspension(Target::destination("x.test"), None);
    let other = serde_json::to_vec(&other).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let write = |bytes: Vec<u8>| move |path: &Path| std::fs::write(path, &bytes).unwrap();
    let damages: [Damage<'_>; 5] = [
        &write(Vec::new()),
        &write(b"{\"destination\":\"b.test\"".to_vec()),
        &write(vec![0; 300]),
        &write(other),
        &|path| std::os::unix::fs::symlink("/dev/null", path).unwrap(),
    ];
    std::fs::create_dir(&dir).unwrap();
    for damage in damages {
        damage(&dir.join("b.test"));
        let standing = found(&spool, "a@b.test").unwrap();
        assert_eq!(standing.says, None);
        assert_eq!(standing.target, Target::destination("b.test"));
        assert_eq!(found(&spool, "a@other.test"), None);
        assert_eq!(ended(&spool, Timestamp::MAX), []);
        let anew = suspension(Target::destination("b.test"), None);
        assert_eq!(spool.suspend(&anew).unwrap(), Changed::Done);
        assert_eq!(found(&spool, "a@b.test").unwrap().says, Some(anew));
        std::fs::remove_file(dir.join("b.test")).unwrap();
        damage(&dir.join("b.test"));
        assert_eq!(spool.resume("b.test").unwrap(), Changed::Done);
        assert_eq!(found(&spool, "a@b.test"), None);
    }
    for text in ["", "{}", "{\"destination\":\"b.test\"}"] {
        std::fs::write(dir.join("all="), text).unwrap();
        let standing = found(&spool, "a@other.test").unwrap();
        assert_eq!((standing.says, standing.target), (None, Target::All));
        assert_eq!(spool.resume("all=").unwrap(), Changed::Done);
    }
    std::fs::write(dir.join("transport=Relay"), "").unwrap();
    let standing = found(&spool, "a@b.test").unwrap();
    assert_eq!(standing.target, Target::Transport("Relay".into()));
}

#[test]
fn a_locked_suspension_is_busy() {
    let (_dir, spool) = spool();
    let held = suspension(Target::destination("b.test"), None);
    assert_eq!(spool.suspend(&held).unwrap(), Changed::Done);
    let Held::Ours(Some(lock)) = spool.hold(Path::new("suspended/b.test")).unwrap() else {
        panic!()
    };
    assert_eq!(spool.suspend(&held).unwrap(), Changed::Busy);
    assert_eq!(spool.resume("b.test").unwrap(), Changed::Busy);
    drop(lock);
    assert_eq!(spool.resume("b.test").unwrap(), Changed::Done);
}
