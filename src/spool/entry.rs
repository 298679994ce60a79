//! A message in hand: locked, verified, its history open for writing.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Spool;
use super::journal::Journal;
use super::layout::{Info, Place, reason_path};
use super::lock::Locked;
use crate::disk::{self, Body, File};
use crate::message::{Envelope, QueueId};
use crate::queue::step::{self, resting};
use crate::queue::{Action, Event, Resting, State, What, history};

/// A message whose lock this process holds and whose seal it has checked.
#[derive(Debug)]
pub struct Entry {
    locked: Locked,
    envelope: Envelope,
    state: State,
    events: Vec<Event>,
    journal: Journal,
    /// What counts and is not written down.
    imagined: Vec<Event>,
    /// Every directory in which this message was while we held it, besides the present one.
    left: Vec<Place>,
}

impl Entry {
    pub(super) fn new(
        locked: Locked,
        envelope: Envelope,
        state: State,
        events: Vec<Event>,
        torn: Option<u64>,
    ) -> Entry {
        // A holder before us may have been killed between writing and syncing, or have seen
        // the sync fail. Who put it where its history says had made that durable.
        let rests = resting(&state).map(Place::from) == Some(locked.place);
        let durable = rests || events.is_empty();
        let disk = locked.spool.disk.clone();
        Entry {
            journal: Journal::new(disk, locked.id, torn, durable),
            locked,
            envelope,
            state,
            events,
            imagined: Vec::new(),
            left: Vec::new(),
        }
    }

    /// The message.
    pub fn id(&self) -> QueueId {
        self.locked.id
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.locked.place
    }

    /// Who sent it to whom.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
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
        self.locked.body()
    }

    /// Opens the history for writing and reserves room in it. *No record, no attempt*: an
    /// attempt whose outcome could not be written down must not be made.
    pub fn open_journal(&mut self, room: u64) -> disk::Result<()> {
        self.journal.open(room)
    }

    /// Writes an event down and lets it count. It is not durable before
    /// [`sync`](Entry::sync).
    pub fn record(&mut self, at: Timestamp, what: What) -> disk::Result<()> {
        let event = Event { at, what };
        self.journal.append(&event.line())?;
        self.count(event);
        Ok(())
    }

    /// Writes an event down that counts whatever happens: after an error, what is recorded or
    /// synced next takes it along. It is not durable before that.
    pub fn note(&mut self, at: Timestamp, what: What) {
        let event = Event { at, what };
        if let Err(error) = self.journal.append(&event.line()) {
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
    }

    /// Lets an event count without writing it down: for the outcome after which nobody is
    /// left, of which the rename to `done/` is the record.
    pub fn imagine(&mut self, event: Event) {
        self.imagined.push(event.clone());
        self.count(event);
    }

    /// Writes down, durably, what was only imagined: for when that rename fails.
    pub fn record_imagined(&mut self) -> disk::Result<()> {
        for event in std::mem::take(&mut self.imagined) {
            // What fails here is written anew by the sync.
            let _ = self.journal.append(&event.line());
        }
        self.sync()
    }

    /// Has the history ready for another line. What was found is settled first, in its own file: the
    /// new line must not be behind lines that a power cut takes away.
    pub fn make_ready(&mut self) -> disk::Result<()> {
        self.sync()?;
        self.open_journal(0)
    }

    /// Makes everything recorded, by whomever, durable (commit point *recorded*).
    pub fn sync(&mut self) -> disk::Result<()> {
        let Entry {
            journal, events, ..
        } = self;
        journal.sync(|| events.iter().flat_map(Event::line).collect())
    }

    /// Moves the message to `active/`, where messages are attempted. Not synced: a power cut
    /// brings it back to where it was due.
    pub fn activate(&mut self) -> disk::Result<()> {
        self.go(Place::Active)
    }

    /// Moves the message to where it rests. Its history says the same, durably, so a power cut
    /// that takes the rename back only has it moved again. Whoever wrote it down may have been
    /// killed before it was durable: then it is made so now, else the rename could outlast it,
    /// and the message would stand in `frozen/never/` without a reason.
    pub fn rest(mut self, resting: Resting) -> disk::Result<()> {
        self.sync()?;
        self.go(resting.into())
    }

    /// Puts a message that is due off until a later time, because nobody can take it now, or is to.
    /// Not an event, and not synced: its history is what it was, and it does not rest where that
    /// says, so whoever takes it next does not believe that the history is durable. Only where
    /// that would be the same place it is made so, as in [`rest`](Entry::rest).
    pub fn postpone(&mut self, until: Timestamp) -> disk::Result<()> {
        let to = Place::from(Resting::Deferred(until));
        if resting(&self.state).map(Place::from) == Some(to) {
            self.sync()?;
        }
        self.go(to)
    }

    /// Holds a message whose outcome cannot be recorded, by its place alone.
    pub fn hold_unrecorded(&mut self) -> disk::Result<()> {
        self.go(Resting::Frozen(None).into())
    }

    /// Renames the message to `done/` (commit point *done*, once the barrier of
    /// [`Spool::forget`] has covered it).
    /// Returns every directory in which it may still be named.
    pub fn finish(&mut self) -> disk::Result<Vec<Place>> {
        self.go(Place::Done)?;
        Ok(std::mem::take(&mut self.left))
    }

    fn go(&mut self, to: Place) -> disk::Result<()> {
        let from = self.locked.place;
        if from == to {
            return Ok(());
        }
        self.locked.move_to(to)?;
        self.left.push(from);
        // A message in quarantine always has its reason: that goes last.
        if from == Place::Corrupt {
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
    let stands_frozen = matches!(entry.place(), Place::Frozen(_));
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
        entry.make_ready()?;
    }
    match destination(action) {
        Place::Active => {
            move_all(entries, Place::Active)?;
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
        .filter_map(|one| one.journal.file())
        .collect();
    let disk = &first.locked.spool.disk;
    let durable = disk.durable(&files, &[Path::new(Info::Attempts.dir())]);
    if let Err(error) = &durable {
        tracing::warn!(%error, "histories are written anew");
    }
    for entry in entries {
        entry.journal.shared(durable.is_ok());
        entry.sync()?;
    }
    Ok(())
}

fn move_all(entries: &mut [Entry], to: Place) -> disk::Result<()> {
    let mut dirs: Vec<PathBuf> = vec![to.dir()];
    // Who is there already was brought by somebody who may have been killed before his barrier,
    // and may still be named wherever that was.
    let found = entries.iter().any(|entry| entry.place() == to);
    for entry in entries.iter_mut() {
        dirs.push(entry.place().dir());
        entry.go(to)?;
    }
    let Some(first) = entries.first() else {
        return Ok(());
    };
    if found {
        dirs.extend(first.locked.spool.places()?.iter().map(Place::dir));
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
fn destination(action: &Action) -> Place {
    match action {
        Action::Freeze { until, .. } => Resting::Frozen(*until).into(),
        Action::Discard { until, .. } => Resting::Discarded(*until).into(),
        Action::Retry(_) | Action::Thaw(_) | Action::Bounce(_) => Place::Active,
    }
}

impl Entry {
    /// The message as it is locked, without what was read of it.
    pub(super) fn into_locked(self) -> Locked {
        self.locked
    }
}
