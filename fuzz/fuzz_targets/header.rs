//! The scan of a header that streams by, and what is cut out of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::message::header::{
    HeaderEnd, HeaderScan, fields, line_ending, mbox_separator, without_field,
};

fuzz_target!(|bytes: &[u8]| {
    let whole = scan(bytes, usize::MAX);
    for piece in [1, 3, 64] {
        assert_eq!(scan(bytes, piece), whole, "in pieces of {piece}");
    }
    let (at, end, hops, _, _) = whole;
    let header = &bytes[..at];
    match end {
        HeaderEnd::Eof => assert_eq!(at, bytes.len()),
        HeaderEnd::EmptyLine => assert!(matches!(bytes[at..], [b'\n', ..] | [b'\r', b'\n', ..])),
        HeaderEnd::Body => {}
    }
    // A header that was found is one: read again by itself, it is header throughout.
    let again = scan(header, usize::MAX);
    assert_eq!((again.0, again.1, again.2), (at, HeaderEnd::Eof, hops));

    let joined: Vec<u8> = fields(header)
        .flat_map(|(_, field)| field.to_vec())
        .collect();
    assert_eq!(
        joined, header,
        "no byte of a header is outside of its fields"
    );
    let received = |name: &[u8]| name.eq_ignore_ascii_case(b"Received");
    assert_eq!(
        fields(header).filter(|(name, _)| received(name)).count(),
        hops
    );

    let without = without_field(header, "Bcc");
    assert_eq!(without_field(&without, "Bcc"), without);
    assert!(fields(&without).all(|(name, _)| !name.eq_ignore_ascii_case(b"Bcc")));
    assert_eq!(without_field(&without_field(header, "Received"), "Bcc"), {
        without_field(&without_field(header, "Bcc"), "Received")
    });

    let separator = mbox_separator(bytes);
    assert!(separator == 0 || bytes[separator - 1] == b'\n');
    assert!(["\n", "\r\n"].contains(&line_ending(bytes)));
});

/// Where the header ends and how, its hops, and whether it has a date and an id.
fn scan(bytes: &[u8], piece: usize) -> (usize, HeaderEnd, usize, bool, bool) {
    let mut scan = HeaderScan::default();
    let (mut done, mut have) = (0_usize, 0_usize);
    loop {
        have = bytes.len().min(have.saturating_add(piece));
        let found = scan.push(&bytes[done..have], have == bytes.len());
        done += found.header;
        assert!(done <= have);
        if let Some(end) = found.end {
            return (done, end, scan.hops, scan.date, scan.message_id);
        }
        assert!(
            have < bytes.len(),
            "the end of the input is the end of the header"
        );
        // What is held back is bounded, or a stream could be held back for ever.
        assert!(
            have - done <= 1100 + piece,
            "{} octets are held",
            have - done
        );
    }
}
