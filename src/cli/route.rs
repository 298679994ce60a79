//! `route`: the route of mail for an address, and why.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStrExt;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Global, Route};
use super::destinations::describe_down;
use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Failure};
use super::list::{finish, json_line, put};
use super::site::Site;
use super::suspend;
use super::transports::{Maker, unusable};
use crate::config::{Config, Transport, Wire};
use crate::message::{Address, ReversePath, harmless, printable};
use crate::queue::{Outcome, Pattern, Rule, Status};
use crate::smtp::{Protocol, TlsPolicy};
use crate::spool::Destination;
use crate::transport::Transport as _;

/// The route of one address, as JSON. Absent values are null.
#[derive(Serialize)]
struct Way {
    address: String,
    /// The number of the `[[route]]`, counted from 1.
    route: Option<usize>,
    because: String,
    transport: Option<String>,
    r#type: Option<&'static str>,
    destination: Option<String>,
    hosts: Vec<String>,
    tls: Option<String>,
    down: Option<String>,
    /// The suspension of its mail, with its reason.
    suspended: Option<String>,
    /// Why mail cannot go there.
    error: Option<String>,
    #[serde(skip)]
    status: u8,
}

/// `mailspool route`.
pub(super) fn route(global: &Global, args: &Route) -> Result<u8, Failure> {
    let site = Site::look(global)?;
    let addresses: Result<Vec<Address>, Failure> = args
        .addresses
        .iter()
        .map(|given| address(given, &site.config))
        .collect();
    let sender = sender(args.from.as_ref(), &site)?;
    let maker = Maker::new(&site);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut status = 0;
    for address in addresses? {
        let way = way(&site, &maker, &sender, &address)?;
        status = status.max(way.status);
        if args.json {
            json_line(&mut out, &way)?
        } else {
            put(&mut out, &text(&way))?
        }
    }
    finish(out)?;
    Ok(status)
}

/// Parses an address of the command line. A bare name gets our hostname.
pub(super) fn address(given: &OsString, config: &Config) -> Result<Address, Failure> {
    let parsed = Address::from_bytes(given.as_bytes());
    let whole = parsed.and_then(|address| address.qualified(&config.hostname));
    whole.map_err(|error| Failure::new(EX_USAGE, format!("{given:?}: {error}")))
}

/// Returns the sender of the command line, or the caller.
pub(super) fn sender(given: Option<&OsString>, site: &Site) -> Result<ReversePath, Failure> {
    let Some(given) = given else {
        return caller(site);
    };
    let parsed = ReversePath::parse(given.as_bytes());
    let whole = parsed.and_then(|address| address.qualified(&site.config.hostname));
    whole.map_err(|error| Failure::new(EX_USAGE, format!("{given:?}: {error}")))
}

/// Returns the calling user as a sender.
pub(super) fn caller(site: &Site) -> Result<ReversePath, Failure> {
    let name = &site.caller.name;
    let whole = Address::of_user(name).and_then(|address| address.qualified(&site.config.hostname));
    let whole = whole.map(ReversePath::Mailbox);
    whole.map_err(|error| Failure::new(EX_USAGE, format!("{name:?}: {error}")))
}

fn way(
    site: &Site,
    maker: &Maker<'_>,
    sender: &ReversePath,
    address: &Address,
) -> Result<Way, Failure> {
    let (config, now) = (&site.config, Timestamp::now());
    let mut way = Way {
        address: address.to_string(),
        route: None,
        because: "no route matches".to_owned(),
        transport: None,
        r#type: None,
        destination: None,
        hosts: Vec::new(),
        tls: None,
        down: None,
        suspended: None,
        error: None,
        status: 0,
    };
    let all = site.spool.suspensions()?;
    let all: Vec<_> = all
        .into_iter()
        .filter(|suspension| !suspension.is_over(now))
        .collect();
    let suspended = suspend::Way::of(site, None, sender, address)
        .suspended(&all, address)
        .map(suspend::describe);
    way.suspended = suspended;
    if let Some(mistake) = &site.mistake {
        way.because = "the configuration cannot be used".to_owned();
        way.fail(EX_TEMPFAIL, format!("it waits: {mistake}"));
        return Ok(way);
    }
    let Some((number, rule)) = config.routes.rule_for(sender, address) else {
        way.fail(EX_UNAVAILABLE, "no route: it is deferred".to_owned());
        return Ok(way);
    };
    way.route = Some(number + 1);
    way.because = because(number, rule);
    way.transport = Some(rule.transport.clone());
    match config.transports.get(&rule.transport) {
        None => {}
        Some(Transport::Maildir { path, .. }) => {
            way.r#type = Some("maildir");
            let path = site.spool.path().join(path);
            way.destination = Some(path.display().to_string());
        }
        Some(Transport::Pipe { command, .. }) => {
            way.r#type = Some("pipe");
            way.destination = Some(command.join(" "));
        }
        Some(Transport::Wire(wire)) => on_wire(&mut way, site, maker, wire, address)?,
    }
    Ok(way)
}

fn on_wire(
    way: &mut Way,
    site: &Site,
    maker: &Maker<'_>,
    wire: &Wire,
    address: &Address,
) -> Result<(), Failure> {
    way.r#type = Some(match wire.protocol {
        Protocol::Smtp => "smtp",
        Protocol::Lmtp => "lmtp",
    });
    way.tls = Some(tls(wire));
    let smtp = match maker.smtp(wire) {
        Ok(smtp) => smtp,
        Err(error) => {
            way.destination = Some(wire.target().next_hop(address));
            way.refuse(&unusable(&error));
            return Ok(());
        }
    };
    let next_hop = smtp.next_hop(address);
    let runtime = crate::runner::runtime()?;
    match runtime.block_on(smtp.hosts(&next_hop)) {
        Ok(hosts) => {
            let port = |host: String| {
                if host.starts_with("unix:") || has_port(&host) {
                    host
                } else {
                    format!("{host}:{}", wire.port)
                }
            };
            way.hosts = hosts.into_iter().map(port).collect();
        }
        Err(outcome) => way.refuse(&outcome),
    }
    let destination = Destination {
        transport: way.transport.clone().unwrap_or_default(),
        next_hop: next_hop.clone(),
    };
    way.down = site.spool.down(&destination).as_ref().map(describe_down);
    way.destination = Some(next_hop);
    Ok(())
}

/// Whether a host's text includes a port.
fn has_port(host: &str) -> bool {
    match host.rsplit_once(']') {
        Some((_, rest)) => rest.starts_with(':'),
        None => host.contains(':'),
    }
}

impl Way {
    fn refuse(&mut self, outcome: &Outcome) {
        let (status, error) = refusal(outcome);
        self.fail(status, error);
    }

    fn fail(&mut self, status: u8, error: String) {
        self.status = status;
        self.error = Some(printable(&error));
    }
}

/// Returns the exit status for an outcome, and a text that says what happens to the mail.
pub(super) fn refusal(outcome: &Outcome) -> (u8, String) {
    let (status, becomes) = match outcome.status {
        Status::Failed => (EX_UNAVAILABLE, "it is bounced"),
        _ => (EX_TEMPFAIL, "it is deferred"),
    };
    (status, printable(&format!("{becomes}: {}", outcome.reply)))
}

pub(super) fn because(number: usize, rule: &Rule) -> String {
    let recipient = match &rule.recipient {
        Pattern::Any | Pattern::Null => "everything".to_owned(),
        Pattern::Domain(domain) => format!("domain {domain}"),
        Pattern::Subdomains(above) => format!("domains below {above}"),
        Pattern::Mailbox(one) => format!("recipient {one}"),
    };
    let sender = match &rule.sender {
        Pattern::Any => String::new(),
        Pattern::Null => " from the null sender".to_owned(),
        Pattern::Domain(domain) => format!(" from senders of {domain}"),
        Pattern::Subdomains(above) => format!(" from senders of domains below {above}"),
        Pattern::Mailbox(one) => format!(" from {one}"),
    };
    format!("[[route]] number {} ({recipient}{sender})", number + 1)
}

/// Describes the TLS policy.
fn tls(wire: &Wire) -> String {
    let policy = match wire.tls.policy {
        TlsPolicy::None => "none",
        TlsPolicy::Opportunistic => "opportunistic: used if offered, not verified",
        TlsPolicy::Required => "required, not verified",
        TlsPolicy::Verified => "required and verified",
    };
    if wire.tls.implicit {
        format!("{policy}, from the first octet")
    } else {
        policy.to_owned()
    }
}

fn text(way: &Way) -> String {
    let mut text = format!("{}\n", harmless(&way.address));
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("    {name:<12}{}\n", printable(value)));
    };
    line("Route", &way.because);
    if let Some(transport) = &way.transport {
        let kind = way.r#type.unwrap_or("missing");
        line("Transport", &format!("{transport} ({kind})"));
    }
    if let Some(destination) = &way.destination {
        line("Destination", destination);
    }
    for (n, host) in way.hosts.iter().enumerate() {
        line(if n == 0 { "Hosts" } else { "" }, host);
    }
    if let Some(tls) = &way.tls {
        line("TLS", tls);
    }
    if let Some(suspended) = &way.suspended {
        line("Suspended", suspended);
    }
    if let Some(down) = &way.down {
        line("Down", down);
    }
    if let Some(error) = &way.error {
        line("Error", error);
    }
    text
}
