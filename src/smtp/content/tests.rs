//! How servers interpret a sent message, including those that see additional line ends.

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
    let mut measure = Measure::new();
    pieces.iter().for_each(|piece| measure.push(piece));
    measure.finish()
}

/// What the encoder promises to deliver, computed in the simplest way: line by line.
fn normalised(bytes: &[u8], framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    let mut in_header = true;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let mut text = line.strip_suffix(b"\n").unwrap_or(line);
        while let Some(rest) = text.strip_suffix(b"\r") {
            text = rest;
        }
        in_header &= !text.is_empty();
        let mut made = Vec::new();
        for byte in text {
            match (byte, framing == Framing::Counted) {
                (b'\r', _) if in_header => made.push(b' '),
                (b'\r', true) => made.push(b'\r'),
                (b'\r', false) => made.extend(b"\r\n"),
                (0, false) if in_header => made.push(b' '),
                (0, false) => {}
                (byte, _) => made.push(*byte),
            }
        }
        // A last line that becomes empty is dropped.
        let is_open = !made.is_empty() && !made.ends_with(b"\r\n");
        if line.ends_with(b"\n") || line.ends_with(b"\r") || is_open {
            made.extend(b"\r\n");
        }
        out.extend(made);
    }
    match framing {
        Framing::Dots => folded(&out),
        _ => out,
    }
}

/// Folds lines of more than 998 octets, never within a UTF-8 character.
fn folded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let mut length = 0;
        for byte in line.strip_suffix(b"\r\n").unwrap() {
            let needs = match byte {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => 1,
            };
            if length + needs > 998 {
                out.extend(b"\r\n ");
                length = 1;
            }
            out.push(*byte);
            length += 1;
        }
        out.extend(b"\r\n");
    }
    out
}

/// How a server interprets the input if it takes `ends` for ends of lines and may drop NULs first: the
/// message, and what is left after it.
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
        (b"a\n\r", b"a\r\n\r\n.\r\n"),
        (b"a\n\n", b"a\r\n\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\n..\na.\n", b"..\r\n...\r\na.\r\n.\r\n"),
        (b"\0.\0\n", b" . \r\n.\r\n"),
        (b"\n\0.\0\n", b"\r\n..\r\n.\r\n"),
        (b"\xff\x80", b"\xff\x80\r\n.\r\n"),
    ] {
        assert_eq!(encode(Framing::Dots, &[message]), dots, "{message:?}");
    }
    assert_eq!(encode(Framing::Counted, &[b""]), b"");
    assert_eq!(encode(Framing::Counted, &[b".\n\0a"]), b".\r\n\0a\r\n");
}

#[test]
fn a_lone_cr_makes_no_field_and_ends_no_header() {
    for (message, in_data, counted) in [
        // This would be another field for a server that takes a CR for the end of a line.
        (
            &b"Subject: a\rBcc: b\n\nbody\n"[..],
            &b"Subject: a Bcc: b\r\n\r\nbody\r\n"[..],
            &b"Subject: a Bcc: b\r\n\r\nbody\r\n"[..],
        ),
        // This would be the end of the header for such a server.
        (
            b"A: 1\r\r\nB: 2\r\r\r\n\r\nbody\n",
            b"A: 1\r\nB: 2\r\n\r\nbody\r\n",
            b"A: 1\r\nB: 2\r\n\r\nbody\r\n",
        ),
        (b"A: 1\r\rbody\n", b"A: 1  body\r\n", b"A: 1  body\r\n"),
        (b"\rA: 1\n\nb", b" A: 1\r\n\r\nb\r\n", b" A: 1\r\n\r\nb\r\n"),
        // Lines that would become empty.
        (
            b"A: 1\n\0\n\r\0\nB: 2\n\nb",
            b"A: 1\r\n \r\n  \r\nB: 2\r\n\r\nb\r\n",
            b"A: 1\r\n\0\r\n \0\r\nB: 2\r\n\r\nb\r\n",
        ),
        // In the body it ends a line, unless the octets are counted.
        (
            b"\na\rb\r\r\nc\r\rd\n",
            b"\r\na\r\nb\r\nc\r\n\r\nd\r\n",
            b"\r\na\rb\r\nc\r\rd\r\n",
        ),
    ] {
        let ended = [in_data, b".\r\n"].concat();
        assert_eq!(encode(Framing::Dots, &[message]), ended, "{message:?}");
        assert_eq!(encode(Framing::Unfolded, &[message]), ended, "{message:?}");
        assert_eq!(encode(Framing::Counted, &[message]), counted, "{message:?}");
    }
}

#[test]
fn a_line_that_is_too_long_is_folded_between_characters() {
    let fold = |text: &[u8]| {
        let out = encode(Framing::Dots, &[b"A: 1\n\n", text]);
        out[8..out.len() - 5].to_vec()
    };
    let x = |count| b"x".repeat(count);
    assert_eq!(fold(&x(998)), x(998));
    assert_eq!(fold(&x(999)), [x(998), b"\r\n ".to_vec(), x(1)].concat());
    assert_eq!(
        fold(&x(998 + 997 + 1)),
        [x(998), b"\r\n ".to_vec(), x(997), b"\r\n ".to_vec(), x(1)].concat()
    );
    // The doubled dot does not count, and a dot after the fold is not at the beginning of a line.
    assert_eq!(
        fold(&[b".".to_vec(), x(997), b".".to_vec()].concat()),
        [b"..".to_vec(), x(997), b"\r\n .".to_vec()].concat()
    );
    for (letter, before) in [("\u{fc}", 997), ("\u{20ac}", 996), ("\u{1f600}", 995)] {
        let letter = letter.as_bytes().to_vec();
        let text = [x(before), letter.clone()].concat();
        assert_eq!(
            fold(&text),
            [x(before), b"\r\n ".to_vec(), letter.clone()].concat()
        );
        let text = [x(before - 1), letter.clone()].concat();
        assert_eq!(fold(&text), text);
    }
    // A signed message and counted octets are not folded.
    for framing in [Framing::Unfolded, Framing::Counted] {
        let out = encode(framing, &[&x(3000)]);
        assert!(out.starts_with(&[x(3000), b"\r\n".to_vec()].concat()));
    }
}

#[test]
fn the_shape_of_a_message() {
    let plain = shape(&[b"Subject: a\n\nbody\n"]);
    assert_eq!((plain.octets, plain.size, plain.size_in_data), (17, 20, 20));
    assert_eq!(plain.longest_line, 10);
    let Shape {
        has_eight_bit,
        has_nul,
        has_lone_cr,
        is_signed,
        ..
    } = plain;
    assert!(!has_eight_bit && !has_nul && !has_lone_cr && !is_signed);
    assert!(shape(&[b"a\0b"]).has_nul);
    assert!(shape(&[b"a\n\n\xf6"]).has_eight_bit);
    assert!(shape(&[b"a\n\nb\rc"]).has_lone_cr);
    for header in [&b"a\rb\n\n"[..], b"a\n\nb\r\r\nc\r", b"a\r\r\n\r\r\n\n"] {
        assert!(!shape(&[header]).has_lone_cr, "{header:?}");
    }
    assert_eq!(Shape::of(&b""[..]).unwrap(), Shape::default());
}

#[test]
fn a_signature_is_found_by_its_field() {
    for (message, is_signed) in [
        (&b"A: 1\nDKIM-Signature: v=1\n\nb"[..], true),
        (b"dkim-signature : v=1", true),
        (b"ARC-Message-Signature: i=1\n\nb", true),
        (b"A: 1\n DKIM-Signature: v=1\n\nb", false),
        (b"A: 1\n\nDKIM-Signature: v=1\n", false),
        (b"X-DKIM-Signature: v=1\n\n", false),
        (b"DKIM-Signature\n\n", false),
        (b"DKIM-Signatures: 1\n\n", false),
    ] {
        for cut in 0..=message.len() {
            let shape = shape(&[&message[..cut], &message[cut..]]);
            assert_eq!(shape.is_signed, is_signed, "{message:?} at {cut}");
        }
    }
    let long = |field: &str| {
        let message = [field.as_bytes(), b"\n\n", &b"x".repeat(1500)].concat();
        shape(&[&message]).size_in_data as usize - field.len()
    };
    assert_eq!(long("DKIM-Signature: a"), 1506);
    assert_eq!(long("A: 1"), 1509);
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
        prop_assert_eq!(measured.octets, message.len() as u64);
        prop_assert_eq!(measured.size, counted.len() as u64);
        let in_data = normalised(&message, Framing::Dots).len() as u64;
        prop_assert_eq!(measured.size_in_data, in_data);
        prop_assert_eq!(measured, Shape::of(&message[..]).unwrap());
    }

    #[test]
    fn no_line_in_data_is_too_long(
        lines in prop::collection::vec((prop::sample::select(vec!["x", ".", "\u{fc}", "\0", "\r"]), 0..1100usize), 0..5),
        cuts: Vec<prop::sample::Index>,
    ) {
        let message: String = lines.iter().map(|(text, count)| text.repeat(*count)).collect();
        let message = format!("A: 1\n\n{message}");
        let cut = cuts.first().map_or(0, |cut| cut.index(message.len()));
        let pieces = [&message.as_bytes()[..cut], &message.as_bytes()[cut..]];
        let wire = encode(Framing::Dots, &pieces);
        for line in wire.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = line.strip_prefix(b".").unwrap_or(line);
            prop_assert!(line.len() <= 998, "{}", line.len());
        }
        assert_safe(message.as_bytes(), &pieces);
        let size = shape(&pieces).size_in_data;
        prop_assert_eq!(size, normalised(message.as_bytes(), Framing::Dots).len() as u64);
    }
}
