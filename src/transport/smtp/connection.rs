//! A connection to the first host that takes us.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Inner, MOST_ADDRESSES, Target, no_domain};
use crate::hop::{Host, Name};
use crate::message::EnhancedCode;
use crate::queue::Outcome;
use crate::smtp::step::in_seconds;
use crate::smtp::{Client, Settings};

/// Whatever a session runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub(super) struct Connection {
    pub client: Client<Box<dyn Stream>>,
    /// The host and its address: `mx.example.net[192.0.2.1]:25`.
    pub remote: String,
}

/// One thing to connect to.
#[derive(Clone, Debug)]
enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "[{}]:{}", address.ip(), address.port()),
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Inner {
    /// The hosts for a destination, in their order.
    pub async fn hosts(&self, destination: &str) -> Result<Vec<Host>, Outcome> {
        match &self.target {
            Target::Hosts(hosts) => Ok(hosts.clone()),
            Target::Exchanges if destination.is_empty() => Err(no_domain()),
            Target::Exchanges => {
                let found = self.resolver.exchanges(destination, &self.own_name).await?;
                let host = |name: String| Host {
                    name: match name.parse::<IpAddr>() {
                        Ok(address) => Name::Address(address),
                        Err(_) => Name::Domain(name),
                    },
                    port: None,
                };
                Ok(found.into_iter().map(|one| host(one.name)).collect())
            }
        }
    }

    /// Connects to the first address that takes us. The outcome is the last one's: earlier
    /// hosts are the better ones, but the last is what we would have been content with.
    pub async fn open(&self, destination: &str) -> Result<Connection, Outcome> {
        let mut last = None;
        let mut tried = 0;
        for host in self.hosts(destination).await? {
            let endpoints = match self.endpoints(&host).await {
                Ok(endpoints) => endpoints,
                Err(outcome) => {
                    last = Some(outcome);
                    continue;
                }
            };
            for endpoint in endpoints {
                if tried == MOST_ADDRESSES {
                    break;
                }
                tried += 1;
                match self.open_at(&host, &endpoint).await {
                    Ok(connection) => return Ok(connection),
                    Err(outcome) => {
                        let reply = &outcome.reply;
                        tracing::debug!(destination, %endpoint, %reply, "no session");
                        last = Some(outcome);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let text = format!("there is no host to ask for {destination}");
            Outcome::deferred(EnhancedCode::new(4, 4, 4), text)
        }))
    }

    async fn endpoints(&self, host: &Host) -> Result<Vec<Endpoint>, Outcome> {
        let port = host.port.unwrap_or(self.port);
        let tcp = |address: IpAddr| Endpoint::Tcp(SocketAddr::new(address, port));
        Ok(match &host.name {
            Name::Unix(path) => vec![Endpoint::Unix(path.clone())],
            Name::Address(address) => vec![tcp(*address)],
            Name::Domain(name) => {
                let addresses = self.resolver.addresses(name).await?;
                addresses.into_iter().map(tcp).collect()
            }
        })
    }

    async fn open_at(&self, host: &Host, endpoint: &Endpoint) -> Result<Connection, Outcome> {
        let name = match &host.name {
            Name::Domain(name) => name.clone(),
            Name::Address(address) => address.to_string(),
            Name::Unix(_) => self.own_name.clone(),
        };
        let remote = match &host.name {
            Name::Domain(name) => format!("{name}{endpoint}"),
            _ => endpoint.to_string(),
        };
        let open = async |settings: &Settings| {
            let stream = self.stream(&remote, endpoint).await?;
            Ok::<_, Outcome>(Client::open(stream, &name, settings).await)
        };
        let opened = match open(&self.settings).await? {
            Err(error) if error.may_go_in_clear() => {
                tracing::debug!(remote, %error, "going on in clear");
                open(&self.settings.in_clear()).await?
            }
            opened => opened,
        };
        match opened {
            Ok(client) => Ok(Connection { client, remote }),
            Err(error) => {
                let mut outcome = error.verdict().outcome;
                // Whose fault it is has to be seen where there are several hosts.
                if outcome.reply.remote.is_none() {
                    outcome.reply.text = format!("{remote}: {}", outcome.reply.text);
                }
                Err(outcome)
            }
        }
    }

    async fn stream(&self, remote: &str, endpoint: &Endpoint) -> Result<Box<dyn Stream>, Outcome> {
        let connect = async {
            Ok::<Box<dyn Stream>, std::io::Error>(match endpoint {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let failed = |text: String| {
            let text = format!("cannot connect to {remote}: {text}");
            Outcome::deferred(EnhancedCode::new(4, 4, 1), text)
        };
        let limit = self.connect_timeout;
        match timeout(limit, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("timed out after {}", in_seconds(limit)))),
        }
    }
}
