//! The reply of a destination: SMTP reply code, enhanced status code (RFC 3463) and text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{printable, shortened};

/// An enhanced status code, kept as sent: 5.7.509 stays 5.7.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// Up to three digits.
    pub subject: u16,
    /// Up to three digits.
    pub detail: u16,
}

/// The text is not an enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code")]
pub struct NotACode;

impl EnhancedCode {
    /// Returns the code with these three numbers.
    pub const fn new(class: u8, subject: u16, detail: u16) -> EnhancedCode {
        EnhancedCode {
            class,
            subject,
            detail,
        }
    }

    /// Whether the subject is one that RFC 3463 defines (0 to 7). Version numbers look like codes, but most
    /// have another subject.
    #[doc(hidden)]
    pub const fn is_registered(&self) -> bool {
        self.subject <= 7
    }

    /// Returns the code at the beginning of a text and the text after it, if a blank or the end follows the
    /// code.
    #[doc(hidden)]
    pub fn at_start_of(text: &str) -> Option<(EnhancedCode, &str)> {
        let end = text
            .find(|c: char| c.is_ascii_whitespace())
            .unwrap_or(text.len());
        let code = text[..end].parse().ok()?;
        Some((code, text[end..].trim_start()))
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[doc(hidden)]
impl FromStr for EnhancedCode {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<EnhancedCode, NotACode> {
        let mut parts = text.split('.');
        let mut number = || {
            let part = parts.next().ok_or(NotACode)?;
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits
                .then(|| part.parse::<u16>().ok())
                .flatten()
                .ok_or(NotACode)
        };
        let code = (number()?, number()?, number()?);
        match (code, parts.next()) {
            ((class @ (2 | 4 | 5), subject, detail), None) => {
                Ok(EnhancedCode::new(class as u8, subject, detail))
            }
            _ => Err(NotACode),
        }
    }
}

/// A destination's reply for one recipient, or a text of this program if no destination replied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reply {
    /// The SMTP reply code, if there was a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc(hidden)]
    pub code: Option<u16>,
    /// The enhanced status code, as sent or from the reply-code table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<EnhancedCode>,
    /// The text, without control characters, of at most [`Reply::MAX_TEXT`] octets.
    pub text: String,
    /// The name of the MTA that sent the text; `None` for a text of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc(hidden)]
    pub remote: Option<String>,
    /// The host that the connection was to, with its address and port: `mx.example.net[192.0.2.1]:25`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[doc(hidden)]
    pub relay: Option<String>,
}

impl Reply {
    /// The longest text in octets. A longer one is cut.
    #[doc(hidden)]
    pub const MAX_TEXT: usize = 1000;

    /// Returns a reply with a text of this program.
    #[doc(hidden)]
    pub fn local(enhanced: EnhancedCode, text: impl AsRef<str>) -> Reply {
        Reply {
            code: None,
            enhanced: Some(enhanced),
            text: shortened(printable(text.as_ref()), Reply::MAX_TEXT),
            remote: None,
            relay: None,
        }
    }

    /// Returns the reply of the server `remote`, as sent.
    #[doc(hidden)]
    pub fn of_server(
        code: u16,
        enhanced: Option<EnhancedCode>,
        text: impl AsRef<str>,
        remote: &str,
    ) -> Reply {
        Reply {
            code: Some(code),
            enhanced,
            text: shortened(printable(text.as_ref()), Reply::MAX_TEXT),
            remote: Some(remote.to_owned()),
            relay: None,
        }
    }
}

impl fmt::Display for Reply {
    /// Formats code, enhanced code and text as an SMTP reply line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map(|code| code.to_string());
        let enhanced = self.enhanced.map(|code| code.to_string());
        let text = Some(self.text.clone()).filter(|text| !text.is_empty());
        let words: Vec<String> = [code, enhanced, text].into_iter().flatten().collect();
        f.write_str(&words.join(" "))
    }
}

/// Formats a duration for the text of an outcome: "5 s". Rounds to whole seconds, at least one.
pub fn in_seconds(duration: Duration) -> String {
    let half = Duration::from_millis(500);
    format!("{} s", duration.saturating_add(half).as_secs().max(1))
}

#[doc(hidden)]
impl Serialize for EnhancedCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[doc(hidden)]
impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_kept_as_sent() {
        for good in ["2.0.0", "4.4.2", "5.7.509", "5.1.10"] {
            assert_eq!(good.parse::<EnhancedCode>().unwrap().to_string(), good);
        }
        for bad in [
            "", "5", "5.1", "3.0.0", "5.1.1.1", "5.1.1234", "5..1", "5.1.+1", "a.b.c",
        ] {
            assert!(bad.parse::<EnhancedCode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_is_found_only_at_the_start() {
        let (code, rest) = EnhancedCode::at_start_of("5.2.2 mailbox full").unwrap();
        assert_eq!((code, rest), (EnhancedCode::new(5, 2, 2), "mailbox full"));
        assert_eq!(EnhancedCode::at_start_of("5.2.2x full"), None);
        assert_eq!(EnhancedCode::at_start_of("oh 5.2.2"), None);
        assert!(EnhancedCode::at_start_of("4.0.0").is_some());
    }

    #[test]
    fn durations_are_rounded_to_whole_seconds() {
        for (millis, text) in [
            (0, "1 s"),
            (300, "1 s"),
            (1001, "1 s"),
            (1500, "2 s"),
            (4999, "5 s"),
            (300_000, "300 s"),
        ] {
            assert_eq!(in_seconds(Duration::from_millis(millis)), text);
        }
        assert_eq!(in_seconds(Duration::MAX), format!("{} s", u64::MAX));
    }
}
