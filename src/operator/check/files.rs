//! Checks of names, kinds, owners and modes, and of files that belong to no message.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{Finding, Level, Look, Repair, UNREAD, keeps_out};
use crate::disk::{self, DIR_MODE, FILE_MODE, Kind, Stat};
use crate::message::QueueId;
use crate::queue::Bucket;
use crate::spool::layout::{
    DOWN, INFO, INTENDED_KEYS, Info, KEY_LOCKS, KEYS, OPTIONAL, PART, RELEASES, RESERVE, STATE,
    SUSPENDED, VERSION_PART, VIEW, is_beside_an_id, is_info_name, is_key_dir, is_reserve_name,
    is_root_name, is_state_name, stray_history, stray_request,
};
use crate::spool::{BucketQueue, Doubt, Leftover, Located, Queue, Spool, WrongReleases};

const HISTORY: &str = Info::History.dir();
const REQUESTS: &str = Info::Request.dir();

/// The end of a finding about a directory that its owner cannot read.
pub(super) const KEEPS_OUT: &str = "denies access to its owner; what is below it cannot be checked";

const FOREIGN: &str = "not a name that mailspool uses; left alone";

impl Look<'_> {
    /// Checks every name. Unknown names are reported and left alone.
    pub(super) fn names(&mut self) -> disk::Result<()> {
        self.names_below(Path::new(""), is_root_name, VERSION_PART)?;
        self.names_below(Path::new(INFO), is_info_name, "/")?;
        for queue in Queue::FIXED {
            let corrupt = queue == Queue::Corrupt;
            let ours = |name: &str| is_id(name) || corrupt && is_beside_an_id(name);
            let names = self.names_below(&queue.dir(), ours, "/")?;
            self.saw(queue, &names);
        }
        for kept in BucketQueue::ALL {
            let is_bucket = |name: &str| name.parse::<Bucket>().is_ok();
            let names = self.names_below(Path::new(kept.as_str()), is_bucket, "/")?;
            for bucket in names.iter().filter_map(|name| name.parse().ok()) {
                self.bucket(kept.queue(bucket))?;
            }
        }
        for info in Info::ALL {
            let dir = info.dir();
            let prefix = if VIEW.contains(&dir) { "/" } else { "" };
            let names = self.names_below(Path::new(dir), is_id, prefix)?;
            let ids = names.iter().filter_map(|name| name.parse().ok());
            self.infos.extend(ids.map(|id| (dir, id)));
        }
        self.names_below(Path::new(RESERVE), is_reserve_name, "/")?;
        self.keys()?;
        self.suspensions()?;
        self.names_below(Path::new(STATE), is_state_name, "")?;
        let down = Path::new(DOWN);
        for name in self.names_below(down, |name| !name.ends_with(PART), "")? {
            self.remembered(down.join(name));
        }
        self.releases();
        Ok(())
    }

    /// Records which messages are in a queue.
    fn saw(&mut self, queue: Queue, names: &[String]) {
        for id in names.iter().filter_map(|name| name.parse().ok()) {
            self.seen.entry(id).or_default().push(queue);
        }
    }

    /// Checks the submission keys. Spools made by older programs have none.
    fn keys(&mut self) -> disk::Result<()> {
        let keys = Path::new(KEYS);
        let is_hour = |name: &str| name != "never" && name.parse::<Bucket>().is_ok();
        let ours = |name: &str| is_key_dir(name) || is_hour(name);
        for hour in self.names_below(keys, ours, "/")? {
            let dir = keys.join(&hour);
            for name in self.names_below(&dir, Spool::is_key_name, "/")? {
                let path = dir.join(name);
                match dir.to_str() {
                    Some(KEY_LOCKS) => {}
                    Some(INTENDED_KEYS) => self.note(
                        path,
                        "a key of a message that is being accepted, or work for the next run",
                    ),
                    _ => self.key(path),
                }
            }
        }
        Ok(())
    }

    /// Checks the suspensions. A damaged one must be resumed by an operator, and suspends until then.
    fn suspensions(&mut self) -> disk::Result<()> {
        let dir = Path::new(SUSPENDED);
        self.names_below(dir, |name| !Spool::is_part(name, ""), "")?;
        let all = self.spool.suspensions();
        for suspension in self.unless(dir, all).unwrap_or_default() {
            let path = dir.join(&suspension.file);
            if suspension.says.is_none() {
                let what = format!(
                    "is damaged: {} stays suspended until `mailspool resume` removes it",
                    suspension.target
                );
                self.problem(path.clone(), what);
            }
            let stat = self.spool.disk().stat(&path);
            if let Some(stat) = self.unless(&path, stat).flatten()
                && stat.kind == Kind::File
            {
                self.access(&path, &stat, FILE_MODE);
            }
        }
        Ok(())
    }

    /// No power cut leaves a damaged key here.
    fn key(&mut self, path: PathBuf) {
        let looked = self.spool.is_damaged_key(&path, false);
        if self.unless(&path, looked) == Some(true) {
            let what = "is damaged: a submission with this key would be accepted again";
            self.repairable(path, what, Repair::Remove);
        }
    }

    /// Checks the record of a destination. A power cut may damage it: runners ignore a damaged record.
    fn remembered(&mut self, path: PathBuf) {
        match self.spool.is_damaged_down(&path, false) {
            Ok(false) => {}
            Ok(true) => {
                let what = "is damaged: the state of this destination is unknown";
                self.find(Level::Note, path, what, Some(Repair::Remove));
            }
            Err(error) if error.is_wrong_kind() => self.note(path, FOREIGN),
            Err(error) => drop(self.unless::<()>(&path, Err(error))),
        }
    }

    /// Checks the cache of messages that wait for their release. A power cut may damage it, but leaves no
    /// valid file with wrong entries.
    fn releases(&mut self) {
        let path = PathBuf::from(RELEASES);
        match self.spool.wrong_releases() {
            Ok(None) => {}
            Ok(Some(WrongReleases::Damaged)) => {
                let what =
                    "is damaged: the next run examines each message that waits for its release";
                self.find(Level::Note, path, what, Some(Repair::Remove));
            }
            Ok(Some(WrongReleases::Untrue(id))) => {
                let what =
                    format!("makes {id} wait for a release that its submitter did not ask for");
                self.repairable(path, what, Repair::Remove);
            }
            Err(error) if error.is_wrong_kind() => self.note(path, FOREIGN),
            Err(error) => drop(self.unless::<()>(&path, Err(error))),
        }
    }

    /// Returns the names in a directory that mailspool uses. Reports the others, and an unreadable directory.
    /// `prefix` is the prefix of temporary names here; `/` means that there are none.
    fn names_below(
        &mut self,
        dir: &Path,
        ours: impl Fn(&str) -> bool,
        prefix: &str,
    ) -> disk::Result<Vec<String>> {
        let here = if dir == Path::new("") {
            Path::new(".")
        } else {
            dir
        };
        let names = self.spool.names_in(here);
        let mut found = Vec::new();
        for name in self.unless(dir, names).unwrap_or_default() {
            let path = dir.join(&name);
            match name.into_string() {
                Ok(name) if ours(&name) => found.push(name),
                Ok(name) if Spool::is_part(&name, prefix) => self.part(path)?,
                _ => self.note(path, FOREIGN),
            }
        }
        Ok(found)
    }

    fn bucket(&mut self, queue: Queue) -> disk::Result<()> {
        let dir = queue.dir();
        let stat = self.spool.disk().stat(&dir);
        match self.unless(&dir, stat).flatten() {
            Some(stat) if stat.kind == Kind::Dir => {
                let names = self.names_below(&dir, is_id, "/")?;
                self.saw(queue, &names);
            }
            Some(_) => self.note(
                dir,
                "has a bucket's name, but is not a directory; left alone",
            ),
            None => {}
        }
        Ok(())
    }

    fn part(&mut self, path: PathBuf) -> disk::Result<()> {
        let looked = self.spool.leftover(&path, false);
        match self.unless(&path, looked) {
            Some(Leftover::Dead) => {
                let what = "was being written when its writer was killed; no process reads it";
                // A note, because a kill may leave this state.
                self.find(Level::Note, path, what, Some(Repair::Remove));
            }
            Some(Leftover::Written) => self.note(path, "being written at this moment"),
            Some(Leftover::NotAFile) => self.note(path, FOREIGN),
            Some(Leftover::Gone) | None => {}
        }
        Ok(())
    }

    /// Checks that every directory gives access to its owner and to no other user.
    pub(super) fn directories(&mut self) -> disk::Result<()> {
        let mut dirs: Vec<PathBuf> = Queue::FIXED.iter().map(Queue::dir).collect();
        dirs.push(PathBuf::from(INFO));
        dirs.extend(OPTIONAL.iter().map(PathBuf::from));
        // If they cannot be listed, the parent directory's finding says why.
        let hours = self.spool.names_in(Path::new(KEYS)).unwrap_or_default();
        let hours = hours.iter().filter_map(|name| name.to_str());
        let hours = hours.filter(|name| name.parse::<Bucket>().is_ok());
        dirs.extend(hours.map(|hour| Path::new(KEYS).join(hour)));
        dirs.extend(Info::ALL.map(|info| PathBuf::from(info.dir())));
        for kept in BucketQueue::ALL {
            dirs.push(PathBuf::from(kept.as_str()));
            // If they cannot be listed, the parent directory's finding says why.
            let buckets = self.spool.buckets(kept).unwrap_or_default();
            dirs.extend(buckets.into_iter().map(|bucket| kept.queue(bucket).dir()));
        }
        for dir in dirs {
            let stat = self.spool.disk().stat(&dir);
            // Below a closed directory, which is reported itself.
            if stat.as_ref().is_err_and(|error| error.is_denied()) {
                continue;
            }
            if let Some(stat) = self.unless(&dir, stat).flatten() {
                self.access(&dir, &stat, DIR_MODE);
            }
        }
        Ok(())
    }

    /// Checks the owner and the mode of a file or directory.
    pub(super) fn access(&mut self, path: &Path, stat: &Stat, mode: u32) {
        if stat.uid != self.owner {
            let (has, owner) = (stat.uid, self.owner);
            let what = format!("belongs to user {has}, the spool to user {owner}; `chown` it");
            return self.problem(path.to_owned(), what);
        }
        let what = match (stat.mode & 0o077, stat.mode & mode == mode) {
            (0, true) => return,
            (_, false) if stat.kind == Kind::Dir => KEEPS_OUT,
            (_, false) => "denies access to its owner",
            _ => "gives access to other users",
        };
        let what = format!("mode {:04o} {what}", stat.mode);
        if stat.kind == Kind::File && stat.links > 1 {
            // The mode belongs to the file, which may be foreign.
            self.problem(path.to_owned(), what + "; it has another name elsewhere")
        } else {
            self.repairable(path.to_owned(), what, Repair::Chmod { mode })
        }
    }

    /// Whether this user may read and write a file.
    pub(super) fn lets_in(&self, stat: &Stat) -> bool {
        stat.uid == self.owner && stat.mode & FILE_MODE == FILE_MODE
    }

    /// Checks the other files of messages: each must belong to a message, and be accessible to the owner
    /// only.
    pub(super) fn infos(&mut self) {
        let mut gone = HashSet::new();
        let mut uncertain = HashSet::new();
        for (dir, id) in std::mem::take(&mut self.infos) {
            // A message that was not seen may have moved or arrived since. Looking for it costs as much as
            // there are buckets, so do it once for all files of a message.
            if !self.seen.contains_key(&id) && !gone.contains(&id) && !uncertain.contains(&id) {
                match self.spool.locate(id) {
                    Ok(Located::At(queue)) => self.seen.entry(id).or_default().push(queue),
                    // A message that looks like this in each pass is not moving.
                    Ok(Located::Absent | Located::Uncertain(Doubt::Moving)) => {
                        gone.insert(id);
                    }
                    Ok(Located::Uncertain(Doubt::Unread(error))) | Err(error) => {
                        uncertain.insert(id);
                        // Report an unreadable directory only once.
                        if !self.is_reported(&error) {
                            let path = Path::new(dir).join(id.to_string());
                            self.unless::<()>(&path, Err(error));
                        }
                    }
                }
            }
            if uncertain.contains(&id) {
                continue;
            }
            let path = Path::new(dir).join(id.to_string());
            let looked = match self.seen.get(&id).map(|queues| queues[0]) {
                Some(queue) => self.info(dir, id, &path, queue),
                None => self.orphan(dir, id, &path),
            };
            self.unless(&path, looked);
        }
    }

    /// Whether an unreadable directory is already reported.
    fn is_reported(&self, error: &disk::Error) -> bool {
        let unread = |finding: &&Finding| finding.what.starts_with(UNREAD) || keeps_out(finding);
        let mut above = self.findings.iter().filter(unread);
        let root = self.spool.path();
        error.is_denied() && above.any(|finding| error.path().starts_with(root.join(&finding.path)))
    }

    fn info(&mut self, dir: &str, id: QueueId, path: &Path, queue: Queue) -> disk::Result<()> {
        let Some(stat) = self.spool.disk().stat(path)? else {
            return Ok(());
        };
        if stat.kind == Kind::File {
            self.access(path, &stat, FILE_MODE);
            if !self.lets_in(&stat) {
                if dir == HISTORY {
                    self.barred.insert(id);
                }
                return Ok(());
            }
        } else if queue == Queue::Corrupt {
            self.note(
                path.to_owned(),
                "has a message's name, but is not a regular file; left alone",
            );
        }
        if dir == REQUESTS && self.spool.has_readable_request(id)? == Some(false) {
            let to = self.room_in_corrupt(stray_request(id))?;
            self.repairable(
                path.to_owned(),
                "is not a readable request",
                Repair::Move { to },
            );
        }
        Ok(())
    }

    /// Reports a file that a power cut left of a forgotten message.
    fn orphan(&mut self, dir: &str, id: QueueId, path: &Path) -> disk::Result<()> {
        match self.spool.disk().stat(path)? {
            // The request was posted while a run finished the message, by a process that was killed or has
            // not checked again yet.
            Some(stat) if stat.kind == Kind::File && dir == REQUESTS => {
                let what = "is a request for a message that is gone; the next run drops it";
                self.note(path.to_owned(), what);
            }
            Some(stat) if stat.kind == Kind::File && dir != HISTORY => {
                let what = "shows a message that is gone";
                self.find(Level::Note, path.to_owned(), what, Some(Repair::Remove));
            }
            Some(stat) if stat.kind == Kind::File => {
                let to = self.room_in_corrupt(stray_history(id))?;
                self.repairable(
                    path.to_owned(),
                    "belongs to no message",
                    Repair::Move { to },
                );
            }
            Some(_) => self.note(
                path.to_owned(),
                "has a message's name, but is not a regular file; left alone",
            ),
            None => {}
        }
        Ok(())
    }
}

fn is_id(name: &str) -> bool {
    name.parse::<QueueId>().is_ok()
}
