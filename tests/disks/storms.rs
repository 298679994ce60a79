//! Storms over every kind of file system, over full ones, and over ones that become read-only.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use mailspool::testing::disk;
use mailspool::testing::queue::Bucket;

use super::ground::{Disk, Ground, Kind};
use super::program::{files, names, until};
use super::proof;
use super::weather::{Sky, Weather};

fn submissions() -> usize {
    if proof::long() { 1500 } else { 60 }
}

/// For a disk with few inodes: enough for all mail of a storm.
fn inodes() -> &'static str {
    if proof::long() { "6000" } else { "1000" }
}

fn storm(kind: Kind) {
    let ground = Ground::new();
    let disk = Disk::new(&ground, kind);
    let mut weather = Weather::new(&disk.point);
    weather.blow(submissions(), Sky::Sound);
    weather.clear_up();
}

#[test]
fn a_storm_on_ext4() {
    storm(Kind::Ext4);
}

#[test]
fn a_storm_on_ext4_without_a_journal() {
    storm(Kind::Ext4WithoutJournal);
}

#[test]
fn a_storm_on_xfs() {
    storm(Kind::Xfs);
}

#[test]
fn a_storm_on_btrfs() {
    storm(Kind::Btrfs);
}

#[test]
fn a_storm_on_tmpfs() {
    storm(Kind::Tmpfs);
}

#[test]
fn a_storm_on_an_overlay_of_tmpfs() {
    storm(Kind::OverlayOnTmpfs);
}

#[test]
fn a_storm_on_an_overlay_of_ext4() {
    storm(Kind::OverlayOnExt4);
}

/// Names are created and removed without the locks of the kernel's native file systems.
#[test]
fn a_storm_on_fuse() {
    storm(Kind::FuseOnExt4);
}

/// Queued mail, a disk without space, and a storm.
fn storm_on_a_full_one(disk: &Disk, fill: impl Fn(&Path)) {
    let mut weather = Weather::new(&disk.point);
    weather.queue(20);
    let ballast = disk.point.join("ballast");
    fs::create_dir(&ballast).unwrap();
    fill(&ballast);
    weather.blow(submissions() / 2, Sky::Broken);
    // These submitters are not killed: they are refused, and remove their unfinished files.
    fill(&ballast);
    let new = weather.site.spool().join("new");
    let before = names(&new);
    let codes: Vec<i32> = (0..6).map(|_| weather.submit()).collect();
    assert!(codes.contains(&75), "{codes:?}");
    let unfinished = names(&new);
    let left: Vec<_> = unfinished
        .iter()
        .filter(|name| !before.contains(name))
        .collect();
    assert!(left.is_empty(), "left by a refused submitter: {left:?}");
    let ran = weather.site.run();
    assert!([0, 75].contains(&ran.code), "{ran}");
    fs::remove_dir_all(&ballast).unwrap();
    weather.blow(submissions() / 2, Sky::Sound);
    println!(
        "{} submitters and {} runners were told 75",
        weather.refused.len(),
        weather.troubled
    );
    weather.clear_up();
}

/// Takes every block, in the end one at a time.
pub fn take_blocks(ballast: &Path) {
    for (n, size) in [1 << 20, 1 << 16, 4096, 512].into_iter().enumerate() {
        let path = ballast.join(format!("{n}-{}", names(ballast).len()));
        let Ok(mut file) = fs::File::create(path) else {
            return;
        };
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
        // Some file systems find out only now that there is no space; others free some.
        let _ = file.sync_all();
        while file.write_all(&block).is_ok() {}
    }
}

pub fn take_inodes(ballast: &Path) {
    let taken = names(ballast).len();
    let take = |n: usize| fs::File::create(ballast.join(n.to_string()));
    let last = (taken..).find_map(|n| take(n).err()).unwrap();
    assert_eq!(last.kind(), std::io::ErrorKind::StorageFull, "{last}");
}

#[test]
fn a_storm_on_a_full_ext4() {
    let ground = Ground::new();
    storm_on_a_full_one(&Disk::new(&ground, Kind::Ext4), take_blocks);
}

#[test]
fn a_storm_on_a_full_xfs() {
    let ground = Ground::new();
    storm_on_a_full_one(&Disk::new(&ground, Kind::Xfs), take_blocks);
}

#[test]
fn a_storm_on_a_full_btrfs() {
    let ground = Ground::new();
    storm_on_a_full_one(&Disk::new(&ground, Kind::Btrfs), take_blocks);
}

#[test]
fn a_storm_on_a_full_fuse() {
    let ground = Ground::new();
    storm_on_a_full_one(&Disk::new(&ground, Kind::FuseOnExt4), take_blocks);
}

#[test]
fn a_storm_on_a_full_tmpfs() {
    let ground = Ground::new();
    storm_on_a_full_one(&Disk::new(&ground, Kind::Tmpfs), take_blocks);
}

#[test]
fn a_storm_on_an_ext4_without_inodes() {
    let ground = Ground::new();
    let disk = Disk::with_options(&ground, Kind::Ext4, &["-N", inodes()], "");
    storm_on_a_full_one(&disk, take_inodes);
}

#[test]
fn a_storm_on_a_tmpfs_without_inodes() {
    let ground = Ground::new();
    let disk = Disk::with_options(
        &ground,
        Kind::Tmpfs,
        &[],
        &format!("nr_inodes={}", inodes()),
    );
    storm_on_a_full_one(&disk, take_inodes);
}

/// Queued mail, and a disk that becomes read-only.
fn read_only(kind: Kind) {
    let ground = Ground::new();
    let disk = Disk::new(&ground, kind);
    let mut weather = Weather::new(&disk.point);
    weather.blow(submissions() / 2, Sky::Sound);
    weather.queue(10);
    // The state that a killed operator's process leaves.
    let part = "requests/1d3c7dd0-3b7c-4b5e-9a53-6f0a3a1a8a11.part";
    fs::write(weather.site.spool().join(part), "{").unwrap();
    disk.remount("ro").unwrap();
    weather.site.program(["check"], b"").ok();
    let before = files(&weather.site.spool());
    weather.blow(submissions() / 4, Sky::Broken);
    assert_eq!(weather.submit(), 75);
    let ran = weather.site.run();
    assert_eq!(ran.code, 75, "{ran}");
    let listed = weather.site.rows().len();
    assert!(listed >= 10, "{listed} of 10 can be listed");
    assert_eq!(files(&weather.site.spool()), before);
    disk.remount("rw").unwrap();
    weather.blow(submissions() / 4, Sky::Sound);
    weather.clear_up();
}

#[test]
fn a_storm_on_an_ext4_that_becomes_read_only() {
    read_only(Kind::Ext4);
}

#[test]
fn a_storm_on_an_xfs_that_becomes_read_only() {
    read_only(Kind::Xfs);
}

#[test]
fn a_storm_on_a_btrfs_that_becomes_read_only() {
    read_only(Kind::Btrfs);
}

#[test]
fn a_storm_on_a_tmpfs_that_becomes_read_only() {
    read_only(Kind::Tmpfs);
}

/// Everything that a run would move, finish or remove: due messages, requests, due buckets, and the files
/// that killed processes left in `new/`, `done/` and `keys/`. On a read-only disk, each of them is trouble.
/// There are no notices here, which might wait in `new/` for their origin.
fn to_be_worked_on(spool: &Path) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let is_due = |name: &str| {
        let bucket = name.parse().ok();
        bucket.is_some_and(|one: Bucket| one.due().is_some_and(|due| due <= now))
    };
    // Half-written files have an extension, and runs ignore them.
    let is_whole = |name: &str| !name.contains('.');
    let below = |dir: &str, wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let all = names(&spool.join(dir)).into_iter();
        let all = all.filter(|name| wanted(name));
        all.map(|name| format!("{dir}/{name}")).collect()
    };
    let dirs = "new staged done incoming active requests keys/new keys/lock";
    let mut all: Vec<String> = dirs
        .split(' ')
        .flat_map(|dir| below(dir, &is_whole))
        .collect();
    let kept = ["deferred", "frozen", "discarded"];
    all.extend(kept.iter().flat_map(|dir| below(dir, &is_due)));
    all
}

/// A run on a read-only disk reports trouble if and only if there is work of any kind.
#[test]
fn a_run_on_a_disk_that_can_only_be_read() {
    let ground = Ground::new();
    let disk = Disk::new(&ground, Kind::Ext4);
    let weather = Weather::new(&disk.point);
    weather.site.run().ok();
    let spool = weather.site.spool();
    let run = |left: &[String]| {
        disk.remount("ro").unwrap();
        assert_eq!(to_be_worked_on(&spool), left);
        let ran = weather.site.run();
        disk.remount("rw").unwrap();
        let code = if left.is_empty() { 0 } else { 75 };
        assert_eq!(ran.code, code, "{ran}, of {left:?}");
    };
    run(&[]);
    let id = "01a21bb5-a722-71ea-8b67-358a404e8194";
    let key = "f7bfc8058f0fe3f1277e14f3c243fca0";
    for (dir, name) in [
        ("new", id),
        ("done", id),
        ("incoming", id),
        ("active", id),
        ("staged", id),
        ("requests", id),
        ("keys/new", key),
        ("keys/lock", key),
    ] {
        let path = spool.join(dir).join(name);
        fs::write(&path, "").unwrap();
        run(&[format!("{dir}/{name}")]);
        fs::remove_file(path).unwrap();
    }
    for dir in ["deferred", "frozen", "discarded"] {
        let path = spool.join(dir).join("2026-11-22T1405Z");
        fs::create_dir(&path).unwrap();
        run(&[format!("{dir}/2026-11-22T1405Z")]);
        fs::remove_dir(path).unwrap();
    }
    run(&[]);
}

/// An error makes ext4 read-only in the middle of a storm, and every process meets it in the middle of an
/// operation.
#[test]
fn a_storm_on_an_ext4_that_breaks_in_the_middle() {
    let ground = Ground::new();
    let mut disk = Disk::with_options(&ground, Kind::Ext4, &["-e", "remount-ro"], "");
    let mut weather = Weather::new(&disk.point);
    for _ in 0..3 {
        weather.blow(submissions() / 4, Sky::Sound);
        weather.queue(10);
        let below = Path::new("/sys/fs/ext4").join(disk.device());
        weather.blow_and(submissions() / 4, Sky::Broken, || {
            fs::write(below.join("trigger_fs_error"), "1").unwrap();
        });
        assert_eq!(weather.submit(), 75);
        // A bucket may become due meanwhile; nothing else changes.
        let (left, ran) = loop {
            let before = to_be_worked_on(&weather.site.spool());
            let ran = weather.site.run();
            if to_be_worked_on(&weather.site.spool()) == before {
                break (before, ran);
            }
        };
        let code = if left.is_empty() { 0 } else { 75 };
        assert_eq!(ran.code, code, "{ran}, of {left:?}");
        // A refused message could not be removed either, and may be whole.
        weather.refused.clear();
        drop(disk);
        let [image, point] = ["image", "disk"].map(|name| ground.dir().join(name));
        disk = Disk::mount(Kind::Ext4, &image, &point, "").unwrap();
    }
    weather.blow(submissions() / 4, Sky::Sound);
    weather.clear_up();
}

/// For a moment after such an error, ext4 reports success for a sync that did nothing. Many concurrent syncs
/// hit that moment.
#[test]
fn the_success_of_an_ext4_that_has_broken_is_not_trusted() {
    let rounds = if proof::long() { 300 } else { 40 };
    let ground = Ground::new();
    let image = ground.dir().join("image");
    for _ in 0..rounds {
        let disk = Disk::with_options(&ground, Kind::Ext4, &["-e", "remount-ro"], "");
        let durable = write_until_it_breaks(&disk);
        drop(disk);
        let disk = Disk::mount(Kind::Ext4, &image, &ground.dir().join("disk"), "").unwrap();
        let is_lost = |name: &&String| !disk.point.join(name).exists();
        let lost: Vec<&String> = durable.iter().filter(is_lost).collect();
        assert!(lost.is_empty(), "durable and lost: {lost:?}");
        drop(disk);
        fs::remove_file(&image).unwrap();
        fs::remove_dir(ground.dir().join("disk")).unwrap();
    }
}

fn write_until_it_breaks(disk: &Disk) -> Vec<String> {
    const THREADS: usize = 6;
    const ENOUGH: usize = 60;
    let durable = Mutex::new(Vec::new());
    let write = |thread: usize| {
        let disk = disk::Disk::open(&disk.point, None).unwrap();
        let write = |name: &str| {
            let file = disk.create(Path::new(name))?;
            disk.write_all(&file, &[b'x'; 5000])?;
            disk.durable(&[&file], &[Path::new(".")])
        };
        for n in 0.. {
            let name = format!("{thread}-{n}");
            if write(&name).is_err() {
                return;
            }
            durable.lock().unwrap().push(name);
        }
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let write = &write;
            scope.spawn(move || write(thread));
        }
        until("much is durable", || durable.lock().unwrap().len() > ENOUGH);
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", disk.device());
        fs::write(trigger, "1").unwrap();
    });
    durable.into_inner().unwrap()
}
