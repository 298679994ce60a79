use super::*;

fn destination(next_hop: &str) -> Destination {
    Destination {
        transport: "out".into(),
        next_hop: next_hop.into(),
    }
}

fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::create(&dir.path().join("spool")).unwrap();
    (dir, spool)
}

#[test]
fn what_is_down_is_remembered_until_it_is_forgotten() {
    let (_dir, spool) = spool();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let destinations = [
        "a.test",
        "..",
        "[2001:db8::1]:25",
        "unix:/run/x",
        &"x".repeat(400),
    ];
    for destination in destinations.map(destination) {
        assert_eq!(spool.down(&destination), None);
        let down = Down::again(None, &destination, "no answer", now);
        spool.remember_down(&down).unwrap();
        assert_eq!(spool.down(&destination), Some(down));
    }
    assert_eq!(spool.all_down().unwrap().len(), destinations.len());
    for destination in destinations.map(destination) {
        assert!(spool.forget_down(&destination).unwrap());
        assert!(!spool.forget_down(&destination).unwrap());
    }
    assert_eq!(spool.all_down().unwrap(), []);
}

#[test]
fn waits_grow_up_to_the_longest() {
    let mut now = Timestamp::from_second(1_800_000_000).unwrap();
    let (destination, mut down, mut waits) = (destination("a.test"), None, Vec::new());
    for _ in 0..6 {
        let next = Down::again(down.take(), &destination, "no answer", now);
        assert!(next.is_left_alone(now) && !next.is_left_alone(next.probe));
        waits.push(next.probe.duration_since(now).as_mins());
        now = next.probe;
        down = Some(next);
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    // A clock that was a year ahead.
    let wrong = now - SignedDuration::from_hours(24 * 365);
    assert!(!down.unwrap().is_left_alone(wrong));
}

#[test]
fn an_unreadable_record_is_ignored() {
    let (_dir, spool) = spool();
    let destination = destination("a.test");
    let path = spool.path().join(DOWN).join(destination.file_name());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    for text in ["", "{", "{\"probe\": 7}", "\0\0\0"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(spool.down(&destination), None);
        let recalled = spool.recall_down(&destination);
        assert!(
            matches!(recalled, Err(Forgotten::Damaged(_))),
            "{recalled:?}"
        );
    }
    assert_eq!(spool.all_down().unwrap(), []);
    // The next record replaces it.
    let down = Down::again(None, &destination, "no answer", Timestamp::UNIX_EPOCH);
    spool.remember_down(&down).unwrap();
    assert_eq!(spool.recall_down(&destination).unwrap(), Some(down));
}

#[test]
fn a_destination_is_down_while_all_its_hosts_are() {
    let (_dir, spool) = spool();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let a = destination("a.test");
    let hosts = ["[192.0.2.1]:25", "[192.0.2.2]:25"];
    for key in hosts {
        let down = Down::again(None, &a.host(key), "no answer", now);
        spool.remember_down(&down).unwrap();
    }
    let mut down = Down::again(None, &a, "no answer", now);
    down.hosts = hosts.map(str::to_owned).into();
    spool.remember_down(&down).unwrap();
    let left_alone = || {
        let down = spool.recall_down_now(&a, now).unwrap();
        down.is_some_and(|down| down.is_left_alone(now))
    };
    assert!(left_alone());
    spool.forget_down(&a.host(hosts[1])).unwrap();
    assert!(!left_alone());
    assert_eq!(spool.recall_down(&a).unwrap(), Some(down));
}

#[test]
fn a_record_about_another_destination_is_damaged() {
    let (_dir, spool) = spool();
    let down = Down::again(
        None,
        &destination("a.test"),
        "no answer",
        Timestamp::UNIX_EPOCH,
    );
    spool.remember_down(&down).unwrap();
    let dir = spool.path().join(DOWN);
    let name = |destination: &Destination| dir.join(destination.file_name());
    std::fs::rename(name(&down.destination), name(&destination("b.test"))).unwrap();
    let recalled = spool.recall_down(&destination("b.test"));
    assert!(
        matches!(recalled, Err(Forgotten::Damaged(_))),
        "{recalled:?}"
    );
    assert_eq!(spool.all_down().unwrap(), []);
}

#[test]
fn connections_are_counted_across_all_processes() {
    let (_dir, spool) = spool();
    let other = Spool::open(spool.path()).unwrap();
    let destination = destination("a.test");
    let first = spool.take_connection(&destination, 2).unwrap().unwrap();
    let second = other.take_connection(&destination, 2).unwrap();
    assert!(second.is_some());
    assert!(spool.take_connection(&destination, 2).unwrap().is_none());
    drop(first);
    assert!(other.take_connection(&destination, 2).unwrap().is_some());
    let probe = spool.take_probe(&destination).unwrap();
    assert!(probe.is_some() && other.take_probe(&destination).unwrap().is_none());
}
