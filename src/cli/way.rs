//! The way of a recipient's mail: its route, transport and destination.

use jiff::Timestamp;

use super::site::Site;
use super::transports;
use crate::message::{Address, ReversePath};
use crate::queue::{Pattern, Rule};
use crate::spool::{Standing, Target};

/// The transport and destination of a recipient's mail, as far as the configuration tells.
pub(super) struct Way {
    pub transport: Option<String>,
    pub destination: Option<String>,
}

impl Way {
    pub fn of(site: &Site, wanted: Option<&str>, sender: &ReversePath, to: &Address) -> Way {
        let transport = wanted.or_else(|| site.config.routes.transport_for(sender, to));
        Way {
            destination: transport.and_then(|name| transports::destination(site, name, to)),
            transport: transport.map(str::to_owned),
        }
    }

    pub fn has(&self, target: &Target, to: &Address) -> bool {
        target.is_on_way(self.transport.as_deref(), self.destination.as_deref(), to)
    }

    /// Returns the suspension that holds mail on this way; of several, the last to end.
    pub fn suspended<'a>(&self, all: &'a [Standing], to: &Address) -> Option<&'a Standing> {
        all.iter()
            .filter(|suspension| self.has(&suspension.target, to))
            .max_by_key(|suspension| suspension.until().unwrap_or(Timestamp::MAX))
    }
}

/// Describes a route, which is counted from 0.
pub(super) fn because(number: usize, rule: &Rule) -> String {
    let recipient = match &rule.recipient {
        Pattern::Any | Pattern::Null => "everything".to_owned(),
        Pattern::Domain(domain) => format!("domain {domain}"),
        Pattern::Subdomains(above) => format!("domains below {above}"),
        Pattern::Mailbox(address) => format!("recipient {address}"),
    };
    let sender = match &rule.sender {
        Pattern::Any => String::new(),
        Pattern::Null => " from the null sender".to_owned(),
        Pattern::Domain(domain) => format!(" from senders of {domain}"),
        Pattern::Subdomains(above) => format!(" from senders of domains below {above}"),
        Pattern::Mailbox(address) => format!(" from {address}"),
    };
    format!("[[route]] number {} ({recipient}{sender})", number + 1)
}
