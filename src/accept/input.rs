//! The input stream.

use std::io::{self, Read};

use super::Error;

/// The input, with the bytes read but not yet written.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    /// Zeroed once, and never cleared again.
    buffer: Vec<u8>,
    /// Whether the last read filled it.
    is_full: bool,
    /// The part of the buffer that was read and not consumed.
    pub held: std::ops::Range<usize>,
    pub total: u64,
    pub eof: bool,
}

impl<R: Read> Input<R> {
    const CHUNK: usize = 64 << 10;

    /// Octets of the first buffer. Enough for most messages: each page that is cleared and not used costs a
    /// page fault.
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

    /// Reads more after the held bytes. Only a read of zero bytes is the end. Interrupted reads are retried;
    /// other errors are returned.
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

    /// Reads octets: first the held ones, then from the reader.
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
