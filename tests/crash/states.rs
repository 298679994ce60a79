//! The states that a power cut may leave, all of them or a sample.
//!
//! The view, `info/`, is never synced, and nothing decides by it. So its names and contents are not among
//! what is combined: each state has them as chance would have it, missing, torn, without an octet, or there.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::model::{Data, Ino, Model, Slot};
use super::proof;
use super::tree::{Content, Tree};

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

/// The choice that decides about a name. Those about names come first, in the order of
/// directories and names.
fn of_name(choices: &[Choice], dir: Ino, name: &str) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(d, n, _) => (*d, n.as_str()).cmp(&(dir, name)),
        Choice::Content(..) | Choice::Mode(..) => Ordering::Greater,
    };
    choices.binary_search_by(order).ok()
}

/// The choice that decides about a file's content.
fn of_content(choices: &[Choice], ino: Ino) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(..) => Ordering::Less,
        Choice::Content(other, _) => other.cmp(&ino),
        Choice::Mode(..) => Ordering::Greater,
    };
    choices.binary_search_by(order).ok()
}

/// The choice that decides about a file's mode. Those about modes come last.
fn of_mode(choices: &[Choice], ino: Ino) -> Option<usize> {
    let order = |one: &Choice| match one {
        Choice::Name(..) | Choice::Content(..) => Ordering::Less,
        Choice::Mode(other, _) => other.cmp(&ino),
    };
    choices.binary_search_by(order).ok()
}

impl Choice {
    /// What is written together: a directory's names, or all contents and modes.
    fn group(&self) -> Option<Ino> {
        match self {
            Choice::Name(dir, ..) => Some(*dir),
            Choice::Content(..) | Choice::Mode(..) => None,
        }
    }
}

/// The directories of the view, and the files that are or were in them.
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
    if proof::long() {
        (EXHAUSTIVE_LONG, SAMPLES_LONG)
    } else {
        (EXHAUSTIVE, SAMPLES)
    }
}

/// The states for a cut at this moment: all of them if they are few, else nothing, everything,
/// everything but one, one alone, and a sample at random.
///
/// With `by_dirs` also: whole directories behind, or ahead of, all others.
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
            for behind in behind(&decided.map(Choice::group).collect()) {
                let one = |(choice, ways): (&Choice, &usize)| {
                    if behind.contains(&choice.group()) {
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
    // A kill leaves all of the view; a power cut may leave the same of the rest.
    let full: Vec<usize> = ways.iter().map(|ways| ways - 1).collect();
    if view_is_open && picked.last() == Some(&full) {
        picked.push(full.clone());
    }
    let last = picked.len().saturating_sub(1);
    for (number, picks) in picked.iter_mut().enumerate() {
        let is_full = *picks == full && number == last;
        // All of it, nothing, or each file as it comes.
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
        // Each value once, the present one last.
        if *kept != now || since.iter().any(|one| *one != now) {
            choices.push(Choice::Mode(*ino, vec![!now, now]));
        }
    }
    choices
}

/// What a file may contain.
fn contents(data: &Data) -> Vec<Arc<Vec<u8>>> {
    let mut all = vec![data.kept.to_vec()];
    for after in data.pending.iter().map(|after| after.as_ref()) {
        let previous = all.last().unwrap_or(&data.kept).clone();
        let before = previous.len();
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
        // Of several replacements this one alone, wherever the others are.
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
