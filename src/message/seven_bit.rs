//! Converts a notice of this program to seven bits, for servers that do not offer 8BITMIME (RFC 6152, 3).
//!
//! Almost every server offers it. So a notice is queued with the returned message unchanged, as an 8-bit
//! `message/rfc822`, which every mail program opens. It is encoded only for a server without 8BITMIME. A
//! part of type `message/rfc822` must not be encoded (RFC 2046, 5.2.1), and recoding the parts of another
//! program's message would change that message. But `message/global` may be encoded, and accepts any
//! message that `message/rfc822` accepts (RFC 6532, 3.7). The other types in a notice may be encoded, too
//! (RFC 6522, 3, and RFC 6533). A reader that decodes the part gets the message, octet by octet.
//!
//! Other messages are never converted.

use super::QueueId;

const EIGHT_BIT: &str = "\nContent-Transfer-Encoding: 8bit";

/// Returns the boundary between the parts of a notice. The caller increments `n` until no part contains it.
///
/// The boundary contains the notice's id. So a queued message with its own id there is a notice of this
/// program: the author of any other message cannot know which id it gets.
pub fn boundary(notice: QueueId, n: u32) -> String {
    format!("=_{notice}.{n}")
}

/// Whether a message is a notice of this program, judged by its header. `message` may end anywhere after
/// the header.
pub fn is_notice(id: QueueId, message: &[u8]) -> bool {
    delimiter(id, message).is_some()
}

/// Returns the notice in seven bits, or `None` if it is not a notice of this program or needs SMTPUTF8.
pub fn in_seven_bits(id: QueueId, notice: &[u8]) -> Option<Vec<u8>> {
    let delimiter = delimiter(id, notice)?;
    let (header, body) = split_once(notice, b"\n\n")?;
    let header = std::str::from_utf8(header).ok()?;
    let mut out = Vec::with_capacity(notice.len() + notice.len() / 4);
    out.extend_from_slice(
        header
            .replace(EIGHT_BIT, &EIGHT_BIT.replace('8', "7"))
            .as_bytes(),
    );
    out.push(b'\n');
    // Includes the line feed that ends the header, because each delimiter starts with a line feed.
    let mut rest = &notice[notice.len() - body.len() - 1..];
    while let Some((part, after)) = split_once(rest, delimiter.as_bytes()) {
        write_part(part, &mut out);
        out.extend_from_slice(delimiter.as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest);
    out.is_ascii().then_some(out)
}

/// The delimiter of the parts, if the message is a notice of this program with an ASCII header.
fn delimiter(id: QueueId, notice: &[u8]) -> Option<String> {
    let (header, _) = split_once(notice, b"\n\n")?;
    let header = std::str::from_utf8(header).ok()?;
    let begin = format!("boundary=\"{}", boundary(id, 0).strip_suffix('0')?);
    let (_, from) = header.split_once(&begin)?;
    let (n, _) = from.split_once('"')?;
    let delimiter = format!("\n--{}", boundary(id, n.parse().ok()?));
    header.is_ascii().then_some(delimiter)
}

fn write_part(part: &[u8], out: &mut Vec<u8>) {
    let fields = split_once(part, b"\n\n").and_then(|(fields, content)| {
        let fields = std::str::from_utf8(fields).ok()?;
        fields.contains(EIGHT_BIT).then_some((fields, content))
    });
    let Some((fields, content)) = fields else {
        return out.extend_from_slice(part);
    };
    let fields = fields.replace(EIGHT_BIT, &EIGHT_BIT.replace("8bit", "quoted-printable"));
    let fields = fields.replace(
        "\nContent-Type: message/rfc822",
        "\nContent-Type: message/global",
    );
    out.extend_from_slice(fields.as_bytes());
    out.extend_from_slice(b"\n\n");
    out.extend_from_slice(&quoted_printable(content));
}

fn split_once<'a>(bytes: &'a [u8], by: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(by.len()).position(|window| window == by)?;
    Some((&bytes[..at], &bytes[at + by.len()..]))
}

/// Encodes as quoted-printable (RFC 2045, 6.7), with LF line ends.
pub fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    let mut length = 0;
    for (n, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            out.push(b'\n');
            length = 0;
            continue;
        }
        let ends_line = bytes.get(n + 1).is_none_or(|next| *next == b'\n');
        let is_plain = match byte {
            b' ' | b'\t' => !ends_line,
            b'=' => false,
            byte => byte.is_ascii_graphic(),
        };
        let needs = if is_plain { 1 } else { 3 };
        if length + needs > 75 {
            out.extend_from_slice(b"=\n");
            length = 0;
        }
        if is_plain {
            out.push(*byte)
        } else {
            out.extend_from_slice(format!("={byte:02X}").as_bytes())
        }
        length += needs;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> QueueId {
        QueueId::new(jiff::Timestamp::UNIX_EPOCH, [7; 10])
    }

    fn notice(header: &str, parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
        let boundary = boundary(id(), 3);
        let mut all = format!(
            "{header}Content-Type: multipart/report; report-type=delivery-status;\n \
             boundary=\"{boundary}\"\nContent-Transfer-Encoding: 8bit\n\n"
        )
        .into_bytes();
        for (kind, encoding, content) in parts {
            let head = format!(
                "\n--{boundary}\nContent-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n"
            );
            all.extend_from_slice(head.trim_start().as_bytes());
            all.extend_from_slice(content);
            all.push(b'\n');
        }
        all.extend_from_slice(format!("--{boundary}--\n").as_bytes());
        all
    }

    #[test]
    fn only_eight_bit_parts_are_encoded() {
        let eight = notice(
            "To: <a@x>\nSubject: x: 8bit\n",
            &[
                ("text/plain", "7bit", b": 8bit\n"),
                (
                    "message/global-delivery-status",
                    "8bit",
                    "\u{e4}: 8bit\n".as_bytes(),
                ),
                ("message/rfc822", "8bit", b"Subject: x\n\nh\xe4=\n\n\xff "),
            ],
        );
        let seven = notice(
            "To: <a@x>\nSubject: x: 8bit\n",
            &[
                ("text/plain", "7bit", b": 8bit\n"),
                (
                    "message/global-delivery-status",
                    "quoted-printable",
                    b"=C3=A4: 8bit\n",
                ),
                (
                    "message/global",
                    "quoted-printable",
                    b"Subject: x\n\nh=E4=3D\n\n=FF=20",
                ),
            ],
        );
        let seven = String::from_utf8(seven).unwrap();
        let seven = seven.replacen("Encoding: 8bit", "Encoding: 7bit", 1);
        let made = in_seven_bits(id(), &eight).unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), seven);
    }

    #[test]
    fn other_messages_are_not_converted() {
        let part: (&str, &str, &[u8]) = ("message/rfc822", "8bit", b"\n\xff\n");
        let ours = notice("To: <a@x>\n", &[part]);
        assert!(in_seven_bits(id(), &ours).is_some());
        let other = QueueId::new(jiff::Timestamp::UNIX_EPOCH, [8; 10]);
        assert_eq!(in_seven_bits(other, &ours), None);
        // This one needs SMTPUTF8, and a server that offers SMTPUTF8 offers 8BITMIME.
        assert_eq!(
            in_seven_bits(id(), &notice("To: <\u{e4}@x>\n", &[part])),
            None
        );
        for message in ["", "Subject: x\n\n\u{e4}\n", "\u{e4}", "\n\n"] {
            assert_eq!(in_seven_bits(id(), message.as_bytes()), None);
        }
    }

    #[test]
    fn quoted_printable_lines_are_short() {
        let quoted = quoted_printable(&b"x=\xff ".repeat(500));
        assert!(
            quoted
                .split(|byte| *byte == b'\n')
                .all(|line| line.len() <= 76)
        );
        assert_eq!(quoted_printable(b"a \nb\t\n.\n"), b"a=20\nb=09\n.\n");
    }
}
