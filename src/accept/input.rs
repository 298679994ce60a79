//! The stream of bytes that comes in.

use std::io::{self, Read};

use super::Error;

/// The input, with what was read and not yet written.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    /// Made of zeroes once, which costs nothing, and never cleared again.
    buffer: Vec<u8>,
    /// What of the buffer was read and not consumed.
    pub held: std::ops::Range<usize>,
    pub total: u64,
    pub eof: bool,
}

impl<R: Read> Input<R> {
    const CHUNK: usize = 64 << 10;

    pub fn new(reader: R) -> Input<R> {
        Input {
            reader,
            buffer: vec![0; Self::CHUNK],
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
        if self.buffer.len() - self.held.end < Self::CHUNK / 2 {
            self.buffer.resize(self.held.end + Self::CHUNK, 0);
        }
        let got = loop {
            match self.reader.read(&mut self.buffer[self.held.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(Error::Input)?,
            }
        };
        self.held.end += got;
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
