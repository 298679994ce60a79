//! Delivery into a Maildir.
//!
//! A copy is written to `tmp/` and made durable, then it is renamed to `new/`, and `new/` is made durable;
//! only then is it delivered. Both barriers are needed. Without the first, a power cut may leave a name in
//! `new/` although its data never reached the disk, and a reader sees a torn message. Without the second, the name
//! itself may be lost although success was reported. All copies of one message share both barriers.
//!
//! A copy's name in `new/` is a function of queue id and recipient. If an attempt was interrupted after its
//! rename, or its second barrier failed, the next attempt uses the same name: the new file replaces the
//! first, and `new/` has the message once, however often a broken disk forces another attempt. `cur/` is
//! not searched for the copy. That would take a listing for each message and prove nothing, because a
//! reader may have moved or removed the copy. This is the duplicate that at-least-once delivery always
//! permits, and a reader that compares unique names still sees one message.
//!
//! The name in `tmp/` is different each time, created with `O_EXCL`. With a fixed name, two processes that
//! have the same message (a spool restored on a second host) could each rename the file that the other has
//! only half written. A killed attempt leaves its file in `tmp/`; readers remove it after 36 hours, as the
//! specification says (<https://cr.yp.to/proto/maildir.html>).
//!
//! Every failure defers. It leaves no file of this transport in `tmp/`. A copy that has reached `new/`
//! stays there: it is complete, and a reader may have seen it.

mod name;
pub(super) mod room;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use self::name::{copy_name, safe_host, unique_part};
use self::room::Room;
use super::trace::Delivery;
use super::unconnected::{self, blocking};
use super::{BoxFuture, Message, Session, Transport};
use crate::disk::{self, Disk, File, Kind, Seam};
use crate::message::{Address, EnhancedCode, QueueId};
use crate::queue::{Outcome, Status};

/// Octets of a message in memory at once. A longer message is copied block by block.
const BLOCK: usize = 128 * 1024;

/// The outcome after a panic.
const INTERRUPTED: &str = "delivery to the maildir was interrupted";

/// Delivers into one Maildir: one file in `new/` for each recipient. The file has `Return-Path` and
/// `Delivered-To` fields, then the message without its own `Return-Path` fields. The message is delivered
/// once it is durable there. Every failure defers.
#[derive(Clone)]
pub struct Maildir {
    path: PathBuf,
    host: String,
    seam: Option<Arc<dyn Seam>>,
    concurrency: usize,
}

/// A Maildir held open.
struct Mailbox {
    disk: Disk,
    host: String,
}

/// A copy that is being written, in `tmp/`.
struct Copy {
    file: File,
    name: String,
}

impl Maildir {
    /// The default for how many messages are written at once over all processes. Further ones wait.
    pub const CONCURRENCY: usize = 20;

    /// The Maildir at `path`. It is created on first use, but its parent directory must exist: a missing
    /// parent is more likely a mistake or an unmounted disk. `hostname` becomes part of the file names.
    pub fn new(path: PathBuf, hostname: String) -> Maildir {
        Maildir {
            path,
            host: safe_host(&hostname),
            seam: None,
            concurrency: Maildir::CONCURRENCY,
        }
    }

    /// Sets how many messages are written at once, over all processes that work on the spool.
    #[must_use]
    pub fn with_concurrency(mut self, most: usize) -> Maildir {
        self.concurrency = most.max(1);
        self
    }

    /// Sets a hook into the file-system calls, for tests.
    #[cfg(feature = "testing")]
    pub fn with_seam(mut self, seam: Option<Arc<dyn Seam>>) -> Maildir {
        self.seam = seam;
        self
    }

    /// The name of a recipient's copy of a message in `new/`.
    #[cfg(feature = "testing")]
    pub fn copy_name(&self, id: QueueId, recipient: &Address) -> String {
        copy_name(id, recipient, &self.host)
    }

    fn open(&self) -> Result<Mailbox, Outcome> {
        let disk = match Disk::open(&self.path, self.seam.clone()) {
            Ok(disk) if is_complete(&disk)? => disk,
            Ok(_) => self.make()?,
            Err(error) if error.is_absent() => self.make()?,
            Err(error) => return Err(deferral(&error)),
        };
        Ok(Mailbox {
            disk,
            host: self.host.clone(),
        })
    }

    /// Creates the missing directories. `cur/` comes last, after the rest is durable: a process that finds
    /// `cur/` need not sync anything that another process has just created.
    fn make(&self) -> Result<Disk, Outcome> {
        self.make_base()?;
        let disk = Disk::open(&self.path, self.seam.clone()).map_err(|e| deferral(&e))?;
        let make = || -> disk::Result<()> {
            disk.mkdir(Path::new("tmp"))?;
            disk.mkdir(Path::new("new"))?;
            disk.durable(&[], &[Path::new(".")])?;
            disk.mkdir(Path::new("cur"))?;
            disk.durable(&[], &[Path::new(".")])
        };
        make().map_err(|error| deferral(&error))?;
        if is_complete(&disk)? {
            Ok(disk)
        } else {
            Err(misconfigured(&self.path, "disappears while it is created"))
        }
    }

    fn make_base(&self) -> Result<(), Outcome> {
        // `/` and a path ending in `..` have no name and cannot be created. Opening the Maildir shows
        // whether they exist.
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let above = match Disk::open(parent, self.seam.clone()) {
            Ok(above) => above,
            Err(error) if error.is_absent() => {
                return Err(misconfigured(
                    parent,
                    "is missing (the Maildir's parent directory)",
                ));
            }
            // This process could not have created anything in there, so it has nothing to make durable. If
            // the Maildir is missing, opening it fails.
            Err(error) if error.is(Errno::EACCES) => return Ok(()),
            Err(error) => return Err(deferral(&error)),
        };
        let made = above.mkdir(Path::new(name));
        // Sync also if the directory existed: the process that created it may not have synced it yet.
        made.and_then(|_| above.durable(&[], &[Path::new(".")]))
            .map_err(|error| deferral(&error))
    }
}

impl Mailbox {
    /// Delivers one message. Returns one outcome for each recipient, in their order.
    fn deliver(&self, message: &Message, recipients: &[Address]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < recipients.len() {
            let left = &recipients[outcomes.len()..];
            let room = Room::take(left.len());
            outcomes.extend(self.deliver_together(message, &left[..room.copies()]));
        }
        outcomes
    }

    fn deliver_together(&self, message: &Message, recipients: &[Address]) -> Vec<Outcome> {
        let create = |recipient| self.create(message.id, recipient);
        let mut copies: Vec<_> = recipients.iter().map(create).collect();
        if let Err(error) = self.write(message, recipients, &mut copies) {
            let code = EnhancedCode::new(4, 3, 0);
            let outcome = Outcome::deferred(code, format!("cannot read the message: {error}"));
            self.abandon_all(&mut copies, &outcome);
        }
        self.commit(&mut copies);
        let outcome = |copy: Result<Copy, Outcome>| match copy {
            Ok(_) => Outcome::delivered("delivered to maildir"),
            Err(outcome) => outcome,
        };
        copies.into_iter().map(outcome).collect()
    }

    fn create(&self, id: QueueId, recipient: &Address) -> Result<Copy, Outcome> {
        const TRIES: usize = 100;
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = unique_part(id, recipient);
        let name = copy_name(id, recipient, &self.host);
        let process = std::process::id();
        let mut tries = 0;
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let tmp = format!("tmp/{unique}P{process}N{count}.{}", self.host);
            match self.disk.create(Path::new(&tmp)) {
                Ok(file) => return Ok(Copy { file, name }),
                // This file belongs to another process: one with the same number, on another host or
                // earlier on this one. Leave it alone.
                Err(error) if error.is(Errno::EEXIST) && tries < TRIES => tries += 1,
                Err(error) => {
                    // Over a network, the file may have been created although the answer was lost.
                    if !error.is(Errno::EEXIST) {
                        self.remove(Path::new(&tmp));
                    }
                    return Err(deferral(&error));
                }
            }
        }
    }

    /// Writes the message, read once, to all copies. A copy that cannot be written becomes its outcome; the
    /// returned error is a failure to read the message.
    fn write(
        &self,
        message: &Message,
        recipients: &[Address],
        copies: &mut [Result<Copy, Outcome>],
    ) -> io::Result<()> {
        let mut reader = message.body.reader();
        let mut block = vec![0; BLOCK];
        let mut delivery = Delivery::new();
        let mut heads = true;
        loop {
            let got = reader.fill(&mut block)?;
            let is_last = got < BLOCK;
            let block = delivery.push(&block[..got], is_last);
            if block.is_empty() && !heads {
                return Ok(());
            }
            for (slot, recipient) in copies.iter_mut().zip(recipients) {
                let Ok(copy) = slot else { continue };
                let written = if heads {
                    // Write the header fields together with the first block: most messages need no other
                    // write.

                    let head = delivery.head(message, Some(recipient));
                    let bytes = [head.as_bytes(), &block].concat();
                    self.disk.write_all(&copy.file, &bytes)
                } else {
                    self.disk.write_all(&copy.file, &block)
                };
                if let Err(error) = written {
                    self.remove(copy.file.path());
                    *slot = Err(deferral(&error));
                }
            }
            if is_last {
                return Ok(());
            }
            heads = false;
        }
    }

    /// Moves the copies to `new/`, with a barrier before and one after.
    fn commit(&self, copies: &mut [Result<Copy, Outcome>]) {
        let files: Vec<&File> = copies.iter().flatten().map(|copy| &copy.file).collect();
        if files.is_empty() {
            return;
        }
        if let Err(error) = self.disk.durable(&files, &[]) {
            return self.abandon_all(copies, &deferral(&error));
        }
        for slot in &mut *copies {
            let Ok(copy) = slot else { continue };
            let tmp = copy.file.path();
            let new = Path::new("new").join(&copy.name);
            if let Err(error) = self.disk.rename(&copy.file, tmp, &new) {
                self.remove(tmp);
                *slot = Err(deferral(&error));
            }
        }
        if !copies.iter().any(Result::is_ok) {
            return;
        }
        if let Err(error) = self.disk.durable(&[], &[Path::new("new")]) {
            let outcome = deferral(&error);
            for slot in copies.iter_mut().filter(|copy| copy.is_ok()) {
                *slot = Err(outcome.clone());
            }
        }
    }

    fn abandon_all(&self, copies: &mut [Result<Copy, Outcome>], outcome: &Outcome) {
        for slot in copies {
            if let Ok(copy) = slot {
                self.remove(copy.file.path());
                *slot = Err(outcome.clone());
            }
        }
    }

    /// Removes a file of this transport from `tmp/`. If that fails too, a reader removes it later.
    fn remove(&self, tmp: &Path) {
        if let Err(error) = self.disk.unlink(tmp) {
            tracing::warn!(%error, "a file was left in the Maildir's tmp");
        }
    }
}

impl Transport for Maildir {
    /// All recipients share the Maildir.
    fn next_hop(&self, _recipient: &Address) -> String {
        self.path.display().to_string()
    }

    fn only_next_hop(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    fn concurrency(&self) -> Option<usize> {
        Some(self.concurrency)
    }

    /// None: a file-system call cannot be interrupted.
    fn deadline(&self, _size: u64) -> Option<Duration> {
        None
    }

    fn connect<'a>(
        &'a self,
        _destination: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        let maildir = self.clone();
        Box::pin(unconnected::open(INTERRUPTED, move || {
            let mailbox = maildir.open()?;
            // After a failure the next message opens the Maildir again to see whether it still exists: for
            // a process that holds a removed directory open, it stays removed.
            let keeps = |outcomes: &[Outcome]| {
                let is_delivered = |outcome: &Outcome| outcome.status == Status::Delivered;
                outcomes.iter().all(is_delivered)
            };
            let deliver = move |message: &_, recipients: &_| mailbox.deliver(message, recipients);
            Ok(blocking(keeps, INTERRUPTED, Arc::new(deliver)))
        }))
    }
}

/// Checks that the three directories exist. A symbolic link would take messages out of the Maildir.
fn is_complete(disk: &Disk) -> Result<bool, Outcome> {
    let stat = |name: &str| disk.stat(Path::new(name)).map_err(|error| deferral(&error));
    for name in ["tmp", "new", "cur"] {
        let Some(found) = stat(name)? else {
            return Ok(false);
        };
        let path = disk.path().join(name);
        if found.kind != Kind::Dir {
            return Err(misconfigured(&path, "is not a directory"));
        }
    }
    Ok(true)
}

fn deferral(error: &disk::Error) -> Outcome {
    let code = if error.is(Errno::EDQUOT) {
        EnhancedCode::new(4, 2, 2)
    } else if error.is_full() {
        EnhancedCode::new(4, 3, 1)
    } else {
        EnhancedCode::new(4, 3, 0)
    };
    Outcome::deferred(code, error.to_string())
}

fn misconfigured(path: &Path, what: &str) -> Outcome {
    let text = format!("{} {what}", path.display());
    Outcome::deferred(EnhancedCode::new(4, 3, 5), text)
}
