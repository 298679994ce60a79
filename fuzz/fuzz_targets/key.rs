//! `keys/`: any octets are a key, a record with changed octets does not count, and a repeated submission gets
//! the id of the message that has the key.
//!
//! An input is a key, another key, and the changes to the record of the first: each octet changes one octet of
//! the record, and an empty part leaves it unchanged.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use mailspool::testing::accept::{Accepted, Acceptor, Request};
use mailspool::testing::message::SubmissionKey;
use mailspool::testing::spool::Spool;

fn submit(spool: &Spool, key: &SubmissionKey) -> Accepted {
    let request = Request {
        key: Some(key.clone()),
        ..help::request()
    };
    let acceptor = Acceptor::new(spool.clone(), help::limits());
    acceptor.submit(request, &b"Subject: x\n\n"[..]).unwrap()
}

/// Returns the path of the only record in a bucket.
fn record(spool: &Path) -> PathBuf {
    let buckets = fs::read_dir(spool.join("keys")).unwrap().flatten();
    let others = ["new", "lock"].map(Into::<std::ffi::OsString>::into);
    let mut buckets = buckets.filter(|bucket| !others.contains(&bucket.file_name()));
    let bucket = buckets.next().unwrap().path();
    fs::read_dir(bucket)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
}

fuzz_target!(|input: &[u8]| {
    let [one, other, changes] = help::parts(input);
    let Ok(key) = SubmissionKey::new(one) else {
        return assert!(one.is_empty() || one.len() > SubmissionKey::MAX_LEN);
    };
    assert_eq!(
        SubmissionKey::from_xtext(&key.to_string()),
        Some(key.clone())
    );
    let (_dir, spool) = help::spool();
    let first = submit(&spool, &key);
    assert!(!first.repeated);

    let path = record(spool.path());
    let written = fs::read(&path).unwrap();
    let mut bytes = written.clone();
    for (n, change) in changes.iter().enumerate() {
        let at = (usize::from(*change) * 31 + n * 7) % bytes.len();
        bytes[at] ^= change;
    }
    fs::write(&path, &bytes).unwrap();
    let again = submit(&spool, &key);
    assert_eq!(again.repeated, bytes == written);
    assert_eq!(again.id == first.id, again.repeated);
    // The last accepted message has the key, whether the record was damaged or not.
    let last = submit(&spool, &key);
    assert_eq!((last.id, last.repeated), (again.id, true));

    if let Ok(other) = SubmissionKey::new(other) {
        let theirs = submit(&spool, &other);
        assert_eq!(theirs.repeated, other == key);
        assert_eq!(theirs.id == last.id, other == key);
    }
});
