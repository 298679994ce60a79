//! Repairs of findings: under the lock, and only if the finding still applies.

use std::path::Path;

use super::{Finding, Repair};
use crate::disk::{self, Kind, Stat};
use crate::message::QueueId;
use crate::spool::layout::{INFO, Info, KEYS, PART, RELEASES};
use crate::spool::{Claim, Entry, Leftover, Located, Queue, Spool, Unreadable};

/// Repairs a finding. Returns false if it no longer applies, or if another process holds the file.
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
        Some(Repair::Remove) if (path.to_str()).is_some_and(|path| path.ends_with(PART)) => {
            Ok(spool.leftover(path, true)? == Leftover::Dead)
        }
        Some(Repair::Remove) if path.starts_with(KEYS) => spool.is_damaged_key(path, true),
        Some(Repair::Remove) if path.starts_with(INFO) => match id_of(path) {
            Some(id) => spool.remove_stray_view(id),
            None => Ok(false),
        },
        Some(Repair::Show { at }) => match id_of(path) {
            Some(id) => show(spool, id, *at),
            None => Ok(false),
        },
        // An earlier repair may already have corrected the entry. The file is optional, so remove it anyway.
        Some(Repair::Remove) if path == Path::new(RELEASES) => spool.forget_releases(),
        Some(Repair::Remove) => spool.is_damaged_down(path, true),
        Some(Repair::SayWhy) => match standing_at(spool, path)? {
            Some((queue, id)) => Ok(quarantine(spool, queue, id)? || acquit(spool, queue, id)?),
            None => Ok(false),
        },
        Some(Repair::OneName { .. }) => match standing_at(spool, path)? {
            // Taking the lock removes the surplus names.
            Some((queue, id)) => Ok(!matches!(spool.lock(queue, id)?, Claim::Busy)),
            None => Ok(false),
        },
        Some(Repair::Move { to }) => match standing_at(spool, path)? {
            Some((queue, id)) if to.starts_with(Queue::Corrupt.dir()) => {
                quarantine(spool, queue, id)
            }
            Some((queue, id)) => activate(spool, queue, id),
            None => move_aside(spool, path, to),
        },
    }
}

/// Rewrites the view of a message that was in this queue. An earlier repair may have moved it.
fn show(spool: &Spool, id: QueueId, at: Queue) -> disk::Result<bool> {
    if spool.repair_view(id, at)? {
        return Ok(true);
    }
    match spool.locate(id)? {
        Located::At(now) if now != at => spool.repair_view(id, now),
        _ => Ok(false),
    }
}

/// Returns the message with this file path, unless its directory is a symbolic link.
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

/// Records that a message in quarantine is undamaged. An operator must decide whether to release it: it was
/// put there for a reason.
fn acquit(spool: &Spool, queue: Queue, id: QueueId) -> disk::Result<bool> {
    match spool.lock(queue, id)? {
        Claim::Locked(locked) => {
            let reason = "no damage was found; `mailspool retry` releases it";
            locked.quarantine(reason).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Moves a message to `active/`, which every run reads. The next run moves it to its proper queue.
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

/// Moves aside a file that belongs to no message, or an unreadable request.
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

/// Whether such a file does belong to a message, and is readable.
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
    let is_request = path
        .parent()
        .is_some_and(|dir| dir.ends_with(Info::Request.dir()));
    Ok(!is_request || spool.has_readable_request(id)? != Some(false))
}
