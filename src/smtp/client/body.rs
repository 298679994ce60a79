//! A message on its way: read, encoded, written, and broken off as soon as something is wrong.

use std::io::{self, Read};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::super::content::{Encoder, Framing};
use super::super::step::Deadlines;
use super::super::verdict::Trouble;
use super::super::wire::{Wire, Wrote};

/// Octets of a message that are read at a time, and how many are written at a time. What is
/// smaller goes in one write, its end included.
const READ: usize = 16 * 1024;
const WRITE: usize = 64 * 1024;

/// A message that is being sent.
pub(super) struct Body<'a, R> {
    pub framing: Framing,
    pub size: u64,
    pub message: &'a mut R,
    pub block: &'a mut Vec<u8>,
}

impl<R: Read> Body<'_, R> {
    /// Sends it behind what is in the wire's buffer. [`Wrote::All`] means that the operating
    /// system has the end of it, or may have.
    pub async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        wire: &mut Wire<S>,
        deadlines: &Deadlines,
        until: Instant,
    ) -> Result<Wrote, Trouble> {
        let mut encoder = Some(Encoder::new(self.framing));
        self.block.resize(READ, 0);
        let mut left = self.size;
        while let Some(mut encoding) = encoder.take() {
            let command = wire.out.len();
            let is_over = loop {
                match self.message.read(self.block) {
                    Ok(0) => break true,
                    Ok(got) => encoding.push(&self.block[..got], &mut wire.out),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Trouble::Message(error.to_string())),
                }
                if wire.out.len() >= WRITE {
                    break false;
                }
            };
            match is_over {
                true => encoding.finish(&mut wire.out),
                false => encoder = Some(encoding),
            }
            if self.framing == Framing::Counted {
                // The server was told how much there is. Any other length would make commands of
                // the message, or a message of commands.
                let more = (wire.out.len() - command) as u64;
                let rest = left.checked_sub(more);
                left = rest
                    .filter(|rest| (*rest == 0) == is_over)
                    .ok_or_else(|| Trouble::Message("its length has changed".into()))?;
            }
            match wire.write(deadlines.block, until).await? {
                Wrote::All => {}
                early => return Ok(early),
            }
        }
        Ok(Wrote::All)
    }
}
