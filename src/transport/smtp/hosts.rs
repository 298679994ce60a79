//! The hosts of a destination, one address after another, looked up on demand.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::peer::{Endpoint, Peer};
use super::session::SmtpSession;
use super::{Inner, Smtp, Target, no_domain, no_host};
use crate::dns::{Exchanges, Host, Name};
use crate::queue::Outcome;
use crate::smtp::TlsPolicy;
use crate::transport::{BoxFuture, Hosts, NextHost, Session};

/// The hosts of a destination.
pub(super) struct SmtpHosts {
    transport: Smtp,
    next_hop: String,
    source: Source,
    found: VecDeque<Peer>,
}

/// The source of further hosts.
enum Source {
    /// Not looked up yet.
    Fresh,
    Exchanges(Exchanges),
    Configured(VecDeque<Host>),
}

impl SmtpHosts {
    pub fn new(transport: Smtp, next_hop: &str) -> SmtpHosts {
        SmtpHosts {
            transport,
            next_hop: next_hop.to_owned(),
            source: Source::Fresh,
            found: VecDeque::new(),
        }
    }

    /// The next host at one of its addresses, or why one has none; `None` at the end.
    pub async fn next_peer(&mut self) -> Option<Result<Peer, Outcome>> {
        let inner = &self.transport.inner;
        loop {
            if let Some(peer) = self.found.pop_front() {
                return Some(Ok(peer));
            }
            match &mut self.source {
                Source::Fresh => match inner.source(&self.next_hop).await {
                    Ok(source) => self.source = source,
                    Err(outcome) => {
                        self.source = Source::Configured(VecDeque::new());
                        return Some(Err(outcome));
                    }
                },
                Source::Exchanges(exchanges) => {
                    let next = exchanges.next(&inner.resolver).await?;
                    return Some(next.map(|(name, address)| inner.exchange(name, address)));
                }
                Source::Configured(hosts) => {
                    let host = hosts.pop_front()?;
                    match inner.peers(&host).await {
                        Ok(peers) => self.found.extend(peers),
                        Err(outcome) => return Some(Err(outcome)),
                    }
                }
            }
        }
    }
}

impl Inner {
    async fn source(&self, next_hop: &str) -> Result<Source, Outcome> {
        match &self.target {
            Target::Hosts(hosts) if hosts.is_empty() => Err(no_host(next_hop)),
            Target::Hosts(hosts) => Ok(Source::Configured(hosts.clone().into())),
            Target::Exchanges if next_hop.is_empty() => Err(no_domain()),
            Target::Exchanges => {
                let found = self.resolver.exchanges(next_hop, &self.own_name).await?;
                Ok(Source::Exchanges(Exchanges::new(next_hop, found)))
            }
        }
    }

    fn exchange(&self, name: String, address: IpAddr) -> Peer {
        let endpoint = Endpoint::Tcp(SocketAddr::new(address, self.port));
        // An address literal has no separate name.
        let remote = match name.parse::<IpAddr>() {
            Ok(_) => endpoint.to_string(),
            Err(_) => format!("{name}{endpoint}"),
        };
        self.peer(name, endpoint, remote)
    }

    /// A configured host, at each of its addresses.
    async fn peers(&self, host: &Host) -> Result<Vec<Peer>, Outcome> {
        let port = host.port.unwrap_or(self.port);
        let tcp = |address: IpAddr| Endpoint::Tcp(SocketAddr::new(address, port));
        // The key is the configured text: for a single host it equals the key of the destination.
        let only = |name: String, endpoint: Endpoint| {
            let remote = endpoint.to_string();
            let key = host.to_string();
            vec![Peer {
                name,
                endpoint,
                remote,
                key,
            }]
        };
        Ok(match &host.name {
            Name::Unix(path) => only(self.own_name.clone(), Endpoint::Unix(path.clone())),
            Name::Address(address) => only(address.to_string(), tcp(*address)),
            Name::Domain(name) => {
                let addresses = self.resolver.addresses(name).await?;
                let peer = |endpoint: Endpoint| {
                    let remote = format!("{name}{endpoint}");
                    self.peer(name.clone(), endpoint, remote)
                };
                addresses.into_iter().map(tcp).map(peer).collect()
            }
        })
    }

    fn peer(&self, name: String, endpoint: Endpoint, remote: String) -> Peer {
        // A certificate that is wrong for one name may be right for another name of the same host.
        let key = match self.settings.tls.policy() {
            TlsPolicy::Verified => remote.clone(),
            _ => endpoint.to_string(),
        };
        Peer {
            name,
            endpoint,
            remote,
            key,
        }
    }
}

impl Hosts for SmtpHosts {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Box<dyn NextHost>, Outcome>>> {
        Box::pin(async move {
            let next = self.next_peer().await?;
            let host = next.map(|peer| {
                let transport = self.transport.clone();
                Box::new(SmtpHost { transport, peer }) as Box<dyn NextHost>
            });
            Some(host)
        })
    }
}

/// A host, and the transport that connects to it.
struct SmtpHost {
    transport: Smtp,
    peer: Peer,
}

impl NextHost for SmtpHost {
    fn key(&self) -> &str {
        &self.peer.key
    }

    fn remote(&self) -> &str {
        &self.peer.remote
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Outcome>> {
        Box::pin(async move {
            let connection = self.transport.inner.open(&self.peer).await?;
            let (transport, peer) = (self.transport.clone(), self.peer.clone());
            let session = SmtpSession::new(transport, peer, connection);
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}
