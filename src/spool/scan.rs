//! Reading without locks: which messages exist, and where each is.
//!
//! Nothing here takes a lock, so nothing here can make a runner skip a message.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use super::Spool;
use super::files::{LISTED, is_marked, read_head};
use super::layout::{BucketQueue, Info, Queue, reason_path};
use crate::disk::{self, Body, File, Kind, Stat};
use crate::message::{Block, Envelope, QueueId, Seal};
use crate::queue::{Bucket, Event, State};

/// The messages of a spool and the queue of each, as of the listing.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of acceptance. A message that exists throughout the listing is here exactly once, even if
    /// it moves meanwhile.
    pub messages: Vec<(QueueId, Queue)>,
    /// Messages that exist, but were not found in any readable queue.
    pub unplaced: Vec<QueueId>,
    /// What could not be read.
    pub unread: Vec<disk::Error>,
    /// Inodes with a lock, and the holders, determined at first use: while the kernel lists its locks, which
    /// takes long, no process can take or release a lock.
    locked: OnceLock<HashMap<u64, u32>>,
}

/// Where a message is, as determined without its lock.
#[derive(Debug)]
#[must_use]
pub enum Located {
    /// In this queue, at the time of the check.
    At(Queue),
    /// Nowhere: it never existed, or it is forgotten.
    Absent,
    /// Not found, but it may exist: the caller must not act as if it were gone.
    Uncertain(Doubt),
}

/// Why it is uncertain where a message is.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// It exists, and was moved each time before its queue was checked.
    #[error("it is moving between queues")]
    Moving,
    /// It may be in a directory that could not be read.
    #[error(transparent)]
    Unread(#[from] disk::Error),
}

impl Located {
    /// The queue in which it was found.
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
    /// The queue that it was in.
    pub queue: Queue,
    /// Octets of its file.
    pub size: u64,
    /// The process on this host that works on it; for display only.
    pub process: Option<u32>,
    /// When it was marked as in use, by the file's change time; for display only.
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
    /// The sender, the recipients, and the parameters of the submission.
    pub envelope: Envelope,
    /// The state of each recipient and of the message.
    pub state: State,
    /// The recorded events.
    pub events: Vec<Event>,
}

/// The seal and content read from a message, or why they cannot be read.
type Read = Result<(Seal, Content), String>;

impl Listing {
    /// The messages in `deferred/` that are due before a time.
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
    /// The ids of the message files in a queue, oldest first. Other names, such as an editor's backup or a
    /// `.nfs` file, are ignored.
    pub fn ids_in(&self, queue: Queue) -> disk::Result<Vec<QueueId>> {
        match self.ids_below(&queue.dir()) {
            // A file or a symbolic link with a bucket's name holds no messages; `check` reports it.
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

    /// All names in a directory; empty if it does not exist.
    pub fn names_in(&self, dir: &Path) -> disk::Result<Vec<OsString>> {
        match self.disk.list(dir) {
            Err(error) if error.is_absent() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The existing buckets, earliest first. A symbolic link with a bucket's name is ignored: it would lead
    /// to messages outside the spool.
    pub fn buckets(&self, kept: BucketQueue) -> disk::Result<Vec<Bucket>> {
        let mut unread = Vec::new();
        let buckets = self.buckets_there(kept, &mut unread);
        match unread.into_iter().next() {
            None => Ok(buckets),
            Some(error) => Err(error),
        }
    }

    /// Like [`buckets`](Spool::buckets), but returns those that can be read, and adds the errors to `unread`.
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

    /// Reads the envelope block of a message without its lock. Returns `None` if the block cannot be trusted.
    /// The mutable parts may have changed since.
    ///
    /// # Errors
    /// If the message is not there, or cannot be read.
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

    /// Returns the `stat` of a message file, or `None` if it is not in that queue.
    pub(super) fn stat_in(&self, queue: Queue, id: QueueId) -> disk::Result<Option<Stat>> {
        match self.disk.stat(&queue.path(id)) {
            // As in `ids_in`.
            Err(error) if queue.bucket_parent().is_some() && error.is_wrong_kind() => Ok(None),
            other => other,
        }
    }

    /// Returns where a message is now.
    ///
    /// # Errors
    /// If the view cannot be checked for the message.
    pub fn locate(&self, id: QueueId) -> disk::Result<Located> {
        /// Most passes for a message that the view lists: each pass may miss it while it moves.
        const MAX_LOOKS: usize = 5;
        /// Fewest passes before a message counts as absent. The view may be lost, so a message missing from
        /// it may still exist.
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

    /// Returns where a message is, for a caller that acts irrevocably if it is gone.
    ///
    /// A power cut may leave the view of a message that was never durable or is forgotten; then
    /// [`locate`](Spool::locate) stays uncertain forever. A pass misses a message only if the message is
    /// renamed meanwhile. No message is renamed during each of so many passes with pauses between them,
    /// because after an attempt it rests for a minute. If a queue could not be read, the result stays
    /// uncertain.
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

    /// Lists the messages, and what could not be read.
    ///
    /// The queues are read in the order in which a message passes through them. `info/sender/` shows which
    /// messages were missed because they moved: its files never move, so its listing includes every message
    /// that exists throughout. Missed messages are located again. The view may have lost an entry, so the
    /// queues are read a second time for messages that it does not list: a message that moves against the
    /// order is missed in one pass, and no message moves so in both.
    ///
    /// Only ids and queues are kept, 40 octets per message (56 during the listing), because there may be a
    /// million: [`view`](Spool::view) reads the rest, one message at a time.
    pub fn listing(&self) -> Listing {
        let (mut moved, mut unplaced, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let known = self.ids_below(Path::new(Info::Sender.dir()));
        let known = or_note(known, &mut unread);
        let mut messages = self.ids_with_places(&mut unread, |_| true);
        let is_unseen = |messages: &[(QueueId, Queue)], id: &QueueId| {
            let is_found = messages.binary_search_by_key(id, |(id, _)| *id).is_ok();
            !is_found && known.binary_search(id).is_err()
        };
        // The first pass has reported what could not be read.
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
            // The view does not list it: it is gone meanwhile, or its view is lost.
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

    /// Returns the messages of [`listing`](Spool::listing), all of them or none.
    ///
    /// # Errors
    /// The first error of the listing.
    #[cfg(feature = "testing")]
    pub fn messages(&self) -> disk::Result<Vec<(QueueId, Queue)>> {
        let listing = self.listing();
        match listing.unread.into_iter().next() {
            None => Ok(listing.messages),
            Some(error) => Err(error),
        }
    }

    /// Returns the wanted messages in all queues, sorted by id. If a message is seen twice, the later queue
    /// is returned.
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
        // The sort is stable.
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

    /// Calls `look` for every readable queue, in the order in which messages pass through them, so that one
    /// rename in that order hides no message. Buckets are therefore listed after the queues from which
    /// messages move into new buckets.
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

    /// Reads a message without its lock. Returns `None` if it is gone. The seal is not checked against the
    /// message's octets: the process that delivers it and `check` do that.
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

    /// Whether a message in quarantine has a reason.
    pub fn has_reason(&self, id: QueueId) -> disk::Result<bool> {
        let stat = self.disk.stat(&reason_path(id))?;
        Ok(stat.is_some_and(|stat| stat.kind == Kind::File && stat.size > 0))
    }

    /// Returns the content of a message's files, or why they are not a message. System errors are returned as
    /// `Err`.
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
        // Use one descriptor at a time: the limit may not allow a second.
        drop(file);
        let content = match head {
            Ok(head) => self.content(head.block, &stat)?,
            Err(reason) => Err(reason),
        };
        Ok((stat, content))
    }

    /// Returns why a message is in quarantine, or why the reason cannot be read.
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

    /// Returns a message's octets and its seal, without taking its lock; `None` if its envelope block cannot
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

    /// Returns the octets of a message, without taking its lock: what follows the envelope block, or the
    /// whole file if it has no valid block.
    pub fn body(&self, id: QueueId, queue: Queue) -> disk::Result<Body> {
        if let Some((body, _)) = self.sealed_body(id, queue)? {
            return Ok(body);
        }
        let (file, stat) = self.open_message(id, queue)?;
        Ok(Body::new(self.disk.clone(), Arc::new(file), 0, stat.size))
    }
}

/// Returns the result, or a default after adding the error to `unread`.
fn or_note<T: Default>(read: disk::Result<T>, unread: &mut Vec<disk::Error>) -> T {
    read.unwrap_or_else(|error| {
        unread.push(error);
        T::default()
    })
}

fn parsed<T: FromStr>(name: &OsStr) -> Option<T> {
    name.to_str()?.parse().ok()
}
