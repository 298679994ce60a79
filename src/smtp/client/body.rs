//! Sends a message: reads, encodes and writes it, and stops as soon as something is wrong.

use std::io::{self, Read};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::super::content::{Encoder, Framing, Shape};
use super::super::step::Deadlines;
use super::super::verdict::Trouble;
use super::super::wire::{Wire, Wrote};

/// Octets of a message that are read at a time, and octets that are written at a time. A smaller message is
/// sent in one write together with its end.
const READ: usize = 16 * 1024;
const WRITE: usize = 64 * 1024;

/// A message being sent.
pub(super) struct Body<'a, R> {
    pub framing: Framing,
    /// The shape when the message was measured. With another length, a truncated message would count as
    /// complete, a message would be taken for commands, or commands for a message.
    pub shape: Shape,
    pub message: &'a mut R,
    pub block: &'a mut Vec<u8>,
}

impl<R: Read> Body<'_, R> {
    /// Sends the message after the contents of the wire's buffer. [`Wrote::All`] means that the operating
    /// system has the end of the message, or may have it.
    pub async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        wire: &mut Wire<S>,
        deadlines: &Deadlines,
        until: Instant,
    ) -> Result<Wrote, Trouble> {
        let mut encoder = Some(Encoder::new(self.framing));
        self.block.resize(READ, 0);
        let (mut unread, mut uncounted) = (self.shape.octets, self.shape.size);
        let changed = || Trouble::Message("its length has changed".into());
        while let Some(mut encoding) = encoder.take() {
            let command = wire.out.len();
            let is_over = loop {
                match self.message.read(self.block) {
                    Ok(0) => break true,
                    Ok(got) => {
                        unread = unread.checked_sub(got as u64).ok_or_else(changed)?;
                        encoding.push(&self.block[..got], &mut wire.out);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Trouble::Message(error.to_string())),
                }
                // The last octets are never sent without the end: a server that has counted all of them may
                // answer.
                if wire.out.len() >= WRITE && unread > 0 {
                    break false;
                }
            };
            match is_over {
                // The server never receives the end of a message that could not be read to its end: the
                // connection is dropped instead, however much of the message was sent.
                true if unread > 0 => return Err(changed()),
                true => encoding.finish(&mut wire.out),
                false => encoder = Some(encoding),
            }
            if self.framing == Framing::Counted {
                let more = (wire.out.len() - command) as u64;
                uncounted = uncounted
                    .checked_sub(more)
                    .filter(|rest| (*rest == 0) == is_over)
                    .ok_or_else(changed)?;
            }
            match wire.write(deadlines.block, until).await? {
                Wrote::All => {}
                early => return Ok(early),
            }
        }
        Ok(Wrote::All)
    }
}
