//! The envelope block: the first lines of a message file, before the message itself.
//!
//! The block has the form of header fields with LF line ends. So the file is a valid message, and `cat`
//! shows the envelope and the message together:
//!
//! ```text
//! Mailspool-Seal: 2 0000000432 000000000000561 4f6d…9b1e 02c1…77aa
//! Mailspool-State: idle 000
//! Mailspool-Id: 01a2021c-bff6-75ef-9344-1a834d1db9b8
//! Mailspool-From: <alice@example.org>
//! Mailspool-Entrance: active
//! Mailspool-Recipients: 2
//! Mailspool-To: - <bob@example.net>
//! Mailspool-To: - <carol@example.com> NOTIFY=never
//! ```
//!
//! The first line is the [seal](super::seal). It and the second line have a fixed width, so that they can
//! be overwritten in place. The facts about the whole message come before the recipients, so that the first
//! 4 KiB of the file are enough to list the message.
//!
//! Only the second line and the octet after each `Mailspool-To: ` ever change, each in place. The octet is
//! `-` for a recipient with work left and `+` for a finished one. The checksum of the block skips the
//! second line and reads each of the octets as `-`.
//!
//! Each envelope has exactly one spelling. A block in another spelling is refused, because it may hold a
//! parameter that this version cannot honour.

mod reader;
mod writer;

pub use writer::{close, open};

use super::envelope::Envelope;
use super::id::QueueId;
use super::seal::Seal;

/// The seal and the state line lie within this many octets.
pub const HEAD: usize = 512;

const STATE: &str = "Mailspool-State: ";
const TO: &str = "Mailspool-To: ";

/// The content of the state line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Every recipient is finished; the message is about to be removed.
    pub done: bool,
    /// Consecutive interrupted attempts, at most 999.
    pub interrupted: u16,
}

/// An envelope block as read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The message's id.
    pub id: QueueId,
    /// The lengths and checksums.
    pub seal: Seal,
    /// The state line.
    pub mark: Mark,
    /// The sender, the recipients and the parameters of the submission.
    pub envelope: Envelope,
    /// For each recipient, whether it is finished.
    pub finished: Vec<bool>,
}

impl Mark {
    /// The length of the state line in octets.
    pub const WIDTH: usize = STATE.len() + "idle 000\n".len();
    /// The offset of the state line in the file.
    pub const OFFSET: u64 = Seal::WIDTH as u64;

    /// Formats the state line.
    pub fn line(self) -> String {
        let word = if self.done { "done" } else { "idle" };
        format!("{STATE}{word} {:03}\n", self.interrupted.min(999))
    }

    fn parse(line: &str) -> Option<Mark> {
        let (word, count) = line.strip_prefix(STATE)?.split_once(' ')?;
        let mark = Mark {
            done: word == "done",
            interrupted: count.parse().ok()?,
        };
        (mark.line().strip_suffix('\n') == Some(line)).then_some(mark)
    }
}

#[cfg(test)]
mod tests;
