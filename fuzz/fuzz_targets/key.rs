//! `keys/`: any octets are a key, a record that was not written so is none, and whose key it is
//! is told.
//!
//! An input is a key, another one, and what the record of the first becomes: nothing leaves it as it
//! is, else each octet changes one of its octets.
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

/// The only record in a bucket.
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
    // It has the key now, whoever had it.
    let last = submit(&spool, &key);
    assert_eq!((last.id, last.repeated), (again.id, true));

    if let Ok(other) = SubmissionKey::new(other) {
        let theirs = submit(&spool, &other);
        assert_eq!(theirs.repeated, other == key);
        assert_eq!(theirs.id == last.id, other == key);
    }
});
