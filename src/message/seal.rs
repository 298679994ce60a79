//! The seal: the lengths and checksums of a message file, in its first line.
//!
//! A valid seal proves that the file is complete. A torn write, a tail lost in a power failure and a
//! flipped bit all break it. It protects against accidents, not against an attacker. The checksums are
//! XXH3-128, so `xxh128sum` can verify a message by hand.

use std::fmt::{self, Write as _};

use xxhash_rust::xxh3::Xxh3;

/// The longest block, in octets; a longer one is refused. Enough for about 400,000 recipients with short
/// addresses.
pub const MAX_BLOCK: u64 = 32 << 20;

const NAME: &str = "Mailspool-Seal: ";

/// The lengths and checksums of a message file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The length of the envelope block in octets, including this line. The message starts there.
    pub block: u64,
    /// The length of the message in octets. The message is the rest of the file.
    pub size: u64,
    /// XXH3-128 of the message.
    pub message: u128,
    /// XXH3-128 of the envelope block, see [`block`](super::block).
    pub envelope: u128,
}

/// Why a file does not begin with a valid block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The first line is not a seal.
    #[error("it does not begin with an envelope block")]
    Unsealed,
    /// A newer or older program wrote the block.
    #[error(
        "its envelope block has version {found}, this program knows version {}",
        Seal::VERSION
    )]
    Version {
        /// The version in the file.
        found: String,
    },
    /// The seal's length of the block is impossible.
    #[error("its seal says that the envelope block has {0} octets")]
    Length(u64),
    /// The file is shorter than the block.
    #[error("its envelope block is cut off")]
    CutOff,
    /// A line is not one that this version writes.
    #[error("line {0} of its envelope block is not understood")]
    Line(usize),
    /// The checksum does not match.
    #[error("its envelope block does not match its seal")]
    Broken,
}

impl Seal {
    /// The version of the file layout that this program reads and writes.
    pub const VERSION: &str = "2";

    /// The length of the line in octets, including its line end.
    pub const WIDTH: usize =
        NAME.len() + Seal::VERSION.len() + 1 + 10 + 1 + 15 + 1 + 32 + 1 + 32 + 1;

    /// The length of the whole file in octets.
    pub fn file_size(&self) -> u64 {
        self.block.saturating_add(self.size)
    }

    /// The length of the part of the line that the block's checksum covers: everything before that
    /// checksum.
    pub(super) const COVERED: usize = Seal::WIDTH - (1 + 32 + 1);

    /// Formats the line.
    pub fn line(&self) -> String {
        let Seal {
            block,
            size,
            message,
            envelope,
        } = self;
        let mut line = String::with_capacity(Seal::WIDTH);
        let _ = writeln!(
            line,
            "{NAME}{} {block:010} {size:015} {message:032x} {envelope:032x}",
            Seal::VERSION
        );
        line
    }

    /// Parses the first line of a message file, in its only spelling. `bytes` is the beginning of the file.
    ///
    /// # Errors
    /// If the line is not a seal of this version, or gives the block an impossible length.
    pub fn parse(bytes: &[u8]) -> Result<Seal, BlockError> {
        let rest = bytes.strip_prefix(NAME.as_bytes());
        let rest = rest.ok_or(BlockError::Unsealed)?;
        let version = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
        if version != Seal::VERSION.as_bytes() {
            let is_number = !version.is_empty() && version.len() < 10;
            return if is_number && version.iter().all(u8::is_ascii_digit) {
                Err(BlockError::Version {
                    found: String::from_utf8_lossy(version).into_owned(),
                })
            } else {
                Err(BlockError::Unsealed)
            };
        }
        let line = bytes.get(..Seal::WIDTH).ok_or(BlockError::CutOff)?;
        let read = || -> Option<Seal> {
            let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
            let mut words = text.split(' ').skip(2);
            let mut sum = |digits| u128::from_str_radix(words.next()?, digits).ok();
            let seal = Seal {
                block: sum(10)?.try_into().ok()?,
                size: sum(10)?.try_into().ok()?,
                message: sum(16)?,
                envelope: sum(16)?,
            };
            (seal.line().as_bytes() == line).then_some(seal)
        };
        let seal = read().ok_or(BlockError::Unsealed)?;
        match seal.block {
            length if length <= Seal::WIDTH as u64 || length > MAX_BLOCK => {
                Err(BlockError::Length(length))
            }
            _ => Ok(seal),
        }
    }
}

/// Computes the checksum and length of a message piece by piece.
#[derive(Clone, Default)]
pub struct SealHasher {
    hash: Xxh3,
    size: u64,
}

impl SealHasher {
    /// Starts with no octets.
    pub fn new() -> SealHasher {
        SealHasher::default()
    }

    /// Adds the next bytes of the message.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The octets so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The checksum so far.
    pub fn digest(&self) -> u128 {
        self.hash.digest128()
    }
}

impl fmt::Debug for SealHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealHasher").field(&self.size).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_xxh3_128() {
        // `printf '' | xxh128sum`
        assert_eq!(
            SealHasher::new().digest(),
            0x99aa_06d3_0147_98d8_6001_c324_468d_497f
        );
    }
}
