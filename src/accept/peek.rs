//! A message whose header is read before the message is accepted.

use std::io::{self, Read};

use super::Error;
use super::input::Input;
use crate::message::header::{HeaderScan, Part};

/// A message of which the header is known; reading it gives all of it, from its first octet.
///
/// The header is what acceptance will find, by the same scan: lines of an mbox before it are not
/// part of it.
#[derive(Debug)]
pub struct Peeked<R> {
    /// The header. Its last line may have no end.
    pub header: Vec<u8>,
    input: Input<R>,
}

impl<R: Read> Peeked<R> {
    /// Reads as far as the end of the header, which is held in memory.
    ///
    /// # Errors
    /// Reading fails, or the header is longer than `limit` octets.
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
                Part::End(_) => return Ok(Peeked { header, input }),
            }
            if header.len() > limit {
                return Err(Error::HeaderTooLong { limit });
            }
        }
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.input.take(into)
    }
}
