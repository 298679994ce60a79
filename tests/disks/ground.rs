//! File systems that only this test sees.
//!
//! A test's thread gets a new mount namespace. Its mounts and loop devices disappear when the last process in
//! it ends, even if the test was killed. A test that ends or panics unmounts everything at once. Images are
//! kept in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::passage::Passage;
use super::proof;

/// A mount namespace with a directory in memory.
pub struct Ground {
    dir: TempDir,
    /// Keeps the namespace until this test has ended. If this test were the last process in it, killing the
    /// test would unmount a device that the test serves, and hang forever.
    keeper: Child,
}

impl Ground {
    /// Makes a namespace for this thread, and all processes and threads that it starts.
    pub fn new() -> Ground {
        assert!(
            nix::unistd::geteuid().is_root(),
            "tests/disks mounts file systems: it needs root"
        );
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let size = Some("size=4g,mode=755");
        mount(
            Some("ground"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .unwrap();
        let mut keeper = Command::new("cat");
        keeper.stdin(Stdio::piped()).stdout(Stdio::null());
        Ground {
            dir,
            keeper: keeper.spawn().unwrap(),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        unmount(self.dir.path());
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Unmounts. If the mount point is busy, detaches it; the unmount completes when it is free.
pub fn unmount(point: &Path) {
    if umount2(point, MntFlags::empty()).is_err() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Ext4WithoutJournal,
    Xfs,
    Btrfs,
    Tmpfs,
    /// An overlay with its upper directory on a tmpfs.
    OverlayOnTmpfs,
    OverlayOnExt4,
    /// A FUSE file system that this process serves, over an ext4.
    FuseOnExt4,
}

impl Kind {
    /// The smallest possible size of each kind, or slightly more, in MiB.
    pub fn size(self) -> u32 {
        match self {
            Kind::Xfs => 300,
            Kind::Btrfs => 128,
            _ => 64,
        }
    }

    /// A size with space for all mail of a storm, in MiB.
    fn roomy(self) -> u32 {
        self.size() + if proof::long() { 400 } else { 0 }
    }

    /// Makes a file system of `size` MiB in an image.
    pub fn make(self, image: &Path, size: u32, options: &[&str]) {
        let size = format!("{size}m");
        must(Command::new("truncate").args(["-s", &size]).arg(image));
        let mut make = match self {
            Kind::Ext4 | Kind::FuseOnExt4 => command("mkfs.ext4 -q -F -b 4096 -m 0"),
            Kind::Ext4WithoutJournal => command("mkfs.ext4 -q -F -b 4096 -m 0 -O ^has_journal"),
            Kind::Xfs => command("mkfs.xfs -q"),
            Kind::Btrfs => command("mkfs.btrfs -q"),
            _ => panic!("{self:?} needs no image"),
        };
        must(make.args(options).arg(image));
    }
}

/// A mounted file system.
pub struct Disk {
    pub point: PathBuf,
    passage: Option<Passage>,
    /// The file system below it.
    below: Option<Box<Disk>>,
}

impl Disk {
    /// Makes and mounts a file system.
    pub fn new(ground: &Ground, kind: Kind) -> Disk {
        Disk::with_options(ground, kind, &[], "")
    }

    /// The same, with options for making and for mounting it.
    pub fn with_options(ground: &Ground, kind: Kind, make: &[&str], options: &str) -> Disk {
        let point = ground.dir().join("disk");
        fs::create_dir(&point).unwrap();
        match kind {
            Kind::Tmpfs => {
                // Root does not read a mailbox in a directory that others can write to.
                let size = format!("size={}m,mode=755,{options}", kind.roomy());
                let mount = ["-t", "tmpfs", "-o", &size, "disk"];
                must(Command::new("mount").args(mount).arg(&point));
            }
            Kind::OverlayOnTmpfs => return Disk::overlay(ground, point, None),
            Kind::OverlayOnExt4 => {
                let image = ground.dir().join("image");
                Kind::Ext4.make(&image, kind.roomy(), make);
                let upper = ground.dir().join("upper");
                fs::create_dir(&upper).unwrap();
                let upper = Disk::mount_image(&image, &upper, options).unwrap();
                return Disk::overlay(ground, point, Some(upper));
            }
            _ => {
                let image = ground.dir().join("image");
                kind.make(&image, kind.roomy(), make);
                return Disk::mount(kind, &image, &point, options).unwrap();
            }
        }
        Disk {
            point,
            passage: None,
            below: None,
        }
    }

    /// Mounts an image that holds this kind of file system.
    pub fn mount(kind: Kind, image: &Path, point: &Path, options: &str) -> Result<Disk, String> {
        if kind != Kind::FuseOnExt4 {
            return Disk::mount_image(image, point, options);
        }
        let below = point.with_extension("below");
        if !below.exists() {
            fs::create_dir(&below).map_err(|error| error.to_string())?;
        }
        let below = Disk::mount_image(image, &below, options)?;
        Ok(Disk {
            point: point.to_owned(),
            passage: Some(Passage::new(&below.point, point)),
            below: Some(Box::new(below)),
        })
    }

    /// Mounts an image. The loop device is removed at unmount.
    fn mount_image(image: &Path, point: &Path, options: &str) -> Result<Disk, String> {
        let options = format!("loop,{options}");
        let mut mount = Command::new("mount");
        try_to(mount.args(["-o", &options]).arg(image).arg(point))?;
        Ok(Disk {
            point: point.to_owned(),
            passage: None,
            below: None,
        })
    }

    fn overlay(ground: &Ground, point: PathBuf, upper: Option<Disk>) -> Disk {
        let at = upper.as_ref().map_or(ground.dir(), |disk| &disk.point);
        let dirs = ["lower", "over", "work"].map(|name| at.join(name));
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        let [lower, over, work] = dirs.map(|dir| dir.display().to_string());
        let options = format!("lowerdir={lower},upperdir={over},workdir={work}");
        let mount = ["-t", "overlay", "-o", &options, "overlay"];
        must(Command::new("mount").args(mount).arg(&point));
        Disk {
            point,
            passage: None,
            below: upper.map(Box::new),
        }
    }

    /// The name of its loop device.
    pub fn device(&self) -> String {
        let device = nix::sys::stat::stat(&self.point).unwrap().st_dev;
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap();
        link.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Remounts it with `ro` or `rw`.
    pub fn remount(&self, how: &str) -> Result<(), String> {
        let how = format!("remount,{how}");
        try_to(Command::new("mount").args(["-o", &how]).arg(&self.point))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match self.passage.take() {
            Some(passage) => drop(passage),
            None => unmount(&self.point),
        }
        drop(self.below.take());
    }
}

fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// Runs a command that must succeed.
#[track_caller]
pub fn must(command: &mut Command) {
    if let Err(words) = try_to(command) {
        panic!("{words}");
    }
}

fn try_to(command: &mut Command) -> Result<(), String> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{command:?}: {}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{command:?}: {error}; tests/disks needs it")),
    }
}
