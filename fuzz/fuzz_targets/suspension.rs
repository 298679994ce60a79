//! `suspended/`: a file suspends by its name, whatever its content; and every name that can be suspended.
//!
//! An input is the name of a destination or, after a `=`, of a transport, or `==` for all mail, and the
//! content of a file of that name.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::Address;
use mailspool::testing::queue::By;
use mailspool::testing::spool::{Changed, Standing, Suspension, Target};

fuzz_target!(|input: &[u8]| {
    let [name, bytes] = help::parts(input);
    let name = &*String::from_utf8_lossy(name);
    let target = match name.strip_prefix('=') {
        Some("=") => Target::All,
        Some(transport) => Target::Transport(transport.to_owned()),
        None => Target::destination(name),
    };
    let file = target.file_name();
    if name.is_empty() {
        return; // no name; the commands take none
    }
    assert!((1..=255).contains(&file.len()), "{file}");
    assert!(!file.contains(['/', '\0']) && !file.starts_with('.'));
    let (_dir, spool) = help::spool();
    let one = || -> Standing {
        let mut all = spool.suspensions().unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    };
    // The mail that it suspends. Not every name is possible in an address.
    let to = Address::stored(&format!("a@{name}"));
    let to = to.unwrap_or_else(|_| Address::parse("a@elsewhere.test").unwrap());
    let way = match &target {
        Target::Transport(name) => (Some(name.as_str()), None),
        Target::Destination(name) => (Some("relay"), Some(name.as_str())),
        Target::All => (None, None),
    };
    let holds = || {
        let names = spool.suspended().unwrap();
        spool.suspension(&names, way, &to, help::now())
    };

    let suspension = Suspension {
        target: target.clone(),
        since: help::now(),
        until: None,
        by: By {
            by: String::from_utf8_lossy(bytes).chars().take(100).collect(),
            reason: None,
        },
    };
    assert_eq!(spool.suspend(&suspension).unwrap(), Changed::Done);
    assert_eq!(one().says.as_ref(), Some(&suspension));
    assert_eq!(holds().and_then(|one| one.says), Some(suspension));

    // Any other content suspends as well, until `resume`, or until a whole suspension of this name is over.
    fs::write(spool.path().join("suspended").join(&file), bytes).unwrap();
    let there = one();
    assert_eq!(there.file, file);
    if let Some(says) = &there.says {
        let written = serde_json::to_vec(says).unwrap();
        let again: Suspension =
            serde_json::from_slice(&written).expect("what we write we can read");
        assert_eq!(again, *says);
        assert_eq!(says.target.file_name(), file);
    }
    assert_eq!(holds().is_some(), !there.is_over(help::now()));
    let (ended, failed) = spool.end_suspensions(help::now()).unwrap();
    assert!(failed.is_empty());
    assert_eq!(ended.len(), usize::from(there.is_over(help::now())));
    if ended.is_empty() {
        assert_eq!(spool.resume(&file).unwrap(), Changed::Done);
    }
    assert!(spool.suspended().unwrap().is_empty());
    assert_eq!(spool.resume(&file).unwrap(), Changed::Absent);
});
