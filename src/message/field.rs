//! Writes header fields, and the fields of a delivery status. This program writes every such line here, so
//! that no line is longer than RFC 5322 allows and no value can start another field.

/// The longest line in octets, without its end (RFC 5322, 2.1.1). A longer line is folded. A word too long
/// for a line is cut.
pub const MAX_LINE: usize = 998;

/// The length in octets beyond which a line is folded at the next blank. Lines with encoded words must not
/// be longer (RFC 2047, 2).
const FOLD: usize = 76;

/// The longest run of blanks; more are dropped, because the line needs room for a word after them.
const MAX_BLANKS: usize = MAX_LINE / 2;

/// Appends the field `name: value`, with lines that end with `eol`. The value is folded at blanks, and
/// unfolding restores it. A line feed in the value is a fold, too. Other control characters are dropped.
///
/// The first word stays on the line of the name if there is room, because some readers ignore folded lines.
pub fn write(out: &mut String, name: &str, value: &str, eol: &str) {
    let is_kept = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let value: String = value.chars().filter(is_kept).collect();
    out.push_str(name);
    out.push(':');
    let mut length = name.len() + 1;
    // A blank line would end the header.
    let lines = value.split('\n').filter(|line| !line.trim().is_empty());
    for (n, line) in lines.enumerate() {
        let mut begins = true;
        let mut blanks = 0;
        for word in line.split([' ', '\t']) {
            blanks += 1;
            if word.is_empty() {
                continue;
            }
            let before = if begins { 1 } else { blanks.min(MAX_BLANKS) };
            let word = cut(word, MAX_LINE - before);
            let most = match (n, begins) {
                (0, true) => MAX_LINE,
                (_, true) => 0,
                _ => FOLD,
            };
            if length > 0 && length + before + word.len() > most {
                out.push_str(eol);
                length = 0;
            }
            let blank = if begins && n > 0 { '\t' } else { ' ' };
            out.extend(std::iter::repeat_n(blank, before));
            out.push_str(word);
            length += before + word.len();
            (begins, blanks) = (false, 0);
        }
    }
    out.push_str(eol);
}

/// Like [`write()`], but drops the field if a word of it is too long for a line: half an address names
/// another mailbox, and half a message id another message.
pub fn write_whole(out: &mut String, name: &str, value: &str, eol: &str) {
    let has_room = |word: &str| word.len() < MAX_LINE;
    if value.split([' ', '\t', '\n']).all(has_room) {
        write(out, name, value, eol);
    }
}

fn cut(word: &str, most: usize) -> &str {
    &word[..word.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(name: &str, value: &str) -> String {
        let mut out = String::new();
        write(&mut out, name, value, "\n");
        out
    }

    #[test]
    fn a_field_is_folded_at_blanks_and_at_line_feeds() {
        assert_eq!(written("A", "b c"), "A: b c\n");
        assert_eq!(written("A", "b\nc d\n\n \ne\n"), "A: b\n\tc d\n\te\n");
        let words = "word ".repeat(20);
        let expected = format!("A:{}\n{}\n", " word".repeat(14), " word".repeat(6));
        assert_eq!(written("A", &words), expected);
        assert_eq!(written("A", ""), "A:\n");
        let mut out = String::new();
        write(&mut out, "A", "b\nc", "\r\n");
        assert_eq!(out, "A: b\r\n\tc\r\n");
    }

    #[test]
    fn the_first_word_stays_with_the_name_if_there_is_room() {
        let word = "x".repeat(990);
        assert_eq!(written("Name", &word), format!("Name: {word}\n"));
        let word = "x".repeat(995);
        assert_eq!(written("Name", &word), format!("Name:\n {word}\n"));
        let cut = "x".repeat(997);
        assert_eq!(
            written("Name", &"x".repeat(2000)),
            format!("Name:\n {cut}\n")
        );
    }

    #[test]
    fn blanks_in_quotes_are_kept() {
        assert_eq!(written("A", "<\"b  c\"@d>"), "A: <\"b  c\"@d>\n");
        let long = format!("<\"{}  c\"@d>", "b".repeat(80));
        let folded = written("A", &long);
        assert_eq!(folded, format!("A: <\"{}\n  c\"@d>\n", "b".repeat(80)));
    }

    #[test]
    fn a_value_begins_no_other_field() {
        assert_eq!(
            written("A", "b\r\nBcc: c\0\r\n\r\nd"),
            "A: b\n\tBcc: c\n\td\n"
        );
    }

    #[test]
    fn write_whole_drops_a_field_with_too_long_a_word() {
        let mut out = String::new();
        write_whole(&mut out, "A", &format!("a <{}>", "x".repeat(995)), "\n");
        assert_eq!(out.lines().map(str::len).max(), Some(998));
        out.clear();
        write_whole(&mut out, "A", &format!("a <{}>", "x".repeat(996)), "\n");
        assert_eq!(out, "");
    }

    proptest! {
        #[test]
        fn any_value_is_one_field_of_short_lines(
            value in prop_oneof![
                ".{0,80}",
                "([a-z\"<>@]{0,9} {0,3}){0,40}",
                "[a-zü]{900,1100} {900,1100}[a-z]{0,9}( {0,90}[a-zü]{0,1100}){0,3}",
                "([ \r\n\t\0]{0,3}[a:]){0,9}",
            ],
        ) {
            let field = written("Final-Recipient", &value);
            let lines: Vec<&str> = field.strip_suffix('\n').unwrap().split('\n').collect();
            prop_assert!(lines[0].starts_with("Final-Recipient:"));
            for (n, line) in lines.iter().enumerate() {
                prop_assert!(line.len() <= MAX_LINE, "{} octets", line.len());
                prop_assert!(n == 0 || line.starts_with([' ', '\t']) && !line.trim().is_empty());
            }
            let is_short = value.split(' ').all(|word| word.len() < 900);
            if is_short && !value.contains(|c: char| c.is_control()) && !value.contains("   ") {
                let unfolded = lines.concat();
                let unfolded = unfolded.strip_prefix("Final-Recipient:").unwrap();
                prop_assert_eq!(unfolded.trim_matches(' '), value.trim_matches(' '));
            }
        }
    }
}
