//! Accounts for every file in a spool, and mends what a crash or a hand left behind.
//!
//! Runs while runners work: it takes a lock only on what it repairs, and believes that
//! something is wrong only when a second look says so too. Repair moves, into `corrupt/`,
//! rather than deletes.

mod names;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::disk::{self, Kind};
use crate::message::{QueueId, SealHasher};
use crate::queue::{Bucket, Hold, Resting};
use crate::spool::{Claim, Kept, Listing, Place, Spool, Unreadable, View};

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
            let named = self.true_names(id, named)?;
            for place in named {
                match place {
                    Place::New => self.unfinished(id)?,
                    Place::Done => {
                        let path = place.path(id);
                        self.find(Level::Note, path, "finished; the next run forgets it");
                    }
                    Place::Corrupt => {
                        let view =
                            self.readable(place.path(id), |spool| spool.view(id, place, &listing));
                        if let Some(Some(view)) = view
                            && let Err(reason) = view.content
                        {
                            let what = format!("in quarantine: {reason}");
                            self.find(Level::Note, place.path(id), what);
                        }
                    }
                    place => {
                        let view = self
                            .readable(place.path(id), |spool| settled(spool, id, place, &listing));
                        if let Some(Some(view)) = view {
                            self.message(&view)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What the system does not let us read is neither right nor damaged: that is reported, and
    /// the others are looked at all the same.
    fn readable<T>(
        &mut self,
        path: PathBuf,
        read: impl FnOnce(&Spool) -> disk::Result<T>,
    ) -> Option<T> {
        read(self.spool)
            .map_err(|error| self.find(Level::Problem, path, format!("cannot be read: {error}")))
            .ok()
    }

    /// The names that are to be looked at: of several names of one file only the latest. A power
    /// cut in a rename leaves such; whoever takes the message next settles it.
    fn true_names(&mut self, id: QueueId, mut named: Vec<Place>) -> disk::Result<Vec<Place>> {
        named.sort_unstable();
        let mut identities = Vec::new();
        for place in &named {
            let stat = self.spool.disk().stat(&place.path(id))?;
            identities.extend(stat.map(|stat| stat.identity));
        }
        // Seen in two places because it moved while we looked.
        if identities.len() < 2 {
            return Ok(named);
        }
        let others: Vec<&str> = named.iter().map(Place::as_str).collect();
        let others = others.join(", ");
        if identities.windows(2).any(|pair| pair[0] != pair[1]) {
            let what = format!("different files of one id in {others}");
            self.find(Level::Problem, named[0].path(id), what);
            return Ok(named);
        }
        let latest = named.split_off(named.len() - 1);
        for place in &named {
            self.findings.push(Finding {
                level: Level::Note,
                path: place.path(id),
                what: format!("one file with names in {others}"),
                mend: Some("only the latest name is kept"),
            });
        }
        if self.repair {
            // Taking the lock settles the names.
            let _claim = self.spool.lock(latest[0], id)?;
        }
        Ok(latest)
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
        // It went there while we looked: its files go one by one.
        if let Place::New | Place::Done = view.place {
            return Ok(());
        }
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
        match self.readable(path.clone(), |spool| damage(spool, view)) {
            Some(None) => {}
            Some(Some(reason)) => return self.corrupt(view, reason),
            None => return Ok(()),
        }
        if stat.mode & 0o077 != 0 {
            let what = format!("mode {:04o} lets others in; `chmod 600` it", stat.mode);
            self.find(Level::Problem, path.clone(), what);
        }
        let state = &content.state;
        // One whose hold ran out may stand in a bucket that is due: the next run sees to it.
        let without_reason = match (&state.hold, view.place) {
            (Hold::None, Place::Frozen(Bucket::Never)) => true,
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

/// Reads a message. One that cannot be read is looked at again: it may have been on its way to be
/// forgotten, and its files gone one by one while we read them.
fn settled(
    spool: &Spool,
    id: QueueId,
    place: Place,
    listing: &Listing,
) -> disk::Result<Option<View>> {
    match spool.view(id, place, listing)? {
        Some(View {
            content: Err(_), ..
        }) => spool.view(id, place, listing),
        other => Ok(other),
    }
}

/// Reads every byte of a message against its seal.
fn damage(spool: &Spool, view: &View) -> disk::Result<Option<String>> {
    let (body, seal) = match spool.sealed_body(view.id, view.place) {
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
            Err(error) => {
                return error
                    .downcast::<disk::Error>()
                    .map_or_else(|ended| Ok(Some(ended.to_string())), Err);
            }
        }
    }
    let intact = hasher.size() == seal.size && hasher.digest() == seal.message;
    Ok((!intact).then(|| "the message file does not match its seal".to_owned()))
}
