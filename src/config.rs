//! The configuration: TOML, every key with a default, an unknown key an error that names its
//! line.
//!
//! Reading only validates. What comes out are plain values; the top of the program turns them
//! into transports, routes and limits.

mod dns;
mod login;
mod notice;
mod raw;
mod retry;
mod value;
mod wire;
mod written;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::message::{Address, domain};
use crate::queue::{Pattern, Routes, Rule, Schedules};

use raw::{Raw, RawAccept, RawRoute, RawTransport};
use value::Text;

pub use dns::Dns;
pub use login::{Secret, WireLogin};
pub use notice::{Notices, TextFile};
pub use wire::{OnUnknown, Wire, WireTls};

/// What a new spool's `config.toml` says. Without any configuration the same holds.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name.
    pub hostname: String,
    /// Whom people may ask.
    pub postmaster: Address,
    /// `[accept]`.
    pub accept: Accept,
    /// `[run]`.
    pub run: Run,
    /// `[retry]`, `[transport.*.retry]`, and `[bounce]`'s lifetime.
    pub retry: Schedules,
    /// `[notice]`.
    pub notices: Notices,
    /// `[frozen]`'s lifetime: how long frozen mail is kept that failed and of which nobody can be
    /// told.
    pub frozen_lifetime: Option<SignedDuration>,
    /// `[log]`.
    pub log: Log,
    /// How long a discarded message can be taken back.
    pub discard_keep: SignedDuration,
    /// `[dns]`.
    pub dns: Dns,
    /// `[transport.*]`.
    pub transports: BTreeMap<String, Transport>,
    /// `[[route]]`.
    pub routes: Routes,
}

/// `[accept]`: what is accepted.
#[derive(Clone, Debug)]
pub struct Accept {
    /// The most octets of a message.
    pub max_size: u64,
    /// Octets that must stay free.
    pub min_free: u64,
    /// Inodes that must stay free.
    pub min_free_inodes: u64,
    /// The most `Received:` fields.
    pub hop_limit: usize,
    /// Whether `receive` starts an attempt at once.
    pub attempt: Attempt,
    /// The longest that `receive` may take altogether.
    pub timeout: Duration,
    /// How long a submission's key is known.
    pub key_lifetime: SignedDuration,
    /// How far ahead a release may be.
    pub max_hold: SignedDuration,
}

/// When `receive` has a message attempted.
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
    /// Messages in hand at once.
    pub jobs: usize,
    /// Background attempts at once, over all processes.
    pub background: usize,
}

/// `[log]`: where log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// To whom.
    pub to: LogTo,
    /// In which form.
    pub format: LogFormat,
}

/// Who gets the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTo {
    /// journald if it is there, else syslog if that is there, else standard error.
    #[default]
    Auto,
    /// Standard error.
    Stderr,
    /// syslog(3), facility mail.
    Syslog,
    /// journald.
    Journald,
    /// Nobody.
    None,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `name=value` pairs.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One `[transport.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// Into a Maildir; a relative path is below the spool.
    Maildir {
        /// The Maildir.
        path: PathBuf,
        /// Messages being written at once, over all processes.
        concurrency: usize,
    },
    /// Through a program.
    Pipe {
        /// The argument vector.
        command: Vec<String>,
        /// Who runs it.
        user: Option<String>,
        /// The longest it may take for one recipient.
        timeout: Duration,
        /// Commands at once, over all processes.
        concurrency: usize,
    },
    /// To other hosts.
    Wire(Box<Wire>),
}

/// Why a configuration cannot be used, with the line where that can be said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Config {
    /// Reads a configuration. `name` is what error messages call it.
    pub fn parse(text: &str, name: &str) -> Result<Config, Error> {
        let text = &without_comments(text);
        let text = Text { text, name };
        let raw: Raw = toml::from_str(text.text).map_err(|error| text.unreadable(&error))?;
        let hostname = match &raw.hostname {
            Some(given) => text.hostname(given)?,
            None => system_hostname(),
        };
        // It stands in headers and in EHLO, which are ASCII.
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
        let transports = text.transports(&raw.transport, &hostname)?;
        let routes = text.routes(&raw.route, &transports)?;
        let RawAccept { timeout, .. } = raw.accept;
        Ok(Config {
            postmaster,
            hostname,
            accept: Accept {
                max_size: raw.accept.max_size.0,
                min_free: raw.accept.min_free.0,
                min_free_inodes: raw.accept.min_free_inodes,
                hop_limit: raw.accept.hop_limit,
                attempt: raw.accept.attempt,
                timeout: timeout.0,
                key_lifetime: text.key_lifetime(&raw.accept.key_lifetime)?,
                max_hold: signed(raw.accept.max_hold.0),
            },
            run: Run {
                jobs: text.at_least_one(&raw.run.jobs, "jobs")?,
                background: text.at_least_one(&raw.run.background, "background")?,
            },
            retry: text.schedules(&raw)?,
            notices: text.notices(&raw.notice)?,
            frozen_lifetime: text.frozen_lifetime(&raw)?,
            log: raw.log,
            discard_keep: signed(raw.discard.keep.0),
            dns: text.dns(&raw.dns)?,
            transports,
            routes,
        })
    }
}

/// The text with an empty line for each line that is a comment, as far as that can be told by simple
/// means. A configuration is read for each message that comes in, and most of one is comments, which
/// the parser reads octet by octet.
fn without_comments(text: &str) -> Cow<'_, str> {
    // A control character in a comment is an error, which the parser finds.
    let is_wrong = |byte: u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n');
    // All of it is looked at, many octets at once: an early end would have each looked at alone.
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
        // From here on what looks like a comment may be a line of a text of several lines.
        may_be_in_text |=
            !is_comment && ["\"\"\"", "'''"].iter().any(|quotes| line.contains(quotes));
    }
    Cow::Owned(rest)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn system_hostname() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    let usable = name.bytes().all(value::is_hostname_byte) && domain::check(&name).is_ok();
    if usable {
        name.into_owned()
    } else {
        "localhost".to_owned()
    }
}

impl Text<'_> {
    fn hostname(&self, given: &Spanned<String>) -> Result<String, Error> {
        let name = given.get_ref();
        if name.is_empty() || !name.bytes().all(value::is_hostname_byte) {
            return Err(self.error(given.span(), "not a host name"));
        }
        if let Err(error) = domain::to_ascii(name) {
            return Err(self.error(given.span(), error));
        }
        // It stands after the local names that are handed in.
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

    fn transports(
        &self,
        raw: &BTreeMap<Spanned<String>, RawTransport>,
        hostname: &str,
    ) -> Result<BTreeMap<String, Transport>, Error> {
        let mut transports = BTreeMap::new();
        for (name, transport) in raw {
            if !crate::message::envelope::is_transport_name(name.get_ref()) {
                let what = "a transport's name has letters, digits, `-`, `_` and `.` only";
                return Err(self.error(name.span(), what));
            }
            transports.insert(name.get_ref().clone(), self.transport(transport, hostname)?);
        }
        Ok(transports)
    }

    fn transport(&self, raw: &RawTransport, hostname: &str) -> Result<Transport, Error> {
        let kind = raw.r#type.get_ref().as_str();
        let keys = match kind {
            "maildir" => &["path", "concurrency"][..],
            "pipe" => &["command", "user", "timeout", "concurrency"],
            "smtp" | "lmtp" => wire::KEYS,
            other => {
                let what = format!(
                    "unknown type {other:?}; there are \"maildir\", \"pipe\", \"smtp\" and \"lmtp\""
                );
                return Err(self.error(raw.r#type.span(), what));
            }
        };
        let mut others = raw.keys().filter(|(key, _)| *key != "retry");
        if let Some((key, span)) = others.find(|(key, _)| !keys.contains(key)) {
            return Err(self.error(span, format!("`{key}` is no key of type {kind:?}")));
        }
        let missing =
            |key: &str| self.error(raw.r#type.span(), format!("type {kind:?} needs `{key}`"));
        match kind {
            "maildir" => {
                let path = raw.path.as_ref().ok_or_else(|| missing("path"))?;
                Ok(Transport::Maildir {
                    path: path.get_ref().clone(),
                    concurrency: self.concurrency(raw)?,
                })
            }
            "pipe" => {
                let command = raw.command.as_ref().ok_or_else(|| missing("command"))?;
                if command.get_ref().first().is_none_or(String::is_empty) {
                    return Err(self.error(command.span(), "`command` is empty"));
                }
                Ok(Transport::Pipe {
                    command: command.get_ref().clone(),
                    user: raw.user.as_ref().map(|user| user.get_ref().clone()),
                    timeout: raw
                        .timeout
                        .as_ref()
                        .map_or(Duration::from_secs(1000), |span| span.get_ref().0),
                    concurrency: self.concurrency(raw)?,
                })
            }
            _ => Ok(Transport::Wire(Box::new(self.wire(raw, hostname)?))),
        }
    }

    /// How much is done at once, for all types.
    fn concurrency(&self, raw: &RawTransport) -> Result<usize, Error> {
        match &raw.concurrency {
            Some(given) => self.at_least_one(given, "concurrency"),
            None => Ok(20),
        }
    }

    fn routes(
        &self,
        raw: &[RawRoute],
        transports: &BTreeMap<String, Transport>,
    ) -> Result<Routes, Error> {
        let mut rules = Vec::new();
        for route in raw {
            let name = route.transport.get_ref();
            if !transports.contains_key(name) {
                let what = format!("there is no transport {name:?}");
                return Err(self.error(route.transport.span(), what));
            }
            let recipient = match (&route.recipient, &route.domain, &route.sender) {
                (Some(given), None, _) if given.get_ref() == "*" => Pattern::Any,
                (Some(given), None, _) => Pattern::Mailbox(self.address(given)?),
                (None, Some(given), _) => self.domains(given, given.get_ref())?,
                (None, None, Some(_)) => Pattern::Any,
                _ => {
                    let what = "a route needs either `recipient` or `domain`, or `sender`";
                    return Err(self.error(route.transport.span(), what));
                }
            };
            let rule = Rule::new(recipient, name.clone());
            rules.push(match &route.sender {
                Some(given) => rule.from(self.senders(given)?),
                None => rule,
            });
        }
        Ok(Routes(rules))
    }

    /// A domain, `.domain` or `*.domain` for all domains below it, `*` for every domain.
    fn domains(&self, given: &Spanned<String>, text: &str) -> Result<Pattern, Error> {
        if text == "*" {
            return Ok(Pattern::Any);
        }
        let above = text.strip_prefix("*.").or(text.strip_prefix('.'));
        let name = Spanned::new(given.span(), above.unwrap_or(text).to_owned());
        let name = self.hostname(&name)?;
        Ok(match above {
            Some(_) => Pattern::Subdomains(name),
            None => Pattern::Domain(name),
        })
    }

    /// A sender's address, `@domain` for all of a domain (`@.domain` for those below it), `<>` for
    /// the null sender.
    fn senders(&self, given: &Spanned<String>) -> Result<Pattern, Error> {
        match given.get_ref().as_str() {
            "<>" => Ok(Pattern::Null),
            text => match text.strip_prefix('@') {
                Some(domain) => self.domains(given, domain),
                None => Ok(Pattern::Mailbox(self.address(given)?)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
