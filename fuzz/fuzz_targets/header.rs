//! The scan of a header in a stream, and the fields that it removes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::header::{HeaderEnd, HeaderScan, Part, fields, line_ending};
use mailspool::testing::message::line::{self, Ending};
use mailspool::testing::message::recipients::BLIND_FIELDS;

fuzz_target!(|bytes: &[u8]| {
    let whole = scan(bytes, usize::MAX);
    for piece in [1, 3, 64] {
        assert_eq!(scan(bytes, piece), whole, "in pieces of {piece}");
    }
    let Found {
        separators,
        kept,
        out,
        rest,
        end,
        ..
    } = &whole;
    match end {
        HeaderEnd::Eof => assert!(rest.is_empty()),
        HeaderEnd::EmptyLine => assert!(matches!(line::ending(rest), Ending::Whole(_))),
        HeaderEnd::Body => assert!(!matches!(line::ending(rest), Ending::Whole(_))),
    }
    // No octet is in two parts, or in none.
    assert_eq!(
        separators.len() + kept.len() + out.len() + rest.len(),
        bytes.len()
    );
    assert!(bytes.starts_with(separators) && bytes.ends_with(rest));
    // Separators are whole lines, and a field follows.
    for line in line::lines(separators) {
        let line = line.strip_prefix(b">").unwrap_or(line);
        assert!(line.starts_with(b"From ") && line.ends_with(b"\n"));
    }
    assert!(separators.is_empty() || !kept.is_empty() || !out.is_empty());

    let is_blind = |name: &[u8]| BLIND_FIELDS.iter().any(|one| is(name, one));
    assert!(fields(kept).all(|(name, _)| !is_blind(name)));
    assert!(fields(out).all(|(name, _)| is_blind(name)));
    // A header that was found reads as a header throughout if it is read again by itself.
    for part in [kept, out] {
        let again = HeaderScan::default().push(part, true);
        assert_eq!(
            (again.header, again.end),
            (part.len(), Some(HeaderEnd::Eof))
        );
        let joined: Vec<u8> = fields(part).flat_map(|(_, field)| field.to_vec()).collect();
        assert_eq!(
            &joined, part,
            "no octet of a header is outside of its fields"
        );
    }
    let header = &bytes[separators.len()..bytes.len() - rest.len()];
    let received = fields(header).filter(|(name, _)| is(name, "Received"));
    assert_eq!(received.count(), whole.hops);
    // A scan of the stored header finds the same fields.
    let stored = HeaderScan::default().push(&bytes[separators.len()..], true);
    assert_eq!(stored.header, header.len());
    assert_eq!(stored.end, Some(*end));

    assert!(["\n", "\r\n"].contains(&line_ending(bytes)));
});

fn is(name: &[u8], field: &str) -> bool {
    name.eq_ignore_ascii_case(field.as_bytes())
}

#[derive(Debug, PartialEq)]
struct Found {
    separators: Vec<u8>,
    kept: Vec<u8>,
    out: Vec<u8>,
    rest: Vec<u8>,
    end: HeaderEnd,
    hops: usize,
    /// Whether the header has `Date`, `From` and `Message-ID`.
    seen: [bool; 3],
}

fn scan(bytes: &[u8], piece: usize) -> Found {
    let mut scan = HeaderScan::of_input(&BLIND_FIELDS);
    let [mut separators, mut kept, mut out] = [const { Vec::new() }; 3];
    let (mut done, mut have) = (0_usize, 0_usize);
    loop {
        let (into, length) = match scan.next(&bytes[done..have], have == bytes.len()) {
            Part::Separators(length) => (&mut separators, length),
            Part::Fields(length) => (&mut kept, length),
            Part::TakenOut(length) => (&mut out, length),
            Part::Undecided => {
                assert!(
                    have < bytes.len(),
                    "the end of the input is the end of the header"
                );
                // The octets held back are bounded, so that no stream is held back for ever.
                let held = have - done;
                assert!(
                    held <= HeaderScan::MAX_HELD + piece.min(bytes.len()),
                    "{held} octets"
                );
                have = bytes.len().min(have.saturating_add(piece));
                continue;
            }
            Part::End(end) => {
                return Found {
                    separators,
                    kept,
                    out,
                    rest: bytes[done..].to_vec(),
                    end,
                    hops: scan.hops,
                    seen: [scan.date, scan.from, scan.message_id],
                };
            }
        };
        assert!(length > 0);
        into.extend_from_slice(&bytes[done..done + length]);
        done += length;
    }
}
