//! How the outcome of a transaction becomes a recipient's result: with the time of the next attempt, or as a
//! failure at the end of the lifetime.

use jiff::Timestamp;

use super::{
    DelayAges, FailedAttempt, Outcome, RecipientResult, RecipientState, RetryPolicy, State, Status,
};
use crate::message::{Address, ReversePath};

/// Returns when the next delay notice is due for a recipient that has an outcome now, or `None` if the
/// sender must not get one.
pub fn warn_time(
    state: &State,
    recipient: &RecipientState,
    delays: &DelayAges,
    now: Timestamp,
) -> Option<Timestamp> {
    if state.sender == ReversePath::Null || !recipient.dsn.wants_delay() {
        None
    } else {
        delays.next(state.begins(now), recipient.warned, now)
    }
}

/// Returns the result to record for an outcome: the time of the next attempt, or that the lifetime has
/// ended, and the time of the next delay notice. `transport` selects the schedule if the recipient's domain
/// has none.
pub fn recipient_result(
    state: &State,
    recipient: &Address,
    transport: Option<&str>,
    outcome: Outcome,
    retry: &dyn RetryPolicy,
    delays: &DelayAges,
    now: Timestamp,
) -> RecipientResult {
    let next = match outcome.status {
        Status::Delivered | Status::Failed => None,
        Status::Deferred | Status::Unknown => {
            retry.next_attempt(&failed_attempt(state, recipient, transport, &outcome, now))
        }
    };
    let Outcome {
        status,
        handover,
        reply,
    } = outcome;
    let waits = state.recipient(recipient).filter(|_| next.is_some());
    let over = next.is_none() && matches!(status, Status::Deferred | Status::Unknown);
    RecipientResult {
        recipient: recipient.clone(),
        status: if over { Status::Failed } else { status },
        handover,
        reply,
        next,
        warn: waits.and_then(|recipient| warn_time(state, recipient, delays, now)),
        expired: over,
    }
}

/// Returns the input of a retry policy for an outcome that is not recorded yet.
pub fn failed_attempt<'a>(
    state: &'a State,
    recipient: &'a Address,
    transport: Option<&'a str>,
    outcome: &'a Outcome,
    now: Timestamp,
) -> FailedAttempt<'a> {
    let before = state
        .recipient(recipient)
        .map_or(0, |recipient| recipient.attempts);
    FailedAttempt {
        id: state.id,
        begin: state.begins(now),
        sender: &state.sender,
        recipient,
        transport,
        attempts: before.saturating_add(1),
        status: outcome.status,
        reply: &outcome.reply,
        now,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::message::NoticeKind;
    use crate::queue::state::Fate;
    use crate::queue::story::{Story, later};
    use crate::queue::{Action, By, QueueUntil, Step};

    #[test]
    fn the_end_of_the_lifetime_is_a_failure_with_a_notice() {
        let mut story = Story::new("s@z");
        for _ in 0..1000 {
            match story.step() {
                Step::Attempt(these) => {
                    story.starts();
                    let all: Vec<_> = these.into_iter().map(|n| (n, later())).collect();
                    story.ends(&all);
                }
                Step::Rest(QueueUntil::Deferred(next)) => story.now = next,
                Step::Notify(occasion) => {
                    assert_eq!(occasion.kind, NoticeKind::Bounce);
                    assert_eq!(occasion.recipients, [0, 1]);
                    let age = story.now.duration_since(story.state.id.accepted());
                    assert_eq!(age, story.schedule.lifetime());
                    assert!(matches!(
                        story.state.recipients[0].fate,
                        Fate::Failed { expired: true, .. }
                    ));
                    return;
                }
                step => panic!("{step:?}"),
            }
        }
        panic!("the lifetime never ends");
    }

    /// The clock is this far ahead when a message is accepted or released by an operator, and is then
    /// corrected. The message expires as if it had been accepted at the correction, and is attempted at
    /// once.
    #[test]
    fn a_clock_that_was_ahead_does_not_lengthen_the_lifetime() {
        let hours = SignedDuration::from_hours;
        let (minute, years) = (SignedDuration::from_mins(1), hours(24 * 3650));
        for (ahead, by_hand) in [
            (years, false),
            (years, true),
            (hours(3), false),
            (hours(3), true),
            (hours(50), false),
            (minute, false),
        ] {
            let mut story = Story::released("s@z", by_hand.then_some(hours(48)));
            story.delays = DelayAges::new([hours(4)]);
            if by_hand {
                let retry = Action::Retry(By::rule("because"));
                assert_eq!(story.acts(retry), Step::Attempt(vec![0, 1]));
            }
            let right = story.now - ahead;
            story.now = right;
            assert_eq!(story.step(), Step::Attempt(vec![0, 1]), "{ahead:#}");
            let (mut attempts, mut told) = (0, None);
            let end = loop {
                assert!(attempts < 100, "{ahead:#}");
                match story.step() {
                    Step::Attempt(these) => {
                        attempts += 1;
                        story.starts();
                        let all: Vec<_> = these.into_iter().map(|n| (n, later())).collect();
                        story.ends(&all);
                    }
                    Step::Rest(QueueUntil::Deferred(next)) => story.now = next,
                    Step::Notify(occasion) if occasion.kind == NoticeKind::Delay => {
                        told.get_or_insert(story.now.duration_since(right));
                        story.is_told(NoticeKind::Delay, &occasion.recipients);
                    }
                    Step::Notify(_) => break story.now.duration_since(right),
                    step => panic!("{step:?}"),
                }
            };
            assert_eq!(end, story.schedule.lifetime(), "{ahead:#}");
            let told = told.unwrap();
            assert!((hours(4)..hours(5)).contains(&told), "{ahead:#}: {told:#}");
        }
    }

    #[test]
    fn a_delay_notice_is_sent_once_per_age_if_notify_allows() {
        let hours = SignedDuration::from_hours;
        for (first, second, about) in [
            ("", "", &[0, 1][..]),
            ("", "failure", &[0]),
            ("never", "delay", &[1]),
            ("never", "success", &[]),
        ] {
            let mut story = Story::new("s@z").wishing(first, second);
            story.delays = DelayAges::new([hours(4), hours(30)]);
            let start = story.now;
            let mut told = Vec::new();
            while story.now < start + hours(48) {
                match story.step() {
                    Step::Attempt(these) => {
                        story.starts();
                        let all: Vec<_> = these.into_iter().map(|n| (n, later())).collect();
                        story.ends(&all);
                    }
                    Step::Rest(QueueUntil::Deferred(until)) => {
                        assert!(until > story.now);
                        story.now = until;
                    }
                    step => {
                        assert_eq!(step, story.told(NoticeKind::Delay, about));
                        told.push(story.now.duration_since(start));
                        story.is_told(NoticeKind::Delay, about);
                    }
                }
            }
            let ages: &[_] = if about.is_empty() {
                &[]
            } else {
                story.delays.ages()
            };
            assert_eq!(told, ages, "{first} {second}");
        }
    }
}
