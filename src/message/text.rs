//! Makes text safe to print, and cuts it to a length.

/// Makes a text safe for a terminal, a log or a page. Each run of line ends and blanks becomes one blank.
/// Control characters and characters that reorder text are removed. Use [`harmless`] for names.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if reorders(c) => {}
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Makes a name (an address, an ENVID) safe like [`printable`], but keeps every blank, because a name with
/// fewer blanks is another name. An address from [`Address::parse`](super::Address::parse) is returned
/// unchanged.
pub fn harmless(name: &str) -> String {
    name.chars().filter(|c| !is_unprintable(*c)).collect()
}

/// Whether a character moves the cursor of a terminal, or reorders or breaks a line.
pub(super) fn is_unprintable(c: char) -> bool {
    reorders(c) || c.is_control()
}

fn reorders(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Cuts a text to at most `max` octets, at a character boundary, and appends `…` if it was cut.
pub fn shortened(mut text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_a_name_are_kept() {
        assert_eq!(harmless("\"a  b \"@x\r\n\u{202e}\0"), "\"a  b \"@x");
    }

    #[test]
    fn terminal_controls_are_removed() {
        assert_eq!(
            printable("a\u{1b}[31mb\r\nc\u{9b}\u{202e}d\0 \t "),
            "a[31mb cd"
        );
        assert_eq!(harmless("\"a  b\"\n\u{202e}@x\u{1b}"), "\"a  b\"@x");
        assert_eq!(shortened("häßlich".into(), 6), "hä…");
        assert_eq!(shortened("kurz".into(), 4), "kurz");
    }
}
