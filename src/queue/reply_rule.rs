//! Retry rules for certain replies: greylisting ends within minutes, a full mailbox lasts hours.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;

use super::outcome::Status;
use crate::message::{EnhancedCode, Reply, printable};

/// The delay after a reply that matches. A field that is `None` matches every reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyRule {
    /// The enhanced status code as the log prints it; 4.0.0 if the server gave none.
    pub status: Option<StatusPattern>,
    /// The text as `list`, `show` and the log print it, with both codes, with the enhanced code only, or
    /// without codes.
    pub reply: Option<Glob>,
    /// The delay of the next attempt, limited by the end of the lifetime.
    pub after: SignedDuration,
    /// The age of the message from which the rule no longer applies.
    pub until: Option<SignedDuration>,
}

impl ReplyRule {
    /// Whether the rule applies to this reply to a message of this age.
    pub fn matches(&self, reply: &Reply, age: SignedDuration) -> bool {
        let status = |pattern: &StatusPattern| pattern.matches(Status::Deferred.code_of(reply));
        self.until.is_none_or(|until| age < until)
            && self.status.as_ref().is_none_or(status)
            && self.reply.as_ref().is_none_or(|glob| {
                let mut spellings = spellings(reply).into_iter();
                spellings.any(|text| glob.matches(&text))
            })
    }
}

/// The forms of a reply that an operator may copy into a pattern: as printed, without the reply code, and
/// without both codes.
fn spellings(reply: &Reply) -> [String; 3] {
    let without_code = Reply {
        code: None,
        ..reply.clone()
    };
    [
        printable(&reply.to_string()),
        printable(&without_code.to_string()),
        reply.text.clone(),
    ]
}

/// An enhanced status code (RFC 3463), or the first one or two numbers of one. `4.7` matches 4.7.0, 4.7.1
/// and so on, but not 4.70.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPattern(Vec<u16>);

/// Why a text is not a pattern: it is not the enhanced status code of a failure, or the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code of a failure; write for example \"4.2.2\" or \"4.7\"")]
pub struct NotAStatus;

impl StatusPattern {
    /// Whether the code is equal to this pattern or begins with it.
    pub fn matches(&self, code: EnhancedCode) -> bool {
        let numbers = [u16::from(code.class), code.subject, code.detail];
        numbers.starts_with(&self.0)
    }
}

impl FromStr for StatusPattern {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<StatusPattern, NotAStatus> {
        let number = |part: &str| {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        let numbers: Option<Vec<u16>> = text.split('.').map(number).collect();
        match numbers {
            Some(numbers) if numbers.len() <= 3 && matches!(numbers[..], [4 | 5, ..]) => {
                Ok(StatusPattern(numbers))
            }
            _ => Err(NotAStatus),
        }
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// A pattern for a whole text, case-insensitive: `*` matches any text, `?` one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    given: String,
    pattern: Vec<char>,
}

impl Glob {
    /// Parses a pattern. Every text is one.
    pub fn new(pattern: &str) -> Glob {
        Glob {
            given: pattern.to_owned(),
            pattern: pattern.to_lowercase().chars().collect(),
        }
    }

    /// The pattern as given.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// Whether the pattern matches this text. The time is at most proportional to the product of the
    /// lengths.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.to_lowercase().chars().collect();
        let (mut at, mut p) = (0, 0);
        // The position of the last star, and the end of the text that it matches. If the rest does not
        // match, the star matches one more character.
        let mut star = None;
        while at < text.len() {
            match self.pattern.get(p) {
                Some('*') => {
                    star = Some((p, at));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == text[at] => (at, p) = (at + 1, p + 1),
                _ => match &mut star {
                    Some((place, taken)) => {
                        *taken += 1;
                        (at, p) = (*taken, *place + 1);
                    }
                    None => return false,
                },
            }
        }
        self.pattern[p..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("**", "whatever", true),
            ("greylist", "Greylist", true),
            ("greylist", "greylisted", false),
            ("*greylist*", "You are GREYLISTED", true),
            ("*greylist*", "grey listed", false),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyybzz", false),
            ("?", "ä", true),
            ("?", "", false),
            ("*ÜBER*", "das ist über der Quote", true),
            ("*a*a*a*a*b", &"a".repeat(1000), false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} {text}");
        }
    }

    /// A pattern is matched against each form in which a reply can be copied.
    #[test]
    fn a_pattern_matches_the_reply_as_printed() {
        let reply = |code, enhanced: &str, text: &str| Reply {
            code,
            enhanced: enhanced.parse().ok(),
            text: text.into(),
            remote: None,
            relay: None,
        };
        let busy = reply(Some(421), "4.7.0", "Try  again later, closing");
        let bare = reply(Some(450), "", "greylisted");
        let ours = reply(None, "4.0.0", "the command exited with status 75");
        for (pattern, reply, fits) in [
            ("421*", &busy, true),
            ("4.7.0*", &busy, true),
            ("421 4.7.0 Try again later, closing", &busy, true),
            ("4.7.0 try again later, closing", &busy, true),
            ("Try  again later, closing", &busy, true),
            ("*closing", &busy, true),
            ("450*", &busy, false),
            ("4.7.1*", &busy, false),
            ("Try again", &busy, false),
            ("450*", &bare, true),
            ("450 greylisted", &bare, true),
            ("greylisted", &bare, true),
            ("4.0.0 the command exited with status 75", &ours, true),
            ("the command exited*", &ours, true),
        ] {
            let rule = ReplyRule {
                status: None,
                reply: Some(Glob::new(pattern)),
                after: SignedDuration::from_mins(5),
                until: None,
            };
            assert_eq!(rule.matches(reply, SignedDuration::ZERO), fits, "{pattern}");
        }
    }

    /// `554 go away` in a greeting defers, and the log has `dsn="4.0.0"`.
    #[test]
    fn a_status_pattern_matches_the_logged_code() {
        for (enhanced, pattern, fits) in [
            (None, "4.0.0", true),
            (None, "4", true),
            (None, "4.7", false),
            (None, "5", false),
            (Some("4.7.1"), "4.0", false),
            (Some("5.7.1"), "5.7.1", true),
        ] {
            let reply = Reply {
                code: Some(554),
                enhanced: enhanced.map(|code| code.parse().unwrap()),
                text: "go away".into(),
                remote: None,
                relay: None,
            };
            let rule = ReplyRule {
                status: Some(pattern.parse().unwrap()),
                reply: None,
                after: SignedDuration::from_mins(5),
                until: None,
            };
            let found = rule.matches(&reply, SignedDuration::ZERO);
            assert_eq!(found, fits, "{enhanced:?} {pattern}");
        }
    }

    #[test]
    fn status_patterns() {
        let code = |text: &str| text.parse::<EnhancedCode>().unwrap();
        for (pattern, yes, no) in [
            ("4.2.2", "4.2.2", "4.2.1"),
            ("4.7", "4.7.1", "4.70.1"),
            ("4", "4.0.0", "5.0.0"),
            ("5.7.8", "5.7.8", "4.7.8"),
        ] {
            let pattern: StatusPattern = pattern.parse().unwrap();
            assert!(pattern.matches(code(yes)) && !pattern.matches(code(no)));
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        for bad in [
            "", "4.", ".2", "2.0.0", "4.2.2.1", "4.x", "450", "4.1234", "+4.2",
        ] {
            assert_eq!(bad.parse::<StatusPattern>(), Err(NotAStatus), "{bad}");
        }
    }
}
