//! A connection to a host at one of its addresses.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::Inner;
use super::peer::{Endpoint, Peer};
use crate::message::EnhancedCode;
use crate::message::reply::in_seconds;
use crate::queue::Outcome;
use crate::smtp::{Client, Settings};

/// The stream under a session.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub(super) struct Connection {
    pub client: Client<Box<dyn Stream>>,
}

impl Inner {
    /// Connects, and completes the opening up to the first MAIL.
    pub async fn open(&self, peer: &Peer) -> Result<Connection, Outcome> {
        let open = async |settings: &Settings| {
            let stream = self.stream(peer).await?;
            Ok::<_, Outcome>(Client::open(stream, &peer.name, settings).await)
        };
        let remote = &peer.remote;
        let opened = match open(&self.settings).await? {
            Err(error) if error.may_go_in_clear() => {
                tracing::debug!(remote, %error, "continuing without TLS");
                open(&self.settings.in_clear()).await?
            }
            opened => opened,
        };
        match opened {
            Ok(client) => Ok(Connection { client }),
            Err(error) => {
                let mut outcome = error.verdict().outcome;
                // The reply must name the host, because there may be several.
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
                Endpoint::Unix(path) => Box::new(unix(path).await?),
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

/// Connects to a Unix socket. If the server's connection backlog is full, retries until it has room, like a
/// blocking connect: a non-blocking one returns EAGAIN at once.
async fn unix(path: &Path) -> std::io::Result<UnixStream> {
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten connections at once to a server with a backlog of one: all but the first two were deferred.
    #[tokio::test]
    async fn a_server_with_a_full_backlog_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let all = (0..10).map(|_| unix(&path));
        let connected = futures_util::future::join_all(all);
        let accepted = async {
            // Accept nothing until the backlog is full.
            while UnixStream::connect(&path).await.is_ok() {}
            let mut streams = Vec::new();
            loop {
                streams.push(listener.accept().await.unwrap());
            }
        };
        tokio::select! {
            connected = connected => assert!(connected.iter().all(Result::is_ok)),
            () = accepted => {}
        }
    }
}
