//! Which hosts are asked to take a message, in which order, and at which addresses.
//!
//! Either the configuration names the hosts ([`Host`]), or the MX records of the recipient's
//! domain do ([`Resolver::exchanges`]). This table maps DNS answers to outcomes:
//!
//! | answer | outcome |
//! |---|---|
//! | the recipient's domain does not exist, or is not a domain name (RFC 5891) | failed, 5.1.2 |
//! | it has neither MX nor addresses | failed, 5.4.4 |
//! | null MX (RFC 7505) | failed, 5.1.10 |
//! | this host is its best MX, by name or by address | failed, 5.4.6 |
//! | none of the hosts in its MX records has an address | failed, 5.4.4 |
//! | a configured host has no address | deferred, 4.4.4 |
//! | anything else: no answer, SERVFAIL, REFUSED, a malformed answer | deferred, 4.4.3 |
//!
//! An address literal (`user@[127.0.0.1]`) is treated like any exchange: the submitter chose it, not
//! the configuration, so it may lead to this machine only if an MX may. Configured hosts may be
//! anywhere.

mod exchanges;
mod host;
mod local;
mod resolver;

pub use exchanges::Exchanges;
#[cfg(feature = "testing")]
pub use host::BadHost;
pub use host::{Host, Name};
#[cfg(feature = "testing")]
pub use resolver::Exchange;
pub use resolver::Resolver;
