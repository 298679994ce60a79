//! Operator actions under faults: an action reported as done still holds after the spool is reopened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::operator::{Acted, act, flush};
use mailspool::testing::queue::{Action, By, Hold, State, Then};
use mailspool::testing::spool::{Claim, Queue, Spool};
use tempfile::TempDir;

use super::errnos::Seen;
use super::explore::explore;
use super::inject::{Case, Injector, all_cases, sample};
use super::proof;
use super::scratch::Scratch;
use super::world::{Clock, Ledger, accept, findings, runner, tempdir};

/// Three deferred messages. If a request is wanted, one of them is locked.
struct QueueScene {
    dir: TempDir,
    ids: Vec<QueueId>,
    start: Timestamp,
}

/// The operation that runs under faults.
#[derive(Clone)]
enum Deed {
    Act(Action),
    /// On a locked message.
    Ask(Action),
    Flush,
}

fn by() -> By {
    By {
        by: "operator".into(),
        reason: Some("because".into()),
    }
}

impl QueueScene {
    fn new(before: Option<&Action>) -> QueueScene {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path).unwrap();
        let start = Timestamp::now();
        let new = |name: &str| {
            accept(
                &spool,
                Entrance::Active,
                name,
                "s@sender.test",
                &["a@first.test", "b@ok.test"],
            )
        };
        let ids = ["one", "two", "three"].map(new).to_vec();
        let clock = Clock::at(start);
        clock.forward(1);
        let pass = runner(spool.clone(), &Ledger::default(), &clock, start).pass();
        assert_eq!(pass.unwrap().deferred, 3);
        if let Some(action) = before {
            let acted = act(&spool, &ids, action, clock.now()).unwrap();
            assert!(acted.iter().all(|(_, acted)| *acted == Acted::Done));
        }
        QueueScene { dir, ids, start }
    }

    /// The same, with all messages in quarantine, repaired by an operator.
    fn in_quarantine() -> QueueScene {
        let queue = QueueScene::new(None);
        let path = queue.path();
        let spool = Spool::open(&path).unwrap();
        for id in &queue.ids {
            let queue = spool.locate(*id).unwrap().queue().unwrap();
            let reason = path.join(format!("corrupt/{id}.reason"));
            std::fs::write(reason, "it was damaged\n").unwrap();
            std::fs::rename(
                path.join(queue.path(*id)),
                path.join(Queue::Corrupt.path(*id)),
            )
            .unwrap();
        }
        queue
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// Runs the operation. Returns whether all of it was reported as done.
    fn do_it(&self, path: &Path, deed: &Deed, seam: Arc<Injector>) -> bool {
        let seam: Arc<dyn Seam> = seam;
        let now = self.start + SignedDuration::from_mins(2);
        let hand = matches!(deed, Deed::Ask(_)).then(|| {
            let spool = Spool::open(path).unwrap();
            let queue = spool.locate(self.ids[0]).unwrap().queue().unwrap();
            match spool.lock(queue, self.ids[0]).unwrap() {
                Claim::Locked(locked) => locked,
                other => panic!("{other:?}"),
            }
        });
        let Ok(spool) = Spool::open_through(path, Some(seam)) else {
            return false;
        };
        let done = match deed {
            Deed::Act(action) => act(&spool, &self.ids, action, now)
                .map(|acted| acted.iter().all(|(_, acted)| *acted == Acted::Done)),
            Deed::Ask(action) => act(&spool, &self.ids[..1], action, now)
                .map(|acted| acted == [(self.ids[0], Acted::Requested)]),
            Deed::Flush => {
                flush(&spool, &Action::Retry(by()), now).map(|count| count == self.ids.len())
            }
        };
        drop(hand);
        // An action on a message that seems locked is neither done nor reported as done.
        done.unwrap_or(false)
    }

    fn judge(&self, deed: &Deed, case: &Case) -> String {
        let dir = Scratch::copy(&self.path());
        let path = dir.spool();
        let done = self.do_it(&path, deed, Injector::new(*case));
        let spool = Spool::open(&path).unwrap();
        let problems = |spool: &Spool| -> Vec<_> {
            let mut found = findings(spool);
            found.retain(|finding| finding.level > mailspool::testing::operator::Level::Note);
            found
        };
        assert_eq!(problems(&spool), []);
        let (ledger, clock) = (Ledger::default(), Clock::at(self.start));
        clock.forward(3);
        let (affected, action) = match deed {
            Deed::Act(action) => (&self.ids[..], action.clone()),
            Deed::Flush => (&self.ids[..], Action::Retry(by())),
            Deed::Ask(action) => (&self.ids[..1], action.clone()),
        };
        if done {
            if let Deed::Ask(_) = deed {
                runner(spool.clone(), &ledger, &clock, self.start)
                    .pass()
                    .unwrap();
            }
            affected.iter().for_each(|id| holds(&spool, *id, &action));
        } else {
            // A repeated action succeeds.
            let again = act(&spool, affected, &action, clock.now()).unwrap();
            for (id, acted) in again {
                match acted {
                    Acted::Done => holds(&spool, id, &action),
                    // The first attempt had already applied it.
                    Acted::Refused(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        self.wind_up(&spool, &ledger, &clock);
        drop(spool);
        dir.end();
        if done {
            "reported as done".to_owned()
        } else {
            "reported as failed".to_owned()
        }
    }

    /// After any action, no message is lost or delivered twice.
    fn wind_up(&self, spool: &Spool, ledger: &Ledger, clock: &Clock) {
        for _ in 0..6 {
            runner(spool.clone(), ledger, clock, self.start)
                .pass()
                .unwrap();
            clock.forward(150);
            let held = |queue: &Queue| {
                matches!(
                    queue,
                    Queue::Frozen(_) | Queue::Discarded(_) | Queue::Corrupt
                )
            };
            let listing = spool.listing();
            if listing.messages.iter().all(|(_, queue)| held(queue)) {
                break;
            }
        }
        let (counts, notices) = (ledger.counts(), ledger.notices());
        let listing = spool.listing();
        for id in &self.ids {
            let to = "a@first.test".to_owned();
            let delivered = counts.get(&(*id, to.clone())).copied().unwrap_or(0);
            let told = notices
                .get(&(id.to_string(), to))
                .map_or(0, |ids| ids.len());
            let kept = listing.messages.iter().filter(|(one, _)| one == id).count();
            assert_eq!(delivered + told + kept, 1, "{delivered} {told} {kept}");
        }
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        assert_eq!(
            findings(spool)
                .iter()
                .filter(|finding| finding.level > mailspool::testing::operator::Level::Note)
                .count(),
            0
        );
    }
}

/// Asserts that the message is in the state that the action sets.
fn holds(spool: &Spool, id: QueueId, action: &Action) {
    let listing = spool.listing();
    let found: Vec<_> = listing
        .messages
        .iter()
        .filter(|(one, _)| *one == id)
        .collect();
    if let ([], Action::Bounce(_) | Action::Retry(_) | Action::Thaw(_)) = (found.as_slice(), action)
    {
        return;
    }
    let [(_, queue)] = found.as_slice() else {
        panic!("{found:?}");
    };
    let view = spool.view(id, *queue, &listing).unwrap().unwrap();
    let State {
        hold, recipients, ..
    } = view.content.unwrap().state;
    let right = match action {
        Action::Freeze { until, .. } => {
            matches!(queue, Queue::Frozen(_))
                && matches!(hold, Hold::Frozen { until: now, .. } if now == *until)
        }
        Action::Discard { .. } => {
            matches!(queue, Queue::Discarded(_)) && matches!(hold, Hold::Discarded { .. })
        }
        Action::Bounce(_) => {
            *queue == Queue::Active && recipients.iter().all(|recipient| !recipient.is_left())
        }
        Action::Retry(_) | Action::Thaw(_) => {
            matches!(queue, Queue::Active | Queue::Deferred(_)) && hold == Hold::None
        }
    };
    assert!(
        right,
        "{} reported, but {queue:?} {hold:?} {recipients:?}",
        action.as_str()
    );
}

fn explored(name: &str, before: Option<Action>, deed: Deed) {
    explored_in(name, QueueScene::new(before.as_ref()), deed);
}

fn explored_in(name: &str, queue: QueueScene, deed: Deed) {
    let seen: Vec<Seen> = {
        let dir = Scratch::copy(&queue.path());
        let seam = Injector::new(Case::clean());
        assert!(queue.do_it(&dir.spool(), &deed, Arc::clone(&seam)));
        seam.seen()
    };
    let mut cases = all_cases(&seen, None);
    // Few of the calls that only read are needed.
    cases.retain(|case| {
        let seen = seen[case.at];
        proof::long() || seen.acts() || seen.name == "lock" || case.at % 7 == 0
    });
    let all = cases.len();
    let cases = sample(cases, 40);
    let tally = explore(name, &cases, |case| queue.judge(&deed, case));
    tally.print(&format!("{name}, {} calls, of {all}", seen.len()));
}

fn until() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(100)
}

#[test]
fn actions() {
    let freeze = Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    let discard = Action::Discard {
        by: by(),
        until: until(),
    };
    explored("freeze", None, Deed::Act(freeze.clone()));
    explored(
        "freeze until",
        None,
        Deed::Act(Action::Freeze {
            by: by(),
            until: Some(until()),
            then: Then::Thaw,
        }),
    );
    explored("thaw", Some(freeze.clone()), Deed::Act(Action::Thaw(by())));
    explored("discard", None, Deed::Act(discard.clone()));
    explored("undo", Some(discard), Deed::Act(Action::Retry(by())));
    explored("bounce", None, Deed::Act(Action::Bounce(by())));
    explored("retry", None, Deed::Act(Action::Retry(by())));
    explored("request", None, Deed::Ask(freeze));
}

#[test]
fn out_of_quarantine() {
    let queue = QueueScene::in_quarantine();
    explored_in("retry from corrupt", queue, Deed::Act(Action::Retry(by())));
}

#[test]
fn flushing() {
    explored("flush", None, Deed::Flush);
}
