//! The octets of a message on the wire: every line ends in CRLF, and only the last line begins with a dot that is
//! not doubled.
//!
//! A line ends at LF, and any run of CRs directly before that LF is part of the line's end. Acceptance splits the
//! header into lines in the same way. A lone CR anywhere else does not end a line:
//!
//! | a lone CR | is sent as |
//! |---|---|
//! | in the header | a blank, because a server that takes it for a line's end would see another field |
//! | in the body, in [`Framing::Counted`] | CR |
//! | in the body, otherwise | CRLF |
//!
//! Servers disagree about where a message ends: some take a bare LF or CR for a line's end, some
//! drop NULs before they look. A message with a dot between two such ends would be two messages
//! for them, and the second one forged. So DATA carries CRLF and no other CR or LF, and dots are
//! doubled after that conversion. NULs are left out of it, because RFC 5321 4.1.1.4 does not permit them; in the
//! header they become blanks, so that no line becomes empty and ends the header. In
//! [`Framing::Counted`] NULs and lone CRs stay: there the length ends the message.
//!
//! DATA carries no line of more than [`MAX_LINE`] octets either: longer ones are folded the way Postfix
//! folds them. A signed message is not folded: its signature would break, and most servers accept
//! long lines.

use std::io::{self, Read};

use memchr::memchr2;

/// How a message is sent, and how its end is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DATA: ended by a lone dot, other leading dots doubled, long lines folded.
    Dots,
    /// The same, but long lines are not folded.
    Unfolded,
    /// BDAT: the number of octets is sent first.
    Counted,
}

/// What must be known of a message before it is sent, from reading it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Octets of the message as it is read. If the number differs when the message is sent, it has changed
    /// or cannot be read to its end, and is never ended as if it were complete.
    pub octets: u64,
    /// Octets in [`Framing::Counted`].
    pub size: u64,
    /// Octets in DATA, doubled dots not counted (RFC 1870).
    pub size_in_data: u64,
    /// It has an octet above 127.
    pub has_eight_bit: bool,
    /// It has a NUL.
    pub has_nul: bool,
    /// Its body has a CR that is not part of a line's end.
    pub has_lone_cr: bool,
    /// Octets of the longest line, without its end.
    pub longest_line: u64,
    /// It has a signature (DKIM, ARC) that a changed line would break.
    pub is_signed: bool,
}

/// The most octets of a line, without its end, that DATA must carry (RFC 5321 4.5.3.1.6). A doubled dot
/// does not count. Longer lines are folded.
pub const MAX_LINE: u64 = 998;

/// Octets up to which a line certainly has room for one more UTF-8 character, which has at most four
/// octets.
const SAFE_LINE: u64 = MAX_LINE - 3;

/// What folds a line, as in Postfix. The blank makes a header line continue, and keeps a new line from
/// being a MIME boundary.
const FOLD: &[u8] = b"\r\n ";

/// Fields with signatures that cover the octets of the body.
const SIGNATURES: [&str; 3] = [
    "DKIM-Signature",
    "ARC-Message-Signature",
    "DomainKey-Signature",
];

/// Octets read at a time. It is below 64 KiB because the C library consolidates its heap whenever 64 KiB are
/// freed.
const BLOCK: usize = 16 * 1024;

/// Splits a stream of octets into lines.
#[derive(Debug, Default)]
struct Lines {
    /// CRs that are not known to precede an LF.
    crs: usize,
}

enum Piece<'a> {
    /// Text without CR and LF.
    Text(&'a [u8]),
    /// A CR that is not part of a line's end.
    LoneCr,
    End,
}

impl Lines {
    fn push<'a>(&mut self, mut bytes: &'a [u8], mut each: impl FnMut(Piece<'a>)) {
        while let Some(first) = bytes.first() {
            match first {
                b'\n' => {
                    self.crs = 0;
                    each(Piece::End);
                    bytes = &bytes[1..];
                }
                b'\r' => {
                    self.crs += 1;
                    bytes = &bytes[1..];
                }
                _ => {
                    for _ in 0..std::mem::take(&mut self.crs) {
                        each(Piece::LoneCr);
                    }
                    let end = memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                    each(Piece::Text(&bytes[..end]));
                    bytes = &bytes[end..];
                }
            }
        }
    }

    /// Whether the message ends in CRs. The missing LF is added, so they are part of that line's end.
    fn ends_in_cr(&self) -> bool {
        self.crs > 0
    }
}

/// Encodes a message for sending, block by block.
#[derive(Debug)]
pub struct Encoder {
    lines: Lines,
    pieces: Pieces,
}

/// Encodes pieces of lines.
#[derive(Debug)]
struct Pieces {
    framing: Framing,
    line: Line,
    in_header: bool,
}

/// The output: sent, or only counted.
trait Out {
    fn add(&mut self, bytes: &[u8]);
}

impl Out for Vec<u8> {
    fn add(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[derive(Default)]
struct Count(u64);

impl Out for Count {
    fn add(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }
}

/// The line being written.
#[derive(Debug, Default)]
struct Line {
    /// Its octets, without a doubled dot.
    length: u64,
    /// Doubled dots and folded lines in the whole message.
    doubled: u64,
    folded: u64,
}

impl Encoder {
    /// An encoder at the beginning of a message.
    pub fn new(framing: Framing) -> Encoder {
        Encoder {
            lines: Lines::default(),
            pieces: Pieces::new(framing),
        }
    }

    /// Encodes the next octets of the message and appends them to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Encoder { lines, pieces } = self;
        lines.push(bytes, |piece| pieces.push(&piece, out));
    }

    /// Writes the end of the message: the end of its last line if that is missing, and the lone dot.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.pieces.end_line(self.lines.ends_in_cr(), out);
        if self.pieces.framing != Framing::Counted {
            out.extend_from_slice(b".\r\n");
        }
    }
}

impl Pieces {
    fn new(framing: Framing) -> Pieces {
        Pieces {
            framing,
            line: Line::default(),
            in_header: true,
        }
    }

    fn push(&mut self, piece: &Piece, out: &mut impl Out) {
        let Pieces {
            framing,
            line,
            in_header,
        } = self;
        match (piece, *framing) {
            (Piece::End, _) => {
                *in_header &= line.length > 0;
                line.end(out);
            }
            (Piece::LoneCr, framing) if *in_header => line.text(b" ", framing, out),
            (Piece::LoneCr, Framing::Counted) => line.text(b"\r", Framing::Counted, out),
            (Piece::LoneCr, _) => line.end(out),
            (Piece::Text(text), framing) if framing != Framing::Counted && text.contains(&0) => {
                for (n, text) in text.split(|byte| *byte == 0).enumerate() {
                    if n > 0 && *in_header {
                        line.text(b" ", framing, out);
                    }
                    line.text(text, framing, out);
                }
            }
            (Piece::Text(text), framing) => line.text(text, framing, out),
        }
    }

    fn end_line(&mut self, ends_in_cr: bool, out: &mut impl Out) {
        if self.line.length > 0 || ends_in_cr {
            self.line.end(out);
        }
    }
}

impl Line {
    fn text(&mut self, text: &[u8], framing: Framing, out: &mut impl Out) {
        if framing != Framing::Counted && self.length == 0 && text.first() == Some(&b'.') {
            out.add(b".");
            self.doubled += 1;
        }
        match framing {
            Framing::Dots => self.fold(text, out),
            Framing::Unfolded | Framing::Counted => self.add(text, out),
        }
    }

    /// Adds text, folded before the character that would make the line too long. It examines each octet
    /// separately, so that the division of a message into blocks makes no difference.
    fn fold(&mut self, mut text: &[u8], out: &mut impl Out) {
        while let Some(first) = text.first() {
            let safe = SAFE_LINE.saturating_sub(self.length);
            let mut taken = usize::try_from(safe).map_or(text.len(), |safe| safe.min(text.len()));
            if taken == 0 {
                let length = match first {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xf4 => 4,
                    _ => 1,
                };
                if self.length + length > MAX_LINE {
                    out.add(FOLD);
                    self.length = 1;
                    self.folded += 1;
                }
                taken = 1;
            }
            self.add(&text[..taken], out);
            text = &text[taken..];
        }
    }

    fn add(&mut self, text: &[u8], out: &mut impl Out) {
        self.length += text.len() as u64;
        out.add(text);
    }

    fn end(&mut self, out: &mut impl Out) {
        self.length = 0;
        out.add(b"\r\n");
    }
}

impl Shape {
    /// Measures a message by reading it to its end.
    pub fn of(mut message: impl Read) -> io::Result<Shape> {
        let mut measure = Measure::new();
        let mut block = vec![0; BLOCK];
        loop {
            match message.read(&mut block) {
                Ok(0) => return Ok(measure.finish()),
                Ok(got) => measure.push(&block[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct Measure {
    lines: Lines,
    shape: Shape,
    line: u64,
    /// `None` after the header.
    name: Option<FieldName>,
    /// Runs the encoding of DATA, to count what it would produce.
    data: Pieces,
    made: Count,
}

/// The beginning of a header line.
#[derive(Default)]
struct FieldName(Vec<u8>);

impl Measure {
    fn new() -> Measure {
        Measure {
            lines: Lines::default(),
            shape: Shape::default(),
            line: 0,
            name: Some(FieldName::default()),
            data: Pieces::new(Framing::Dots),
            made: Count::default(),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let Measure {
            lines,
            shape,
            line,
            name,
            data,
            made,
        } = self;
        shape.octets += bytes.len() as u64;
        lines.push(bytes, |piece| {
            data.push(&piece, made);
            match piece {
                Piece::Text(text) => {
                    shape.size += text.len() as u64;
                    shape.has_eight_bit |= !text.is_ascii();
                    shape.has_nul |= text.contains(&0);
                    *line += text.len() as u64;
                    if let Some(name) = name {
                        name.push(text);
                    }
                }
                Piece::LoneCr => {
                    shape.size += 1;
                    shape.has_lone_cr |= name.is_none();
                    *line += 1;
                    if let Some(name) = name {
                        name.push(b" ");
                    }
                }
                Piece::End => {
                    shape.size += 2;
                    shape.longest_line = shape.longest_line.max(*line);
                    if let Some(open) = name {
                        shape.is_signed |= open.is_signature();
                        match *line {
                            0 => *name = None,
                            _ => open.0.clear(),
                        }
                    }
                    *line = 0;
                }
            }
        });
    }

    fn finish(mut self) -> Shape {
        let ends_in_cr = self.lines.ends_in_cr();
        self.data.end_line(ends_in_cr, &mut self.made);
        if self.line > 0 || ends_in_cr {
            self.shape.size += 2;
            self.shape.longest_line = self.shape.longest_line.max(self.line);
            self.shape.is_signed |= self.name.is_some_and(|name| name.is_signature());
        }
        let Line {
            doubled, folded, ..
        } = self.data.line;
        let folds = if self.shape.is_signed {
            folded * FOLD.len() as u64
        } else {
            0
        };
        self.shape.size_in_data = self.made.0 - doubled - folds;
        self.shape
    }
}

impl FieldName {
    /// Octets that are kept: more than any name in [`SIGNATURES`] with its colon.
    const MAX: usize = 64;

    fn push(&mut self, text: &[u8]) {
        let room = FieldName::MAX.saturating_sub(self.0.len());
        self.0.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn is_signature(&self) -> bool {
        let colon = self.0.iter().position(|byte| *byte == b':');
        let name = &self.0[..colon.unwrap_or(0)];
        let is_name = |signature: &&str| {
            name.trim_ascii_end()
                .eq_ignore_ascii_case(signature.as_bytes())
        };
        SIGNATURES.iter().any(is_name)
    }
}

#[cfg(test)]
mod tests;
