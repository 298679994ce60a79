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
//! | we are its best MX ourselves | failed, 5.4.6 |
//! | a host named by an MX or by the configuration has no address | deferred, 4.4.4 |
//! | anything else: no answer, SERVFAIL, REFUSED, nonsense | deferred, 4.4.3 |

mod dns;
mod host;

pub use dns::{Exchange, Resolver};
pub use host::{BadHost, Host, Name};
