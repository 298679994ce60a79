//! Delivery to another host by SMTP or LMTP.
//!
//! [`dns`](crate::dns) says which hosts are asked and in which order, [`smtp`](crate::smtp) implements the
//! protocol. This module connects the two: it lists the hosts of a destination, and its [`Session`] with a
//! host sends one message after another.

mod connection;
mod content;
mod hosts;
mod peer;
mod session;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dns::{Host, Resolver};
use crate::message::{Address, EnhancedCode, domain};
use crate::queue::Outcome;
use crate::smtp::{Protocol, Settings};
use crate::transport::{BoxFuture, Hosts, MAX_HOSTS, OnUnknown, Session, Transport};

use connection::Connection;
use hosts::SmtpHosts;
use peer::Peer;
use session::SmtpSession;

/// Which hosts are asked.
#[derive(Clone, Debug)]
pub enum Target {
    /// The mail exchanges of the recipient's domain.
    Exchanges,
    /// These hosts, in their order.
    Hosts(Vec<Host>),
}

impl Target {
    /// The next hop of a recipient's mail, as in [`Transport::next_hop`].
    pub fn next_hop(&self, recipient: &Address) -> String {
        let domain = || domain::key(recipient.domain().unwrap_or_default()).into_owned();
        self.only_next_hop().unwrap_or_else(domain)
    }

    /// The next hop of every recipient, if it does not depend on the recipient.
    pub fn only_next_hop(&self) -> Option<String> {
        match self {
            Target::Exchanges => None,
            Target::Hosts(hosts) => {
                let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
                Some(names.join(", "))
            }
        }
    }
}

/// Delivers to other hosts. Cloning is cheap.
///
/// To a smarthost, with a password that is sent only to a server with a valid certificate:
///
/// ```no_run
/// # fn example(spool: mailspool::testing::spool::Spool) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use mailspool::testing::dns::Resolver;
/// use mailspool::testing::queue::Routes;
/// use mailspool::testing::runner::Runner;
/// use mailspool::testing::smtp::{Credentials, HelloName, Login, Settings, Tls, TlsPolicy, TlsSettings};
/// use mailspool::testing::transport::{Smtp, Target};
///
/// let mut settings = Settings::new(HelloName::parse("app.example.org")?);
/// settings.tls = Tls::new(TlsSettings {
///     policy: TlsPolicy::Verified,
///     ..TlsSettings::default()
/// })?;
/// settings.login = Some(Login::new(Credentials::Password {
///     user: "app".into(),
///     password: std::env::var("RELAY_PASSWORD")?,
/// }));
/// let relay = Target::Hosts(vec!["relay.example.net:587".parse()?]);
/// let resolver = Arc::new(Resolver::new(Vec::new()));
/// let smtp = Smtp::builder(relay, settings, resolver, "app.example.org").build();
/// let runner = Runner::builder(spool, "app.example.org")
///     .transport("relay", smtp)
///     .routes(Routes::all_by("relay"))
///     .build();
/// println!("{:?}", runner.pass()?);
/// # Ok(())
/// # }
/// ```
///
/// [`Target::Exchanges`] instead asks the mail exchanges of each recipient's domain.
#[derive(Clone, Debug)]
pub struct Smtp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Target,
    settings: Settings,
    resolver: Arc<Resolver>,
    own_name: String,
    port: u16,
    connect_timeout: Duration,
    max_recipients: usize,
    max_per_connection: usize,
    concurrency: usize,
    on_unknown: OnUnknown,
}

/// Configures an [`Smtp`]. A built one cannot be changed.
#[derive(Debug)]
pub struct SmtpBuilder {
    inner: Inner,
}

impl SmtpBuilder {
    /// Sets the port for hosts that are configured without one.
    #[must_use]
    pub fn port(mut self, port: u16) -> SmtpBuilder {
        self.inner.port = port;
        self
    }

    /// Sets the time limit for a connection to one address.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> SmtpBuilder {
        self.inner.connect_timeout = timeout;
        self
    }

    /// Sets the most recipients of one transaction.
    #[must_use]
    pub fn max_recipients(mut self, most: usize) -> SmtpBuilder {
        self.inner.max_recipients = most.max(1);
        self
    }

    /// Sets the most messages over one connection.
    #[must_use]
    pub fn max_per_connection(mut self, most: usize) -> SmtpBuilder {
        self.inner.max_per_connection = most.max(1);
        self
    }

    /// Sets the most connections to one destination, and to one host, at once, over all processes.
    #[must_use]
    pub fn concurrency(mut self, most: usize) -> SmtpBuilder {
        self.inner.concurrency = most.max(1);
        self
    }

    /// Sets what happens to a message after the answer to it was lost.
    #[must_use]
    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> SmtpBuilder {
        self.inner.on_unknown = on_unknown;
        self
    }

    /// Builds the transport as configured.
    pub fn build(self) -> Smtp {
        Smtp {
            inner: Arc::new(self.inner),
        }
    }
}

impl Smtp {
    /// Begins a transport that delivers according to `settings`. `own_name` is the name by which MX records
    /// may refer to this host.
    pub fn builder(
        target: Target,
        settings: Settings,
        resolver: Arc<Resolver>,
        own_name: impl Into<String>,
    ) -> SmtpBuilder {
        let port = match (settings.protocol, settings.tls.is_implicit()) {
            (Protocol::Lmtp, _) => 24,
            (Protocol::Smtp, true) => 465,
            (Protocol::Smtp, false) => 25,
        };
        SmtpBuilder {
            inner: Inner {
                target,
                settings,
                resolver,
                own_name: own_name.into(),
                port,
                connect_timeout: Duration::from_secs(30),
                max_recipients: 100,
                max_per_connection: 100,
                concurrency: 20,
                on_unknown: OnUnknown::Retry,
            },
        }
    }

    /// Connects as for a delivery. Returns the host and what was negotiated.
    pub async fn probe(&self, next_hop: &str) -> Result<Probed, Outcome> {
        let (peer, connection) = self.first(next_hop).await?;
        let probed = Probed {
            remote: peer.remote,
            info: connection.client.info().clone(),
        };
        connection.client.quit().await;
        Ok(probed)
    }

    /// Returns the hosts that would be asked for a destination, in their order.
    pub async fn hosts(&self, next_hop: &str) -> Result<Vec<String>, Outcome> {
        match &self.inner.target {
            Target::Hosts(hosts) => Ok(hosts.iter().map(Host::to_string).collect()),
            Target::Exchanges if next_hop.is_empty() => Err(no_domain()),
            Target::Exchanges => {
                let inner = &self.inner;
                let found = inner.resolver.exchanges(next_hop, &inner.own_name);
                let name = |name: String| match name.parse::<IpAddr>() {
                    Ok(address) => format!("[{address}]"),
                    Err(_) => name,
                };
                Ok(found
                    .await?
                    .into_iter()
                    .map(|finding| name(finding.name))
                    .collect())
            }
        }
    }

    /// Connects to the first host that can be connected to. If none can, the outcome is the last host's:
    /// the last is the least preferred host, but it would still have been acceptable.
    async fn first(&self, next_hop: &str) -> Result<(Peer, Connection), Outcome> {
        let mut hosts = SmtpHosts::new(self.clone(), next_hop);
        let mut last = None;
        let mut tried = 0;
        while tried < MAX_HOSTS
            && let Some(next) = hosts.next_peer().await
        {
            let opened = match next {
                Ok(peer) => {
                    tried += 1;
                    self.inner.open(&peer).await.map(|opened| (peer, opened))
                }
                Err(outcome) => Err(outcome),
            };
            match opened {
                Ok(opened) => return Ok(opened),
                Err(outcome) => last = Some(outcome),
            }
        }
        Err(last.unwrap_or_else(|| no_host(next_hop)))
    }
}

/// What a connection showed.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The host and its address, as in log lines.
    pub remote: String,
    /// The server's greeting and capabilities.
    pub info: crate::smtp::SessionInfo,
}

impl Transport for Smtp {
    fn next_hop(&self, recipient: &Address) -> String {
        self.inner.target.next_hop(recipient)
    }

    fn only_next_hop(&self) -> Option<String> {
        self.inner.target.only_next_hop()
    }

    fn deadline(&self, size: u64) -> Option<Duration> {
        let Inner {
            settings,
            connect_timeout,
            ..
        } = &*self.inner;
        let deadlines = settings.deadlines;
        // Twice, because an idle connection may turn out to be dead, and because a server without working
        // TLS is connected to again in clear.
        let opening = (*connect_timeout + deadlines.opening) * 2;
        let answers = match settings.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => u32::try_from(self.inner.max_recipients).unwrap_or(u32::MAX),
        };
        Some(opening.saturating_add(deadlines.longest(size, answers).saturating_mul(2)))
    }

    fn max_recipients(&self) -> usize {
        self.inner.max_recipients
    }

    fn connections(&self) -> Option<usize> {
        Some(self.inner.concurrency)
    }

    fn on_unknown(&self) -> OnUnknown {
        self.inner.on_unknown
    }

    fn hosts_for(&self, next_hop: &str) -> Option<Box<dyn Hosts>> {
        Some(Box::new(SmtpHosts::new(self.clone(), next_hop)))
    }

    fn connect<'a>(
        &'a self,
        next_hop: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        Box::pin(async move {
            let (peer, connection) = self.first(next_hop).await?;
            let session = SmtpSession::new(self.clone(), peer, connection);
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

fn no_domain() -> Outcome {
    let text = "the address has no domain, and so no mail exchange";
    Outcome::failed(EnhancedCode::new(5, 1, 2), text)
}

fn no_host(next_hop: &str) -> Outcome {
    let text = format!("there is no host to ask for {next_hop}");
    Outcome::deferred(EnhancedCode::new(4, 4, 4), text)
}
