//! Checks of messages: each has one name, an intact file, a reason, and a next time.

use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;

use super::{Level, Look, Repair};
use crate::disk::{self, FILE_MODE, Kind, Stat};
use crate::message::{QueueId, SealHasher};
use crate::queue::{Action, Bucket, Hold, QueueUntil, What};
use crate::spool::{Content, Down, Listing, Located, Queue, View, ViewFault};

const IN_NEW: &str = "being accepted, or work for the next run";

impl Look<'_> {
    /// Checks every message that was seen.
    pub(super) fn messages(&mut self) {
        for (id, named) in std::mem::take(&mut self.seen) {
            let path = named.iter().min().map(|queue| queue.path(id));
            let path = path.unwrap_or_else(|| Queue::Active.path(id));
            let named = self.true_names(id, named);
            for queue in self.unless(&path, named).unwrap_or_default() {
                let looked = self.at(id, queue);
                self.unless(&queue.path(id), looked);
            }
        }
    }

    /// Returns the queues to check for a message: if one file has several names, only the latest. A power cut
    /// during a rename leaves two names; the next process to lock the message removes one.
    fn true_names(&mut self, id: QueueId, mut named: Vec<Queue>) -> disk::Result<Vec<Queue>> {
        if named.len() < 2 {
            return Ok(named);
        }
        named.sort_unstable();
        let mut there = Vec::new();
        let mut identities = Vec::new();
        for queue in &named {
            if let Some(stat) = self.spool.disk().stat(&queue.path(id))? {
                there.push(*queue);
                identities.push(stat.identity);
            }
        }
        // The message was seen in several queues because it moved. If it is gone from all of them, one is
        // enough to find it again.
        if there.is_empty() {
            named.truncate(1);
            return Ok(named);
        }
        if there.len() < 2 {
            return Ok(there);
        }
        // A notice may be written to `new/` again, and a power cut may bring back its predecessor in
        // `staged/`. A file in `new/` is never read, so it does not count as a second file.
        let (of_new, others) = (there[0] == Queue::New, identities[1]);
        if of_new && identities[0] != others {
            self.note(Queue::New.path(id), IN_NEW);
            there.remove(0);
            identities.remove(0);
            if there.len() < 2 {
                return Ok(there);
            }
        }
        let mut named = there;
        let names: Vec<&str> = named.iter().map(Queue::as_str).collect();
        let names = names.join(", ");
        if identities.windows(2).any(|pair| pair[0] != pair[1]) {
            let what = format!("different files of one id in {names}; remove all but one by hand");
            self.problem(named[0].path(id), what);
            return Ok(named);
        }
        let latest = named.split_off(named.len() - 1);
        for queue in &named {
            let kept = latest[0].path(id);
            let what = format!("one file with names in {names}");
            let repair = Some(Repair::OneName { kept });
            self.find(Level::Note, queue.path(id), what, repair);
        }
        Ok(latest)
    }

    /// Checks a message in the queue where it was seen, or in its present queue.
    fn at(&mut self, id: QueueId, mut queue: Queue) -> disk::Result<()> {
        /// A message that keeps moving is being processed, and is not checked.
        const MAX_MOVES: usize = 5;
        for _ in 0..MAX_MOVES {
            if let Some(stat) = self.spool.disk().stat(&queue.path(id))? {
                return self.file(id, queue, &stat);
            }
            match self.spool.locate(id)? {
                Located::At(now) => queue = now,
                Located::Absent | Located::Uncertain(_) => break,
            }
        }
        Ok(())
    }

    fn file(&mut self, id: QueueId, queue: Queue, stat: &Stat) -> disk::Result<()> {
        let path = queue.path(id);
        if stat.kind != Kind::File {
            self.note(
                path,
                "has a message's name, but is not a regular file; left alone",
            );
            return Ok(());
        }
        self.access(&path, stat, FILE_MODE);
        if !self.lets_in(stat) || self.barred.contains(&id) {
            return Ok(());
        }
        match queue {
            // Most likely being written now. Taking the lock would only disturb its writer.
            Queue::New => self.note(path, IN_NEW),
            Queue::Staged => {
                self.note(
                    path,
                    "a notice that its origin is about to record, or work for the next run",
                );
            }
            Queue::Done => self.note(path, "finished; the next run forgets it"),
            queue => {
                // The lock holders are listed only if needed, by `is_in_hand`.
                if let Some(view) = self.spool.view(id, queue, &Listing::default())? {
                    self.message(&view, stat)?;
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, view: &View, stat: &Stat) -> disk::Result<()> {
        // It moved there during the pass; its files are removed one by one.
        if let Queue::New | Queue::Staged | Queue::Done = view.queue {
            return Ok(());
        }
        let path = view.queue.path(view.id);
        if view.queue == Queue::Corrupt {
            match view
                .content
                .as_ref()
                .err()
                .filter(|reason| !reason.is_empty())
            {
                Some(reason) if self.spool.has_reason(view.id)? => {
                    self.note(path, format!("in quarantine: {reason}"));
                }
                // A power cut may have taken the reason.
                _ => {
                    let what = "in quarantine without a reason";
                    self.repairable(path, what, Repair::SayWhy);
                }
            }
            return Ok(());
        }
        let harm = match &view.content {
            Ok(_) => self.damage(view)?,
            Err(reason) => Some(reason.clone()),
        };
        match (harm, &view.content) {
            (Some(reason), _) => {
                let to = Queue::Corrupt.path(view.id);
                self.repairable(path, reason, Repair::Move { to });
            }
            (None, Ok(content)) => {
                let before = self.findings.len();
                self.standing(view, content);
                // A locked message is between two states.
                if self.findings.len() > before && self.is_in_hand(stat) {
                    self.findings.truncate(before);
                }
                self.shown(view, content)?;
            }
            (None, Err(_)) => {}
        }
        Ok(())
    }

    /// Compares the view with the envelope. No decision depends on the view, so a difference is a note.
    fn shown(&mut self, view: &View, content: &Content) -> disk::Result<()> {
        let faults = self.spool.view_faults(view.id, &content.envelope)?;
        // The message was finished meanwhile.
        if faults.is_empty() || self.spool.disk().stat(&view.queue.path(view.id))?.is_none() {
            return Ok(());
        }
        for (dir, fault) in faults {
            let path = Path::new(dir).join(view.id.to_string());
            let what = match fault {
                ViewFault::Missing => "is missing; it shows what is in the message file",
                ViewFault::Differs => "differs from the message file, and has no effect",
                ViewFault::NotAFile => {
                    self.note(
                        path,
                        "has a message's name, but is not a regular file; left alone",
                    );
                    continue;
                }
            };
            self.find(
                Level::Note,
                path,
                what,
                Some(Repair::Show { at: view.queue }),
            );
        }
        Ok(())
    }

    fn is_in_hand(&mut self, stat: &Stat) -> bool {
        let locked = self.locked.get_or_insert_with(disk::lock_holders);
        locked.contains_key(&stat.identity.1)
    }

    /// Checks that a waiting message has a reason, and a time at which a run processes it.
    fn standing(&mut self, view: &View, content: &Content) {
        let path = view.queue.path(view.id);
        let (queue, state) = (view.queue, &content.state);
        let to_active = Repair::Move {
            to: Queue::Active.path(view.id),
        };
        match (queue, &state.hold) {
            (Queue::Deferred(Bucket::Never) | Queue::Discarded(Bucket::Never), _) => {
                let what = "in a queue that no run reads: it has no next time";
                self.repairable(path, what, to_active);
            }
            // A hold ends in the history before the message is moved, and a power cut may revert the move.
            // The next run moves it again.
            (Queue::Frozen(Bucket::At(_)), Hold::None) if was_frozen(content) => {}
            (Queue::Frozen(_), Hold::None) => self.problem(
                path,
                "frozen, and its history does not say why: an outcome could not be recorded; \
                 check the disk, then `mailspool thaw` it",
            ),
            (_, Hold::Frozen { by, .. }) if by.reason.is_none() && by.by.is_empty() => {
                self.problem(
                    path,
                    "frozen, and its history names neither the operator nor a reason",
                );
            }
            (Queue::Discarded(_), hold) if !matches!(hold, Hold::Discarded { .. }) => {
                let what = "discarded, but its history does not record it";
                self.repairable(path, what, to_active);
            }
            (Queue::Deferred(bucket), Hold::None) => match state.next_due() {
                // If its destination is or was down, a message is deferred without an event.
                Some(next)
                    if Queue::from(QueueUntil::Deferred(next)) < Queue::Deferred(bucket)
                        && !may_be_put_off(bucket) =>
                {
                    // A power cut may have taken the record of its deferral. It is tried later than the
                    // history says, but within the longest delay.
                    let what = format!("due at {next}, but in the bucket {bucket}");
                    self.find(Level::Note, path, what, Some(to_active));
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Verifies every byte of a message against its seal.
    fn damage(&self, view: &View) -> disk::Result<Option<String>> {
        let (body, seal) = match self.spool.sealed_body(view.id, view.queue) {
            Ok(Some(both)) => both,
            Ok(None) => return Ok(None),
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hasher = SealHasher::new();
        let mut reader = body.reader();
        let mut chunk = vec![0; 64 << 10];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(got) => hasher.update(&chunk[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // If a read fails, it is unknown whether the message is damaged.
                Err(error) => {
                    return error
                        .downcast::<disk::Error>()
                        .map_or_else(|ended| Ok(Some(ended.to_string())), Err);
                }
            }
        }
        let intact = hasher.digest() == seal.message;
        Ok((!intact).then(|| "the message does not match its seal".to_owned()))
    }
}

fn was_frozen(content: &Content) -> bool {
    let mut events = content.events.iter().map(|event| &event.what);
    events.any(|what| match what {
        What::Action(Action::Freeze { .. }) => true,
        What::Fold(fold) => fold.frozen,
        _ => false,
    })
}

/// Whether a bucket is within the longest deferral of a message.
fn may_be_put_off(bucket: Bucket) -> bool {
    let furthest = Timestamp::now().saturating_add(Down::LONGEST);
    match (bucket.due(), furthest) {
        (Some(due), Ok(furthest)) => Bucket::for_time(furthest)
            .due()
            .is_some_and(|last| due <= last),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Spool;

    /// Each returned queue is checked, so a message that is gone must yield a single one.
    #[test]
    fn a_message_gone_from_every_queue_keeps_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let id = QueueId::new(Timestamp::UNIX_EPOCH, [1; 10]);
        let seen = [Queue::New, Queue::Incoming, Queue::Active, Queue::Done];
        for count in 1..=seen.len() {
            let mut look = Look::new(&spool, 0);
            let names = look.true_names(id, seen[..count].to_vec()).unwrap();
            assert_eq!((names.len(), look.findings.len()), (1, 0), "of {count}");
        }
    }
}
