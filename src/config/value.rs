//! Sizes and durations in readable form, and errors that name their line.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use jiff::SignedDuration;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Error;

/// A size in octets: a number, or a string such as `50M`. Prefixes are powers of ten.
#[derive(Clone, Copy)]
pub(super) struct Size(pub u64);

/// A duration: a string such as `15m`, `2h`, `4d`.
#[derive(Clone, Copy)]
pub(super) struct Span(pub Duration);

/// A duration, or the word `never`.
#[derive(Clone, Copy)]
pub(super) struct SpanOrNever(pub Option<Span>);

impl Span {
    pub const fn from_secs(seconds: u64) -> Span {
        Span(Duration::from_secs(seconds))
    }
}

impl From<SignedDuration> for Span {
    /// A negative duration becomes 0.
    fn from(duration: SignedDuration) -> Span {
        Span(Duration::try_from(duration).unwrap_or_default())
    }
}

pub(super) fn spans(durations: &[SignedDuration]) -> Vec<Span> {
    durations.iter().copied().map(Span::from).collect()
}

/// Wraps a value that has no place in the text.
pub(super) fn at<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"50M\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                let size =
                    u64::try_from(number).map_err(|_| E::custom("a size cannot be negative"));
                size.map(Size)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let size = text.parse::<bytesize::ByteSize>();
                let wrong =
                    |_| E::custom(format!("not a size: {text:?}; write for example \"50M\""));
                size.map(|size| Size(size.as_u64())).map_err(wrong)
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |_| {
            de::Error::custom(format!(
                "not a duration: {text:?}; write for example \"15m\""
            ))
        };
        humantime::parse_duration(&text).map(Span).map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for SpanOrNever {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SpanOrNever, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "never" {
            return Ok(SpanOrNever(None));
        }
        let wrong = |_| {
            de::Error::custom(format!(
                "not a duration: {text:?}; write for example \"14d\", or \"never\""
            ))
        };
        let span = humantime::parse_duration(&text).map(Span).map_err(wrong)?;
        Ok(SpanOrNever(Some(span)))
    }
}

impl Serialize for Size {
    /// Writes the size with the largest prefix that leaves a whole number.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const PREFIXES: [(&str, u64); 6] = [
            ("E", 1_000_000_000_000_000_000),
            ("P", 1_000_000_000_000_000),
            ("T", 1_000_000_000_000),
            ("G", 1_000_000_000),
            ("M", 1_000_000),
            ("K", 1_000),
        ];
        let size = self.0;
        let fits = |(_, unit): &&(&str, u64)| size > 0 && size.is_multiple_of(*unit);
        match (PREFIXES.iter().find(fits), i64::try_from(size)) {
            (Some((prefix, unit)), _) => {
                serializer.collect_str(&format!("{}{prefix}", size / unit))
            }
            (None, Ok(size)) => serializer.serialize_i64(size),
            // TOML integers end at i64::MAX; write a larger size as a string.
            (None, Err(_)) => serializer.collect_str(&size),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written(self.0))
    }
}

impl Serialize for SpanOrNever {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(span) => span.serialize(serializer),
            None => serializer.serialize_str("never"),
        }
    }
}

/// Formats a duration to the nanosecond, such as `30d`, `2h 30m`, `500ms`.
fn written(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut left = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanoseconds) in UNITS {
        if left >= nanoseconds {
            parts.push(format!("{}{unit}", left / nanoseconds));
            left %= nanoseconds;
        }
    }
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// The text of a configuration and its name, for error messages.
pub(super) struct Text<'a> {
    pub text: &'a str,
    pub name: &'a str,
}

impl Text<'_> {
    /// Returns the name and line of a place in the text.
    pub fn place(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        format!("{}:{line}", self.name)
    }

    /// Returns an error at a place in the text.
    pub fn error(&self, span: Range<usize>, what: impl fmt::Display) -> Error {
        Error(format!("{}: {what}", self.place(span)))
    }

    /// Returns a duration, or an error if it is zero.
    pub fn some_time(&self, given: &Spanned<Span>) -> Result<Duration, Error> {
        match given.get_ref().0 {
            Duration::ZERO => Err(self.error(given.span(), "a duration of 0 is too short")),
            time => Ok(time),
        }
    }

    /// Returns an error of the TOML parser, with its place.
    pub fn unreadable(&self, error: &toml::de::Error) -> Error {
        let what = error.message().trim().replace('\n', " ");
        self.error(error.span().unwrap_or(0..0), what)
    }
}
