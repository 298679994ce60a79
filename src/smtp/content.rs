//! A message's octets as they go over the wire: every line ends in CRLF, and none but the last
//! begins with a lone dot.
//!
//! Servers disagree about where a message ends: some take a bare LF or CR for a line's end, some
//! drop NULs before they look. A message that has a dot between two such ends would be two messages
//! for them, and the second one forged. So nothing of the kind is ever sent: CR, LF and CRLF all
//! become CRLF, and dots are doubled after that. In [`Framing::Dots`] NULs are left out, as
//! RFC 5321 4.1.1.4 has no place for them. In [`Framing::Counted`] they stay: there the length
//! ends the message.

use std::io::{self, Read};

/// How the end of a message is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DATA: a dot on a line of its own, other leading dots doubled.
    Dots,
    /// BDAT: octets are counted beforehand.
    Counted,
}

/// What has to be known of a message before it is sent, from one reading of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Octets with every line ending in CRLF, doubled dots not counted (RFC 1870). After
    /// [`Framing::Dots`] as many fewer as there are NULs.
    pub size: u64,
    /// Somewhere is an octet above 127.
    pub has_eight_bit: bool,
    /// The header is UTF-8, and not ASCII: the message needs SMTPUTF8 (RFC 6531). An octet above
    /// 127 in a header that is not UTF-8 is a mistake that nobody declares.
    pub has_utf8_header: bool,
    /// There are NULs.
    pub has_nul: bool,
    /// The longest line, without its end.
    pub longest_line: u64,
}

/// The most octets of a line, without its end, that DATA promises to carry (RFC 5321 4.5.3.1.6).
pub const MAX_LINE: u64 = 998;

/// Octets read at a time.
const BLOCK: usize = 64 * 1024;

/// Splits a stream of octets at CR, LF and CRLF.
#[derive(Debug, Default)]
struct Lines {
    after_cr: bool,
}

enum Piece<'a> {
    Text(&'a [u8]),
    End,
}

impl Lines {
    fn push<'a>(&mut self, mut bytes: &'a [u8], mut each: impl FnMut(Piece<'a>)) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let is_end = |byte: &u8| *byte == b'\n' || *byte == b'\r';
            let Some(end) = bytes.iter().position(is_end) else {
                each(Piece::Text(bytes));
                return;
            };
            if end > 0 {
                each(Piece::Text(&bytes[..end]));
            }
            each(Piece::End);
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
    }
}

/// Turns a message into what is sent, block by block.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    lines: Lines,
    in_line: bool,
}

impl Encoder {
    /// An encoder at the beginning of a message.
    pub fn new(framing: Framing) -> Encoder {
        Encoder {
            framing,
            lines: Lines::default(),
            in_line: false,
        }
    }

    /// Encodes the next octets of the message behind what is in `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Encoder {
            framing,
            lines,
            in_line,
        } = self;
        let mut add = |bytes: &[u8]| {
            lines.push(bytes, |piece| match piece {
                Piece::Text(text) => {
                    if *framing == Framing::Dots && !*in_line && text[0] == b'.' {
                        out.push(b'.');
                    }
                    *in_line = true;
                    out.extend_from_slice(text);
                }
                Piece::End => {
                    *in_line = false;
                    out.extend_from_slice(b"\r\n");
                }
            });
        };
        match framing {
            // Before anything else is looked at: a NUL hides nothing.
            Framing::Dots => bytes.split(|byte| *byte == 0).for_each(add),
            Framing::Counted => add(bytes),
        }
    }

    /// The end of the message: its last line's, if that has none, and the lone dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.in_line {
            out.extend_from_slice(b"\r\n");
        }
        if self.framing == Framing::Dots {
            out.extend_from_slice(b".\r\n");
        }
    }
}

impl Shape {
    /// Reads a message to its end.
    pub fn of(mut message: impl Read) -> io::Result<Shape> {
        let mut measure = Measure::default();
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

#[derive(Default)]
struct Measure {
    lines: Lines,
    shape: Shape,
    line: u64,
    header: Header,
}

/// What is known of the header so far.
#[derive(Default)]
struct Header {
    is_over: bool,
    has_eight_bit: bool,
    is_not_utf8: bool,
    /// The beginning of a character whose end is still to come.
    tail: Vec<u8>,
}

impl Measure {
    fn push(&mut self, bytes: &[u8]) {
        let Measure {
            lines,
            shape,
            line,
            header,
        } = self;
        lines.push(bytes, |piece| match piece {
            Piece::Text(text) => {
                shape.size += text.len() as u64;
                shape.has_eight_bit |= !text.is_ascii();
                shape.has_nul |= text.contains(&0);
                *line += text.len() as u64;
                header.push(text);
            }
            Piece::End => {
                shape.size += 2;
                shape.longest_line = shape.longest_line.max(*line);
                header.end_line(*line == 0);
                *line = 0;
            }
        });
    }

    fn finish(mut self) -> Shape {
        if self.line > 0 {
            self.push(b"\n");
        }
        self.shape.has_utf8_header = self.header.has_eight_bit && !self.header.is_not_utf8;
        self.shape
    }
}

impl Header {
    fn push(&mut self, text: &[u8]) {
        if self.is_over || (self.tail.is_empty() && text.is_ascii()) {
            return;
        }
        self.has_eight_bit = true;
        self.tail.extend_from_slice(text);
        let kept = match std::str::from_utf8(&self.tail) {
            Ok(_) => self.tail.len(),
            Err(error) => {
                self.is_not_utf8 |= error.error_len().is_some();
                error.valid_up_to()
            }
        };
        match self.is_not_utf8 {
            true => self.tail.clear(),
            false => drop(self.tail.drain(..kept)),
        }
    }

    fn end_line(&mut self, is_empty: bool) {
        self.is_not_utf8 |= !self.tail.is_empty();
        self.tail.clear();
        self.is_over |= is_empty;
    }
}

#[cfg(test)]
mod tests;
