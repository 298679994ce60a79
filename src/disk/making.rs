//! Making the directory that a disk is, where it is missing.
//!
//! Root makes it for another user without ever following a name that the user could have changed
//! meanwhile: each directory is opened as soon as it is made, and what is opened is looked at.

use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::{Call, Disk, Error, Inner, Result, Seam, through};

impl Disk {
    /// Makes a directory that is to be opened, and those above it, each durable in its parent. Root
    /// makes the last one for `owner`, a user and a group.
    pub fn create_root(
        path: &Path,
        owner: Option<(Uid, Gid)>,
        seam: Option<Arc<dyn Seam>>,
    ) -> Result<()> {
        match is_there(path)? {
            true => Ok(()),
            false => Disk::made(path, owner, seam).map(drop),
        }
    }

    fn made(path: &Path, owner: Option<(Uid, Gid)>, seam: Option<Arc<dyn Seam>>) -> Result<Disk> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new("mkdir", path, Errno::EINVAL.into()));
        };
        let parent = match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        };
        let parent = match is_there(parent)? {
            true => Disk::open(parent, seam)?,
            false => Disk::made(parent, None, seam)?,
        };
        parent.make_child(Path::new(name), owner)
    }

    /// Makes a directory in this one and opens it, without following a link that others put in its
    /// place. Root gives it to its owner on the descriptor, and gives away nothing that it did not
    /// make, because the name may mean something else by then.
    fn make_child(&self, name: &Path, owner: Option<(Uid, Gid)>) -> Result<Disk> {
        let made = self.mkdir(name)?;
        let child = self.open_dir(name)?;
        if nix::unistd::geteuid().is_root() {
            let wrong = |errno: Errno| Error::new("mkdir", name, errno.into()).below(self.path());
            let is = Uid::from_raw(nix::sys::stat::fstat(&child).map_err(wrong)?.st_uid);
            match owner {
                Some((uid, gid)) if made && is.is_root() => {
                    nix::unistd::fchown(&child, Some(uid), Some(gid)).map_err(wrong)?;
                }
                // Another process makes the same one.
                Some((uid, _)) if is == uid => {}
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
