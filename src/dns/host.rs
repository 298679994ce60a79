//! A configured host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::message::domain;

/// A host with an optional port: `relay.example.net`, `relay.example.net:587`, `192.0.2.1`,
/// `[192.0.2.1]:25`, `[2001:db8::1]`, `unix:/run/dovecot/lmtp`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// The host.
    pub name: Name,
    /// The port; `None` means the protocol's default.
    pub port: Option<u16>,
}

/// How a host is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A name in DNS or the hosts file, in its ASCII form.
    Domain(String),
    /// An address.
    Address(IpAddr),
    /// A socket on this machine.
    Unix(PathBuf),
}

/// Why a text does not name a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// There is no name.
    #[error("a host name is missing")]
    Empty,
    /// The port is not valid.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// The address is not valid.
    #[error("not an address: write [192.0.2.1] or [2001:db8::1]")]
    Address,
    /// The name is not valid.
    #[error("not a host name")]
    Name,
    /// The name is not ASCII, and has no ASCII form.
    #[error("not a valid internationalised domain name (RFC 5891)")]
    Idna,
    /// The path of a socket does not begin at the root.
    #[error("a socket's path begins with a slash: unix:/run/dovecot/lmtp")]
    Path,
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Host, BadHost> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') && !path.contains('\0') {
                Ok(Host {
                    name: Name::Unix(path.into()),
                    port: None,
                })
            } else {
                Err(BadHost::Path)
            };
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (literal, rest) = rest.split_once(']').ok_or(BadHost::Address)?;
            let port = match rest {
                "" => None,
                rest => Some(port(rest.strip_prefix(':').ok_or(BadHost::Port)?)?),
            };
            let name = Name::Address(address_literal(literal).ok_or(BadHost::Address)?);
            return Ok(Host { name, port });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let name = Name::Address(address);
            return Ok(Host { name, port: None });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, number)) => (name, Some(port(number)?)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(BadHost::Empty);
        }
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            let name = Name::Address(address.into());
            return Ok(Host { name, port });
        }
        let byte =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || byte >= 0x80;
        if !name.bytes().all(byte) || name.starts_with(['-', '.']) {
            return Err(BadHost::Name);
        }
        let name = domain::to_ascii(name).map_err(|_| BadHost::Idna)?;
        if name.len() <= 253 {
            Ok(Host {
                name: Name::Domain(name.into_owned()),
                port,
            })
        } else {
            Err(BadHost::Name)
        }
    }
}

fn port(text: &str) -> Result<u16, BadHost> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(BadHost::Port),
    }
}

/// The address in an address literal, such as the domain of `user@[IPv6:2001:db8::1]`.
pub(super) fn address_literal(text: &str) -> Option<IpAddr> {
    let is_v6 = text
        .get(..5)
        .is_some_and(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    if is_v6 {
        text[5..].parse::<Ipv6Addr>().ok().map(IpAddr::from)
    } else {
        text.parse().ok()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Domain(name) => f.write_str(name)?,
            Name::Address(address) => write!(f, "[{address}]")?,
            Name::Unix(path) => write!(f, "unix:{}", path.display())?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_written() {
        for (text, shown) in [
            ("Relay.example.net", "relay.example.net"),
            ("relay.example.net:587", "relay.example.net:587"),
            ("relay", "relay"),
            ("Bücher.example:26", "xn--bcher-kva.example:26"),
            ("192.0.2.1", "[192.0.2.1]"),
            ("192.0.2.1:26", "[192.0.2.1]:26"),
            ("[192.0.2.1]:25", "[192.0.2.1]:25"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]:2525", "[2001:db8::1]:2525"),
            ("[IPv6:2001:db8::1]", "[2001:db8::1]"),
            ("unix:/run/dovecot/lmtp", "unix:/run/dovecot/lmtp"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!(host.to_string(), shown);
            assert_eq!(shown.parse(), Ok(host));
        }
    }

    #[test]
    fn what_is_no_host_is_told_why() {
        for (text, error) in [
            ("", BadHost::Empty),
            (":25", BadHost::Empty),
            ("host:", BadHost::Port),
            ("host:0", BadHost::Port),
            ("host:+25", BadHost::Port),
            ("host:65536", BadHost::Port),
            ("[192.0.2.1", BadHost::Address),
            ("[relay.example.net]", BadHost::Address),
            ("[192.0.2.1]25", BadHost::Port),
            ("a b", BadHost::Name),
            (".example.net", BadHost::Name),
            ("ü..example", BadHost::Idna),
            ("unix:lmtp", BadHost::Path),
        ] {
            assert_eq!(text.parse::<Host>(), Err(error), "{text}");
        }
    }
}
