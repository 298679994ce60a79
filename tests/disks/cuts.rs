//! Real power cuts: the program works on a file system, and every disk that a cut may leave is
//! mounted, recovered by the file system itself, and worked off by the program.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::cut::{Cuts, Subset};
use super::device::{Device, Image};
use super::ground::{Disk, Ground, Kind};
use super::judge::{Known, Verdict, judge};
use super::program::Site;
use super::program::crowd::Random;
use super::proof;
use super::work::{Wrap, config, prepare, work};

/// Works on a fresh file system, and returns what its device saw.
fn record(ground: &Ground, kind: Kind, messages: usize, wrap: Wrap) -> Cuts {
    let [image, fuse, point] = ["image", "fuse", "disk"].map(|name| ground.dir().join(name));
    kind.make(&image, &[]);
    let before = Image::read_from(&image);
    fs::remove_file(&image).unwrap();
    fs::create_dir(&fuse).unwrap();
    fs::create_dir(&point).unwrap();
    let device = Device::new(&fuse, before.clone());
    let from = {
        let _disk = Disk::mount(&device.path, &point, options(kind)).unwrap();
        let site = Site::new_in(&point, &config());
        prepare(&site);
        let from = device.log.len() - 1;
        work(&site, &device.log, messages, wrap);
        from
    };
    Cuts::new(before, device.end(), from, sector(kind))
}

fn options(kind: Kind) -> &'static str {
    match kind {
        // Several that were copies of one would be one to it.
        Kind::Btrfs => "nodiscard",
        _ => "",
    }
}

/// What a disk writes wholly. xfs asks for no more than 512; ext4 and btrfs cannot be mounted
/// any more if the 4096 octets of their superblock are torn.
fn sector(kind: Kind) -> usize {
    match kind {
        Kind::Xfs => 512,
        _ => 4096,
    }
}

/// Mounts what a cut left, and judges it.
fn look(ground: &Ground, kind: Kind, image: &Image, known: &Known) -> Verdict {
    let [path, point] = ["cut", "disk"].map(|name| ground.dir().join(name));
    image.write_to(&path);
    if kind == Kind::Ext4WithoutJournal {
        mend_without_journal(&path);
    }
    let verdict = match Disk::mount(&path, &point, options(kind)) {
        Ok(_disk) => judge(&point, known),
        Err(words) => Verdict {
            wrong: vec![words],
            ..Verdict::default()
        },
    };
    fs::remove_file(&path).unwrap();
    verdict
}

/// Without a journal it has to be checked after a cut; 1 and 2 are that it was mended.
fn mend_without_journal(path: &Path) {
    let checked = Command::new("e2fsck")
        .arg("-fy")
        .arg(path)
        .output()
        .unwrap();
    assert!(matches!(checked.status.code(), Some(0..=2)), "{checked:?}");
}

/// Goes through windows, and says what is wrong in which.
fn explore(
    ground: &Ground,
    kind: Kind,
    cuts: &mut Cuts,
    time: Duration,
    most: usize,
) -> Vec<String> {
    let mut random = Random::new();
    let windows = cuts.windows.len();
    let end = Instant::now() + time;
    let mut wrong = Vec::new();
    let mut total = Verdict::default();
    let mut looked = 0;
    let step = windows.div_ceil(most).max(1);
    let mut window = random.pick(step);
    while window < windows && Instant::now() < end {
        let known = Known::of(cuts.known(window));
        let subsets = match cuts.writes(window) {
            0 => vec![Subset::None],
            writes => vec![
                Subset::None,
                Subset::Random,
                Subset::AllBut(random.pick(writes)),
                Subset::All,
            ],
        };
        // A sample takes one of them, and that it is none of them is the hardest.
        let chosen = match proof::long() {
            true => subsets,
            false => vec![subsets[[0, 0, 1, 2][looked % 4].min(subsets.len() - 1)]],
        };
        for subset in chosen {
            let image = cuts.image(window, subset, &mut random);
            let verdict = look(ground, kind, &image, &known);
            looked += 1;
            total.acknowledged = total.acknowledged.max(verdict.acknowledged);
            total.lost += verdict.lost;
            total.doubled += verdict.doubled;
            let said = verdict.wrong.into_iter();
            wrong.extend(said.map(|what| format!("window {window}, {subset:?}: {what}")));
        }
        window += step;
    }
    println!(
        "{kind:?}: {windows} windows, {} flushes, {looked} cuts",
        cuts.flushes()
    );
    proof::count("power cuts", looked);
    proof::count("acknowledged", total.acknowledged);
    proof::count("lost", total.lost);
    proof::count("doubled", total.doubled);
    wrong
}

fn as_it_is(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => same.env(name, value),
            None => same.env_remove(name),
        };
    }
    same
}

fn cut(kind: Kind) {
    let (messages, time, most) = match proof::long() {
        true => (300, Duration::from_secs(900), usize::MAX),
        false => (32, Duration::from_secs(20), 12),
    };
    let ground = Ground::new();
    let mut cuts = record(&ground, kind, messages, &as_it_is);
    let wrong = explore(&ground, kind, &mut cuts, time, most);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn power_cuts_on_ext4() {
    cut(Kind::Ext4);
}

#[test]
fn power_cuts_on_ext4_without_a_journal() {
    cut(Kind::Ext4WithoutJournal);
}

#[test]
fn power_cuts_on_xfs() {
    cut(Kind::Xfs);
}

#[test]
fn power_cuts_on_btrfs() {
    cut(Kind::Btrfs);
}
