//! Addresses from command lines and files, and addresses stored in a spool.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::address::without_repeats;
use mailspool::testing::message::domain;
use mailspool::testing::message::{Address, Block, ReversePath, block, harmless, list};

fuzz_target!(|input: &[u8]| {
    let [bytes, other] = help::parts(input);
    stored(bytes);
    if let Ok(path) = ReversePath::parse(bytes) {
        let mut envelope = help::envelope("", &["b@x.test"]);
        envelope.sender = path;
        assert_eq!(help::block(&envelope).envelope, envelope);
    }
    let Ok(address) = Address::from_bytes(bytes) else {
        return;
    };
    let text = address.as_str();
    assert_eq!(Address::parse(text).as_ref(), Ok(&address), "it reads back");
    let bracketed = format!("<@relay.test,@[IPv6:::1]:{text}>");
    if bracketed.len() <= Address::MAX_LEN {
        assert_eq!(Address::parse(&bracketed).as_ref(), Ok(&address));
    }
    assert_eq!(harmless(text), text, "it needs no cleaning");
    // The address is a part of the input: characters are only removed around it.
    let given = std::str::from_utf8(bytes).unwrap();
    assert!(given.contains(text), "{given:?} {text:?}");
    // It is a list of one address, and an element of a longer list.
    let listed = list::parse_line(text.as_bytes());
    assert_eq!(listed.as_deref(), Ok(std::slice::from_ref(&address)));
    let around = format!("a@x.test, Name <{text}>,\r\n b@x.test");
    assert_eq!(list::parse(around.as_bytes()).unwrap()[1], address);

    match address.domain() {
        Some(domain) => {
            assert_eq!(text, format!("{}@{domain}", address.local_part()));
            assert_eq!(domain::check(domain), Ok(()));
            assert_eq!(domain::without_final_dot(domain), domain);
            let dotted = format!("{}@{domain}.", address.local_part());
            if !domain.ends_with(']') && dotted.len() <= Address::MAX_LEN {
                assert_eq!(Address::parse(&dotted).as_ref(), Ok(&address));
            }
        }
        None => assert_eq!(text, address.local_part()),
    }
    if let Ok(qualified) = address.clone().qualified("mail.test") {
        assert!(qualified.domain().is_some());
        assert_eq!(Address::parse(qualified.as_str()).as_ref(), Ok(&qualified));
        assert_eq!(qualified.clone().qualified("mail.test"), Ok(qualified));
    }
    // The address sent without SMTPUTF8 is ASCII, names the same mailbox, and has no other characters.
    match address.on_wire() {
        // A-labels are longer than their U-labels.
        Ok(wire) if wire.len() > Address::MAX_LEN => {}
        Ok(wire) => {
            let ours = Address::parse(&wire).unwrap();
            assert!(ours.same_mailbox(&address));
            assert_eq!(ours.local_part(), address.local_part());
            assert_eq!(wire.is_ascii(), address.local_part().is_ascii());
            let ascii = domain::to_ascii(ours.domain().unwrap_or("")).unwrap();
            assert!(ascii.is_ascii() && domain::to_ascii(&ascii).as_ref() == Ok(&ascii));
            let new = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
            assert!(*wire == *text || !ascii.contains(new), "{wire:?}");
        }
        Err(error) => panic!("{address}: {error}"),
    }
    if let Ok(other) = Address::from_bytes(other) {
        let same = address.same_mailbox(&other);
        assert_eq!(same, other.same_mailbox(&address));
        let kept = without_repeats(vec![address.clone(), other.clone(), address.clone()]);
        assert_eq!(kept.len(), if same { 1 } else { 2 });
        assert_eq!(kept[0], address);
    }
});

/// Asserts that any address a spool may hold reads back unchanged, and that no method panics.
fn stored(bytes: &[u8]) {
    let Ok(address) = std::str::from_utf8(bytes)
        .map_err(|_| ())
        .and_then(|text| Address::stored(text).map_err(|_| ()))
    else {
        return;
    };
    let text = address.as_str();
    assert_eq!(text.as_bytes(), bytes);
    assert!(!text.is_empty() && text.len() <= Address::MAX_LEN);
    assert!(!text.chars().any(char::is_control));
    // In an envelope block, no address reads as another address or as a DSN parameter.
    let mut envelope = help::envelope("a@x.test", &["b@x.test", "c@x.test"]);
    envelope.recipients[0] = address.clone();
    let mut bytes = block::open(help::id(), &envelope);
    block::close(&mut bytes, 0, 0);
    let read = Block::parse(&bytes).map(|block| block.envelope);
    assert_eq!(read, Ok(envelope));
    let json = serde_json::to_string(&address).unwrap();
    assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    assert!(address.same_mailbox(&address));
    let _ = address.on_wire();
}
