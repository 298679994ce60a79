//! The states that a power cut may leave, all of them or a sample.
//!
//! The view, `info/`, is never synced, and no code decides by it. So its names and contents are not combined: each
//! state has a random view, in which a file may be missing, torn, empty or whole.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::model::{Data, Ino, Model, Slot};
use super::proof;
use super::tree::{Content, Tree};

/// The most combinations of a cut that are all tried; beyond it a sample is tried.
const EXHAUSTIVE: usize = 64;
/// The same with `MAILSPOOL_LONG`.
const EXHAUSTIVE_LONG: usize = 512;
/// Random states per cut if not all combinations are tried.
const SAMPLES: usize = 2;
/// The same with `MAILSPOOL_LONG`.
const SAMPLES_LONG: usize = 20;
/// Octets that a file system writes at once.
const PAGE: usize = 4096;

/// An undecided change and its possible results. In the first nothing persisted, in the last everything did.
enum Choice {
    Name(Ino, String, usize),
    Content(Ino, Vec<Arc<Vec<u8>>>),
    Mode(Ino, Vec<bool>),
}

impl Choice {
    fn ways(&self) -> usize {
        match self {
            Choice::Name(_, _, changes) => changes + 1,
            Choice::Content(_, all) => all.len(),
            Choice::Mode(_, all) => all.len(),
        }
    }
}

/// Returns the index of a name's choice. Choices of names come first, ordered by directory and name.
fn of_name(choices: &[Choice], dir: Ino, name: &str) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(d, n, _) => (*d, n.as_str()).cmp(&(dir, name)),
        Choice::Content(..) | Choice::Mode(..) => Ordering::Greater,
    };
    choices.binary_search_by(order).ok()
}

/// Returns the index of the choice of a file's content.
fn of_content(choices: &[Choice], ino: Ino) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(..) => Ordering::Less,
        Choice::Content(other, _) => other.cmp(&ino),
        Choice::Mode(..) => Ordering::Greater,
    };
    choices.binary_search_by(order).ok()
}

/// Returns the index of the choice of a file's mode. Choices of modes come last.
fn of_mode(choices: &[Choice], ino: Ino) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(..) | Choice::Content(..) => Ordering::Less,
        Choice::Mode(other, _) => other.cmp(&ino),
    };
    choices.binary_search_by(order).ok()
}

impl Choice {
    /// The group of changes that a file system writes together: a directory's names, or all contents and modes.
    fn group(&self) -> Option<Ino> {
        match self {
            Choice::Name(dir, ..) => Some(*dir),
            Choice::Content(..) | Choice::Mode(..) => None,
        }
    }
}

/// Returns the directories of the view, and the files that are or were in them.
fn view(model: &Model) -> BTreeSet<Ino> {
    let slots = |dir: Option<Ino>| {
        let slots = dir.and_then(|dir| model.dirs.get(&dir));
        slots.into_iter().flat_map(|slots| slots.values())
    };
    let dirs: BTreeSet<Ino> = slots(model.find(Path::new("spool/info")))
        .filter_map(Slot::now)
        .collect();
    let files = dirs
        .iter()
        .flat_map(|dir| slots(Some(*dir)))
        .flat_map(|slot| {
            let pending = slot.pending.iter().filter_map(|change| change.value);
            slot.kept.into_iter().chain(pending)
        });
    let files: BTreeSet<Ino> = files.collect();
    &dirs | &files
}

/// Returns the sets of groups to leave unwritten: each alone, all but each, each pair.
fn lagging(groups: &BTreeSet<Option<Ino>>) -> Vec<BTreeSet<Option<Ino>>> {
    let mut sets = Vec::new();
    for one in groups {
        sets.push(
            groups
                .iter()
                .copied()
                .filter(|other| other != one)
                .collect(),
        );
        let others = groups.range(one..);
        sets.extend(others.map(|other| BTreeSet::from([*one, *other])));
    }
    sets
}

/// Random numbers that are the same in every run (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// Returns the bound up to which all combinations are tried, and the number of random states beyond it.
fn effort() -> (usize, usize) {
    if proof::long() {
        (EXHAUSTIVE_LONG, SAMPLES_LONG)
    } else {
        (EXHAUSTIVE, SAMPLES)
    }
}

/// Returns the states for a cut at this moment: all of them if they are few; else nothing, everything,
/// everything but one, one alone, and a random sample.
///
/// With `by_dirs` also states in which whole directories are older or newer than all others.
pub fn states(model: &Model, random: &mut Random, by_dirs: bool) -> Vec<Tree> {
    let (exhaustive, samples) = effort();
    let choices = choices(model);
    let view = view(model);
    let is_view = |choice: &Choice| match choice {
        Choice::Name(ino, ..) | Choice::Content(ino, _) | Choice::Mode(ino, _) => {
            view.contains(ino)
        }
    };
    let ways = |choice: &Choice| if is_view(choice) { 1 } else { choice.ways() };
    let ways: Vec<usize> = choices.iter().map(ways).collect();
    let all = ways
        .iter()
        .try_fold(1_usize, |all, ways| all.checked_mul(*ways));
    let view_is_open = choices.iter().any(is_view);
    let mut picked: Vec<Vec<usize>> = Vec::new();
    if let Some(all) = all.filter(|all| *all <= exhaustive) {
        for number in 0..all {
            let mut rest = number;
            let mut digit = |ways: &usize| (rest % ways, rest /= ways).0;
            let picks: Vec<usize> = ways.iter().map(&mut digit).collect();
            let mut fixed = picks.clone();
            raise(model, &choices, &mut fixed);
            if fixed == picks {
                picked.push(picks);
            }
        }
    } else {
        let (none, full): (Vec<usize>, Vec<usize>) = ways.iter().map(|ways| (0, ways - 1)).unzip();
        for (n, ways) in ways.iter().enumerate() {
            for way in 0..*ways {
                let (mut but_one, mut only_one) = (full.clone(), none.clone());
                but_one[n] = way;
                only_one[n] = way;
                lower(model, &choices, &mut but_one);
                raise(model, &choices, &mut only_one);
                picked.extend([but_one, only_one]);
            }
        }
        if by_dirs || proof::long() {
            let decided = choices.iter().filter(|choice| !is_view(choice));
            for late in lagging(&decided.map(Choice::group).collect()) {
                let one = |(choice, ways): (&Choice, &usize)| {
                    if late.contains(&choice.group()) {
                        0
                    } else {
                        ways - 1
                    }
                };
                let mut picks: Vec<usize> = choices.iter().zip(&ways).map(one).collect();
                lower(model, &choices, &mut picks);
                picked.push(picks);
            }
        }
        for number in 0..samples {
            // 0: evenly distributed; 1: nearly everything persisted; 2: nearly nothing did.
            let bias = number % 3;
            let mut pick = |ways: &usize| match (bias, random.below(4)) {
                (1, 1..) => ways - 1,
                (2, 1..) => 0,
                _ => random.below(*ways),
            };
            let mut picks: Vec<usize> = ways.iter().map(&mut pick).collect();
            match random.below(2) {
                0 => raise(model, &choices, &mut picks),
                _ => lower(model, &choices, &mut picks),
            }
            picked.push(picks);
        }
    }
    picked.sort_unstable();
    picked.dedup();
    // After a kill the view is whole as well. A power cut may leave the same names and contents elsewhere, but
    // another view, so both states are added.
    let full: Vec<usize> = ways.iter().map(|ways| ways - 1).collect();
    if view_is_open && picked.last() == Some(&full) {
        picked.push(full.clone());
    }
    let last = picked.len().saturating_sub(1);
    for (number, picks) in picked.iter_mut().enumerate() {
        let is_full = *picks == full && number == last;
        // The whole view, none of it, or a random result for each file.
        let bias = random.below(4);
        let viewed = choices
            .iter()
            .zip(picks)
            .filter(|(choice, _)| is_view(choice));
        for (choice, pick) in viewed {
            let most = choice.ways() - 1;
            *pick = match (is_full, bias) {
                (true, _) | (_, 0) => most,
                (_, 1) => 0,
                _ => random.below(most + 1),
            };
        }
    }
    picked
        .iter()
        .map(|picks| build(model, &choices, picks))
        .collect()
}

fn choices(model: &Model) -> Vec<Choice> {
    let mut choices = Vec::new();
    for (dir, slots) in &model.dirs {
        for (name, slot) in slots.iter().filter(|(_, slot)| !slot.pending.is_empty()) {
            choices.push(Choice::Name(*dir, name.clone(), slot.pending.len()));
        }
    }
    for (ino, data) in &model.files {
        let contents = contents(data);
        if contents.len() > 1 {
            choices.push(Choice::Content(*ino, contents));
        }
    }
    for (ino, data) in model
        .files
        .iter()
        .filter(|(_, data)| !data.marked.1.is_empty())
    {
        let now = data.is_marked();
        let (kept, since) = &data.marked;
        // Each value once, the current one last.
        if *kept != now || since.iter().any(|one| *one != now) {
            choices.push(Choice::Mode(*ino, vec![!now, now]));
        }
    }
    choices
}

/// Returns the possible contents of a file, the current one last.
fn contents(data: &Data) -> Vec<Arc<Vec<u8>>> {
    let mut all = vec![data.kept.to_vec()];
    for after in data.pending.iter().map(|after| after.as_ref()) {
        let previous = all.last().unwrap_or(&data.kept).clone();
        let before = previous.len();
        let Some(grown) = after.len().checked_sub(data.kept.len()) else {
            all.push(after.clone());
            continue;
        };
        // The new size, but zeros after the durable octets.
        let mut zeros = data.kept.to_vec();
        zeros.resize(after.len(), 0);
        all.push(zeros);
        // Half of what this call appended.
        if after.len() > before {
            all.push(after[..before + (after.len() - before) / 2].to_vec());
        }
        // The lines of a history that this call appended, without the last one.
        if after.len() > before && after[before..].starts_with(b"{") {
            let (_, lines) = after[..after.len() - 1].split_at(before);
            let end = lines.iter().rposition(|octet| *octet == b'\n');
            all.extend(end.map(|end| after[..=before + end].to_vec()));
        }
        // The later pages without the first one.
        let page = data.kept.len().next_multiple_of(PAGE);
        if grown > 0 && after.len() > page {
            let mut holes = after.clone();
            holes[data.kept.len()..page].fill(0);
            all.push(holes);
        }
        // This replacement alone, without the other ones.
        if after.len() == before && data.pending.len() > 1 {
            let changed = |at: &usize| previous.get(*at) != after.get(*at);
            let mut alone = data.kept.to_vec();
            alone.resize(after.len(), 0);
            (0..after.len())
                .filter(changed)
                .for_each(|at| alone[at] = after[at]);
            all.push(alone);
        }
        all.push(after.clone());
    }
    if !data.lost.is_empty() {
        let without = |content: &Vec<u8>| {
            let mut without = content.clone();
            for (from, lost) in &data.lost {
                let places = without.iter_mut().skip(*from);
                places.zip(lost).for_each(|(place, lost)| *place = *lost);
            }
            without
        };
        all = all.iter().map(without).chain(all.iter().cloned()).collect();
    }
    let last = all.pop().unwrap_or_default();
    let mut unique: Vec<Arc<Vec<u8>>> = Vec::new();
    for one in all {
        if one != last && !unique.iter().any(|other| **other == one) {
            unique.push(Arc::new(one));
        }
    }
    unique.push(Arc::new(last));
    unique
}

/// Finds a change that persisted without the change that it needs. Returns its choice and the number of changes
/// before it, and the choice of the needed change and the number of changes up to it.
fn unmet(
    model: &Model,
    choices: &[Choice],
    picks: &[usize],
) -> Option<(usize, usize, usize, usize)> {
    for (n, choice) in choices.iter().enumerate() {
        let Choice::Name(dir, name, _) = choice else {
            continue;
        };
        let slot = &model.dirs[dir][name];
        for (at, change) in slot.pending[..picks[n]].iter().enumerate() {
            let Some(pin) = &change.needs else { continue };
            let there = &model.dirs[&pin.dir][&pin.name];
            // A change that is not pending is durable.
            let Some(needed) = there.pending.iter().position(|one| one.seq == pin.seq) else {
                continue;
            };
            let other = of_name(choices, pin.dir, &pin.name).unwrap();
            if picks[other] <= needed {
                return Some((n, at, other, needed + 1));
            }
        }
    }
    None
}

/// Makes the picks consistent by adding the needed changes.
fn raise(model: &Model, choices: &[Choice], picks: &mut [usize]) {
    while let Some((_, _, new, needed)) = unmet(model, choices, picks) {
        picks[new] = needed;
    }
}

/// Makes the picks consistent by removing changes without the changes that they need.
fn lower(model: &Model, choices: &[Choice], picks: &mut [usize]) {
    while let Some((old, at, _, _)) = unmet(model, choices, picks) {
        picks[old] = at;
    }
}

fn build(model: &Model, choices: &[Choice], picks: &[usize]) -> Tree {
    let name = |dir: Ino, text: &str, slot: &Slot| {
        if slot.pending.is_empty() {
            slot.kept
        } else {
            slot.after(picks[of_name(choices, dir, text).expect("undecided")])
        }
    };
    let content = |ino: Ino, data: &Data| -> Content {
        let choice = of_content(choices, ino).map(|choice| (&choices[choice], picks[choice]));
        let bytes = match choice {
            Some((Choice::Content(_, all), pick)) => Arc::clone(&all[pick]),
            _ => Arc::clone(data.now()),
        };
        let choice = of_mode(choices, ino).map(|choice| (&choices[choice], picks[choice]));
        let is_marked = match choice {
            Some((Choice::Mode(_, all), pick)) => all[pick],
            _ => data.is_marked(),
        };
        (bytes, is_marked)
    };
    model.tree(&name, &content)
}
