//! Reads a header as it streams by, in bounded memory.
//!
//! What acceptance must know of a message is little: where the header ends, how many hops it
//! made (`Received:` fields), and whether `Date:` and `Message-ID:` are there. No parser holds
//! the header in memory for that: a header of 100 MB costs no more than one of 1 KB.

/// Reads the header of one message, piece by piece.
#[derive(Debug, Default)]
pub struct HeaderScan {
    in_line: bool,
    fields: usize,
    /// `Received:` fields so far: the hops (RFC 5321, section 6.3).
    pub hops: usize,
    /// A `Date:` field was seen.
    pub date: bool,
    /// A `Message-ID:` field was seen.
    pub message_id: bool,
}

/// How a header ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderEnd {
    /// An empty line follows, then the body.
    EmptyLine,
    /// The body follows at once, without an empty line.
    Body,
    /// The message ends; there is no body.
    Eof,
}

/// What [`HeaderScan::push`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// So many bytes belong to the header for certain; what is behind them is to be given again,
    /// with more behind it, unless the header has ended.
    pub header: usize,
    /// Where the header ends, if it does.
    pub end: Option<HeaderEnd>,
}

impl HeaderScan {
    /// The longest field name that is believed. RFC 5322 allows lines of 998.
    const MAX_NAME: usize = 1000;

    /// Reads on. `bytes` are those the last call left over and new ones behind them; `eof` says
    /// that nothing will follow.
    pub fn push(&mut self, bytes: &[u8], eof: bool) -> Scanned {
        let mut at = 0;
        loop {
            if self.in_line {
                let Some(length) = find(bytes, at, b'\n') else {
                    let end = eof.then_some(HeaderEnd::Eof);
                    return Scanned {
                        header: bytes.len(),
                        end,
                    };
                };
                at = length + 1;
                self.in_line = false;
            }
            let line = &bytes[at..];
            let end = match self.line(line) {
                Line::Field => {
                    self.in_line = true;
                    continue;
                }
                Line::Empty => Some(HeaderEnd::EmptyLine),
                Line::Body => Some(HeaderEnd::Body),
                Line::Undecided if !eof => None,
                Line::Undecided if line.is_empty() => Some(HeaderEnd::Eof),
                Line::Undecided => Some(HeaderEnd::Body),
            };
            return Scanned { header: at, end };
        }
    }

    fn line(&mut self, line: &[u8]) -> Line {
        match line {
            [] | [b'\r'] => return Line::Undecided,
            [b'\n', ..] | [b'\r', b'\n', ..] => return Line::Empty,
            [b' ' | b'\t', ..] if self.fields > 0 => return Line::Field,
            _ => {}
        }
        let name = line
            .iter()
            .take_while(|byte| matches!(byte, 33..=57 | 59..=126))
            .count();
        let blanks = line[name..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        if name == 0 || name + blanks > Self::MAX_NAME {
            return Line::Body;
        }
        match line.get(name + blanks) {
            None => Line::Undecided,
            Some(b':') => {
                self.fields += 1;
                let name = &line[..name];
                self.hops += usize::from(name.eq_ignore_ascii_case(b"Received"));
                self.date |= name.eq_ignore_ascii_case(b"Date");
                self.message_id |= name.eq_ignore_ascii_case(b"Message-ID");
                Line::Field
            }
            Some(_) => Line::Body,
        }
    }
}

enum Line {
    Field,
    Empty,
    Body,
    Undecided,
}

fn find(bytes: &[u8], from: usize, byte: u8) -> Option<usize> {
    let found = bytes[from..].iter().position(|b| *b == byte)?;
    Some(from + found)
}

/// The length of an mbox separator (`From ` line, also quoted with `>`) that some MTAs put
/// before the header, or 0. It is no part of the message (RFC 4155).
pub fn mbox_separator(bytes: &[u8]) -> usize {
    let rest = bytes.strip_prefix(b">").unwrap_or(bytes);
    if !rest.starts_with(b"From ") {
        return 0;
    }
    find(bytes, 0, b'\n').map_or(0, |end| end + 1)
}

/// The line ending a message uses, judged by its first line.
pub fn line_ending(bytes: &[u8]) -> &'static str {
    match find(bytes, 0, b'\n') {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => "\r\n",
        _ => "\n",
    }
}

/// The fields of a header: the name of each, and all of it, name and continuations included.
/// What stands before the first field has no name.
pub fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            if end > 0 && !matches!(line.first(), Some(b' ' | b'\t')) {
                break;
            }
            end += line.len();
        }
        let (field, behind) = rest.split_at(end);
        rest = behind;
        let colon = field.iter().position(|byte| *byte == b':').unwrap_or(0);
        Some((field[..colon].trim_ascii_end(), field))
    })
}

/// The same header without the fields of the given name. `header` is a whole header.
pub fn without_field(header: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(header.len());
    for (found, field) in fields(header) {
        if !found.eq_ignore_ascii_case(name.as_bytes()) {
            kept.extend_from_slice(field);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes in pieces of the given size, as a reader would.
    fn scan(bytes: &[u8], piece: usize) -> (usize, HeaderEnd, HeaderScan) {
        let mut scan = HeaderScan::default();
        let (mut done, mut have) = (0, 0);
        loop {
            have = (have + piece).min(bytes.len());
            let found = scan.push(&bytes[done..have], have == bytes.len());
            done += found.header;
            if let Some(end) = found.end {
                return (done, end, scan);
            }
            assert!(have < bytes.len(), "the end was not seen");
        }
    }

    #[test]
    fn fields_are_counted_and_the_end_is_found() {
        let message = b"Received: a\n\tb\nRECEIVED : c\nmessage-id: <x>\n\nReceived: body\n";
        let (at, end, seen) = scan(message, 4096);
        assert_eq!(&message[at..], b"\nReceived: body\n");
        assert_eq!(
            (end, seen.hops, seen.date, seen.message_id),
            (HeaderEnd::EmptyLine, 2, false, true)
        );
    }

    #[test]
    fn a_message_without_header_is_all_body() {
        for message in [
            "hello world\n",
            " indented\n",
            ": x\n",
            "\x01\n",
            "höflich: x\n",
            "word",
        ] {
            assert_eq!(scan(message.as_bytes(), 3).0, 0, "{message}");
            assert_eq!(scan(message.as_bytes(), 3).1, HeaderEnd::Body, "{message}");
        }
    }

    #[test]
    fn a_body_may_follow_without_empty_line() {
        let (at, end, _) = scan(b"Subject: x\nhello there\n", 1);
        assert_eq!((at, end), (11, HeaderEnd::Body));
    }

    #[test]
    fn a_header_may_be_all_there_is() {
        for message in ["Subject: x\n", "Subject: x", "Subject:", "\n", "\r\n"] {
            let (at, end, _) = scan(message.as_bytes(), 2);
            let expected = if message.trim().is_empty() {
                (0, HeaderEnd::EmptyLine)
            } else {
                (message.len(), HeaderEnd::Eof)
            };
            assert_eq!((at, end), expected, "{message:?}");
        }
    }

    #[test]
    fn an_endless_name_is_not_held_for_ever() {
        let mut scan = HeaderScan::default();
        let found = scan.push(&[b'x'; 2000], false);
        assert_eq!(
            found,
            Scanned {
                header: 0,
                end: Some(HeaderEnd::Body)
            }
        );
    }

    #[test]
    fn separators_and_endings() {
        assert_eq!(mbox_separator(b"From a@b Sat Nov 22\nSubject: x\n"), 20);
        assert_eq!(mbox_separator(b">From a\nSubject: x\n"), 8);
        assert_eq!(mbox_separator(b"From: a@b\n"), 0);
        assert_eq!(line_ending(b"Subject: x\r\n"), "\r\n");
        assert_eq!(line_ending(b"\n"), "\n");
    }

    #[test]
    fn a_field_goes_with_its_continuations() {
        let header = b"To: a\nBCC: b,\n c\nSubject: x\nbcc :d\nX: y\n";
        assert_eq!(without_field(header, "Bcc"), b"To: a\nSubject: x\nX: y\n");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in prop::collection::vec(prop::sample::select(b"aD:\r\n \t\x00".to_vec()), 0..60),
            piece in 1_usize..8,
        ) {
            let (whole, pieces) = (scan(&bytes, 4096), scan(&bytes, piece));
            prop_assert_eq!((whole.0, whole.1), (pieces.0, pieces.1));
            prop_assert_eq!(whole.2.hops, pieces.2.hops);
        }
    }
}
