//! Which user a command runs as, and what the child does before exec.
//!
//! A process started as root changes to the spool's owner with `seteuid` and keeps root as its saved user
//! id only if the configuration needs it for commands. No command may inherit that: a child sets all three
//! ids, whichever user it runs as. Root is regained in children only, never in the process itself, where
//! all threads would be root for that moment.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, ResGid, ResUid, Uid};
use nix::unistd::{getresgid, getresuid, seteuid, setgroups, setresgid, setresuid, setsid};

use super::PipeError;
use super::child::{before_exec, die_with, limit_descriptors, parent};
use crate::users::User;

/// A user of this system, with all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeUser {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: PathBuf,
}

/// What a child does to its user and group ids before exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nothing: all three ids are right already.
    AsIs,
    /// It gives up the real and saved ids, through which it could regain privileges. Supplementary groups
    /// stay: the code that drops root sets them.
    Settled { uid: Uid, gid: Gid },
    /// It becomes another user.
    Other {
        user: PipeUser,
        /// Its effective user id is not root, but another of the three ids is.
        regain: bool,
    },
}

impl PipeUser {
    /// Looks a user up by name.
    pub fn lookup(name: &str) -> Result<PipeUser, PipeError> {
        let found = User::named(name).and_then(|user| user.map(with_groups).transpose());
        match found {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(PipeError::NoSuchUser(name.to_owned())),
            Err(source) => Err(PipeError::User {
                name: name.to_owned(),
                source,
            }),
        }
    }

    /// The user that this process runs as; `None` if it has no entry.
    pub(super) fn effective() -> io::Result<Option<PipeUser>> {
        let user = User::numbered(Uid::effective())?;
        user.map(with_groups).transpose()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn home(&self) -> &OsStr {
        self.home.as_os_str()
    }
}

fn with_groups(user: User) -> io::Result<PipeUser> {
    Ok(PipeUser {
        groups: user.groups()?,
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        home: user.home,
    })
}

impl Identity {
    /// The identity for a command of this process.
    pub(super) fn of_process(user: Option<&PipeUser>) -> io::Result<Identity> {
        let identity = Identity::decide(&getresuid()?, &getresgid()?, user);
        identity.ok_or_else(|| {
            let uid = Uid::effective();
            io::Error::other(format!("user {uid} cannot become another"))
        })
    }

    /// What a process with these ids does for a command that is to run as `user`, or as the process itself.
    /// `None` if it cannot do so.
    fn decide(uids: &ResUid, gids: &ResGid, user: Option<&PipeUser>) -> Option<Identity> {
        let all = [uids.real, uids.effective, uids.saved];
        let settled = || {
            let is_one_user = all.iter().all(|uid| *uid == uids.effective);
            let is_one_group = [gids.real, gids.saved] == [gids.effective; 2];
            if is_one_user && is_one_group {
                Identity::AsIs
            } else {
                Identity::Settled {
                    uid: uids.effective,
                    gid: gids.effective,
                }
            }
        };
        let Some(user) = user else {
            return Some(settled());
        };
        if all.iter().all(|uid| *uid == user.uid) {
            Some(settled())
        } else if all.iter().any(|uid| uid.is_root()) {
            Some(Identity::Other {
                user: user.clone(),
                regain: !uids.effective.is_root(),
            })
        } else {
            (uids.effective == user.uid).then(settled)
        }
    }

    /// Makes a command run in its own session (its process group has the number of the process) as this
    /// identity, with this soft descriptor limit. It is killed when the thread that starts it ends.
    pub(super) fn apply_to(&self, command: &mut Command, descriptors: Option<u64>) {
        let identity = self.clone();
        let parent = parent();
        let limits = descriptors.and_then(|soft| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
            Some((soft.min(hard), hard))
        });
        before_exec(command, move || {
            setsid()?;
            if let Some((soft, hard)) = limits {
                limit_descriptors(soft, hard)?;
            }
            identity.assume()?;
            die_with(parent)
        });
    }

    /// Makes system calls and nothing else: see [`before_exec`].
    fn assume(&self) -> nix::Result<()> {
        match self {
            Identity::AsIs => Ok(()),
            Identity::Settled { uid, gid } => {
                // Groups first: after the user ids have changed it may be too late.
                setresgid(*gid, *gid, *gid)?;
                setresuid(*uid, *uid, *uid)
            }
            Identity::Other { user, regain } => {
                if *regain {
                    seteuid(Uid::from_raw(0))?;
                }
                setgroups(&user.groups)?;
                setresgid(user.gid, user.gid, user.gid)?;
                setresuid(user.uid, user.uid, user.uid)
            }
        }
    }

    /// Sends a signal to the process group of a command with this identity. An empty group is not an error.
    /// If the signal reaches nothing, waiting for the command shows it.
    pub(super) fn signal(&self, group: Pid, signal: Signal) {
        let sent = match self {
            Identity::Other { regain: true, .. } => signal_as_root(group, signal),
            _ => killpg(group, signal),
        };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => tracing::warn!(%group, %signal, error = errno.desc(), "cannot signal"),
        }
    }
}

/// Sends a signal as root, through a child that regains root, sends it, and ends before exec: its last step
/// always fails, and the error tells whether the signal was sent.
fn signal_as_root(group: Pid, signal: Signal) -> nix::Result<()> {
    let mut command = Command::new("/");
    before_exec(&mut command, move || {
        seteuid(Uid::from_raw(0))?;
        killpg(group, signal)?;
        Err(Errno::ECANCELED.into())
    });
    match command.spawn().map_err(|error| error.raw_os_error()) {
        Err(Some(sent)) if sent == Errno::ECANCELED as i32 => Ok(()),
        Err(Some(errno)) => Err(Errno::from_raw(errno)),
        Ok(_) | Err(None) => Err(Errno::UnknownErrno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> PipeUser {
        PipeUser {
            name: "u".into(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            groups: vec![],
            home: "/".into(),
        }
    }

    fn decide(uids: [u32; 3], user: Option<&PipeUser>) -> Option<Identity> {
        let [real, effective, saved] = uids.map(Uid::from_raw);
        let uids = ResUid {
            real,
            effective,
            saved,
        };
        let [real, effective, saved] = [real, effective, saved].map(|id| Gid::from_raw(id.into()));
        let gids = ResGid {
            real,
            effective,
            saved,
        };
        Identity::decide(&uids, &gids, user)
    }

    #[test]
    fn every_child_has_one_identity_and_root_only_where_it_was_given() {
        let (root, first, second) = (user(0), user(1), user(2));
        let settled = |id| {
            Some(Identity::Settled {
                uid: Uid::from_raw(id),
                gid: Gid::from_raw(id),
            })
        };
        let other = |user: &PipeUser, regain| {
            let user = user.clone();
            Some(Identity::Other { user, regain })
        };
        for (uids, user, expected) in [
            ([0, 0, 0], None, Some(Identity::AsIs)),
            ([1, 1, 1], None, Some(Identity::AsIs)),
            ([0, 1, 0], None, settled(1)),
            ([1, 1, 0], None, settled(1)),
            ([2, 1, 2], None, settled(1)),
            ([1, 1, 1], Some(&first), Some(Identity::AsIs)),
            ([0, 0, 0], Some(&root), Some(Identity::AsIs)),
            ([0, 0, 0], Some(&first), other(&first, false)),
            ([1, 1, 0], Some(&first), other(&first, true)),
            ([1, 1, 0], Some(&second), other(&second, true)),
            ([0, 1, 1], Some(&second), other(&second, true)),
            ([2, 1, 2], Some(&first), settled(1)),
            ([2, 1, 1], Some(&second), None),
            ([1, 1, 1], Some(&second), None),
            ([1, 1, 1], Some(&root), None),
        ] {
            assert_eq!(decide(uids, user), expected, "{uids:?} {user:?}");
        }
    }

    #[test]
    fn users_are_looked_up_by_name() {
        let looked_up = PipeUser::lookup("nobody").unwrap();
        assert!(looked_up.groups.contains(&looked_up.gid));
        assert!(matches!(
            PipeUser::lookup("no such user"),
            Err(PipeError::NoSuchUser(_))
        ));
    }
}
