//! Users: who called, and root's way down to the spool's owner.
//!
//! Root never touches a spool that belongs to somebody else: files made by root in it could not
//! be worked on by its owner, and links put there by its owner would lead root anywhere. So the
//! effective user changes first of all, and later, when the configuration has been read, the
//! other user ids follow for good, unless a pipe needs to run its command as another user.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{self, Gid, Uid, User};

use super::exit::{EX_NOPERM, EX_NOUSER, EX_TEMPFAIL, Failure};

/// Who called the program.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub name: String,
    uid: Uid,
}

impl Caller {
    /// The real user, by name if there is one; the one before sudo if sudo says so.
    pub fn look() -> Result<Caller, Failure> {
        let uid = unistd::getuid();
        let name = match User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => uid.to_string(),
        };
        Ok(Caller { name, uid })
    }

    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// The caller's name for the record, with who was behind it.
    pub fn with_sudo(&self) -> String {
        let sudo = std::env::var("SUDO_USER").ok().filter(|_| self.is_root());
        match sudo {
            Some(user) => crate::message::printable(&format!("{user} (sudo)")),
            None => self.name.clone(),
        }
    }
}

/// If we are root and the spool belongs to somebody else, acts as that somebody from now on.
pub(super) fn become_owner(spool: &Path) -> Result<(), Failure> {
    if !unistd::geteuid().is_root() {
        return Ok(());
    }
    let owner = match std::fs::symlink_metadata(spool) {
        Ok(metadata) => (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())),
        // It will be ours; or opening it will say what is wrong.
        Err(_) => return Ok(()),
    };
    act_as(owner.0, owner.1)
}

fn act_as(uid: Uid, gid: Gid) -> Result<(), Failure> {
    if uid.is_root() {
        return Ok(());
    }
    let denied = |error| Failure::new(EX_TEMPFAIL, format!("changing to user {uid}: {error}"));
    let groups = match User::from_uid(uid) {
        Ok(Some(user)) => std::ffi::CString::new(user.name).ok(),
        _ => None,
    };
    match groups {
        Some(name) => unistd::initgroups(&name, gid).map_err(denied)?,
        None => unistd::setgroups(&[gid]).map_err(denied)?,
    }
    unistd::setegid(gid).map_err(denied)?;
    unistd::seteuid(uid).map_err(denied)
}

/// Gives root up for good, unless it is kept for pipes that change users.
pub(super) fn settle(keep_root: bool) -> Result<(), Failure> {
    let (uid, gid) = (unistd::geteuid(), unistd::getegid());
    if keep_root || !unistd::getuid().is_root() || uid.is_root() {
        return Ok(());
    }
    let denied = |error| Failure::new(EX_TEMPFAIL, format!("giving up root: {error}"));
    unistd::seteuid(Uid::from_raw(0)).map_err(denied)?;
    unistd::setresgid(gid, gid, gid).map_err(denied)?;
    unistd::setresuid(uid, uid, uid).map_err(denied)
}

/// Whether nobody but root could have written an open file.
pub(super) fn only_root_writes(file: &File) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0)
}

/// Makes a directory for a user and acts as that user from now on.
pub(super) fn make_for(spool: &Path, name: &str) -> Result<(), Failure> {
    if !unistd::geteuid().is_root() {
        return Err(Failure::new(
            EX_NOPERM,
            "only root can make a spool for another user",
        ));
    }
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        Ok(None) => {
            return Err(Failure::new(
                EX_NOUSER,
                format!("there is no user {name:?}"),
            ));
        }
        Err(error) => {
            return Err(Failure::new(
                EX_TEMPFAIL,
                format!("looking up {name:?}: {error}"),
            ));
        }
    };
    if std::fs::symlink_metadata(spool).is_err() {
        crate::disk::Disk::create_root(spool, None)?;
        let denied = |error| Failure::new(EX_TEMPFAIL, format!("{}: {error}", spool.display()));
        unistd::chown(spool, Some(user.uid), Some(user.gid)).map_err(denied)?;
    }
    act_as(user.uid, user.gid)
}
