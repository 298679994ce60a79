//! Creates the directory that a disk opens, if it is missing.
//!
//! Root can create it for another user. That user may change names meanwhile, so root follows no name
//! twice: it opens each directory as soon as it is created, and checks the open directory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid};

use super::{Call, Disk, Error, Inner, Result, Seam, through};

/// Mode of a directory that root creates and keeps, above one that root gives to another user.
const PASSAGE_MODE: u32 = 0o755;

/// The future owner of a directory that root creates.
#[derive(Clone, Copy)]
enum MadeFor {
    /// The user of this process.
    Us,
    /// Another user; root changes the owner.
    Owner(Uid, Gid),
    /// Root, for a directory on the path to one that is given to another user.
    Passage,
}

impl Disk {
    /// Creates the directory `path` and its missing parents, each durable in its parent. For an `owner`
    /// (user and group), root gives that user the last directory, and makes the new parents passable for
    /// it.
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

    /// Creates a directory in this one and opens it, without following a link that another process put in
    /// its place. Root changes the owner on the descriptor, because the name may refer to something else by
    /// then. It gives away only a directory that it has just created.
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
                // A concurrent process has created the same directory.
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
        // The directory is open. From here on, paths are relative to it.
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
