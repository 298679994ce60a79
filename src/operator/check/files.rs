//! Names, kinds, owners and modes, and files that belong to no message.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{Finding, Level, Look, Repair, UNREAD, keeps_out};
use crate::disk::{self, DIR_MODE, FILE_MODE, Kind, Stat};
use crate::message::QueueId;
use crate::queue::Bucket;
use crate::spool::{BucketQueue, Doubt, Leftover, Located, Queue, RELEASES, Spool, WrongReleases};

/// The names in the spool's own directory that are ours.
const ROOT_NAMES: &[&str] = &[
    "active",
    "config.toml",
    "corrupt",
    "deferred",
    "discarded",
    "done",
    "frozen",
    "history",
    "incoming",
    "info",
    "keys",
    "new",
    "outbox",
    "requests",
    "reserve",
    "staged",
    "state",
    "suspended",
    "version",
];

/// The directories of the view.
const VIEW: &[&str] = &["sender", "recipients", "transport"];

/// The directories with a message's other files.
const INFO: &[&str] = &[
    "info/sender",
    "info/recipients",
    "info/transport",
    HISTORY,
    REQUESTS,
];

const HISTORY: &str = "history";
const REQUESTS: &str = "requests";

/// How the finding ends about a directory that its owner cannot look into.
pub(super) const KEEPS_OUT: &str = "keeps its owner out; what is below it cannot be looked at";

const FOREIGN: &str = "not one of our names; left alone";

impl Look<'_> {
    /// Every name is ours or is reported; those that are not are left alone.
    pub(super) fn names(&mut self) -> disk::Result<()> {
        self.names_below(Path::new(""), |name| ROOT_NAMES.contains(&name), "version.")?;
        self.names_below(Path::new("info"), |name| VIEW.contains(&name), "/")?;
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
        for dir in INFO {
            let prefix = if dir.starts_with("info") { "/" } else { "" };
            let names = self.names_below(Path::new(dir), is_id, prefix)?;
            let ids = names.iter().filter_map(|name| name.parse().ok());
            self.infos.extend(ids.map(|id| (*dir, id)));
        }
        let is_number = |name: &str| name.len() == 2 && name.bytes().all(|b| b.is_ascii_digit());
        let is_reserve = |name: &str| name == "filling" || is_number(name);
        self.names_below(Path::new("reserve"), is_reserve, "/")?;
        self.keys()?;
        self.suspensions()?;
        self.names_below(Path::new("state"), is_state, "")?;
        let down = Path::new("state/down");
        for name in self.names_below(down, |name| !name.ends_with(".part"), "")? {
            self.remembered(down.join(name));
        }
        self.releases();
        Ok(())
    }

    /// Takes down which messages stand in a place.
    fn saw(&mut self, queue: Queue, names: &[String]) {
        for id in names.iter().filter_map(|name| name.parse().ok()) {
            self.seen.entry(id).or_default().push(queue);
        }
    }

    /// What is known of submission keys. Spools that older programs made have none.
    fn keys(&mut self) -> disk::Result<()> {
        let keys = Path::new("keys");
        let is_hour = |name: &str| name != "never" && name.parse::<Bucket>().is_ok();
        let ours = |name: &str| ["new", "lock"].contains(&name) || is_hour(name);
        for hour in self.names_below(keys, ours, "/")? {
            let dir = keys.join(&hour);
            for name in self.names_below(&dir, Spool::is_key_name, "/")? {
                let path = dir.join(name);
                match hour.as_str() {
                    "lock" => {}
                    "new" => self.note(
                        path,
                        "a key of a message that is being accepted, or work for the next run",
                    ),
                    _ => self.key(path),
                }
            }
        }
        Ok(())
    }

    /// What is suspended. One that says nothing is for a person: until then it suspends.
    fn suspensions(&mut self) -> disk::Result<()> {
        let dir = Path::new("suspended");
        self.names_below(dir, |name| !Spool::is_part(name, ""), "")?;
        let all = self.spool.suspensions();
        for one in self.unless(dir, all).unwrap_or_default() {
            let path = dir.join(&one.file);
            if one.says.is_none() {
                let what = format!(
                    "is damaged: {} stays suspended until `mailspool resume` removes it",
                    one.target
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

    /// No power cut leaves a damaged one here.
    fn key(&mut self, path: PathBuf) {
        let looked = self.spool.is_damaged_key(&path, false);
        if self.unless(&path, looked) == Some(true) {
            let what = "is damaged: a submission with this key would be accepted again";
            self.repairable(path, what, Repair::Remove);
        }
    }

    /// What is remembered of a destination. That it says nothing is no more than a power cut
    /// may leave: runners take it for nothing.
    fn remembered(&mut self, path: PathBuf) {
        match self.spool.is_damaged_down(&path, false) {
            Ok(false) => {}
            Ok(true) => {
                let what = "is damaged: nothing is remembered of this destination";
                self.find(Level::Note, path, what, Some(Repair::Remove));
            }
            Err(error) if error.is_wrong_kind() => self.note(path, FOREIGN),
            Err(error) => drop(self.unless::<()>(&path, Err(error))),
        }
    }

    /// What is known of messages that wait for their release. A power cut may leave anything under
    /// this name, but nothing that looks whole and is untrue.
    fn releases(&mut self) {
        let path = PathBuf::from(RELEASES);
        match self.spool.wrong_releases() {
            Ok(None) => {}
            Ok(Some(WrongReleases::Damaged)) => {
                let what =
                    "is damaged: the next run looks at each message that waits for its release";
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

    /// The names in a directory that are ours; the others are reported, and so is that it cannot be
    /// listed. `prefix` is what the files begin with that get another name here; `/` is none.
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
            Some(_) => self.note(dir, "has a bucket's name, and is no directory; left alone"),
            None => {}
        }
        Ok(())
    }

    fn part(&mut self, path: PathBuf) -> disk::Result<()> {
        let looked = self.spool.leftover(&path, false);
        match self.unless(&path, looked) {
            Some(Leftover::Dead) => {
                let what = "was being written when its writer was killed; nobody reads it";
                // As legal as any state that a kill leaves.
                self.find(Level::Note, path, what, Some(Repair::Remove));
            }
            Some(Leftover::Written) => self.note(path, "being written at this moment"),
            Some(Leftover::NotAFile) => self.note(path, FOREIGN),
            Some(Leftover::Gone) | None => {}
        }
        Ok(())
    }

    /// Every directory of ours lets its owner in and nobody else.
    pub(super) fn directories(&mut self) -> disk::Result<()> {
        let mut dirs: Vec<PathBuf> = Queue::FIXED.iter().map(Queue::dir).collect();
        let others = [
            "info",
            "reserve",
            "state",
            "suspended",
            "keys",
            "keys/new",
            "keys/lock",
        ];
        dirs.extend(others.map(PathBuf::from));
        // If they cannot be listed, the directory above says why.
        let hours = self.spool.names_in(Path::new("keys")).unwrap_or_default();
        let hours = hours.iter().filter_map(|name| name.to_str());
        let hours = hours.filter(|name| name.parse::<Bucket>().is_ok());
        dirs.extend(hours.map(|hour| Path::new("keys").join(hour)));
        dirs.extend(INFO.iter().map(PathBuf::from));
        for kept in BucketQueue::ALL {
            dirs.push(PathBuf::from(kept.as_str()));
            // If they cannot be listed, the directory above says why.
            let buckets = self.spool.buckets(kept).unwrap_or_default();
            dirs.extend(buckets.into_iter().map(|bucket| kept.queue(bucket).dir()));
        }
        for dir in dirs {
            let stat = self.spool.disk().stat(&dir);
            // Below a directory that is closed; that one is reported.
            if stat.as_ref().is_err_and(|error| error.is_denied()) {
                continue;
            }
            if let Some(stat) = self.unless(&dir, stat).flatten() {
                self.access(&dir, &stat, DIR_MODE);
            }
        }
        Ok(())
    }

    /// Owner and mode of something of ours.
    pub(super) fn access(&mut self, path: &Path, stat: &Stat, mode: u32) {
        if stat.uid != self.owner {
            let (has, owner) = (stat.uid, self.owner);
            let what = format!("belongs to user {has}, the spool to user {owner}; `chown` it");
            return self.problem(path.to_owned(), what);
        }
        let what = match (stat.mode & 0o077, stat.mode & mode == mode) {
            (0, true) => return,
            (_, false) if stat.kind == Kind::Dir => KEEPS_OUT,
            (_, false) => "keeps its owner out",
            _ => "lets others in",
        };
        let what = format!("mode {:04o} {what}", stat.mode);
        if stat.kind == Kind::File && stat.links > 1 {
            // The mode is the file's, and the file is perhaps not ours.
            self.problem(path.to_owned(), what + "; it has another name elsewhere")
        } else {
            self.repairable(path.to_owned(), what, Repair::Chmod { mode })
        }
    }

    /// Whether we may read and write a file.
    pub(super) fn lets_in(&self, stat: &Stat) -> bool {
        stat.uid == self.owner && stat.mode & FILE_MODE == FILE_MODE
    }

    /// The other files of messages: each belongs to a message, and is the owner's alone.
    pub(super) fn infos(&mut self) {
        let mut gone = HashSet::new();
        let mut uncertain = HashSet::new();
        for (dir, id) in std::mem::take(&mut self.infos) {
            // Who was not seen may have been on the move, or have come since. That costs as much
            // as there are buckets, so it is asked once for all files of a message.
            if !self.seen.contains_key(&id) && !gone.contains(&id) && !uncertain.contains(&id) {
                match self.spool.locate(id) {
                    Ok(Located::At(queue)) => self.seen.entry(id).or_default().push(queue),
                    // The same at each look is no message on the move.
                    Ok(Located::Absent | Located::Uncertain(Doubt::Moving)) => {
                        gone.insert(id);
                    }
                    Ok(Located::Uncertain(Doubt::Unread(error))) | Err(error) => {
                        uncertain.insert(id);
                        // A place that we may not look into is reported already, once.
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

    /// Whether it is said already that a place cannot be looked into.
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
                "has a message's name, and is no file; left alone",
            );
        }
        if dir == REQUESTS && self.spool.has_readable_request(id)? == Some(false) {
            let to = self.room_in_corrupt(&format!("{id}.request"))?;
            self.repairable(
                path.to_owned(),
                "is no request that can be read",
                Repair::Move { to },
            );
        }
        Ok(())
    }

    /// What a power cut kept of a message that is forgotten.
    fn orphan(&mut self, dir: &str, id: QueueId, path: &Path) -> disk::Result<()> {
        match self.spool.disk().stat(path)? {
            // Asked for while a run finished the message, by somebody who was killed or has
            // not looked again yet.
            Some(stat) if stat.kind == Kind::File && dir == REQUESTS => {
                let what = "asks for a message that is gone; the next run drops it";
                self.note(path.to_owned(), what);
            }
            Some(stat) if stat.kind == Kind::File && dir != HISTORY => {
                let what = "shows a message that is gone";
                self.find(Level::Note, path.to_owned(), what, Some(Repair::Remove));
            }
            Some(stat) if stat.kind == Kind::File => {
                let to = self.room_in_corrupt(&format!("{id}.history"))?;
                self.repairable(
                    path.to_owned(),
                    "belongs to no message",
                    Repair::Move { to },
                );
            }
            Some(_) => self.note(
                path.to_owned(),
                "has a message's name, and is no file; left alone",
            ),
            None => {}
        }
        Ok(())
    }
}

fn is_id(name: &str) -> bool {
    name.parse::<QueueId>().is_ok()
}

/// `<id>.reason`, or `<id>.history` and the like with or without a number: what a repair moved.
fn is_beside_an_id(name: &str) -> bool {
    let Some((id, what)) = name.split_once('.') else {
        return false;
    };
    let (what, number) = what.split_once('.').unwrap_or((what, "1"));
    is_id(id)
        && ["reason", "history", "request"].contains(&what)
        && number.parse::<u32>().is_ok_and(|n| n.to_string() == number)
}

/// The boot for which the view is complete, slots, and what is known of destinations and of releases.
fn is_state(name: &str) -> bool {
    let number = name.strip_prefix("attempt-");
    let ours = [
        "boot",
        "down",
        "probe",
        "to",
        "by",
        "resident-0",
        "releases",
    ]
    .contains(&name);
    ours || number.is_some_and(|number| number.parse::<u32>().is_ok())
}
