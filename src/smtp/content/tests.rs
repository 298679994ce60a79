//! What servers make of a message, those included that see lines where there are none.

use super::*;
use proptest::prelude::*;

fn encode(framing: Framing, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(framing), Vec::new());
    for piece in pieces {
        encoder.push(piece, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn shape(pieces: &[&[u8]]) -> Shape {
    let mut measure = Measure::default();
    pieces.iter().for_each(|piece| measure.push(piece));
    measure.finish()
}

/// What the encoder promises to deliver, said in the plainest way.
fn normalised(bytes: &[u8], framing: Framing) -> Vec<u8> {
    let text: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| framing == Framing::Counted || *byte != 0)
        .collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at..] {
            [b'\r', b'\n', ..] => {
                out.extend(b"\r\n");
                at += 1;
            }
            [b'\r' | b'\n', ..] => out.extend(b"\r\n"),
            _ => out.push(text[at]),
        }
        at += 1;
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend(b"\r\n");
    }
    out
}

/// What a server makes of it, for whom `ends` are ends of lines, and that may drop NULs first:
/// the message, and what is left behind it.
fn received(wire: &[u8], ends: &[&[u8]], drops_nul: bool) -> (Vec<u8>, Vec<u8>) {
    let wire: Vec<u8> = wire
        .iter()
        .copied()
        .filter(|byte| !drops_nul || *byte != 0)
        .collect();
    let (mut message, mut at) = (Vec::new(), 0);
    while at < wire.len() {
        let mut line = Vec::new();
        let end = loop {
            if at >= wire.len() {
                break &b""[..];
            }
            if let Some(end) = ends.iter().find(|end| wire[at..].starts_with(end)) {
                at += end.len();
                break end;
            }
            line.push(wire[at]);
            at += 1;
        };
        if line == b"." {
            return (message, wire[at..].to_vec());
        }
        message.extend(line.strip_prefix(b".").unwrap_or(&line));
        message.extend(end);
    }
    panic!("no end: {wire:?}");
}

const SERVERS: [&[&[u8]]; 5] = [
    &[b"\r\n"],
    &[b"\r\n", b"\n"],
    &[b"\r\n", b"\r"],
    &[b"\r\n", b"\n", b"\r"],
    &[b"\r\r\n", b"\r\n", b"\n"],
];

fn assert_safe(message: &[u8], pieces: &[&[u8]]) {
    let wire = encode(Framing::Dots, pieces);
    let expected = normalised(message, Framing::Dots);
    for ends in SERVERS {
        for drops_nul in [false, true] {
            let (got, rest) = received(&wire, ends, drops_nul);
            assert_eq!(got, expected, "{message:?} to {ends:?}");
            assert_eq!(rest, b"", "{message:?} to {ends:?}");
        }
    }
}

#[test]
fn no_message_can_be_smuggled() {
    let ends: [&[u8]; 9] = [
        b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r", b"\r\n\0", b"\n\0", b"\0\r\n", b"\r\0\n",
    ];
    for before in ends {
        for dot in [&b"."[..], b"..", b".\0", b"\0."] {
            for after in ends {
                let message = [b"a", before, dot, after, b"MAIL FROM:<x>\r\n"].concat();
                assert_safe(&message, &[&message]);
                let whole = encode(Framing::Dots, &[&message]);
                for cut in 0..=message.len() {
                    for second in cut..=message.len() {
                        let pieces = [&message[..cut], &message[cut..second], &message[second..]];
                        assert_eq!(encode(Framing::Dots, &pieces), whole);
                    }
                }
            }
        }
    }
}

#[test]
fn lines_end_in_crlf_and_only_a_missing_end_is_added() {
    for (message, dots) in [
        (&b""[..], &b".\r\n"[..]),
        (b"a", b"a\r\n.\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b"a\n\n", b"a\r\n\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\n..\na.\n", b"..\r\n...\r\na.\r\n.\r\n"),
        (b"\0.\0\n", b"..\r\n.\r\n"),
        (b"\xff\x80", b"\xff\x80\r\n.\r\n"),
    ] {
        assert_eq!(encode(Framing::Dots, &[message]), dots, "{message:?}");
    }
    assert_eq!(encode(Framing::Counted, &[b""]), b"");
    assert_eq!(encode(Framing::Counted, &[b".\n\0a"]), b".\r\n\0a\r\n");
}

#[test]
fn the_shape_of_a_message() {
    let plain = shape(&[b"Subject: a\n\nbody\n"]);
    assert_eq!((plain.size, plain.longest_line), (20, 10));
    assert!(!plain.has_eight_bit && !plain.has_utf8_header && !plain.has_nul);
    for (message, utf8_header) in [
        (&b"Subject: \xc3\xb6\n\nbody"[..], true),
        (b"Subject: \xc3\xb6\r\rbody \xff", true),
        (b"Subject: \xf6\n\nbody", false),
        (b"Subject: \xc3\n\xb6\n\nbody", false),
        (b"Subject: o\n\n\xc3\xb6", false),
        (b"Subject: \xc3\xb6", true),
        (b"Subject: \xc3", false),
        (b"\n\xc3\xb6", false),
    ] {
        for cut in 0..=message.len() {
            let shape = shape(&[&message[..cut], &message[cut..]]);
            assert!(shape.has_eight_bit);
            assert_eq!(shape.has_utf8_header, utf8_header, "{message:?} at {cut}");
        }
    }
    assert!(shape(&[b"a\0b"]).has_nul);
    assert_eq!(Shape::of(&b""[..]).unwrap(), Shape::default());
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop::sample::select(b"..\r\n\n\r\0ab\xc3\xb6".to_vec());
    prop::collection::vec(prop_oneof![8 => octet, 1 => any::<u8>()], 0..200)
}

proptest! {
    #[test]
    fn a_receiver_sees_the_normalised_message(
        message in message(),
        cuts: Vec<prop::sample::Index>,
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut at = 0;
        for end in cuts.into_iter().chain([message.len()]) {
            pieces.push(&message[at..end]);
            at = end;
        }
        assert_safe(&message, &pieces);
        let counted = encode(Framing::Counted, &pieces);
        prop_assert_eq!(&counted, &normalised(&message, Framing::Counted));
        let measured = shape(&pieces);
        prop_assert_eq!(measured.size, counted.len() as u64);
        prop_assert_eq!(measured, Shape::of(&message[..]).unwrap());
        let header = counted.windows(4).position(|four| four == b"\r\n\r\n");
        let header = match counted.starts_with(b"\r\n") {
            true => &b""[..],
            false => &counted[..header.unwrap_or(counted.len())],
        };
        let is_utf8 = !header.is_ascii() && std::str::from_utf8(header).is_ok();
        prop_assert_eq!(measured.has_utf8_header, is_utf8);
    }
}
