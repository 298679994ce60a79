//! Assembly of a notice from its parts.

use super::fields::Status;
use super::original::{Encoding, Original};
use crate::message::QueueId;
use crate::message::field;
use crate::message::seven_bit::{boundary, quoted_printable};

/// A part: its media type, its description, and its encoded octets.
pub(super) struct Part {
    kind: &'static str,
    described: &'static str,
    encoding: Encoding,
    octets: Vec<u8>,
}

/// Returns the part for people, the part for programs, and the returned message.
pub(super) fn three(text: String, status: Status, original: Original) -> [Part; 3] {
    let status_encoding = if status.fields.is_ascii() {
        Encoding::SevenBit
    } else {
        Encoding::EightBit
    };
    // Always in seven bits. RFC 2046 forbids re-encoding only for message/*.
    let (text_encoding, text) = if text.is_ascii() && text.lines().all(|line| line.len() < 78) {
        (Encoding::SevenBit, text.into_bytes())
    } else {
        (Encoding::QuotedPrintable, quoted_printable(text.as_bytes()))
    };
    let part = |kind, described, encoding, octets| Part {
        kind,
        described,
        encoding,
        octets,
    };
    [
        part("text/plain; charset=utf-8", "Notice", text_encoding, text),
        part(
            if status.is_global {
                "message/global-delivery-status"
            } else {
                "message/delivery-status"
            },
            "Delivery report",
            status_encoding,
            status.fields.into_bytes(),
        ),
        part(
            match (original.whole, original.has_utf8_header) {
                (true, true) => "message/global",
                (true, false) => "message/rfc822",
                (false, true) => "message/global-headers",
                (false, false) => "text/rfc822-headers",
            },
            if original.whole {
                "Your message"
            } else {
                "The header of your message"
            },
            original.encoding,
            original.bytes,
        ),
    ]
}

/// Returns the whole notice: the given header, then the parts. Messages in the spool have bare line feeds;
/// the SMTP client converts them to CRLF.
pub(super) fn with_parts(header: Vec<u8>, id: QueueId, parts: [Part; 3]) -> Vec<u8> {
    // The boundary must not occur in a part. The author of a message cannot know the notice's id in advance,
    // but this does not rely on that.
    let stands_there = |name: &String| parts.iter().any(|part| contains(&part.octets, name));
    let boundary = (0..)
        .map(|n| boundary(id, n))
        .find(|part| !stands_there(part));
    let boundary = boundary.unwrap_or_default();
    // The whole needs the widest encoding of its parts (RFC 2045, 6.4).
    let is_eight_bit = parts.iter().any(|part| part.encoding == Encoding::EightBit);
    let encoding = if is_eight_bit {
        Encoding::EightBit
    } else {
        Encoding::SevenBit
    };
    let size: usize = parts.iter().map(|part| part.octets.len()).sum();
    let mut all = header;
    all.reserve_exact(size + 2048);
    let mut fields = String::new();
    let kind = format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\"");
    field::write(&mut fields, "Content-Type", &kind, "\n");
    let name = "Content-Transfer-Encoding";
    field::write(&mut fields, name, encoding.as_str(), "\n");
    all.extend_from_slice(fields.as_bytes());
    for part in parts {
        fields.clear();
        field::write(&mut fields, "Content-Type", part.kind, "\n");
        field::write(&mut fields, "Content-Description", part.described, "\n");
        field::write(&mut fields, name, part.encoding.as_str(), "\n");
        all.extend_from_slice(format!("\n--{boundary}\n{fields}\n").as_bytes());
        all.extend_from_slice(&part.octets);
    }
    all.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
    all
}

fn contains(octets: &[u8], text: &str) -> bool {
    let mut windows = octets.windows(text.len());
    windows.any(|window| window == text.as_bytes())
}
