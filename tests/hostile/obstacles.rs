//! Objects that may be in the place of one of the program's files.

use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// What replaces a path. The second path is a directory outside the spool.
pub type Thing = (&'static str, fn(&Path, &Path));

/// Objects other than regular files, in any place.
pub const THINGS: &[Thing] = &[
    ("a link to a file outside", |path, outside| {
        symlink(outside.join("treasure"), path).unwrap();
    }),
    ("a link to a directory outside", |path, outside| {
        symlink(outside, path).unwrap()
    }),
    ("a relative link out", |path, _| {
        symlink("../../outside/treasure", path).unwrap()
    }),
    ("a link to itself", |path, _| symlink(path, path).unwrap()),
    ("a dangling link", |path, _| {
        symlink("/nonexistent/x", path).unwrap()
    }),
    ("a link to a device", |path, _| {
        symlink("/dev/zero", path).unwrap()
    }),
    ("a fifo", |path, _| {
        nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap()
    }),
    ("a null device", |path, _| {
        device(path, SFlag::S_IFCHR, 1, 3)
    }),
    ("an endless device", |path, _| {
        device(path, SFlag::S_IFCHR, 1, 5)
    }),
    ("a block device", |path, _| {
        device(path, SFlag::S_IFBLK, 7, 250)
    }),
    ("a socket", |path, _| {
        drop(UnixListener::bind(path).unwrap())
    }),
    ("an empty directory", |path, _| {
        fs::create_dir(path).unwrap()
    }),
    ("a full directory", |path, _| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("x"), "x").unwrap();
    }),
];

/// Files with other content than was written.
pub const FILES: &[Thing] = &[
    ("an empty file", |path, _| drop(File::create(path).unwrap())),
    ("garbage", |path, _| {
        fs::write(path, b"\0\xff\x1b[2Jgarbage\r").unwrap()
    }),
    ("a line and no newline", |path, _| {
        fs::write(path, "x@example.test").unwrap()
    }),
    ("a gigabyte of nothing", |path, _| sparse(path, 1 << 30)),
    ("a world-readable file", |path, _| {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
    }),
    ("another user's file", |path, _| {
        fs::write(path, "x\n").unwrap();
        chown(path, Some(65534), Some(65534)).unwrap();
    }),
    ("a hard link to a file outside", |path, outside| {
        fs::hard_link(outside.join("treasure"), path).unwrap();
    }),
];

fn device(path: &Path, kind: SFlag, major: u64, minor: u64) {
    mknod(
        path,
        kind,
        Mode::from_bits_truncate(0o600),
        makedev(major, minor),
    )
    .unwrap();
}

pub fn sparse(path: &Path, size: u64) {
    File::create(path).unwrap().set_len(size).unwrap();
}

/// Removes whatever is at a path.
pub fn clear(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Makes a file immutable while this value lives.
pub struct Immutable(PathBuf);

impl Immutable {
    pub fn make(path: &Path) -> Immutable {
        chattr("+i", path);
        Immutable(path.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(how: &str, path: &Path) {
    let status = Command::new("chattr").arg(how).arg(path).status().unwrap();
    assert!(
        status.success(),
        "chattr {how} {}: needs ext4, XFS or btrfs",
        path.display()
    );
}

/// Makes thousands of files with foreign names, some of them not UTF-8.
pub fn strangers(dir: &Path) {
    for n in 0..3000 {
        drop(File::create(dir.join(format!("stranger-{n}"))).unwrap());
    }
    drop(File::create(dir.join("x".repeat(255))).unwrap());
    for name in [&b"\xff\xfe"[..], b"\x1b[31mred\n", b" ", b"-rf"] {
        drop(File::create(dir.join(std::ffi::OsStr::from_bytes(name))).unwrap());
    }
}
