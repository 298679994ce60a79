//! What a repair does about a finding: under the lock, and only if it is still so.

use std::path::Path;

use super::{Finding, Repair};
use crate::disk::{self, Kind, Stat};
use crate::message::QueueId;
use crate::spool::{Claim, Entry, Leftover, Located, Queue, RELEASES, Spool, Unreadable};

/// Mends a finding; false if it was not so any more, or somebody has it in hand.
pub(super) fn repair(spool: &Spool, finding: &Finding) -> disk::Result<bool> {
    let path = &finding.path;
    match &finding.repair {
        None => Ok(false),
        Some(Repair::Chmod { mode }) => {
            let stat = spool.disk().stat(path)?;
            let ours =
                |stat: Stat| stat.kind == Kind::Dir || stat.kind == Kind::File && stat.links == 1;
            if stat.is_some_and(ours) {
                spool.disk().chmod(path, *mode).map(|()| true)
            } else {
                Ok(false)
            }
        }
        Some(Repair::Remove) if path.extension().is_some_and(|end| end == "part") => {
            Ok(spool.leftover(path, true)? == Leftover::Dead)
        }
        Some(Repair::Remove) if path.starts_with("keys") => spool.is_damaged_key(path, true),
        Some(Repair::Remove) if path.starts_with("info") => match id_of(path) {
            Some(id) => spool.remove_stray_view(id),
            None => Ok(false),
        },
        Some(Repair::Show { at }) => match id_of(path) {
            Some(id) => show(spool, id, *at),
            None => Ok(false),
        },
        // The message that it made wait may have been mended before it. It is not needed.
        Some(Repair::Remove) if path == Path::new(RELEASES) => spool.forget_releases(),
        Some(Repair::Remove) => spool.is_damaged_down(path, true),
        Some(Repair::SayWhy) => match standing_at(spool, path)? {
            Some((queue, id)) => Ok(quarantine(spool, queue, id)? || acquit(spool, queue, id)?),
            None => Ok(false),
        },
        Some(Repair::OneName { .. }) => match standing_at(spool, path)? {
            // Taking the lock settles the names.
            Some((queue, id)) => Ok(!matches!(spool.lock(queue, id)?, Claim::Busy)),
            None => Ok(false),
        },
        Some(Repair::Move { to }) => match standing_at(spool, path)? {
            Some((queue, id)) if to.starts_with("corrupt") => quarantine(spool, queue, id),
            Some((queue, id)) => activate(spool, queue, id),
            None => move_aside(spool, path, to),
        },
    }
}

/// Writes the view of a message that was seen there. It may have been moved by a repair before this one.
fn show(spool: &Spool, id: QueueId, at: Queue) -> disk::Result<bool> {
    if spool.repair_view(id, at)? {
        return Ok(true);
    }
    match spool.locate(id)? {
        Located::At(now) if now != at => spool.repair_view(id, now),
        _ => Ok(false),
    }
}

/// The message whose file has this path, and does not lie behind a link.
fn standing_at(spool: &Spool, path: &Path) -> disk::Result<Option<(Queue, QueueId)>> {
    let id = id_of(path);
    let queue = path.parent().and_then(Queue::of_dir);
    let (Some(id), Some(queue)) = (id, queue) else {
        return Ok(None);
    };
    let dir = spool.disk().stat(&queue.dir())?;
    let is_dir = dir.is_some_and(|stat| stat.kind == Kind::Dir);
    Ok(is_dir.then_some((queue, id)))
}

fn id_of(path: &Path) -> Option<QueueId> {
    path.file_name()?.to_str()?.parse().ok()
}

fn quarantine(spool: &Spool, queue: Queue, id: QueueId) -> disk::Result<bool> {
    let Claim::Locked(locked) = spool.lock(queue, id)? else {
        return Ok(false);
    };
    match locked.read() {
        Err(Unreadable::Corrupt(locked, reason)) => locked.quarantine(&reason).map(|()| true),
        Err(Unreadable::Failed(error)) => Err(error),
        Ok(_) => Ok(false),
    }
}

/// Writes down that nothing is wrong with a message in quarantine. Whether it is to go on is for a
/// person to say: it was there for a reason.
fn acquit(spool: &Spool, queue: Queue, id: QueueId) -> disk::Result<bool> {
    match spool.lock(queue, id)? {
        Claim::Locked(locked) => {
            let reason = "nothing is wrong with it now; `mailspool retry` lets it go";
            locked.quarantine(reason).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Takes a message to where every run looks; the next one puts it where it belongs.
fn activate(spool: &Spool, queue: Queue, id: QueueId) -> disk::Result<bool> {
    let Claim::Locked(locked) = spool.lock(queue, id)? else {
        return Ok(false);
    };
    match locked.read() {
        Ok(mut entry) => Entry::activate(&mut entry).map(|()| true),
        Err(Unreadable::Failed(error)) => Err(error),
        Err(Unreadable::Corrupt(..)) => Ok(false),
    }
}

/// Takes a file aside that belongs to no message, or a request that says nothing.
fn move_aside(spool: &Spool, path: &Path, to: &Path) -> disk::Result<bool> {
    let file = match spool.disk().open_read(path) {
        Ok(file) => file,
        Err(error) if error.is_absent() || error.is_wrong_kind() => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_file = spool.disk().stat_file(&file)?.kind == Kind::File;
    if !is_file || spool.disk().stat(to)?.is_some() || is_wanted(spool, path)? {
        return Ok(false);
    }
    match spool.disk().rename(&file, path, to) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether such a file belongs to a message after all, and says something.
fn is_wanted(spool: &Spool, path: &Path) -> disk::Result<bool> {
    let Some(id) = id_of(path) else {
        return Ok(true);
    };
    match spool.locate_for_good(id)? {
        Located::Absent => return Ok(false),
        // It may belong to a message that was not found.
        Located::Uncertain(_) => return Ok(true),
        Located::At(_) => {}
    }
    let is_request = path.parent().is_some_and(|dir| dir.ends_with("requests"));
    Ok(!is_request || spool.has_readable_request(id)? != Some(false))
}
