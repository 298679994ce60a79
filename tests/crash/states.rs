//! The states that a power cut may leave, all of them or a sample.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::model::{Data, Ino, Model, Slot};
use super::proof;
use super::tree::Tree;

/// Up to so many combinations are all tried.
const EXHAUSTIVE: usize = 64;
/// Where there is time.
const EXHAUSTIVE_LONG: usize = 512;
/// States at random for each cut where not all are tried, and where there is time.
const SAMPLES: usize = 2;
const SAMPLES_LONG: usize = 20;
/// What a file system writes at once.
const PAGE: usize = 4096;

/// Something undecided, and how many ways it may go. The first is that nothing persisted, the
/// last that everything did.
enum Choice {
    Name(Ino, String, usize),
    Content(Ino, Vec<Arc<Vec<u8>>>),
}

impl Choice {
    fn ways(&self) -> usize {
        match self {
            Choice::Name(_, _, changes) => changes + 1,
            Choice::Content(_, all) => all.len(),
        }
    }
}

/// The choice that decides about a name. Those about names come first, in the order of
/// directories and names.
fn of_name(choices: &[Choice], dir: Ino, name: &str) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(d, n, _) => (*d, n.as_str()).cmp(&(dir, name)),
        Choice::Content(..) => Ordering::Greater,
    };
    choices.binary_search_by(order).ok()
}

/// The choice that decides about a file's content.
fn of_content(choices: &[Choice], ino: Ino) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(..) => Ordering::Less,
        Choice::Content(other, _) => other.cmp(&ino),
    };
    choices.binary_search_by(order).ok()
}

impl Choice {
    /// What is written together: a directory's names, all of `info/`, or all contents.
    fn group(&self, info: &[Ino]) -> Option<Ino> {
        match self {
            Choice::Name(dir, ..) if info.contains(dir) => info.first().copied(),
            Choice::Name(dir, ..) => Some(*dir),
            Choice::Content(..) => None,
        }
    }
}

/// The directories below `info/`.
fn info(model: &Model) -> Vec<Ino> {
    let info = model.find(Path::new("spool/info"));
    let slots = info.and_then(|info| model.dirs.get(&info));
    let slots = slots.into_iter().flat_map(|slots| slots.values());
    slots.filter_map(Slot::now).collect()
}

/// Sets of groups: each alone, all but each, each pair.
fn behind(groups: &BTreeSet<Option<Ino>>) -> Vec<BTreeSet<Option<Ino>>> {
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

/// The bound up to which all combinations are tried, and how many are drawn beyond it.
fn effort() -> (usize, usize) {
    match proof::long() {
        true => (EXHAUSTIVE_LONG, SAMPLES_LONG),
        false => (EXHAUSTIVE, SAMPLES),
    }
}

/// The states for a cut at this moment: all of them if they are few, else nothing, everything,
/// everything but one, one alone, and a sample at random.
///
/// With `by_dirs` also: whole directories behind, or ahead of, all others.
pub fn states(model: &Model, random: &mut Random, by_dirs: bool) -> Vec<Tree> {
    let (exhaustive, samples) = effort();
    let choices = choices(model);
    let ways: Vec<usize> = choices.iter().map(Choice::ways).collect();
    let all = ways
        .iter()
        .try_fold(1_usize, |all, ways| all.checked_mul(*ways));
    let mut picked = Vec::new();
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
            let info = info(model);
            let group = |choice: &Choice| choice.group(&info);
            for behind in behind(&choices.iter().map(group).collect()) {
                let one = |(choice, ways): (&Choice, &usize)| match behind.contains(&group(choice))
                {
                    true => 0,
                    false => ways - 1,
                };
                let mut picks: Vec<usize> = choices.iter().zip(&ways).map(one).collect();
                lower(model, &choices, &mut picks);
                picked.push(picks);
            }
        }
        for number in 0..samples {
            // Even, nearly everything, nearly nothing.
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
    choices
}

/// What a file may contain.
fn contents(data: &Data) -> Vec<Arc<Vec<u8>>> {
    let mut all = vec![data.kept.to_vec()];
    for after in data.pending.iter().map(|after| after.as_ref()) {
        let before = all.last().unwrap_or(&data.kept).len();
        let Some(grown) = after.len().checked_sub(data.kept.len()) else {
            all.push(after.clone());
            continue;
        };
        // The size without the data, from what was certain on.
        let mut zeros = data.kept.to_vec();
        zeros.resize(after.len(), 0);
        all.push(zeros);
        // Cut off in the middle of this call.
        if after.len() > before {
            all.push(after[..before + (after.len() - before) / 2].to_vec());
        }
        // The later pages without the first.
        let page = data.kept.len().next_multiple_of(PAGE);
        if grown > 0 && after.len() > page {
            let mut holes = after.clone();
            holes[data.kept.len()..page].fill(0);
            all.push(holes);
        }
        all.push(after.clone());
    }
    if !data.lost.is_empty() {
        let without = |content: &Vec<u8>| {
            let mut without = content.clone();
            for lost in &data.lost {
                let end = lost.end.min(without.len());
                without[lost.start.min(end)..end].fill(0);
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

/// For each old name that is gone without the new one being there: which choice that is, and
/// how far it has to go.
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
            // Not among the pending: certain.
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

/// Never neither: the missing new names appear.
fn raise(model: &Model, choices: &[Choice], picks: &mut [usize]) {
    while let Some((_, _, new, needed)) = unmet(model, choices, picks) {
        picks[new] = needed;
    }
}

/// Never neither: the old names stay.
fn lower(model: &Model, choices: &[Choice], picks: &mut [usize]) {
    while let Some((old, at, _, _)) = unmet(model, choices, picks) {
        picks[old] = at;
    }
}

fn build(model: &Model, choices: &[Choice], picks: &[usize]) -> Tree {
    let name = |dir: Ino, text: &str, slot: &Slot| match slot.pending.is_empty() {
        true => slot.kept,
        false => slot.after(picks[of_name(choices, dir, text).expect("undecided")]),
    };
    let content = |ino: Ino, data: &Data| {
        let choice = of_content(choices, ino).map(|choice| (&choices[choice], picks[choice]));
        match choice {
            Some((Choice::Content(_, all), pick)) => Arc::clone(&all[pick]),
            _ => Arc::clone(data.now()),
        }
    };
    model.tree(&name, &content)
}
