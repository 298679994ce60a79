//! Addresses as command lines and files give them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::message::address::without_repeats;
use mailspool::message::domain::to_ascii;
use mailspool::message::envelope::{parse_recipients, parse_sender};
use mailspool::message::{Address, ReversePath};

fuzz_target!(|input: &[u8]| {
    let [bytes, other] = help::parts(input);
    if let Ok(path) = ReversePath::parse(bytes) {
        let line = format!("{}\n", path.as_str());
        assert_eq!(parse_sender(line.as_bytes()), Ok(path));
    }
    let Ok(address) = Address::from_bytes(bytes) else {
        return;
    };
    let text = address.as_str();
    assert!(!text.is_empty() && text.len() <= Address::MAX_LEN);
    assert!(!text.chars().any(char::is_control));
    assert_eq!(Address::parse(text).as_ref(), Ok(&address), "it reads back");
    let line = format!("{text}\n");
    assert_eq!(parse_recipients(line.as_bytes()), Ok(vec![address.clone()]));
    match address.domain() {
        Some(domain) => assert_eq!(text, format!("{}@{domain}", address.local_part())),
        None => assert!(!text.contains('@') || text.ends_with('@')),
    }
    if let Ok(qualified) = address.clone().qualified("mail.test") {
        assert!(qualified.as_str().contains('@'));
        assert_eq!(Address::parse(qualified.as_str()).as_ref(), Ok(&qualified));
        assert_eq!(qualified.clone().qualified("mail.test"), Ok(qualified));
    }
    // What goes out without SMTPUTF8 is ASCII, names the same mailbox, and is no more than that.
    match address.on_wire() {
        // A-labels are longer than what they stand for.
        Ok(wire) if wire.len() > Address::MAX_LEN => {}
        Ok(wire) => {
            let ours = Address::parse(&wire).unwrap();
            assert!(ours.same_mailbox(&address));
            assert_eq!(ours.local_part(), address.local_part());
            assert_eq!(wire.is_ascii(), address.local_part().is_ascii());
            let ascii = to_ascii(ours.domain().unwrap_or("")).unwrap();
            assert!(ascii.is_ascii() && to_ascii(&ascii).as_ref() == Ok(&ascii));
            let new = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
            assert!(*wire == *text || !ascii.contains(new), "{wire:?}");
        }
        Err(_) => assert!(!address.domain().unwrap().is_ascii()),
    }
    let json = serde_json::to_string(&address).unwrap();
    assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    if let Ok(other) = Address::from_bytes(other) {
        let same = address.same_mailbox(&other);
        assert_eq!(same, other.same_mailbox(&address));
        let kept = without_repeats(vec![address.clone(), other.clone(), address.clone()]);
        assert_eq!(kept.len(), if same { 1 } else { 2 });
        assert_eq!(kept[0], address);
    }
});
