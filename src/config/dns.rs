//! `[dns]`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::Spanned;

use super::Error;
use super::raw::RawDns;
use super::value::{Text, at};

/// `[dns]`: the servers and their timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The servers to query; none means the system's.
    pub servers: Vec<SocketAddr>,
    /// How long each query waits for an answer.
    pub timeout: Duration,
    /// Whether a mail exchange may have an address of this machine. Otherwise that is a loop, and fails.
    pub local_mx: bool,
}

impl Text<'_> {
    pub(super) fn dns(&self, raw: &mut RawDns) -> Result<Dns, Error> {
        let server = |given: &Spanned<String>| {
            let text = given.get_ref();
            let bare = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53));
            text.parse().ok().or_else(bare).ok_or_else(|| {
                let what = "not a server: write \"192.0.2.53\" or \"192.0.2.53:53\"";
                self.error(given.span(), what)
            })
        };
        let servers: Result<Vec<_>, Error> = raw.servers.iter().map(server).collect();
        let servers = servers?;
        raw.servers = servers
            .iter()
            .map(|server| at(server.to_string()))
            .collect();
        Ok(Dns {
            servers,
            timeout: self.some_time(&raw.timeout)?,
            local_mx: raw.local_mx,
        })
    }
}
