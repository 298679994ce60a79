//! The runner as an embedding program sees it.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::error::refuse_inside_runtime;
use super::{Error, ErrorKind, Spool, Submission};
use crate::message::{AddressError, QueueId, domain};
use crate::notice::NoticeBuilder;
use crate::operator::Row;
use crate::queue::{DelayAges, Pattern, RetryPolicy, Routes, Rule, Schedule, Schedules};
use crate::runner as inner;
use crate::runner::{Budget, MessageOutcome, Stop, Summary};
use crate::transport::Transport;

/// Delivers what is due in a spool. Any number of runners may work on one spool at once, in one process or in
/// several; the lock on a message decides which of them has it. Clones share everything.
///
/// ```
/// use mailspool::{Outcome, Runner, Spool, Submission, transports};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("spool");
/// let spool = Spool::open_or_create(&path)?.hostname("app.example.org")?;
/// spool.submit(Submission::new("me@example.org", ["you@example.net"])?, &b"Subject: hello\n\nHello!\n"[..])?;
/// let runner = Runner::builder(&spool)
///     .transport("app", transports::from_fn(|message, recipients| {
///         println!("{} for {recipients:?}", message.id);
///         vec![Outcome::delivered("shown"); recipients.len()]
///     }))
///     .build()?;
/// let summary = runner.run_once()?;
/// assert_eq!(summary.delivered, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Runner {
    spool: Spool,
    inner: inner::Runner,
}

/// Configures a [`Runner`].
#[must_use]
pub struct RunnerBuilder {
    spool: Spool,
    inner: inner::RunnerBuilder,
    transports: Vec<String>,
    routes: Vec<Rule>,
    budget: Budget,
}

impl Runner {
    /// Starts to configure a runner: 20 transactions at once, the default retry schedule, notices in English.
    pub fn builder(spool: &Spool) -> RunnerBuilder {
        RunnerBuilder {
            inner: inner::Runner::builder(spool.inner.clone(), spool.hostname.clone()),
            spool: spool.clone(),
            transports: Vec::new(),
            routes: Vec::new(),
            budget: Budget::default(),
        }
    }

    /// Attempts everything that is due, and returns when that is done.
    ///
    /// # Errors
    /// [`ErrorKind::InsideRuntime`], or why the run stopped early. What was done by then stays done.
    pub fn run_once(&self) -> Result<Summary, Error> {
        refuse_inside_runtime("run_once_async")?;
        Ok(self.inner.pass()?)
    }

    /// As [`run_once`](Runner::run_once), for any asynchronous runtime. The work is done in threads of its own.
    /// If the future is dropped, no further message is taken, and what is under way is finished.
    ///
    /// # Errors
    /// Why the run stopped early.
    pub async fn run_once_async(&self) -> Result<Summary, Error> {
        self.in_thread(|runner| runner.pass()).await
    }

    /// Works until it is stopped: attempts what is due, and wakes when a message comes in or becomes due.
    ///
    /// # Errors
    /// As [`run_once`](Runner::run_once).
    pub fn watch(&self) -> Result<Summary, Error> {
        refuse_inside_runtime("watch_async")?;
        Ok(self.inner.watch()?)
    }

    /// As [`watch`](Runner::watch), for any asynchronous runtime. If the future is dropped, the runner stops.
    ///
    /// # Errors
    /// Why the run stopped early.
    pub async fn watch_async(&self) -> Result<Summary, Error> {
        self.in_thread(|runner| runner.watch()).await
    }

    /// Attempts one message now, if it is due and no other process has it in hand. Returns what the queue says
    /// about it then; `None` if it has left the queue, because it was delivered, or its sender notified.
    ///
    /// # Errors
    /// As [`run_once`](Runner::run_once).
    pub fn attempt(&self, id: QueueId) -> Result<Option<Row>, Error> {
        refuse_inside_runtime("run_once_async")?;
        match self.inner.attempt(id)? {
            MessageOutcome::Finished | MessageOutcome::Absent => Ok(None),
            MessageOutcome::Trouble(why) => Err(Error::new(ErrorKind::Io, format!("{id}: {why}"))),
            MessageOutcome::Busy
            | MessageOutcome::Left
            | MessageOutcome::Resting(_)
            | MessageOutcome::Corrupt(_) => self.spool.message(id),
        }
    }

    /// Accepts a message and attempts it at once. Returns its id, and the result of [`attempt`](Runner::attempt):
    /// what the queue says about it, or why it could not be attempted. The message is durable in either case, and
    /// later runs attempt it.
    ///
    /// # Errors
    /// As [`Spool::submit`]. Nothing has been accepted then.
    #[allow(clippy::type_complexity)] // An error of the attempt must not look like one of the acceptance.
    pub fn submit(
        &self,
        submission: Submission,
        message: impl Read,
    ) -> Result<(QueueId, Result<Option<Row>, Error>), Error> {
        refuse_inside_runtime("Spool::submit and then run_once_async")?;
        let id = self.spool.submit(submission, message)?;
        Ok((id, self.attempt(id)))
    }

    /// Returns the handle that stops this runner.
    pub fn stop_handle(&self) -> Stop {
        self.inner.stop_handle()
    }

    fn in_thread(
        &self,
        work: impl FnOnce(&inner::Runner) -> Result<Summary, inner::Error> + Send + 'static,
    ) -> impl Future<Output = Result<Summary, Error>> + Send {
        /// Stops a run that nothing waits for any more.
        struct StopOnDrop(Option<Stop>);
        impl Drop for StopOnDrop {
            fn drop(&mut self) {
                if let Some(stop) = self.0.take() {
                    stop.stop();
                }
            }
        }
        let runner = self.inner.clone();
        async move {
            let mut guard = StopOnDrop(Some(runner.stop_handle()));
            let (send, receive) = oneshot::channel();
            let run = move || {
                let _ = send.send(work(&runner));
            };
            let thread = std::thread::Builder::new()
                .name("mailspool".to_owned())
                .spawn(run);
            thread.map_err(|error| Error::new(ErrorKind::Io, error))?;
            let result = receive.await;
            guard.0 = None;
            match result {
                Ok(result) => Ok(result?),
                Err(_) => Err(Error::new(ErrorKind::Io, "the thread of the run panicked")),
            }
        }
    }
}

impl RunnerBuilder {
    /// Adds a transport under a name. If it is the only one and no routes are set, all mail goes by it.
    pub fn transport(
        mut self,
        name: impl Into<String>,
        transport: impl Transport + 'static,
    ) -> RunnerBuilder {
        let name = name.into();
        self.transports.push(name.clone());
        self.inner = self.inner.shared_transport(name, Arc::new(transport));
        self
    }

    /// Routes recipients to a transport. `recipients` is `*`, a domain, `.domain` for its subdomains, or an
    /// address. The first route that matches decides, at each attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if it is none of these.
    pub fn route(
        mut self,
        recipients: &str,
        transport: impl Into<String>,
    ) -> Result<RunnerBuilder, Error> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Misconfigured,
                format!("route {recipients:?}: {error}"),
            )
        };
        let domain = |name: &str| match domain::check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(_) => Err(wrong(&"it is no domain")),
        };
        let pattern = match recipients.strip_prefix('.') {
            _ if recipients == "*" => Pattern::Any,
            Some(above) => Pattern::Subdomains(domain(above)?),
            None if recipients.contains('@') => Pattern::Mailbox(
                recipients
                    .parse()
                    .map_err(|error: AddressError| wrong(&error))?,
            ),
            None => Pattern::Domain(domain(recipients)?),
        };
        self.routes.push(Rule::new(pattern, transport));
        Ok(self)
    }

    /// Sets when attempts are made again, and when they end.
    pub fn retry(mut self, policy: impl RetryPolicy + 'static) -> RunnerBuilder {
        self.inner = self.inner.retry(policy);
        self
    }

    /// Sets the delays between attempts, of at least a minute each, and the lifetime of a message. The last
    /// delay is repeated.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if there is no delay, or one is shorter than a minute.
    pub fn retry_after(
        self,
        delays: impl IntoIterator<Item = SignedDuration>,
        lifetime: SignedDuration,
    ) -> Result<RunnerBuilder, Error> {
        let schedule = Schedule::of_delays(delays.into_iter().collect(), lifetime);
        let schedule = schedule.map_err(|error| Error::new(ErrorKind::Misconfigured, error))?;
        Ok(self.retry(Schedules::new(schedule)))
    }

    /// Sets the ages of a message at which its sender is notified of a delay; 4 hours by default. None: never.
    pub fn delay_notices(
        mut self,
        ages: impl IntoIterator<Item = SignedDuration>,
    ) -> RunnerBuilder {
        self.inner = self.inner.delays(DelayAges::new(ages));
        self
    }

    /// Sets what writes notices.
    pub fn notices(mut self, builder: impl NoticeBuilder + 'static) -> RunnerBuilder {
        self.inner = self.inner.notices(builder);
        self
    }

    /// Sets how long a message is kept, frozen, that failed and has no sender to notify; 14 days by default.
    /// `None`: until an operator acts.
    pub fn frozen_lifetime(mut self, lifetime: Option<SignedDuration>) -> RunnerBuilder {
        self.inner = self.inner.frozen_lifetime(lifetime);
        self
    }

    /// Sets the most transactions at once; 20 by default. There are fewer if the limit of descriptors is low.
    pub fn jobs(mut self, most: usize) -> RunnerBuilder {
        self.budget.jobs = most.max(1);
        self
    }

    /// Sets the most messages of a run, and how long after its beginning a run takes no further message.
    pub fn limits(mut self, messages: Option<u64>, time: Option<Duration>) -> RunnerBuilder {
        self.budget.max_messages = messages;
        self.budget.max_time = time;
        self
    }

    /// Sets the most threads that may wait for the file system, or in a function of
    /// [`from_fn`](crate::transports::from_fn), at once. With one, a delivery that hangs holds up all others.
    pub fn threads(mut self, most: usize) -> RunnerBuilder {
        self.inner = self.inner.threads(most);
        self
    }

    /// Sets the clock, for tests of what happens in days.
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> RunnerBuilder {
        self.inner = self.inner.clock(clock);
        self
    }

    /// Returns the runner.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if there are several transports and no route, or a route names a transport
    /// that does not exist.
    pub fn build(self) -> Result<Runner, Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Misconfigured, text));
        let routes = match (self.routes, &self.transports[..]) {
            (routes, _) if !routes.is_empty() => Routes(routes),
            (_, []) => Routes::default(),
            (_, [only]) => Routes::all_by(only.as_str()),
            _ => return wrong("there are several transports: routes must choose one".to_owned()),
        };
        let unknown = routes
            .0
            .iter()
            .find(|rule| !self.transports.contains(&rule.transport));
        if let Some(rule) = unknown {
            return wrong(format!(
                "a route names the transport {:?}, which does not exist",
                rule.transport
            ));
        }
        Ok(Runner {
            inner: self.inner.routes(routes).budget(self.budget).build(),
            spool: self.spool,
        })
    }
}
