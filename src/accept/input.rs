//! The stream of bytes that comes in.

use std::io::{self, Read};

use super::Error;

/// The input, with what was read and not yet written.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    /// Made of zeroes once, and never cleared again.
    buffer: Vec<u8>,
    /// Whether the last read filled it.
    is_full: bool,
    /// What of the buffer was read and not consumed.
    pub held: std::ops::Range<usize>,
    pub total: u64,
    pub eof: bool,
}

impl<R: Read> Input<R> {
    const CHUNK: usize = 64 << 10;

    /// Enough for most messages: each page that is cleared and not used costs a submission a page fault.
    const FIRST: usize = 8 << 10;

    pub fn new(reader: R) -> Input<R> {
        Input {
            reader,
            buffer: vec![0; Self::FIRST],
            is_full: false,
            held: 0..0,
            total: 0,
            eof: false,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.held.clone()]
    }

    /// Reads more behind what is there. Only a read of nothing is the end; an error is an
    /// error, and an interrupted read is none.
    pub fn fill(&mut self) -> Result<(), Error> {
        self.buffer.copy_within(self.held.clone(), 0);
        self.held = 0..self.held.len();
        let room = self.buffer.len() - self.held.end;
        let is_large = self.buffer.len() >= Self::CHUNK;
        if room < Self::CHUNK / 2 && (is_large || self.is_full) {
            self.buffer.resize(self.held.end + Self::CHUNK, 0);
        }
        let got = loop {
            match self.reader.read(&mut self.buffer[self.held.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(Error::Input)?,
            }
        };
        self.held.end += got;
        self.is_full = self.held.end == self.buffer.len();
        self.total += got as u64;
        self.eof = got == 0;
        Ok(())
    }

    pub fn consume(&mut self, count: usize) {
        self.held.start += count;
    }

    /// Gives the octets away: first what is held, then what is left.
    pub fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.held.is_empty() {
            return self.reader.read(into);
        }
        let length = into.len().min(self.held.len());
        into[..length].copy_from_slice(&self.bytes()[..length]);
        self.consume(length);
        Ok(length)
    }
}
