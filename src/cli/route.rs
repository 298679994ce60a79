//! `route`: the route of mail for an address, and why.

use std::io::{self, BufWriter};

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Global, Route};
use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE, Failure};
use super::output::{finish, json_line, put};
use super::site::Site;
use super::transports::{Maker, refusal, unusable};
use super::waiting::{describe, describe_down, in_force};
use super::way::{Way, because};
use crate::config::{Transport, Wire};
use crate::message::{Address, ReversePath, harmless, printable};
use crate::queue::Outcome;
use crate::smtp::{Protocol, TlsPolicy};
use crate::spool::Destination;
use crate::transport::Transport as _;

/// The route of an address, as JSON. Absent values are null.
#[derive(Serialize)]
struct Shown {
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
        .map(|given| site.address(given))
        .collect();
    let sender = site.sender(args.from.as_ref())?;
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

fn way(
    site: &Site,
    maker: &Maker<'_>,
    sender: &ReversePath,
    address: &Address,
) -> Result<Shown, Failure> {
    let config = &site.config;
    let mut way = Shown {
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
    let all = in_force(&site.spool, Timestamp::now())?;
    let suspended = Way::of(site, None, sender, address).suspended(&all, address);
    way.suspended = suspended.map(describe);
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
    way: &mut Shown,
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

impl Shown {
    fn refuse(&mut self, outcome: &Outcome) {
        let (status, error) = refusal(outcome);
        self.fail(status, error);
    }

    fn fail(&mut self, status: u8, error: String) {
        self.status = status;
        self.error = Some(printable(&error));
    }
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

fn text(way: &Shown) -> String {
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
