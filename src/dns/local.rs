//! Decides which addresses lead to this machine.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Whether a connection to this address ends on this machine: it is a loopback address, the
/// unspecified one (which Linux connects to itself), or one of an interface.
pub(super) fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    // If the system does not list its interfaces, no address is known.
    let Ok(interfaces) = getifaddrs() else {
        return false;
    };
    interfaces
        .filter_map(|interface| interface.address)
        .any(|own| {
            let v4 = own.as_sockaddr_in().map(|own| IpAddr::from(own.ip()));
            let v6 = own.as_sockaddr_in6().map(|own| IpAddr::from(own.ip()));
            v4.or(v6).is_some_and(|own| own.to_canonical() == address)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_known() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.99.0.1", true),
            ("0.0.0.0", true),
            ("::", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("198.51.100.1", false),
            ("2001:db8:ffff::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), expected, "{address}");
        }
        // The address that the system would use for outgoing traffic, if it has one.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("198.51.100.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(is_local(own), "{own}");
        }
    }
}
