//! The keys of the file, each with its place for error messages.
//!
//! Validation fills in every default and replaces each value by its usual spelling. What is then written is
//! the configuration in force, and the same declarations can read it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::value::{Size, Span, SpanOrNever, at, spans};
use super::{Attempt, Log};
use crate::accept::Limits;
use crate::notice::DsnBuilder;
use crate::queue::{Phase, Rhythm, Schedule, Schedules};

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub hostname: Option<Spanned<String>>,
    pub postmaster: Option<Spanned<String>>,
    #[serde(default)]
    pub accept: RawAccept,
    #[serde(default)]
    pub run: RawRun,
    #[serde(default)]
    pub retry: RawRetry,
    #[serde(default)]
    pub bounce: RawBounce,
    #[serde(default)]
    pub notice: RawNotice,
    #[serde(default)]
    pub frozen: RawFrozen,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub discard: RawDiscard,
    #[serde(default)]
    pub dns: RawDns,
    #[serde(default)]
    pub transport: BTreeMap<Spanned<String>, RawTransport>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RawRoute>,
}

/// Places in a text and passwords are not for debugging; the values are in [`Config`](super::Config).
impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw")
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAccept {
    pub max_size: Size,
    pub min_free: Size,
    pub min_free_inodes: u64,
    pub hop_limit: usize,
    pub attempt: Attempt,
    pub timeout: Span,
    pub key_lifetime: Spanned<Span>,
    pub max_hold: Span,
}

impl Default for RawAccept {
    fn default() -> RawAccept {
        let Limits {
            hostname: _,
            max_size,
            min_free,
            min_free_inodes,
            hop_limit,
            key_lifetime,
            max_hold,
        } = Limits::new("");
        RawAccept {
            max_size: Size(max_size),
            min_free: Size(min_free),
            min_free_inodes,
            hop_limit,
            attempt: Attempt::default(),
            timeout: Span::from_secs(600),
            key_lifetime: at(key_lifetime.into()),
            max_hold: max_hold.into(),
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRun {
    pub jobs: Spanned<usize>,
    pub background: Spanned<usize>,
}

impl Default for RawRun {
    fn default() -> RawRun {
        RawRun {
            jobs: at(20),
            background: at(4),
        }
    }
}

/// Declares a table with the keys of a schedule and further keys.
macro_rules! with_schedule_keys {
    ($name:ident { $($(#[$attribute:meta])* $key:ident: $type:ty,)* }) => {
        #[derive(Clone, Default, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$attribute])* pub $key: $type,)*
            pub phases: Option<Spanned<Vec<RawPhase>>>,
            pub delays: Option<Spanned<Vec<Span>>>,
            pub jitter: Option<Spanned<f64>>,
            pub cap: Option<Spanned<Span>>,
            pub lifetime: Option<Spanned<Span>>,
        }

        impl $name {
            pub fn schedule(&self) -> ScheduleKeys<'_> {
                ScheduleKeys {
                    phases: self.phases.as_ref(),
                    delays: self.delays.as_ref(),
                    jitter: self.jitter.as_ref(),
                    cap: self.cap.as_ref(),
                    lifetime: self.lifetime.as_ref(),
                }
            }

            /// Sets the keys to what the schedule came to.
            pub fn fill(&mut self, schedule: &Schedule) {
                (self.phases, self.delays) = match schedule.rhythm() {
                    Rhythm::Phases(phases) => (Some(at(phases.iter().map(RawPhase::from).collect())), None),
                    Rhythm::Delays(delays) => (None, Some(at(spans(delays)))),
                };
                self.jitter = Some(at(schedule.jitter()));
                self.cap = schedule.cap().map(|cap| at(cap.into()));
                self.lifetime = Some(at(schedule.lifetime().into()));
            }
        }
    };
}

/// The keys of a schedule.
#[derive(Clone, Copy)]
pub(super) struct ScheduleKeys<'a> {
    pub phases: Option<&'a Spanned<Vec<RawPhase>>>,
    pub delays: Option<&'a Spanned<Vec<Span>>>,
    pub jitter: Option<&'a Spanned<f64>>,
    pub cap: Option<&'a Spanned<Span>>,
    pub lifetime: Option<&'a Spanned<Span>>,
}

impl ScheduleKeys<'_> {
    /// Returns the place of the first key that is set.
    pub fn place(&self) -> Option<Range<usize>> {
        let all = [
            self.phases.map(Spanned::span),
            self.delays.map(Spanned::span),
            self.lifetime.map(Spanned::span),
            self.cap.map(Spanned::span),
            self.jitter.map(Spanned::span),
        ];
        all.into_iter().flatten().next()
    }
}

with_schedule_keys! {
    RawRetry {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        domain: Vec<RawRetryDomain>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rule: Vec<RawRetryRule>,
    }
}

with_schedule_keys! { RawTransportRetry {} }

with_schedule_keys! {
    RawRetryDomain {
        domain: Option<Spanned<String>>,
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetryRule {
    pub status: Option<Spanned<String>>,
    pub reply: Option<Spanned<String>>,
    pub after: Spanned<Span>,
    pub until: Option<Spanned<Span>>,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBounce {
    pub lifetime: Spanned<Span>,
}

impl Default for RawBounce {
    fn default() -> RawBounce {
        RawBounce {
            lifetime: at(Schedules::NULL_LIFETIME.into()),
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNotice {
    pub return_whole: Size,
    pub bounce: RawWording,
    pub delay: RawWording,
    pub success: RawWording,
}

impl Default for RawNotice {
    fn default() -> RawNotice {
        RawNotice {
            return_whole: Size(DsnBuilder::new("").return_whole),
            bounce: RawWording::default(),
            delay: RawWording::default(),
            success: RawWording::default(),
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFrozen {
    pub lifetime: Spanned<SpanOrNever>,
}

impl Default for RawFrozen {
    fn default() -> RawFrozen {
        RawFrozen {
            lifetime: at(SpanOrNever(Some(Span::from_secs(14 * 86_400)))),
        }
    }
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWording {
    pub from: Option<Spanned<String>>,
    pub subject: Option<Spanned<String>>,
    pub text: Option<Spanned<String>>,
    pub text_file: Option<Spanned<PathBuf>>,
    /// Only for `[notice.delay]`.
    pub after: Option<Spanned<Vec<Span>>>,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPhase {
    pub until: Span,
    pub every: Span,
    #[serde(default = "one")]
    pub factor: f64,
}

fn one() -> f64 {
    1.0
}

impl From<&Phase> for RawPhase {
    fn from(phase: &Phase) -> RawPhase {
        RawPhase {
            until: phase.until.into(),
            every: phase.every.into(),
            factor: phase.factor,
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDiscard {
    pub keep: Span,
}

impl Default for RawDiscard {
    fn default() -> RawDiscard {
        RawDiscard {
            keep: Span::from_secs(7 * 86_400),
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDns {
    pub servers: Vec<Spanned<String>>,
    pub timeout: Spanned<Span>,
    pub local_mx: bool,
}

impl Default for RawDns {
    fn default() -> RawDns {
        RawDns {
            servers: Vec::new(),
            timeout: at(Span::from_secs(5)),
            local_mx: false,
        }
    }
}

/// Declares the keys of all transport types, and a list of the keys that are set.
macro_rules! transport_keys {
    ($($(#[$attribute:meta])* $key:ident: $type:ty,)*) => {
        #[derive(Clone, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct RawTransport {
            pub r#type: Spanned<String>,
            $($(#[$attribute])* pub $key: Option<Spanned<$type>>,)*
        }

        impl RawTransport {
            /// Returns each key that is set, except `type`, and its place.
            pub fn keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> + use<> {
                let all = [$((stringify!($key), self.$key.as_ref().map(Spanned::span)),)*];
                all.into_iter().filter_map(|(key, span)| Some((key, span?)))
            }
        }
    };
}

transport_keys! {
    path: PathBuf,
    command: Vec<String>,
    user: String,
    timeout: Span,
    host: OneOrMore,
    port: u16,
    tls: RawTls,
    tls_implicit: bool,
    tls_min: RawTlsMin,
    tls_name: String,
    tls_ca: PathBuf,
    tls_certificate: PathBuf,
    tls_key: PathBuf,
    username: String,
    #[serde(skip_serializing)]
    password: RawPassword,
    password_file: PathBuf,
    token_file: PathBuf,
    auth: RawAuth,
    auth_in_clear: bool,
    hello: String,
    max_recipients: usize,
    max_per_connection: usize,
    concurrency: usize,
    connect_timeout: Span,
    on_unknown: OnUnknown,
    retry: RawTransportRetry,
}

/// What to do with a message if it is unknown whether the server accepted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// Attempt it again; it may be delivered twice.
    #[default]
    Retry,
    /// Freeze it until an operator acts.
    Freeze,
}

/// A string or a list of strings.
#[derive(Clone, Deserialize, Serialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTls {
    None,
    Opportunistic,
    Required,
    Verified,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
pub(super) enum RawTlsMin {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawAuth {
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    Plain,
    Login,
    #[serde(rename = "xoauth2")]
    XOAuth2,
    #[serde(rename = "oauthbearer")]
    OAuthBearer,
}

/// A password. It is not written, and no error message contains its value, whatever its type.
#[derive(Clone)]
pub(super) struct RawPassword(pub String);

impl<'de> Deserialize<'de> for RawPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawPassword, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(RawPassword(text)),
            _ => Err(D::Error::custom("a password is a string in quotes")),
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub recipient: Option<Spanned<String>>,
    pub domain: Option<Spanned<String>>,
    pub sender: Option<Spanned<String>>,
    pub transport: Spanned<String>,
}
