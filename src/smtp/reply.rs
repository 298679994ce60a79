//! A server's replies, parsed from any pieces in which they arrive (RFC 5321 4.2, RFC 2034).
//!
//! Text may be anything and is only shortened: 100 KB on a line, NULs and Latin-1 do not change what the
//! code means. The form has to be right. A server that mixes codes within one reply, or omits what follows
//! them, is ambiguous, and guessing would lose mail or deliver it twice.
//!
//! Two errors are repaired, because they have only one meaning. The code decides the class of a reply, and
//! an enhanced code of another class only its subject: `451 5.7.3` is 4.7.3. And a line without a code
//! within a greeting or the answer to EHLO ([`Form::Lenient`]) is ignored, as in Postfix: no other command
//! is under way then to which it could be the answer.

use super::step::Step;
use crate::message::{EnhancedCode, Reply};

/// Octets of a line that are kept; the rest is dropped. RFC 5321 promises 512.
const MAX_LINE: usize = 8 * 1024;

/// Octets of one reply that are kept, over all its lines; the rest is dropped.
const MAX_KEPT: usize = 64 * 1024;

/// Octets of one reply that are read. A longer reply is an error: it only keeps the client busy.
const MAX_REPLY: usize = 1024 * 1024;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced status code, if there is one, with the class of the code.
    pub enhanced: Option<EnhancedCode>,
    /// The text of every line, without the codes; long ones are cut. Control characters are not removed.
    pub lines: Vec<String>,
}

/// Why input is not a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code from 200 to 599 followed by a blank, a hyphen or the end of the
    /// line.
    #[error("not a reply: {0:?}")]
    Form(String),
    /// The lines of one reply have different codes.
    #[error("a reply that begins with {first} goes on with {then}")]
    Mixed {
        /// The first line's code.
        first: u16,
        /// The differing code of a later line.
        then: u16,
    },
    /// More than a megabyte.
    #[error("a reply of more than {MAX_REPLY} octets")]
    TooLong,
}

/// How strictly a reply is parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Every line must have the code.
    #[default]
    Strict,
    /// Lines between the first and the last may lack it. They are ignored.
    Lenient,
}

impl Form {
    /// How strictly the answer to a step is parsed.
    pub fn of(step: Step) -> Form {
        match step {
            Step::Greeting | Step::Hello => Form::Lenient,
            _ => Form::Strict,
        }
    }
}

/// Assembles replies.
#[derive(Debug, Default)]
pub struct ReplyParser {
    form: Form,
    line: Vec<u8>,
    code: Option<u16>,
    enhanced: Option<EnhancedCode>,
    lines: Vec<String>,
    kept: usize,
    read: usize,
}

impl ServerReply {
    /// 2, 3, 4 or 5.
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// All text on one line.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// Returns the reply in the form used in outcomes.
    pub fn to_reply(&self, remote: &str) -> Reply {
        Reply::of_server(self.code, self.enhanced, self.text(), remote)
    }
}

impl ReplyParser {
    /// Sets how strictly the following lines are parsed.
    pub fn expect(&mut self, form: Form) {
        self.form = form;
    }

    /// Takes octets until a reply is complete. Returns how many it took; the others belong to the next
    /// reply. After an error, nothing that follows can be interpreted.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Option<ServerReply>), ReplyError> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            let length = piece.len() + usize::from(end.is_some());
            taken += length;
            self.read += length;
            if self.read > MAX_REPLY {
                return Err(ReplyError::TooLong);
            }
            if end.is_some() && self.end_line()? {
                return Ok((taken, self.complete()));
            }
        }
        Ok((taken, None))
    }

    /// Whether no part of a reply is buffered.
    pub fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// Handles a complete line. Returns whether it is the last of the reply.
    fn end_line(&mut self) -> Result<bool, ReplyError> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let (code, is_last, text) = match parse_line(line) {
            Err(_) if self.form == Form::Lenient && self.code.is_some() => return Ok(false),
            parsed => parsed?,
        };
        if let Some(first) = self.code.filter(|first| *first != code) {
            return Err(ReplyError::Mixed { first, then: code });
        }
        self.code = Some(code);
        let text = String::from_utf8_lossy(text);
        let text = match EnhancedCode::at_start_of(&text) {
            Some((enhanced, rest)) if is_about_this(enhanced, code / 100) => {
                let class = u8::try_from(code / 100).unwrap_or(enhanced.class);
                let enhanced = EnhancedCode { class, ..enhanced };
                let first = *self.enhanced.get_or_insert(enhanced);
                if first == enhanced { rest } else { &text }
            }
            _ => &text,
        };
        // An empty line counts too, so that the number of kept lines is bounded.
        if self.kept < MAX_KEPT {
            self.kept += text.len() + 8;
            self.lines.push(text.to_owned());
        }
        Ok(is_last)
    }

    fn complete(&mut self) -> Option<ServerReply> {
        let parser = std::mem::take(self);
        self.form = parser.form;
        Some(ServerReply {
            code: parser.code?,
            enhanced: parser.enhanced,
            lines: parser.lines,
        })
    }
}

/// Whether an enhanced code belongs to a reply of this class. A code of another class does if its subject
/// is registered (RFC 3463): `450 2.38.1` may be about a version.
fn is_about_this(enhanced: EnhancedCode, class: u16) -> bool {
    u16::from(enhanced.class) == class || enhanced.subject <= 7
}

fn parse_line(line: &[u8]) -> Result<(u16, bool, &[u8]), ReplyError> {
    let wrong = || {
        let beginning = &line[..line.len().min(80)];
        ReplyError::Form(String::from_utf8_lossy(beginning).into_owned())
    };
    let (digits, rest) = line.split_at_checked(3).ok_or_else(wrong)?;
    if !matches!(digits, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return Err(wrong());
    }
    let code = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Ok((code, true, rest)),
        [b' ', text @ ..] => Ok((code, true, text)),
        [b'-', text @ ..] => Ok((code, false, text)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<(usize, Option<ServerReply>), ReplyError> {
        ReplyParser::default().push(bytes)
    }

    fn only(bytes: &[u8]) -> ServerReply {
        read(bytes).unwrap().1.unwrap()
    }

    #[test]
    fn replies_are_kept_as_sent() {
        let reply = only(b"550-5.7.509 Access denied,\r\n550 5.7.509 see example.org\r\n");
        assert_eq!((reply.code, reply.lines.len()), (550, 2));
        assert_eq!(
            reply.to_reply("mx").to_string(),
            "550 5.7.509 Access denied, see example.org"
        );
        for (bytes, code, enhanced, text) in [
            (&b"250 ok\n"[..], 250, None, "ok"),
            (b"250\r\n", 250, None, ""),
            (b"250 \r\n", 250, None, ""),
            (b"250 2.1.0\r\n", 250, Some("2.1.0"), ""),
            // A code with a class that contradicts the reply gives only the subject.
            (b"450 5.1.1 hm\r\n", 450, Some("4.1.1"), "hm"),
            (b"451 5.7.3 no\r\n", 451, Some("4.7.3"), "no"),
            (b"550 4.2.2 full\r\n", 550, Some("5.2.2"), "full"),
            (b"554 2.0.0 no\r\n", 554, Some("5.0.0"), "no"),
            (b"250 4.0.0 ok\r\n", 250, Some("2.0.0"), "ok"),
            (b"451-5.7.3 a\r\n451 4.7.3 b\r\n", 451, Some("4.7.3"), "a b"),
            // No enhanced code has class 1 or 3, so this is text.
            (b"450 3.1.1 hm\r\n", 450, None, "3.1.1 hm"),
            (b"450 2.38.1 hm\r\n", 450, None, "2.38.1 hm"),
            // A second, different code too: it is quoted from another server.
            (
                b"550-5.1.1 a\r\n550 5.2.2 b\r\n",
                550,
                Some("5.1.1"),
                "a 5.2.2 b",
            ),
        ] {
            let reply = only(bytes);
            assert_eq!(reply.code, code);
            let enhanced = enhanced.map(|code| code.parse().unwrap());
            assert_eq!(reply.enhanced, enhanced, "{bytes:?}");
            assert_eq!(reply.text(), text);
        }
    }

    #[test]
    fn what_follows_a_reply_is_left() {
        assert_eq!(read(b"250 a\r\n354 b\r\n").unwrap().0, 7);
        assert_eq!(read(b"250-a\r\n250").unwrap(), (10, None));
    }

    #[test]
    fn nonsense_is_an_error_as_soon_as_its_line_ends() {
        for bytes in [
            &b"\r\n"[..],
            b"25\r\n",
            b"150 early\r\n",
            b"600 late\r\n",
            b"25x ok\r\n",
            b"250ok\r\n",
            b"250\tok\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\n",
            b"250-a\r\n\r\n",
            b"250-a\r\nb\r\n250 c\r\n",
        ] {
            assert!(
                matches!(read(bytes), Err(ReplyError::Form(_))),
                "{:?}",
                read(bytes)
            );
        }
        assert_eq!(
            read(b"250-a\r\n550 b\r\n"),
            Err(ReplyError::Mixed {
                first: 250,
                then: 550
            })
        );
    }

    #[test]
    fn length_is_bounded_and_does_not_matter() {
        let mut long = b"550-5.1.1 ".to_vec();
        long.resize(100_000, b'x');
        long.extend_from_slice(b"\r\n550 5.1.1 end\r\n");
        let reply = only(&long);
        assert_eq!((reply.code, reply.lines.len()), (550, 2));
        assert!(reply.lines[0].len() <= MAX_LINE);
        assert_eq!(reply.lines[1], "end");
        assert_eq!(reply.to_reply("mx").text.len(), Reply::MAX_TEXT);

        let many = b"250-x\r\n".repeat(20_000);
        let mut parser = ReplyParser::default();
        parser.push(&many).unwrap();
        assert!(parser.lines.len() < 10_000);
        assert_eq!(parser.push(&many[..]), Ok((many.len(), None)));
        assert_eq!(
            read(&b"250-x\r\n".repeat(200_000)),
            Err(ReplyError::TooLong)
        );
        assert_eq!(read(&vec![b'2'; 2_000_000]), Err(ReplyError::TooLong));
    }

    #[test]
    fn a_line_without_its_code_offers_nothing_in_an_answer_to_ehlo() {
        let hello = |bytes: &[u8]| {
            let mut parser = ReplyParser::default();
            parser.expect(Form::Lenient);
            parser.push(bytes)
        };
        let bytes = b"250-mx\r\n8BITMIME\r\n\r\n25\r\n250-DSN\r\n250 SIZE\r\n";
        let reply = hello(bytes).unwrap().1.unwrap();
        assert_eq!(reply.lines, ["mx", "DSN", "SIZE"]);
        assert!(matches!(read(bytes), Err(ReplyError::Form(_))));
        // The first line must identify a reply, a second code would be ambiguous, and the length is
        // limited.
        for bytes in [&b"SSH-2.0\r\n"[..], b"mx\r\n250 mx\r\n"] {
            assert!(matches!(hello(bytes), Err(ReplyError::Form(_))));
        }
        let mixed = hello(b"250-mx\r\nx\r\n550 no\r\n");
        assert!(matches!(mixed, Err(ReplyError::Mixed { .. })));
        let endless = [&b"250-mx\r\n"[..], &b"x\r\n".repeat(400_000)].concat();
        assert_eq!(hello(&endless), Err(ReplyError::TooLong));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes: Vec<u8>, cuts: Vec<prop::sample::Index>) {
            let mut bytes = bytes;
            bytes.splice(0..0, *b"250-one\r\n250 \0\xff two\r\n");
            let whole = read(&bytes);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            let mut parser = ReplyParser::default();
            let (mut at, mut pieces) = (0, Ok((0, None)));
            for end in cuts.into_iter().chain([bytes.len()]) {
                pieces = parser.push(&bytes[at..end]).map(|(took, reply)| (at + took, reply));
                at = end;
                if !matches!(pieces, Ok((_, None))) {
                    break;
                }
            }
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let mut parser = ReplyParser::default();
            let mut at = 0;
            while at < bytes.len() {
                match parser.push(&bytes[at..]) {
                    Ok((took, _)) => at += took,
                    Err(_) => break,
                }
            }
        }
    }
}
