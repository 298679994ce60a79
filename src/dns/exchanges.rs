//! The hosts that take mail for a domain, with their addresses, looked up on demand.
//!
//! Exchanges of equal preference are looked up together, before the first of them is connected to. Those of
//! the next preference are looked up only if none of these took the mail. An exchange with an address of
//! this machine is this host: it and every exchange that is no better are left out (RFC 5321, 5.1), unless
//! the resolver is configured to allow such exchanges.

use std::collections::VecDeque;
use std::net::IpAddr;

use futures_util::future::join_all;

use super::local::is_local;
use super::resolver::{Addresses, Exchange, Resolver, trouble};
use crate::message::EnhancedCode;
use crate::queue::Outcome;

/// The exchanges of a domain, some already looked up.
#[derive(Debug)]
pub struct Exchanges {
    domain: String,
    /// Not looked up yet, best first.
    left: VecDeque<Exchange>,
    /// Found but not returned yet: a name and its address, or why it has none.
    found: VecDeque<Result<(String, IpAddr), Outcome>>,
    /// Whether anything but "no such host" was returned.
    is_known: bool,
    /// Names without an address.
    absent: Vec<String>,
}

impl Exchanges {
    /// The exchanges of `domain`, best first, as returned by [`Resolver::exchanges`].
    pub fn new(domain: &str, exchanges: Vec<Exchange>) -> Exchanges {
        Exchanges {
            domain: domain.to_owned(),
            left: exchanges.into(),
            found: VecDeque::new(),
            is_known: false,
            absent: Vec::new(),
        }
    }

    /// The next exchange and one of its addresses, or why there is none; `None` at the end. A failed
    /// outcome is returned only if nothing was found before: no exchange of the domain has an address, or
    /// its best one is this machine.
    pub async fn next(&mut self, resolver: &Resolver) -> Option<Result<(String, IpAddr), Outcome>> {
        while self.found.is_empty() {
            if self.left.is_empty() {
                return self.nothing();
            }
            self.look_up(resolver).await;
        }
        self.is_known = true;
        self.found.pop_front()
    }

    /// The end of the list. On the first call, if no exchange has an address, an outcome that says so.
    fn nothing(&mut self) -> Option<Result<(String, IpAddr), Outcome>> {
        if std::mem::replace(&mut self.is_known, true) {
            return None;
        }
        let (domain, names) = (&self.domain, self.absent.join(", "));
        let text = format!("no mail exchange of {domain} has an address: {names}");
        let code = EnhancedCode::new(5, 4, 4);
        Some(Err(Outcome::failed(code, text)))
    }

    /// Looks up the best of the remaining exchanges.
    async fn look_up(&mut self, resolver: &Resolver) {
        let best = self.left.front().and_then(|exchange| exchange.preference);
        let equal = self
            .left
            .iter()
            .take_while(|exchange| exchange.preference == best);
        let count = equal.count();
        let level: Vec<Exchange> = self.left.drain(..count).collect();
        let answers = level
            .iter()
            .map(|exchange| resolver.look_up(&exchange.name));
        let answers = join_all(answers).await;
        for (exchange, answer) in level.into_iter().zip(answers) {
            match answer {
                Addresses::Found(addresses) => {
                    if let Some(own) = addresses.iter().find(|address| resolver.is_loop(**address))
                    {
                        return self.end_at(&exchange.name, *own);
                    }
                    let pair = |address| Ok((exchange.name.clone(), address));
                    self.found.extend(addresses.into_iter().map(pair));
                }
                Addresses::None => self.absent.push(exchange.name),
                Addresses::Trouble(text) => {
                    self.found
                        .push_back(Err(trouble(&exchange.name, "address", &text)));
                }
            }
        }
    }

    /// Ends the list because an exchange just looked up is this machine: neither its equals nor worse ones
    /// are asked.
    fn end_at(&mut self, name: &str, address: IpAddr) {
        self.left.clear();
        self.found.clear();
        if !self.is_known {
            let domain = &self.domain;
            let text = format!(
                "mail for {domain} loops back to this host: {name} has its address {address}"
            );
            let code = EnhancedCode::new(5, 4, 6);
            self.found.push_back(Err(Outcome::failed(code, text)));
        }
        self.is_known = true;
    }
}

impl Resolver {
    /// Whether mail sent to this address of an exchange would return to this machine.
    fn is_loop(&self, address: IpAddr) -> bool {
        !self.local_mx && is_local(address)
    }
}
