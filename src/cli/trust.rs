//! Whether users other than root can change where a path leads.
//!
//! A path is walked one component at a time, links included, on descriptors that stay open. The check
//! applies to the opened file, so nothing can be exchanged between check and use. Root trusts a path if
//! each component belongs to root and only root can write to it. Root's own entry in a sticky directory
//! such as `/tmp` is trusted too, because only its owner can rename it.
//!
//! The caller decides what follows from a doubt. An error means that the path could not be walked.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::unistd::Uid;

use crate::users::User;

/// The most links in one path, the same as in the kernel; more are the error ELOOP.
const MAX_LINKS: usize = 40;

/// Local file systems. There, the owner of a file is the one that this machine's kernel recorded.
const LOCAL: &[FsType] = &[
    statfs::EXT4_SUPER_MAGIC, // also ext2 and ext3
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::F2FS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
    statfs::REISERFS_SUPER_MAGIC,
    statfs::NILFS_SUPER_MAGIC,
    statfs::ISOFS_SUPER_MAGIC,
    FsType(0x3153_464a), // JFS
    FsType(0x2fc1_2fc1), // ZFS
    FsType(0xca45_1a4e), // bcachefs
    FsType(0x7371_7368), // SquashFS
    FsType(0xe0f5_e1e2), // EROFS
    FsType(0x8584_58f6), // ramfs
];

/// What a path led to.
pub(super) struct Reached {
    /// The open descriptor: a file for reading, a directory with `O_PATH`.
    pub fd: OwnedFd,
    /// The first reason why others than root could have put it there.
    pub doubt: Option<String>,
    /// The first component on a file system that is not local, such as procfs, FUSE or NFS.
    pub foreign: Option<String>,
}

impl Reached {
    /// Returns why others than root could have written the contents.
    pub fn not_roots_word(&self) -> Option<&str> {
        self.doubt.as_deref().or(self.foreign.as_deref())
    }
}

/// Where the walk along a path ended.
pub(super) enum Way {
    /// At the directory that the path names.
    There(Reached),
    /// Earlier: this directory does not have the next entry.
    Ends(Reached),
}

/// Whether opening a file may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Yes, such as until a pipe has a writer.
    Allowed,
    /// No.
    Never,
}

/// Opens a file for reading.
pub(super) fn open(path: &Path, wait: Wait) -> io::Result<Reached> {
    let mut walk = Walk::begin(path)?;
    let absent = || io::Error::from(Errno::ENOENT);
    let name = walk.walk()?.ok_or_else(|| io::Error::from(Errno::EISDIR))?;
    if name.is_missing {
        return Err(absent());
    }
    let mut flags = OFlag::O_RDONLY | OFlag::O_NOCTTY;
    flags.set(OFlag::O_NONBLOCK, wait == Wait::Never);
    let fd = walk.open_last(&name, flags)?;
    Ok(walk.reached(fd))
}

/// Walks to a directory, as far as the path exists.
pub(super) fn directory(path: &Path) -> io::Result<Way> {
    let mut walk = Walk::begin(path)?;
    match walk.walk()? {
        None => {
            let fd = walk.here.try_clone()?;
            Ok(Way::There(walk.reached(fd)))
        }
        Some(name) if name.is_missing => {
            let fd = walk.here.try_clone()?;
            Ok(Way::Ends(walk.reached(fd)))
        }
        Some(_) => Err(Errno::ENOTDIR.into()),
    }
}

/// Returns why root should not open, create or run what a path names: others can change where it leads.
/// The path need not exist.
pub(super) fn doubt(path: &Path) -> io::Result<Option<String>> {
    let mut walk = Walk::begin(path)?;
    match walk.judge_the_end() {
        // A path that cannot be walked now may lead elsewhere later, so an earlier doubt stands.
        Err(_) if walk.doubt.is_some() => {}
        other => other?,
    }
    Ok(walk.doubt)
}

/// The last name of a path, which is not a directory.
struct Last {
    name: OsString,
    is_missing: bool,
    /// A procfs link, which only the kernel can follow.
    is_magic: bool,
}

struct Walk {
    here: OwnedFd,
    /// Others may create entries in `here`, but not remove those of root.
    is_sticky: bool,
    /// The path of `here`, for texts.
    path: PathBuf,
    rest: VecDeque<OsString>,
    links: usize,
    trusted: [Uid; 2],
    /// The device that was checked last. The same device is the same file system.
    device: Option<libc::dev_t>,
    doubt: Option<String>,
    foreign: Option<String>,
}

impl Walk {
    fn begin(path: &Path) -> io::Result<Walk> {
        let path = std::path::absolute(path)?;
        let here = root()?;
        // In a user namespace, the outer root may have another uid. It is the owner of `/`.
        let stat = fstat(&here)?;
        let owner = Uid::from_raw(stat.st_uid);
        let mut walk = Walk {
            is_sticky: false,
            path: PathBuf::from("/"),
            rest: VecDeque::new(),
            links: 0,
            trusted: [Uid::from_raw(0), owner],
            device: None,
            doubt: None,
            foreign: None,
            here,
        };
        walk.push_front(&path);
        let root = walk.here.try_clone()?;
        walk.judge(&root, &stat)?;
        Ok(walk)
    }

    fn push_front(&mut self, path: &Path) {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        });
        let mut names: VecDeque<OsString> = names.collect();
        names.append(&mut self.rest);
        self.rest = names;
    }

    /// Walks to the last directory of the path. Returns the last name, or none if the path names that
    /// directory itself.
    fn walk(&mut self) -> io::Result<Option<Last>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        while let Some(name) = self.rest.pop_front() {
            let mut last = Last {
                name,
                is_missing: false,
                is_magic: false,
            };
            let name = last.name.as_os_str();
            let mut fd = match openat(&self.here, name, flags, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    last.is_missing = true;
                    return Ok(Some(last));
                }
                opened => opened?,
            };
            let mut stat = fstat(&fd)?;
            if kind(&stat) == SFlag::S_IFLNK {
                self.judge_link(&stat, name);
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                if fstatfs(&self.here)?.filesystem_type() != statfs::PROC_SUPER_MAGIC {
                    let target = PathBuf::from(readlinkat(&fd, "")?);
                    if target.is_absolute() {
                        (self.here, self.path) = (root()?, PathBuf::from("/"));
                        self.is_sticky = false;
                    }
                    // A slash at the end of a link's target requires a directory.
                    if target.as_os_str().as_bytes().ends_with(b"/") {
                        self.rest.push_front(".".into());
                    }
                    self.push_front(&target);
                    continue;
                }
                last.is_magic = true;
                fd = openat(&self.here, name, flags - OFlag::O_NOFOLLOW, Mode::empty())?;
                stat = fstat(&fd)?;
            }
            if kind(&stat) != SFlag::S_IFDIR {
                return if self.rest.is_empty() {
                    Ok(Some(last))
                } else {
                    Err(Errno::ENOTDIR.into())
                };
            }
            match name.as_bytes() {
                b".." => drop(self.path.pop()),
                b"." => {}
                _ => self.path.push(name),
            }
            self.judge(&fd, &stat)?;
            self.here = fd;
        }
        Ok(None)
    }

    /// Walks as far as the path exists, and judges the end.
    fn judge_the_end(&mut self) -> io::Result<()> {
        match self.walk()? {
            None => {}
            // Another user may create the entry before root does.
            Some(name) if name.is_missing && self.is_sticky => {
                let path = self.path.display().to_string();
                self.doubt(|| format!("others may write to {path}"));
            }
            Some(name) if name.is_missing => {}
            Some(name) => drop(self.open_last(&name, OFlag::O_PATH)?),
        }
        Ok(())
    }

    /// Opens and judges the last name, which is not a directory. Follows only a procfs link: a link that
    /// appeared after [`walk`](Walk::walk) has not been judged.
    fn open_last(&mut self, last: &Last, flags: OFlag) -> io::Result<OwnedFd> {
        let mut flags = flags | OFlag::O_CLOEXEC;
        flags.set(OFlag::O_NOFOLLOW, !last.is_magic);
        let fd = openat(&self.here, last.name.as_os_str(), flags, Mode::empty())?;
        self.path.push(&last.name);
        let stat = fstat(&fd)?;
        self.judge(&fd, &stat)?;
        Ok(fd)
    }

    /// Judges which users could have made a link in `here`.
    fn judge_link(&mut self, stat: &FileStat, name: &OsStr) {
        let path = self.path.join(name);
        if !self.trusted.contains(&Uid::from_raw(stat.st_uid)) {
            self.doubt(|| format!("the link {} belongs to {}", path.display(), owner(stat)));
        }
        self.judge_name(stat, &path);
    }

    /// Judges whether others could have made this name as a hard link to root's file or link. They can in
    /// a directory where they may create entries.
    fn judge_name(&mut self, stat: &FileStat, path: &Path) {
        if self.is_sticky && kind(stat) != SFlag::S_IFDIR && stat.st_nlink > 1 {
            self.doubt(|| format!("{} may be a hard link to another file", path.display()));
        }
    }

    /// Judges the file or directory that was opened at `path`.
    fn judge(&mut self, fd: &OwnedFd, stat: &FileStat) -> io::Result<()> {
        let path = self.path.clone();
        self.judge_name(stat, &path);
        let path = path.display();
        let is_directory = kind(stat) == SFlag::S_IFDIR;
        self.is_sticky = is_directory && stat.st_mode & 0o1000 != 0;
        if !self.trusted.contains(&Uid::from_raw(stat.st_uid)) {
            self.doubt(|| format!("{path} belongs to {}", owner(stat)));
        } else if stat.st_mode & 0o022 != 0 && !self.is_sticky {
            self.doubt(|| format!("users other than its owner may write to {path}"));
        }
        self.is_sticky &= stat.st_mode & 0o022 != 0;
        if self.device.replace(stat.st_dev) == Some(stat.st_dev) {
            return Ok(());
        }
        let kind = fstatfs(fd)?.filesystem_type();
        if !LOCAL.contains(&kind) && self.foreign.is_none() {
            self.foreign = Some(format!("{path} is not on a local file system"));
        }
        if kind == statfs::FUSE_SUPER_MAGIC && !is_mounted_by_root(stat)? {
            self.doubt(|| format!("{path} is on a file system that another user mounted"));
        }
        Ok(())
    }

    fn doubt(&mut self, why: impl FnOnce() -> String) {
        self.doubt.get_or_insert_with(why);
    }

    fn reached(self, fd: OwnedFd) -> Reached {
        Reached {
            fd,
            doubt: self.doubt,
            foreign: self.foreign,
        }
    }
}

fn root() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open("/", flags, Mode::empty())?)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Returns the owner's name, for texts.
fn owner(stat: &FileStat) -> String {
    let uid = Uid::from_raw(stat.st_uid);
    match User::numbered(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    }
}

/// Whether root mounted a FUSE file system. The user that mounts one controls which owners it reports.
fn is_mounted_by_root(stat: &FileStat) -> io::Result<bool> {
    let device = format!("{}:{}", major(stat.st_dev), minor(stat.st_dev));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    // `36 35 0:42 / /mnt rw,noatime - fuse.name source rw,user_id=0,group_id=0`
    let mut mounted = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(&device));
    let options = mounted.next().and_then(|line| line.rsplit(' ').next());
    Ok(options.is_some_and(|options| options.split(',').any(|option| option == "user_id=0")))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// The walk arrives at the same file as the kernel.
    #[test]
    fn a_walk_arrives_where_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        for (target, name) in [
            ("file", "relative"),
            ("below/../relative", "twice"),
            ("below/", "directory"),
        ] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        symlink(dir.path().join("twice"), dir.path().join("absolute")).unwrap();
        let ours = ["file", "relative", "twice", "absolute", "directory/../file"];
        let ours = ours.map(|name| dir.path().join(name));
        let systems = [
            "/bin/sh",
            "/proc/self/exe",
            "/proc/self/status",
            "/etc/../etc/passwd",
        ];
        for path in ours.into_iter().chain(systems.map(PathBuf::from)) {
            let walked = File::from(open(&path, Wait::Never).unwrap().fd);
            let (walked, there) = (walked.metadata().unwrap(), path.metadata().unwrap());
            let identity = |of: &std::fs::Metadata| (of.dev(), of.ino());
            assert_eq!(identity(&walked), identity(&there), "{}", path.display());
        }
        symlink("loop", dir.path().join("loop")).unwrap();
        for (name, errno) in [
            ("loop", Errno::ELOOP),
            ("missing", Errno::ENOENT),
            ("missing/file", Errno::ENOENT),
            ("file/below", Errno::ENOTDIR),
            ("below", Errno::EISDIR),
        ] {
            let error = open(&dir.path().join(name), Wait::Never).err().unwrap();
            assert_eq!(error.raw_os_error(), Some(errno as i32), "{name}");
        }
        let way = directory(&dir.path().join("directory/a/b")).unwrap();
        assert!(matches!(way, Way::Ends(_)));
    }

    #[test]
    fn root_does_not_trust_the_contents_of_procfs() {
        for path in ["/proc/self/cmdline", "/proc/1/cmdline", "/proc/self/exe"] {
            let Ok(reached) = open(Path::new(path), Wait::Never) else {
                continue;
            };
            assert!(reached.not_roots_word().is_some(), "{path}");
        }
    }
}
