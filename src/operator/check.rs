//! Accounts for every file in a spool, and mends what a crash or a hand left behind.
//!
//! Runs while runners work: it takes a lock only on what it repairs, and believes that
//! something is wrong only when a second look says so too. Repair moves, into `corrupt/`,
//! rather than deletes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::disk::{self, Kind};
use crate::message::{QueueId, SealHasher};
use crate::queue::{Bucket, Hold, Resting};
use crate::spool::{Claim, Kept, Place, Spool, Unreadable, View};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Where, below the spool.
    pub path: PathBuf,
    /// What it is.
    pub what: String,
    /// What was done about it, or would be done by a repair.
    pub mend: Option<&'static str>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing: a name that is not ours, work for the next run.
    Note,
    /// Something is not as it should be.
    Problem,
}

/// The names in the spool's own directory that are ours.
const ROOT_NAMES: &[&str] = &[
    "active",
    "config.toml",
    "corrupt",
    "deferred",
    "discarded",
    "done",
    "frozen",
    "incoming",
    "info",
    "new",
    "outbox",
    "state",
    "version",
];

/// The directories below `info/`.
const INFO: &[&str] = &["sender", "recipients", "transport", "attempts", "request"];

struct Check<'a> {
    spool: &'a Spool,
    repair: bool,
    findings: Vec<Finding>,
}

/// Looks at everything; with `repair`, mends what can be mended. Findings are sorted by path.
pub fn check(spool: &Spool, repair: bool) -> disk::Result<Vec<Finding>> {
    let mut check = Check {
        spool,
        repair,
        findings: Vec::new(),
    };
    check.names()?;
    check.modes()?;
    check.orphans()?;
    check.messages()?;
    check.findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(check.findings)
}

impl Check<'_> {
    fn find(&mut self, level: Level, path: PathBuf, what: impl Into<String>) {
        self.findings.push(Finding {
            level,
            path,
            what: what.into(),
            mend: None,
        });
    }

    fn problem(&mut self, path: PathBuf, what: String, mend: &'static str) {
        self.findings.push(Finding {
            level: Level::Problem,
            path,
            what,
            mend: Some(mend),
        });
    }

    /// Every name is ours or is reported; those that are not are left alone.
    fn names(&mut self) -> disk::Result<()> {
        self.names_below(Path::new("."), |name| ROOT_NAMES.contains(&name))?;
        self.names_below(Path::new("info"), |name| INFO.contains(&name))?;
        let is_id = |name: &str| name.parse::<QueueId>().is_ok();
        for place in Place::FIXED {
            let corrupt = place == Place::Corrupt;
            self.names_below(&place.dir(), |name| {
                is_id(name) || corrupt && name.split_once('.').is_some_and(|(id, _)| is_id(id))
            })?;
        }
        for kept in Kept::ALL {
            let is_bucket = |name: &str| name.parse::<Bucket>().is_ok();
            self.names_below(Path::new(kept.as_str()), is_bucket)?;
            for bucket in self.spool.buckets(kept)? {
                let dir = kept.place(bucket).dir();
                match self.names_below(&dir, is_id) {
                    Err(error) if error.is_wrong_kind() => {
                        let what = "has a bucket's name, and is no directory; left alone";
                        self.find(Level::Note, dir, what);
                    }
                    other => other?,
                }
            }
        }
        for dir in INFO {
            self.names_below(&Path::new("info").join(dir), is_id)?;
        }
        Ok(())
    }

    fn names_below(&mut self, dir: &Path, ours: impl Fn(&str) -> bool) -> disk::Result<()> {
        for name in self.spool.names_in(dir)? {
            if !name.to_str().is_some_and(&ours) {
                let path = dir.join(&name);
                let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
                self.find(Level::Note, path, "not one of our names; left alone");
            }
        }
        Ok(())
    }

    fn modes(&mut self) -> disk::Result<()> {
        let dirs = Place::FIXED.iter().map(|place| place.dir());
        let kept = Kept::ALL.iter().map(|kept| PathBuf::from(kept.as_str()));
        let info = INFO.iter().map(|dir| Path::new("info").join(dir));
        for dir in dirs.chain(kept).chain(info).chain(["state".into()]) {
            if let Some(stat) = self.spool.disk().stat(&dir)?
                && stat.mode & 0o077 != 0
            {
                let what = format!("mode {:04o} lets others in; `chmod 700` it", stat.mode);
                self.find(Level::Problem, dir, what);
            }
        }
        Ok(())
    }

    /// `info/` files without a message: what a power cut kept of one that was never accepted,
    /// or was forgotten.
    fn orphans(&mut self) -> disk::Result<()> {
        for dir in INFO {
            let below = Path::new("info").join(dir);
            for name in self.spool.names_in(&below)? {
                let Some(id) = name.to_str().and_then(|name| name.parse::<QueueId>().ok()) else {
                    continue;
                };
                let path = below.join(&name);
                if self.spool.locate(id)?.is_some() || self.spool.disk().stat(&path)?.is_none() {
                    continue;
                }
                let what = "belongs to no message".to_owned();
                let to = PathBuf::from(format!("corrupt/{id}.{dir}"));
                self.problem(path.clone(), what, "moved to corrupt/");
                if self.repair {
                    match self.spool.disk().open_read(&path) {
                        Ok(file) => self.spool.disk().rename(&file, &path, &to)?,
                        Err(error) if error.is_absent() => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    fn messages(&mut self) -> disk::Result<()> {
        let mut places: BTreeMap<QueueId, Vec<Place>> = BTreeMap::new();
        let all = Kept::ALL.iter().map(|kept| {
            let buckets = self.spool.buckets(*kept)?;
            Ok(buckets.into_iter().map(|bucket| kept.place(bucket)))
        });
        let kept: Vec<Place> = all
            .collect::<disk::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        for place in Place::FIXED.into_iter().chain(kept) {
            for id in self.spool.ids_in(place)? {
                places.entry(id).or_default().push(place);
            }
        }
        let listing = self.spool.listing()?;
        for (id, named) in places {
            if named.len() > 1 {
                self.two_names(id, &named)?;
            }
            for place in named {
                match place {
                    Place::New => self.unfinished(id)?,
                    Place::Done => {
                        let path = place.path(id);
                        self.find(Level::Note, path, "finished; the next run forgets it");
                    }
                    Place::Corrupt => {
                        let reason = match self.spool.view(id, place, &listing)? {
                            Some(View {
                                content: Err(reason),
                                ..
                            }) => reason,
                            _ => continue,
                        };
                        let what = format!("in quarantine: {reason}");
                        self.find(Level::Note, place.path(id), what);
                    }
                    place => {
                        if let Some(view) = self.spool.view(id, place, &listing)? {
                            self.message(&view)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn two_names(&mut self, id: QueueId, named: &[Place]) -> disk::Result<()> {
        let mut identities = Vec::new();
        for place in named {
            identities.extend(
                self.spool
                    .disk()
                    .stat(&place.path(id))?
                    .map(|stat| stat.identity),
            );
        }
        // Seen in two places because it moved while we looked.
        if identities.len() < 2 {
            return Ok(());
        }
        let path = named[0].path(id);
        let others: Vec<&str> = named.iter().map(Place::as_str).collect();
        if identities.windows(2).all(|pair| pair[0] == pair[1]) {
            // A power cut in a rename leaves that; whoever takes the message next settles it.
            self.findings.push(Finding {
                level: Level::Note,
                path,
                what: format!("one file with names in {}", others.join(", ")),
                mend: Some("only the latest name is kept"),
            });
            if self.repair {
                // Taking the lock settles the names.
                let _claim = self.spool.lock(named[0], id)?;
            }
        } else {
            let what = format!("different files of one id in {}", others.join(", "));
            self.find(Level::Problem, path, what);
        }
        Ok(())
    }

    fn unfinished(&mut self, id: QueueId) -> disk::Result<()> {
        // Being written, at this moment, most likely; the lock would disturb nobody but it.
        self.find(
            Level::Note,
            Place::New.path(id),
            "being accepted, or work for the next run",
        );
        Ok(())
    }

    fn message(&mut self, view: &View) -> disk::Result<()> {
        let path = view.place.path(view.id);
        let Some(stat) = self.spool.disk().stat(&path)? else {
            return Ok(());
        };
        if stat.kind != Kind::File {
            let what = "has a message's name, and is no file; left alone";
            self.find(Level::Note, path, what);
            return Ok(());
        }
        let content = match &view.content {
            Ok(content) => content,
            Err(reason) => return self.corrupt(view, reason.clone()),
        };
        if let Some(reason) = self.damage(view)? {
            return self.corrupt(view, reason);
        }
        if stat.mode & 0o077 != 0 {
            let what = format!("mode {:04o} lets others in; `chmod 600` it", stat.mode);
            self.find(Level::Problem, path.clone(), what);
        }
        let state = &content.state;
        let without_reason = match (&state.hold, view.place) {
            (Hold::None, Place::Frozen(_)) => true,
            (Hold::Frozen { by, .. }, _) => by.reason.is_none() && by.by.is_empty(),
            _ => false,
        };
        if without_reason && !view.in_progress {
            self.find(
                Level::Problem,
                path,
                "frozen, and its history does not say why: an outcome could not be recorded; \
                 see to the disk, then `mailspool thaw` it",
            );
            return Ok(());
        }
        if let (Place::Deferred(bucket), Hold::None, Some(next)) =
            (view.place, &state.hold, state.next_attempt())
            && Place::from(Resting::Deferred(next)) < Place::Deferred(bucket)
            && !view.in_progress
        {
            let what = format!("due at {next}, but stands in the bucket {bucket}");
            self.find(Level::Problem, path, what);
        }
        Ok(())
    }

    /// Reads every byte of a message against its seal.
    fn damage(&self, view: &View) -> disk::Result<Option<String>> {
        let (body, seal) = match self.spool.sealed_body(view.id, view.place) {
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
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
        let intact = hasher.size() == seal.size && hasher.digest() == seal.message;
        Ok((!intact).then(|| "the message file does not match its seal".to_owned()))
    }

    fn corrupt(&mut self, view: &View, reason: String) -> disk::Result<()> {
        let path = view.place.path(view.id);
        self.problem(path, reason, "moved to corrupt/");
        if !self.repair {
            return Ok(());
        }
        // Under the lock, and only if it is still so.
        if let Claim::Locked(locked) = self.spool.lock(view.place, view.id)?
            && let Err(Unreadable::Corrupt(locked, reason)) = locked.read()
        {
            locked.quarantine(&reason)?;
        }
        Ok(())
    }
}
