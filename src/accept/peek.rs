//! Reading the header of a message before accepting it.

use std::io::{self, Read};

use super::Error;
use super::input::Input;
use crate::message::header::{HeaderEnd, HeaderScan, Part};
use crate::message::line;

/// A message with its header already read. Reading it returns the whole message from its first octet.
///
/// The header is what acceptance will find, by the same scan: mbox lines before it are not part of it.
#[derive(Debug)]
pub struct Peeked<R> {
    /// The header. Its last line may lack a line end.
    pub header: Vec<u8>,
    /// If no empty line ends the header: the lines after it, up to the first empty one. They may have been
    /// meant as header fields.
    pub beyond: Vec<u8>,
    input: Input<R>,
}

impl<R: Read> Peeked<R> {
    /// Reads the header and `beyond` into memory.
    ///
    /// # Errors
    /// If reading fails, or if the header is longer than `limit` octets. `beyond` is cut at the same limit.
    pub fn read(reader: R, limit: usize) -> Result<Peeked<R>, Error> {
        let mut input = Input::new(reader);
        let mut scan = HeaderScan::of_input(&[]);
        let (mut header, mut at) = (Vec::new(), 0);
        loop {
            match scan.next(&input.bytes()[at..], input.eof) {
                Part::Separators(length) | Part::TakenOut(length) => at += length,
                Part::Fields(length) => {
                    header.extend_from_slice(&input.bytes()[at..at + length]);
                    at += length;
                }
                Part::Undecided => input.fill()?,
                Part::End(end) => {
                    let beyond = match end {
                        HeaderEnd::Body => beyond(&mut input, at, limit)?,
                        HeaderEnd::EmptyLine | HeaderEnd::Eof => Vec::new(),
                    };
                    return Ok(Peeked {
                        header,
                        beyond,
                        input,
                    });
                }
            }
            if header.len() > limit {
                return Err(Error::HeaderTooLong { limit });
            }
        }
    }
}

/// Returns the lines from an octet on, up to the first empty line or `limit` octets.
fn beyond(input: &mut Input<impl Read>, from: usize, limit: usize) -> Result<Vec<u8>, Error> {
    loop {
        let rest = &input.bytes()[from..];
        let end = match before_empty_line(rest) {
            None if !input.eof && rest.len() < limit => {
                input.fill()?;
                continue;
            }
            end => end.unwrap_or(rest.len()),
        };
        return Ok(rest[..end.min(limit)].to_vec());
    }
}

/// Returns the octets before the first empty line, if there is one.
fn before_empty_line(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    for line in line::lines(text) {
        if line.ends_with(b"\n") && line::content(line).is_empty() {
            return Some(at);
        }
        at += line.len();
    }
    None
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.input.take(into)
    }
}
