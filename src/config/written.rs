//! Writes the configuration as TOML, with every default filled in. Parsing the result gives the same
//! configuration.
//!
//! The same declarations read and write it. Each value is constructed with all its fields here, so that
//! the compiler reports a field that was added.

use std::time::Duration;

use jiff::SignedDuration;
use toml::Spanned;

use super::raw::{
    OneOrMore, Raw, RawAccept, RawAuth, RawBounce, RawDiscard, RawDns, RawFrozen, RawNotice,
    RawPhase, RawRetry, RawRetryDomain, RawRetryRule, RawRoute, RawRun, RawTls, RawTlsMin,
    RawTransport, RawTransportRetry, RawWording,
};
use super::value::{Size, Span, SpanOrNever};
use super::{Config, Error, Notices, Secret, Transport, Wire};
use crate::message::NoticeKind;
use crate::queue::{Pattern, Phase, ReplyRule, Rhythm, Rule, Schedule, Schedules};
use crate::smtp::{Mechanism, MinimumTls, Protocol, TlsPolicy};

impl Config {
    /// Returns the whole configuration except passwords.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(&self.raw()).map_err(|error| Error(error.to_string()))
    }

    /// Returns the transports with a password in the configuration, which [`to_toml`](Config::to_toml)
    /// leaves out.
    pub fn with_password(&self) -> impl Iterator<Item = &str> {
        let has = |transport: &Transport| match transport {
            Transport::Wire(wire) => {
                let secret = wire.login.as_ref().map(|login| &login.secret);
                matches!(secret, Some(Secret::Password(_)))
            }
            Transport::Maildir { .. } | Transport::Pipe { .. } => false,
        };
        let all = self.transports.iter();
        all.filter(move |(_, transport)| has(transport))
            .map(|(name, _)| name.as_str())
    }

    fn raw(&self) -> Raw {
        let accept = &self.accept;
        let transport = |(name, transport): (&String, &Transport)| {
            let own = self.retry.transports().find(|(of, _)| of == name);
            let mut raw = raw_transport(transport);
            raw.retry = own.map(|(_, schedule)| at(schedule.into()));
            (at(name.clone()), raw)
        };
        Raw {
            hostname: Some(at(self.hostname.clone())),
            postmaster: Some(at(self.postmaster.as_str().to_owned())),
            accept: RawAccept {
                max_size: Size(accept.max_size),
                min_free: Size(accept.min_free),
                min_free_inodes: accept.min_free_inodes,
                hop_limit: accept.hop_limit,
                attempt: accept.attempt,
                timeout: Span(accept.timeout),
                key_lifetime: at(span(accept.key_lifetime)),
                max_hold: span(accept.max_hold),
            },
            run: RawRun {
                jobs: at(self.run.jobs),
                background: at(self.run.background),
            },
            retry: raw_retry(&self.retry),
            bounce: RawBounce {
                lifetime: at(span(self.retry.null_lifetime())),
            },
            notice: raw_notice(&self.notices),
            frozen: RawFrozen {
                lifetime: at(SpanOrNever(self.frozen_lifetime.map(span))),
            },
            log: self.log.clone(),
            discard: RawDiscard {
                keep: span(self.discard_keep),
            },
            dns: RawDns {
                servers: texts(&self.dns.servers).into_iter().map(at).collect(),
                timeout: Some(at(Span(self.dns.timeout))),
                local_mx: self.dns.local_mx,
            },
            transport: self.transports.iter().map(transport).collect(),
            route: self.routes.0.iter().map(RawRoute::from).collect(),
        }
    }
}

/// Wraps a value that has no place in a text.
fn at<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn span(duration: SignedDuration) -> Span {
    Span(Duration::try_from(duration).unwrap_or_default())
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn raw_transport(transport: &Transport) -> RawTransport {
    match transport {
        Transport::Maildir { path, concurrency } => RawTransport {
            path: Some(at(path.clone())),
            concurrency: Some(at(*concurrency)),
            ..RawTransport::of_type("maildir")
        },
        Transport::Pipe {
            command,
            user,
            timeout,
            concurrency,
        } => RawTransport {
            concurrency: Some(at(*concurrency)),
            command: Some(at(command.clone())),
            user: user.clone().map(at),
            timeout: Some(at(Span(*timeout))),
            ..RawTransport::of_type("pipe")
        },
        Transport::Wire(wire) => raw_wire(wire),
    }
}

fn raw_wire(wire: &Wire) -> RawTransport {
    // Name every field, so that the compiler reports a new field of `Wire`.
    let Wire {
        protocol,
        hosts,
        port,
        tls,
        login,
        hello,
        max_recipients,
        max_per_connection,
        concurrency,
        connect_timeout,
        on_unknown,
        timeout,
    } = wire;
    let kind = match protocol {
        Protocol::Smtp => "smtp",
        Protocol::Lmtp => "lmtp",
    };
    let policy = match tls.policy {
        TlsPolicy::None => RawTls::None,
        TlsPolicy::Opportunistic => RawTls::Opportunistic,
        TlsPolicy::Required => RawTls::Required,
        TlsPolicy::Verified => RawTls::Verified,
    };
    let uses_tls = tls.policy != TlsPolicy::None;
    let minimum = match tls.minimum {
        MinimumTls::V1_2 => RawTlsMin::V1_2,
        MinimumTls::V1_3 => RawTlsMin::V1_3,
    };
    let (certificate, key) = tls.identity.clone().unzip();
    let login = login.as_ref();
    let secret = login.map(|login| &login.secret);
    let file = |file: Option<&std::path::PathBuf>| file.cloned().map(at);
    RawTransport {
        host: (!hosts.is_empty()).then(|| at(OneOrMore::More(texts(hosts)))),
        port: Some(at(*port)),
        hello: Some(at(hello.to_string())),
        tls: Some(at(policy)),
        tls_implicit: uses_tls.then_some(at(tls.implicit)),
        tls_min: uses_tls.then_some(at(minimum)),
        tls_name: tls.name.clone().map(at),
        tls_ca: file(tls.ca.as_ref()),
        tls_certificate: file(certificate.as_ref()),
        tls_key: file(key.as_ref()),
        username: login.map(|login| at(login.username.clone())),
        password_file: file(match secret {
            Some(Secret::PasswordFile(path)) => Some(path),
            _ => None,
        }),
        token_file: file(match secret {
            Some(Secret::TokenFile(path)) => Some(path),
            _ => None,
        }),
        auth: login.and_then(|login| login.mechanism).map(|mechanism| {
            at(match mechanism {
                Mechanism::ScramSha256 => RawAuth::ScramSha256,
                Mechanism::Plain => RawAuth::Plain,
                Mechanism::Login => RawAuth::Login,
                Mechanism::XOAuth2 => RawAuth::XOAuth2,
                Mechanism::OAuthBearer => RawAuth::OAuthBearer,
            })
        }),
        auth_in_clear: login.map(|login| at(login.in_clear)),
        max_recipients: Some(at(*max_recipients)),
        max_per_connection: Some(at(*max_per_connection)),
        concurrency: Some(at(*concurrency)),
        connect_timeout: Some(at(Span(*connect_timeout))),
        on_unknown: Some(at(*on_unknown)),
        timeout: timeout.map(|time| at(Span(time))),
        ..RawTransport::of_type(kind)
    }
}

/// The keys of a schedule.
struct Keys {
    phases: Option<Spanned<Vec<RawPhase>>>,
    delays: Option<Spanned<Vec<Span>>>,
    jitter: Option<Spanned<f64>>,
    cap: Option<Spanned<Span>>,
    lifetime: Option<Spanned<Span>>,
}

impl From<&Schedule> for Keys {
    fn from(schedule: &Schedule) -> Keys {
        let phase = |phase: &Phase| RawPhase {
            until: span(phase.until),
            every: span(phase.every),
            factor: phase.factor,
        };
        let (phases, delays) = match schedule.rhythm() {
            Rhythm::Phases(phases) => (Some(phases.iter().map(phase).collect()), None),
            Rhythm::Delays(delays) => (None, Some(delays.iter().copied().map(span).collect())),
        };
        Keys {
            phases: phases.map(at),
            delays: delays.map(at),
            jitter: Some(at(schedule.jitter())),
            cap: schedule.cap().map(|cap| at(span(cap))),
            lifetime: Some(at(span(schedule.lifetime()))),
        }
    }
}

impl From<&Schedule> for RawTransportRetry {
    fn from(schedule: &Schedule) -> RawTransportRetry {
        let Keys {
            phases,
            delays,
            jitter,
            cap,
            lifetime,
        } = schedule.into();
        RawTransportRetry {
            phases,
            delays,
            jitter,
            cap,
            lifetime,
        }
    }
}

fn raw_retry(schedules: &Schedules) -> RawRetry {
    let Keys {
        phases,
        delays,
        jitter,
        cap,
        lifetime,
    } = schedules.default_schedule().into();
    let domain = |(domain, schedule): (&str, &Schedule)| {
        let keys = Keys::from(schedule);
        RawRetryDomain {
            domain: Some(at(domain.to_owned())),
            phases: keys.phases,
            delays: keys.delays,
            jitter: keys.jitter,
            cap: keys.cap,
            lifetime: keys.lifetime,
        }
    };
    RawRetry {
        domain: schedules.domains().map(domain).collect(),
        rule: schedules.rules().iter().map(RawRetryRule::from).collect(),
        phases,
        delays,
        jitter,
        cap,
        lifetime,
    }
}

impl From<&ReplyRule> for RawRetryRule {
    fn from(rule: &ReplyRule) -> RawRetryRule {
        RawRetryRule {
            status: rule.status.as_ref().map(|status| at(status.to_string())),
            reply: rule.reply.as_ref().map(|glob| at(glob.as_str().to_owned())),
            after: at(span(rule.after)),
            until: rule.until.map(|until| at(span(until))),
        }
    }
}

fn raw_notice(notices: &Notices) -> RawNotice {
    let wording = |kind: NoticeKind| {
        let wording = notices.templates.of(kind);
        let file = notices.files.iter().find(|file| file.kind == kind);
        let ages = || notices.delays.ages().iter().copied().map(span).collect();
        RawWording {
            from: Some(at(wording.from())),
            subject: Some(at(wording.subject())),
            text: file.is_none().then(|| at(wording.text())),
            text_file: file.map(|file| at(file.path.clone())),
            after: (kind == NoticeKind::Delay).then(|| at(ages())),
        }
    };
    RawNotice {
        return_whole: Size(notices.return_whole),
        bounce: wording(NoticeKind::Bounce),
        delay: wording(NoticeKind::Delay),
        success: wording(NoticeKind::Success),
    }
}

impl From<&Rule> for RawRoute {
    fn from(rule: &Rule) -> RawRoute {
        let (recipient, domain) = match &rule.recipient {
            Pattern::Any | Pattern::Null => (None, Some("*".to_owned())),
            Pattern::Domain(domain) => (None, Some(domain.clone())),
            Pattern::Subdomains(above) => (None, Some(format!(".{above}"))),
            Pattern::Mailbox(one) => (Some(one.as_str().to_owned()), None),
        };
        let sender = match &rule.sender {
            Pattern::Any => None,
            Pattern::Null => Some("<>".to_owned()),
            Pattern::Domain(domain) => Some(format!("@{domain}")),
            Pattern::Subdomains(above) => Some(format!("@.{above}")),
            Pattern::Mailbox(one) => Some(one.as_str().to_owned()),
        };
        RawRoute {
            recipient: recipient.map(at),
            domain: domain.map(at),
            sender: sender.map(at),
            transport: at(rule.transport.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
