//! The hosts that take mail for a domain, with their addresses, found as they are wanted.
//!
//! Exchanges of equal preference are looked up together, before the first of them is connected to;
//! those of the next preference are looked up only if none of these took the mail. If an exchange has
//! an address of this machine, we are that exchange ourselves: it and every one that is no better are
//! left out (RFC 5321, 5.1), unless the resolver was told that such exchanges are meant.

use std::collections::VecDeque;
use std::net::IpAddr;

use futures_util::future::join_all;

use super::local::is_local;
use super::resolver::{Addresses, Resolver, trouble};
use crate::message::EnhancedCode;
use crate::queue::Outcome;

/// A host that takes mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name, in ASCII and without a final dot; for a domain that is an address literal, the address.
    pub name: String,
    /// Its preference, the lowest first; none where it comes from no MX record.
    pub preference: Option<u16>,
}

/// The exchanges of a domain on the way from names to addresses.
#[derive(Debug)]
pub struct Exchanges {
    domain: String,
    /// Not looked up yet, the best first.
    left: VecDeque<Exchange>,
    /// What was found and is not told yet: a name and its address, or why it has none.
    found: VecDeque<Result<(String, IpAddr), Outcome>>,
    /// Whether anything but "no such host" was told.
    is_known: bool,
    /// Names without an address.
    absent: Vec<String>,
}

impl Exchanges {
    /// The exchanges of `domain`, the best first, as [`Resolver::exchanges`] gives them.
    pub fn new(domain: &str, exchanges: Vec<Exchange>) -> Exchanges {
        Exchanges {
            domain: domain.to_owned(),
            left: exchanges.into(),
            found: VecDeque::new(),
            is_known: false,
            absent: Vec::new(),
        }
    }

    /// The next exchange and one of its addresses, or why there is none; none at the end. The
    /// outcome fails only if nothing was found before: the domain has no exchange that exists, or
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

    /// The end; the first time, if no exchange has an address, that this is so.
    fn nothing(&mut self) -> Option<Result<(String, IpAddr), Outcome>> {
        if std::mem::replace(&mut self.is_known, true) {
            return None;
        }
        let (domain, names) = (&self.domain, self.absent.join(", "));
        let text = format!("no mail exchange of {domain} has an address: {names}");
        let code = EnhancedCode::new(5, 4, 4);
        Some(Err(Outcome::failed(code, text)))
    }

    /// Looks up those that are best of what is left.
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

    /// One of those just looked up is this machine: neither its equals nor what comes later is asked.
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
    /// Whether mail that goes to this address of an exchange would come back to this machine.
    fn is_loop(&self, address: IpAddr) -> bool {
        !self.local_mx && is_local(address)
    }
}
