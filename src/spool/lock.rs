//! Taking a message: lock, look again, then read and verify.
//!
//! A message that is locked and one that is also verified are different types ([`Locked`],
//! [`Entry`]): nothing acts on an envelope that was not checked under the lock. Absent, busy,
//! corrupt and failed are four different results, everywhere.

use std::sync::Arc;

use super::entry::Entry;
use super::layout::{Info, Place, history_part, reason_path};
use super::{Kept, Spool};
use crate::disk::{self, Body, File, Kind, Stat};
use crate::message::envelope::EnvelopeFiles;
use crate::message::{QueueId, SealHasher};
use crate::queue::{History, State};

/// What became of the wish to have a message.
#[derive(Debug)]
#[must_use]
pub enum Claim {
    /// It is not there (any more).
    Absent,
    /// Somebody else holds it.
    Busy,
    /// What stands there is no message file.
    NotAFile,
    /// It is ours.
    Locked(Locked),
}

/// A message file whose lock this process holds. Dropping it lets the lock go.
#[derive(Debug)]
pub struct Locked {
    pub(super) spool: Spool,
    pub(super) id: QueueId,
    pub(super) place: Place,
    pub(super) file: Arc<File>,
    pub(super) size: u64,
}

/// Why a locked message could not be read.
#[derive(Debug)]
pub enum Unreadable {
    /// It is damaged: it can be put into quarantine, with this reason.
    Corrupt(Locked, String),
    /// The system would not let us; this says nothing about the message.
    Failed(disk::Error),
}

impl From<disk::Error> for Unreadable {
    fn from(error: disk::Error) -> Unreadable {
        Unreadable::Failed(error)
    }
}

impl Spool {
    /// Takes the lock of the message `id` at a place, without waiting.
    ///
    /// The lock is on the file, not on its name; so once it is taken, the name must still lead
    /// to this file and the file must still have a name. One with two names was caught by a
    /// power cut in a rename: its later name is the true one, the other is removed.
    pub fn lock(&self, place: Place, id: QueueId) -> disk::Result<Claim> {
        let path = place.path(id);
        let file = match self.disk.open_rw(&path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(Claim::Absent),
            Err(error) if error.is_wrong_kind() => return Ok(Claim::NotAFile),
            Err(error) => return Err(error),
        };
        if !self.disk.try_lock(&file)? {
            return Ok(Claim::Busy);
        }
        let stat = self.disk.stat_file(&file)?;
        if stat.kind != Kind::File {
            return Ok(Claim::NotAFile);
        }
        let same = |other: Stat| other.identity == stat.identity;
        if stat.links == 0 || !self.disk.stat(&path)?.is_some_and(same) {
            return Ok(Claim::Absent);
        }
        if stat.links > 1 && self.settle_names(id, stat.identity)? != Some(place) {
            return Ok(Claim::Absent);
        }
        Ok(Claim::Locked(Locked {
            spool: self.clone(),
            id,
            place,
            file: Arc::new(file),
            size: stat.size,
        }))
    }

    /// Leaves of a message's names only the one in the latest place, and says which that is.
    pub(super) fn settle_names(
        &self,
        id: QueueId,
        identity: (u64, u64),
    ) -> disk::Result<Option<Place>> {
        let mut named = Vec::new();
        for place in self.places()? {
            let stat = self.stat_in(place, id)?;
            if stat.is_some_and(|stat| stat.identity == identity) {
                named.push(place);
            }
        }
        named.sort_unstable();
        let latest = named.pop();
        for place in named {
            self.disk.unlink(&place.path(id))?;
        }
        Ok(latest)
    }

    /// Every place a message file may stand in: the fixed ones and the buckets there are.
    pub(super) fn places(&self) -> disk::Result<Vec<Place>> {
        let mut places = Place::FIXED.to_vec();
        for kept in Kept::ALL {
            places.extend(
                self.buckets(kept)?
                    .into_iter()
                    .map(|bucket| kept.place(bucket)),
            );
        }
        Ok(places)
    }

    /// Reads one of a message's `info/` files; none if it is not there.
    pub(super) fn read_info(&self, info: Info, id: QueueId) -> disk::Result<Option<Vec<u8>>> {
        match self.disk.read_all(&info.path(id), info.most()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Spool {
    /// Why a message's history must not be written to: a second name, which nothing of ours ever
    /// gives it, would have us write into somebody else's file.
    pub(super) fn foreign_history(&self, id: QueueId) -> disk::Result<Option<String>> {
        let stat = self.disk.stat(&Info::Attempts.path(id))?;
        let Some(stat) = stat.filter(|stat| stat.kind == Kind::File && stat.links > 1) else {
            return Ok(None);
        };
        // A power cut in the rename of one that was written anew leaves it both names.
        let part = self.disk.stat(&history_part(id))?;
        if stat.links == 2 && part.is_some_and(|part| part.identity == stat.identity) {
            return Ok(None);
        }
        let names = stat.links;
        let reason = format!(
            "info/attempts has {names} names: it is a hard link to a file that is not ours"
        );
        Ok(Some(reason))
    }
}

impl Locked {
    /// The message.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads the envelope and the history and checks the seal against every byte: only now,
    /// under the lock, can nobody change them.
    pub fn read(self) -> Result<Entry, Unreadable> {
        let id = self.id;
        let (files, absent) = match self.envelope_files() {
            Ok(both) => both,
            Err(error) if error.is_wrong_kind() => {
                return Err(Unreadable::Corrupt(self, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(info) = absent {
            let reason = format!("{} is missing", info.dir());
            return Err(Unreadable::Corrupt(self, reason));
        }
        let (envelope, seal) = match files.parse() {
            Ok(both) => both,
            Err(error) => return Err(Unreadable::Corrupt(self, error.to_string())),
        };
        if self.size != seal.size {
            let (has, sealed) = (self.size, seal.size);
            let reason = format!("the message file has {has} octets, sealed were {sealed}");
            return Err(Unreadable::Corrupt(self, reason));
        }
        if self.digest()? != seal.message {
            let reason = "the message file does not match its seal".to_owned();
            return Err(Unreadable::Corrupt(self, reason));
        }
        if let Some(reason) = self.spool.foreign_history(id)? {
            return Err(Unreadable::Corrupt(self, reason));
        }
        let bytes = match self.spool.read_info(Info::Attempts, id) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) if error.is_wrong_kind() => {
                return Err(Unreadable::Corrupt(self, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let history = match History::parse(&bytes) {
            Ok(history) => history,
            Err(error) => return Err(Unreadable::Corrupt(self, error.to_string())),
        };
        let state = State::with_history(id, &envelope, &history.events);
        let torn = (history.whole < bytes.len()).then_some(history.whole as u64);
        Ok(Entry::new(self, envelope, state, history.events, torn))
    }

    fn envelope_files(&self) -> disk::Result<(EnvelopeFiles, Option<Info>)> {
        let mut absent = None;
        let mut read = |info: Info| -> disk::Result<Vec<u8>> {
            let bytes = self.spool.read_info(info, self.id)?;
            if bytes.is_none() {
                absent = absent.or(Some(info));
            }
            Ok(bytes.unwrap_or_default())
        };
        let files = EnvelopeFiles {
            sender: read(Info::Sender)?,
            recipients: read(Info::Recipients)?,
            transport: read(Info::Transport)?,
        };
        Ok((files, absent))
    }

    fn digest(&self) -> disk::Result<u128> {
        let mut hasher = SealHasher::new();
        let most = usize::try_from(self.size)
            .unwrap_or(usize::MAX)
            .clamp(1, 64 << 10);
        let mut chunk = vec![0; most];
        while hasher.size() < self.size {
            let got = self
                .spool
                .disk
                .read_at(&self.file, &mut chunk, hasher.size())?;
            if got == 0 {
                break;
            }
            hasher.update(&chunk[..got]);
        }
        Ok(hasher.digest())
    }

    /// The message's bytes, however little they can be trusted.
    pub fn body(&self) -> Body {
        Body::new(self.spool.disk.clone(), Arc::clone(&self.file), self.size)
    }

    /// Puts the message into `corrupt/`, with the reason beside it, for a person to look at.
    /// The reason goes first: a message in quarantine always has one. Neither is synced; after
    /// a power cut the damage is simply found again.
    pub fn quarantine(mut self, reason: &str) -> disk::Result<()> {
        let disk = &self.spool.disk;
        let ours = disk.stat_file(&self.file)?.identity;
        let to = Place::Corrupt.path(self.id);
        if disk.stat(&to)?.is_some_and(|there| there.identity != ours) {
            // Another file of the same id, put there by a hand. Nothing in quarantine is lost.
            return Err(disk.already_there(&to));
        }
        let path = reason_path(self.id);
        disk.unlink(&path)?;
        let file = disk.create(&path)?;
        disk.write_all(&file, format!("{reason}\n").as_bytes())?;
        self.move_to(Place::Corrupt)
    }

    /// The one function that moves a message from place to place.
    pub(super) fn move_to(&mut self, to: Place) -> disk::Result<()> {
        /// A bucket may be removed by another process as soon as we have made it, or seen it.
        const MOST_RACES: usize = 10;
        if self.place == to {
            return Ok(());
        }
        let (old, new) = (self.place.path(self.id), to.path(self.id));
        let mut races = 0;
        loop {
            let prepared = self.spool.prepare_bucket(&to);
            let moved = prepared.and_then(|()| self.spool.disk.rename(&self.file, &old, &new));
            match moved {
                Ok(()) => break,
                Err(error) if error.is_absent() && races < MOST_RACES => races += 1,
                Err(error) => return Err(error),
            }
        }
        self.place = to;
        Ok(())
    }
}
