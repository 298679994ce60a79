//! Removes the fields of one name from a message's header while the message is copied.

use std::borrow::Cow;

use super::header::HeaderScan;

/// Copies a message piece by piece, without the header fields of one name. Memory use does not depend on
/// the header's length: only the beginning of a line is held back, until it shows which field it is.
#[derive(Debug)]
pub struct WithoutField {
    name: &'static str,
    scan: HeaderScan,
    held: Vec<u8>,
    /// Within a line; its end has not been seen.
    in_line: bool,
    /// Within a field of this name, or its continuation lines.
    in_field: bool,
    is_over: bool,
}

impl WithoutField {
    /// Starts at the beginning of a message.
    pub fn new(name: &'static str) -> WithoutField {
        WithoutField {
            name,
            scan: HeaderScan::default(),
            held: Vec::new(),
            in_line: false,
            in_field: false,
            is_over: false,
        }
    }

    /// Returns the octets to copy, out of those held back and the next ones. `eof` means that no more
    /// octets follow.
    pub fn push<'a>(&mut self, bytes: &'a [u8], eof: bool) -> Cow<'a, [u8]> {
        if self.is_over {
            return Cow::Borrowed(bytes);
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let found = self.scan.push(&all, eof);
        let mut out = Vec::with_capacity(all.len());
        self.header(&all[..found.header], &mut out);
        let rest = &all[found.header..];
        self.is_over = found.end.is_some();
        if self.is_over || eof {
            out.extend_from_slice(rest)
        } else {
            self.held = rest.to_vec()
        }
        Cow::Owned(out)
    }

    /// Copies octets of the header. They never end within a field's name, because the scan reports a line
    /// only after it has seen the colon.
    fn header(&mut self, header: &[u8], out: &mut Vec<u8>) {
        for line in header.split_inclusive(|byte| *byte == b'\n') {
            let is_continued = matches!(line.first(), Some(b' ' | b'\t'));
            if !self.in_line && !is_continued {
                let colon = line.iter().position(|byte| *byte == b':');
                let name = line[..colon.unwrap_or(0)].trim_ascii_end();
                self.in_field = name.eq_ignore_ascii_case(self.name.as_bytes());
            }
            self.in_line = !line.ends_with(b"\n");
            if !self.in_field {
                out.extend_from_slice(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stripped(message: &[u8], piece: usize) -> Vec<u8> {
        let mut strip = WithoutField::new("Return-Path");
        let mut out = Vec::new();
        let mut rest = message;
        loop {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            let is_last = now.len() < piece;
            out.extend_from_slice(&strip.push(now, is_last));
            rest = later;
            if is_last {
                return out;
            }
        }
    }

    #[test]
    fn a_field_is_removed_in_any_spelling_and_the_body_is_kept() {
        for (message, expected) in [
            ("Return-Path: <a@b>\nSubject: x\n\nb\n", "Subject: x\n\nb\n"),
            (
                "A: b\r\nRETURN-path :\r\n <a@b>\r\n\t(c)\r\nD: e\r\n\r\nf",
                "A: b\r\nD: e\r\n\r\nf",
            ),
            (
                "return-path:a\nReturn-Path:b\n\nReturn-Path: c\n",
                "\nReturn-Path: c\n",
            ),
            ("Return-Path: a", ""),
            (
                "Return-Paths: a\nX-Return-Path: b\n c\n",
                "Return-Paths: a\nX-Return-Path: b\n c\n",
            ),
            (
                "Subject: x\nReturn-Path\nbody",
                "Subject: x\nReturn-Path\nbody",
            ),
            ("no header\nReturn-Path: a\n", "no header\nReturn-Path: a\n"),
            ("", ""),
            ("\n", "\n"),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                let out = stripped(message.as_bytes(), piece);
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    expected,
                    "{message:?} {piece}"
                );
            }
        }
    }

    #[test]
    fn a_long_header_is_not_held_back() {
        let mut strip = WithoutField::new("Return-Path");
        strip.push(b"X: y", false);
        for _ in 0..1000 {
            strip.push(&[b'z'; 1000], false);
            assert!(strip.held.is_empty());
        }
    }

    proptest! {
        #[test]
        fn the_division_into_pieces_does_not_matter(
            lines in prop::collection::vec(
                prop::sample::select(vec!["Return-Path: a", "return-PATH :", " b", "A: b", "", "\r", "c", ":"]),
                0..8,
            ),
            end in prop::sample::select(vec!["\n", "\r\n"]),
            piece in 1_usize..9,
        ) {
            let message = lines.join(end);
            let whole = stripped(message.as_bytes(), 4096);
            prop_assert_eq!(&stripped(message.as_bytes(), piece), &whole);
            prop_assert_eq!(&stripped(&whole, 4096), &whole);
        }
    }
}
