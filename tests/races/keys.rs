//! Submissions with one key, beside each other and beside runs.

use std::collections::BTreeSet;
use std::fs;

use mailspool::message::QueueId;
use mailspool::spool::Place;

use super::explore::Bound;
use super::programs::{pass, submitting};
use super::shared::{submit, submit_briefly, walk};
use super::stage::{Case, End, Pair, Said, Stage};

const TO: &str = "a@ok.test";

/// Whoever was told an id was told the same, who submits it once more is told it as well, and one
/// message is delivered. `first` has the key before.
fn one(case: &Case<'_>, said: &[Said; 2], first: Option<QueueId>) {
    let told = said.iter().filter_map(|said| match said {
        Said::Accepted(id) => Some(*id),
        _ => None,
    });
    let mut told: BTreeSet<QueueId> = told.chain(first).collect();
    told.insert(submit(&case.spool(), TO).unwrap().id);
    let id = *told.first().unwrap();
    case.ends(said, &[(id, TO, &[End::Delivered])]);
    let again = submit(&case.spool(), TO).unwrap();
    assert!(again.repeated, "{again:?}");
    told.insert(again.id);
    assert_eq!(told.len(), 1, "{told:?}");
    let ids: BTreeSet<QueueId> = case.ledger.all().iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 1, "delivered as {ids:?}");
}

#[test]
fn two_submissions() {
    let stage = Stage::new(|_| {});
    let programs = [submitting(TO), submitting(TO)];
    Pair::new("submit, submit", &stage, programs, |case, said| {
        one(case, said, None);
    })
    .holds(Bound::of(2).kills(1));
}

/// The run may find what is not whole yet, or deliver and forget it at once.
#[test]
fn a_submission_beside_a_run() {
    let stage = Stage::new(|_| {});
    let programs = [submitting(TO), pass(50)];
    Pair::new("submit, run", &stage, programs, |case, said| {
        one(case, said, None);
    })
    .holds(Bound::of(2).kills(1));
}

/// An acceptor was killed behind his barrier: in `new/` the message, in `keys/new/` its key.
fn cut_off() -> Stage {
    Stage::new(|stage| {
        let id = submit(&stage.spool(), TO).unwrap().id;
        stage.ids.push(id);
        stage.put(id, Place::New);
        let keys = stage.path().join("keys");
        let record = walk(&keys).remove(0);
        fs::rename(&record, keys.join("new").join(record.file_name().unwrap())).unwrap();
    })
}

#[test]
fn a_submission_that_was_cut_off_found_by_a_run_and_repeated() {
    let stage = cut_off();
    let first = Some(stage.ids[0]);
    let programs = [submitting(TO), pass(50)];
    Pair::new("repeat, sweep", &stage, programs, |case, said| {
        one(case, said, first);
    })
    .holds(Bound::of(2).costly().kills(0));
    let programs = [submitting(TO), submitting(TO)];
    Pair::new("repeat, repeat", &stage, programs, |case, said| {
        one(case, said, first);
    })
    .holds(Bound::of(2).costly());
}

/// The rename of its key failed, or a power cut took it back, and a run finishes the message.
#[test]
fn a_submission_repeated_while_the_first_is_forgotten() {
    let stage = cut_off();
    let id = stage.ids[0];
    let from = stage.path().join(Place::New.path(id));
    fs::rename(from, stage.path().join(Place::Active.path(id))).unwrap();
    let programs = [submitting(TO), pass(50)];
    Pair::new("repeat, forget", &stage, programs, |case, said| {
        one(case, said, Some(id));
    })
    .holds(Bound::of(2).kills(1));
}

/// The key's time is over, and a run removes it from the bucket of that hour.
#[test]
fn a_submission_beside_a_purge() {
    let stage = Stage::new(|stage| {
        let old = submit_briefly(&stage.spool(), "b@ok.test");
        stage.ids.push(old);
        stage.pass(1);
    });
    let programs = [submitting(TO), pass(70)];
    Pair::new("submit, purge", &stage, programs, |case, said| {
        one(case, said, None);
    })
    .holds(Bound::of(2).kills(1));
}
