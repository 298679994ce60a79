//! Shared by the fuzz targets: envelopes, spools in memory, and the assertion that no message
//! vanishes.

pub mod smtp;

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Limits, Request};
use mailspool::testing::message::{
    Address, Block, Entrance, Dsn, Envelope, QueueId, ReversePath, Submission, block,
};
use mailspool::testing::queue::{
    Action, By, DelayAges, Event, Hold, QueueUntil, RetryPolicy, Schedule, State, Status, Step, Then,
    What, next_step, recipient_result,
};
use mailspool::testing::spool::Spool;
use tempfile::TempDir;

/// Separates the parts of an input: ASCII's record separator.
const SEPARATOR: u8 = 0x1e;

/// Returns the parts of an input. The last part has the rest; missing parts are empty.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut parts = input.splitn(N, |byte| *byte == SEPARATOR);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Returns a time that inputs are likely to have events before and after.
pub fn now() -> Timestamp {
    "2026-11-22T14:05:00Z".parse().expect("a time")
}

/// Returns the id of a message of that time.
pub fn id() -> QueueId {
    QueueId::new(now(), [7; 10])
}

/// Returns an envelope with these recipients.
pub fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    Envelope {
        sender: ReversePath::parse(sender.as_bytes()).expect("a sender"),
        recipients: recipients
            .iter()
            .map(|text| Address::parse(text).expect("an address"))
            .collect(),
        submission: Submission::by(Entrance::Active),
    }
}

/// Returns the block of [`id`] with this envelope, as at acceptance.
pub fn block(envelope: &Envelope) -> Block {
    let mut bytes = block::open(id(), envelope);
    block::close(&mut bytes, 0, 0);
    Block::parse(&bytes).expect("what we write we can read")
}

/// Returns the next step of a message.
pub fn next(state: &State) -> Step {
    next_step(state, now(), Schedule::default().longest_delay())
}

/// Makes a spool in memory, where a sync costs nothing.
pub fn spool() -> (TempDir, Spool) {
    let memory = Path::new("/dev/shm");
    let dir = tempfile::tempdir_in(memory).expect("a directory in memory");
    let spool = Spool::create(&dir.path().join("spool")).expect("a spool");
    (dir, spool)
}

/// Returns limits without a minimum of free space, for a disk in memory.
pub fn limits() -> Limits {
    Limits {
        min_free: 0,
        min_free_inodes: 0,
        ..Limits::new("mail.test")
    }
}

/// Returns a request from the null sender to one recipient.
pub fn request() -> Request {
    Request {
        entrance: Entrance::Active,
        sender: ReversePath::Null,
        recipients: vec![Address::parse("b@example.net").expect("an address")],
        transport: None,
        dsn: Dsn::default(),
        submitter: "fuzzer".into(),
        key: None,
        release: None,
    }
}

/// Follows the steps of a message as a runner does, with every attempt deferred. Asserts that the steps end,
/// and that the message is removed only if no recipient and no notice is left.
pub fn follow_steps(mut state: State, mut now: Timestamp) {
    // Each recipient may be interrupted once, and have separate notices.
    let most = 10 + 5 * state.recipients.len();
    let schedule = Schedule::default();
    let longest = schedule.longest_delay();
    for _ in 0..most {
        let step = next_step(&state, now, longest);
        let is_interruption = matches!(step, Step::Interrupted(_));
        let counted = state.interrupted;
        let what = match step {
            Step::Finish => return assert_none_is_left(&state, now),
            Step::Rest(until) => return assert_comes_back(&state, until, now, longest),
            Step::Thaw => What::Action(Action::Thaw(By::rule("its time has come"))),
            Step::Freeze(reason) => What::Action(Action::Freeze {
                by: By::rule(reason),
                until: None,
                then: Then::Thaw,
            }),
            Step::FreezeFailed(reason) => {
                assert_eq!(state.sender, ReversePath::Null);
                What::Action(Action::Freeze {
                    by: By::rule(reason),
                    until: now.checked_add(SignedDuration::from_hours(14 * 24)).ok(),
                    then: Then::Discard,
                })
            }
            Step::Notify(occasion) => {
                assert!(!occasion.recipients.is_empty());
                assert_ne!(state.sender, ReversePath::Null);
                What::Notice {
                    kind: occasion.kind,
                    id: None,
                    warn: None,
                    recipients: occasion
                        .recipients
                        .iter()
                        .map(|n| state.recipients[*n].address.clone())
                        .collect(),
                }
            }
            Step::Interrupted(ref tried) | Step::Attempt(ref tried) => {
                assert!(!tried.is_empty());
                let later = || {
                    let code = mailspool::testing::message::EnhancedCode::new(4, 2, 1);
                    mailspool::testing::queue::Outcome::deferred(code, "later")
                };
                let outcome = || if is_interruption {
mailspool::testing::queue::Outcome {
                        status: Status::Unknown,
                        ..later()
                    }
} else {
later()
};
                let result = |n: &usize| {
                    recipient_result(
                        &state,
                        &state.recipients[*n].address,
                        None,
                        outcome(),
                        &schedule,
                        &DelayAges::default(),
                        now,
                    )
                };
                What::Outcome {
                    began: now,
                    transport: None,
                    results: tried.iter().map(result).collect(),
                }
            }
        };
        state.apply(&Event { at: now, what });
        if is_interruption {
            // As a holder does: it counts the interruption, then clears the bit.
            state.interrupted = counted + 1;
            state.in_use = false;
        }
        // The next step comes a little later.
        now = now
            .checked_add(SignedDuration::from_millis(1))
            .unwrap_or(now);
    }
    panic!("no end of steps: {state:?}");
}

fn assert_none_is_left(state: &State, now: Timestamp) {
    match &state.hold {
        Hold::Discarded { until, .. } => return assert!(*until <= now),
        Hold::Frozen {
            until: Some(until),
            then: Then::Discard,
            ..
        } => return assert!(*until <= now),
        _ => {}
    }
    for one in &state.recipients {
        assert!(!one.is_left(), "forgotten with {one:?}");
        let untold = one.is_untold() || one.is_unconfirmed();
        assert!(!untold, "forgotten without telling of {one:?}");
    }
}

/// Asserts that a message at rest has a next time, or is held.
fn assert_comes_back(state: &State, until: QueueUntil, now: Timestamp, longest: SignedDuration) {
    match until {
        QueueUntil::Deferred(next) => {
            assert!(next > now && next.duration_since(now) <= longest, "{next}");
            assert_eq!(state.next_due(), Some(next));
        }
        QueueUntil::Frozen(until) => {
            assert!(until.is_none_or(|until| until > now));
            assert!(matches!(state.hold, Hold::Frozen { .. }));
        }
        QueueUntil::Discarded(until) => {
            assert!(until > now);
            assert!(matches!(state.hold, Hold::Discarded { .. }));
        }
    }
}
