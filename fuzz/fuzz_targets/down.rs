//! `state/down/`: the record of a destination delays mail for at most an hour, and is about the destination
//! that has its name.
//!
//! An input is a transport, a destination, and the content of the file about them.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use mailspool::testing::spool::{Down, Destination};

fuzz_target!(|input: &[u8]| {
    let [transport, next_hop, bytes] = help::parts(input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let destination = Destination {
        transport: text(transport),
        next_hop: text(next_hop),
    };
    let (_dir, spool) = help::spool();
    let reply: String = text(bytes).chars().take(200).collect();
    let mut before = None;
    for tries in 1..=3 {
        let down = Down::again(before, &destination, &reply, help::now());
        assert_eq!(down.tries, tries);
        assert!(down.is_left_alone(help::now()));
        spool.remember_down(&down).unwrap();
        assert_eq!(spool.down(&destination), Some(down.clone()));
        assert_eq!(spool.all_down().unwrap(), [down.clone()]);
        before = Some(down);
    }

    let dir = spool.path().join("state/down");
    let file = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, bytes).unwrap();
    match spool.recall_down(&destination) {
        Ok(Some(down)) => {
            assert_eq!(down.destination.to_string(), destination.to_string());
            let longest = help::now() + Down::LONGEST;
            let is_bounded = down.probe <= longest || !down.is_left_alone(help::now());
            assert!(is_bounded, "{down:?}");
            // The destination is down once more, and the record is rewritten.
            let again = Down::again(Some(down), &destination, &reply, help::now());
            spool.remember_down(&again).unwrap();
            assert_eq!(spool.down(&destination), Some(again));
        }
        Ok(None) => panic!("{} is there", file.display()),
        Err(_) => assert_eq!(spool.down(&destination), None),
    }
    assert!(spool.forget_down(&destination).unwrap());
    assert_eq!(spool.all_down().unwrap(), []);
});
