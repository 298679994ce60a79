use super::*;

#[test]
fn every_directory_has_a_known_name() {
    for dir in PLACES.iter().chain(FILES).chain(VIEW).chain(OPTIONAL) {
        let known = match dir.split_once('/') {
            None => is_root_name(dir),
            Some((INFO, name)) => is_info_name(name),
            Some((KEYS, name)) => is_key_dir(name),
            Some(_) => false,
        };
        assert!(known, "{dir}");
    }
    for name in ["boot", "down", "releases", "to", "by", "probe"] {
        assert!(is_state_name(name), "{name}");
    }
    assert!(is_state_name("attempt-7") && is_state_name("resident-0"));
    for name in [
        "",
        "state",
        "attempt",
        "attempt-x",
        "resident",
        "resident-1",
        "down/x",
    ] {
        assert!(!is_state_name(name), "{name}");
    }
    for name in ["", "info/sender", "keys/new", "sender", "lost+found"] {
        assert!(!is_root_name(name), "{name}");
    }
    assert!(is_reserve_name("07") && is_reserve_name("filling") && !is_reserve_name("7"));
    assert!(is_root_name("outbox") && is_root_name("config.toml") && is_root_name("version"));
}

#[test]
fn a_queue_is_found_by_its_directory() {
    let minute = "2026-11-22T1405Z".parse().unwrap();
    let mut all = Queue::FIXED.to_vec();
    for kept in BucketQueue::ALL {
        all.extend([kept.queue(minute), kept.queue(Bucket::Never)]);
    }
    for queue in all {
        assert_eq!(Queue::of_dir(&queue.dir()), Some(queue));
    }
    for dir in [
        "",
        "info/sender",
        "deferred",
        "deferred/x",
        "frozen/never/x",
        "active/never",
    ] {
        assert_eq!(Queue::of_dir(Path::new(dir)), None, "{dir}");
    }
}
