//! A message in hand: locked, verified, its history open for writing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::Spool;
use super::history_file::HistoryFile;
use super::layout::{Info, Queue, reason_path};
use super::lock::{Found, Locked};
use crate::disk::{self, Body, FILE_MODE, File, IN_USE_MODE};
use crate::message::{Address, Block, Envelope, Mark, QueueId, Seal};
use crate::queue::state::Fate;
use crate::queue::step::{self, queue_until};
use crate::queue::{
    Action, Event, History, Hold, Outcome, QueueUntil, RecipientResult, RecipientState, State,
    What, history,
};

/// A message whose lock this process holds and whose seal it has checked.
#[derive(Debug)]
pub struct Entry {
    locked: Locked,
    block: Block,
    /// The message, if it is small.
    message: Option<Arc<[u8]>>,
    /// Where in the file the octets of the recipients lie, once one is written.
    octets: Option<Vec<u64>>,
    state: State,
    events: Vec<Event>,
    history: HistoryFile,
    /// The file's mode says that it is in use.
    is_marked: bool,
    /// When the attempt began that is under way.
    began: Option<Timestamp>,
    /// Something counts that is not written down.
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
        // A holder before us may have been killed between writing and syncing, or have seen
        // the sync fail. One that put it where its history says had seen none fail.
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

    /// Where it stands.
    pub fn queue(&self) -> Queue {
        self.locked.queue
    }

    /// Who sent it to whom.
    pub fn envelope(&self) -> &Envelope {
        &self.block.envelope
    }

    /// The spool it is in.
    pub fn spool(&self) -> &Spool {
        &self.locked.spool
    }

    /// Where everybody stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What happened so far.
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

    /// Begins an attempt, or goes on with it: the message stands in `active/` and is marked as in use before
    /// a transport is spoken to. The mark is not synced: losing it loses the count of an interruption.
    pub fn begin(&mut self, at: Timestamp) -> disk::Result<()> {
        if self.began.is_none() {
            self.cross_off(false)?;
        }
        self.began.get_or_insert(at);
        self.activate()?;
        self.mark_use(true)
    }

    /// When the attempt began that is under way.
    pub fn began(&self) -> Option<Timestamp> {
        self.began
    }

    /// The attempt is over, and its outcome is written.
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
            // Where files have no modes, or there is no room for one, an interruption is not counted, and
            // costs nothing else.
            Err(error) if error.is_unsupported() || error.is_full() => {
                tracing::debug!(id = %self.id(), %error, "interrupted attempts are not counted");
            }
            other => other?,
        }
        self.is_marked = in_use;
        Ok(())
    }

    /// Counts an interruption that was found, before it is recorded and before the mark goes: counted twice
    /// is better than not at all, because a message that kills its runner must be stopped.
    pub fn count_interruption(&mut self) -> disk::Result<()> {
        self.state.interrupted = self.state.interrupted.saturating_add(1);
        self.write_mark()?;
        // A killed holder may have written octets and not synced them.
        self.cross_off(self.block.finished.contains(&true))
    }

    /// Has the block say durably which recipients are finished; with `again`, also where it says so already.
    /// A holder that was killed, or a power cut, may have left that to the history, which is not synced and
    /// may vanish while the message comes back: the others are tried only once it is durable.
    fn cross_off(&mut self, again: bool) -> disk::Result<()> {
        let all: Vec<usize> = (0..self.state.recipients.len()).collect();
        let said = match self.write_finished(&all) {
            Ok(news) if news || again => self.sync_block(),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        said.or_else(|error| {
            tracing::warn!(id = %self.id(), %error, "its history says which recipients are finished");
            self.sync()
        })
    }

    /// Brings the state line to what the state says.
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

    /// Writes into the block for which of these recipients there is nothing more to do; false if that says
    /// nothing new. It is not durable before [`sync_block`](Entry::sync_block).
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

    /// Makes durable what was written into the block. After a sync that failed none is believed: the system may
    /// have given up what was written, and let the next sync succeed.
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

    /// Writes an event down and lets it count. It is not durable before
    /// [`sync`](Entry::sync).
    pub fn record(&mut self, at: Timestamp, what: What) -> disk::Result<()> {
        let event = Event { at, what };
        let written = self.write(&event);
        if written.is_ok() {
            self.count(event);
        }
        written
    }

    /// Adds a line to the history. One that has doubled since it was last folded is folded first, and then
    /// written anew with this line.
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

    /// Writes an event down that counts whatever happens: after an error, what is recorded or
    /// synced next takes it along. It is not durable before that.
    pub fn note(&mut self, at: Timestamp, what: What) {
        let event = Event { at, what };
        if let Err(error) = self.write(&event) {
            tracing::warn!(id = %self.id(), %error, "the history is written anew");
        }
        self.count(event);
    }

    /// As [`note`](Entry::note), durably.
    pub fn record_durably(&mut self, at: Timestamp, what: What) -> disk::Result<()> {
        self.note(at, what);
        self.sync()
    }

    fn count(&mut self, event: Event) {
        self.state.apply(&event);
        self.events.push(event);
        // Best effort: a count that stays too high freezes a message too early.
        if let Err(error) = self.write_mark() {
            tracing::warn!(id = %self.id(), %error, "interruptions stay counted");
        }
    }

    /// Lets an event count without writing it down: for the outcome after which nobody is
    /// left, of which the rename to `done/` is the record.
    pub fn apply_unrecorded(&mut self, event: Event) {
        self.has_imagined = true;
        self.count(event);
    }

    /// Whether an outcome counts that is not written down, or not durably.
    pub fn owes_something(&self) -> bool {
        self.has_imagined || self.is_owing
    }

    /// Writes into the block, durably, that the message is done: for when that rename fails. It needs no
    /// room on the disk.
    pub fn say_done(&mut self) -> disk::Result<()> {
        self.state.done = true;
        self.write_mark()?;
        self.sync_block()
    }

    /// Writes the whole history anew, durably, with what was only imagined: for when the block cannot say that
    /// the message is done.
    pub fn say_in_history(&mut self) -> disk::Result<()> {
        let lines: Vec<u8> = self.events.iter().flat_map(Event::line).collect();
        self.history.replace(&lines)?;
        self.has_imagined = false;
        Ok(())
    }

    /// Writes down the outcome of a transaction (commit point *recorded*): durably, if it must not be tried
    /// again. A delivery of which no sender is told is said in the block; one that is to be told, and
    /// what holds the message back, in the history. The others may be lost: they are tried again.
    ///
    /// What the block cannot say the history says.
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
        // What could not be recorded before is taken along, durably, by an outcome that needs no sync itself, too.
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

    /// What was delivered and cannot be written to the history is at least not to be delivered again, although
    /// its sender is then not told. Best effort.
    fn give_up_telling(&mut self, recipients: &[usize]) {
        for n in recipients {
            let recipient = &mut self.state.recipients[*n];
            if recipient.is_unconfirmed() {
                tracing::error!(id = %self.locked.id, to = %recipient.address, "delivered, and its sender is not told");
                recipient.finish(self.block.id.accepted());
            }
        }
        if let Ok(true) = self.write_finished(recipients) {
            let _ = self.sync_block();
        }
    }

    /// Has the history ready for another line. What was found is settled first, in its own file: the
    /// new line must not come after lines that a power cut takes away. An interruption is counted first.
    pub fn make_ready(&mut self, at: Timestamp) -> disk::Result<()> {
        if self.state.in_use {
            self.record_past_interruption(history::written(at))?;
        }
        self.sync()?;
        self.history.open()
    }

    /// An operator acts on a message whose attempt was interrupted: those who may have been tried are due
    /// again at once, unless the action says otherwise.
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

    /// Makes everything that is recorded, by any holder, durable (commit point *recorded*).
    pub fn sync(&mut self) -> disk::Result<()> {
        let Entry {
            history, events, ..
        } = self;
        history.sync(|| events.iter().flat_map(Event::line).collect())
    }

    /// Moves the message to `active/`, where messages are attempted. Not synced: a power cut
    /// brings it back to where it was due.
    pub fn activate(&mut self) -> disk::Result<()> {
        self.go(Queue::Active)
    }

    /// Moves the message to where it rests. What holds it back is durable in its history first: a message in
    /// `frozen/` or `discarded/` has its reason. A deferral need not be: a power cut that takes it back has
    /// the message tried too early.
    pub fn rest(mut self, queue_until: QueueUntil) -> disk::Result<()> {
        if !matches!(queue_until, QueueUntil::Deferred(_)) {
            self.sync()?;
        }
        self.mark_use(false)?;
        self.go(queue_until.into())
    }

    /// Puts a message that is due off until a later time, because no transport can take it now, or is to.
    /// Not an event, and not synced: its history is what it was.
    pub fn postpone(&mut self, until: Timestamp) -> disk::Result<()> {
        self.mark_use(false)?;
        self.go(Queue::from(QueueUntil::Deferred(until)))
    }

    /// Holds a message whose outcome cannot be recorded, by its place alone.
    pub fn hold_unrecorded(&mut self) -> disk::Result<()> {
        // Best effort: a mark that stays is counted as one interruption.
        let _ = self.mark_use(false);
        self.go(QueueUntil::Frozen(None).into())
    }

    /// Renames the message to `done/` (commit point *done*). Says whether it has a history.
    ///
    /// Where the history holds what must not happen again, a notice or an operator's action, the state line
    /// says first that the message is done, durably: a power cut may bring the message back and not the
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

    /// Forgets a message that is done where it stands, for the case that it cannot be moved to `done/` for
    /// want of room. Its block says, durably, that it is done: a run that finds it goes on here. False if another
    /// process has its key in hand.
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

    fn go(&mut self, to: Queue) -> disk::Result<()> {
        let from = self.locked.queue;
        if from == to {
            return Ok(());
        }
        self.locked.move_to(to)?;
        // A message in quarantine always has its reason: that goes last.
        if from == Queue::Corrupt {
            let reason = reason_path(self.locked.id);
            self.locked.spool.disk.unlink(&reason)?;
        }
        Ok(())
    }

    /// The action that waits for this message, if it can be read. Also says whether there is
    /// a request at all.
    pub fn request(&self) -> disk::Result<(bool, Option<Action>)> {
        let bytes = self.locked.spool.read_info(Info::Request, self.locked.id)?;
        let action = bytes
            .as_deref()
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        Ok((bytes.is_some(), action))
    }

    /// Removes the request, after it has been carried out durably; and that durably too: an old
    /// freeze that comes back in a power cut would undo a later thaw.
    pub fn request_served(&self) -> disk::Result<()> {
        let disk = &self.locked.spool.disk;
        disk.unlink(&Info::Request.path(self.locked.id))?;
        disk.durable(&[], &[Path::new(Info::Request.dir())])
    }
}

/// Why an action makes no sense for a message in hand.
pub fn refusal(entry: &Entry, action: &Action) -> Option<&'static str> {
    // A discard that was written down and no more is done again: it is the rename that is missing.
    let is_discarded = matches!(entry.state().hold, Hold::Discarded { .. });
    let is_elsewhere = !matches!(entry.queue(), Queue::Discarded(_));
    if matches!(action, Action::Discard { .. }) && is_discarded && is_elsewhere {
        return None;
    }
    let stands_frozen = matches!(entry.queue(), Queue::Frozen(_));
    step::refusal(entry.state(), stands_frozen, action)
}

/// Carries an action out on messages in hand, all of them durably (commit point *ordered*).
///
/// Two steps with a barrier behind each; one pair serves the whole batch. An action that holds
/// a message back is written down first: what stands in `frozen/` or `discarded/` always has
/// its reason in its history. One that lets it go moves it to `active/` first: a history that
/// says so while the message stands in `frozen/never/` would leave it where no run ever looks.
/// Whoever is killed between the two has done nothing: a message that is held, and one that is
/// not due, is put back by the next run.
pub fn apply(entries: &mut [Entry], at: Timestamp, action: &Action) -> disk::Result<()> {
    let at = history::written(at);
    for entry in entries.iter_mut() {
        entry.make_ready(at)?;
    }
    match destination(action) {
        Queue::Active => {
            move_all(entries, Queue::Active)?;
            record_all(entries, at, action)
        }
        hold => {
            record_all(entries, at, action)?;
            move_all(entries, hold)
        }
    }
}

fn record_all(entries: &mut [Entry], at: Timestamp, action: &Action) -> disk::Result<()> {
    for entry in entries.iter_mut() {
        entry.record(at, What::Action(action.clone()))?;
    }
    let Some(first) = entries.first() else {
        return Ok(());
    };
    let files: Vec<&File> = entries
        .iter()
        .filter_map(|entry| entry.history.file())
        .collect();
    let disk = &first.locked.spool.disk;
    let durable = disk.durable(&files, &[Path::new(Info::History.dir())]);
    if let Err(error) = &durable {
        tracing::warn!(%error, "histories are written anew");
    }
    for entry in entries {
        entry.history.shared(durable.is_ok());
        entry.sync()?;
    }
    Ok(())
}

fn move_all(entries: &mut [Entry], to: Queue) -> disk::Result<()> {
    let mut dirs: Vec<PathBuf> = vec![to.dir()];
    // Who is there already was brought by somebody who may have been killed before his barrier,
    // and may still be named wherever that was.
    let found = entries.iter().any(|entry| entry.queue() == to);
    for entry in entries.iter_mut() {
        dirs.push(entry.queue().dir());
        entry.go(to)?;
    }
    let Some(first) = entries.first() else {
        return Ok(());
    };
    if found {
        dirs.extend(first.locked.spool.queues()?.iter().map(Queue::dir));
    }
    let disk = &first.locked.spool.disk;
    dirs.sort_unstable();
    dirs.dedup();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    // A bucket that emptied may be removed by another process at any moment.
    match disk.durable(&[], &dirs) {
        Err(error) if error.is_absent() => {
            let there = |dir: &&Path| !matches!(disk.stat(dir), Ok(None));
            let dirs: Vec<&Path> = dirs.into_iter().filter(there).collect();
            disk.durable(&[], &dirs)
        }
        other => other,
    }
}

/// Where an action sends a message.
fn destination(action: &Action) -> Queue {
    match action {
        Action::Freeze { until, .. } => QueueUntil::Frozen(*until).into(),
        Action::Discard { until, .. } => QueueUntil::Discarded(*until).into(),
        Action::Retry(_) | Action::Thaw(_) | Action::Bounce(_) => Queue::Active,
    }
}

impl Entry {
    /// The message as it is locked, without what was read of it.
    pub(super) fn into_locked(self) -> Locked {
        self.locked
    }
}
