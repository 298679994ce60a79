//! Making a spool, and the configuration in it.

use std::path::Path;

use mailspool::testing::message::Entrance;
use mailspool::testing::operator::Level;
use mailspool::testing::spool::{Error, Spool};

use super::explore::{Case, Cases, Left, run};
use super::harmless::why;
use super::log::{Recorder, Step};
use super::model::{Model, Renames};
use super::orders::later;
use super::proof;
use super::shared::{accept, findings, tempdir};
use super::teeth::label;
use super::tree::Tree;
use super::world::Known;

const TITLE: &str = "make a spool";
const CONFIG: &[u8] = b"# a configuration\n";

/// Returns what is wrong with a case. After the creation is reported the spool can be opened; before that it can
/// be created. The configuration exists once its own write is reported, and is never torn.
fn judge(case: &Case) -> Vec<String> {
    let dir = tempdir();
    case.tree.write(dir.path());
    let path = dir.path().join("above/spool");
    let mut wrong = Vec::new();
    match (Spool::open(&path), case.known.did) {
        (Ok(_), _) | (Err(Error::Missing(_)), false) => {}
        (Err(error), _) => wrong.push(format!("made, and yet: {error}")),
    }
    let config = std::fs::read(path.join("config.toml")).ok();
    let configured = !case.known.delivered.is_empty();
    if config.is_none() && configured || config.is_some_and(|bytes| bytes != CONFIG) {
        wrong.push("the configuration is not there, or torn".to_owned());
    }
    match Spool::create(&path) {
        Err(error) => wrong.push(format!("it cannot be made: {error}")),
        Ok(spool) => {
            let mut found = findings(&spool);
            found.retain(|finding| finding.level > Level::Note);
            wrong.extend(found.into_iter().map(|finding| format!("{finding:?}")));
            accept(
                &spool,
                Entrance::Active,
                "m",
                "s@sender.test",
                &["a@ok.test"],
            );
            // A process that finds the directory of the locks relies on the other one.
            let has = |dir: &str| path.join("keys").join(dir).is_dir();
            if has("lock") && !has("new") {
                wrong.push("nothing can be accepted under a key".to_owned());
            }
        }
    }
    wrong
}

/// Returns the log of a creation and the tree at its end.
fn made() -> (Vec<Step>, Tree) {
    let dir = tempdir();
    let path = dir.path().join("above/spool");
    let recorder = Recorder::new(dir.path());
    let spool = Spool::create_through(&path, Some(recorder.hand(&path, 0))).unwrap();
    recorder.mark(Step::Did);
    let name = Path::new("config.toml");
    spool.write_if_missing(name, CONFIG).unwrap();
    // Any step that the world knows will do to report the configuration.
    let id = "01a2021c-bff6-75ef-9344-1a834d1db9b8".parse().unwrap();
    recorder.mark(Step::Delivered(id, String::new()));
    (recorder.steps(), Tree::read(dir.path()))
}

/// Returns the cases of a log that begins on an empty disk.
fn cases(steps: &[Step]) -> Cases<'_> {
    Cases::of(&Tree::default(), &Known::default(), steps, Renames::Loose)
}

fn all_cases(steps: &[Step]) -> (usize, Vec<Case>, Tree) {
    let mut cases = cases(steps);
    let all: Vec<Case> = cases.by_ref().collect();
    let end = cases.model().now();
    (cases.cuts, all, end)
}

/// Returns all states that the unchanged log leaves.
fn left(steps: &[Step]) -> Left {
    cases(steps).left()
}

/// Whether another log has a violation among the states that the unchanged log does not leave.
fn is_found(steps: &[Step], left: &Left) -> bool {
    let mut new = cases(steps).without(left.clone());
    new.any(|case| !judge(&case).is_empty())
}

#[test]
fn making() {
    let (steps, end) = made();
    let (cuts, cases, modelled) = all_cases(&steps);
    assert_eq!(modelled, end);
    let tally = run(cuts, &cases, judge);
    tally.print(TITLE);
    let wrong = tally.shown(TITLE);
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_sync_of_making_matters() {
    let (mut mutations, mut found) = (0, 0);
    let (steps, _) = made();
    let left = left(&steps);
    let mut model = Model::of(&Tree::default(), Renames::Loose);
    for (at, step) in steps.iter().enumerate() {
        if model.would_keep(step) {
            let mut without = steps.clone();
            without.remove(at);
            let label = label(&steps, at);
            let bites = is_found(&without, &left);
            let excuse = why(&label, TITLE);
            assert!(bites || excuse.is_some(), "without {label}: nothing");
            mutations += 1;
            found += usize::from(bites);
        }
        model.apply(step);
    }
    proof::count("mutations", mutations);
    proof::count("mutations found", found);
}

/// `version` is written last, and gets its name once it is durable.
#[test]
fn every_order_of_making_matters() {
    let (steps, _) = made();
    let left = left(&steps);
    let part = |step: &Step| matches!(step, Step::SyncFile(path) if is_part(path, "above/spool"));
    let reported = |step: &Step| matches!(step, Step::Did);
    let renamed = |step: &Step| matches!(step, Step::Rename(..));
    let skeleton = |step: &Step| step.is_sync() && !part(step);
    let orders = [
        later(&steps, part, reported),
        later(&steps, skeleton, renamed),
        later(
            &steps,
            |step| matches!(step, Step::SyncFile(_)),
            |step| matches!(step, Step::Link(..)),
        ),
    ];
    for (number, steps) in orders.iter().enumerate() {
        assert!(is_found(steps, &left), "order {number}: nothing is found");
    }
    proof::count("mutations", orders.len());
    proof::count("mutations found", orders.len());
}

fn is_part(path: &Path, dir: &str) -> bool {
    path.parent() == Some(Path::new(dir)) && path.extension().is_some_and(|end| end == "part")
}
