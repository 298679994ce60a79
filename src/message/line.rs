//! What ends a line of a message.
//!
//! A line ends with LF, and every CR directly before that LF belongs to the end: LF, CR LF and
//! CR CR LF are one line end each. A CR anywhere else is an octet of its line. It ends no line,
//! begins no header field and separates no words, and what writes the message to a connection
//! makes it harmless there.
//!
//! Everything that reads a message by lines reads it by this rule: acceptance, the recipients of
//! a header, notices, and what goes to a server. If two of them disagreed, a field could hide
//! from one of them.

/// Whether a line end stands at the beginning of some octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// One of so many octets.
    Whole(usize),
    /// None.
    None,
    /// Only CRs are there so far, or nothing: the octets that follow decide.
    Undecided,
}

/// Looks for a line end at the beginning of `bytes`.
pub fn ending(bytes: &[u8]) -> Ending {
    let returns = bytes.iter().take_while(|byte| **byte == b'\r').count();
    match bytes.get(returns) {
        Some(b'\n') => Ending::Whole(returns + 1),
        Some(_) => Ending::None,
        None => Ending::Undecided,
    }
}

/// The lines of `bytes`, each with its end. The last one may have none.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// A line without its end.
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
    fn returns_before_a_line_feed_are_part_of_the_line_end() {
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
    fn a_return_elsewhere_is_an_octet() {
        let found: Vec<_> = lines(b"a\rb\r\r\n\r\nc\n\r\nd\r").map(content).collect();
        assert_eq!(found, [&b"a\rb"[..], b"", b"c", b"", b"d\r"]);
    }
}
