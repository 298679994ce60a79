//! Next hops: which hosts are asked to take a message, in which order, under which addresses.
//!
//! Either the configuration names the hosts ([`Host`]), or the MX records of the recipient's
//! domain do ([`Resolver::exchanges`]). What DNS answers becomes an outcome by this table:
//!
//! | answer | outcome |
//! |---|---|
//! | the recipient's domain does not exist, or is no domain name (RFC 5891) | failed, 5.1.2 |
//! | it has neither MX nor addresses | failed, 5.4.4 |
//! | null MX (RFC 7505) | failed, 5.1.10 |
//! | we are its best MX ourselves, by name or by address | failed, 5.4.6 |
//! | none of the hosts that its MX records name has an address | failed, 5.4.4 |
//! | a host that the configuration names has no address | deferred, 4.4.4 |
//! | anything else: no answer, SERVFAIL, REFUSED, nonsense | deferred, 4.4.3 |
//!
//! An address literal (`user@[127.0.0.1]`) is an exchange as any other: the submitter chose it, not
//! the configuration, so it leads to this machine only where an MX may. Hosts that the configuration
//! names may be anywhere.

mod exchanges;
mod host;
mod local;
mod resolver;

pub use exchanges::{Exchange, Exchanges};
pub use host::{BadHost, Host, Name};
pub use resolver::Resolver;
