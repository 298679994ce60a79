//! The line ends of a message.
//!
//! A line ends with LF, and every CR directly before that LF belongs to the line end: LF, CR LF and CR CR
//! LF are one line end each. A CR anywhere else is an octet of its line. It ends no line, begins no header
//! field and separates no words. The code that writes the message to a connection makes it harmless.
//!
//! All code that reads a message by lines uses this rule: acceptance, the recipients of a header, notices,
//! and the text sent to a server. If two of them disagreed, a field could be hidden from one of them.

/// Whether octets begin with a line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A line end of this many octets.
    Whole(usize),
    /// No line end.
    None,
    /// Only CRs so far, or nothing; the next octets decide.
    Undecided,
}

/// Checks for a line end at the beginning of `bytes`.
pub fn ending(bytes: &[u8]) -> Ending {
    let returns = bytes.iter().take_while(|byte| **byte == b'\r').count();
    match bytes.get(returns) {
        Some(b'\n') => Ending::Whole(returns + 1),
        Some(_) => Ending::None,
        None => Ending::Undecided,
    }
}

/// Iterates over the lines of `bytes`, each with its line end. The last line may have none.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// Returns a line without its line end.
pub fn content(line: &[u8]) -> &[u8] {
    let Some(mut rest) = line.strip_suffix(b"\n") else {
        return line;
    };
    while let Some(shorter) = rest.strip_suffix(b"\r") {
        rest = shorter;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriage_returns_before_a_line_feed_belong_to_the_line_end() {
        for (bytes, found) in [
            (&b"\n"[..], Ending::Whole(1)),
            (b"\r\nx", Ending::Whole(2)),
            (b"\r\r\r\n\n", Ending::Whole(4)),
            (b"\rx\n", Ending::None),
            (b"x\n", Ending::None),
            (b"", Ending::Undecided),
            (b"\r\r", Ending::Undecided),
        ] {
            assert_eq!(ending(bytes), found, "{bytes:?}");
        }
    }

    #[test]
    fn a_carriage_return_elsewhere_is_an_octet() {
        let found: Vec<_> = lines(b"a\rb\r\r\n\r\nc\n\r\nd\r").map(content).collect();
        assert_eq!(found, [&b"a\rb"[..], b"", b"c", b"", b"d\r"]);
    }
}
