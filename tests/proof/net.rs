//! Simulated hosts with connections. Each domain is a host.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailspool::testing::message::{Address, EnhancedCode};
use mailspool::testing::queue::{Outcome, Pattern, Rule};
use mailspool::testing::transport::{
    BoxFuture, Hosts, Message, NextHost, OnUnknown, Session, Transport,
};

/// The domains that are hosts, with the transport for each.
const HOSTS: [(&str, &str); 7] = [
    ("far.test", "net"),
    ("busy.test", "net"),
    ("gone.test", "net"),
    ("dead.test", "net"),
    ("lost.test", "net"),
    ("held.test", "strict"),
    ("twin.test", "net"),
];

/// The hosts of `twin.test`, in their order.
const TWINS: [&str; 2] = ["one.twin.test", "two.twin.test"];

/// Returns the rules that route their mail to the transports `net` and `strict`.
pub fn rules() -> Vec<Rule> {
    let rule =
        |(domain, transport): (&str, &str)| Rule::new(Pattern::Domain(domain.into()), transport);
    HOSTS.map(rule).into()
}

type Take = dyn Fn(&Message, &Address) -> Outcome + Send + Sync;

/// A transport to the hosts. `far.test` takes everything. Until `is_over` returns true, `busy.test` takes nothing,
/// `dead.test` refuses connections, and the answers of `lost.test` and `held.test` are lost together with the
/// message. `gone.test` never takes anything. `twin.test` has two hosts: the first defers all recipients except
/// those that begin with `p`, the second takes everything.
#[derive(Clone)]
pub struct Net {
    take: Arc<Take>,
    is_over: Arc<dyn Fn() -> bool + Send + Sync>,
    on_unknown: OnUnknown,
    connections: usize,
    together: Option<usize>,
    is_reusable: bool,
    hosts: Arc<Mutex<HashMap<String, Host>>>,
}

/// The connections that a host has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Attempts to connect.
    pub tries: usize,
    /// Open connections.
    pub open: usize,
    /// The most open connections at once.
    pub most: usize,
}

impl Net {
    /// The default limit of connections to a host at once.
    pub const CONNECTIONS: usize = 2;

    /// Returns hosts that pass what they take to `take`, and fail until `is_over` returns true.
    pub fn new(
        take: impl Fn(&Message, &Address) -> Outcome + Send + Sync + 'static,
        is_over: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Net {
        Net {
            take: Arc::new(take),
            is_over: Arc::new(is_over),
            on_unknown: OnUnknown::Retry,
            connections: Net::CONNECTIONS,
            together: None,
            is_reusable: true,
            hosts: Arc::default(),
        }
    }

    /// Returns the same hosts for the transport `strict`, which freezes on a lost answer.
    pub fn strict(&self) -> Net {
        Net {
            on_unknown: OnUnknown::Freeze,
            ..self.clone()
        }
    }

    /// Returns the same hosts with a limit of connections each.
    #[allow(dead_code, reason = "some tests do not call it")]
    pub fn taking(self, connections: usize) -> Net {
        Net {
            connections,
            ..self
        }
    }

    /// Returns the same hosts with a limit of transactions per transport.
    #[allow(dead_code, reason = "some tests do not call it")]
    pub fn together(self, together: Option<usize>) -> Net {
        Net { together, ..self }
    }

    /// Returns the same hosts with one message per connection, because kept connections are closed by the real
    /// clock.
    #[allow(dead_code, reason = "some tests do not call it")]
    pub fn once(self) -> Net {
        Net {
            is_reusable: false,
            ..self
        }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connections that a host has had.
    #[allow(dead_code, reason = "some tests do not call it")]
    pub fn host(&self, domain: &str) -> Host {
        self.hosts().get(domain).copied().unwrap_or_default()
    }
}

impl Transport for Net {
    fn next_hop(&self, recipient: &Address) -> String {
        recipient.domain().unwrap_or_default().to_owned()
    }

    fn deadline(&self, _: u64) -> Option<Duration> {
        None
    }

    /// A low limit, so that one message needs several transactions with one host.
    fn max_recipients(&self) -> usize {
        2
    }

    fn connections(&self) -> Option<usize> {
        Some(self.connections)
    }

    fn concurrency(&self) -> Option<usize> {
        self.together
    }

    fn on_unknown(&self) -> OnUnknown {
        self.on_unknown
    }

    fn hosts_for(&self, next_hop: &str) -> Option<Box<dyn Hosts>> {
        (next_hop == "twin.test").then(|| {
            let left = TWINS.to_vec().into();
            let net = self.clone();
            Box::new(Twins { net, left }) as Box<dyn Hosts>
        })
    }

    fn connect<'a>(
        &'a self,
        next_hop: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        Box::pin(async move {
            let is_over = (self.is_over)();
            let mut hosts = self.hosts();
            let host = hosts.entry(next_hop.to_owned()).or_default();
            host.tries += 1;
            if next_hop == "dead.test" && !is_over {
                return Err(Outcome::deferred(EnhancedCode::new(4, 4, 1), "timed out"));
            }
            host.open += 1;
            host.most = host.most.max(host.open);
            let line: Box<dyn Session> = Box::new(Line {
                net: self.clone(),
                host: next_hop.to_owned(),
            });
            Ok(line)
        })
    }
}

/// The remaining hosts of `twin.test`.
struct Twins {
    net: Net,
    left: VecDeque<&'static str>,
}

impl Hosts for Twins {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Box<dyn NextHost>, Outcome>>> {
        let net = self.net.clone();
        let twin = self.left.pop_front().map(|name| Twin { net, name });
        let twin = twin.map(|twin| Ok(Box::new(twin) as Box<dyn NextHost>));
        Box::pin(std::future::ready(twin))
    }
}

struct Twin {
    net: Net,
    name: &'static str,
}

impl NextHost for Twin {
    fn key(&self) -> &str {
        self.name
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Outcome>> {
        self.net.connect(self.name)
    }
}

/// A connection.
struct Line {
    net: Net,
    host: String,
}

impl Session for Line {
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let is_over = (self.net.is_over)();
            let outcome = |to: &Address| match self.host.as_str() {
                "gone.test" => Outcome::failed(EnhancedCode::new(5, 1, 1), "no such user"),
                "busy.test" if !is_over => Outcome::deferred(EnhancedCode::new(4, 2, 1), "not now"),
                "one.twin.test" if !to.as_str().starts_with('p') => {
                    Outcome::deferred(EnhancedCode::new(4, 7, 1), "come back later")
                }
                "lost.test" | "held.test" if !is_over => Outcome::unknown("hung up"),
                _ => (self.net.take)(message, to),
            };
            recipients.iter().map(outcome).collect()
        })
    }

    fn is_reusable(&self) -> bool {
        self.net.is_reusable
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(host) = self.net.hosts().get_mut(&self.host) {
            host.open -= 1;
        }
    }
}
