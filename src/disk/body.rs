//! The bytes of a message, for delivery.

use std::io;
use std::sync::Arc;

use super::{Disk, File};

/// The body of a message file. It can be read any number of times, also concurrently. Readers never move
/// the descriptor's offset and never pass the descriptor on, because it carries the lock.
#[derive(Clone, Debug)]
pub struct Body {
    source: Source,
    size: u64,
}

#[derive(Clone, Debug)]
enum Source {
    File {
        disk: Disk,
        file: Arc<File>,
        begin: u64,
    },
    Bytes(Arc<[u8]>),
}

/// Reads a [`Body`] from its beginning.
#[derive(Debug)]
pub struct BodyReader {
    body: Body,
    offset: u64,
}

impl Body {
    /// `size` octets of a file, from `begin`.
    #[doc(hidden)]
    pub fn new(disk: Disk, file: Arc<File>, begin: u64, size: u64) -> Body {
        let source = Source::File { disk, file, begin };
        Body { source, size }
    }

    /// A message that is in no file, such as an example, or one to test a transport or a notice with.
    pub fn of_bytes(bytes: impl Into<Arc<[u8]>>) -> Body {
        let bytes = bytes.into();
        Body {
            size: bytes.len() as u64,
            source: Source::Bytes(bytes),
        }
    }

    /// Size in octets.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A reader at the beginning.
    pub fn reader(&self) -> BodyReader {
        BodyReader {
            body: self.clone(),
            offset: 0,
        }
    }
}

impl BodyReader {
    /// Reads until `bytes` is full or the message ends. Returns the number of octets read.
    #[doc(hidden)]
    pub fn fill(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut have = 0;
        while have < bytes.len() {
            match io::Read::read(self, &mut bytes[have..])? {
                0 => break,
                got => have += got,
            }
        }
        Ok(have)
    }
}

impl io::Read for BodyReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.body.size - self.offset;
        let most = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let got = match &self.body.source {
            Source::File { disk, file, begin } => {
                disk.read_at(file, &mut bytes[..most], begin + self.offset)?
            }
            Source::Bytes(all) => {
                let from = usize::try_from(self.offset).unwrap_or(usize::MAX);
                bytes[..most].copy_from_slice(&all[from..from + most]);
                most
            }
        };
        if got == 0 {
            // The seal covers the size, so a shorter file is not the message.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += got as u64;
        Ok(got)
    }
}
