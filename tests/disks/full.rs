//! A full disk drains: deliveries still happen once and are recorded, bounces use the reserve, and when space
//! returns everything continues.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};

use super::ground::{Disk, Ground, Kind};
use super::program::{Site, names, pipe, route};
use super::storms::{take_blocks, take_inodes};

/// Messages of each kind.
const EACH: usize = 12;

/// Messages that fail and cause a bounce.
const FAILED: usize = 4;
const SENDER: &str = "sender@home.test";

/// Files in the reserve.
const RESERVE: usize = 32;

/// A configuration that logs each recipient reached, on another disk.
fn config(log: &Path) -> String {
    let log = log.display();
    let small = "[accept]\nmin_free = \"0\"\nmin_free_inodes = 0\n";
    let ok = pipe(
        "ok",
        &format!("cat >/dev/null; echo \"$RECIPIENT\" >> {log}"),
    );
    let later = pipe("later", "cat >/dev/null; echo 4.0.0 later; exit 75");
    let never = pipe("never", "cat >/dev/null; echo 5.1.1 never; exit 67");
    let all = [
        route("domain", "later.test", "later"),
        route("domain", "never.test", "never"),
        route("domain", "*", "ok"),
    ];
    format!("{small}{ok}{later}{never}{}", all.concat())
}

/// How often each recipient was reached.
fn reached(log: &Path) -> BTreeMap<String, usize> {
    let mut reached = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        *reached.entry(line.to_owned()).or_insert(0) += 1;
    }
    reached
}

fn drains(ground: &Ground, disk: &Disk, fill: impl Fn(&Path)) {
    let log = ground.dir().join("reached");
    let site = Site::new_in(&disk.point, &config(&log));
    // Too large for a file system to store inline with the name.
    let body = "A line of a message that takes some room.\n".repeat(500);
    let letter = format!("Subject: x\n\n{body}");
    let queue = |to: &[String]| {
        let mut arguments = vec!["send", "--queue-only", "-f", SENDER, "--"];
        arguments.extend(to.iter().map(String::as_str));
        let id = site.program(&arguments, letter.as_bytes()).ok();
        id.trim_end().to_owned()
    };
    // The first run fills the reserve.
    assert_eq!(site.run().ok(), "Nothing is due.\n");
    let reserve = site.spool().join("reserve");
    assert_eq!(names(&reserve).len(), RESERVE);
    let mut later = Vec::new();
    for n in 0..EACH {
        queue(&[format!("r{n}@ok.test")]);
        queue(&[format!("two{n}@ok.test"), format!("two{n}@later.test")]);
        later.push(queue(&[format!("r{n}@later.test")]));
    }
    for n in 0..FAILED {
        queue(&[format!("r{n}@never.test")]);
    }
    let ballast = disk.point.join("ballast");
    fs::create_dir(&ballast).unwrap();
    fill(&ballast);
    let has_room = || {
        let probe = ballast.join("probe");
        let has_room = fs::write(&probe, vec![0; 32 << 10]).is_ok();
        let _ = fs::remove_file(&probe);
        has_room
    };
    // btrfs frees some space when it cleans up.
    let had_room = has_room();

    let run = site.run();
    assert!([0, 75].contains(&run.code), "{run}");
    let first = reached(&log);
    for n in 0..EACH {
        for one in [format!("r{n}@ok.test"), format!("two{n}@ok.test")] {
            assert_eq!(first.get(&one), Some(&1), "{one}: {first:?}\n{run}");
        }
    }
    // A directory that must grow for the name of a notice may find no space (XFS has some for four names).
    let told = |reached: &BTreeMap<String, usize>| reached.get(SENDER).copied().unwrap_or(0);
    assert!((1..=FAILED).contains(&told(&first)), "the bounces: {run}");
    let is_used = names(&reserve).len() < RESERVE;
    // btrfs may also free space during the run; then some is left afterwards.
    let is_btrfs = statfs(&disk.point).unwrap().filesystem_type() == BTRFS_SUPER_MAGIC;
    let makes_room = had_room || is_btrfs && has_room();
    assert!(
        is_used || makes_room,
        "the bounces used neither the reserve nor freed space"
    );

    // Deliveries are recorded, so none is repeated.
    fill(&ballast);
    let run = site.run();
    assert!([0, 75].contains(&run.code), "{run}");
    let delivered = |reached: BTreeMap<String, usize>| -> BTreeMap<String, usize> {
        let others = |(to, _): &(String, usize)| to != SENDER;
        reached.into_iter().filter(others).collect()
    };
    let first = delivered(first);
    assert_eq!(delivered(reached(&log)), first, "{run}");

    for id in &later[..2] {
        site.program(["discard", "--now", id], b"").ok();
    }

    fs::remove_dir_all(&ballast).unwrap();
    let run = site.run();
    assert_eq!(run.code, 0, "{run}");
    let last = reached(&log);
    assert_eq!(told(&last), FAILED, "{run}");
    assert_eq!(delivered(last), first);
    assert_eq!(names(&reserve).len(), RESERVE, "it is filled again");
    let rows = site.rows();
    assert_eq!(rows.len(), 2 * EACH - 2);
    for row in &rows {
        assert_eq!(row["queue"], "deferred", "{row}");
    }
    let checked = site.program(["check"], b"").ok();
    assert!(checked.ends_with(", no problems.\n"), "{checked}");
    assert!(names(&site.spool().join("new")).is_empty());
}

#[test]
fn a_full_ext4_drains() {
    let ground = Ground::new();
    drains(&ground, &Disk::new(&ground, Kind::Ext4), take_blocks);
}

#[test]
fn a_full_ext4_without_a_journal_drains() {
    let ground = Ground::new();
    let disk = Disk::new(&ground, Kind::Ext4WithoutJournal);
    drains(&ground, &disk, take_blocks);
}

#[test]
fn a_full_xfs_drains() {
    let ground = Ground::new();
    drains(&ground, &Disk::new(&ground, Kind::Xfs), take_blocks);
}

#[test]
fn a_full_btrfs_drains() {
    let ground = Ground::new();
    drains(&ground, &Disk::new(&ground, Kind::Btrfs), take_blocks);
}

#[test]
fn a_full_fuse_drains() {
    let ground = Ground::new();
    drains(&ground, &Disk::new(&ground, Kind::FuseOnExt4), take_blocks);
}

#[test]
fn a_full_tmpfs_drains() {
    let ground = Ground::new();
    drains(&ground, &Disk::new(&ground, Kind::Tmpfs), take_blocks);
}

#[test]
fn an_ext4_without_inodes_drains() {
    let ground = Ground::new();
    let disk = Disk::with_options(&ground, Kind::Ext4, &["-N", "600"], "");
    drains(&ground, &disk, take_inodes);
}

#[test]
fn an_ext4_without_blocks_and_inodes_drains() {
    let ground = Ground::new();
    let disk = Disk::with_options(&ground, Kind::Ext4, &["-N", "600"], "");
    drains(&ground, &disk, |ballast| {
        take_blocks(ballast);
        take_inodes(ballast);
    });
}

#[test]
fn a_tmpfs_without_inodes_drains() {
    let ground = Ground::new();
    let disk = Disk::with_options(&ground, Kind::Tmpfs, &[], "nr_inodes=600");
    drains(&ground, &disk, take_inodes);
}
