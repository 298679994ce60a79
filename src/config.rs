//! The configuration: a TOML file. Every key has a default. An unknown key is an error that names its
//! line.
//!
//! Parsing validates what was read (`raw`), fills in its defaults, and returns plain values beside it.
//! `cli` turns the transports into connections, programs and directories.

mod dns;
mod login;
mod notice;
mod raw;
mod retry;
mod route;
mod transport;
mod value;
mod wire;
mod written;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::accept::Limits;
use crate::message::{Address, domain};
use crate::queue::{Routes, Schedules};

use raw::Raw;
use value::{Text, at};

pub use dns::Dns;
pub use login::{Secret, WireLogin};
pub use notice::{Notices, TextFile};
pub use raw::OnUnknown;
pub use transport::Transport;
pub use wire::{Wire, WireTls};

/// The contents of a new spool's `config.toml`. Without a configuration file the same applies.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this host.
    pub hostname: String,
    /// The contact address in notices.
    pub postmaster: Address,
    /// `[accept]`.
    pub accept: Accept,
    /// `[run]`.
    pub run: Run,
    /// `[retry]`, `[transport.*.retry]`, and `[bounce]`'s lifetime.
    pub retry: Schedules,
    /// `[notice]`.
    pub notices: Notices,
    /// `[frozen]`'s lifetime: how long to keep mail that was frozen because it failed and has no sender to
    /// notify. None means for ever.
    pub frozen_lifetime: Option<SignedDuration>,
    /// `[log]`.
    pub log: Log,
    /// How long a discarded message can be restored.
    pub discard_keep: SignedDuration,
    /// `[dns]`.
    pub dns: Dns,
    /// `[transport.*]`.
    pub transports: BTreeMap<String, Transport>,
    /// `[[route]]`.
    pub routes: Routes,
    /// The same as it is written.
    raw: Raw,
}

/// `[accept]`: what is accepted.
#[derive(Clone, Debug)]
pub struct Accept {
    /// What a message must keep to.
    pub limits: Limits,
    /// Whether `receive` starts an attempt at once.
    pub attempt: Attempt,
    /// The longest that `receive` may take in total.
    pub timeout: Duration,
}

/// When a message from `receive` is attempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attempt {
    /// At the next run.
    #[default]
    Later,
    /// In the background, at once.
    Now,
}

/// `[run]`: how a run works.
#[derive(Clone, Debug)]
pub struct Run {
    /// Concurrent transactions of a run.
    pub jobs: usize,
    /// Concurrent background attempts, over all processes.
    pub background: usize,
}

/// `[log]`: where log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The log.
    pub to: LogTo,
    /// The form of a line.
    pub format: LogFormat,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTo {
    /// journald if it exists, else syslog if that exists, else standard error.
    #[default]
    Auto,
    /// Standard error.
    Stderr,
    /// syslog(3), facility mail.
    Syslog,
    /// journald.
    Journald,
    /// Nowhere.
    None,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `name=value` pairs.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why a configuration cannot be used, with the line if it is known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Config {
    /// Parses a configuration. Error messages begin with `name`.
    pub fn parse(text: &str, name: &str) -> Result<Config, Error> {
        let text = &without_comments(text);
        let text = Text { text, name };
        let mut raw: Raw = toml::from_str(text.text).map_err(|error| text.unreadable(&error))?;
        let hostname = match &raw.hostname {
            Some(given) => text.hostname(given)?,
            None => crate::hostname::of_system(),
        };
        // Headers and EHLO, which contain the name, are ASCII.
        let hostname = if hostname.is_ascii() {
            hostname
        } else {
            domain::key(&hostname).into_owned()
        };
        let postmaster = match &raw.postmaster {
            Some(given) => text.address(given)?,
            None => Address::parse("postmaster").map_err(|error| Error(error.to_string()))?,
        };
        let postmaster = postmaster.qualified(&hostname).map_err(|error| {
            let span = raw.postmaster.as_ref().map_or(0..0, Spanned::span);
            text.error(span, error)
        })?;
        raw.hostname = Some(at(hostname.clone()));
        raw.postmaster = Some(at(postmaster.as_str().to_owned()));
        let transports = text.transports(&mut raw.transport, &hostname)?;
        let routes = text.routes(&mut raw.route, &transports)?;
        let accept = &raw.accept;
        Ok(Config {
            postmaster,
            accept: Accept {
                limits: Limits {
                    hostname: hostname.clone(),
                    max_size: accept.max_size.0,
                    min_free: accept.min_free.0,
                    min_free_inodes: accept.min_free_inodes,
                    hop_limit: accept.hop_limit,
                    key_lifetime: text.key_lifetime(&accept.key_lifetime)?,
                    max_hold: signed(accept.max_hold.0),
                },
                attempt: accept.attempt,
                timeout: accept.timeout.0,
            },
            hostname,
            run: Run {
                jobs: text.at_least_one(&raw.run.jobs, "jobs")?,
                background: text.at_least_one(&raw.run.background, "background")?,
            },
            retry: text.schedules(&mut raw)?,
            notices: text.notices(&mut raw.notice)?,
            frozen_lifetime: text.frozen_lifetime(&raw)?,
            log: raw.log.clone(),
            discard_keep: signed(raw.discard.keep.0),
            dns: text.dns(&mut raw.dns)?,
            transports,
            routes,
            raw,
        })
    }
}

/// Returns the text with comment lines replaced by empty lines, as far as a simple scan can tell them.
/// Each submission reads the configuration, which is mostly comments, and the parser reads those octet
/// by octet.
fn without_comments(text: &str) -> Cow<'_, str> {
    // A control character in a comment is an error that the parser must find.
    let is_wrong = |byte: u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n');
    // Scan all of the text without an early exit, so that the compiler vectorizes the loop.
    if text
        .bytes()
        .fold(false, |wrong, byte| wrong | is_wrong(byte))
    {
        return Cow::Borrowed(text);
    }
    let mut rest = String::with_capacity(text.len());
    let mut may_be_in_text = false;
    for line in text.split_inclusive('\n') {
        let is_comment = !may_be_in_text && line.starts_with('#');
        rest.push_str(if is_comment { "\n" } else { line });
        // After this line, what looks like a comment may be a line of a multi-line string.
        may_be_in_text |=
            !is_comment && ["\"\"\"", "'''"].iter().any(|quotes| line.contains(quotes));
    }
    Cow::Owned(rest)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Text<'_> {
    fn hostname(&self, given: &Spanned<String>) -> Result<String, Error> {
        let name = given.get_ref();
        if name.is_empty() || !name.bytes().all(crate::hostname::is_allowed) {
            return Err(self.error(given.span(), "not a host name"));
        }
        if let Err(error) = domain::to_ascii(name) {
            return Err(self.error(given.span(), error));
        }
        // It is appended to submitted addresses that have no domain.
        match domain::check(name) {
            Ok(()) => Ok(name.clone()),
            Err(_) => Err(self.error(given.span(), "not a host name")),
        }
    }

    fn address(&self, given: &Spanned<String>) -> Result<Address, Error> {
        Address::parse(given.get_ref()).map_err(|error| self.error(given.span(), error))
    }

    fn at_least_one(&self, given: &Spanned<usize>, key: &str) -> Result<usize, Error> {
        match *given.get_ref() {
            0 => Err(self.error(given.span(), format!("`{key}` must be at least 1"))),
            count => Ok(count),
        }
    }

    fn key_lifetime(&self, given: &Spanned<value::Span>) -> Result<SignedDuration, Error> {
        match given.get_ref().0 {
            Duration::ZERO => Err(self.error(given.span(), "`key_lifetime` must be more than 0")),
            time => Ok(signed(time)),
        }
    }
}

#[cfg(test)]
mod tests;
