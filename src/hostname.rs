//! The name of this host.

use crate::message::domain;

/// Returns the system's host name, or `localhost` if that is not usable as a domain of addresses.
pub(crate) fn of_system() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    if is_usable(&name) {
        name.into_owned()
    } else {
        "localhost".to_owned()
    }
}

/// Whether it can stand after the `@` of an address and in a header field.
pub(crate) fn is_usable(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(is_allowed)
        && domain::to_ascii(name).is_ok()
        && domain::check(name).is_ok()
}

/// Whether a byte may be part of a host name or an address literal.
pub(crate) fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte) || byte >= 0x80
}
