//! Scans a header piece by piece, in bounded memory.
//!
//! Acceptance needs little from a message: where the header ends, how many hops it made (`Received:`
//! fields), and which of a few fields it has. No parser holds the header in memory for that, so a header of
//! 100 MB costs no more than one of 1 KB.
//!
//! Lines end as defined in [`super::line`]. Only [`HeaderScan`] decides where a header begins and ends. The
//! code that takes recipients from a header and the code that stores it both use it.

use super::line::{self, Ending};

/// Scans the header of one message, piece by piece.
#[derive(Debug, Default)]
pub struct HeaderScan {
    is_input: bool,
    taken_out: &'static [&'static str],
    in_line: bool,
    /// The current field is to be removed.
    out: bool,
    fields: usize,
    /// The number of `Received:` fields so far: the hops (RFC 5321, section 6.3).
    pub hops: usize,
    /// A `Date:` field was seen.
    pub date: bool,
    /// A `From:` field was seen.
    pub from: bool,
    /// A `Message-ID:` field was seen.
    pub message_id: bool,
}

/// How a header ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderEnd {
    /// An empty line, before the body.
    EmptyLine,
    /// The body starts without an empty line.
    Body,
    /// The message ends without a body.
    Eof,
}

/// The next part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// This many octets are mbox separator lines, which are not part of the message.
    Separators(usize),
    /// This many octets belong to the header.
    Fields(usize),
    /// This many octets belong to header fields that are to be removed.
    TakenOut(usize),
    /// More octets are needed to decide. At most [`HeaderScan::MAX_HELD`] octets are undecided.
    Undecided,
    /// The header has ended.
    End(HeaderEnd),
}

/// The result of [`HeaderScan::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The number of octets known to belong to the header. Unless the header has ended, pass the octets
    /// after these again, followed by more.
    pub header: usize,
    /// How the header ends, if it has ended.
    pub end: Option<HeaderEnd>,
}

impl HeaderScan {
    /// The longest field name in octets; a longer one is taken for body text. RFC 5322 allows lines of 998.
    const MAX_NAME: usize = 1000;

    /// The longest run of mbox separators in octets; a longer one is taken for text.
    const MAX_SEPARATORS: usize = 1000;

    /// The most octets that can be undecided.
    pub const MAX_HELD: usize = Self::MAX_SEPARATORS + Self::MAX_NAME;

    /// Returns a scan for a submitted message, which may begin with mbox separators. The fields named
    /// `taken_out` are reported as [`Part::TakenOut`].
    pub fn of_input(taken_out: &'static [&'static str]) -> HeaderScan {
        HeaderScan {
            is_input: true,
            taken_out,
            ..HeaderScan::default()
        }
    }

    /// Skips the mbox separators at the beginning of a message, and returns their length in octets, or
    /// `None` if more octets are needed to decide. [`next`](HeaderScan::next) does the same; this is for
    /// callers that need the first header line before it is scanned.
    pub fn separators(&mut self, bytes: &[u8], eof: bool) -> Option<usize> {
        if !self.is_input {
            return Some(0);
        }
        let found = Self::find_separators(bytes, eof)?;
        self.is_input = false;
        Some(found)
    }

    /// Returns the part at the beginning of `bytes`: the undecided octets of the last call, followed by new
    /// ones. `eof` means that no more octets follow. Octets of a returned part must not be passed again.
    pub fn next(&mut self, bytes: &[u8], eof: bool) -> Part {
        match self.separators(bytes, eof) {
            None => return Part::Undecided,
            Some(0) => {}
            Some(length) => return Part::Separators(length),
        }
        let (mut at, mut out) = (0, self.out);
        let end = loop {
            if self.in_line {
                let Some(end) = find(bytes, at, b'\n') else {
                    at = bytes.len();
                    break (!eof).then_some(Part::Undecided);
                };
                at = end + 1;
                self.in_line = false;
            }
            let line = &bytes[at..];
            match self.line(line) {
                Line::Field => {
                    self.in_line = true;
                    if self.out != out && at > 0 {
                        break None;
                    }
                    out = self.out;
                }
                Line::Empty => break Some(Part::End(HeaderEnd::EmptyLine)),
                Line::Body => break Some(Part::End(HeaderEnd::Body)),
                Line::Undecided if !eof => break Some(Part::Undecided),
                Line::Undecided if line.is_empty() => break Some(Part::End(HeaderEnd::Eof)),
                Line::Undecided => break Some(Part::End(HeaderEnd::Body)),
            }
        };
        match (at, end) {
            (0, end) => end.unwrap_or(Part::End(HeaderEnd::Eof)),
            (length, _) if out => Part::TakenOut(length),
            (length, _) => Part::Fields(length),
        }
    }

    /// Scans on, for callers that remove or skip nothing. `bytes` are the octets left over by the last
    /// call, followed by new ones. `eof` means that no more octets follow.
    pub fn push(&mut self, bytes: &[u8], eof: bool) -> Scanned {
        let mut header = 0;
        let end = loop {
            match self.next(&bytes[header..], eof) {
                Part::Separators(length) | Part::Fields(length) | Part::TakenOut(length) => {
                    header += length;
                }
                Part::Undecided => break None,
                Part::End(end) => break Some(end),
            }
        };
        Scanned { header, end }
    }

    /// Returns the length of the mbox separators before the header (RFC 4155). They begin with `From `, or
    /// with `>From `, as some MTAs quote it. They are separators only if a field follows, because the text
    /// of a message without a header may begin with this word.
    fn find_separators(bytes: &[u8], eof: bool) -> Option<usize> {
        let unless = |decided: bool| decided.then_some(0);
        let mut at = 0;
        loop {
            let line = &bytes[at..];
            match first_line(line) {
                First::Undecided => return unless(eof || bytes.len() > Self::MAX_HELD),
                First::Other if at == 0 => return Some(0),
                First::Other => {
                    return match HeaderScan::default().line(line) {
                        Line::Field => Some(at),
                        Line::Undecided => unless(eof),
                        Line::Empty | Line::Body => Some(0),
                    };
                }
                First::Separator => match find(line, 0, b'\n') {
                    Some(end) => at += end + 1,
                    None => return unless(eof || bytes.len() > Self::MAX_SEPARATORS),
                },
            }
            if at > Self::MAX_SEPARATORS {
                return Some(0);
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Line {
        match line::ending(line) {
            Ending::Whole(_) => return Line::Empty,
            Ending::Undecided if line.len() <= Self::MAX_NAME => return Line::Undecided,
            Ending::Undecided => return Line::Body,
            Ending::None => {}
        }
        if matches!(line, [b' ' | b'\t', ..]) && self.fields > 0 {
            return Line::Field;
        }
        let name = line
            .iter()
            .take_while(|byte| matches!(byte, 33..=57 | 59..=126))
            .count();
        let blanks = blanks(&line[name..]);
        if name == 0 || name + blanks > Self::MAX_NAME {
            return Line::Body;
        }
        match line.get(name + blanks) {
            None => Line::Undecided,
            Some(b':') => {
                self.fields += 1;
                let name = &line[..name];
                let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
                self.hops += usize::from(is("Received"));
                self.date |= is("Date");
                self.from |= is("From");
                self.message_id |= is("Message-ID");
                self.out = self.taken_out.iter().any(|field| is(field));
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

/// The kind of a first line.
enum First {
    Separator,
    Other,
    Undecided,
}

/// Whether a line is an mbox separator. `From :` begins a field; blanks before the colon are allowed.
fn first_line(line: &[u8]) -> First {
    const BEGIN: &[u8] = b"From ";
    let line = line.strip_prefix(b">").unwrap_or(line);
    let Some(rest) = line.strip_prefix(BEGIN) else {
        return if BEGIN.starts_with(line) {
            First::Undecided
        } else {
            First::Other
        };
    };
    match rest.get(blanks(rest)) {
        None => First::Undecided,
        Some(b':') => First::Other,
        Some(_) => First::Separator,
    }
}

/// The number of blanks at the beginning.
fn blanks(bytes: &[u8]) -> usize {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    bytes.iter().take_while(is_blank).count()
}

fn find(bytes: &[u8], from: usize, byte: u8) -> Option<usize> {
    let found = bytes[from..].iter().position(|b| *b == byte)?;
    Some(from + found)
}

/// Returns the line ending of a message, judged by its first line.
pub fn line_ending(bytes: &[u8]) -> &'static str {
    match find(bytes, 0, b'\n') {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => "\r\n",
        _ => "\n",
    }
}

/// Iterates over the fields of a header: the name, and the whole field with its name and continuation
/// lines. Text before the first field has an empty name.
pub fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        for line in line::lines(rest) {
            if end > 0 && !matches!(line.first(), Some(b' ' | b'\t')) {
                break;
            }
            end += line.len();
        }
        let (field, after) = rest.split_at(end);
        rest = after;
        let colon = field.iter().position(|byte| *byte == b':').unwrap_or(0);
        Some((field[..colon].trim_ascii_end(), field))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scans in pieces of `piece` octets, like a reader.
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
            assert!(have < bytes.len(), "the end was not found");
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
    fn a_body_may_start_without_an_empty_line() {
        let (at, end, _) = scan(b"Subject: x\nhello there\n", 1);
        assert_eq!((at, end), (11, HeaderEnd::Body));
    }

    #[test]
    fn a_message_may_be_only_a_header() {
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
    fn an_endless_name_is_taken_for_body() {
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
    fn the_first_line_decides_the_line_ending() {
        assert_eq!(line_ending(b"Subject: x\r\n"), "\r\n");
        assert_eq!(line_ending(b"Subject: x\r\r\n"), "\r\n");
        assert_eq!(line_ending(b"\n"), "\n");
    }

    /// Scans an input in pieces of `piece` octets. Returns the separators, the kept fields, the removed
    /// fields and the rest.
    fn parts(bytes: &[u8], piece: usize) -> [Vec<u8>; 4] {
        let mut scan = HeaderScan::of_input(&["Bcc"]);
        let mut found = [const { Vec::new() }; 4];
        let (mut at, mut have) = (0, 0);
        loop {
            let (into, length) = match scan.next(&bytes[at..have], have == bytes.len()) {
                Part::Separators(length) => (0, length),
                Part::Fields(length) => (1, length),
                Part::TakenOut(length) => (2, length),
                Part::Undecided => {
                    assert!(have < bytes.len() && have - at <= HeaderScan::MAX_HELD + piece);
                    have = (have + piece).min(bytes.len());
                    continue;
                }
                Part::End(_) => break,
            };
            assert!(length > 0);
            found[into].extend_from_slice(&bytes[at..at + length]);
            at += length;
        }
        found[3] = bytes[at..].to_vec();
        found
    }

    #[test]
    fn a_field_is_removed_with_its_continuations() {
        let header = b"To: a\nBCC: b,\n c\nbcc : d\nSubject: x\n\ty\nbcc :d\r\nX: y\nBcc: e";
        for piece in [1, 4, 4096] {
            let [_, kept, out, _] = parts(header, piece);
            assert_eq!(kept, b"To: a\nSubject: x\n\ty\nX: y\n");
            assert_eq!(out, b"BCC: b,\n c\nbcc : d\nbcc :d\r\nBcc: e");
        }
    }

    #[test]
    fn separators_precede_a_header() {
        let long = format!("From {}\n", "x".repeat(HeaderScan::MAX_SEPARATORS));
        let two = "From a@b Sat Nov 22\r\n>From c\n";
        let many = "From a\n".repeat(200);
        for (separators, rest) in [
            ("From a@b Sat Nov 22\n", "Subject: x\n"),
            (">From a\n", "Subject: x\nBcc: y\n\nb\n"),
            (two, "Subject: x\n"),
            (two, "From : x\n"),
            // Fields.
            ("", "From: a@b\n"),
            ("", "From : Jo <jo@x>\nTo: b\n"),
            ("", "From \t : x\n"),
            ("", ">From : x\n"),
            // Text.
            ("", "From a@b the disk is full\n\nSubject: x\n"),
            ("", "From a@b\nthe disk is full\n"),
            ("", "From a\nFrom b\n"),
            ("", "From a"),
            ("", ""),
            ("", "From "),
            ("", &format!("{long}Subject: x\n")),
            ("", &format!("{many}Subject: x\n")),
        ] {
            let whole = [separators, rest].concat();
            for piece in [1, 7, 4096] {
                let [found, ..] = parts(whole.as_bytes(), piece);
                assert_eq!(found, separators.as_bytes(), "{whole:.100?} by {piece}");
            }
        }
    }

    #[test]
    fn a_carriage_return_belongs_to_a_line_end_or_is_an_octet() {
        for (message, kept, body) in [
            (
                &b"A: x\r\r\nB: y\r\r\n\r\r\nC: z\n"[..],
                &b"A: x\r\r\nB: y\r\r\n"[..],
                &b"\r\r\nC: z\n"[..],
            ),
            // A CR within a field does not start another field.
            (b"A: x\rBcc: y\n\nb", b"A: x\rBcc: y\n", b"\nb"),
            // A field does not begin with a CR.
            (b"A: x\n\rBcc: y\n", b"A: x\n", b"\rBcc: y\n"),
            (b"A: x\n\r", b"A: x\n", b"\r"),
        ] {
            for piece in [1, 3, 4096] {
                let [_, found, out, rest] = parts(message, piece);
                assert_eq!((&*found, &*out, &*rest), (kept, &b""[..], body));
            }
        }
    }

    proptest! {
        #[test]
        fn the_division_into_pieces_does_not_matter(
            bytes in prop::collection::vec(prop::sample::select(b"aD:\r\n \t\x00".to_vec()), 0..60),
            piece in 1_usize..8,
        ) {
            let (whole, pieces) = (scan(&bytes, 4096), scan(&bytes, piece));
            prop_assert_eq!((whole.0, whole.1), (pieces.0, pieces.1));
            prop_assert_eq!(whole.2.hops, pieces.2.hops);
        }
    }
}
