//! `type = "smtp"` and `type = "lmtp"`.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::Error;
use super::login::WireLogin;
use super::raw::{OnUnknown, OneOrMore, RawTls, RawTlsMin, RawTransport};
use super::value::Text;
use crate::dns::{Host, Name};
use crate::message::domain;
use crate::smtp::{HelloName, MinimumTls, Protocol, TlsPolicy};

/// Delivery to other hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The hosts in the order of attempts; empty means the mail exchanges of the recipient's domain.
    pub hosts: Vec<Host>,
    /// The port of hosts without one.
    pub port: u16,
    /// The TLS settings.
    pub tls: WireTls,
    /// The credentials for AUTH; none means no authentication.
    pub login: Option<WireLogin>,
    /// The name in EHLO or LHLO.
    pub hello: HelloName,
    /// The most recipients of one transaction.
    pub max_recipients: usize,
    /// The most messages over one connection.
    pub max_per_connection: usize,
    /// The most concurrent connections to one destination, and to one host.
    pub concurrency: usize,
    /// The longest that connecting to one address may take.
    pub connect_timeout: Duration,
    /// What to do with a message if it is unknown whether the server accepted it.
    pub on_unknown: OnUnknown,
    /// The longest wait for each reply; none means the timeouts of RFC 5321.
    pub timeout: Option<Duration>,
}

/// The TLS settings, with the paths of the files to read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the keys of the configuration, described there
pub struct WireTls {
    pub policy: TlsPolicy,
    pub implicit: bool,
    pub minimum: MinimumTls,
    pub name: Option<String>,
    pub ca: Option<PathBuf>,
    /// The certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The keys of `smtp` and `lmtp`.
pub(super) const KEYS: &[&str] = &[
    "timeout",
    "host",
    "port",
    "tls",
    "tls_implicit",
    "tls_min",
    "tls_name",
    "tls_ca",
    "tls_certificate",
    "tls_key",
    "username",
    "password",
    "password_file",
    "token_file",
    "auth",
    "auth_in_clear",
    "hello",
    "max_recipients",
    "max_per_connection",
    "concurrency",
    "connect_timeout",
    "on_unknown",
];

/// The port of TLS from the first octet (RFC 8314).
const SUBMISSIONS: u16 = 465;

impl Wire {
    /// Whether every host is a socket of this machine.
    fn is_local(hosts: &[Host]) -> bool {
        let local = |host: &Host| matches!(host.name, Name::Unix(_));
        !hosts.is_empty() && hosts.iter().all(local)
    }
}

impl Text<'_> {
    pub(super) fn wire(&self, raw: &RawTransport, hostname: &str) -> Result<Wire, Error> {
        let protocol = match raw.r#type.get_ref().as_str() {
            "lmtp" => Protocol::Lmtp,
            _ => Protocol::Smtp,
        };
        let hosts = self.hosts(raw, protocol)?;
        let implicit = self.implicit(raw, &hosts)?;
        let port = match (&raw.port, protocol) {
            (Some(port), _) if *port.get_ref() == 0 => {
                return Err(self.error(port.span(), "a port is a number from 1 to 65535"));
            }
            (Some(port), _) => *port.get_ref(),
            (None, Protocol::Lmtp) => 24,
            (None, Protocol::Smtp) if implicit => SUBMISSIONS,
            (None, Protocol::Smtp) => 25,
        };
        let hello = raw.hello.as_ref();
        let name = hello.map_or(hostname, |given| given.get_ref());
        let span = || hello.unwrap_or(&raw.r#type).span();
        let name = domain::to_ascii(name).map_err(|error| self.error(span(), error))?;
        let hello = HelloName::parse(&name).map_err(|error| self.error(span(), error))?;
        let most = |given: &Option<Spanned<usize>>, key: &str, default: usize| match given {
            Some(given) => self.at_least_one(given, key),
            None => Ok(default),
        };
        let connect_timeout = raw.connect_timeout.as_ref();
        let connect_timeout = connect_timeout.map(|given| self.some_time(given));
        let timeout = raw.timeout.as_ref().map(|given| self.some_time(given));
        let tls = self.tls(raw, &hosts, implicit)?;
        Ok(Wire {
            protocol,
            login: self.login(raw, Wire::is_local(&hosts), tls.policy)?,
            tls,
            port,
            hello,
            max_recipients: most(&raw.max_recipients, "max_recipients", 100)?,
            max_per_connection: most(&raw.max_per_connection, "max_per_connection", 100)?,
            concurrency: self.concurrency(raw)?,
            connect_timeout: connect_timeout
                .transpose()?
                .unwrap_or(Duration::from_secs(30)),
            timeout: timeout.transpose()?,
            on_unknown: raw
                .on_unknown
                .as_ref()
                .map_or_else(OnUnknown::default, |given| *given.get_ref()),
            hosts,
        })
    }

    fn hosts(&self, raw: &RawTransport, protocol: Protocol) -> Result<Vec<Host>, Error> {
        let Some(given) = &raw.host else {
            return match protocol {
                Protocol::Smtp => Ok(Vec::new()),
                Protocol::Lmtp => Err(self.error(raw.r#type.span(), "type \"lmtp\" needs `host`")),
            };
        };
        let texts = match given.get_ref() {
            OneOrMore::One(text) => std::slice::from_ref(text),
            OneOrMore::More(texts) => texts,
        };
        if texts.is_empty() {
            return Err(self.error(given.span(), "`host` is empty"));
        }
        let host = |text: &String| {
            let wrong = |error| self.error(given.span(), format!("{text:?}: {error}"));
            text.parse::<Host>().map_err(wrong)
        };
        texts.iter().map(host).collect()
    }

    /// Whether TLS begins with the first octet.
    fn implicit(&self, raw: &RawTransport, hosts: &[Host]) -> Result<bool, Error> {
        let none = matches!(raw.tls.as_ref().map(Spanned::get_ref), Some(RawTls::None));
        if let Some(given) = &raw.tls_implicit {
            return if *given.get_ref() && none {
                Err(self.error(given.span(), "`tls_implicit` contradicts tls = \"none\""))
            } else {
                Ok(*given.get_ref())
            };
        }
        let default = raw.port.as_ref().map(|port| *port.get_ref());
        let is_465 = |host: &Host| host.port.or(default) == Some(SUBMISSIONS);
        let tcp = |host: &&Host| !matches!(host.name, Name::Unix(_));
        let (with, without): (Vec<&Host>, Vec<&Host>) =
            hosts.iter().filter(tcp).partition(|host| is_465(host));
        match (&raw.host, with.is_empty(), without.is_empty()) {
            (None, _, _) => Ok(default == Some(SUBMISSIONS) && !none),
            (Some(given), false, false) if !none => {
                let what = "some hosts have port 465 and some do not: set `tls_implicit`, or \
                            use two transports";
                Err(self.error(given.span(), what))
            }
            (Some(_), with_is_empty, _) => Ok(!with_is_empty && !none),
        }
    }

    fn tls(&self, raw: &RawTransport, hosts: &[Host], implicit: bool) -> Result<WireTls, Error> {
        let policy = match raw.tls.as_ref().map(Spanned::get_ref) {
            Some(RawTls::None) => TlsPolicy::None,
            Some(RawTls::Opportunistic) => TlsPolicy::Opportunistic,
            Some(RawTls::Required) => TlsPolicy::Required,
            Some(RawTls::Verified) => TlsPolicy::Verified,
            None if Wire::is_local(hosts) && !implicit => TlsPolicy::None,
            None if raw.username.is_some() => TlsPolicy::Verified,
            None if implicit => TlsPolicy::Required,
            None => TlsPolicy::Opportunistic,
        };
        // A key that would have no effect is a mistake.
        let needs =
            |key: &str, span: Option<std::ops::Range<usize>>, has: bool, what: &str| match span {
                Some(span) if !has => Err(self.error(span, format!("`{key}` needs {what}"))),
                _ => Ok(()),
            };
        let used = policy != TlsPolicy::None;
        let verified = policy == TlsPolicy::Verified;
        for (key, span) in raw.keys() {
            let has = match key {
                "tls_min" | "tls_name" | "tls_certificate" | "tls_key" => used,
                "tls_ca" => verified,
                _ => continue,
            };
            let what = if key == "tls_ca" {
                "tls = \"verified\""
            } else {
                "TLS"
            };
            needs(key, Some(span), has, what)?;
        }
        let (certificate, key) = (&raw.tls_certificate, &raw.tls_key);
        let spans = [certificate, key].map(|file| file.as_ref().map(Spanned::span));
        needs(
            "tls_certificate",
            spans[0].clone(),
            key.is_some(),
            "`tls_key`",
        )?;
        needs(
            "tls_key",
            spans[1].clone(),
            certificate.is_some(),
            "`tls_certificate`",
        )?;
        let file = |given: &Option<Spanned<PathBuf>>| given.as_ref().map(|at| at.get_ref().clone());
        Ok(WireTls {
            policy,
            implicit,
            minimum: match raw.tls_min.as_ref().map(Spanned::get_ref) {
                None | Some(RawTlsMin::V1_2) => MinimumTls::V1_2,
                Some(RawTlsMin::V1_3) => MinimumTls::V1_3,
            },
            name: raw.tls_name.as_ref().map(|name| name.get_ref().clone()),
            ca: file(&raw.tls_ca),
            identity: file(certificate).zip(file(key)),
        })
    }
}
