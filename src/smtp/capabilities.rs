//! The capabilities in a server's reply to EHLO or LHLO (RFC 5321 4.1.1.1).

use super::reply::ServerReply;
use crate::message::printable;

/// The extensions that a server offers. None after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Commands may be sent before the previous one is answered (RFC 2920).
    pub pipelining: bool,
    /// SIZE is supported (RFC 1870).
    pub size: bool,
    /// The most octets of a message, if the server states a limit.
    pub max_size: Option<u64>,
    /// 8-bit bodies may be declared (RFC 6152).
    pub eight_bit_mime: bool,
    /// Addresses and headers may be UTF-8 (RFC 6531).
    pub smtp_utf8: bool,
    /// DSN parameters are supported (RFC 3461).
    pub dsn: bool,
    /// BDAT is supported (RFC 3030).
    pub chunking: bool,
    /// Content that is not text may be declared, and sent with BDAT (RFC 3030).
    pub binary_mime: bool,
    /// The most recipients of a transaction, the most domains among them, and the most transactions of a
    /// connection, if the server states a limit (RFC 9422).
    pub max_recipients: Option<u64>,
    /// See [`Capabilities::max_recipients`].
    pub max_domains: Option<u64>,
    /// See [`Capabilities::max_recipients`].
    pub max_mails: Option<u64>,
    /// TLS is offered (RFC 3207).
    pub start_tls: bool,
    /// The SASL mechanisms, in upper case (RFC 4954).
    pub auth: Vec<String>,
    /// All lines except the first, without control characters, for display.
    pub lines: Vec<String>,
}

impl Capabilities {
    /// Parses the lines of a reply; the first is the server's name.
    pub fn of(reply: &ServerReply) -> Capabilities {
        let mut caps = Capabilities::default();
        for line in reply.lines.iter().skip(1) {
            // Some servers end with an empty line.
            if !line.trim().is_empty() {
                caps.add(printable(line));
            }
        }
        caps
    }

    fn add(&mut self, line: String) {
        // Some servers still write `AUTH=PLAIN`, as before RFC 2554.
        let mut words = line.split(|c: char| c.is_ascii_whitespace() || c == '=');
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => {
                self.size = true;
                let limit = words.next().and_then(|word| word.parse().ok());
                self.max_size = limit.filter(|limit| *limit > 0);
            }
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtp_utf8 = true,
            "DSN" => self.dsn = true,
            "BINARYMIME" => self.binary_mime = true,
            "LIMITS" => {
                // Ignore words that are not a limit, or are an unknown one.
                for (name, value) in line.split_ascii_whitespace().filter_map(limit) {
                    match name.to_ascii_uppercase().as_str() {
                        "RCPTMAX" => self.max_recipients = Some(value),
                        "RCPTDOMAINMAX" => self.max_domains = Some(value),
                        "MAILMAX" => self.max_mails = Some(value),
                        _ => {}
                    }
                }
            }
            "CHUNKING" => self.chunking = true,
            "STARTTLS" => self.start_tls = true,
            "AUTH" => {
                for word in words.filter(|word| !word.is_empty()) {
                    let name = word.to_ascii_uppercase();
                    if !self.auth.contains(&name) {
                        self.auth.push(name);
                    }
                }
            }
            _ => {}
        }
        self.lines.push(line);
    }
}

/// A name and its number, which has one to six digits and is not zero (RFC 9422 4).
fn limit(word: &str) -> Option<(&str, u64)> {
    let (name, value) = word.split_once('=')?;
    let is_number = (1..=6).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    let value = value.parse().ok().filter(|value| is_number && *value > 0)?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(lines: &[&str]) -> Capabilities {
        Capabilities::of(&ServerReply {
            code: 250,
            enhanced: None,
            lines: lines.iter().map(|line| line.to_string()).collect(),
        })
    }

    #[test]
    fn keywords_are_read_in_any_case_and_the_name_is_not_one() {
        let caps = caps(&[
            "PIPELINING",
            "size 1000",
            "8bitmime",
            "SmtpUtf8",
            "DSN",
            "CHUNKING",
            "STARTTLS",
            "AUTH PLAIN login",
            "AUTH=PLAIN XOAUTH2",
            "X-NONSENSE 1 2 3",
        ]);
        assert!(!caps.pipelining);
        assert!(caps.size && caps.eight_bit_mime && caps.smtp_utf8 && caps.dsn);
        assert!(caps.chunking && caps.start_tls);
        assert_eq!(caps.max_size, Some(1000));
        assert_eq!(caps.auth, ["PLAIN", "LOGIN", "XOAUTH2"]);
        assert_eq!(caps.lines.len(), 9);
    }

    #[test]
    fn an_empty_line_offers_nothing() {
        assert_eq!(caps(&["name", "DSN", " ", ""]).lines, ["DSN"]);
    }

    #[test]
    fn limits_are_read_and_what_is_none_is_passed_over() {
        let limits = |line: &str| {
            let caps = caps(&["name", line]);
            (caps.max_recipients, caps.max_domains, caps.max_mails)
        };
        assert_eq!(
            limits("LIMITS RCPTMAX=20 RCPTDOMAINMAX=1 MAILMAX=5"),
            (Some(20), Some(1), Some(5))
        );
        assert_eq!(
            limits("limits mailmax=999999 FUTURE=3"),
            (None, None, Some(999_999))
        );
        for line in [
            "LIMITS",
            "LIMITS RCPTMAX",
            "LIMITS RCPTMAX=",
            "LIMITS RCPTMAX=0",
            "LIMITS RCPTMAX=+1",
            "LIMITS RCPTMAX=lots",
            "LIMITS RCPTMAX=1000000",
        ] {
            assert_eq!(limits(line), (None, None, None), "{line}");
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        for line in [
            "SIZE",
            "SIZE 0",
            "SIZE lots",
            "SIZE 99999999999999999999999",
        ] {
            let caps = caps(&["name", line]);
            assert!(caps.size);
            assert_eq!(caps.max_size, None, "{line}");
        }
    }
}
