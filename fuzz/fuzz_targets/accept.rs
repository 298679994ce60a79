//! A whole message through the library: accepted by either entrance, read back under the lock, and
//! removed. Only known fields are added or removed; no other octet changes.
#![no_main]

use std::io::Read;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mailspool::testing::accept::{Acceptor, Error, Limits, Request};
use mailspool::testing::message::header::{HeaderScan, Part, line_ending};
use mailspool::testing::message::recipients::BLIND_FIELDS;
use mailspool::testing::message::{Entrance, ReversePath};
use mailspool::testing::spool::{Claim, Located, Spool};

/// Returns the spool, which is made once and kept; every message is removed from it again.
fn spool() -> &'static Spool {
    static SPOOL: OnceLock<(tempfile::TempDir, Spool)> = OnceLock::new();
    &SPOOL.get_or_init(help::spool).1
}

fuzz_target!(|input: &[u8]| {
    let [how, bytes] = help::parts(input);
    let entrance = match how.first() {
        Some(b'i') => Entrance::Incoming,
        _ => Entrance::Active,
    };
    let piece = how.get(1).copied().unwrap_or(u8::MAX);
    let request = Request {
        entrance,
        sender: ReversePath::parse(b"a@example.org").unwrap(),
        ..help::request()
    };
    let limits = Limits {
        max_size: 3000,
        hop_limit: 3,
        ..help::limits()
    };
    let reader = Pieces(bytes, usize::from(piece) + 1);
    let taken = Acceptor::new(spool().clone(), limits).accept(request, reader);
    let id = match taken {
        Ok(id) => id,
        Err(Error::Empty) => return assert!(without_block(bytes).is_empty()),
        Err(Error::TooLarge { .. }) => return assert!(bytes.len() > 3000),
        Err(Error::TooManyHops { .. }) => {
            let mut scan = HeaderScan::of_input(&[]);
            scan.push(without_block(bytes), true);
            return assert!(scan.hops > 3);
        }
        Err(other) => panic!("{other}"),
    };
    assert!(bytes.len() <= 3000);
    let queue = spool().locate(id).unwrap().queue().unwrap();
    let Claim::Locked(locked) = spool().lock(queue, id).unwrap() else {
        panic!("{id} cannot be locked");
    };
    let mut entry = locked.read().expect("what was accepted is whole");
    let mut stored = Vec::new();
    entry.body().reader().read_to_end(&mut stored).unwrap();
    assert_added(&stored, without_block(bytes), entrance);
    let has_history = entry.finish().unwrap();
    assert!(!has_history, "nothing happened to it");
    drop(entry);
    let failed = spool().forget(&[(id, has_history)]).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(matches!(spool().locate(id).unwrap(), Located::Absent));
});

/// Returns the input without the envelope block of a message file that is submitted again.
fn without_block(input: &[u8]) -> &[u8] {
    let mut rest = input;
    let mut prefix = &b"Mailspool-Seal: "[..];
    while rest.starts_with(prefix) {
        let end = rest.iter().position(|byte| *byte == b'\n');
        rest = end.map_or(&[], |at| &rest[at + 1..]);
        prefix = b"Mailspool-";
    }
    rest
}

/// Asserts that the message is the input below `Received:`. From `send` it has `Date:`, `Message-ID:` and
/// `From:` even if they were missing, and no blind fields. An empty line ends the header.
fn assert_added(stored: &[u8], input: &[u8], entrance: Entrance) {
    let blind: &[&str] = if entrance == Entrance::Active {
        &BLIND_FIELDS
    } else {
        &[]
    };
    let mut before = HeaderScan::of_input(blind);
    let separators = before.separators(input, true).unwrap();
    let input = &input[separators..];
    let (mut header, mut at) = (Vec::new(), 0);
    loop {
        match before.next(&input[at..], true) {
            Part::Fields(length) => {
                header.extend_from_slice(&input[at..at + length]);
                at += length;
            }
            Part::TakenOut(length) => at += length,
            Part::End(_) => break,
            Part::Separators(_) | Part::Undecided => unreachable!("the input was complete"),
        }
    }
    let body = &input[at..];

    let first = b"Received: by mail.test (mailspool, from user fuzzer) with ";
    assert!(stored.starts_with(first));
    let mut after = HeaderScan::default();
    let end = after.push(stored, true);
    assert_eq!(after.hops, before.hops + 1);
    if entrance == Entrance::Active {
        assert!(after.date && after.message_id && after.from);
    }
    let after_header = &stored[end.header..];
    let eol = line_ending(input).as_bytes();
    // A body always has an empty line before it, and is unchanged.
    assert!(after_header.ends_with(body));
    let between = &after_header[..after_header.len() - body.len()];
    assert!(between.is_empty() || between == eol, "{between:?}");
    let at = stored[..end.header]
        .windows(header.len().max(1))
        .position(|part| part == header);
    assert!(header.is_empty() || at.is_some(), "the header is unchanged");
}

/// Reads a few octets at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(bytes.len());
        self.0.read(&mut bytes[..most])
    }
}
