//! A message in hand: locked, verified, its history open for writing.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Spool;
use super::layout::{Info, Place, reason_path};
use super::lock::Locked;
use crate::disk::{self, Body, File};
use crate::message::{Envelope, QueueId};
use crate::queue::{Action, Event, Resting, State, What};

/// A message whose lock this process holds and whose seal it has checked.
#[derive(Debug)]
pub struct Entry {
    locked: Locked,
    envelope: Envelope,
    state: State,
    events: Vec<Event>,
    /// `info/attempts/<id>`, once something is to be written to it.
    journal: Option<File>,
    /// Where a torn last line begins, until it is cut off.
    torn: Option<u64>,
    /// What counts and is not written down.
    imagined: Vec<Event>,
    /// Whether all of the history is known to be durable. At first it is not: a holder before
    /// us may have been killed between writing and syncing.
    durable: bool,
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
        Entry {
            locked,
            envelope,
            state,
            events,
            journal: None,
            torn,
            imagined: Vec::new(),
            durable: false,
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
        let disk = &self.locked.spool.disk;
        if self.journal.is_none() {
            let file = disk.open_append(&Info::Attempts.path(self.locked.id))?;
            if let Some(whole) = self.torn {
                disk.truncate(&file, whole)?;
                self.torn = None;
            }
            self.journal = Some(file);
        }
        match &self.journal {
            Some(file) if room > 0 => disk.reserve(file, room),
            _ => Ok(()),
        }
    }

    /// Writes an event down and lets it count. It is not durable before
    /// [`sync`](Entry::sync).
    pub fn record(&mut self, at: Timestamp, what: What) -> disk::Result<()> {
        let event = Event { at, what };
        self.write(&event)?;
        self.count(event);
        Ok(())
    }

    fn write(&mut self, event: &Event) -> disk::Result<()> {
        self.open_journal(0)?;
        if let Some(file) = &self.journal {
            self.locked.spool.disk.write_all(file, &event.line())?;
        }
        self.durable = false;
        Ok(())
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
            self.write(&event)?;
        }
        self.sync()
    }

    /// Makes everything recorded, by whomever, durable (commit point *recorded*). The directory
    /// too: who
    /// made the file may have been killed before he could.
    pub fn sync(&mut self) -> disk::Result<()> {
        self.open_journal(0)?;
        if let (Some(file), false) = (&self.journal, self.durable) {
            let dir = Path::new(Info::Attempts.dir());
            self.locked.spool.disk.durable(&[file], &[dir])?;
            self.durable = true;
        }
        Ok(())
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
        if !self.events.is_empty() {
            self.sync()?;
        }
        self.go(resting.into())
    }

    /// Holds a message whose outcome cannot be recorded, by its place alone.
    pub fn hold_unrecorded(mut self) -> disk::Result<()> {
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

/// Carries an action out on messages in hand, all of them durably (commit point *ordered*).
///
/// Two steps with a barrier behind each; one pair serves the whole batch. An action that holds
/// a message back is written down first: what stands in `frozen/` or `discarded/` always has
/// its reason in its history. One that lets it go moves it to `active/` first: a history that
/// says so while the message stands in `frozen/never/` would leave it where no run ever looks.
/// Whoever is killed between the two has done nothing: a message that is held, and one that is
/// not due, is put back by the next run.
pub fn apply(entries: &mut [Entry], at: Timestamp, action: &Action) -> disk::Result<()> {
    for entry in entries.iter_mut() {
        entry.open_journal(0)?;
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
    let journals: Vec<&File> = entries
        .iter()
        .filter_map(|one| one.journal.as_ref())
        .collect();
    let disk = &first.locked.spool.disk;
    disk.durable(&journals, &[Path::new(Info::Attempts.dir())])
}

fn move_all(entries: &mut [Entry], to: Place) -> disk::Result<()> {
    let mut dirs: Vec<PathBuf> = vec![to.dir()];
    for entry in entries.iter_mut() {
        dirs.push(entry.place().dir());
        entry.go(to)?;
    }
    let Some(first) = entries.first() else {
        return Ok(());
    };
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
