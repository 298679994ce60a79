//! The routes and queued messages that a suspension concerns.

use std::net::IpAddr;

use crate::cli::site::Site;
use crate::cli::way::{Way, because};
use crate::cli::{table, transports};
use crate::message::{Address, ReversePath, domain, printable};
use crate::queue::route::Pattern;
use crate::spool::Target;

/// Returns why a name matches no destination that the configuration allows.
pub(super) fn never(site: &Site, target: &Target) -> Option<String> {
    let Target::Destination(name) = target else {
        return None;
    };
    if name.contains(['*', '?']) {
        let text = "a name is not a pattern; `--all` suspends everything";
        return Some(text.to_owned());
    }
    // Without a usable configuration the transports are unknown. Suspending must still work.
    if site.mistake.is_some() {
        return None;
    }
    // Accept a host, socket or directory of the configuration, in any spelling.
    if site
        .config
        .transports
        .keys()
        .any(|name| leads(site, name, target))
    {
        return None;
    }
    if name.contains('/') {
        return Some("no transport has this socket or directory".to_owned());
    }
    let (transport, host) = match name.split_once(':') {
        Some((first, rest)) if !name.starts_with('[') => (Some(first), rest),
        _ => (None, name.as_str()),
    };
    match transport {
        None if is_domain(host) => None,
        None => Some("neither a domain nor a destination of a transport".to_owned()),
        Some(name) => match site.config.transports.contains_key(name) {
            false => Some("no transport goes to this host and port".to_owned()),
            // This transport goes to the domain of the recipient.
            true if fixed(site, name).is_none() && is_domain(host) => None,
            true => Some(format!("the transport {name:?} does not go there")),
        },
    }
}

/// Whether a name is a domain or an address literal in brackets, as after the `@` of a recipient.
fn is_domain(name: &str) -> bool {
    if let Some(literal) = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let is_six = |literal: &str| {
            literal
                .get(..5)
                .is_some_and(|tag| tag.eq_ignore_ascii_case("ipv6:"))
        };
        let address = if is_six(literal) {
            &literal[5..]
        } else {
            literal
        };
        return address.parse::<IpAddr>().is_ok();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let Ok(name) = domain::to_ascii(name) else {
        return false;
    };
    let is_label = |label: &str| {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_legal)
    };
    name.len() <= 253 && name.split('.').all(is_label) && name.parse::<IpAddr>().is_err()
}

/// Returns the destination of a transport if it is the same for all recipients.
fn fixed(site: &Site, transport: &str) -> Option<String> {
    let to = |domain| Address::parse(&format!("x@{domain}")).ok();
    let to = |domain| transports::destination(site, transport, &to(domain)?);
    let (first, second) = (to("one.invalid")?, to("other.invalid")?);
    (first == second).then_some(first)
}

/// Whether a transport takes all mail to this destination.
fn leads(site: &Site, transport: &str, target: &Target) -> bool {
    let (Some(destination), Ok(to)) = (fixed(site, transport), Address::parse("x")) else {
        return false;
    };
    target.is_on_way(Some(transport), Some(&destination), &to)
}

/// Formats how many queued messages, and which routes, a suspension concerns.
pub(super) fn count(site: &Site, target: &Target) -> String {
    let (count, is_all) = messages(site, target);
    let is_known = site.mistake.is_none();
    let queued = match (count, is_all && (is_known || *target == Target::All)) {
        (count, true) => format!("{} in the queue", table::messages(count)),
        (count, false) => format!("at least {} in the queue", table::messages(count)),
    };
    let routes = routes(site, target);
    let routes = match (is_known, routes.is_empty()) {
        (false, _) => "its routes are unknown, because the configuration cannot be used".to_owned(),
        (true, true) => "no route leads there".to_owned(),
        (true, false) => format!("by {}", routes.join(", ")),
    };
    printable(&format!("It concerns {queued}; {routes}."))
}

/// Describes the routes that lead to a target.
fn routes(site: &Site, target: &Target) -> Vec<String> {
    let domain = match target {
        Target::Destination(name) if is_domain(name) => Some(name.as_str()),
        _ => None,
    };
    let routes = &site.config.routes;
    let rules = routes.0.iter().enumerate().filter(|(number, rule)| {
        if matches!(target, Target::All) || leads(site, &rule.transport, target) {
            return true;
        }
        // Test with an example recipient of the rule. If the rule matches any domain, take the target's.
        let elsewhere = domain.unwrap_or("example.invalid");
        let sender = example(&rule.sender, "example.invalid");
        let to = match &rule.recipient {
            Pattern::Subdomains(above) if domain.is_some_and(|it| domain::is_below(it, above)) => {
                example(&Pattern::Any, elsewhere)
            }
            pattern => example(pattern, elsewhere),
        };
        to.is_some_and(|to| is_meant(site, target, sender, &to, *number))
    });
    rules.map(|(number, rule)| because(number, rule)).collect()
}

/// Returns an address that matches a pattern, in `domain` if the pattern matches every address.
fn example(pattern: &Pattern, domain: &str) -> Option<Address> {
    let domain = match pattern {
        Pattern::Any => domain.to_owned(),
        Pattern::Domain(domain) => domain.clone(),
        Pattern::Subdomains(above) => format!("x.{above}"),
        Pattern::Mailbox(address) => return Some(address.clone()),
        Pattern::Null => return None,
    };
    Address::parse(&format!("x@{domain}")).ok()
}

/// Whether a recipient's mail from this sender takes this route and the target matches it.
fn is_meant(
    site: &Site,
    target: &Target,
    sender: Option<Address>,
    to: &Address,
    route: usize,
) -> bool {
    let sender = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
    let found = site.config.routes.rule_for(&sender, to);
    found.is_some_and(|(number, _)| number == route)
        && Way::of(site, None, &sender, to).has(target, to)
}

/// Counts the messages with a pending recipient that the target matches. The flag tells whether every
/// message could be read.
fn messages(site: &Site, target: &Target) -> (usize, bool) {
    let listing = site.spool.listing();
    let mut is_all = listing.unread.is_empty() && listing.unplaced.is_empty();
    let mut count = 0;
    for (id, place) in &listing.messages {
        match site.spool.view(*id, *place, &listing) {
            Ok(Some(view)) => {
                let Ok(content) = view.content else { continue };
                let wanted = content.envelope.submission.transport.as_deref();
                let sender = &content.envelope.sender;
                let mut left = content
                    .state
                    .recipients
                    .iter()
                    .filter(|recipient| recipient.is_left());
                let is_meant = left.any(|recipient| {
                    let way = Way::of(site, wanted, sender, &recipient.address);
                    way.has(target, &recipient.address)
                });
                count += usize::from(is_meant);
            }
            Ok(None) => {}
            Err(_) => is_all = false,
        }
    }
    (count, is_all)
}
