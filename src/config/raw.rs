//! The keys of the file, each with its place for error messages. The same declarations read and write
//! them, so that the written form can be read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::de::{Deserializer, Error};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::value::{Size, Span, SpanOrNever};
use super::{Attempt, Log};

#[derive(Deserialize, Serialize)]
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

#[derive(Deserialize, Serialize)]
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
        RawAccept {
            max_size: Size(50_000_000),
            min_free: Size(100_000_000),
            min_free_inodes: 1_000,
            hop_limit: 50,
            attempt: Attempt::default(),
            timeout: Span::from_secs(600),
            key_lifetime: Spanned::new(0..0, Span::from_secs(24 * 3600)),
            max_hold: Span::from_secs(30 * 24 * 3600),
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRun {
    pub jobs: Spanned<usize>,
    pub background: Spanned<usize>,
}

impl Default for RawRun {
    fn default() -> RawRun {
        RawRun {
            jobs: Spanned::new(0..0, 20),
            background: Spanned::new(0..0, 4),
        }
    }
}

/// Declares a table with the keys of a schedule and further keys.
macro_rules! with_schedule_keys {
    ($name:ident { $($(#[$attribute:meta])* $key:ident: $type:ty,)* }) => {
        #[derive(Default, Deserialize, Serialize)]
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

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetryRule {
    pub status: Option<Spanned<String>>,
    pub reply: Option<Spanned<String>>,
    pub after: Spanned<Span>,
    pub until: Option<Spanned<Span>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBounce {
    pub lifetime: Spanned<Span>,
}

impl Default for RawBounce {
    fn default() -> RawBounce {
        RawBounce {
            lifetime: Spanned::new(0..0, Span::from_secs(86_400)),
        }
    }
}

#[derive(Deserialize, Serialize)]
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
            return_whole: Size(64_000),
            bounce: RawWording::default(),
            delay: RawWording::default(),
            success: RawWording::default(),
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFrozen {
    pub lifetime: Spanned<SpanOrNever>,
}

impl Default for RawFrozen {
    fn default() -> RawFrozen {
        RawFrozen {
            lifetime: Spanned::new(0..0, SpanOrNever(Some(Span::from_secs(14 * 86_400)))),
        }
    }
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWording {
    pub from: Option<Spanned<String>>,
    pub subject: Option<Spanned<String>>,
    pub text: Option<Spanned<String>>,
    pub text_file: Option<Spanned<PathBuf>>,
    /// Only for `[notice.delay]`.
    pub after: Option<Spanned<Vec<Span>>>,
}

#[derive(Deserialize, Serialize)]
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

#[derive(Deserialize, Serialize)]
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

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDns {
    pub servers: Vec<Spanned<String>>,
    pub timeout: Option<Spanned<Span>>,
    pub local_mx: bool,
}

/// Declares the keys of all transport types, and a list of the keys that are set.
macro_rules! transport_keys {
    ($($key:ident: $type:ty,)*) => {
        #[derive(Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct RawTransport {
            pub r#type: Spanned<String>,
            $(pub $key: Option<Spanned<$type>>,)*
        }

        impl RawTransport {
            /// Returns each key that is set, except `type`, and its place.
            pub fn keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
                let all = [$((stringify!($key), self.$key.as_ref().map(Spanned::span)),)*];
                all.into_iter().filter_map(|(key, span)| Some((key, span?)))
            }

            /// Returns a transport with no key but `type`.
            pub fn of_type(name: &str) -> RawTransport {
                RawTransport {
                    r#type: Spanned::new(0..0, name.to_owned()),
                    $($key: None,)*
                }
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
#[derive(Deserialize, Serialize)]
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

/// A password. No error message contains its value, whatever its type.
pub(super) struct RawPassword(pub String);

impl<'de> Deserialize<'de> for RawPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawPassword, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(RawPassword(text)),
            _ => Err(D::Error::custom("a password is a string in quotes")),
        }
    }
}

impl Serialize for RawPassword {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("a password is not written anywhere"))
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub recipient: Option<Spanned<String>>,
    pub domain: Option<Spanned<String>>,
    pub sender: Option<Spanned<String>>,
    pub transport: Spanned<String>,
}
