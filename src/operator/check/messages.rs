//! Every message: one name, a file that is whole, a reason, and a next time.

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
    /// Every message that was seen.
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

    /// The names that are to be looked at: of several names of one file only the latest. A power
    /// cut in a rename leaves such; whoever takes the message next settles it.
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
        // Seen in two places because it moved while we looked. Gone from all of them: from one it
        // is followed.
        if there.is_empty() {
            named.truncate(1);
            return Ok(named);
        }
        if there.len() < 2 {
            return Ok(there);
        }
        // A notice is written in `new/` again while a power cut may still bring back the one before it from
        // `staged/`. What is in `new/` is never read, so it is no other file of the message.
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
            let what = format!("different files of one id in {names}; one must go, by hand");
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

    /// Looks at a message where it was seen, or where it has gone since.
    fn at(&mut self, id: QueueId, mut queue: Queue) -> disk::Result<()> {
        /// One that moves all the time is well.
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
            self.note(path, "has a message's name, and is no file; left alone");
            return Ok(());
        }
        self.access(&path, stat, FILE_MODE);
        if !self.lets_in(stat) || self.barred.contains(&id) {
            return Ok(());
        }
        match queue {
            // Being written, at this moment, most likely; the lock would disturb nobody but it.
            Queue::New => self.note(path, IN_NEW),
            Queue::Staged => {
                self.note(
                    path,
                    "a notice that its origin is about to record, or work for the next run",
                );
            }
            Queue::Done => self.note(path, "finished; the next run forgets it"),
            queue => {
                // Who is at work is asked only if it matters.
                if let Some(view) = self.spool.view(id, queue, &Listing::default())? {
                    self.message(&view, stat)?;
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, view: &View, stat: &Stat) -> disk::Result<()> {
        // It went there while we looked: its files go one by one.
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
                    let what = "in quarantine, and nothing says why";
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
                // What somebody has in hand is between two states.
                if self.findings.len() > before && self.is_in_hand(stat) {
                    self.findings.truncate(before);
                }
                self.shown(view, content)?;
            }
            (None, Err(_)) => {}
        }
        Ok(())
    }

    /// Whether the view shows the envelope. Nothing decides by it, so that is worth a note.
    fn shown(&mut self, view: &View, content: &Content) -> disk::Result<()> {
        let faults = self.spool.view_faults(view.id, &content.envelope)?;
        // It was finished while we looked.
        if faults.is_empty() || self.spool.disk().stat(&view.queue.path(view.id))?.is_none() {
            return Ok(());
        }
        for (dir, fault) in faults {
            let path = Path::new(dir).join(view.id.to_string());
            let what = match fault {
                ViewFault::Missing => "is missing, and shows what is in the message file",
                ViewFault::Differs => "is not what the message file says, and has no effect",
                ViewFault::NotAFile => {
                    self.note(path, "has a message's name, and is no file; left alone");
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

    /// Whether a message that rests has a reason, and a time at which somebody looks at it.
    fn standing(&mut self, view: &View, content: &Content) {
        let path = view.queue.path(view.id);
        let (queue, state) = (view.queue, &content.state);
        let to_active = Repair::Move {
            to: Queue::Active.path(view.id),
        };
        match (queue, &state.hold) {
            (Queue::Deferred(Bucket::Never) | Queue::Discarded(Bucket::Never), _) => {
                let what = "stands where no run ever looks: it has no next time";
                self.repairable(path, what, to_active);
            }
            // The end of a hold comes before the message is moved, and a power cut may take the
            // move back: the next run sees to that.
            (Queue::Frozen(Bucket::At(_)), Hold::None) if was_frozen(content) => {}
            (Queue::Frozen(_), Hold::None) => self.problem(
                path,
                "frozen, and its history does not say why: an outcome could not be recorded; \
                 see to the disk, then `mailspool thaw` it",
            ),
            (_, Hold::Frozen { by, .. }) if by.reason.is_none() && by.by.is_empty() => {
                self.problem(path, "frozen, and its history does not say by whom or why");
            }
            (Queue::Discarded(_), hold) if !matches!(hold, Hold::Discarded { .. }) => {
                let what = "discarded, and its history does not say by whom";
                self.repairable(path, what, to_active);
            }
            (Queue::Deferred(bucket), Hold::None) => match state.next_due() {
                // Where its destination is down, or was, a message is put off without an event.
                Some(next)
                    if Queue::from(QueueUntil::Deferred(next)) < Queue::Deferred(bucket)
                        && !may_be_put_off(bucket) =>
                {
                    // A power cut may have taken the record of its deferral: it is tried later than the
                    // history says, and never later than the longest delay.
                    let what = format!("due at {next}, but stands in the bucket {bucket}");
                    self.find(Level::Note, path, what, Some(to_active));
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Reads every byte of a message against its seal.
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
                // What the system does not let us read is neither right nor damaged.
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

/// Whether a bucket is not further ahead than messages are ever put off.
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

    /// Each name that is kept is a look at the message, with what that finds.
    #[test]
    fn of_who_moved_on_from_everywhere_one_name_is_kept() {
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
