//! The returned part of the reported message, and the data that the notice takes from it.
//!
//! A message may contain anything, but the notice about it must arrive. So a message is returned unchanged
//! only if `7bit` or `8bit` describes it (RFC 2045, 2.7 and 2.8). Of a message with NULs, with carriage
//! returns within lines, or with lines of more than 998 octets, only the header is returned. Such a header is
//! returned in quoted-printable.

use std::io::{self, Read};

use super::subject;
use crate::disk::Body;
use crate::message::field::MAX_LINE;
use crate::message::header::{HeaderScan, fields};
use crate::message::line;
use crate::message::printable;
use crate::message::seven_bit::quoted_printable;
use crate::message::text::shortened;

/// Octets. Of a longer header only the beginning is read and returned.
const MAX_HEADER: usize = 64 << 10;

/// Octets of the longest Message-ID that is copied. Longer ones are omitted.
const MAX_ID: usize = 900;

/// The returned part of a message.
pub(super) struct Original {
    /// The octets, with bare line feeds at the ends of lines.
    pub bytes: Vec<u8>,
    /// Whether this is the whole message, not only the header.
    pub whole: bool,
    pub encoding: Encoding,
    /// Whether the header is UTF-8 and not ASCII.
    pub has_utf8_header: bool,
    /// The decoded subject in one line; empty if there is none.
    pub subject: String,
    /// `<...>`, if there is one in a form that can be copied into a header.
    pub message_id: Option<String>,
}

/// The transfer encoding of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    QuotedPrintable,
}

impl Encoding {
    /// The value of Content-Transfer-Encoding.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::SevenBit => "7bit",
            Encoding::EightBit => "8bit",
            Encoding::QuotedPrintable => "quoted-printable",
        }
    }

    fn of(bytes: &[u8]) -> Encoding {
        let is_long = |line: &[u8]| line.len() > MAX_LINE;
        if bytes.contains(&0) || bytes.contains(&b'\r') || bytes.split(|b| *b == b'\n').any(is_long)
        {
            Encoding::QuotedPrintable
        } else if bytes.is_ascii() {
            Encoding::SevenBit
        } else {
            Encoding::EightBit
        }
    }
}

impl Original {
    /// Reads the whole message, if `whole` is set and it can be returned, and otherwise the header.
    pub fn read(body: &Body, whole: bool) -> io::Result<Original> {
        let mut bytes = Vec::new();
        let header = header(body, &mut bytes)?;
        let (subject, message_id) = (subject(&bytes[..header]), message_id(&bytes[..header]));
        let text = std::str::from_utf8(&bytes[..header]);
        let has_utf8_header = text.is_ok_and(|text| !text.is_ascii());
        let mut all = Vec::new();
        if whole {
            body.reader().read_to_end(&mut all)?;
            all = with_bare_lf(&all);
        }
        let encoding = Encoding::of(&all);
        let whole = whole && encoding != Encoding::QuotedPrintable;
        bytes.truncate(header);
        let bytes = if whole {
            with_end_of_header(all, with_bare_lf(&bytes).len())
        } else {
            with_bare_lf(&bytes)
        };
        let encoding = Encoding::of(&bytes);
        Ok(Original {
            bytes: match encoding {
                Encoding::QuotedPrintable => quoted_printable(&bytes),
                _ => bytes,
            },
            whole,
            encoding,
            has_utf8_header,
            subject,
            message_id,
        })
    }
}

/// Reads the header, and perhaps more, and returns the header's length. A header that is too long is cut
/// after a whole field; a field that is too long, after a whole line.
fn header(body: &Body, bytes: &mut Vec<u8>) -> io::Result<usize> {
    body.reader().take(MAX_HEADER as u64).read_to_end(bytes)?;
    let is_all = bytes.len() as u64 == body.size();
    let found = HeaderScan::default().push(bytes, is_all);
    if found.end.is_some() {
        return Ok(found.header);
    }
    let lines = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => &bytes[..=end],
        None => return Ok(bytes.len()),
    };
    let last = fields(lines).last().map_or(0, |(_, field)| field.len());
    Ok(match lines.len() - last {
        0 => lines.len(),
        fields => fields,
    })
}

/// Adds an empty line after the header if it is missing: readers disagree about a body that follows without
/// one.
fn with_end_of_header(mut message: Vec<u8>, header: usize) -> Vec<u8> {
    if message.get(header).is_some_and(|byte| *byte != b'\n') {
        message.insert(header, b'\n');
    }
    message
}

fn field<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let is_it = |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
    let mut fields = fields(header);
    fields
        .find(|(found, _)| is_it(found))
        .map(|(_, field)| field)
}

fn subject(header: &[u8]) -> String {
    let Some(field) = field(header, "Subject") else {
        return String::new();
    };
    let colon = field.iter().position(|byte| *byte == b':').unwrap_or(0);
    let subject = subject::decoded(&field[colon + 1..]);
    shortened(printable(&subject), 200)
}

fn message_id(header: &[u8]) -> Option<String> {
    let field = std::str::from_utf8(field(header, "Message-ID")?).ok()?;
    let (_, value) = field.split_once(':')?;
    let inside = value.trim().strip_prefix('<')?.strip_suffix('>')?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"<>".contains(&byte);
    (1..=MAX_ID)
        .contains(&inside.len())
        .then_some(inside)
        .filter(|inside| inside.bytes().all(is_plain))
        .map(|inside| format!("<{inside}>"))
}

/// Returns the octets with a bare line feed for each line end, as servers receive the message. Remaining CRs
/// are within lines.
fn with_bare_lf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for line in line::lines(bytes) {
        out.extend_from_slice(line::content(line));
        if line.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: impl AsRef<[u8]>, whole: bool) -> Original {
        Original::read(&Body::of_bytes(bytes.as_ref()), whole).unwrap()
    }

    #[test]
    fn what_no_encoding_describes_comes_back_as_its_header() {
        let long = format!("Subject: x\n\n{}\n", "y".repeat(999));
        for message in [
            long.as_str(),
            "Subject: x\r\n\r\na\0b\r\n",
            "Subject: x\n\na\rb\r\r\n",
        ] {
            let original = read(message, true);
            assert!(!original.whole);
            assert_eq!(original.bytes, b"Subject: x\n", "{message:?}");
            assert_eq!(original.encoding, Encoding::SevenBit);
        }
        let original = read("Subject: x\r\n\r\nhällo\r\n", true);
        assert_eq!(original.bytes, "Subject: x\n\nhällo\n".as_bytes());
        assert_eq!(
            (original.whole, original.encoding),
            (true, Encoding::EightBit)
        );
        assert!(!original.has_utf8_header);
        assert!(!read("Subject: x\n\nbody\n", false).whole);
        assert_eq!(
            read("Subject: x\r\nbody\r\n", true).bytes,
            b"Subject: x\n\nbody\n"
        );
        let original = read("Subject: x\r\r\n\r\r\nbody\r\r\n", true);
        assert!(original.whole);
        assert_eq!(original.bytes, b"Subject: x\n\nbody\n");
        assert_eq!(read("body\n", true).bytes, b"\nbody\n");
    }

    #[test]
    fn a_header_that_no_encoding_describes_is_quoted_printable() {
        let original = read(b"X: a\0 =\rb \nY: c\n\nbody", false);
        assert_eq!(original.encoding, Encoding::QuotedPrintable);
        assert_eq!(original.bytes, b"X: a=00 =3D=0Db=20\nY: c\n");
        let original = read(format!("X: {}\n\n", "y".repeat(2000)), false);
        assert!(
            original
                .bytes
                .split(|b| *b == b'\n')
                .all(|line| line.len() <= 76)
        );
    }

    #[test]
    fn a_long_header_is_cut_after_a_whole_field() {
        let many: String = (0..10_000).map(|n| format!("X-{n}: {n}\n {n}\n")).collect();
        let original = read(format!("{many}\nbody"), false);
        assert!(original.bytes.len() <= MAX_HEADER);
        assert!(many.as_bytes().starts_with(&original.bytes));
        let end = String::from_utf8(original.bytes).unwrap();
        let last: Vec<&str> = end.lines().rev().take(2).collect();
        assert_eq!(last[1], format!("X-{0}: {0}", last[0].trim()));
        let long = format!("X: 1\n{}\n", " 2\n".repeat(40_000));
        let original = read(long, false);
        assert!(original.bytes.len() > MAX_HEADER - 10 && original.bytes.ends_with(b"\n 2\n"));
    }

    #[test]
    fn a_subject_is_words_in_one_line() {
        for (header, subject) in [
            ("subject: =?utf-8?q?h=C3=A4h=0D=0ABcc:_x?=\n", "häh Bcc: x"),
            ("Subject: a\n b\t c\n", "a b c"),
            ("Subject: roh \u{1b}[31mrot ü\n", "roh [31mrot ü"),
            ("X: y\n", ""),
            ("Subject:\n", ""),
        ] {
            assert_eq!(read(header, false).subject, subject, "{header:?}");
        }
        let long = format!("Subject: {}\n", "ü".repeat(1000));
        assert!(read(long, false).subject.len() <= 200);
    }

    #[test]
    fn only_a_plain_message_id_is_named() {
        for (header, id) in [
            ("Message-ID: <a@b>\n", Some("<a@b>")),
            ("message-id:\n <a@b>\n", Some("<a@b>")),
            ("Message-ID: <a@b> <c@d>\n", None),
            ("Message-ID: <a b@c>\n", None),
            ("Message-ID: <ä@b>\n", None),
            ("Message-ID: a@b\n", None),
            ("Message-ID: <>\n", None),
        ] {
            assert_eq!(read(header, false).message_id.as_deref(), id, "{header:?}");
        }
    }
}
