//! Real power cuts: the program works on a file system. Every possible disk after a cut is mounted, recovered
//! by the file system, and then drained by the program.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::cut::{Cuts, Subset};
use super::device::{Device, Image};
use super::ground::{Disk, Ground, Kind};
use super::judge::{Known, Notes, Verdict, found, judge, traces};
use super::program::Site;
use super::program::crowd::Random;
use super::proof;
use super::work::{Crew, Wrap, config, prepare, work};

/// Works on a fresh file system, and returns what its device saw.
fn record(ground: &Ground, kind: Kind, messages: usize, wrap: Wrap) -> Cuts {
    record_on(ground, kind, options(kind), messages, wrap, Crew::All)
}

fn record_on(
    ground: &Ground,
    kind: Kind,
    options: &str,
    messages: usize,
    wrap: Wrap,
    crew: Crew,
) -> Cuts {
    let [image, fuse, point] = ["image", "fuse", "disk"].map(|name| ground.dir().join(name));
    kind.make(&image, kind.size(), &[]);
    let before = Image::read_from(&image);
    fs::remove_file(&image).unwrap();
    fs::create_dir(&fuse).unwrap();
    fs::create_dir(&point).unwrap();
    let device = Device::new(&fuse, before.clone());
    let from = {
        let _disk = Disk::mount(kind, &device.path, &point, options).unwrap();
        let noted = notes(ground).before;
        let site = Site::new_in(&point, &config(&noted));
        prepare(&site);
        let from = device.log.len() - 1;
        let note = |mark| device.log.mark(mark);
        work(&site, &note, messages, wrap, crew, &noted);
        from
    };
    Cuts::new(before, device.end(), from, sector(kind))
}

fn notes(ground: &Ground) -> Notes {
    let [before, after] = ["noted", "noted-after"].map(|name| ground.dir().join(name));
    Notes { before, after }
}

fn options(kind: Kind) -> &'static str {
    match kind {
        // btrfs would take several copies of one image for the same file system.
        Kind::Btrfs => "nodiscard",
        _ => "",
    }
}

/// Octets that a disk writes atomically. xfs needs only 512. ext4 and btrfs cannot be mounted if the 4096
/// octets of their superblock are torn.
fn sector(kind: Kind) -> usize {
    match kind {
        Kind::Xfs => 512,
        _ => 4096,
    }
}

/// What the file system guarantees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Everything.
    All,
    /// An undelivered message is somewhere, whole and with its id: in `lost+found`, or in quarantine under
    /// another message's name. A message with no name left except one in `new/` is swept.
    Found,
}

/// Mounts the disk after a cut, and judges it.
fn look(
    ground: &Ground,
    kind: Kind,
    promise: Promise,
    image: &Image,
    known: &Known,
    random: &mut Random,
) -> Verdict {
    let [path, point] = ["cut", "disk"].map(|name| ground.dir().join(name));
    image.write_to(&path);
    if kind == Kind::Ext4WithoutJournal {
        repair_without_journal(&path);
    }
    let verdict = match Disk::mount(kind, &path, &point, options(kind)) {
        // If guarantees are broken on purpose, the program may fail in any way.
        Ok(_disk) => {
            let notes = notes(ground);
            let swept = found(&point.join("spool/new"));
            let judge = AssertUnwindSafe(|| judge(&point, known, &notes, random));
            let mut verdict = catch_unwind(judge).unwrap_or_else(|_| Verdict {
                wrong: vec!["the program failed, see above".into()],
                ..Verdict::default()
            });
            if promise == Promise::Found {
                let found = found(&point);
                let is_kept = |serial: &usize| found.contains(serial) || swept.contains(serial);
                verdict.lost.retain(|serial| !is_kept(serial));
                verdict.wrong = match verdict.lost.as_slice() {
                    [] => Vec::new(),
                    lost => {
                        let traces = |serial: &usize| traces(&point, *serial);
                        let traces: Vec<_> = lost.iter().map(traces).collect();
                        vec![format!("neither delivered nor found: {lost:?}; {traces:?}")]
                    }
                };
                verdict.doubled = 0;
            }
            verdict
        }
        Err(words) => Verdict {
            wrong: vec![words],
            ..Verdict::default()
        },
    };
    fs::remove_file(&path).unwrap();
    verdict
}

/// Runs e2fsck, which ext4 without a journal needs after a cut. Statuses 1 and 2 say that it made repairs.
fn repair_without_journal(path: &Path) {
    let checked = Command::new("e2fsck")
        .arg("-fy")
        .arg(path)
        .output()
        .unwrap();
    assert!(matches!(checked.status.code(), Some(0..=2)), "{checked:?}");
}

/// The results of many cuts.
#[derive(Default)]
struct Explored {
    cuts: usize,
    acknowledged: usize,
    lost: usize,
    doubled: usize,
    wrong: Vec<String>,
}

/// How much to explore: this many windows, spread over all, while time remains.
pub struct Effort {
    promise: Promise,
    windows: usize,
    time: Duration,
    subsets: Subsets,
    /// Stops after this many faults.
    enough: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subsets {
    /// Drops every unflushed write.
    None,
    /// One subset per window.
    One,
    /// Several subsets per window.
    Several,
}

fn explore(ground: &Ground, kind: Kind, cuts: &mut Cuts, effort: &Effort) -> Explored {
    let mut random = Random::new(proof::seed());
    let all = cuts.windows.len();
    let end = Instant::now() + effort.time;
    let mut explored = Explored::default();
    let step = all.div_ceil(effort.windows).max(1);
    let mut window = random.pick(step);
    while window < all && Instant::now() < end && explored.wrong.len() < effort.enough {
        let known = Known::of(cuts.known(window));
        for subset in subsets(effort.subsets, cuts.writes(window), &mut random) {
            let image = cuts.image(window, subset, &mut random);
            let verdict = look(ground, kind, effort.promise, &image, &known, &mut random);
            explored.cuts += 1;
            explored.acknowledged = explored.acknowledged.max(verdict.acknowledged);
            explored.lost += verdict.lost.len();
            explored.doubled += verdict.doubled;
            let said = verdict.wrong.into_iter();
            let said = said.map(|what| format!("window {window}, {subset:?}: {what}"));
            explored.wrong.extend(said);
        }
        window += step;
    }
    let flushes = cuts.flushes();
    let Explored { cuts, lost, .. } = explored;
    println!("{kind:?}: {all} windows, {flushes} flushes; {cuts} cuts, {lost} messages lost");
    explored
}

fn subsets(how: Subsets, writes: usize, random: &mut Random) -> Vec<Subset> {
    let all = match writes {
        0 => return vec![Subset::None],
        _ => [
            Subset::None,
            Subset::Random,
            Subset::AllBut(random.pick(writes)),
            Subset::All,
        ],
    };
    match how {
        Subsets::None => vec![Subset::None],
        Subsets::One => vec![all[random.pick(all.len())]],
        Subsets::Several => all.into(),
    }
}

pub fn as_it_is(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args());
    with_environment(same, command)
}

/// Copies the environment settings of one command to another.
fn with_environment(mut command: Command, of: &Command) -> Command {
    for (name, value) in of.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn cut(kind: Kind) {
    cut_with(kind, Crew::All, Promise::All);
}

fn cut_with(kind: Kind, crew: Crew, promise: Promise) {
    let messages = if proof::long() { 200 } else { 32 };
    let ground = Ground::new();
    let mut cuts = record_on(&ground, kind, options(kind), messages, &as_it_is, crew);
    explore_all(&ground, kind, &mut cuts, promise);
}

/// Explores as much as the run has time for. No promise may be broken.
pub fn explore_all(ground: &Ground, kind: Kind, cuts: &mut Cuts, promise: Promise) {
    let effort = if proof::long() {
        Effort {
            promise,
            windows: 250,
            time: Duration::from_secs(480),
            subsets: Subsets::Several,
            enough: 20,
        }
    } else {
        Effort {
            promise,
            windows: 10,
            time: Duration::from_secs(40),
            subsets: Subsets::One,
            enough: 20,
        }
    };
    let explored = explore(ground, kind, cuts, &effort);
    proof::count("power cuts", explored.cuts);
    proof::count("acknowledged", explored.acknowledged);
    proof::count("lost", explored.lost);
    proof::count("doubled", explored.doubled);
    assert!(explored.wrong.is_empty(), "{}", explored.wrong.join("\n"));
    assert!(explored.cuts > 0, "the device saw no flush");
}

#[test]
fn power_cuts_on_ext4() {
    cut(Kind::Ext4);
}

#[test]
fn power_cuts_on_xfs() {
    cut(Kind::Xfs);
}

#[test]
fn power_cuts_on_btrfs() {
    cut(Kind::Btrfs);
}

/// A sync through FUSE is a sync of the file system below.
#[test]
fn power_cuts_on_fuse() {
    cut(Kind::FuseOnExt4);
}

/// On every file system, an acknowledged message is safe until it is first moved.
#[test]
fn power_cuts_on_ext4_without_a_journal_before_anything_moves() {
    cut_with(Kind::Ext4WithoutJournal, Crew::Submitters, Promise::All);
}

/// After a move a message may lose its name, and nothing else.
#[test]
fn power_cuts_on_ext4_without_a_journal_lose_names_only() {
    cut_with(Kind::Ext4WithoutJournal, Crew::All, Promise::Found);
}

/// Cuts that must find a loss.
pub const TEETH: Effort = Effort {
    promise: Promise::All,
    windows: 16,
    time: Duration::from_secs(40),
    subsets: Subsets::None,
    enough: 1,
};

/// Returns whether cuts of one of several storms find a fault. That depends on when the kernel writes back,
/// and on other processes that sync all file systems of the machine. Usually the first storm is enough.
pub fn is_found_out(kind: Kind, effort: &Effort, storm: impl Fn(&Ground) -> Cuts) -> bool {
    const MAX_STORMS: usize = 6;
    (0..MAX_STORMS).any(|_| {
        let ground = Ground::new();
        let mut cuts = storm(&ground);
        !explore(&ground, kind, &mut cuts, effort).wrong.is_empty()
    })
}

/// strace makes every sync of the program a no-op that reports success.
#[test]
fn a_program_that_does_not_sync_is_found_out() {
    let without_syncs = |command: &Command| {
        let mut strace = Command::new("strace");
        let syncs = "fsync,fdatasync,syncfs";
        strace.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]);
        strace.args(["-e", &format!("trace={syncs}")]);
        strace.args(["-e", &format!("inject={syncs}:retval=0")]);
        strace.arg(command.get_program()).args(command.get_args());
        with_environment(strace, command)
    };
    // With the default of 5 seconds, ext4 would commit by itself before a slow program is done.
    let storm = |ground: &Ground| {
        record_on(
            ground,
            Kind::Ext4,
            "commit=300",
            16,
            &without_syncs,
            Crew::All,
        )
    };
    assert!(is_found_out(Kind::Ext4, &TEETH, storm), "nothing was found");
}

/// Simulates a disk that reports a flush done before it begins.
#[test]
fn a_disk_that_does_not_flush_is_found_out() {
    let storm = |ground: &Ground| {
        let mut cuts = record(ground, Kind::Ext4, 16, &as_it_is);
        cuts.ignore_flushes();
        cuts
    };
    assert!(is_found_out(Kind::Ext4, &TEETH, storm), "nothing was found");
}

/// ext4 without a journal writes the two directories of a rename in any order. After a cut a message may have
/// neither name, and be in `lost+found`. That is weaker than `spool-layout.md` requires; this test shows the
/// effect.
#[test]
fn a_file_system_that_takes_renames_apart_is_found_out() {
    let effort = Effort {
        subsets: Subsets::Several,
        ..TEETH
    };
    let kind = Kind::Ext4WithoutJournal;
    let storm = |ground: &Ground| record(ground, kind, 32, &as_it_is);
    assert!(is_found_out(kind, &effort, storm), "nothing was found");
}
