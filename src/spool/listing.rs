//! The messages of a spool, and what is shown of each, without locks.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use jiff::Timestamp;

use super::Spool;
use super::files::{LISTED, is_marked, read_head};
use super::layout::{Info, Queue, reason_path};
use super::locate::{Doubt, Located};
use super::scan::or_note;
use crate::disk::{self, Kind, Stat};
use crate::message::{Block, Envelope, QueueId, Seal};
use crate::queue::{Event, State};

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
}
