//! Judges whether the disk after a power cut keeps the guarantees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mailspool::testing::message::{Block, Seal, SealHasher};

use super::program::crowd::{Random, delivered, hurry, release};
use super::program::{Site, files, names};
use super::work::{Action, Mark, config_afterwards, noted};

/// What was known of the messages at the time of the cut.
#[derive(Default)]
pub struct Known {
    accepted: BTreeSet<usize>,
    /// The id, the last completed action, and an action begun after it.
    acted: BTreeMap<usize, (String, Option<Action>, Option<Action>)>,
    /// Delivered to their first recipient.
    partly: BTreeSet<usize>,
}

/// The files that record deliveries to the recipients at `once.test`.
pub struct Notes {
    /// Deliveries until the cut and shortly after: each recorded message was delivered, perhaps only after the cut.
    pub before: PathBuf,
    /// Deliveries of the program on the disk after the cut.
    pub after: PathBuf,
}

/// The findings.
#[derive(Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub lost: Vec<usize>,
    pub doubled: usize,
    pub wrong: Vec<String>,
}

impl Known {
    pub fn of<'a>(marks: impl Iterator<Item = &'a Mark>) -> Known {
        let mut known = Known::default();
        for mark in marks {
            match mark {
                Mark::Accepted(serial) => drop(known.accepted.insert(*serial)),
                Mark::Partly(serial) => drop(known.partly.insert(*serial)),
                Mark::Begins(serial, id, action) => {
                    let acted = known.acted.entry(*serial).or_default();
                    (acted.0, acted.2) = (id.clone(), Some(*action));
                }
                Mark::Done(serial, action) => {
                    let acted = known.acted.get_mut(serial).unwrap();
                    (acted.1, acted.2) = (Some(*action), None);
                }
            }
        }
        known
    }
}

/// Drains the spool in a directory.
pub fn judge(dir: &Path, known: &Known, notes: &Notes, random: &mut Random) -> Verdict {
    let mut verdict = Verdict {
        acknowledged: known.accepted.len(),
        ..Verdict::default()
    };
    let site = Site::at(dir);
    let _ = fs::remove_file(&notes.after);
    site.configure(&config_afterwards(&notes.after));
    let wrong = &mut verdict.wrong;
    boot(&site, random);
    meddle(&site, random);
    if random.pick(2) == 0 {
        repair(&site, wrong);
    }
    let ran = site.run();
    if ran.code != 0 {
        wrong.push(format!("run: {ran}"));
    }
    shown(&site, wrong);
    held(&site, known, wrong);
    const MAX_ROUNDS: usize = 6;
    for round in 0.. {
        if site.is_empty() {
            break;
        }
        if round == MAX_ROUNDS {
            let list = site.program(["list"], b"");
            wrong.push(format!("not empty after {MAX_ROUNDS} rounds: {list}"));
            break;
        }
        hurry(&site);
        for (held, verb) in [("frozen", "thaw"), ("discarded", "retry")] {
            let held = site.spool().join(held);
            for bucket in names(&held) {
                release(&site, verb, &names(&held.join(bucket)));
            }
        }
        let ran = site.run();
        if ran.code != 0 {
            wrong.push(format!("run: {ran}"));
        }
    }
    let (counts, torn) = delivered(&site);
    wrong.extend(torn.into_iter().map(|what| format!("torn: {what}")));
    let lost: Vec<_> = known
        .accepted
        .iter()
        .filter(|serial| !counts.contains_key(serial))
        .collect();
    let (before, after) = (noted(&notes.before), noted(&notes.after));
    let is_noted = |serial: &usize| before.contains(serial) || after.contains(serial);
    let has_one = |serial: &&usize| *serial % 4 == 3;
    let unnoted = known.accepted.iter().filter(has_one);
    let unnoted = unnoted.filter(|serial| !is_noted(serial));
    let lost: BTreeSet<usize> = lost.into_iter().chain(unnoted).copied().collect();
    if !lost.is_empty() {
        wrong.push(format!("lost: {lost:?}"));
    }
    verdict.lost = lost.into_iter().collect();
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    if !doubled.is_empty() {
        wrong.push(format!("doubled in a Maildir: {doubled:?}"));
    }
    let again: Vec<_> = after
        .iter()
        .filter(|one| known.partly.contains(one))
        .collect();
    if !again.is_empty() {
        wrong.push(format!(
            "delivered, recorded, and delivered again: {again:?}"
        ));
    }
    verdict.doubled = doubled.len() + again.len();
    let quarantined = names(&site.spool().join("corrupt"));
    let mut messages = quarantined.iter().filter(|name| !name.contains('.'));
    if let Some(id) = messages.next() {
        let reason = fs::read_to_string(site.spool().join(format!("corrupt/{id}.reason")));
        wrong.push(format!("{id} is in corrupt/: {reason:?}"));
    }
    repair(&site, wrong);
    verdict
}

/// Simulates a reboot: the program sees another boot in `state/boot`, or no `state/boot`, or no `state/`.
fn boot(site: &Site, random: &mut Random) {
    let state = site.spool().join("state");
    match random.pick(3) {
        0 => drop(fs::remove_dir_all(state)),
        1 => drop(fs::remove_file(state.join("boot"))),
        _ => drop(fs::write(state.join("boot"), "another\n")),
    }
}

/// Removes and forges what may be lost or forged at any time: the view, and the marks of messages in use.
fn meddle(site: &Site, random: &mut Random) {
    let infos =
        ["sender", "recipients", "transport"].map(|dir| site.spool().join("info").join(dir));
    let shown: Vec<PathBuf> = infos.iter().flat_map(|dir| files(dir)).collect();
    for path in shown {
        match random.pick(8) {
            0 => fs::remove_file(path).unwrap(),
            1 => fs::write(path, "").unwrap(),
            2 => fs::write(path, "someb").unwrap(),
            3 => fs::write(path, [0; 30]).unwrap(),
            _ => {}
        }
    }
    let stale = infos[random.pick(3)].join("01a2021c-bff6-75ef-9344-1a834d1db9b8");
    fs::write(stale, "gone@example.test\n").unwrap();
    for path in site.message_files() {
        let mode = match random.pick(4) {
            0 => 0o700,
            1 => 0o600,
            _ => continue,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Asserts that the first run after a boot has repaired the view of every message that is left, and removed
/// that of every other.
fn shown(site: &Site, wrong: &mut Vec<String>) {
    let mut left = BTreeSet::new();
    for path in site.message_files() {
        let id = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(block) = block_of(&fs::read(&path).unwrap()) else {
            wrong.push(format!("{} has no envelope block", path.display()));
            continue;
        };
        let view = block.envelope.view();
        for (dir, text) in [
            ("sender", view.sender),
            ("recipients", view.recipients),
            ("transport", view.transport),
        ] {
            let found = fs::read_to_string(site.spool().join("info").join(dir).join(&id));
            if found.as_ref().ok() != Some(&text) {
                wrong.push(format!("info/{dir}/{id}: {found:?}, and not {text:?}"));
            }
        }
        left.insert(id);
    }
    for dir in ["sender", "recipients", "transport"] {
        let names = names(&site.spool().join("info").join(dir));
        let strays: Vec<_> = names.iter().filter(|name| !left.contains(*name)).collect();
        if !strays.is_empty() {
            wrong.push(format!("info/{dir} shows removed messages: {strays:?}"));
        }
    }
}

/// The envelope block at the beginning of a file.
fn block_of(bytes: &[u8]) -> Option<Block> {
    let length = usize::try_from(Seal::parse(bytes).ok()?.block).ok()?;
    Block::parse(bytes.get(..length)?).ok()
}

/// The numbers of the messages that exist, whole and after a block with their id.
pub fn found(dir: &Path) -> BTreeSet<usize> {
    let serial = |path: &PathBuf| {
        let bytes = fs::read(path).ok()?;
        let block = block_of(&bytes)?;
        let message = &bytes[usize::try_from(block.seal.block).unwrap()..];
        let mut hasher = SealHasher::new();
        hasher.update(message);
        let sums = (hasher.size(), hasher.digest());
        let text = String::from_utf8_lossy(message);
        let serial = text
            .lines()
            .find_map(|line| line.strip_prefix("X-Serial: "));
        (sums == (block.seal.size, block.seal.message)).then_some(serial?.parse().unwrap())
    };
    files(dir).iter().filter_map(serial).collect()
}

/// The files that contain the message with this number.
pub fn traces(dir: &Path, serial: usize) -> Vec<PathBuf> {
    let line = format!("X-Serial: {serial}\n");
    let has_it = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(&line)
    };
    files(dir).into_iter().filter(has_it).collect()
}

/// Asserts that a repair succeeds, and that a second one finds nothing.
fn repair(site: &Site, wrong: &mut Vec<String>) {
    let first = site.program(["check", "--repair"], b"");
    let second = site.program(["check", "--repair"], b"");
    let is_clean = second.code == 0 && !second.text().contains("problem: ");
    if first.code != 0 || !is_clean {
        wrong.push(format!("check --repair: {first}, and then: {second}"));
    }
}

/// Asserts that every acknowledged action of an operator holds.
fn held(site: &Site, known: &Known, wrong: &mut Vec<String>) {
    if known.acted.is_empty() {
        return;
    }
    let rows = site.rows();
    for (serial, (id, done, begun)) in &known.acted {
        let row = rows.iter().find(|row| row["id"] == id.as_str());
        let queue = row.map_or("gone", |row| row["queue"].as_str().unwrap());
        let is_right = match (done, begun) {
            (Some(Action::Freeze), None) => queue == "frozen",
            (Some(Action::Discard), None) => queue == "discarded",
            (Some(Action::Thaw | Action::Retry), None) => queue != "frozen" && queue != "discarded",
            _ => true,
        };
        if !is_right {
            let shown = site.program(["show", "--json", id], b"");
            wrong.push(format!(
                "{serial}, {id}, should be {done:?}, and is in {queue}: {shown}"
            ));
        }
    }
}
