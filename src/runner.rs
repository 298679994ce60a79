//! The runner: takes due messages, attempts them, and moves each message to the queue where it belongs.
//!
//! Any number of runners work on a spool side by side, in one process or many, on one host or many. They
//! need not know of each other: the lock on a message file decides which runner has the message, and no
//! runner waits for that lock. A runner that is killed leaves nothing locked, and the next runner finishes
//! whatever is half done.
//!
//! Each job is a future. It does its work in the spool on the thread where it runs; there are several such
//! threads. [`Step`](crate::queue::Step) decides, this module carries out.

mod attempt;
mod chunks;
mod connections;
mod drive;
mod finisher;
mod group;
mod jobs;
mod lanes;
mod plan;
mod postpone;
mod reach;
mod record;
mod round;
mod scan;
mod sessions;
mod steps;
mod summary;
mod threads;
mod transact;
mod transport_slots;
mod trouble;
mod unrecorded;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::message::QueueId;
use crate::notice::{DsnBuilder, NoticeBuilder};
use crate::queue::{DelayAges, RetryPolicy, Routes, Schedules, history};
use crate::spool::layout::{ATTEMPT_SLOT, RESIDENT_SLOT};
use crate::spool::{Doubt, Located, Slot, Spool};
use crate::transport::Transport;

pub use steps::MessageOutcome;
pub use summary::Summary;
#[cfg(feature = "cli")]
pub(crate) use threads::runtime;

/// Works on a spool. Cloning is cheap and shares everything. A runner is configured by its
/// [builder](RunnerBuilder) and cannot be changed afterwards:
///
/// ```compile_fail
/// # fn example(runner: mailspool::testing::runner::Runner) {
/// let smaller = runner.clone().budget(mailspool::testing::runner::Budget::default());
/// # }
/// ```
#[derive(Clone)]
pub struct Runner {
    core: Arc<Core>,
}

/// Limits for a run.
#[derive(Clone, Debug)]
pub struct Budget {
    /// The most transactions in flight at once. This also bounds the messages in progress, the connections
    /// and the commands. If descriptors are scarce, the limit is lower.
    pub jobs: usize,
    /// The most messages in the whole run.
    pub max_messages: Option<u64>,
    /// After this time the run takes no further message and begins no further transaction; those under way
    /// are finished.
    pub max_time: Option<Duration>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            jobs: 20,
            max_messages: None,
            max_time: None,
        }
    }
}

/// Why a run stopped early. No message is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file-system call on the spool itself failed.
    #[error(transparent)]
    Disk(#[from] crate::disk::Error),
    /// No message was intact, and `corrupt/` already has ten, so the fault lies with the spool and not with
    /// the messages. This many messages stay where they are.
    #[error(
        "no message is intact, and {0} that look corrupt stay where they are; \
         is the disk failing? (`mailspool check`)"
    )]
    TooManyCorrupt(usize),
    /// Message after message could not be worked on, and a test write to the spool failed too.
    #[error("stopped: nothing can be worked on; last: {0}")]
    TooMuchTrouble(String),
    /// An outcome could not be recorded. Continuing would deliver mail without a record.
    #[error("stopped: the outcome for {id} could not be recorded: {why}")]
    NotRecorded {
        /// The message; it is frozen.
        id: QueueId,
        /// The error.
        why: String,
    },
    /// The system refused a thread or an event queue.
    #[error("starting the runtime: {0}")]
    Runtime(#[source] std::io::Error),
}

type Observer = dyn Fn(Progress) + Send + Sync;

/// What an observer is told. It may be called from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many more messages are to be examined.
    Found(u64),
    /// One of them has been examined.
    Handled,
}

struct Core {
    spool: Spool,
    transports: HashMap<String, Arc<dyn Transport>>,
    routes: Routes,
    retry: Arc<dyn RetryPolicy>,
    delays: DelayAges,
    frozen_lifetime: Option<SignedDuration>,
    notices: Arc<dyn NoticeBuilder>,
    budget: Budget,
    threads: Option<usize>,
    observer: Option<Arc<Observer>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    stop: Stop,
    connections: Arc<connections::Connections>,
    transport_slots: Arc<transport_slots::TransportSlots>,
    sessions: sessions::Sessions,
    troubles: trouble::Troubles,
    fatal: Mutex<Option<Error>>,
}

/// Tells a runner to take no further message, to finish the transactions under way, and to return.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    stopped: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Stop {
    /// Stops the runner. May be called from any thread, any number of times.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        self.notify.notify_waiters();
        self.notify.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

impl Runner {
    /// How long failed mail that cannot be returned to a sender is kept frozen by default: 14 days. It is
    /// then discarded.
    pub const FROZEN_LIFETIME: SignedDuration = SignedDuration::from_hours(14 * 24);

    /// Begins a runner for a spool, under the name `hostname`, with no transports, no routes, the default
    /// schedules and bounces in English.
    pub fn builder(spool: Spool, hostname: impl Into<String>) -> RunnerBuilder {
        RunnerBuilder::new(spool, hostname.into())
    }

    /// Returns the handle that stops this runner.
    pub fn stop_handle(&self) -> Stop {
        self.core.stop.clone()
    }

    /// Makes one pass: serves requests, finishes `new/` and `done/`, and attempts everything that is due.
    /// Blocks until that is done; do not call it on a thread of an async runtime.
    ///
    /// # Errors
    /// See [`Error`]. Whatever was done before the error stays done.
    pub fn pass(&self) -> Result<Summary, Error> {
        self.drive(drive::Mode::Once).map(|(summary, _)| summary)
    }

    /// Makes passes as long as they find something new, in one of `slots` slots that all processes share.
    /// If all are taken, it returns at once.
    ///
    /// A process that has just queued a message or made one due can therefore rely on this call: every
    /// process that held a slot at that moment scans again after releasing it.
    pub fn pass_in_slot(&self, slots: usize) -> Result<Option<Summary>, Error> {
        let mut total: Option<Summary> = None;
        loop {
            let Some(slot) = self.core.spool.take_slot(ATTEMPT_SLOT, slots)? else {
                return Ok(total);
            };
            let (summary, seen) = self.drive(drive::Mode::InSlot)?;
            total.get_or_insert_default().add(&summary);
            drop(slot);
            if self.core.is_stopped() || !self.core.anything_besides(&seen) {
                return Ok(total);
            }
        }
    }

    /// Attempts one message now, if it is due and no other process has it locked.
    pub fn attempt(&self, id: QueueId) -> Result<MessageOutcome, Error> {
        match self.core.spool.locate(id)? {
            Located::At(queue) => self.attempt_at(id, queue),
            Located::Absent => Ok(MessageOutcome::Absent),
            Located::Uncertain(Doubt::Moving) => Ok(MessageOutcome::Busy),
            Located::Uncertain(Doubt::Unread(error)) => {
                Ok(MessageOutcome::Trouble(error.to_string()))
            }
        }
    }

    /// Keeps working in this process until it is stopped. It wakes when a message or request arrives, when
    /// a message is due, and at intervals in case a wake-up was missed.
    pub fn watch(&self) -> Result<Summary, Error> {
        self.drive(drive::Mode::Watch).map(|(summary, _)| summary)
    }
}

/// Configures a [`Runner`]. A built runner cannot be changed, so that no change can be lost on a clone.
pub struct RunnerBuilder {
    core: Core,
}

impl RunnerBuilder {
    fn new(spool: Spool, hostname: String) -> RunnerBuilder {
        RunnerBuilder {
            core: Core {
                spool,
                notices: Arc::new(DsnBuilder::new(hostname)),
                transports: HashMap::new(),
                routes: Routes::default(),
                retry: Arc::new(Schedules::default()),
                delays: DelayAges::default(),
                frozen_lifetime: Some(Runner::FROZEN_LIFETIME),
                budget: Budget::default(),
                threads: None,
                observer: None,
                clock: Arc::new(Timestamp::now),
                stop: Stop::default(),
                connections: Arc::default(),
                transport_slots: Arc::default(),
                sessions: sessions::Sessions::default(),
                troubles: trouble::Troubles::default(),
                fatal: Mutex::new(None),
            },
        }
    }

    /// Adds a transport under a name.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn transport(
        self,
        name: impl Into<String>,
        transport: impl Transport + 'static,
    ) -> RunnerBuilder {
        self.shared_transport(name, Arc::new(transport))
    }

    /// Adds a transport that is already shared.
    #[must_use]
    pub fn shared_transport(
        mut self,
        name: impl Into<String>,
        transport: Arc<dyn Transport>,
    ) -> RunnerBuilder {
        let name = name.into();
        self.core.transports.insert(name, transport);
        self
    }

    /// Sets which recipient gets which transport.
    #[must_use]
    pub fn routes(mut self, routes: Routes) -> RunnerBuilder {
        self.core.routes = routes;
        self
    }

    /// Sets when messages are tried again.
    #[must_use]
    pub fn retry(mut self, policy: impl RetryPolicy + 'static) -> RunnerBuilder {
        self.core.retry = Arc::new(policy);
        self
    }

    /// Sets at which ages of a message its sender is sent a delay notice.
    #[must_use]
    pub fn delays(mut self, ages: DelayAges) -> RunnerBuilder {
        self.core.delays = ages;
        self
    }

    /// Sets how long failed mail that cannot be returned to a sender is kept frozen before it is discarded.
    /// With `None` it is kept until an operator acts. A message that an operator froze, or that is frozen
    /// because it may have been delivered or may be harmful, is never discarded.
    #[must_use]
    pub fn frozen_lifetime(mut self, lifetime: Option<SignedDuration>) -> RunnerBuilder {
        self.core.frozen_lifetime = lifetime;
        self
    }

    /// Sets what builds the text of notices.
    #[must_use]
    pub fn notices(mut self, builder: impl NoticeBuilder + 'static) -> RunnerBuilder {
        self.core.notices = Arc::new(builder);
        self
    }

    /// Sets the limits of a run.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> RunnerBuilder {
        self.core.budget = budget;
        self
    }

    /// Sets the most threads that may wait for the file system, or for a [`from_fn`], at once. With one
    /// thread, all blocking work runs one after the other, always in the same order; a delivery that hangs
    /// then holds up everything.
    ///
    /// [`from_fn`]: crate::transport::from_fn
    #[must_use]
    pub fn threads(mut self, most: usize) -> RunnerBuilder {
        self.core.threads = Some(most.max(1));
        self
    }

    /// Sets a function that is told of the progress.
    #[must_use]
    pub fn observer(
        mut self,
        observer: impl Fn(Progress) + Send + Sync + 'static,
    ) -> RunnerBuilder {
        self.core.observer = Some(Arc::new(observer));
        self
    }

    /// Sets the clock, for tests that span days.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> RunnerBuilder {
        self.core.clock = Arc::new(clock);
        self
    }

    /// Builds the runner as configured.
    pub fn build(self) -> Runner {
        Runner {
            core: Arc::new(self.core),
        }
    }
}

/// Whether a slot for a background attempt is free at this moment. If none is free, a background attempt
/// need not be started: see [`Runner::pass_in_slot`].
pub fn slot_is_free(spool: &Spool, slots: usize) -> crate::disk::Result<bool> {
    Ok(spool.take_slot(ATTEMPT_SLOT, slots)?.is_some())
}

/// Takes the slot of the resident process, which stays and delivers what arrives. It exists where each process
/// that ended would leave a zombie. `None` if another process has the slot.
pub fn take_residence(spool: &Spool) -> crate::disk::Result<Option<Slot>> {
    spool.take_slot(RESIDENT_SLOT, 1)
}

/// Whether a resident process delivers what arrives. It finds everything that was queued before this call.
pub fn has_resident(spool: &Spool) -> crate::disk::Result<bool> {
    spool.slot_is_taken(RESIDENT_SLOT)
}

impl Core {
    /// The most jobs, and the most idle sessions that are kept.
    fn most_jobs(&self) -> usize {
        jobs::affordable(self.budget.jobs)
    }

    /// The current time, in the precision that histories have.
    fn now(&self) -> Timestamp {
        history::written((self.clock)())
    }

    fn observe(&self, progress: Progress) {
        if let Some(observer) = &self.observer {
            observer(progress);
        }
    }

    /// Stops this run because of an error. The first error is kept, except that `NotRecorded` replaces any
    /// other, because it leaves a message frozen until an operator acts.
    fn fail(&self, error: Error) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        let wants = |error: &Error| matches!(error, Error::NotRecorded { .. });
        match &*fatal {
            Some(before) if wants(before) || !wants(&error) => {}
            _ => *fatal = Some(error),
        }
        drop(fatal);
        self.stop.wake();
    }

    /// Whether this run is to stop, because it was told to or because of an error.
    fn is_stopped(&self) -> bool {
        let fatal = || self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.is_stopped() || fatal().is_some()
    }
}
