//! `type = "smtp"` and `type = "lmtp"`.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::Error;
use super::login::WireLogin;
use super::raw::{OnUnknown, OneOrMore, RawTls, RawTlsMin, RawTransport};
use super::value::{Span, Text, at};
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
    pub(super) fn wire(&self, raw: &mut RawTransport, hostname: &str) -> Result<Wire, Error> {
        let protocol = match raw.r#type.get_ref().as_str() {
            "lmtp" => Protocol::Lmtp,
            _ => Protocol::Smtp,
        };
        let hosts = self.hosts(raw, protocol)?;
        let implicit = self.implicit(raw, &hosts)?;
        let texts = hosts.iter().map(ToString::to_string).collect();
        raw.host = (!hosts.is_empty()).then(|| at(OneOrMore::More(texts)));
        let port = raw.port.get_or_insert(at(match protocol {
            Protocol::Lmtp => 24,
            Protocol::Smtp if implicit => SUBMISSIONS,
            Protocol::Smtp => 25,
        }));
        if *port.get_ref() == 0 {
            return Err(self.error(port.span(), "a port is a number from 1 to 65535"));
        }
        let port = *port.get_ref();
        let hello = raw.hello.as_ref();
        let name = hello.map_or(hostname, |given| given.get_ref());
        let span = || hello.unwrap_or(&raw.r#type).span();
        let name = domain::to_ascii(name).map_err(|error| self.error(span(), error))?;
        let hello = HelloName::parse(&name).map_err(|error| self.error(span(), error))?;
        raw.hello = Some(at(hello.to_string()));
        let most = |key: &mut Option<Spanned<usize>>, name: &str| {
            self.at_least_one(key.get_or_insert(at(100)), name)
        };
        let tls = self.tls(raw, &hosts, implicit)?;
        Ok(Wire {
            protocol,
            login: self.login(raw, Wire::is_local(&hosts), tls.policy)?,
            tls,
            port,
            hello,
            max_recipients: most(&mut raw.max_recipients, "max_recipients")?,
            max_per_connection: most(&mut raw.max_per_connection, "max_per_connection")?,
            concurrency: self.concurrency(&mut raw.concurrency)?,
            connect_timeout: {
                let default = at(Span::from_secs(30));
                self.some_time(raw.connect_timeout.get_or_insert(default))?
            },
            timeout: match &raw.timeout {
                Some(given) => Some(self.some_time(given)?),
                None => None,
            },
            on_unknown: *raw
                .on_unknown
                .get_or_insert(at(OnUnknown::default()))
                .get_ref(),
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

    fn tls(
        &self,
        raw: &mut RawTransport,
        hosts: &[Host],
        implicit: bool,
    ) -> Result<WireTls, Error> {
        let given = raw.tls.get_or_insert(at(match raw.username {
            _ if Wire::is_local(hosts) && !implicit => RawTls::None,
            Some(_) => RawTls::Verified,
            None if implicit => RawTls::Required,
            None => RawTls::Opportunistic,
        }));
        let policy = match given.get_ref() {
            RawTls::None => TlsPolicy::None,
            RawTls::Opportunistic => TlsPolicy::Opportunistic,
            RawTls::Required => TlsPolicy::Required,
            RawTls::Verified => TlsPolicy::Verified,
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
        raw.tls_implicit = used.then_some(at(implicit));
        if used {
            raw.tls_min.get_or_insert(at(RawTlsMin::V1_2));
        }
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
