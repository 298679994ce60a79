//! The content that is sent for a message, and its shape. A notice with 8-bit content has a second, 7-bit
//! form.

use std::io::{self, Read as _};

use crate::disk::{Body, BodyReader};
use crate::message::ReversePath;
use crate::message::seven_bit::{in_seven_bits, is_notice};
use crate::smtp::Shape;
use crate::transport::Message;

/// Octets up to which a message is measured in place. Larger ones are measured on a thread that may block,
/// because they may have to be read from the disk.
const SMALL: u64 = 256 << 10;

/// Octets within which the header of a notice ends.
const MAX_HEADER: u64 = 16 << 10;

/// A message, measured once for all its transactions.
#[derive(Clone)]
pub(super) struct Content {
    shape: Shape,
    body: Body,
    /// The form for a server without 8BITMIME, if it differs.
    seven_bits: Option<(Shape, Body)>,
}

impl Content {
    /// Reads and measures a message.
    ///
    /// # Errors
    /// The message cannot be read; the error text.
    pub async fn of(message: &Message) -> Result<Content, String> {
        if message.body.size() <= SMALL {
            return Content::read(message).map_err(|error| error.to_string());
        }
        let message = message.clone();
        let read = tokio::task::spawn_blocking(move || Content::read(&message)).await;
        let read = read.map_err(|error| error.to_string())?;
        read.map_err(|error| error.to_string())
    }

    fn read(message: &Message) -> io::Result<Content> {
        let body = message.body.clone();
        let shape = Shape::of(body.reader())?;
        let may_be_notice = message.sender == ReversePath::Null && shape.has_eight_bit;
        let seven_bits = if may_be_notice {
            recoded(message)?
        } else {
            None
        };
        Ok(Content {
            shape,
            body,
            seven_bits,
        })
    }

    /// The form for a server, and a reader positioned at its beginning.
    pub fn form(&self, eight_bit_mime: bool) -> (Shape, BodyReader) {
        match &self.seven_bits {
            Some((shape, body)) if !eight_bit_mime => (*shape, body.reader()),
            _ => (self.shape, self.body.reader()),
        }
    }
}

fn recoded(message: &Message) -> io::Result<Option<(Shape, Body)>> {
    let mut bytes = Vec::new();
    let mut reader = message.body.reader();
    reader.by_ref().take(MAX_HEADER).read_to_end(&mut bytes)?;
    if !is_notice(message.id, &bytes) {
        return Ok(None);
    }
    reader.read_to_end(&mut bytes)?;
    let Some(bytes) = in_seven_bits(message.id, &bytes) else {
        return Ok(None);
    };
    let shape = Shape::of(&bytes[..])?;
    Ok(Some((shape, Body::of_bytes(bytes))))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::message::QueueId;
    use crate::message::seven_bit::boundary;

    fn read(sender: &[u8], text: &str) -> Content {
        let id = QueueId::new(jiff::Timestamp::UNIX_EPOCH, [1; 10]);
        let text = text.replace("{boundary}", &boundary(id, 0));
        let message = Message {
            id,
            sender: ReversePath::parse(sender).unwrap(),
            dsn: None,
            body: Body::of_bytes(text.into_bytes()),
        };
        Content::read(&message).unwrap()
    }

    fn is_ascii(content: &Content, eight_bit_mime: bool) -> bool {
        let (shape, mut reader) = content.form(eight_bit_mime);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(shape, Shape::of(&bytes[..]).unwrap());
        assert_eq!(bytes.is_ascii(), !shape.has_eight_bit);
        bytes.is_ascii()
    }

    #[test]
    fn only_a_notice_of_ours_goes_in_seven_bits_and_only_where_it_must() {
        let notice = "From: <a@b>\nContent-Type: multipart/report; boundary=\"{boundary}\"\n\
                      Content-Transfer-Encoding: 8bit\n\n--{boundary}\n\
                      Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n\
                      Subject: x\n\n\u{e4}\n\n--{boundary}--\n";
        let ours = read(b"", notice);
        assert!(is_ascii(&ours, false) && !is_ascii(&ours, true));
        let long = notice.replace('\u{e4}', &"\u{e4}\n".repeat(100_000));
        assert!(is_ascii(&read(b"", &long), false));
        for content in [
            read(b"a@b", notice),
            read(b"", &notice.replace("{boundary}", "=_01234567")),
            read(b"", "Subject: x\n\n\u{e4}\n"),
        ] {
            assert!(!is_ascii(&content, false) && !is_ascii(&content, true));
        }
    }
}
