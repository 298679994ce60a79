//! Builds the transports of the configuration.
//!
//! Certificates, keys and passwords are read here, when a run starts. A transport that cannot be built
//! neither stops the others nor fails its own mail: its mail is deferred with the reason.

mod files;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::descriptors;
use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE};
use super::site::Site;
use crate::config::{self, Secret, TextFile, Transport as Configured, Wire, WireLogin, WireTls};
use crate::dns::Resolver;
use crate::message::{Address, EnhancedCode, NoticeKind, domain, printable};
use crate::notice::{DsnBuilder, Wording};
use crate::queue::{Outcome, Status};
use crate::runner::{Runner, RunnerBuilder};
use crate::smtp::{
    ClientIdentity, Credentials, Deadlines, Login, Protection, Protocol, Roots, Settings, Tls,
    TlsSettings,
};
use crate::transport::{
    FromFn, Maildir, OnUnknown, Pipe, PipeUser, Smtp, Target, Transport, from_fn,
};
use crate::users::User;
use files::{Readers, only_root_changes, trusted_by_root};

/// Returns a runner for the configuration.
pub(super) fn runner(site: &Site) -> RunnerBuilder {
    let config = &site.config;
    let maker = Maker::new(site);
    let (notices, mistakes) = maker.notices();
    for mistake in mistakes {
        tracing::error!(
            mistake,
            "notices use the default wording instead of the configured one"
        );
    }
    let mut runner = Runner::builder(site.spool.clone(), config.hostname.clone())
        .routes(config.routes.clone())
        .retry(config.retry.clone())
        .frozen_lifetime(config.frozen_lifetime)
        .delays(config.notices.delays.clone())
        .notices(notices);
    for (name, configured) in &config.transports {
        let transport = maker.transport(configured).unwrap_or_else(|error| {
            tracing::error!(
                transport = name,
                error,
                "the transport cannot be used: its mail is deferred"
            );
            Arc::new(deferring(name, &error))
        });
        runner = runner.shared_transport(name.clone(), transport);
    }
    runner
}

/// Returns the mistakes that a run would find in users, placeholders and files.
pub(super) fn mistakes(site: &Site) -> Vec<String> {
    let maker = Maker::new(site);
    let (notices, mut found) = maker.notices();
    for kind in [NoticeKind::Bounce, NoticeKind::Delay, NoticeKind::Success] {
        if let Err(error) = notices.example(kind) {
            found.push(format!("notice.{}: {error}", kind.as_str()));
        }
    }
    for (name, configured) in &site.config.transports {
        let mut say = |text: &str| found.push(format!("transport.{name}: {text}"));
        if let Err(text) = maker.transport(configured) {
            say(&text);
        }
        let exposes = matches!(configured, Configured::Wire(wire) if wire.exposes());
        if exposes && site.is_config_exposed {
            say(
                "the configuration contains its password, and others can read it: run `chmod o-r`, \
                 or use `password_file`",
            );
        }
    }
    found
}

/// Returns warnings about settings that work but that other hosts may reject.
pub(super) fn warnings(site: &Site) -> Vec<String> {
    let warning = |(name, configured): (&String, &Configured)| match configured {
        Configured::Wire(wire) if wire.protocol == Protocol::Smtp => {
            let hello = wire.hello.to_string();
            let is_qualified = hello.contains(['.', '[']) && domain::check(&hello).is_ok();
            (!is_qualified).then(|| {
                format!(
                    "transport.{name}: EHLO sends {hello:?}, which is not a fully qualified name; many \
                     servers refuse mail for that (RFC 5321, 4.1.4): set `hostname` or `hello`"
                )
            })
        }
        _ => None,
    };
    site.config.transports.iter().filter_map(warning).collect()
}

/// Returns the destination of a recipient's mail by a configured transport, in the runner's form.
pub(super) fn destination(site: &Site, transport: &str, to: &Address) -> Option<String> {
    Some(match site.config.transports.get(transport)? {
        Configured::Wire(wire) => wire.target().next_hop(to),
        Configured::Maildir { path, .. } => site.spool.path().join(path).display().to_string(),
        Configured::Pipe { .. } => domain::key(to.domain().unwrap_or_default()).into_owned(),
    })
}

/// Returns the outcome for mail by a transport that cannot be used.
pub(super) fn unusable(why: &str) -> Outcome {
    Outcome::deferred(EnhancedCode::new(4, 3, 5), why)
}

/// Returns the exit status for an outcome, and a text that says what happens to the mail.
pub(super) fn refusal(outcome: &Outcome) -> (u8, String) {
    let (status, becomes) = match outcome.status {
        Status::Failed => (EX_UNAVAILABLE, "it is bounced"),
        _ => (EX_TEMPFAIL, "it is deferred"),
    };
    (status, printable(&format!("{becomes}: {}", outcome.reply)))
}

/// Returns a transport that defers all mail.
fn deferring(name: &str, why: &str) -> FromFn {
    let outcome = unusable(&format!("the transport {name:?} cannot be used: {why}"));
    from_fn(move |_, recipients| vec![outcome.clone(); recipients.len()])
}

/// Builds transports, which share one DNS resolver.
pub(super) struct Maker<'a> {
    site: &'a Site,
    resolver: Arc<Resolver>,
}

impl Maker<'_> {
    pub fn new(site: &Site) -> Maker<'_> {
        let dns = &site.config.dns;
        let resolver = Resolver::new(dns.servers.clone())
            .with_timeout(dns.timeout)
            .with_local_mx(dns.local_mx);
        Maker {
            site,
            resolver: Arc::new(resolver),
        }
    }

    /// Returns the builder of notices, and the mistakes in text files. A text with a mistake is replaced by
    /// the default wording: no notice at all would be worse.
    pub fn notices(&self) -> (DsnBuilder, Vec<String>) {
        let config = &self.site.config;
        let mut templates = config.notices.templates.clone();
        let mut mistakes = Vec::new();
        for file in &config.notices.files {
            let wording = match file.kind {
                NoticeKind::Bounce => &mut templates.bounce,
                NoticeKind::Delay => &mut templates.delay,
                NoticeKind::Success => &mut templates.success,
            };
            match self.text(file, wording) {
                Ok(with) => *wording = with,
                Err(mistake) => mistakes.push(format!("{}: {mistake}", file.place)),
            }
        }
        let builder = DsnBuilder {
            postmaster: Some(config.postmaster.clone()),
            return_whole: config.notices.return_whole,
            templates,
            ..DsnBuilder::new(config.hostname.clone())
        };
        (builder, mistakes)
    }

    fn text(&self, file: &TextFile, wording: &Wording) -> Result<Wording, String> {
        let bytes = self.read("text_file", &file.path, Readers::Any)?;
        let path = file.path.display();
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| format!("text_file {path}: it is not UTF-8"))?;
        let with = wording.clone().with_text(&text);
        with.map_err(|error| format!("text_file {path}, line {}: {error}", error.line))
    }

    fn transport(&self, configured: &Configured) -> Result<Arc<dyn Transport>, String> {
        let hostname = &self.site.config.hostname;
        match configured {
            Configured::Maildir { path, concurrency } => {
                let path = self.site.spool.path().join(path);
                trusted_by_root(&path)?;
                let maildir = Maildir::new(path, hostname.clone());
                Ok(Arc::new(maildir.with_concurrency(*concurrency)))
            }
            Configured::Pipe {
                command,
                user,
                timeout,
                concurrency,
            } => {
                let pipe = Pipe::new(command.clone()).map_err(|error| error.to_string())?;
                let mut pipe = pipe.with_timeout(*timeout).with_concurrency(*concurrency);
                if let Some(limit) = descriptors::started_with() {
                    pipe = pipe.with_descriptors(limit);
                }
                if let Some(name) = user {
                    self.may_run_as(name)?;
                }
                if runs_as_root(user.as_deref()) {
                    let program = command.first().map_or("", String::as_str);
                    // A name without a slash is searched in the system's directories.
                    if program.contains('/') {
                        only_root_changes(&Path::new("/").join(program))?;
                    }
                }
                let Some(name) = user else {
                    let pipe = pipe.with_own_user().map_err(|error| error.to_string())?;
                    return Ok(Arc::new(pipe));
                };
                let user = PipeUser::lookup(name).map_err(|error| error.to_string())?;
                Ok(Arc::new(pipe.with_user(user)))
            }
            Configured::Wire(wire) => Ok(Arc::new(self.smtp(wire)?)),
        }
    }

    /// Checks that a command may run as this user: it is the present user, or only root can change the
    /// configuration.
    fn may_run_as(&self, name: &str) -> Result<(), String> {
        let ours = nix::unistd::geteuid();
        let is_ours = matches!(User::named(name), Ok(Some(user)) if user.uid == ours);
        match &self.site.no_switch {
            Some(why) if self.site.caller.is_root() && !is_ours => Err(format!(
                "root runs a command as {name:?} only if root alone can change the configuration: \
                 {why}"
            )),
            _ => Ok(()),
        }
    }

    /// Builds an SMTP or LMTP transport, and reads the files that it needs.
    pub fn smtp(&self, wire: &Wire) -> Result<Smtp, String> {
        let login = wire.login.as_ref().map(|login| self.login(login));
        let settings = Settings {
            protocol: wire.protocol,
            tls: self.tls(&wire.tls)?,
            login: login.transpose()?,
            deadlines: deadlines(wire.timeout),
            ..Settings::new(wire.hello.clone())
        };
        let hostname = self.site.config.hostname.clone();
        let resolver = Arc::clone(&self.resolver);
        let smtp = Smtp::builder(wire.target(), settings, resolver, hostname)
            .port(wire.port)
            .connect_timeout(wire.connect_timeout)
            .max_recipients(wire.max_recipients)
            .max_per_connection(wire.max_per_connection)
            .concurrency(wire.concurrency)
            .on_unknown(match wire.on_unknown {
                config::OnUnknown::Retry => OnUnknown::Retry,
                config::OnUnknown::Freeze => OnUnknown::Freeze,
            })
            .build();
        Ok(smtp)
    }

    fn tls(&self, tls: &WireTls) -> Result<Tls, String> {
        let roots = match &tls.ca {
            None => Roots::System,
            Some(path) => Roots::from_pem(&self.read("tls_ca", path, Readers::Any)?)
                .map_err(|error| format!("tls_ca {}: {error}", path.display()))?,
        };
        let identity = match &tls.identity {
            None => None,
            Some((certificate, key)) => {
                let chain = self.read("tls_certificate", certificate, Readers::Any)?;
                let secret = self.read("tls_key", key, Readers::NotOthers)?;
                let made = ClientIdentity::from_pem(&chain, &secret);
                let (chain, secret) = (certificate.display(), key.display());
                Some(made.map_err(|error| {
                    format!("tls_certificate {chain} and tls_key {secret}: {error}")
                })?)
            }
        };
        Tls::new(TlsSettings {
            policy: tls.policy,
            implicit: tls.implicit,
            minimum: tls.minimum,
            roots,
            name: tls.name.clone(),
            identity,
        })
        .map_err(|error| error.to_string())
    }

    fn login(&self, login: &WireLogin) -> Result<Login, String> {
        let user = login.username.clone();
        let credentials = match &login.secret {
            Secret::Password(password) => Credentials::Password {
                user,
                password: password.clone(),
            },
            Secret::PasswordFile(path) => Credentials::Password {
                user,
                password: self.secret("password_file", path)?,
            },
            Secret::TokenFile(path) => Credentials::Token {
                user,
                token: self.secret("token_file", path)?,
            },
        };
        Ok(Login {
            mechanism: login.mechanism,
            needs: if login.in_clear {
                Protection::Clear
            } else {
                Protection::default()
            },
            ..Login::new(credentials)
        })
    }
}

fn runs_as_root(user: Option<&str>) -> bool {
    match user {
        None => nix::unistd::geteuid().is_root(),
        Some(name) => matches!(User::named(name), Ok(Some(user)) if user.uid.is_root()),
    }
}

impl Wire {
    /// Returns the configured hosts, or the mail exchanges of the recipient's domain.
    pub(super) fn target(&self) -> Target {
        if self.hosts.is_empty() {
            Target::Exchanges
        } else {
            Target::Hosts(self.hosts.clone())
        }
    }

    /// Whether the configuration contains a password.
    fn exposes(&self) -> bool {
        let login = self.login.as_ref();
        login.is_some_and(|login| matches!(login.secret, Secret::Password(_)))
    }
}

/// Returns the deadlines with this timeout for each answer. The wait for the final answer is never
/// shorter than RFC 5321 requires: a client that disconnects earlier sends the message twice.
fn deadlines(timeout: Option<Duration>) -> Deadlines {
    let usual = Deadlines::default();
    match timeout {
        None => usual,
        Some(time) => Deadlines {
            greeting: time,
            command: time,
            handshake: time,
            auth: time,
            mail: time,
            rcpt: time,
            data: time,
            block: time,
            end: time.max(usual.end),
            opening: time.saturating_mul(2),
            ..usual
        },
    }
}
