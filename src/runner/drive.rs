//! Drives a pass, or passes without end: scans, assigns candidates to jobs, collects results.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::attempt::MessageReport;
use super::finisher::{self, Finisher};
use super::jobs::{Job, Jobs, Wanted};
use super::lanes::{Candidate, Lanes, WaitReason};
use super::scan::Batch;
use super::{Core, Error, MessageOutcome, Progress, Runner, Summary};
use crate::message::QueueId;
use crate::spool::{Destination, Queue};

/// How long after a scan a run in a slot scans again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until everything that is due has been examined once.
    Once,
    /// The same; the run also remembers every message that it worked on.
    InSlot,
    /// Until stopped.
    Watch,
}

/// A run under way.
struct Drive {
    core: Arc<Core>,
    lanes: Lanes,
    jobs: Arc<Jobs>,
    tasks: JoinSet<(QueueId, MessageReport)>,
    scan: Option<Scan>,
    finisher: Finisher,
    /// Sessions that are being closed.
    closing: JoinSet<()>,
    mode: Mode,
    summary: Summary,
    /// Messages that this run worked on and that may still be in the same queue. Only a run in a slot needs
    /// this.
    seen: Option<HashSet<QueueId>>,
    /// When a run in a slot scans again while it still has jobs: a new message must not wait for a delivery
    /// that hangs.
    next_look: Option<Instant>,
}

/// A scan under way on a separate thread.
struct Scan {
    batches: UnboundedReceiver<Batch>,
    task: JoinHandle<()>,
}

/// What a run waits for.
enum RunEvent {
    Batch(Batch),
    ScanEnded,
    Reported(QueueId, Box<MessageReport>),
    Wake,
    /// Sessions have been idle for too long.
    Idle,
    Nothing,
}

impl Runner {
    pub(super) fn drive(&self, mode: Mode) -> Result<(Summary, HashSet<QueueId>), Error> {
        self.core.work(Drive::run(Arc::clone(&self.core), mode))?
    }

    pub(super) fn attempt_at(&self, id: QueueId, queue: Queue) -> Result<MessageOutcome, Error> {
        let core = Arc::clone(&self.core);
        let settled = self.core.work(async move {
            core.forget_looks();
            let (finisher, forgetting) = finisher::start(Arc::clone(&core));
            let job = core.jobs().take(Destination {
                transport: String::new(),
                next_hop: String::new(),
            });
            let report = Arc::clone(&core)
                .handle_caught(Candidate { id, queue }, finisher, job)
                .await;
            core.sessions.close().await;
            let _ = forgetting.await;
            report.settled
        })?;
        self.core.verdict().map(|()| settled)
    }
}

impl Core {
    /// Handles one candidate from beginning to end, and survives a panic.
    async fn handle_caught(
        self: Arc<Self>,
        candidate: Candidate,
        finisher: Finisher,
        job: Job,
    ) -> MessageReport {
        let core = Arc::clone(&self);
        let work = AssertUnwindSafe(self.handle(candidate, finisher, job));
        let report = work.catch_unwind().await;
        report.unwrap_or_else(|_| core.panicked(candidate.id))
    }

    /// Takes the error that stopped the run, if the run may continue once its cause is gone. It may not if
    /// an outcome could not be recorded.
    fn recoverable(&self) -> Option<Error> {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.take_if(|error| !matches!(error, Error::NotRecorded { .. }))
    }

    /// Forgets what the previous run saw, except for connections that are still open.
    fn forget_looks(&self) {
        self.connections.begin();
        self.transport_slots.begin();
    }

    /// The jobs of a run that begins now.
    fn jobs(&self) -> Arc<Jobs> {
        let deadline = self.budget.max_time.map(|time| Instant::now() + time);
        Jobs::new(self.budget.jobs, deadline)
    }

    /// Whether it is unknown if a destination answers.
    pub(super) fn is_strange(&self, destination: &Destination) -> bool {
        let transport = self.transports.get(&destination.transport);
        transport.is_some_and(|transport| transport.connections().is_some())
            && !self.connections.answers(destination)
    }

    /// Whether one more message may be taken for a destination, as far as is known without asking the
    /// spool.
    fn has_room(&self, destination: &Destination, jobs: &Jobs, now: jiff::Timestamp) -> bool {
        let Some(transport) = self.transports.get(&destination.transport) else {
            return true;
        };
        let (most_slots, connections) = (transport.concurrency(), transport.connections());
        most_slots.is_none_or(|most| self.transport_slots.has_room(&destination.transport, most))
            && connections.is_none_or(|most| {
                self.connections
                    .has_room(destination, most, jobs.count(destination), now)
            })
    }

    /// Takes the error that stopped the run, if there is one. It is cleared, so the next run may try again.
    fn verdict(&self) -> Result<(), Error> {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = fatal.take() else {
            return Ok(());
        };
        Err(error)
    }
}

impl Drive {
    async fn run(core: Arc<Core>, mode: Mode) -> Result<(Summary, HashSet<QueueId>), Error> {
        core.forget_looks();
        core.troubles.begin();
        let (finisher, forgetting) = finisher::start(Arc::clone(&core));
        let mut drive = Drive {
            lanes: Lanes::default(),
            jobs: core.jobs(),
            tasks: JoinSet::new(),
            scan: None,
            finisher,
            closing: JoinSet::new(),
            mode,
            summary: Summary::default(),
            seen: (mode == Mode::InSlot).then(HashSet::new),
            next_look: None,
            core: Arc::clone(&core),
        };
        match mode {
            Mode::Once | Mode::InSlot => drive.once().await,
            Mode::Watch => drive.watch().await,
        }
        let Drive {
            finisher,
            mut closing,
            mut summary,
            seen,
            ..
        } = drive;
        drop(finisher);
        core.sessions.close().await;
        while closing.join_next().await.is_some() {}
        let _ = forgetting.await;
        let troubles = core.troubles.count();
        (summary.trouble, summary.unread) = (troubles.messages, troubles.others);
        core.verdict()?;
        if troubles.suspects > 0 {
            return Err(Error::TooManyCorrupt(troubles.suspects));
        }
        Ok((summary, seen.unwrap_or_default()))
    }

    async fn once(&mut self) {
        self.start_scan();
        loop {
            loop {
                let over = self.is_over();
                if !self.is_under_way(over) {
                    break;
                }
                self.hand_out();
                let event = self.next(over).await;
                self.react(event).await;
            }
            // Messages that looked corrupt before an intact message was read.
            let suspects = self.core.troubles.take_suspects();
            if suspects.is_empty() {
                return;
            }
            for candidate in suspects {
                self.seen.iter_mut().for_each(|seen| {
                    seen.remove(&candidate.id);
                });
                self.lanes.push(Destination::default(), candidate);
            }
        }
    }

    async fn watch(&mut self) {
        let core = Arc::clone(&self.core);
        let mut watch = super::watch::Watch::new(&core);
        self.start_scan();
        let mut rest = None;
        loop {
            let mut over = self.is_over();
            if over && !self.is_under_way(over) {
                match self.recover() {
                    Some(pause) => rest = Some(Instant::now() + pause),
                    None => return,
                }
                over = false;
            }
            self.hand_out();
            let (scanning, busy) = (self.scan.is_some(), self.is_busy(over));
            // An event that loses this race is awaited again: each of these futures can be dropped at any
            // point without losing anything.
            let deadline = self.jobs.deadline();
            let event = tokio::select! {
                event = self.next(over), if busy => event,
                () = sleep_until(rest), if rest.is_some() => {
                    rest = None;
                    RunEvent::Wake
                }
                () = watch.wake(), if !scanning && !over && rest.is_none() => RunEvent::Wake,
                () = core.stop.notify.notified(), if !over => RunEvent::Nothing,
                () = sleep_until(deadline), if !busy && !over => RunEvent::Nothing,
            };
            self.react(event).await;
        }
    }

    /// How long to wait before the next scan after nothing succeeded, or `None` if this run is to end. By
    /// now every attempt has finished, because an attempt that is dropped may have delivered without a
    /// record.
    fn recover(&mut self) -> Option<Duration> {
        if self.core.stop.is_stopped() {
            return None;
        }
        let error = self.core.recoverable()?;
        let pause = self.core.troubles.rest();
        let seconds = pause.as_secs();
        tracing::error!(%error, "looking again in {seconds} s");
        self.lanes = Lanes::default();
        self.scan = None;
        Some(pause)
    }

    fn is_under_way(&self, over: bool) -> bool {
        self.scan.is_some() || !self.tasks.is_empty() || (!self.lanes.is_empty() && !over)
    }

    /// Whether anything is under way, or a session is kept open for further messages.
    fn is_busy(&self, over: bool) -> bool {
        self.is_under_way(over) || self.core.sessions.next_end().is_some()
    }

    /// Whether no further message is taken: the budget is used up, or the run is to stop. A job can change
    /// that at any moment, so each turn of the loop calls this once.
    fn is_over(&self) -> bool {
        let used_up = |most: u64| self.summary.messages + self.tasks.len() as u64 >= most;
        self.core.is_stopped()
            || self.core.budget.max_messages.is_some_and(used_up)
            || self.jobs.is_over()
    }

    fn start_scan(&mut self) {
        self.core.connections.tidy();
        let (out, batches) = unbounded_channel();
        let core = Arc::clone(&self.core);
        let mut known = self.lanes.known().clone();
        known.extend(core.troubles.passed_over(std::time::Instant::now()));
        known.extend(self.seen.iter().flatten());
        let task = tokio::task::spawn_blocking(move || core.scan(&known, &out));
        self.scan = Some(Scan { batches, task });
    }

    /// Assigns candidates to free jobs.
    fn hand_out(&mut self) {
        let now = self.core.now();
        let (core, jobs) = (Arc::clone(&self.core), Arc::clone(&self.jobs));
        let room = |lane: &Destination| {
            jobs.may_have(lane, |destination| core.is_strange(destination))
                && core.has_room(lane, &jobs, now)
        };
        while jobs.has_free() && !self.is_over() {
            let Some((lane, candidate)) = self.lanes.take(room) else {
                break;
            };
            if let Some(seen) = &mut self.seen {
                seen.insert(candidate.id);
            }
            let job = self.jobs.take(lane);
            let work = Arc::clone(&self.core).handle_caught(candidate, self.finisher.clone(), job);
            self.tasks.spawn(async move { (candidate.id, work.await) });
        }
        // Messages with many destinations leave the next free job to a waiting message.
        let wanted = match jobs.has_free() {
            _ if self.is_over() => Wanted::Nothing,
            false if self.lanes.next_have(room) => Wanted::Any,
            false => Wanted::Nothing,
            true => {
                let strange =
                    |lane: &Destination| core.is_strange(lane) && core.has_room(lane, &jobs, now);
                if self.lanes.next_have(strange) {
                    Wanted::Strangers
                } else {
                    Wanted::Nothing
                }
            }
        };
        jobs.set_wanted(wanted);
    }

    /// Waits for the next event. Something must be under way.
    async fn next(&mut self, over: bool) -> RunEvent {
        let Drive {
            scan,
            tasks,
            jobs,
            next_look,
            lanes,
            core,
            ..
        } = self;
        let idle_end = core.sessions.next_end();
        let waiting = !lanes.is_empty() && !over;
        let scanning = scan.is_some();
        let looking = next_look.is_some() && !scanning && !over && (!tasks.is_empty() || waiting);
        tokio::select! {
            batch = next_batch(scan), if scanning => match batch {
                Some(batch) => RunEvent::Batch(batch),
                None => RunEvent::ScanEnded,
            },
            Some(done) = tasks.join_next(), if !tasks.is_empty() => match done {
                Ok((id, report)) => RunEvent::Reported(id, Box::new(report)),
                Err(_) => RunEvent::Nothing,
            },
            () = sleep_until(*next_look), if looking => RunEvent::Wake,
            () = core.connections.changed(), if waiting => RunEvent::Nothing,
            () = jobs.freed_one(), if waiting => RunEvent::Nothing,
            () = sleep_until(idle_end), if idle_end.is_some() => RunEvent::Idle,
            () = sleep_until(jobs.deadline()), if !over => RunEvent::Nothing,
        }
    }

    async fn react(&mut self, event: RunEvent) {
        match event {
            RunEvent::Batch(_) if self.is_over() => self.stop_scan(),
            RunEvent::Batch(batch) => self.add(batch),
            RunEvent::ScanEnded => {
                self.next_look = self.seen.as_ref().map(|_| Instant::now() + LOOK_AGAIN);
                self.end_scan().await;
            }
            RunEvent::Reported(id, report) => {
                self.lanes.put_down(id);
                self.forget_seen(id, &report.settled);
                match report.again.clone() {
                    Some((wait, candidate)) => self.again(&report, wait, candidate),
                    None => {
                        self.core.observe(Progress::Handled);
                        self.summary.count(&report.settled, &report.results);
                    }
                }
                self.queue_notices(report.notices).await;
            }
            RunEvent::Wake => self.start_scan(),
            RunEvent::Idle => {
                // Other messages wait for these connection slots, so closing does not block this loop.
                for open in self.core.sessions.ended() {
                    self.closing.spawn(open.close());
                }
                while self.closing.try_join_next().is_some() {}
            }
            RunEvent::Nothing => {}
        }
    }

    /// Forgets that a message was seen once it has been moved to another queue: if it is queued again by
    /// then, an operator has made it due.
    fn forget_seen(&mut self, id: QueueId, settled: &MessageOutcome) {
        let moved = matches!(
            settled,
            MessageOutcome::Finished | MessageOutcome::Resting(_) | MessageOutcome::Corrupt(_)
        );
        if let (Some(seen), true) = (&mut self.seen, moved) {
            seen.remove(&id);
        }
    }

    fn stop_scan(&mut self) {
        if let Some(scan) = &mut self.scan {
            scan.batches.close();
        }
    }

    fn add(&mut self, batch: Batch) {
        for (lane, candidate) in batch {
            self.lanes.push(lane, candidate);
        }
    }

    async fn end_scan(&mut self) {
        if let Some(scan) = self.scan.take() {
            // A scan that panicked has still sent what it found before.
            let _ = scan.task.await;
        }
    }

    /// Adds notices that were just written to the lanes. They are ordinary mail.
    async fn queue_notices(&mut self, notices: Vec<QueueId>) {
        self.summary.notices += notices.len() as u64;
        if notices.is_empty() {
            return;
        }
        self.core.observe(Progress::Found(notices.len() as u64));
        let core = Arc::clone(&self.core);
        let lanes = tokio::task::spawn_blocking(move || {
            let queue = Queue::Active;
            let with_lane = |id| {
                let candidate = Candidate { id, queue };
                (core.lane(candidate), candidate)
            };
            notices.into_iter().map(with_lane).collect::<Batch>()
        });
        if let Ok(batch) = lanes.await {
            self.add(batch);
        }
    }

    /// Keeps a message that could not be attempted now, or not for all of its recipients. If other
    /// processes have all the connections to a destination, or all the slots of a transport, a single pass
    /// does not wait for them.
    fn again(&mut self, report: &MessageReport, wait: WaitReason, candidate: Candidate) {
        self.summary.count_results(&report.results);
        match wait {
            WaitReason::Full(destination) if self.mode == Mode::Once => {
                for _ in 0..=self.lanes.dismiss(&destination) {
                    self.core.observe(Progress::Handled);
                }
            }
            WaitReason::TransportSlot(destination) if self.mode == Mode::Once => {
                for _ in 0..=self.lanes.dismiss_all(&destination.transport) {
                    self.core.observe(Progress::Handled);
                }
            }
            WaitReason::Turn(destination)
            | WaitReason::Full(destination)
            | WaitReason::TransportSlot(destination) => {
                self.lanes.push_back_in(destination, candidate);
            }
        }
    }
}

async fn next_batch(scan: &mut Option<Scan>) -> Option<Batch> {
    scan.as_mut()?.batches.recv().await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
