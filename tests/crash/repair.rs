//! What `check` must report and repair.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailspool::testing::message::QueueId;
use mailspool::testing::operator::{Finding, Level, Repair, check};
use mailspool::testing::spool::Spool;

use super::tree::Tree;

/// Repairs a spool that no process uses and returns what is wrong. `check` announces the repair and changes
/// nothing; the repair does what was announced and nothing else; a second repair finds nothing to do.
pub fn repair(spool: &Spool, base: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let before = Tree::read(base);
    let announced = check(spool, false).unwrap();
    if Tree::read(base) != before {
        wrong.push("a check changes something".to_owned());
    }
    let mut done = check(spool, true).unwrap();
    let undone = done.iter().filter(|one| one.repaired == Some(false));
    wrong.extend(undone.map(|one| said("a repair failed", one.clone())));
    done.iter_mut().for_each(|one| one.repaired = None);
    if announced != done {
        wrong.push(format!(
            "a repair does {done:?}, announced is {announced:?}"
        ));
    }
    let after = Tree::read(base);
    wrong.extend(unannounced(&before, &after, &done));
    let again = check(spool, true).unwrap();
    let again = again
        .into_iter()
        .filter(|one| one.level > Level::Note || one.repair.is_some());
    wrong.extend(again.map(|one| said("a second repair finds", one)));
    if Tree::read(base) != after {
        wrong.push("a second repair changes something".to_owned());
    }
    wrong
}

/// Returns what a repair did beyond its report: only reported names may be gone, and new files may only be in
/// `corrupt/` or be reported views.
fn unannounced(before: &Tree, after: &Tree, done: &[Finding]) -> Vec<String> {
    let files = |tree: &Tree| -> BTreeMap<PathBuf, Arc<Vec<u8>>> {
        let files = tree.files();
        files
            .map(|(path, bytes)| (path.to_owned(), Arc::clone(bytes)))
            .collect()
    };
    let (before, after) = (files(before), files(after));
    // Writing the reason of a quarantined message removes no name.
    let takes_away = |finding: &&Finding| {
        let repair = finding.repair.as_ref();
        repair.is_some_and(|repair| !matches!(repair, Repair::SayWhy | Repair::Show { .. }))
    };
    let shown = done
        .iter()
        .filter(|one| matches!(one.repair, Some(Repair::Show { .. })));
    let moved = done.iter().filter_map(|one| match &one.repair {
        Some(Repair::Move { to }) => Some(Path::new("spool").join(to)),
        _ => None,
    });
    let moved: BTreeSet<PathBuf> = moved.collect();
    let shown: BTreeSet<PathBuf> = shown
        .map(|one| Path::new("spool").join(&one.path))
        .collect();
    let repaired = done.iter().filter(takes_away);
    let mut repaired: BTreeSet<PathBuf> = repaired
        .map(|one| Path::new("spool").join(&one.path))
        .collect();
    // Of two names the later is kept, and may then move to where the earlier was.
    repaired.retain(|path| !moved.contains(path));
    let gone = |path: &&PathBuf| !after.contains_key(*path);
    let gone: BTreeSet<PathBuf> = before.keys().filter(gone).cloned().collect();
    let mut wrong = Vec::new();
    if gone != repaired {
        wrong.push(format!("a repair says {repaired:?} and removes {gone:?}"));
    }
    for (path, bytes) in &after {
        let same = before.get(path).is_some_and(|was| was == bytes);
        if !same
            && !path.starts_with("spool/corrupt")
            && !shown.contains(path)
            && !moved.contains(path)
        {
            wrong.push(format!("a repair makes {}", path.display()));
        }
    }
    wrong
}

/// Returns the problems that `check` reports, except views, histories and requests of messages that are gone,
/// and the problems that are left after a repair.
pub fn findings(spool: &Spool) -> Vec<String> {
    let found = problems(spool, false);
    if found.is_empty() {
        return Vec::new();
    }
    let found = found.into_iter().filter(|finding| !is_leftover(finding));
    let mut wrong: Vec<String> = found.map(|finding| said("check finds", finding)).collect();
    problems(spool, true);
    let after = problems(spool, false).into_iter();
    wrong.extend(after.map(|one| said("check still finds", one)));
    wrong
}

pub fn problems(spool: &Spool, repair: bool) -> Vec<Finding> {
    let mut found = check(spool, repair).unwrap();
    found.retain(|finding| finding.level == Level::Problem);
    found
}

/// Whether a finding is of a message that was never acknowledged or is forgotten, or of a lost reason.
pub fn is_leftover(one: &Finding) -> bool {
    let beside = ["info", "history", "requests"];
    beside.iter().any(|dir| one.path.starts_with(dir)) && one.what == "belongs to no message"
        || one.repair == Some(Repair::SayWhy)
}

pub fn said(when: &str, one: Finding) -> String {
    format!("{when}: {}: {}", one.path.display(), one.what)
}

/// Returns what only a power cut may leave, and no kill: views and histories without a message, and messages in
/// `corrupt/` without a reason.
pub fn strays(tree: &Tree) -> BTreeSet<PathBuf> {
    let id = |path: &Path| -> Option<QueueId> { path.file_name()?.to_str()?.parse().ok() };
    let below = |path: &Path, dir: &str| path.starts_with(Path::new("spool").join(dir));
    let files = || tree.files().map(|(path, _)| path);
    let beside = ["info", "history", "requests"];
    let messages = files().filter(|path| !beside.iter().any(|dir| below(path, dir)));
    let messages: BTreeSet<QueueId> = messages.filter_map(id).collect();
    let stray = |path: &&Path| {
        let Some(id) = id(path) else { return false };
        // A request may be left for a message that is gone: the next run drops it.
        let info = below(path, "info") || below(path, "history");
        let mute =
            below(path, "corrupt") && !tree.has(&path.with_file_name(format!("{id}.reason")));
        info && !messages.contains(&id) || mute
    };
    files().filter(stray).map(Path::to_owned).collect()
}
