//! One host at one address.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
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

/// A host at one of its addresses.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The name that its certificate must have.
    pub name: String,
    pub endpoint: Endpoint,
    /// The host and its address: `mx.example.net[192.0.2.1]:25`.
    pub remote: String,
    /// The key under which its connections are counted and its outages recorded.
    pub key: String,
}
