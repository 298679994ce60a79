//! The spool: queue directories, message files, locks, and the commit points between them.
//!
//! This module implements `spool-layout.md`: that document holds the table of legal on-disk states and names
//! each commit point, and the comments here cite those names. Only this module touches queue directories, and
//! only through [`Disk`]. It does not depend on how mail is delivered.

mod action;
mod destinations;
mod draft;
mod entry;
mod files;
mod forget;
mod history_file;
mod keys;
pub(crate) mod layout;
mod listing;
mod locate;
mod lock;
mod part;
mod probe;
mod releases;
mod requests;
mod reserve;
mod scan;
mod slots;
mod suspensions;
mod sweep;
mod target;
mod verify;
mod view;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{self, Disk, Kind, Seam};

pub use action::{apply, refusal};
pub use destinations::{Destination, Down, Forgotten};
pub use draft::{Draft, Staged, Staging};
pub use entry::Entry;
pub use keys::Holder;
#[cfg(feature = "testing")]
pub use keys::KeyLock;
pub use layout::{BucketQueue, Queue};
pub use listing::{Content, Listing, View};
pub use locate::{Doubt, Located};
pub use lock::Claim;
#[cfg(feature = "testing")]
pub use lock::Locked;
pub use part::Leftover;
#[cfg(feature = "testing")]
pub use releases::Releases;
pub(crate) use releases::Wrong as WrongReleases;
pub use requests::{Posted, Served};
pub use slots::Slot;
pub use suspensions::{Changed, Standing, Suspended, Suspension};
pub use sweep::Swept;
pub use target::Target;
pub use verify::Unreadable;
pub use view::ViewFault;

use layout::{
    FILES, INTENDED_KEYS, KEY_LOCKS, KEYS, OPTIONAL, PLACES, STATE, VERSION, VERSION_FILE,
    VERSION_PART, VIEW,
};
use part::Part;

/// Most bucket directories held open at once. Beyond it all are closed, and made durable again when used.
const MAX_BUCKETS_OPEN: usize = 64;

/// An open spool. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct Spool {
    disk: Disk,
    /// Bucket directories held open, with names that this process has made durable. If another process
    /// removes a bucket and makes it again, the new name may not be durable yet. The new directory has
    /// another inode number: the old one is not reused while the old directory is open.
    durable_buckets: Arc<Mutex<HashMap<PathBuf, disk::File>>>,
    /// The length in octets from which a history is folded.
    #[cfg(feature = "testing")]
    folded_from: u64,
}

/// Why a spool cannot be used. No message causes any of these errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file-system call failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// There is no spool here: no directory, or no `version` in it.
    #[error("{} is not a spool (`mailspool init` makes one)", .0.display())]
    Missing(PathBuf),
    /// A newer program made the spool.
    #[error(
        "{}: the spool has version {found}, this program knows version {VERSION}; \
         the program that wrote it can empty it",
        .path.display()
    )]
    Version {
        /// The spool.
        path: PathBuf,
        /// The content of `version`.
        found: String,
    },
    /// A directory is missing, is not a directory, or is on another file system.
    #[error("{}: {why}; the spool is damaged or not mounted", .path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Users other than the owner could write to the directory.
    #[error("{}: {why}", .path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A result of an operation on a spool.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether a directory may be on another file system: nothing depends on its content.
fn is_needless(dir: &str) -> bool {
    dir == STATE || VIEW.contains(&dir)
}

impl Spool {
    /// Opens an existing spool.
    pub fn open(path: &Path) -> Result<Spool> {
        Spool::opened(path, None)
    }

    /// Opens an existing spool with every file-system call passing through a test's `seam`.
    #[cfg(feature = "testing")]
    pub fn open_through(path: &Path, seam: Option<Arc<dyn Seam>>) -> Result<Spool> {
        Spool::opened(path, seam)
    }

    /// Returns the spool with another length in octets from which it folds a history.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn folding_from(mut self, octets: u64) -> Spool {
        self.folded_from = octets;
        self
    }

    #[cfg(feature = "testing")]
    fn folded_from(&self) -> u64 {
        self.folded_from
    }

    #[cfg(not(feature = "testing"))]
    fn folded_from(&self) -> u64 {
        history_file::FOLDED_FROM
    }

    fn opened(path: &Path, seam: Option<Arc<dyn Seam>>) -> Result<Spool> {
        let disk = match Disk::open(path, seam) {
            Err(error) if error.is_absent() => return Err(Error::Missing(path.to_owned())),
            other => other?,
        };
        let spool = Spool {
            disk,
            durable_buckets: Arc::default(),
            #[cfg(feature = "testing")]
            folded_from: history_file::FOLDED_FROM,
        };
        match spool.version()?.as_deref() {
            Some(VERSION) => {}
            Some(found) if found.parse::<u32>().is_ok() => {
                return Err(Error::Version {
                    path: path.to_owned(),
                    found: found.to_owned(),
                });
            }
            // Torn or missing: the creation was cut off, or never began.
            _ => return Err(Error::Missing(path.to_owned())),
        }
        spool.check_skeleton()?;
        Ok(spool)
    }

    /// Makes a spool, or completes an unfinished one, and opens it. An existing spool is only opened. Any
    /// number of processes may call this at once.
    ///
    /// `version` is written last, and durably (commit point *made*). If `version` exists, everything else is
    /// durable. Otherwise every step is redone, including the fsync of the parent directory.
    pub fn create(path: &Path) -> Result<Spool> {
        Spool::created(path, None)
    }

    /// As [`create`](Spool::create), with a test's seam at every file-system call.
    #[cfg(feature = "testing")]
    pub fn create_through(path: &Path, seam: Option<Arc<dyn Seam>>) -> Result<Spool> {
        Spool::created(path, seam)
    }

    fn created(path: &Path, seam: Option<Arc<dyn Seam>>) -> Result<Spool> {
        match Spool::opened(path, seam.clone()) {
            Err(Error::Missing(_)) => {}
            other => return other,
        }
        Disk::create_root(path, None, seam.clone())?;
        let disk = Disk::open(path, seam.clone())?;
        let mut dirs = vec![Path::new(".")];
        for dir in
            PLACES
                .iter()
                .chain(FILES)
                .chain(VIEW)
                .chain(&[STATE, KEYS, INTENDED_KEYS, KEY_LOCKS])
        {
            disk.mkdir(Path::new(dir))?;
            dirs.push(Path::new(dir));
        }
        // Message files are created in `new/`; changing them later should need no free space. Only some file
        // systems support this.
        let _ = disk.keep_in_place(&Queue::New.dir());
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Disk::open(parent, seam.clone())?.durable(&[], &[Path::new(".")])?;
        }
        disk.durable(&[], &dirs)?;
        let text = format!("{VERSION}\n");
        let part = Part::write(&disk, Path::new(""), VERSION_PART, text.as_bytes())?;
        part.rename_to(Path::new(VERSION_FILE))?;
        disk.durable(&[], &[Path::new(".")])?;
        Spool::opened(path, seam)
    }

    fn version(&self) -> Result<Option<String>> {
        match self.disk.read_all(Path::new(VERSION_FILE), 100) {
            Ok(bytes) => Ok(bytes
                .strip_suffix(b"\n")
                .map(|line| String::from_utf8_lossy(line).into_owned())),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that every directory exists, belongs to this user, and is on the spool's file system. If
    /// `history/` is not mounted, the spool is reported as damaged here; otherwise a thousand messages would
    /// start over.
    fn check_skeleton(&self) -> Result<()> {
        let root = self.directory(".")?;
        let euid = nix::unistd::geteuid().as_raw();
        let unsafe_because = |why: String| {
            Err(Error::Unsafe {
                path: self.path().to_owned(),
                why,
            })
        };
        if root.mode & 0o022 != 0 {
            return unsafe_because("others may write here; `chmod go-w` it".into());
        }
        if root.uid != euid {
            let uid = root.uid;
            return unsafe_because(format!("it belongs to user {uid}, this is user {euid}"));
        }
        for dir in PLACES.iter().chain(FILES) {
            let stat = self.directory(dir)?;
            if stat.identity.0 != root.identity.0 {
                return Err(self.damaged(dir, "it is on another file system"));
            }
        }
        // These may be missing: older programs did not make all of them. A symbolic link there would lead out
        // of the spool. A rename within `keys/` becomes durable together with files elsewhere, so it must be
        // on the same file system.
        for dir in OPTIONAL.iter().chain(VIEW) {
            let dir = *dir;
            let stat = match self.disk.stat(Path::new(dir)) {
                // Below a directory that this user may not read: operations that need it report their own
                // errors. An unreadable view does not prevent accepting mail.
                Err(error) if error.is_denied() || VIEW.contains(&dir) => continue,
                other => other?,
            };
            match stat {
                Some(stat) if stat.kind != Kind::Dir => {
                    return Err(self.damaged(dir, "it is not a directory"));
                }
                // A suspension or a key that is not mounted would be silently ignored.
                Some(stat) if !is_needless(dir) && stat.identity.0 != root.identity.0 => {
                    return Err(self.damaged(dir, "it is on another file system"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn directory(&self, dir: &str) -> Result<disk::Stat> {
        match self.disk.stat(Path::new(dir))? {
            Some(stat) if stat.kind == Kind::Dir => Ok(stat),
            Some(_) => Err(self.damaged(dir, "it is not a directory")),
            None => Err(self.damaged(dir, "the directory is missing")),
        }
    }

    fn damaged(&self, dir: &str, why: &'static str) -> Error {
        Error::Damaged {
            path: self.path().join(dir),
            why,
        }
    }

    /// Writes a file into the spool's top directory, whole and durably, unless it exists.
    pub fn write_if_missing(&self, name: &Path, bytes: &[u8]) -> Result<()> {
        self.disk.mkdir(Path::new(STATE))?;
        Part::write(&self.disk, Path::new(STATE), "", bytes)?.link_to(name)?;
        self.disk
            .durable(&[], &[Path::new(".")])
            .map_err(Error::Disk)
    }

    /// The spool's directory.
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// The seam to its file system.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Makes a bucket and makes its name durable in its parent. A message is renamed into a bucket only after
    /// that. Otherwise a power cut could keep the removal of the old name and lose the bucket.
    fn prepare_bucket(&self, queue: &Queue) -> disk::Result<()> {
        match queue.bucket_parent() {
            None => Ok(()),
            Some(parent) => self.prepare_dir(Path::new(parent), queue.dir()),
        }
    }

    /// Makes a directory like [`prepare_bucket`](Spool::prepare_bucket), for any directory that comes and
    /// goes.
    fn prepare_dir(&self, parent: &Path, dir: PathBuf) -> disk::Result<()> {
        if self.is_durable_bucket(&dir)? {
            return Ok(());
        }
        self.disk.mkdir(&dir)?;
        let opened = self.disk.open_read(&dir)?;
        if let Err(error) = self.disk.durable(&[], &[parent]) {
            // A later sync of the parent may succeed although this name is not durable. Remove the directory,
            // so that the next call makes it again; this fails if another process uses it.
            let _ = self.disk.rmdir(&dir);
            return Err(error);
        }
        self.know_durable(dir, opened);
        Ok(())
    }

    /// Records that a bucket's name is durable in its parent.
    fn know_durable(&self, dir: PathBuf, opened: disk::File) {
        let mut buckets = self.buckets_made_durable();
        // There is one bucket per minute of the schedule; the bound limits the open descriptors.
        if buckets.len() >= MAX_BUCKETS_OPEN {
            buckets.clear();
        }
        buckets.insert(dir, opened);
    }

    fn is_durable_bucket(&self, dir: &Path) -> disk::Result<bool> {
        let buckets = self.buckets_made_durable();
        let Some(opened) = buckets.get(dir) else {
            return Ok(false);
        };
        let ours = self.disk.stat_file(opened)?.identity;
        let there = self.disk.stat(dir)?;
        Ok(there.is_some_and(|there| there.identity == ours))
    }

    fn buckets_made_durable(&self) -> MutexGuard<'_, HashMap<PathBuf, disk::File>> {
        let buckets = self.durable_buckets.lock();
        buckets.unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes empty buckets. Their emptiness is made durable first. Otherwise a power cut could keep the
    /// removal of the directory and bring back a name in it.
    pub fn remove_empty_buckets(&self, queues: &[Queue]) -> disk::Result<()> {
        let mut empty = Vec::new();
        for queue in queues {
            match self.disk.list(&queue.dir()) {
                Ok(names) if names.is_empty() => empty.push(queue.dir()),
                Ok(_) => {}
                // Gone, or a file with a bucket's name, which this program did not make.
                Err(error) if error.is_absent() || error.is_wrong_kind() => {}
                Err(error) => return Err(error),
            }
        }
        for dir in &empty {
            match self.disk.durable(&[], &[dir]) {
                Err(error) if error.is_absent() => continue,
                other => other?,
            }
            self.disk.rmdir(dir)?;
            self.buckets_made_durable().remove(dir);
        }
        Ok(())
    }
}
