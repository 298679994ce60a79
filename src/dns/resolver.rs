//! Queries DNS for a domain or a host.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::host::address_literal;
use crate::message::{EnhancedCode, domain};
use crate::queue::Outcome;

/// Queries DNS, and caches the answers for their time to live.
#[derive(Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    pub(super) local_mx: bool,
    /// Bound to the async runtime in which it was created, because it has tasks there.
    inner: Mutex<Option<(tokio::runtime::Id, TokioResolver)>>,
}

/// A host that takes mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name, in ASCII and without a final dot. If the domain is an address literal, the address.
    pub name: String,
    /// Its preference, the lowest first; `None` if it does not come from an MX record.
    pub preference: Option<u16>,
}

/// How long to wait for an answer, in each of the resolver's two tries. After both the outcome defers.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Resolver {
    /// A resolver that asks these servers, or those of the system if there are none.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>) -> Resolver {
        Resolver {
            servers,
            timeout: TIMEOUT,
            local_mx: false,
            inner: Mutex::new(None),
        }
    }

    /// Sets how long to wait for each answer.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Resolver {
        Resolver { timeout, ..self }
    }

    /// Sets whether an exchange may have an address of this machine. Usually that is a loop, or the owner
    /// of the domain wants this host to connect to its own services.
    #[must_use]
    pub fn with_local_mx(self, local_mx: bool) -> Resolver {
        Resolver { local_mx, ..self }
    }

    fn inner(&self) -> Result<TokioResolver, String> {
        let here = tokio::runtime::Handle::current().id();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((runtime, resolver)) = &*inner
            && *runtime == here
        {
            return Ok(resolver.clone());
        }
        let resolver = self.make().map_err(|error| error.to_string())?;
        *inner = Some((here, resolver.clone()));
        Ok(resolver)
    }

    fn make(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.servers.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                server
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            let provider = TokioRuntimeProvider::default();
            TokioResolver::builder_with_config(config, provider)
                .with_options(ResolverOpts::default())
        };
        builder.options_mut().timeout = self.timeout;
        // Repeats a query by TCP if the answer was truncated or garbled.
        builder.options_mut().try_tcp_on_error = true;
        builder.build()
    }

    /// The hosts that take mail for a domain, best first, equal ones shuffled. The domain may be in any
    /// spelling; the hosts are named in ASCII.
    ///
    /// # Errors
    /// The outcome for every recipient in that domain, by the table in [the module](super).
    pub async fn exchanges(&self, domain: &str, own_name: &str) -> Result<Vec<Exchange>, Outcome> {
        if let Some(literal) = domain
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let address = address_literal(literal).ok_or_else(|| {
                let text = format!("{domain} is an address literal of an unknown kind");
                Outcome::failed(EnhancedCode::new(5, 1, 2), text)
            })?;
            let name = address.to_string();
            return Ok(vec![Exchange {
                name,
                preference: None,
            }]);
        }
        let domain = match domain::to_ascii(domain) {
            Ok(ascii) => &*ascii.into_owned(),
            Err(error) => {
                let code = EnhancedCode::new(5, 1, 2);
                return Err(Outcome::failed(code, error.to_string()));
            }
        };
        let mut found = match self.ask(domain, RecordType::MX).await {
            Answer::Records(records) => exchanges_in(records),
            // Use the domain itself, if it has an address (RFC 5321, 5.1).
            Answer::NoneOfThese => return self.domain_itself(domain).await,
            Answer::NoSuchName => return Err(no_such_domain(domain)),
            Answer::NotAName => return Err(not_a_domain(domain)),
            Answer::Trouble(text) => return Err(trouble(domain, "MX", &text)),
        };
        if found.is_empty() {
            return self.domain_itself(domain).await;
        }
        if found.iter().all(|exchange| exchange.name.is_empty()) {
            let text = format!("{domain} takes no mail (null MX)");
            return Err(Outcome::failed(EnhancedCode::new(5, 1, 10), text));
        }
        // A null MX together with others is a mistake; the others count.
        found.retain(|exchange| !exchange.name.is_empty());
        shuffle(&mut found);
        found.sort_by_key(|exchange| exchange.preference);
        // Use only exchanges better than this host, so that mail never goes back or sideways (RFC 5321,
        // 5.1).
        if let Some(own) = found
            .iter()
            .find(|exchange| is_same(&exchange.name, own_name))
        {
            let ours = own.preference;
            found.retain(|exchange| exchange.preference < ours);
            if found.is_empty() {
                let text = format!("mail for {domain} loops back to this host: it is its best MX");
                return Err(Outcome::failed(EnhancedCode::new(5, 4, 6), text));
            }
        }
        Ok(found)
    }

    async fn domain_itself(&self, domain: &str) -> Result<Vec<Exchange>, Outcome> {
        match self.all_addresses(domain).await {
            Answer::Records(_) => Ok(vec![Exchange {
                name: domain.trim_end_matches('.').to_owned(),
                preference: None,
            }]),
            Answer::NoneOfThese => {
                let text = format!("{domain} has neither MX nor address records");
                Err(Outcome::failed(EnhancedCode::new(5, 4, 4), text))
            }
            Answer::NoSuchName => Err(no_such_domain(domain)),
            Answer::NotAName => Err(not_a_domain(domain)),
            Answer::Trouble(text) => Err(trouble(domain, "address", &text)),
        }
    }

    /// The addresses of a host, alternating between the families.
    ///
    /// # Errors
    /// The outcome if there are none. It always defers: the host's name comes from the configuration, and is
    /// not a mistake of the recipient.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Outcome> {
        match self.look_up(name).await {
            Addresses::Found(addresses) => Ok(addresses),
            Addresses::None => {
                let text = format!("{name} has no address");
                Err(Outcome::deferred(EnhancedCode::new(4, 4, 4), text))
            }
            Addresses::Trouble(text) => Err(trouble(name, "address", &text)),
        }
    }

    /// The addresses of a host, alternating between the families; the address itself if the name is an
    /// address.
    pub(super) async fn look_up(&self, name: &str) -> Addresses {
        if let Ok(address) = name.parse() {
            return Addresses::Found(vec![address]);
        }
        match self.all_addresses(name).await {
            Answer::Records(addresses) => Addresses::Found(addresses),
            Answer::NoneOfThese | Answer::NoSuchName | Answer::NotAName => Addresses::None,
            Answer::Trouble(text) => Addresses::Trouble(text),
        }
    }

    async fn all_addresses(&self, name: &str) -> Answer<IpAddr> {
        let (v6, v4) = tokio::join!(
            self.ask(name, RecordType::AAAA),
            self.ask(name, RecordType::A)
        );
        let mut trouble = None;
        let mut absent = true;
        let mut of = |answer| match answer {
            Answer::Records(records) => addresses_in(records),
            Answer::NoneOfThese => {
                absent = false;
                Vec::new()
            }
            Answer::NoSuchName | Answer::NotAName => Vec::new(),
            Answer::Trouble(text) => {
                trouble = Some(text);
                Vec::new()
            }
        };
        let (mut v6, mut v4) = (of(v6), of(v4));
        shuffle(&mut v6);
        shuffle(&mut v4);
        let addresses = alternate(v6, v4);
        match (addresses.is_empty(), trouble) {
            (false, _) => Answer::Records(addresses),
            (true, Some(text)) => Answer::Trouble(text),
            (true, None) if absent => Answer::NoSuchName,
            (true, None) => Answer::NoneOfThese,
        }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Answer<RData> {
        let resolver = match self.inner() {
            Ok(resolver) => resolver,
            Err(text) => return Answer::Trouble(text),
        };
        // A final dot disables the search list. A name of one label is the administrator's own, and may
        // need it.
        let query = match name.trim_end_matches('.') {
            bare if bare.contains('.') => format!("{bare}."),
            label => label.to_owned(),
        };
        // The name is ASCII already: A-labels are passed unchanged, even meaningless ones.
        let Ok(query) = Name::from_ascii(query) else {
            return Answer::NotAName;
        };
        match resolver.lookup(query, kind).await {
            Ok(lookup) => {
                let records = lookup.answers().iter().map(|record| record.data.clone());
                Answer::Records(records.filter(|data| data.record_type() == kind).collect())
            }
            Err(error) if error.is_nx_domain() => Answer::NoSuchName,
            Err(error) if is_no_data(&error) => Answer::NoneOfThese,
            Err(error) => Answer::Trouble(error.to_string()),
        }
    }
}

/// The result of looking up a host.
pub(super) enum Addresses {
    Found(Vec<IpAddr>),
    /// The host does not exist, or has no address.
    None,
    Trouble(String),
}

/// The result of a query.
enum Answer<T> {
    Records(Vec<T>),
    /// The name exists, but has no such records.
    NoneOfThese,
    NoSuchName,
    /// DNS cannot be asked for this name.
    NotAName,
    Trouble(String),
}

/// Whether the name exists but has no such record. The resolver reports a server error as "no records" too,
/// so the response code is checked.
fn is_no_data(error: &NetError) -> bool {
    use hickory_resolver::net::DnsError;
    use hickory_resolver::proto::op::ResponseCode;
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError
    )
}

fn exchanges_in(records: Vec<RData>) -> Vec<Exchange> {
    let exchange = |data| match data {
        RData::MX(mx) => Some(Exchange {
            name: mx.exchange.to_ascii().trim_end_matches('.').to_lowercase(),
            preference: Some(mx.preference),
        }),
        _ => None,
    };
    records.into_iter().filter_map(exchange).collect()
}

fn addresses_in(records: Vec<RData>) -> Vec<IpAddr> {
    let address = |data| match data {
        RData::A(a) => Some(IpAddr::from(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.0)),
        _ => None,
    };
    records.into_iter().filter_map(address).collect()
}

fn no_such_domain(domain: &str) -> Outcome {
    let text = format!("the domain {domain} does not exist");
    Outcome::failed(EnhancedCode::new(5, 1, 2), text)
}

fn not_a_domain(domain: &str) -> Outcome {
    let text = format!("{domain} is not a domain name");
    Outcome::failed(EnhancedCode::new(5, 1, 2), text)
}

pub(super) fn trouble(name: &str, what: &str, text: &str) -> Outcome {
    let text = format!("{what} lookup of {name} failed: {text}");
    Outcome::deferred(EnhancedCode::new(4, 4, 3), text)
}

fn is_same(name: &str, other: &str) -> bool {
    domain::is_same(name.trim_end_matches('.'), other.trim_end_matches('.'))
}

/// Alternates between the lists: on a network without one of the families, this costs one try, not all of
/// them.
fn alternate(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let most = first.len().max(second.len());
    let pair = |n| [first.get(n), second.get(n)];
    (0..most).flat_map(pair).flatten().copied().collect()
}

fn shuffle<T>(all: &mut [T]) {
    if all.len() < 2 {
        return;
    }
    let mut random = uuid::Uuid::new_v4().as_u128();
    for at in (1..all.len()).rev() {
        let among = at as u128 + 1;
        all.swap(at, (random % among) as usize);
        random = (random / among).rotate_left(64) ^ random;
    }
}
