//! `probe`: connects to the next hop for an address and shows what it offers.

use std::io;

use serde::Serialize;

use super::args::{Global, Probe};
use super::exit::{EX_UNAVAILABLE, Failure};
use super::output::{json_line, print};
use super::site::{IfMissing, Site};
use super::transports::{Maker, refusal, unusable};
use crate::config::{Transport, Wire};
use crate::message::{Address, ReversePath, printable};
use crate::queue::Outcome;
use crate::smtp::TlsInfo;
use crate::transport::{Probed, Transport as _};

/// What a connection showed, as JSON. Absent values are null.
#[derive(Serialize)]
struct Shown {
    address: String,
    transport: String,
    destination: String,
    host: Option<String>,
    greeting: Option<String>,
    capabilities: Vec<String>,
    tls: Option<ShownTls>,
    /// The mechanism of our authentication.
    auth: Option<&'static str>,
    error: Option<String>,
    #[serde(skip)]
    status: u8,
}

#[derive(Serialize)]
struct ShownTls {
    version: String,
    cipher: String,
    verified: bool,
}

/// `mailspool probe`.
pub(super) fn probe(global: &Global, args: &Probe) -> Result<u8, Failure> {
    let site = Site::open(global, IfMissing::Fail)?;
    let address = site.address(&args.address)?;
    let sender = site.sender(args.from.as_ref())?;
    let (transport, wire) = wire(&site, &sender, &address)?;
    let mut shown = Shown {
        address: address.to_string(),
        transport: transport.to_owned(),
        destination: wire.target().next_hop(&address),
        host: None,
        greeting: None,
        capabilities: Vec::new(),
        tls: None,
        auth: None,
        error: None,
        status: 0,
    };
    match connect(&site, wire, &address)? {
        Ok(probed) => shown.fill(probed),
        Err(outcome) => {
            let (status, error) = refusal(&outcome);
            (shown.status, shown.error) = (status, Some(error));
        }
    }
    if args.json {
        json_line(&mut io::stdout().lock(), &shown)?
    } else {
        print(&text(&shown, wire))
    }
    Ok(shown.status)
}

fn wire<'a>(
    site: &'a Site,
    sender: &ReversePath,
    address: &Address,
) -> Result<(&'a str, &'a Wire), Failure> {
    let config = &site.config;
    let none = || {
        let text = format!("no route for {address}: its mail is deferred");
        Failure::new(EX_UNAVAILABLE, text)
    };
    let name = config.routes.transport_for(sender, address);
    let name = name.ok_or_else(none)?;
    match config.transports.get(name) {
        Some(Transport::Wire(wire)) => Ok((name, wire)),
        _ => {
            let text =
                format!("{address} goes by the transport {name:?}, which has no host to probe");
            Err(Failure::new(EX_UNAVAILABLE, text))
        }
    }
}

fn connect(
    site: &Site,
    wire: &Wire,
    address: &Address,
) -> Result<Result<Probed, Outcome>, Failure> {
    let smtp = match Maker::new(site).smtp(wire) {
        Ok(smtp) => smtp,
        Err(error) => return Ok(Err(unusable(&error))),
    };
    let runtime = crate::runner::runtime()?;
    Ok(runtime.block_on(smtp.probe(&smtp.next_hop(address))))
}

impl Shown {
    fn fill(&mut self, probed: Probed) {
        let info = probed.info;
        let tls = |tls: TlsInfo| ShownTls {
            version: tls.version,
            cipher: tls.cipher,
            verified: tls.is_verified,
        };
        self.host = Some(probed.remote);
        self.greeting = Some(printable(&info.greeting));
        let lines = info.capabilities.lines.iter();
        self.capabilities = lines.map(|line| printable(line)).collect();
        self.tls = info.tls.map(tls);
        self.auth = info.mechanism.map(|mechanism| mechanism.name());
    }
}

fn text(shown: &Shown, wire: &Wire) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<14}{}\n", printable(value)));
    };
    line("Address", &shown.address);
    line("Transport", &shown.transport);
    line("Destination", &shown.destination);
    if let Some(error) = &shown.error {
        line("Failed", error);
        return text;
    }
    line("Host", shown.host.as_deref().unwrap_or_default());
    line("Greeting", shown.greeting.as_deref().unwrap_or_default());
    match &shown.tls {
        Some(ShownTls {
            version,
            cipher,
            verified,
        }) => {
            let verified = if *verified {
                "verified"
            } else {
                "not verified"
            };
            line("TLS", &format!("{version}, {cipher}, {verified}"));
        }
        None => line("TLS", "none"),
    }
    line(
        "AUTH",
        match (shown.auth, &wire.login) {
            (Some(mechanism), _) => mechanism,
            (None, _) => "not used: the configuration has no `username`",
        },
    );
    for (n, capability) in shown.capabilities.iter().enumerate() {
        line(if n == 0 { "Capabilities" } else { "" }, capability);
    }
    text
}
