//! Concurrent submissions with one key, and submissions during runs.

use std::collections::BTreeSet;
use std::fs;

use mailspool::testing::message::QueueId;
use mailspool::testing::queue::{Action, Then};
use mailspool::testing::spool::Queue;

use super::explore::Bound;
use super::programs::{pass, submitting, sweeping};
use super::shared::{submit, submit_briefly, walk};
use super::stage::{Case, End, Pair, Said, Stage, by};

const TO: &str = "a@ok.test";

/// Asserts that every submission that got an id got the same one, that a further submission gets it too, and that
/// one message is delivered. `first` is the message that had the key before.
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

/// The run may find the unfinished message, or deliver and forget it at once. A sweep without the rest of a run is
/// short enough to be tried at each call of the submission.
#[test]
fn a_submission_beside_a_run() {
    let stage = Stage::new(|_| {});
    for (name, other) in [("submit, run", pass(50)), ("submit, sweep", sweeping())] {
        Pair::new(name, &stage, [submitting(TO), other], |case, said| {
            one(case, said, None);
        })
        .holds(Bound::of(2).kills(1).costly());
    }
}

/// Returns a stage in which a submission was killed with its key in `keys/new/` and its message in `at`. `prepare`
/// gets the message's id.
fn cut_off(at: Queue, prepare: impl FnOnce(&mut Stage, QueueId)) -> Stage {
    Stage::new(|stage| {
        let id = submit(&stage.spool(), TO).unwrap().id;
        stage.ids.push(id);
        stage.put(id, at);
        let keys = stage.path().join("keys");
        let record = walk(&keys).remove(0);
        fs::rename(&record, keys.join("new").join(record.file_name().unwrap())).unwrap();
        prepare(stage, id);
    })
}

/// The submission was killed before the rename of *accepted*: its message was not accepted, and the next one is.
#[test]
fn a_submission_that_was_cut_off_found_by_a_run_and_repeated() {
    let stage = cut_off(Queue::New, |_, _| {});
    let first = stage.ids[0];
    for (name, other) in [
        ("repeat, sweep", pass(50)),
        ("repeat, sweep alone", sweeping()),
        ("repeat, repeat", submitting(TO)),
    ] {
        Pair::new(name, &stage, [submitting(TO), other], |case, said| {
            one(case, said, None);
            assert_eq!(case.delivered(first), 0, "it was not accepted");
        })
        .holds(Bound::of(2).costly().kills(0));
    }
}

/// The submission was killed after that rename, and the sync of the directory may have failed. A repeated
/// submission makes the name durable by way of `staged/`. A run or a sweep that finds the message there, or in its
/// queue, delivers it once. The same holds if a kill left it in `staged/`.
#[test]
fn a_name_made_durable_again() {
    for (queue, at) in [(Queue::Active, "queue"), (Queue::Staged, "staged")] {
        let stage = cut_off(queue, |_, _| {});
        let first = stage.ids[0];
        for (with, other) in [
            ("sweep", sweeping()),
            ("run", pass(50)),
            ("repeat", submitting(TO)),
        ] {
            let name = format!("again from {at}, {with}");
            let pair = Pair::new(&name, &stage, [submitting(TO), other], |case, said| {
                one(case, said, Some(first));
            });
            pair.holds(Bound::of(2).kills(1).costly());
        }
    }
}

/// The message of the killed submission is frozen, so runs and sweeps leave it alone. It is frozen again
/// afterwards, or a run puts it back.
#[test]
fn the_name_of_a_message_that_rests_made_durable_again() {
    let freeze = Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    let stage = cut_off(Queue::Active, |stage, id| stage.act(id, &freeze));
    let first = stage.ids[0];
    for (name, other) in [
        ("again from frozen, sweep", sweeping()),
        ("again from frozen, run", pass(50)),
    ] {
        Pair::new(name, &stage, [submitting(TO), other], |case, said| {
            case.ends(said, &[(first, TO, &[End::Kept])]);
            let again = submit(&case.spool(), TO).unwrap();
            assert_eq!((again.repeated, again.id), (true, first));
            case.ends(said, &[(first, TO, &[End::Kept])]);
        })
        .holds(Bound::of(2).kills(1).costly());
    }
}

/// The rename of the key failed, or a power cut undid it, and a run finishes the message.
#[test]
fn a_submission_repeated_while_the_first_is_forgotten() {
    for (name, queue) in [
        ("repeat, deliver", Queue::Active),
        ("repeat, forget", Queue::Done),
    ] {
        let stage = cut_off(queue, |_, _| {});
        let id = stage.ids[0];
        let programs = [submitting(TO), pass(50)];
        Pair::new(name, &stage, programs, |case, said| {
            let again = submit(&case.spool(), TO).unwrap();
            assert_eq!((again.repeated, again.id), (true, id), "{said:?}");
            match queue {
                Queue::Done => case.ends(said, &[(id, TO, &[End::Gone])]),
                _ => one(case, said, Some(id)),
            }
        })
        .holds(Bound::of(2).kills(1));
    }
}

/// The key has expired, and a run removes it from the bucket of that hour.
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
