//! A connection to a host at one of its addresses.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Inner;
use super::hosts::{Endpoint, Peer};
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
}

impl Inner {
    /// Connects, and goes on until the first MAIL may be said.
    pub async fn open(&self, peer: &Peer) -> Result<Connection, Outcome> {
        let open = async |settings: &Settings| {
            let stream = self.stream(peer).await?;
            Ok::<_, Outcome>(Client::open(stream, &peer.name, settings).await)
        };
        let remote = &peer.remote;
        let opened = match open(&self.settings).await? {
            Err(error) if error.may_go_in_clear() => {
                tracing::debug!(remote, %error, "going on in clear");
                open(&self.settings.in_clear()).await?
            }
            opened => opened,
        };
        match opened {
            Ok(client) => Ok(Connection { client }),
            Err(error) => {
                let mut outcome = error.verdict().outcome;
                // Whose fault it is has to be seen where there are several hosts.
                if outcome.reply.remote.is_none() {
                    outcome.reply.text = format!("{remote}: {}", outcome.reply.text);
                }
                Err(outcome.by(remote))
            }
        }
    }

    async fn stream(&self, peer: &Peer) -> Result<Box<dyn Stream>, Outcome> {
        let connect = async {
            Ok::<Box<dyn Stream>, std::io::Error>(match &peer.endpoint {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let remote = &peer.remote;
        let failed = |text: String| {
            let text = format!("cannot connect to {remote}: {text}");
            Outcome::deferred(EnhancedCode::new(4, 4, 1), text).by(remote)
        };
        let limit = self.connect_timeout;
        match timeout(limit, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("timed out after {}", in_seconds(limit)))),
        }
    }
}
