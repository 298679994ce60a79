//! Users: the caller, and how root becomes the spool's owner.
//!
//! Root never touches a spool that belongs to another user. The owner could not work on files that
//! root creates in it, and the owner's links could lead root anywhere. So the effective user changes
//! first, before anything is opened that the spool or the configuration names. After the configuration
//! is read, the other user ids change too, for good, unless a pipe runs its command as another user.

use std::io;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{self, Gid, Uid};

use super::exit::{EX_NOPERM, EX_NOUSER, EX_TEMPFAIL, Failure};
use super::trust::{self, Reached, Way};
use crate::disk::Disk;
use crate::users::User;

/// The user that called the program.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub name: String,
    uid: Uid,
}

impl Caller {
    /// Returns the real user, by name if it has one.
    pub fn look() -> Result<Caller, Failure> {
        let uid = unistd::getuid();
        let name = match User::numbered(uid) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => uid.to_string(),
        };
        Ok(Caller { name, uid })
    }

    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Returns the caller's name for the history. For root under sudo, the user that called sudo.
    pub fn with_sudo(&self) -> String {
        let sudo = std::env::var("SUDO_USER").ok().filter(|_| self.is_root());
        match sudo {
            Some(user) => crate::message::printable(&format!("{user} (sudo)")),
            None => self.name.clone(),
        }
    }
}

/// Changes root's effective user to the spool's owner. Returns false if the spool's directory does not
/// exist.
///
/// Root stays root only in a spool that root owns, and only if no other user can have put it there:
/// another user could put another spool of root's, with another configuration, in its place.
pub(super) fn become_owner(spool: &Path) -> Result<bool, Failure> {
    if !unistd::geteuid().is_root() {
        return Ok(true);
    }
    let reached = match trust::directory(spool) {
        Ok(Way::There(reached)) => reached,
        Ok(Way::Ends(_)) => return Ok(false),
        Err(error) => return Err(unusable(spool, error)),
    };
    let stat = fstat(&reached.fd).map_err(|error| unusable(spool, error.into()))?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match reached.doubt {
        Some(doubt) if uid.is_root() => {
            let text = format!(
                "{}: {doubt}; root works in root's spool only if no other user can replace it",
                spool.display()
            );
            Err(Failure::new(EX_NOPERM, text))
        }
        _ => act_as(uid, gid).map(|()| true),
    }
}

fn unusable(spool: &Path, error: io::Error) -> Failure {
    Failure::new(EX_TEMPFAIL, format!("{}: {error}", spool.display()))
}

fn act_as(uid: Uid, gid: Gid) -> Result<(), Failure> {
    if uid.is_root() {
        return Ok(());
    }
    let change = || -> io::Result<()> {
        let groups = match User::numbered(uid).ok().flatten() {
            Some(user) => User { gid, ..user }.groups()?,
            None => vec![gid],
        };
        unistd::setgroups(&groups)?;
        unistd::setegid(gid)?;
        Ok(unistd::seteuid(uid)?)
    };
    let denied = |error| Failure::new(EX_TEMPFAIL, format!("changing to user {uid}: {error}"));
    change().map_err(denied)
}

/// Drops root for good, unless it is kept for pipes that change users.
pub(super) fn give_up_root(keep_root: bool) -> Result<(), Failure> {
    let (uid, gid) = (unistd::geteuid(), unistd::getegid());
    if keep_root || !unistd::getuid().is_root() || uid.is_root() {
        return Ok(());
    }
    let denied = |error| Failure::new(EX_TEMPFAIL, format!("dropping root: {error}"));
    unistd::seteuid(Uid::from_raw(0)).map_err(denied)?;
    unistd::setresgid(gid, gid, gid).map_err(denied)?;
    unistd::setresuid(uid, uid, uid).map_err(denied)
}

/// Whether this process could become root again.
pub(super) fn can_become_root() -> bool {
    unistd::getresuid().is_ok_and(|ids| {
        [ids.real, ids.effective, ids.saved]
            .iter()
            .any(|uid| uid.is_root())
    })
}

/// Creates a missing spool directory as root, owned by `owner` or by root, and changes the effective
/// user to the spool's owner. Does nothing if the caller is not root.
///
/// Root creates directories only where no other user can replace them. Below a directory that others
/// can write to, the spool's owner has to create them.
pub(super) fn make_directory(spool: &Path, owner: Option<&str>) -> Result<(), Failure> {
    if !unistd::geteuid().is_root() {
        return match owner {
            None => Ok(()),
            Some(_) => {
                let text = "only root can create a spool for another user";
                Err(Failure::new(EX_NOPERM, text))
            }
        };
    }
    let owner = owner.map(user).transpose()?;
    match (trust::directory(spool), owner) {
        (Err(error), _) => Err(unusable(spool, error)),
        (Ok(Way::There(reached)), Some(owner)) => {
            give(&reached, &owner).map_err(|error| unusable(spool, error))?;
            act_as(owner.uid, owner.gid)
        }
        (Ok(Way::There(_)), None) => become_owner(spool).map(drop),
        (Ok(Way::Ends(reached)), Some(owner)) => {
            if reached.doubt.is_none() {
                Disk::create_root(spool, Some((owner.uid, owner.gid)), None)?;
            }
            act_as(owner.uid, owner.gid)
        }
        (Ok(Way::Ends(reached)), None) => match reached.doubt {
            None => Ok(Disk::create_root(spool, None, None)?),
            Some(doubt) => {
                let text = format!(
                    "{} is not created: {doubt}, and root creates nothing there; run as that user, or \
                     use `init --user`",
                    spool.display()
                );
                Err(Failure::new(EX_NOPERM, text))
            }
        },
    }
}

/// Changes the owner of an empty directory of root's to the spool's owner. An interrupted `init` leaves
/// such a directory.
fn give(reached: &Reached, owner: &User) -> io::Result<()> {
    if reached.doubt.is_some() || fstat(&reached.fd)?.st_uid != 0 {
        return Ok(());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(&reached.fd, ".", flags, Mode::empty())?;
    let is_dot = |name: &[u8]| name == b"." || name == b"..";
    for entry in dir.iter() {
        if !is_dot(entry?.file_name().to_bytes()) {
            return Ok(());
        }
    }
    Ok(unistd::fchown(&dir, Some(owner.uid), Some(owner.gid))?)
}

fn user(name: &str) -> Result<User, Failure> {
    match User::named(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Failure::new(
            EX_NOUSER,
            format!("there is no user {name:?}"),
        )),
        Err(error) => {
            let text = format!("looking up {name:?}: {error}");
            Err(Failure::new(EX_TEMPFAIL, text))
        }
    }
}
