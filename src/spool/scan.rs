//! Looking without touching: which messages there are, and where each stands.
//!
//! Nothing here takes a lock, so nothing here can make a runner pass a message over.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use super::layout::{Info, reason_path};
use super::lock::{LISTED, is_marked, read_head};
use super::{BucketQueue, Queue, Spool};
use crate::disk::{self, Body, File, Kind, Stat};
use crate::message::{Block, Envelope, QueueId, Seal};
use crate::queue::{Bucket, Event, State};

/// The messages of a spool and where each was when it was looked at.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of acceptance. A message that is present throughout the listing is here
    /// exactly once, however it moves meanwhile.
    pub messages: Vec<(QueueId, Queue)>,
    /// Messages that exist and were not found where we could look.
    pub unplaced: Vec<QueueId>,
    /// What could not be looked at.
    pub unread: Vec<disk::Error>,
    /// Inodes that somebody holds a lock on, once somebody wants to know: while the kernel lists
    /// its locks nobody on the machine can take or drop one, and that lasts.
    locked: OnceLock<HashMap<u64, u32>>,
}

/// Where a message stands, as far as a look without its lock can say.
#[derive(Debug)]
#[must_use]
pub enum Located {
    /// There, a moment ago.
    At(Queue),
    /// Nowhere: it never was, or it is forgotten.
    Absent,
    /// It was not found, and that does not mean that it is gone: nothing that follows from its end
    /// may be done.
    Uncertain(Doubt),
}

/// Why it is not certain where a message stands.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// It exists, and moved on each time before we came to where it was.
    #[error("it is on the move")]
    Moving,
    /// It may stand where we could not look.
    #[error(transparent)]
    Unread(#[from] disk::Error),
}

impl Located {
    /// Where it was found.
    pub fn queue(&self) -> Option<Queue> {
        match self {
            Located::At(queue) => Some(*queue),
            Located::Absent | Located::Uncertain(_) => None,
        }
    }
}

/// What can be read of a message without its lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The message.
    pub id: QueueId,
    /// Where it stood.
    pub queue: Queue,
    /// Octets of its file.
    pub size: u64,
    /// The process of this host that works on it; for people only.
    pub process: Option<u32>,
    /// Since when it has been in use, by the file's change time; for people only.
    pub since: Option<Timestamp>,
    /// Its envelope, state and history, or why they cannot be read.
    pub content: Result<Content, String>,
}

impl View {
    /// Whether a process works on it.
    pub fn in_progress(&self) -> bool {
        self.process.is_some()
    }
}

/// A message's envelope, state and history.
#[derive(Clone, Debug)]
pub struct Content {
    /// Who sent it to whom.
    pub envelope: Envelope,
    /// Where everybody stands.
    pub state: State,
    /// What happened.
    pub events: Vec<Event>,
}

/// What was read of a message, or why it cannot be read.
type Read = Result<(Seal, Content), String>;

impl Listing {
    /// Those in `deferred/` that are due before a time.
    #[cfg(feature = "testing")]
    pub fn deferred_before(&self, time: Timestamp) -> impl Iterator<Item = (QueueId, Queue)> {
        let due = move |queue: &Queue| match queue {
            Queue::Deferred(bucket) => bucket.due().is_some_and(|due| due < time),
            _ => false,
        };
        self.messages
            .iter()
            .copied()
            .filter(move |(_, queue)| due(queue))
    }
}

impl Spool {
    /// The ids of the message files in a place, oldest first. Names that are no ids are not
    /// ours: an editor's leftover, a `.nfs` file. They are left alone.
    pub fn ids_in(&self, queue: Queue) -> disk::Result<Vec<QueueId>> {
        match self.ids_below(&queue.dir()) {
            // A file or a link with a bucket's name holds no messages; `check` reports it.
            Err(error) if queue.bucket_parent().is_some() && error.is_wrong_kind() => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    pub(super) fn ids_below(&self, dir: &Path) -> disk::Result<Vec<QueueId>> {
        let mut ids = match self.disk.list_as(dir, parsed) {
            Err(error) if error.is_absent() => Vec::new(),
            other => other?,
        };
        ids.sort_unstable();
        Ok(ids)
    }

    /// All names in a directory; none if it is gone.
    pub fn names_in(&self, dir: &Path) -> disk::Result<Vec<OsString>> {
        match self.disk.list(dir) {
            Err(error) if error.is_absent() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The buckets there are, earliest first. A link with a bucket's name is none: it would lead
    /// us to messages that are not in this spool.
    pub fn buckets(&self, kept: BucketQueue) -> disk::Result<Vec<Bucket>> {
        let mut unread = Vec::new();
        let buckets = self.buckets_there(kept, &mut unread);
        match unread.into_iter().next() {
            None => Ok(buckets),
            Some(error) => Err(error),
        }
    }

    /// The same as far as they can be seen, and what cannot.
    pub fn buckets_there(&self, kept: BucketQueue, unread: &mut Vec<disk::Error>) -> Vec<Bucket> {
        let names = or_note(self.names_in(Path::new(kept.as_str())), unread);
        let mut buckets = Vec::with_capacity(names.len());
        for bucket in names.iter().filter_map(|name| parsed(name)) {
            let stat = or_note(self.disk.stat(&kept.queue(bucket).dir()), unread);
            if stat.is_some_and(|stat| stat.kind == Kind::Dir) {
                buckets.push(bucket);
            }
        }
        buckets
    }

    /// The envelope block of a message, read without its lock; none if it cannot be trusted. What changes
    /// in it is as it was a moment ago.
    ///
    /// # Errors
    /// If it is not there, or the system does not let us read it.
    pub fn peek(&self, id: QueueId, queue: Queue) -> disk::Result<Option<Block>> {
        let (file, stat) = match self.open_message(id, queue) {
            Err(error) if error.is_wrong_kind() => return Ok(None),
            other => other?,
        };
        let head = read_head(&self.disk, &file, id, stat.size, LISTED)?;
        Ok(head.ok().map(|head| head.block))
    }

    fn open_message(&self, id: QueueId, queue: Queue) -> disk::Result<(File, Stat)> {
        let file = self.disk.open_read(&queue.path(id))?;
        let stat = self.disk.stat_file(&file)?;
        Ok((file, stat))
    }

    /// Asks about a message file; none if it is not in that place.
    pub(super) fn stat_in(&self, queue: Queue, id: QueueId) -> disk::Result<Option<Stat>> {
        match self.disk.stat(&queue.path(id)) {
            // As with `ids_in`.
            Err(error) if queue.bucket_parent().is_some() && error.is_wrong_kind() => Ok(None),
            other => other,
        }
    }

    /// Where a message stands now.
    ///
    /// # Errors
    /// If it cannot be asked whether the view has it.
    pub fn locate(&self, id: QueueId) -> disk::Result<Located> {
        /// A message that is on the move may be missed: one that the view has is looked for so often.
        const MAX_LOOKS: usize = 5;
        /// The view may be lost, so that it has no message is no answer to one look.
        const LEAST_LOOKS: usize = 2;
        let mut unread = Vec::new();
        for look in 1..=MAX_LOOKS {
            unread.clear();
            let found = self.walk(&mut unread, |queue, unread| {
                match or_note(self.stat_in(queue, id), unread) {
                    Some(_) => ControlFlow::Break(queue),
                    None => ControlFlow::Continue(()),
                }
            });
            if let ControlFlow::Break(queue) = found {
                return Ok(Located::At(queue));
            }
            match (self.is_in_view(id)?, unread.is_empty()) {
                (true, _) => {}
                (false, false) => break,
                (false, true) if look < LEAST_LOOKS => {}
                (false, true) => return Ok(Located::Absent),
            }
        }
        let doubt = unread
            .into_iter()
            .next()
            .map_or(Doubt::Moving, Doubt::Unread);
        Ok(Located::Uncertain(doubt))
    }

    /// Where a message stands, for a caller that does something final if it is gone.
    ///
    /// A power cut may leave a view whose message never was durable, or is forgotten; that is
    /// what makes [`locate`](Spool::locate) uncertain for ever. Each look misses a message only if
    /// it is renamed meanwhile, and no message is renamed in each of so many looks, with pauses:
    /// after an attempt it rests for a minute. Where a place could not be read it stays uncertain.
    pub fn locate_for_good(&self, id: QueueId) -> disk::Result<Located> {
        const ROUNDS: usize = 3;
        const PAUSE: Duration = Duration::from_millis(10);
        for round in 0..ROUNDS {
            if round > 0 {
                std::thread::sleep(self.disk.patience(PAUSE));
            }
            match self.locate(id)? {
                Located::Uncertain(Doubt::Moving) => {}
                other => return Ok(other),
            }
        }
        Ok(Located::Absent)
    }

    /// The messages there are, and what could not be looked at.
    ///
    /// The places are looked through in the order of a message's way. `info/sender/` says which messages
    /// were missed because they were on the move: its files never move, so a listing of it shows each one
    /// that is there throughout. Those are looked for again. The view may have lost one, so the places are looked
    /// through a second time for those that it does not show: what moves against the order is missed in one
    /// look, and no message moves so in both.
    ///
    /// Only ids and places are kept, 40 octets a message (56 while it is made), because there may be
    /// a million: [`view`](Spool::view) reads the rest, one message at a time.
    pub fn listing(&self) -> Listing {
        let (mut moved, mut unplaced, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let known = self.ids_below(Path::new(Info::Sender.dir()));
        let known = or_note(known, &mut unread);
        let mut messages = self.ids_with_places(&mut unread, |_| true);
        let is_unseen = |messages: &[(QueueId, Queue)], id: &QueueId| {
            let is_found = messages.binary_search_by_key(id, |(id, _)| *id).is_ok();
            !is_found && known.binary_search(id).is_err()
        };
        // What could not be read is known from the first look.
        let again = self.ids_with_places(&mut Vec::new(), |id| is_unseen(&messages, id));
        if !again.is_empty() {
            messages.extend(again);
            messages.sort_unstable_by_key(|(id, _)| *id);
        }
        let all_read = unread.is_empty();
        let is_found = |id: &QueueId| messages.binary_search_by_key(id, |(id, _)| *id).is_ok();
        for id in known.iter().copied().filter(|id| !is_found(id)) {
            match self.locate(id) {
                Ok(Located::At(queue)) => moved.push((id, queue)),
                Ok(Located::Absent) => {}
                Ok(Located::Uncertain(doubt)) => {
                    unplaced.push(id);
                    if let (Doubt::Unread(error), true) = (doubt, all_read) {
                        unread.push(error);
                    }
                }
                Err(error) => unread.push(error),
            }
        }
        messages.retain_mut(|(id, queue)| {
            if known.binary_search(id).is_ok() {
                return true;
            }
            // The view does not have it: it is gone in the meantime, or its view is lost.
            match or_note(self.stat_in(*queue, *id), &mut unread) {
                Some(stat) => stat.kind == Kind::File,
                None => match self.locate(*id) {
                    Ok(Located::At(now)) => {
                        *queue = now;
                        true
                    }
                    Ok(Located::Absent) => false,
                    Ok(Located::Uncertain(_)) => {
                        unplaced.push(*id);
                        false
                    }
                    Err(error) => {
                        unread.push(error);
                        false
                    }
                },
            }
        });
        messages.append(&mut moved);
        messages.retain(|(_, queue)| !matches!(queue, Queue::New | Queue::Staged | Queue::Done));
        messages.sort_unstable_by_key(|(id, _)| *id);
        Listing {
            messages,
            unplaced,
            unread,
            locked: OnceLock::new(),
        }
    }

    /// The messages of [`listing`](Spool::listing), all of them or none.
    ///
    /// # Errors
    /// Of the first thing that could not be looked at.
    #[cfg(feature = "testing")]
    pub fn messages(&self) -> disk::Result<Vec<(QueueId, Queue)>> {
        let listing = self.listing();
        match listing.unread.into_iter().next() {
            None => Ok(listing.messages),
            Some(error) => Err(error),
        }
    }

    /// Some of the messages in all places, sorted by their ids. Of a message that is seen twice the place
    /// counts in which it is seen last.
    fn ids_with_places(
        &self,
        unread: &mut Vec<disk::Error>,
        is_wanted: impl Fn(&QueueId) -> bool,
    ) -> Vec<(QueueId, Queue)> {
        let mut messages: Vec<(QueueId, Queue)> = Vec::new();
        let _ = self.walk(unread, |queue, unread| {
            let ids = or_note(self.ids_in(queue), unread);
            let wanted = ids.into_iter().filter(&is_wanted);
            messages.extend(wanted.map(|id| (id, queue)));
            ControlFlow::<()>::Continue(())
        });
        // The sort keeps their order.
        messages.sort_by_key(|(id, _)| *id);
        messages.dedup_by(|last, before| {
            let is_same = last.0 == before.0;
            if is_same {
                before.1 = last.1;
            }
            is_same
        });
        messages
    }

    /// Looks at every place a message file may stand in, as far as they can be seen, in the order of a
    /// message's way: one rename along it hides no message. So buckets are listed after the places from which
    /// messages come into new ones.
    fn walk<T>(
        &self,
        unread: &mut Vec<disk::Error>,
        mut look: impl FnMut(Queue, &mut Vec<disk::Error>) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        let is_end = |queue: &Queue| matches!(queue, Queue::Corrupt | Queue::Done);
        for queue in Queue::FIXED.into_iter().filter(|queue| !is_end(queue)) {
            look(queue, unread)?;
        }
        for kept in BucketQueue::ALL {
            for bucket in self.buckets_there(kept, unread) {
                look(kept.queue(bucket), unread)?;
            }
        }
        for queue in Queue::FIXED.into_iter().filter(is_end) {
            look(queue, unread)?;
        }
        ControlFlow::Continue(())
    }

    /// Reads a message without its lock; none if it is gone. The seal is not checked against
    /// the message's octets: that is for the process that delivers it, and for `check`.
    pub fn view(&self, id: QueueId, queue: Queue, listing: &Listing) -> disk::Result<Option<View>> {
        let mut queue = queue;
        let (stat, content) = loop {
            match self.look_at(id, queue) {
                Err(error) if error.is_absent() => {}
                other => break other?,
            }
            match self.locate(id)? {
                Located::At(now) => queue = now,
                Located::Absent => return Ok(None),
                Located::Uncertain(Doubt::Unread(error)) => return Err(error),
                Located::Uncertain(Doubt::Moving) => {}
            }
        };
        let (size, content) = match content {
            Ok((seal, content)) => (seal.size, Ok(content)),
            Err(reason) => (stat.size, Err(reason)),
        };
        Ok(Some(View {
            id,
            queue,
            size,
            process: listing
                .locked
                .get_or_init(disk::lock_holders)
                .get(&stat.identity.1)
                .copied(),
            since: is_marked(&stat)
                .then(|| Timestamp::from_second(stat.changed).ok())
                .flatten(),
            content,
        }))
    }

    /// Whether something says why a message is in quarantine.
    pub fn has_reason(&self, id: QueueId) -> disk::Result<bool> {
        let stat = self.disk.stat(&reason_path(id))?;
        Ok(stat.is_some_and(|stat| stat.kind == Kind::File && stat.size > 0))
    }

    /// What is in a message's files, or why that is no message. Trouble of the system's is
    /// neither.
    fn look_at(&self, id: QueueId, queue: Queue) -> disk::Result<(Stat, Read)> {
        let (file, stat) = match self.open_message(id, queue) {
            Err(error) if error.is_wrong_kind() => {
                let stat = self.disk.stat(&queue.path(id))?;
                let stat = stat.ok_or(error)?;
                return Ok((
                    stat,
                    Err("the message file is not a regular file".to_owned()),
                ));
            }
            other => other?,
        };
        if queue == Queue::Corrupt {
            drop(file);
            return Ok((stat, Err(self.reason(id)?)));
        }
        if stat.kind != Kind::File {
            return Ok((
                stat,
                Err("the message file is not a regular file".to_owned()),
            ));
        }
        let head = read_head(&self.disk, &file, id, stat.size, LISTED)?;
        // One descriptor at a time: there may be no second one.
        drop(file);
        let content = match head {
            Ok(head) => self.content(head.block, &stat)?,
            Err(reason) => Err(reason),
        };
        Ok((stat, content))
    }

    /// Why a message is in quarantine, or why that cannot be said.
    fn reason(&self, id: QueueId) -> disk::Result<String> {
        match self.disk.read_all(&reason_path(id), 64 << 10) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) if error.is_absent() || error.is_wrong_kind() => Ok(error.to_string()),
            Err(error) => Err(error),
        }
    }

    fn content(&self, block: Block, stat: &Stat) -> disk::Result<Result<(Seal, Content), String>> {
        let id = block.id;
        let events = match self.read_history(id)? {
            Ok(found) => found.history.events,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut state = State::read(&block, &events);
        state.in_use = is_marked(stat);
        let content = Content {
            envelope: block.envelope,
            state,
            events,
        };
        Ok(Ok((block.seal, content)))
    }

    /// A message's octets and its seal, read without its lock; none if it has no envelope block that can
    /// be trusted.
    pub fn sealed_body(&self, id: QueueId, queue: Queue) -> disk::Result<Option<(Body, Seal)>> {
        let (file, stat) = self.open_message(id, queue)?;
        let head = read_head(&self.disk, &file, id, stat.size, LISTED)?;
        Ok(head.ok().map(|head| {
            let Seal { block, size, .. } = head.block.seal;
            let body = Body::new(self.disk.clone(), Arc::new(file), block, size);
            (body, head.block.seal)
        }))
    }

    /// The octets of a message, read without its lock: what comes after its envelope block, or all of a file
    /// that has none.
    pub fn body(&self, id: QueueId, queue: Queue) -> disk::Result<Body> {
        if let Some((body, _)) = self.sealed_body(id, queue)? {
            return Ok(body);
        }
        let (file, stat) = self.open_message(id, queue)?;
        Ok(Body::new(self.disk.clone(), Arc::new(file), 0, stat.size))
    }
}

/// What was read, or nothing and a note of why not.
fn or_note<T: Default>(read: disk::Result<T>, unread: &mut Vec<disk::Error>) -> T {
    read.unwrap_or_else(|error| {
        unread.push(error);
        T::default()
    })
}

fn parsed<T: FromStr>(name: &OsStr) -> Option<T> {
    name.to_str()?.parse().ok()
}
