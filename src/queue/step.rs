//! What comes next for a message: a value that whoever holds its lock carries out.

use jiff::{SignedDuration, Timestamp};

use super::state::Fate;
use super::{
    FailedAttempt, Hold, Outcome, RecipientResult, RecipientState, RetryPolicy, State, Status,
};
use crate::message::{Address, EnhancedCode, ReversePath};

/// The next step. Recipients are given by their place in [`State::recipients`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try these.
    Attempt(Vec<usize>),
    /// Record that these were begun and never ended.
    Interrupted(Vec<usize>),
    /// Tell the sender that these failed.
    Notify(Vec<usize>),
    /// Record that the message is frozen by rule, with this reason.
    Freeze(String),
    /// Record that a freeze has run out.
    Thaw,
    /// Let it rest there.
    Rest(Resting),
    /// Nothing is left to do: forget it.
    Finish,
}

/// Where a message rests, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resting {
    /// In `deferred/`, until its next attempt.
    Deferred(Timestamp),
    /// In `frozen/`, until then or until somebody says so.
    Frozen(Option<Timestamp>),
    /// In `discarded/`, to be forgotten then.
    Discarded(Timestamp),
}

/// Attempts in a row that may be interrupted before the message is taken for the cause.
pub const MAX_INTERRUPTED: u32 = 3;

/// Decides what comes next. Whoever follows it step by step, applying to the state what each
/// step records, ends at [`Step::Rest`] or [`Step::Finish`].
pub fn next_step(state: &State, now: Timestamp, longest_delay: SignedDuration) -> Step {
    match &state.hold {
        Hold::Frozen {
            until: Some(until), ..
        } if *until <= now => return Step::Thaw,
        Hold::Frozen { until, .. } => return Step::Rest(Resting::Frozen(*until)),
        Hold::Discarded { until, .. } if *until <= now => return Step::Finish,
        Hold::Discarded { until, .. } => return Step::Rest(Resting::Discarded(*until)),
        Hold::None => {}
    }
    let these = |wanted: &dyn Fn(&Fate) -> bool| -> Vec<usize> {
        let all = state.recipients.iter().enumerate();
        all.filter(|(_, one)| wanted(&one.fate))
            .map(|(n, _)| n)
            .collect()
    };
    let in_flight = these(&|fate| *fate == Fate::InFlight);
    if !in_flight.is_empty() {
        return Step::Interrupted(in_flight);
    }
    if state.interrupted >= MAX_INTERRUPTED {
        return Step::Freeze(format!(
            "{} attempts in a row were interrupted",
            state.interrupted
        ));
    }
    let untold = these(&|fate| {
        matches!(
            fate,
            Fate::Failed {
                notified: false,
                ..
            }
        )
    });
    if !untold.is_empty() && state.sender != ReversePath::Null {
        return Step::Notify(same_cause(state, untold));
    }
    let due = |next: Timestamp| next <= now || next.duration_since(now) > longest_delay;
    let ready = these(&|fate| matches!(fate, Fate::Pending { next } if due(*next)));
    if !ready.is_empty() {
        return Step::Attempt(ready);
    }
    if let Some(next) = state.next_attempt() {
        return Step::Rest(Resting::Deferred(next));
    }
    if !untold.is_empty() {
        return Step::Freeze("delivery failed and there is no sender to tell".into());
    }
    Step::Finish
}

/// Where a message rests by its history alone, whatever the time is; none while there is
/// something to be done before it can rest.
pub fn resting(state: &State) -> Option<Resting> {
    match &state.hold {
        Hold::Frozen { until, .. } => return Some(Resting::Frozen(*until)),
        Hold::Discarded { until, .. } => return Some(Resting::Discarded(*until)),
        Hold::None => {}
    }
    let open = |one: &RecipientState| one.fate == Fate::InFlight || one.is_untold();
    match state.recipients.iter().any(open) {
        true => None,
        false => state.next_attempt().map(Resting::Deferred),
    }
}

/// Those of `untold` that failed in the same attempt as the first of them, or by the same action:
/// one cause, one notice. All of an attempt's outcomes are recorded before anybody is told, so
/// who is meant cannot change while a notice is under way.
fn same_cause(state: &State, untold: Vec<usize>) -> Vec<usize> {
    let moment = |n: &usize| match state.recipients[*n].fate {
        Fate::Failed { since, .. } => Some(since),
        _ => None,
    };
    let first = untold.iter().filter_map(moment).min();
    untold.into_iter().filter(|n| moment(n) == first).collect()
}

/// What an outcome means for a recipient's future: when it is tried again, or that its time
/// is up. `transport` is by whose schedule it goes, if its domain has none of its own.
pub fn settle(
    state: &State,
    recipient: &Address,
    transport: Option<&str>,
    outcome: Outcome,
    retry: &dyn RetryPolicy,
    now: Timestamp,
) -> RecipientResult {
    let next = match outcome.status {
        Status::Delivered | Status::Failed => None,
        Status::Deferred | Status::Unknown => {
            retry.next_attempt(&failed_attempt(state, recipient, transport, &outcome, now))
        }
    };
    let Outcome { status, reply } = outcome;
    let over = next.is_none() && matches!(status, Status::Deferred | Status::Unknown);
    RecipientResult {
        recipient: recipient.clone(),
        status: if over { Status::Failed } else { status },
        reply,
        next,
        expired: over,
    }
}

/// What a retry policy is told of an outcome that has just come about and is not recorded yet.
pub fn failed_attempt<'a>(
    state: &'a State,
    recipient: &'a Address,
    transport: Option<&'a str>,
    outcome: &'a Outcome,
    now: Timestamp,
) -> FailedAttempt<'a> {
    let before = state.recipient(recipient).map_or(0, |one| one.attempts);
    FailedAttempt {
        id: state.id,
        sender: &state.sender,
        recipient,
        transport,
        attempts: before.saturating_add(1),
        status: outcome.status,
        reply: &outcome.reply,
        now,
    }
}

/// The outcome of an attempt that nobody saw the end of.
pub fn interrupted() -> Outcome {
    Outcome {
        status: Status::Unknown,
        reply: crate::message::Reply::local(
            EnhancedCode::new(4, 3, 0),
            "the attempt was interrupted; its outcome is not known",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Door, Envelope, NoticeKind, QueueId, Submission};
    use crate::queue::{Action, By, Event, Schedule, What};

    struct Story {
        state: State,
        now: Timestamp,
        schedule: Schedule,
    }

    impl Story {
        fn new(sender: &str) -> Story {
            let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
            let envelope = Envelope {
                sender: ReversePath::parse(sender.as_bytes()).unwrap(),
                recipients: ["a@x", "b@y"]
                    .map(|one| Address::parse(one).unwrap())
                    .to_vec(),
                submission: Submission::by(Door::Active),
            };
            Story {
                state: State::new(QueueId::new(now, [1; 10]), &envelope),
                now,
                schedule: Schedule::default(),
            }
        }

        fn step(&self) -> Step {
            next_step(&self.state, self.now, self.schedule.longest_delay())
        }

        fn happens(&mut self, what: What) -> Step {
            self.state.apply(&Event { at: self.now, what });
            self.step()
        }

        fn starts(&mut self) -> Step {
            self.happens(What::Started {
                host: "h".into(),
                pid: 1,
                recipients: None,
            })
        }

        fn ends(&mut self, outcomes: &[(usize, Outcome)]) -> Step {
            self.ends_by(Some("t"), outcomes)
        }

        /// By no transport: whoever finds it later says what became of it.
        fn ends_by(&mut self, transport: Option<&str>, outcomes: &[(usize, Outcome)]) -> Step {
            let results = outcomes.iter().map(|(n, outcome)| {
                let address = self.state.recipients[*n].address.clone();
                settle(
                    &self.state,
                    &address,
                    transport,
                    outcome.clone(),
                    &self.schedule,
                    self.now,
                )
            });
            let results = results.collect();
            self.happens(What::Outcome {
                transport: transport.map(str::to_owned),
                results,
            })
        }

        fn acts(&mut self, action: Action) -> Step {
            self.happens(What::Action(action))
        }
    }

    fn ok() -> Outcome {
        Outcome::delivered("ok")
    }
    fn later() -> Outcome {
        Outcome::deferred(EnhancedCode::new(4, 0, 0), "later")
    }
    fn never() -> Outcome {
        Outcome::failed(EnhancedCode::new(5, 0, 0), "never")
    }

    #[test]
    fn delivered_to_all_is_finished() {
        let mut story = Story::new("s@z");
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
        assert_eq!(story.starts(), Step::Interrupted(vec![0, 1]));
        assert_eq!(story.ends(&[(0, ok())]), Step::Interrupted(vec![1]));
        assert_eq!(story.ends(&[(1, ok())]), Step::Finish);
    }

    #[test]
    fn recipients_go_their_own_ways() {
        let mut story = Story::new("s@z");
        story.starts();
        let step = story.ends(&[(0, later()), (1, never())]);
        assert_eq!(step, Step::Notify(vec![1]));
        let told = vec![story.state.recipients[1].address.clone()];
        let notice = What::Notice {
            kind: NoticeKind::Bounce,
            id: None,
            recipients: told,
        };
        let Step::Rest(Resting::Deferred(next)) = story.happens(notice) else {
            panic!()
        };
        story.now = next;
        assert_eq!(story.step(), Step::Attempt(vec![0]));
        story.starts();
        assert_eq!(story.ends(&[(0, ok())]), Step::Finish);
    }

    #[test]
    fn the_end_of_the_lifetime_is_a_failure_that_is_told() {
        let mut story = Story::new("s@z");
        for _ in 0..1000 {
            match story.step() {
                Step::Attempt(these) => {
                    story.starts();
                    let all: Vec<_> = these.into_iter().map(|n| (n, later())).collect();
                    story.ends(&all);
                }
                Step::Rest(Resting::Deferred(next)) => story.now = next,
                Step::Notify(these) => {
                    assert_eq!(these, [0, 1]);
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
        panic!("it never ends");
    }

    #[test]
    fn a_null_sender_is_never_told_but_frozen() {
        let mut story = Story::new("");
        story.starts();
        let step = story.ends(&[(0, never()), (1, later())]);
        assert!(matches!(step, Step::Rest(Resting::Deferred(_))), "{step:?}");
        story.now = story.state.next_attempt().unwrap();
        story.starts();
        let Step::Freeze(reason) = story.ends(&[(1, ok())]) else {
            panic!()
        };
        let step = story.acts(Action::Freeze {
            by: By::rule(reason),
            until: None,
        });
        assert_eq!(step, Step::Rest(Resting::Frozen(None)));
        assert_eq!(
            story.acts(Action::Thaw(By::rule("test"))),
            Step::Attempt(vec![0])
        );
    }

    #[test]
    fn three_interruptions_in_a_row_freeze() {
        let mut story = Story::new("s@z");
        for _ in 0..2 {
            let Step::Interrupted(these) = story.starts() else {
                panic!()
            };
            let all: Vec<_> = these.into_iter().map(|n| (n, interrupted())).collect();
            let Step::Rest(Resting::Deferred(next)) = story.ends_by(None, &all) else {
                panic!()
            };
            assert!(next > story.now);
            story.now = next;
        }
        story.starts();
        let step = story.ends_by(None, &[(0, interrupted()), (1, interrupted())]);
        assert!(matches!(step, Step::Freeze(_)), "{step:?}");
        story.acts(Action::Freeze {
            by: By::rule("poison"),
            until: None,
        });
        assert_eq!(
            story.acts(Action::Thaw(By::rule("test"))),
            Step::Attempt(vec![0, 1])
        );
    }

    /// A transport that loses every answer is no poison: nobody died of it.
    #[test]
    fn answers_that_are_lost_freeze_nothing() {
        let mut story = Story::new("s@z");
        for _ in 0..5 {
            story.starts();
            let lost = || Outcome::unknown("no answer");
            let step = story.ends(&[(0, lost()), (1, lost())]);
            let Step::Rest(Resting::Deferred(_)) = step else {
                panic!("{step:?}")
            };
            let next = story.state.recipients.iter().map(|one| match one.fate {
                Fate::Pending { next } => next,
                _ => panic!("{one:?}"),
            });
            story.now = next.max().unwrap();
        }
    }

    #[test]
    fn an_end_that_was_seen_resets_the_count() {
        let mut story = Story::new("s@z");
        for _ in 0..5 {
            story.starts();
            let step = story.ends(&[(0, interrupted()), (1, later())]);
            assert!(matches!(step, Step::Rest(Resting::Deferred(_))), "{step:?}");
            story.now = story
                .state
                .recipients
                .iter()
                .filter_map(|one| match one.fate {
                    Fate::Pending { next } => Some(next),
                    _ => None,
                })
                .max()
                .unwrap();
        }
    }

    #[test]
    fn operators_actions() {
        let by = || By {
            by: "op".into(),
            reason: None,
        };
        let mut story = Story::new("s@z");
        let until = story.now + SignedDuration::from_hours(1);
        let step = story.acts(Action::Freeze {
            by: by(),
            until: Some(until),
        });
        assert_eq!(step, Step::Rest(Resting::Frozen(Some(until))));
        story.now = until;
        assert_eq!(story.step(), Step::Thaw);
        story.acts(Action::Thaw(by()));
        assert_eq!(story.acts(Action::Bounce(by())), Step::Notify(vec![0, 1]));

        let mut story = Story::new("s@z");
        let step = story.acts(Action::Discard { by: by(), until });
        assert_eq!(step, Step::Rest(Resting::Discarded(until)));
        story.now = until;
        assert_eq!(story.step(), Step::Finish);
        assert_eq!(story.acts(Action::Retry(by())), Step::Attempt(vec![0, 1]));
    }

    #[test]
    fn a_failure_that_can_be_told_is_told_whoever_retries() {
        for (sender, step) in [("s@z", Step::Notify(vec![0])), ("", Step::Attempt(vec![0]))] {
            let mut story = Story::new(sender);
            story.starts();
            story.ends(&[(0, never()), (1, ok())]);
            let retry = Action::Retry(By::rule("why not"));
            assert_eq!(story.acts(retry), step, "{sender:?}");
        }
    }

    #[test]
    fn a_next_attempt_absurdly_far_ahead_is_due() {
        let mut story = Story::new("s@z");
        story.starts();
        story.now = "2030-01-01T00:00:00Z".parse().unwrap();
        story.ends(&[(0, later()), (1, later())]);
        story.now = "2026-11-22T00:00:00Z".parse().unwrap();
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
    }
}
