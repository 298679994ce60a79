//! Delivery to other hosts, as an embedding program configures it.

use std::sync::Arc;

use super::{Error, ErrorKind};
use crate::dns::{Host, Resolver};
use crate::smtp::{Credentials, HelloName, Login, Protocol, Settings, Tls, TlsPolicy, TlsSettings};
use crate::transport::{Smtp, Target, Transport};

/// How connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// No TLS.
    None,
    /// TLS if the server offers it, with any certificate. A listener on the line learns nothing; an active attacker
    /// can read the mail.
    Opportunistic,
    /// TLS, with any certificate, or no delivery.
    Required,
    /// TLS with a valid certificate for the server's name, or no delivery.
    Verified,
}

/// Configures the transport that [`smtp`] makes.
#[derive(Debug)]
#[must_use]
pub struct SmtpBuilder {
    hello: String,
    hosts: Vec<String>,
    is_lmtp: bool,
    is_implicit: bool,
    security: Option<Security>,
    login: Option<Credentials>,
    concurrency: Option<usize>,
}

/// Starts to configure a transport that delivers to other hosts by SMTP or LMTP, under the name `hello`.
///
/// To the mail exchanges of each recipient's domain, with TLS where it is offered:
///
/// ```
/// # fn main() -> Result<(), mailspool::Error> {
/// let smtp = mailspool::transports::smtp("app.example.org").build()?;
/// # Ok(())
/// # }
/// ```
///
/// To a relay, with a password that is sent only to a server with a valid certificate:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let password = "secret";
/// let relay = mailspool::transports::smtp("app.example.org")
///     .host("relay.example.net:587")
///     .login("app", password)
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub fn smtp(hello: impl Into<String>) -> SmtpBuilder {
    SmtpBuilder {
        hello: hello.into(),
        hosts: Vec::new(),
        is_lmtp: false,
        is_implicit: false,
        security: None,
        login: None,
        concurrency: None,
    }
}

impl SmtpBuilder {
    /// Adds a host that takes all mail instead of the mail exchanges: `name`, `name:port`, an address literal
    /// in brackets, or `unix:/path`. The default port is 25, with implicit TLS 465, with LMTP 24. Hosts are asked in
    /// order. Unless [`security`](SmtpBuilder::security) is set,
    /// TLS with a valid certificate is required.
    pub fn host(mut self, host: impl Into<String>) -> SmtpBuilder {
        self.hosts.push(host.into());
        self
    }

    /// Speaks LMTP (RFC 2033).
    pub fn lmtp(mut self) -> SmtpBuilder {
        self.is_lmtp = true;
        self
    }

    /// Sets how connections are protected; by default [`Security::Opportunistic`] to mail exchanges, and
    /// [`Security::Verified`] to hosts that are named.
    pub fn security(mut self, security: Security) -> SmtpBuilder {
        self.security = Some(security);
        self
    }

    /// Begins TLS with the connection, without STARTTLS (RFC 8314).
    pub fn implicit_tls(mut self) -> SmtpBuilder {
        self.is_implicit = true;
        self
    }

    /// Authenticates with a password. It is sent only over a connection with a valid certificate.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> SmtpBuilder {
        self.login = Some(Credentials::Password {
            user: user.into(),
            password: password.into(),
        });
        self
    }

    /// Sets the most connections to one destination, and to one host, over all processes; 20 by default.
    pub fn concurrency(mut self, most: usize) -> SmtpBuilder {
        self.concurrency = Some(most);
        self
    }

    /// Returns the transport.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if a name or a host is invalid.
    pub fn build(self) -> Result<impl Transport, Error> {
        fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
            Error::new(ErrorKind::Misconfigured, error)
        }
        let security = self.security.unwrap_or(if self.hosts.is_empty() {
            Security::Opportunistic
        } else {
            Security::Verified
        });
        let mut settings = Settings::new(HelloName::parse(&self.hello).map_err(wrong)?);
        if self.is_lmtp {
            settings.protocol = Protocol::Lmtp;
        }
        settings.tls = Tls::new(TlsSettings {
            policy: match security {
                Security::None => TlsPolicy::None,
                Security::Opportunistic => TlsPolicy::Opportunistic,
                Security::Required => TlsPolicy::Required,
                Security::Verified => TlsPolicy::Verified,
            },
            implicit: self.is_implicit,
            ..TlsSettings::default()
        })
        .map_err(wrong)?;
        settings.login = self.login.map(Login::new);
        let hosts = self.hosts.iter().map(|host| host.parse::<Host>());
        let hosts = hosts.collect::<Result<Vec<Host>, _>>().map_err(wrong)?;
        let target = if hosts.is_empty() {
            Target::Exchanges
        } else {
            Target::Hosts(hosts)
        };
        let resolver = Arc::new(Resolver::new(Vec::new()));
        let mut smtp = Smtp::builder(target, settings, resolver, self.hello);
        if let Some(most) = self.concurrency {
            smtp = smtp.concurrency(most);
        }
        Ok(smtp.build())
    }
}
