//! The seal: length and checksum of a message file and its envelope.
//!
//! It is the last line of `info/transport/<id>` and says that everything before it was
//! written. A torn write, a file that lost its tail in a power cut and a flipped bit all
//! fail it. It guards against accidents, not against malice; the sum is XXH3-128, so
//! `xxh128sum` recomputes a message's by hand.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// Length and checksum of a message file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Octets of the message file.
    pub size: u64,
    /// XXH3-128 of the message file.
    pub message: u128,
    /// XXH3-128 of the envelope, see [`of_envelope`].
    pub envelope: u128,
}

/// The checksum over the envelope: sender file, recipients file and the lines of the transport
/// file above the seal, each followed by a NUL (which none of them contains).
pub fn of_envelope(sender: &[u8], recipients: &[u8], transport: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    for part in [sender, recipients, transport] {
        hash.update(part);
        hash.update(&[0]);
    }
    hash.digest128()
}

/// Sums a message file up as it streams by.
#[derive(Clone, Default)]
pub struct SealHasher {
    hash: Xxh3,
    size: u64,
}

impl SealHasher {
    /// A sum over nothing yet.
    pub fn new() -> SealHasher {
        SealHasher::default()
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Octets so far.
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

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seal {
            size,
            message,
            envelope,
        } = self;
        write!(f, "xxh128 {size} {message:032x} {envelope:032x}")
    }
}

impl Seal {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Seal> {
        let mut words = text.split(' ');
        let (algorithm, size, message, envelope) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let sum = |word: &str| {
            (word.len() == 32)
                .then(|| u128::from_str_radix(word, 16).ok())
                .flatten()
        };
        let seal = Seal {
            size: size.parse().ok()?,
            message: sum(message)?,
            envelope: sum(envelope)?,
        };
        (algorithm == "xxh128" && words.next().is_none() && seal.to_string() == text)
            .then_some(seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_reads_back_and_nothing_else_does() {
        let seal = Seal {
            size: 12,
            message: 1,
            envelope: u128::MAX,
        };
        let text = seal.to_string();
        assert_eq!(Seal::parse(&text), Some(seal));
        for bad in [
            "",
            "xxh128 12",
            &text.replace("xxh128", "crc32"),
            &text[..text.len() - 1],
            &format!("{text} "),
            &text.replace(" 12 ", " +12 "),
        ] {
            assert_eq!(Seal::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_boundary_between_parts_counts() {
        assert_ne!(of_envelope(b"ab", b"c", b""), of_envelope(b"a", b"bc", b""));
    }

    #[test]
    fn the_sum_is_the_published_one() {
        // `printf '' | xxh128sum`
        assert_eq!(
            SealHasher::new().digest(),
            0x99aa_06d3_0147_98d8_6001_c324_468d_497f
        );
    }
}
