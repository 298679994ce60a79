//! What can be suspended, and the name of its file.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Spool;
use super::destinations::Destination;
use super::layout::{SUSPENDED_ALL, SUSPENDED_TRANSPORT, file_name};
use crate::message::{Address, domain};

/// What can be suspended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A recipient's domain, or a destination with or without its transport and its port, in the normal
    /// spelling used for comparison: see [`Target::destination`].
    Destination(String),
    /// A transport, by its name.
    Transport(String),
    /// All mail.
    All,
}

impl Target {
    /// Returns a destination in its normal spelling: domains in lower case and A-labels, and IPv6 addresses
    /// in their canonical form. The path of a socket is not changed.
    pub fn destination(name: &str) -> Target {
        if name.contains('/') {
            return Target::Destination(name.to_owned());
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return Target::Destination(address.to_string());
        }
        let mut in_brackets = false;
        let parts = name.split(|c| {
            in_brackets = c == '[' || in_brackets && c != ']';
            c == ':' && !in_brackets
        });
        let parts: Vec<Cow<'_, str>> = parts.map(key).collect();
        Target::Destination(parts.join(":"))
    }

    /// Returns a readable file name that no other target has.
    pub fn file_name(&self) -> String {
        let name = match self {
            Target::Transport(name) => return format!("{SUSPENDED_TRANSPORT}{}", file_name(name)),
            Target::Destination(name) => file_name(name),
            Target::All => return SUSPENDED_ALL.to_owned(),
        };
        if Spool::is_part(&name, "") {
            name.replace('.', "%2e")
        } else {
            name
        }
    }

    /// Returns the target that a file name stands for. Of a very long target, the name has only the
    /// beginning.
    pub(super) fn of_file(name: &str) -> Target {
        let plain = |text: &str| {
            let mut bytes = Vec::new();
            let mut rest = text.as_bytes();
            while let [first, others @ ..] = rest {
                let code = others.get(..2).filter(|_| *first == b'%');
                let code = code.and_then(|code| std::str::from_utf8(code).ok());
                match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = &others[2..];
                    }
                    None => {
                        bytes.push(*first);
                        rest = others;
                    }
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        match name.strip_prefix(SUSPENDED_TRANSPORT) {
            None if name == SUSPENDED_ALL => Target::All,
            Some(name) => Target::Transport(plain(name)),
            None => Target::Destination(plain(name)),
        }
    }

    /// Returns every target that would suspend mail for this recipient, as far as transport and destination
    /// are known.
    pub(super) fn all_for(
        transport: Option<&str>,
        next_hop: Option<&str>,
        to: &Address,
    ) -> Vec<Target> {
        let mut all = Vec::with_capacity(10);
        all.push(Target::All);
        if let Some(domain) = to.domain() {
            all.push(Target::destination(&domain::key(domain)));
            // An address literal, in the spelling used for hosts.
            if let Some(address) = domain::literal(domain).filter(IpAddr::is_ipv6) {
                all.push(Target::destination(&format!("[{address}]")));
            }
        }
        for next_hop in next_hop.into_iter().flat_map(spellings) {
            let destination = |transport: &str| Destination {
                transport: transport.to_owned(),
                next_hop: next_hop.to_owned(),
            };
            all.push(Target::destination(next_hop));
            all.extend(transport.map(|name| Target::destination(&destination(name).to_string())));
        }
        all.extend(transport.map(|name| Target::Transport(name.to_owned())));
        all
    }

    /// Whether this suspends mail for a recipient, as far as transport and destination are known.
    pub fn is_on_way(&self, transport: Option<&str>, next_hop: Option<&str>, to: &Address) -> bool {
        Target::all_for(transport, next_hop, to).contains(self)
    }
}

/// Returns a name or an address in brackets in the spelling used for comparison. A host's address has no tag,
/// unlike that of a recipient's domain.
fn key(part: &str) -> Cow<'_, str> {
    let inside = part
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inside.and_then(|inside| inside.parse::<IpAddr>().ok()) {
        Some(address) => format!("[{address}]").into(),
        None => domain::key(part),
    }
}

/// Returns the spellings of a destination: as it is listed, and, for a single host, without the port and
/// without the brackets of an address.
fn spellings(next_hop: &str) -> impl Iterator<Item = &str> {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = |host: &str| !host.contains([':', '/', ',']) || host.ends_with(']');
    let host = match next_hop.rsplit_once(':') {
        Some((host, port)) if is_port(port) && is_host(host) => Some(host),
        _ => None,
    };
    let whole = host.unwrap_or(next_hop);
    let address = whole
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .map(|rest| rest.strip_prefix("ipv6:").unwrap_or(rest));
    [Some(next_hop), host, address].into_iter().flatten()
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Destination(name) => f.write_str(name),
            Target::Transport(name) => write!(f, "transport {name}"),
            Target::All => f.write_str("everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_with_and_without_its_port() {
        let all = |text| spellings(text).collect::<Vec<_>>();
        assert_eq!(all("mx.test:25"), ["mx.test:25", "mx.test"]);
        assert_eq!(all("mx.test"), ["mx.test"]);
        assert_eq!(
            all("[127.0.0.1]:25"),
            ["[127.0.0.1]:25", "[127.0.0.1]", "127.0.0.1"]
        );
        assert_eq!(all("[::1]:25"), ["[::1]:25", "[::1]", "::1"]);
        assert_eq!(all("[::1]"), ["[::1]", "::1"]);
        assert_eq!(all("[ipv6:::1]"), ["[ipv6:::1]", "::1"]);
        for next_hop in [
            "unix:/run/x:25",
            "a.test:25, b.test:25",
            "",
            ":25:",
            "/var/box",
        ] {
            assert_eq!(all(next_hop), [next_hop]);
        }
    }
}
