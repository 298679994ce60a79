//! Making the directory that a disk is, where it is missing.
//!
//! Root makes it for another user without ever following a name that the user could have changed
//! meanwhile: each directory is opened as soon as it is made, and what is opened is looked at.

use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid};

use super::{Call, Disk, Error, Inner, Result, Seam, through};

/// Mode of a directory of root's above one that belongs to another user.
const PASSAGE_MODE: u32 = 0o755;

/// For whom root makes a directory.
#[derive(Clone, Copy)]
enum MadeFor {
    /// For the user of this process only.
    Us,
    /// For another user, to whom it is given.
    Owner(Uid, Gid),
    /// As a part of the way to one that is given to another user.
    Passage,
}

impl Disk {
    /// Makes a directory that is to be opened, and those above it, each durable in its parent. Root
    /// makes the last one for `owner`, a user and a group, and those above it so that the owner can
    /// pass through them.
    pub fn create_root(
        path: &Path,
        owner: Option<(Uid, Gid)>,
        seam: Option<Arc<dyn Seam>>,
    ) -> Result<()> {
        let (made_for, above) = match owner {
            Some((uid, gid)) => (MadeFor::Owner(uid, gid), MadeFor::Passage),
            None => (MadeFor::Us, MadeFor::Us),
        };
        if is_there(path)? {
            Ok(())
        } else {
            Disk::made(path, made_for, above, seam).map(drop)
        }
    }

    fn made(
        path: &Path,
        made_for: MadeFor,
        above: MadeFor,
        seam: Option<Arc<dyn Seam>>,
    ) -> Result<Disk> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new("mkdir", path, Errno::EINVAL.into()));
        };
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let parent = if is_there(parent)? {
            Disk::open(parent, seam)?
        } else {
            Disk::made(parent, above, above, seam)?
        };
        parent.make_child(Path::new(name), made_for)
    }

    /// Makes a directory in this one and opens it, without following a link that others put in its
    /// place. Root gives it to its owner on the descriptor, and gives away nothing that it did not
    /// make, because the name may mean something else by then.
    fn make_child(&self, name: &Path, made_for: MadeFor) -> Result<Disk> {
        let made = self.mkdir(name)?;
        let child = self.open_dir(name)?;
        if nix::unistd::geteuid().is_root() {
            let wrong = |errno: Errno| Error::new("mkdir", name, errno.into()).below(self.path());
            let is = Uid::from_raw(nix::sys::stat::fstat(&child).map_err(wrong)?.st_uid);
            match made_for {
                MadeFor::Owner(uid, gid) if made && is.is_root() => {
                    nix::unistd::fchown(&child, Some(uid), Some(gid)).map_err(wrong)?;
                }
                // Another process makes the same one.
                MadeFor::Owner(uid, _) if is == uid => {}
                MadeFor::Passage if made && is.is_root() => {
                    let mode = Mode::from_bits_truncate(PASSAGE_MODE);
                    fchmod(&child, mode).map_err(wrong)?;
                }
                _ if is.is_root() => {}
                _ => return Err(wrong(Errno::EPERM)),
            }
        }
        self.durable(&[], &[Path::new(".")])?;
        // It is open already; from now on names are names in it.
        let path = self.path().join(name);
        let call = Call::OpenRoot { path: &path };
        through(self.inner.seam.as_deref(), &call, &path, || Ok(()))?;
        Ok(Disk {
            inner: Arc::new(Inner {
                root: child,
                path,
                seam: self.inner.seam.clone(),
            }),
        })
    }
}

fn is_there(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::new("stat", path, error)),
    }
}
