//! `[[route]]`.

use std::collections::BTreeMap;

use toml::Spanned;

use super::Error;
use super::raw::RawRoute;
use super::transport::Transport;
use super::value::{Text, at};
use crate::queue::{Pattern, Routes, Rule};

impl Text<'_> {
    /// Returns the routes, in order. Each leads to a transport that exists.
    pub(super) fn routes(
        &self,
        raw: &mut [RawRoute],
        transports: &BTreeMap<String, Transport>,
    ) -> Result<Routes, Error> {
        let mut rules = Vec::new();
        for route in raw {
            let name = route.transport.get_ref();
            if !transports.contains_key(name) {
                let what = format!("there is no transport {name:?}");
                return Err(self.error(route.transport.span(), what));
            }
            let recipient = match (&route.recipient, &route.domain, &route.sender) {
                (Some(given), None, _) if given.get_ref() == "*" => Pattern::Any,
                (Some(given), None, _) => Pattern::Mailbox(self.address(given)?),
                (None, Some(given), _) => self.domains(given, given.get_ref())?,
                (None, None, Some(_)) => Pattern::Any,
                _ => {
                    let what = "a route needs either `recipient` or `domain`, or `sender`";
                    return Err(self.error(route.transport.span(), what));
                }
            };
            let rule = Rule::new(recipient, name.clone());
            let rule = match &route.sender {
                Some(given) => rule.from(self.senders(given)?),
                None => rule,
            };
            *route = RawRoute::from(&rule);
            rules.push(rule);
        }
        Ok(Routes(rules))
    }

    /// Parses a domain, `.domain` or `*.domain` for all domains below it, or `*` for every domain.
    fn domains(&self, given: &Spanned<String>, text: &str) -> Result<Pattern, Error> {
        if text == "*" {
            return Ok(Pattern::Any);
        }
        let above = text.strip_prefix("*.").or(text.strip_prefix('.'));
        let name = Spanned::new(given.span(), above.unwrap_or(text).to_owned());
        let name = self.hostname(&name)?;
        Ok(match above {
            Some(_) => Pattern::Subdomains(name),
            None => Pattern::Domain(name),
        })
    }

    /// Parses a sender's address, `@domain` for all senders of a domain (`@.domain` for those below it),
    /// or `<>` for the null sender.
    fn senders(&self, given: &Spanned<String>) -> Result<Pattern, Error> {
        match given.get_ref().as_str() {
            "<>" => Ok(Pattern::Null),
            text => match text.strip_prefix('@') {
                Some(domain) => self.domains(given, domain),
                None => Ok(Pattern::Mailbox(self.address(given)?)),
            },
        }
    }
}

impl From<&Rule> for RawRoute {
    fn from(rule: &Rule) -> RawRoute {
        let (recipient, domain) = match &rule.recipient {
            Pattern::Any | Pattern::Null => (None, Some("*".to_owned())),
            Pattern::Domain(domain) => (None, Some(domain.clone())),
            Pattern::Subdomains(above) => (None, Some(format!(".{above}"))),
            Pattern::Mailbox(address) => (Some(address.as_str().to_owned()), None),
        };
        let sender = match &rule.sender {
            Pattern::Any => None,
            Pattern::Null => Some("<>".to_owned()),
            Pattern::Domain(domain) => Some(format!("@{domain}")),
            Pattern::Subdomains(above) => Some(format!("@.{above}")),
            Pattern::Mailbox(address) => Some(address.as_str().to_owned()),
        };
        RawRoute {
            recipient: recipient.map(at),
            domain: domain.map(at),
            sender: sender.map(at),
            transport: at(rule.transport.clone()),
        }
    }
}
