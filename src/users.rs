//! Looks up this system's users in every source that `/etc/nsswitch.conf` names.
//!
//! A statically linked program must not use the C library's lookup. It would load the modules that
//! `nsswitch.conf` names, and with them a second C library. Such a program reads `/etc/passwd`, and asks
//! getent(1), which is part of the C library, for entries that are not in the file.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};

/// Where getent is looked for, in this order. `PATH` is not used, because root must not run a program that
/// its caller chose.
const GETENT: [&str; 2] = ["/usr/bin/getent", "/bin/getent"];

/// The exit status of getent if there is no such entry.
const NOT_FOUND: i32 = 2;

/// An entry of the user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    pub home: PathBuf,
}

impl User {
    /// Returns the user with this name, or `None`.
    pub fn named(name: &str) -> io::Result<Option<User>> {
        if !is_static() {
            return Ok(unistd::User::from_name(name)?.map(User::from));
        }
        match in_file(|user| user.name == name) {
            Some(user) => Ok(Some(user)),
            // getent takes a name of digits only for a uid.
            None => Ok(asked(name)?.filter(|user| user.name == name)),
        }
    }

    /// Returns the first user with this uid, or `None`.
    pub fn numbered(uid: Uid) -> io::Result<Option<User>> {
        // The file first, even in a dynamically linked program: the C library reads a configuration and
        // asks daemons, which is a tenth of the system calls of a submission.
        match in_file(|user| user.uid == uid) {
            Some(user) => Ok(Some(user)),
            None if is_static() => asked(&uid.to_string()),
            None => Ok(unistd::User::from_uid(uid)?.map(User::from)),
        }
    }

    /// Returns all groups of the user, with the primary group first.
    pub fn groups(&self) -> io::Result<Vec<Gid>> {
        if is_static() {
            return self.groups_asked();
        }
        let name = CString::new(self.name.as_str()).map_err(|_| Errno::EINVAL)?;
        Ok(unistd::getgrouplist(&name, self.gid)?)
    }

    fn groups_asked(&self) -> io::Result<Vec<Gid>> {
        let mut groups = vec![self.gid];
        let others = match getent("initgroups", &self.name)? {
            // `name 4 27`
            Some(text) => text
                .split_ascii_whitespace()
                .skip(1)
                .filter_map(|id| id.parse().ok())
                .map(Gid::from_raw)
                .collect(),
            None => groups_in_file(&self.name),
        };
        groups.extend(others.into_iter().filter(|group| *group != self.gid));
        Ok(groups)
    }

    /// Parses a line such as `root:x:0:0:root:/root:/bin/sh`.
    fn parse(line: &str) -> Option<User> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        let is_user = !name.is_empty() && !name.starts_with(['#', '+', '-']);
        is_user.then_some(User {
            name: name.to_owned(),
            uid: Uid::from_raw(uid.parse().ok()?),
            gid: Gid::from_raw(gid.parse().ok()?),
            home: home.into(),
        })
    }
}

impl From<unistd::User> for User {
    fn from(user: unistd::User) -> User {
        User {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            home: user.dir,
        }
    }
}

/// Whether this program is linked statically: if so, the kernel has loaded no interpreter for it.
#[allow(unsafe_code)]
fn is_static() -> bool {
    // SAFETY: the call only looks up a number in the auxiliary vector, which the kernel gave to the
    // process.
    unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

fn in_file(is: impl Fn(&User) -> bool) -> Option<User> {
    let users = fs::read("/etc/passwd").ok()?;
    let users = String::from_utf8_lossy(&users);
    users.lines().filter_map(User::parse).find(is)
}

/// The groups in `/etc/group` that list a user as a member.
fn groups_in_file(name: &str) -> Vec<Gid> {
    let groups = fs::read("/etc/group").unwrap_or_default();
    // `adm:x:4:alice,bob`
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            return None;
        };
        let is_member = members.split(',').any(|member| member == name);
        is_member.then(|| gid.parse().ok()).flatten()
    };
    let groups = String::from_utf8_lossy(&groups);
    groups.lines().filter_map(of).map(Gid::from_raw).collect()
}

fn asked(key: &str) -> io::Result<Option<User>> {
    let text = getent("passwd", key)?;
    Ok(text.and_then(|text| text.lines().find_map(User::parse)))
}

/// Returns what getent prints for a key. Returns `None` if there is no entry, or if getent is not
/// installed: a system without getent has its users in files.
fn getent(database: &str, key: &str) -> io::Result<Option<String>> {
    for program in GETENT {
        let asked = Command::new(program)
            .args([database, "--", key])
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let said = match asked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        return match said.status.code() {
            Some(0) => Ok(Some(String::from_utf8_lossy(&said.stdout).into_owned())),
            Some(NOT_FOUND) => Ok(None),
            _ => Err(io::Error::other(format!("{program}: {}", said.status))),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_the_library(name: &str) -> Option<User> {
        unistd::User::from_name(name).unwrap().map(User::from)
    }

    /// The file, getent and the C library agree on the users that every system has.
    #[test]
    fn files_getent_and_the_library_agree() {
        for name in [
            "root",
            "daemon",
            "mail",
            "nobody",
            "no such user",
            "0",
            "-x",
        ] {
            let theirs = from_the_library(name);
            assert_eq!(User::named(name).unwrap(), theirs, "{name}");
            assert_eq!(in_file(|user| user.name == name), theirs, "{name}");
            let by_getent = asked(name).unwrap().filter(|user| user.name == name);
            assert_eq!(by_getent, theirs, "{name}");
            let Some(user) = theirs else { continue };
            assert_eq!(User::numbered(user.uid).unwrap(), Some(user.clone()));
            assert_eq!(asked(&user.uid.to_string()).unwrap(), Some(user.clone()));
            let sorted = |mut groups: Vec<Gid>| {
                groups.sort_by_key(|group| group.as_raw());
                groups
            };
            let groups = sorted(user.groups().unwrap());
            assert_eq!(sorted(user.groups_asked().unwrap()), groups, "{name}");
            let mut by_file = groups_in_file(name);
            by_file.retain(|group| *group != user.gid);
            by_file.push(user.gid);
            assert_eq!(sorted(by_file), groups, "{name}");
        }
        let nothing = User::numbered(Uid::from_raw(u32::MAX - 7)).unwrap();
        assert_eq!(nothing, None);
    }

    #[test]
    fn an_invalid_line_is_no_user() {
        for line in [
            "",
            "#root:x:0:0::/:",
            "+::::::",
            "-a:x:1:1::/:",
            "a:x:b:1::/:",
            "a:x:1",
        ] {
            assert_eq!(User::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_test_is_linked_dynamically() {
        assert!(!is_static());
    }
}
