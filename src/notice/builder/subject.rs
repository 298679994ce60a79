//! Decoding the subject of a message.
//!
//! Encoded words (RFC 2047) are decoded if the result is text. Words in an unknown character set, or with
//! octets invalid in it, are copied unchanged: the mail program that shows the notice may be able to decode
//! them.

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;

/// Most octets of a field that are decoded. The rest is dropped; the displayed subject is far shorter.
const MAX_VALUE: usize = 4096;

/// An encoded word.
struct Word<'a> {
    charset: &'a str,
    octets: Option<Vec<u8>>,
    /// The word as written.
    raw: &'a str,
}

/// Returns the text of an unstructured field's value. Blanks and folds are kept.
pub(super) fn decoded(value: &[u8]) -> String {
    let value = String::from_utf8_lossy(&value[..value.len().min(MAX_VALUE)]);
    let mut out = String::with_capacity(value.len());
    // Encoded words separated only by blanks, which are not part of the text (RFC 2047, 6.2).
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut rest = &*value;
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at(at);
        let word = Word::at_start_of(from);
        if word.is_none() || words.is_empty() || !before.trim().is_empty() {
            out += &text(&std::mem::take(&mut words));
            out += before;
        }
        let length = match word {
            Some(word) => {
                let length = word.raw.len();
                words.push(word);
                length
            }
            None => {
                out += "=?";
                2
            }
        };
        rest = &from[length..];
    }
    out + &text(&words) + rest
}

/// Returns the text of adjacent words. Words in the same character set are decoded together: some mail
/// programs split a character between two words.
fn text(words: &[Word<'_>]) -> String {
    let mut out = String::new();
    let mut is_after_raw = false;
    let mut add = |text: &str, is_raw: bool| {
        if !out.is_empty() && (is_raw || is_after_raw) {
            out.push(' ');
        }
        out += text;
        is_after_raw = is_raw;
    };
    for run in words.chunk_by(|a, b| a.charset.eq_ignore_ascii_case(b.charset)) {
        if let Some(text) = together(run) {
            add(&text, false);
            continue;
        }
        for word in run {
            match together(std::slice::from_ref(word)) {
                Some(text) => add(&text, false),
                None => add(word.raw, true),
            }
        }
    }
    out
}

/// Returns the text of words in the same character set, or `None` if they cannot be decoded.
fn together(words: &[Word<'_>]) -> Option<String> {
    let mut octets = Vec::new();
    for word in words {
        octets.extend_from_slice(word.octets.as_deref()?);
    }
    let charset = words.first()?.charset;
    let text = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" => String::from_utf8(octets).ok()?,
        _ => charset_decoder(charset.as_bytes())?(&octets),
    };
    (!text.contains(char::REPLACEMENT_CHARACTER)).then_some(text)
}

impl<'a> Word<'a> {
    /// Parses `=?charset?B?...?=` or `=?charset*language?Q?...?=` (RFC 2231, 5). Blanks in it are forbidden,
    /// but occur.
    fn at_start_of(text: &'a str) -> Option<Word<'a>> {
        let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
        let (encoding, rest) = rest.split_once('?')?;
        let end = rest.find("?=")?;
        let (data, raw) = (&rest[..end], &text[..text.len() - rest.len() + end + 2]);
        let charset = charset.split_once('*').map_or(charset, |(name, _)| name);
        let is_name = |byte: u8| byte.is_ascii_graphic();
        if charset.is_empty() || !charset.bytes().all(is_name) || data.contains("=?") {
            return None;
        }
        let octets = match encoding {
            "b" | "B" => base64_decode(data.as_bytes()),
            "q" | "Q" => Some(of_q(data.as_bytes())),
            _ => return None,
        };
        Some(Word {
            charset,
            octets,
            raw,
        })
    }
}

/// Decodes the Q encoding (RFC 2047, 4.2). A `=` without two hexadecimal digits is kept.
fn of_q(data: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut octets = Vec::with_capacity(data.len());
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        let pair = (digit(data.get(at + 1)), digit(data.get(at + 2)));
        match (byte, pair) {
            (b'=', (Some(high), Some(low))) => {
                octets.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'_', _) => octets.push(b' '),
            _ => octets.push(*byte),
        }
        at += 1;
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, &str)]) {
        for (value, text) in cases {
            assert_eq!(decoded(value.as_bytes()), *text, "{value}");
        }
    }

    #[test]
    fn every_character_set_of_mail_is_read() {
        check(&[
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?iso-2022-jp?B?GyRCRnxLXDhsJE43b0w+GyhC?=", "日本語の件名"),
            ("=?gb2312?B?xOO6w8rAvec=?=", "你好世界"),
            ("=?GB2312?q?=C4=E3=BA=C3=CA=C0=BD=E7?=", "你好世界"),
            ("=?gb18030?B?xOO6w4E57jk=?=", "你好㐀"),
            ("=?gbk?B?t7Hzdw==?=", "繁體"),
            ("=?big5?B?pKSk5aVEpq4=?=", "中文主旨"),
            ("=?euc-kr?B?x9Gxub7uIMGmuPE=?=", "한국어 제목"),
            ("=?euc-jp?B?xvzL3Ljs?=", "日本語"),
            ("=?shift_jis?B?k/qWe4zq?=", "日本語"),
            ("=?SHIFT_JIS?q?=93=FA=96=7B=8C=EA?=", "日本語"),
            ("=?ks_c_5601-1987?B?waa48Q==?=", "제목"),
            ("=?windows-1251?B?z/Do4uXy?=", "Привет"),
            ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
            ("=?iso-8859-15?B?MTAgpA==?=", "10 €"),
            ("=?us-ascii*en?Q?plain_text?=", "plain text"),
        ]);
    }

    #[test]
    fn words_and_text_are_mixed() {
        check(&[
            ("Re: =?gbk?B?t7Hzdw==?= (2)", "Re: 繁體 (2)"),
            ("=?gbk?B?t7Hzdw==?=\n =?euc-kr?B?waa48Q==?=", "繁體제목"),
            ("=?utf-8?q?a_?= =?utf-8?q?b?= c", "a b c"),
            // A character split between two words.
            ("=?utf-8?B?w6TD?= =?UTF-8?B?tg==?=", "äö"),
            ("=?gbk?Q?=B7?= =?gbk?Q?=B1=F3w?=", "繁體"),
            ("plain", "plain"),
            ("", ""),
        ]);
    }

    #[test]
    fn what_cannot_be_decoded_is_copied() {
        for word in [
            "=?x-unknown?Q?=93=FA?=",
            "=?iso-2022-kr?B?GyQpQw==?=",
            "=?utf-8?Q?=93=FA?=",
            "=?utf-8?B?!!!!?=",
            "=?shift_jis?Q?=93?=",
        ] {
            check(&[
                (word, word),
                (&format!("Re: {word} x"), &format!("Re: {word} x")),
                (
                    &format!("{word} =?gbk?B?t7Hzdw==?= {word}"),
                    &format!("{word} 繁體 {word}"),
                ),
            ]);
        }
        // Invalid encoded words are text.
        check(&[
            ("=?", "=?"),
            ("=?utf-8?", "=?utf-8?"),
            ("=?utf-8?Q?never closed", "=?utf-8?Q?never closed"),
            ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
            ("a =?= b ?= c", "a =?= b ?= c"),
            ("=?utf-8?Q?a =?utf-8?Q?b?=", "=?utf-8?Q?a b"),
            ("=?utf-8?Q?a b=XY?=", "a b=XY"),
        ]);
        assert_eq!(decoded(b"h\xe4h"), "h\u{fffd}h");
        assert!(decoded("=?".repeat(50_000).as_bytes()).len() <= MAX_VALUE);
    }
}
