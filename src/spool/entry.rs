//! A message being worked on: locked, verified, its history open for writing.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::Spool;
use super::files::Found;
use super::history_file::HistoryFile;
use super::layout::{Info, Queue, reason_path};
use super::lock::Locked;
use crate::disk::{self, Body, FILE_MODE, IN_USE_MODE};
use crate::message::{Address, Block, Envelope, Mark, QueueId, Seal};
use crate::queue::state::Fate;
use crate::queue::step::queue_until;
use crate::queue::{
    Action, Event, History, Hold, Outcome, QueueUntil, RecipientResult, RecipientState, State,
    What, history,
};

/// A message that this process has locked, with a verified seal.
#[derive(Debug)]
pub struct Entry {
    pub(super) locked: Locked,
    block: Block,
    /// The message, if it was small enough to be read with the block.
    message: Option<Arc<[u8]>>,
    /// File offsets of the recipients' state octets, computed at the first write.
    octets: Option<Vec<u64>>,
    state: State,
    events: Vec<Event>,
    pub(super) history: HistoryFile,
    /// Whether the file's mode marks the message as in use.
    is_marked: bool,
    /// When the current attempt began.
    began: Option<Timestamp>,
    /// The state includes an event that was not written.
    has_imagined: bool,
    /// An outcome that must not be lost could not be recorded.
    is_owing: bool,
    /// A sync of the block has failed.
    is_block_doubtful: bool,
}

impl Entry {
    pub(super) fn new(
        locked: Locked,
        block: Block,
        message: Option<Arc<[u8]>>,
        found: Found,
    ) -> Entry {
        let Found { history, size } = found;
        let History { events, whole } = history;
        let whole = whole as u64;
        let torn = size.is_some_and(|size| size > whole).then_some(whole);
        let size = size.map(|_| whole);
        let mut state = State::read(&block, &events);
        state.in_use = locked.is_marked;
        // An earlier holder may have been killed between write and sync, or have seen the sync fail. If it
        // moved the message to the queue that the history calls for, no sync had failed.
        let durable = events.is_empty();
        let rests = queue_until(&state).map(Queue::from) == Some(locked.queue);
        let (disk, id) = (locked.spool.disk.clone(), locked.id);
        Entry {
            history: HistoryFile::new(disk, id, size, torn, durable, durable || rests),
            is_marked: locked.is_marked,
            locked,
            block,
            message,
            octets: None,
            state,
            events,
            began: None,
            has_imagined: false,
            is_owing: false,
            is_block_doubtful: false,
        }
    }

    /// The message.
    pub fn id(&self) -> QueueId {
        self.locked.id
    }

    /// The queue that it is in.
    pub fn queue(&self) -> Queue {
        self.locked.queue
    }

    /// The sender, the recipients, and the parameters of the submission.
    pub fn envelope(&self) -> &Envelope {
        &self.block.envelope
    }

    /// The spool that it is in.
    pub fn spool(&self) -> &Spool {
        &self.locked.spool
    }

    /// The state of each recipient and of the message.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The recorded events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The message's bytes.
    pub fn body(&self) -> Body {
        if let Some(message) = &self.message {
            return Body::of_bytes(Arc::clone(message));
        }
        let Locked { spool, file, .. } = &self.locked;
        let Seal { block, size, .. } = self.block.seal;
        Body::new(spool.disk.clone(), Arc::clone(file), block, size)
    }

    /// Begins or continues an attempt: the message is in `active/` and marked as in use before the transport
    /// is contacted. The mark is not synced: losing it only loses the count of an interruption.
    pub fn begin(&mut self, at: Timestamp) -> disk::Result<()> {
        if self.began.is_none() {
            self.cross_off(false)?;
        }
        self.began.get_or_insert(at);
        self.activate()?;
        self.mark_use(true)
    }

    /// When the current attempt began.
    pub fn began(&self) -> Option<Timestamp> {
        self.began
    }

    /// Ends the attempt, after its outcome is written.
    pub fn end(&mut self) -> disk::Result<()> {
        self.began = None;
        self.mark_use(false)?;
        self.state.in_use = false;
        Ok(())
    }

    fn mark_use(&mut self, in_use: bool) -> disk::Result<()> {
        if self.is_marked == in_use {
            return Ok(());
        }
        let Locked { spool, file, .. } = &self.locked;
        let mode = if in_use { IN_USE_MODE } else { FILE_MODE };
        match spool.disk.set_mode(file, mode) {
            // If the file system has no modes, or has no space for the change, interruptions are not counted.
            // Nothing else depends on the mark.
            Err(error) if error.is_unsupported() || error.is_full() => {
                tracing::debug!(id = %self.id(), %error, "interrupted attempts are not counted");
            }
            other => other?,
        }
        self.is_marked = in_use;
        Ok(())
    }

    /// Counts an interruption. This happens before the interruption is recorded and before the mark is
    /// removed: counting twice is better than not at all, because a message that kills its runner must be
    /// stopped.
    pub fn count_interruption(&mut self) -> disk::Result<()> {
        self.state.interrupted = self.state.interrupted.saturating_add(1);
        self.write_mark()?;
        // A killed holder may have written octets without a sync.
        self.cross_off(self.block.finished.contains(&true))
    }

    /// Writes durably into the block which recipients are finished; with `again`, syncs even if the block is
    /// up to date. A killed holder may have recorded them in the unsynced history only, and a power cut may
    /// lose the history and bring the message back. So the other recipients are tried only once the block is
    /// durable.
    fn cross_off(&mut self, again: bool) -> disk::Result<()> {
        let all: Vec<usize> = (0..self.state.recipients.len()).collect();
        let said = match self.write_finished(&all) {
            Ok(news) if news || again => self.sync_block(),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        said.or_else(|error| {
            tracing::warn!(id = %self.id(), %error, "only the history records which recipients are finished");
            self.sync()
        })
    }

    /// Writes the state line of the block, if it differs from the state.
    fn write_mark(&mut self) -> disk::Result<()> {
        let mark = Mark {
            done: self.state.done,
            interrupted: u16::try_from(self.state.interrupted.min(999)).unwrap_or(999),
        };
        if mark == self.block.mark {
            return Ok(());
        }
        let Locked { spool, file, .. } = &self.locked;
        spool
            .disk
            .write_all_at(file, mark.line().as_bytes(), Mark::OFFSET)?;
        self.block.mark = mark;
        Ok(())
    }

    /// Marks in the block those of these recipients that are finished. Returns false if the block already
    /// says so. Durable only after [`sync_block`](Entry::sync_block).
    pub fn write_finished(&mut self, some: &[usize]) -> disk::Result<bool> {
        let Entry {
            locked,
            block,
            state,
            octets,
            ..
        } = self;
        let is_news = |n: &&usize| state.recipients[**n].is_finished() && !block.finished[**n];
        let news: Vec<usize> = some.iter().filter(is_news).copied().collect();
        if news.is_empty() {
            return Ok(false);
        }
        let octets = octets.get_or_insert_with(|| block.octets().collect());
        for n in news {
            let disk = &locked.spool.disk;
            disk.write_all_at(&locked.file, b"+", octets[n])?;
            block.finished[n] = true;
        }
        Ok(true)
    }

    /// Syncs the block. After a failed sync, every later sync is reported as failed: the kernel may have
    /// dropped the written data and let the next sync succeed.
    pub fn sync_block(&mut self) -> disk::Result<()> {
        let Locked { spool, file, .. } = &self.locked;
        let synced = if self.is_block_doubtful {
            Err(spool.disk.not_believed(file))
        } else {
            spool.disk.durable(&[file], &[])
        };
        self.is_block_doubtful = synced.is_err();
        synced
    }

    /// Writes an event and applies it to the state. Durable only after [`sync`](Entry::sync).
    pub fn record(&mut self, at: Timestamp, what: What) -> disk::Result<()> {
        let event = Event { at, what };
        let written = self.write(&event);
        if written.is_ok() {
            self.count(event);
        }
        written
    }

    /// Appends an event to the history. If the history has doubled since it was last folded, it is folded and
    /// rewritten together with this event.
    fn write(&mut self, event: &Event) -> disk::Result<()> {
        let folded = self.events.first().map_or(0, |first| match first.what {
            What::Fold(_) => first.line().len() as u64,
            _ => 0,
        });
        if !(self.history).is_long(folded, self.locked.spool.folded_from()) {
            return self.history.append(&event.line());
        }
        let fold = Box::new(self.state.fold(&self.events));
        let what = What::Fold(fold);
        self.events = vec![Event { at: event.at, what }];
        let lines = [self.events[0].line(), event.line()].concat();
        self.history.replace(&lines)
    }

    /// Applies an event to the state even if it cannot be written. After an error, the next sync writes it.
    /// Not durable before that.
    pub fn note(&mut self, at: Timestamp, what: What) {
        let event = Event { at, what };
        if let Err(error) = self.write(&event) {
            tracing::warn!(id = %self.id(), %error, "the history is rewritten");
        }
        self.count(event);
    }

    /// Like [`note`](Entry::note), durably.
    pub fn record_durably(&mut self, at: Timestamp, what: What) -> disk::Result<()> {
        self.note(at, what);
        self.sync()
    }

    fn count(&mut self, event: Event) {
        self.state.apply(&event);
        self.events.push(event);
        // Best effort: a count that stays too high freezes a message too early.
        if let Err(error) = self.write_mark() {
            tracing::warn!(id = %self.id(), %error, "the count of interruptions is not updated");
        }
    }

    /// Applies an event without writing it. For the outcome that finishes the last recipient: the rename to
    /// `done/` is its record.
    pub fn apply_unrecorded(&mut self, event: Event) {
        self.has_imagined = true;
        self.count(event);
    }

    /// Whether the state includes an outcome that is not written, or not durable.
    pub fn owes_something(&self) -> bool {
        self.has_imagined || self.is_owing
    }

    /// Writes durably into the block that the message is done, for when the rename to `done/` fails. This
    /// needs no disk space.
    pub fn say_done(&mut self) -> disk::Result<()> {
        self.state.done = true;
        self.write_mark()?;
        self.sync_block()
    }

    /// Rewrites the whole history durably, including unwritten events, for when the block cannot be written.
    pub fn say_in_history(&mut self) -> disk::Result<()> {
        let lines: Vec<u8> = self.events.iter().flat_map(Event::line).collect();
        self.history.replace(&lines)?;
        self.has_imagined = false;
        Ok(())
    }

    /// Records the outcome of a transaction (commit point *recorded*), durably if the transaction must not be
    /// repeated. A delivery that needs no notice is recorded in the block. A delivery that needs a notice,
    /// and a hold, are recorded in the history. Other outcomes may be lost: those recipients are tried again.
    ///
    /// If the block cannot be written, the history is synced instead.
    pub fn record_outcome(&mut self, event: Event) -> disk::Result<()> {
        let recipients: Vec<usize> = match &event.what {
            What::Outcome { results, .. } => (results.iter())
                .filter_map(|result| self.state.index_of(&result.recipient))
                .collect(),
            _ => Vec::new(),
        };
        self.note(event.at, event.what);
        let said = match self.write_finished(&recipients) {
            Ok(true) => self.sync_block(),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        // An outcome that could not be recorded before is made durable with this one, even if this one needs
        // no sync.
        let is_told = self.is_owing
            || self.state.hold != Hold::None
            || (recipients.iter()).any(|n| self.state.recipients[*n].is_unconfirmed());
        let recorded = match said {
            Ok(()) if !is_told => Ok(()),
            Ok(()) => self.sync(),
            Err(error) => {
                tracing::warn!(id = %self.id(), %error, "the outcome is written to the history");
                self.sync()
            }
        };
        self.is_owing = recorded.is_err();
        if recorded.is_err() {
            self.give_up_telling(&recipients);
        }
        recorded
    }

    /// Marks deliveries in the block that cannot be recorded in the history, so that they are not repeated.
    /// Their sender gets no notice. Best effort.
    fn give_up_telling(&mut self, recipients: &[usize]) {
        for n in recipients {
            let recipient = &mut self.state.recipients[*n];
            if recipient.is_unconfirmed() {
                tracing::error!(id = %self.locked.id, to = %recipient.address, "delivered, but no notice is sent");
                recipient.finish(self.block.id.accepted());
            }
        }
        if let Ok(true) = self.write_finished(recipients) {
            let _ = self.sync_block();
        }
    }

    /// Prepares the history for another line. Everything found in it is made durable first: a new line must
    /// not follow lines that a power cut may take away. An interruption is counted first.
    pub fn make_ready(&mut self, at: Timestamp) -> disk::Result<()> {
        if self.state.in_use {
            self.record_past_interruption(history::written(at))?;
        }
        self.sync()?;
        self.history.open()
    }

    /// Records an interrupted attempt before an operator's action: recipients that may have been tried are
    /// due again at once, unless the action says otherwise.
    fn record_past_interruption(&mut self, at: Timestamp) -> disk::Result<()> {
        let due = |recipient: &&RecipientState| matches!(recipient.fate, Fate::Pending { next } if next <= at);
        let due: Vec<Address> = (self.state.recipients.iter())
            .filter(due)
            .map(|recipient| recipient.address.clone())
            .collect();
        if !due.is_empty() {
            self.count_interruption()?;
            let results = due.into_iter().map(|recipient| {
                let Outcome {
                    status,
                    handover,
                    reply,
                } = Outcome::interrupted();
                RecipientResult {
                    recipient,
                    status,
                    handover,
                    reply,
                    next: Some(at),
                    warn: None,
                    expired: false,
                }
            });
            let what = What::Outcome {
                began: at,
                transport: None,
                results: results.collect(),
            };
            self.record(at, what)?;
        }
        self.end()
    }

    /// Makes all recorded events durable, including those of earlier holders (commit point *recorded*).
    pub fn sync(&mut self) -> disk::Result<()> {
        let Entry {
            history, events, ..
        } = self;
        history.sync(|| events.iter().flat_map(Event::line).collect())
    }

    /// Moves the message to `active/`, where messages are attempted. Not synced: a power cut may return it to
    /// the queue in which it was due.
    pub fn activate(&mut self) -> disk::Result<()> {
        self.go(Queue::Active)
    }

    /// Moves the message to `queue_until`. For a hold, the history is made durable first: a message in
    /// `frozen/` or `discarded/` always has its reason. A deferral needs no sync: if a power cut reverts it,
    /// the message is tried too early.
    pub fn rest(mut self, queue_until: QueueUntil) -> disk::Result<()> {
        if !matches!(queue_until, QueueUntil::Deferred(_)) {
            self.sync()?;
        }
        self.mark_use(false)?;
        self.go(queue_until.into())
    }

    /// Defers a due message because no transport can or should take it now. This is not an event and not
    /// synced: the history does not change.
    pub fn postpone(&mut self, until: Timestamp) -> disk::Result<()> {
        self.mark_use(false)?;
        self.go(Queue::from(QueueUntil::Deferred(until)))
    }

    /// Freezes a message if its outcome cannot be recorded. Only the queue shows it.
    pub fn hold_unrecorded(&mut self) -> disk::Result<()> {
        // Best effort: a mark that remains is counted as one interruption.
        let _ = self.mark_use(false);
        self.go(QueueUntil::Frozen(None).into())
    }

    /// Renames the message to `done/` (commit point *done*). Returns whether it may have a history.
    ///
    /// If the history holds an event that must not be repeated, a notice or an operator's action, the state
    /// line first says durably that the message is done: a power cut may bring the message back without its
    /// history.
    pub fn finish(&mut self) -> disk::Result<bool> {
        let matters = |event: &Event| match &event.what {
            What::Notice { .. } | What::Action(_) => true,
            What::Fold(fold) => fold.acted,
            What::Outcome { .. } => false,
        };
        if !self.block.mark.done && self.events.iter().any(matters) {
            self.say_done()?;
        }
        self.go(Queue::Done)?;
        Ok(self.history.has_file())
    }

    /// Forgets a finished message in its current queue, for when a full disk prevents the rename to `done/`.
    /// Its block says durably that it is done, so that a later run can continue here. Returns false if
    /// another process holds the lock of its key.
    pub fn forget_here(&self) -> disk::Result<bool> {
        let Locked {
            spool, id, queue, ..
        } = &self.locked;
        let keyed = self.block.envelope.submission.key.clone();
        match spool.keep_key_of(*id, keyed)? {
            None => return Ok(false),
            Some(None) => {}
            Some(Some(dir)) => spool.disk.durable(&[], &[&dir])?,
        }
        spool.unlink_files(*id, true)?;
        spool.disk.unlink(&queue.path(*id))?;
        Ok(true)
    }

    /// Moves the message to a queue.
    pub(super) fn go(&mut self, to: Queue) -> disk::Result<()> {
        let from = self.locked.queue;
        if from == to {
            return Ok(());
        }
        self.locked.move_to(to)?;
        // A message in quarantine always has its reason, so the reason is removed last.
        if from == Queue::Corrupt {
            let reason = reason_path(self.locked.id);
            self.locked.spool.disk.unlink(&reason)?;
        }
        Ok(())
    }

    /// Returns whether a request exists, and its action if it can be read.
    pub fn request(&self) -> disk::Result<(bool, Option<Action>)> {
        let bytes = self.locked.spool.read_info(Info::Request, self.locked.id)?;
        let action = bytes
            .as_deref()
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        Ok((bytes.is_some(), action))
    }

    /// Removes the request, durably, after it has been carried out durably: an old freeze that a power cut
    /// brings back would undo a later thaw.
    pub fn request_served(&self) -> disk::Result<()> {
        let disk = &self.locked.spool.disk;
        disk.unlink(&Info::Request.path(self.locked.id))?;
        disk.durable(&[], &[Path::new(Info::Request.dir())])
    }

    /// Returns the locked message, without what was read from it.
    pub(super) fn into_locked(self) -> Locked {
        self.locked
    }
}
