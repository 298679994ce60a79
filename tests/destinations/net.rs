//! A network of hosts that count: each domain is a host and accepts three connections at once. Domains with
//! names that begin with `shared` have one common host, `one.test`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mailspool::testing::message::{Address, EnhancedCode};
use mailspool::testing::queue::Outcome;
use mailspool::testing::transport::{
    BoxFuture, Hosts, Message, NextHost, OnUnknown, Session, Transport,
};

/// The duration of a connect and of a message, long enough for others to begin meanwhile.
const DELAY: Duration = Duration::from_millis(5);

#[derive(Clone, Default)]
pub struct Net {
    hosts: Arc<Mutex<HashMap<String, Host>>>,
    on_unknown: OnUnknown,
    /// The most recipients per transaction; `None` means any number.
    most_recipients: Option<usize>,
    at_work: Arc<AtWork>,
}

/// Connects and deliveries under way, over all hosts.
#[derive(Default)]
struct AtWork {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Working(Arc<AtWork>);

impl AtWork {
    fn begin(self: &Arc<AtWork>) -> Working {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        Working(Arc::clone(self))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

#[derive(Clone, Default)]
pub struct Host {
    dead: bool,
    /// The host holds back every reply until this is false.
    hangs: bool,
    loses_answers: bool,
    pub connects: usize,
    /// Connects begun before the first was answered.
    pub at_first: usize,
    open: usize,
    /// The most open connections at once.
    pub most: usize,
    pub delivered: usize,
}

impl Net {
    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap()
    }

    fn change(&self, domain: &str, change: impl FnOnce(&mut Host)) {
        change(self.hosts().entry(domain.to_owned()).or_default());
    }

    pub fn host(&self, domain: &str) -> Host {
        self.hosts().get(domain).cloned().unwrap_or_default()
    }

    pub fn kill(&self, domain: &str) {
        self.change(domain, |host| host.dead = true);
    }

    pub fn revive(&self, domain: &str) {
        self.change(domain, |host| host.dead = false);
    }

    pub fn hang(&self, domain: &str, hangs: bool) {
        self.change(domain, |host| host.hangs = hangs);
    }

    pub fn lose_answers(&self, domain: &str) {
        self.change(domain, |host| host.loses_answers = true);
    }

    /// The most connects and deliveries under way at once.
    pub fn most_at_work(&self) -> usize {
        self.at_work.most.load(SeqCst)
    }

    pub fn connects(&self, domain: &str) -> usize {
        self.host(domain).connects
    }

    pub fn delivered(&self, domain: &str) -> usize {
        self.host(domain).delivered
    }

    pub fn most_recipients(mut self, most: usize) -> Net {
        self.most_recipients = Some(most);
        self
    }

    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> Net {
        self.on_unknown = on_unknown;
        self
    }
}

impl Transport for Net {
    fn next_hop(&self, recipient: &Address) -> String {
        recipient.domain().unwrap_or_default().to_owned()
    }

    fn deadline(&self, _size: u64) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    fn max_recipients(&self) -> usize {
        self.most_recipients.unwrap_or(usize::MAX)
    }

    fn connections(&self) -> Option<usize> {
        Some(3)
    }

    fn on_unknown(&self) -> OnUnknown {
        self.on_unknown
    }

    fn hosts_for(&self, next_hop: &str) -> Option<Box<dyn Hosts>> {
        let net = self.clone();
        let shared = next_hop.starts_with("shared");
        shared.then(|| Box::new(Shared(Some(net))) as Box<dyn Hosts>)
    }

    fn connect<'a>(
        &'a self,
        next_hop: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        Box::pin(async move {
            let _working = self.at_work.begin();
            self.change(next_hop, |host| {
                host.at_first += usize::from(host.most == 0);
                host.connects += 1;
            });
            tokio::time::sleep(DELAY).await;
            while self.host(next_hop).hangs {
                tokio::time::sleep(DELAY).await;
            }
            if self.host(next_hop).dead {
                let code = EnhancedCode::new(4, 4, 1);
                return Err(Outcome::deferred(code, "timed out"));
            }
            self.change(next_hop, |host| {
                host.open += 1;
                host.most = host.most.max(host.open);
            });
            Ok(Box::new(Line {
                net: self.clone(),
                to: next_hop.to_owned(),
            }) as Box<dyn Session>)
        })
    }
}

/// The common host of many domains, until it was returned.
struct Shared(Option<Net>);

impl Hosts for Shared {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Box<dyn NextHost>, Outcome>>> {
        let host = self
            .0
            .take()
            .map(|net| Ok(Box::new(One(net)) as Box<dyn NextHost>));
        Box::pin(std::future::ready(host))
    }
}

struct One(Net);

impl NextHost for One {
    fn key(&self) -> &str {
        "one.test"
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Outcome>> {
        self.0.connect("one.test")
    }
}

struct Line {
    net: Net,
    to: String,
}

impl Session for Line {
    fn deliver<'a>(
        &'a mut self,
        _message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let _working = self.net.at_work.begin();
            tokio::time::sleep(DELAY).await;
            let lost = self.net.host(&self.to).loses_answers;
            if lost {
                return vec![Outcome::unknown("hung up"); recipients.len()];
            }
            self.net
                .change(&self.to, |host| host.delivered += recipients.len());
            vec![Outcome::delivered("taken"); recipients.len()]
        })
    }

    fn is_reusable(&self) -> bool {
        true
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.net.change(&self.to, |host| host.open -= 1);
    }
}
