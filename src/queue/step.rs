//! The next step for a message, as a value. The process that holds the message's lock carries it out.

use jiff::{SignedDuration, Timestamp};

use super::state::Fate;
use super::{
    Action, DelayAges, FailedAttempt, Handover, Hold, Outcome, RecipientResult, RecipientState,
    RetryPolicy, State, Status, Then,
};
use crate::message::{Address, EnhancedCode, NoticeKind, ReversePath};

/// The next step. Recipients are given by their index in [`State::recipients`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Attempt these recipients.
    Attempt(Vec<usize>),
    /// Record that an attempt for these recipients began and has no recorded end.
    Interrupted(Vec<usize>),
    /// Send a notice to the sender.
    Notify(Occasion),
    /// Record a freeze by rule, for this reason, until an operator ends it.
    Freeze(String),
    /// Record a freeze by rule because the message failed, for this reason, and has no sender to notify. If
    /// no operator acts for a long time, the message is discarded.
    FreezeFailed(String),
    /// Record that a freeze has ended.
    Thaw,
    /// Move the message to where it rests.
    Rest(QueueUntil),
    /// Nothing is left to do: remove the message.
    Finish,
}

/// The content of one notice to the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The kind of the notice.
    pub kind: NoticeKind,
    /// When the cause occurred: when an attempt began, when an operator acted, or the age at which the
    /// delay notice is due. The notice's id is derived from it.
    pub cause: Timestamp,
    /// The recipients that the notice is about.
    pub who: Vec<usize>,
}

/// The queue in which a message rests, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueUntil {
    /// In `deferred/`, until its next attempt or delay notice is due.
    Deferred(Timestamp),
    /// In `frozen/`, until this time or until an operator acts.
    Frozen(Option<Timestamp>),
    /// In `discarded/`, until it is deleted at this time.
    Discarded(Timestamp),
}

/// The number of consecutive interrupted attempts after which the message counts as their cause and is
/// frozen.
pub const MAX_INTERRUPTED: u32 = 3;

/// Returns the next step for a message. A caller that carries out each step, and applies what it records to
/// the state, reaches [`Step::Rest`] or [`Step::Finish`].
pub fn next_step(state: &State, now: Timestamp, longest_delay: SignedDuration) -> Step {
    if state.done {
        return Step::Finish;
    }
    match &state.hold {
        Hold::Frozen {
            until: Some(until),
            then,
            ..
        } if *until <= now => {
            return match then {
                Then::Thaw => Step::Thaw,
                Then::Discard => Step::Finish,
            };
        }
        Hold::Frozen { until, .. } => return Step::Rest(QueueUntil::Frozen(*until)),
        Hold::Discarded { until, .. } if *until <= now => return Step::Finish,
        Hold::Discarded { until, .. } => return Step::Rest(QueueUntil::Discarded(*until)),
        Hold::None => {}
    }
    let these = |wanted: &dyn Fn(&Fate) -> bool| -> Vec<usize> {
        let all = state.recipients.iter().enumerate();
        all.filter(|(_, one)| wanted(&one.fate))
            .map(|(n, _)| n)
            .collect()
    };
    // A time far ahead comes from a wrong clock, unless it is the submitter's release time.
    let from = state.release.map_or(now, |release| release.max(now));
    let due = |next: Timestamp| next <= now || next.duration_since(from) > longest_delay;
    // A new message, or one released by an operator, is due at once, even if the clock was ahead then.
    let at_once = |next: Timestamp| next == state.begin && state.release.is_none();
    let is_ready =
        |fate: &Fate| matches!(fate, Fate::Pending { next } if due(*next) || at_once(*next));
    let ready = these(&is_ready);
    // An attempt is made for due recipients only. If no recipient is due, no attempt was interrupted.
    if state.in_use && !ready.is_empty() {
        return Step::Interrupted(ready);
    }
    if state.interrupted >= MAX_INTERRUPTED {
        return Step::Freeze(format!(
            "{} attempts in a row were interrupted",
            state.interrupted
        ));
    }
    if let Some(occasion) = untold(state) {
        return Step::Notify(occasion);
    }
    if !ready.is_empty() {
        return Step::Attempt(ready);
    }
    // After the attempts that are due, because they may deliver the message.
    if let Some(occasion) = overdue(state, now) {
        return Step::Notify(occasion);
    }
    if let Some(next) = state.next_due() {
        return Step::Rest(QueueUntil::Deferred(next));
    }
    if state.recipients.iter().any(RecipientState::is_untold) {
        return Step::FreezeFailed(no_sender_reason(state));
    }
    Step::Finish
}

/// Whether a message waits only for its release.
pub fn awaits_release(state: &State, now: Timestamp) -> bool {
    state.hold == Hold::None && state.release.is_some_and(|release| release > now)
}

/// Returns why an action does not apply to a message, or `None` if it applies. `stands_frozen` says that
/// the message is in `frozen/`, where it may be without a freeze in its history. Checked for every action,
/// whenever it is carried out.
pub fn refusal(state: &State, stands_frozen: bool, action: &Action) -> Option<&'static str> {
    let is_frozen = stands_frozen || matches!(state.hold, Hold::Frozen { .. });
    let is_discarded = matches!(state.hold, Hold::Discarded { .. });
    match action {
        Action::Thaw(_) if !is_frozen => Some("it is not frozen"),
        Action::Freeze { .. } | Action::Bounce(_) | Action::Discard { .. } if is_discarded => {
            Some("it is discarded already; `mailspool retry` takes it back")
        }
        Action::Bounce(_) if state.sender.mailbox().is_none() => {
            Some("it has the null sender and cannot be bounced; use `mailspool discard`")
        }
        Action::Bounce(_) if !state.recipients.iter().any(|recipient| recipient.is_left()) => {
            Some("no recipient is left to bounce")
        }
        _ => None,
    }
}

/// Returns the reason for freezing a message with failed recipients and no sender to notify: its last
/// failure.
fn no_sender_reason(state: &State) -> String {
    let failed = state
        .recipients
        .iter()
        .filter(|recipient| recipient.is_untold());
    let last = failed.max_by_key(|recipient| recipient.last_attempt.as_ref().map(|(at, _)| *at));
    let is_over =
        last.is_some_and(|recipient| matches!(recipient.fate, Fate::Failed { expired: true, .. }));
    let what = if is_over {
        "its time is up and there is no sender to tell"
    } else {
        "delivery failed and there is no sender to tell"
    };
    match last.and_then(|one| one.last.as_ref()) {
        Some(reply) => format!("{what}: {reply}"),
        None => what.to_owned(),
    }
}

/// Returns where a message rests according to its history alone, at any time. Returns `None` if another
/// step comes first.
pub fn queue_until(state: &State) -> Option<QueueUntil> {
    match &state.hold {
        _ if state.done => return None,
        Hold::Frozen { until, .. } => return Some(QueueUntil::Frozen(*until)),
        Hold::Discarded { until, .. } => return Some(QueueUntil::Discarded(*until)),
        Hold::None => {}
    }
    let open = |recipient: &RecipientState| recipient.is_untold() || recipient.is_unconfirmed();
    if state.recipients.iter().any(open) {
        None
    } else {
        state.next_due().map(QueueUntil::Deferred)
    }
}

/// Returns the next failure or success notice that is due. One notice has one cause: it is about all
/// recipients that failed or were delivered in the same attempt, or failed by the same action, as the first
/// of them. All outcomes of an attempt are recorded before any notice, so the notice's recipients cannot
/// change while it is being written.
fn untold(state: &State) -> Option<Occasion> {
    if state.sender == ReversePath::Null {
        return None;
    }
    let cause = |recipient: &RecipientState| match recipient.fate {
        Fate::Failed {
            since,
            notified: false,
            ..
        } => Some((since, NoticeKind::Bounce)),
        Fate::Delivered {
            since,
            notified: false,
            ..
        } => Some((since, NoticeKind::Success)),
        _ => None,
    };
    let causes = state.recipients.iter().filter_map(cause);
    let first = causes.min_by_key(|(since, kind)| (*since, *kind == NoticeKind::Success))?;
    let all = state.recipients.iter().enumerate();
    let recipients = all.filter(|(_, one)| cause(one) == Some(first));
    Some(Occasion {
        kind: first.1,
        cause: first.0,
        who: recipients.map(|(n, _)| n).collect(),
    })
}

/// Returns the delay notice that is due for pending recipients, if any.
pub fn overdue(state: &State, now: Timestamp) -> Option<Occasion> {
    let time = |recipient: &RecipientState| match recipient.fate {
        Fate::Pending { .. } => recipient.warn.filter(|warn| *warn <= now),
        _ => None,
    };
    let all = || state.recipients.iter().enumerate();
    let recipients = all().filter(|(_, one)| time(one).is_some());
    Some(Occasion {
        kind: NoticeKind::Delay,
        cause: all().filter_map(|(_, one)| time(one)).max()?,
        who: recipients.map(|(n, _)| n).collect(),
    })
}

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
        warn: waits.and_then(|one| warn_time(state, one, delays, now)),
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

/// Returns the outcome of an attempt without a recorded end.
pub fn interrupted() -> Outcome {
    Outcome {
        status: Status::Unknown,
        handover: Handover::Final,
        reply: crate::message::Reply::local(
            EnhancedCode::new(4, 3, 0),
            "the attempt was interrupted; its outcome is not known",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Entrance, Envelope, NoticeKind, QueueId, Submission};
    use crate::queue::{Action, By, Event, Schedule, What};

    struct Story {
        state: State,
        now: Timestamp,
        began: Timestamp,
        schedule: Schedule,
        delays: DelayAges,
    }

    impl Story {
        fn new(sender: &str) -> Story {
            Story::released(sender, None)
        }

        /// A message accepted at the start, with its release `ahead` of that.
        fn released(sender: &str, ahead: Option<SignedDuration>) -> Story {
            let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
            let envelope = Envelope {
                sender: ReversePath::parse(sender.as_bytes()).unwrap(),
                recipients: ["a@x", "b@y"]
                    .map(|text| Address::parse(text).unwrap())
                    .to_vec(),
                submission: Submission {
                    release: ahead.map(|ahead| now + ahead),
                    ..Submission::by(Entrance::Active)
                },
            };
            Story {
                state: State::new(QueueId::new(now, [1; 10]), &envelope),
                now,
                began: now,
                schedule: Schedule::default(),
                delays: DelayAges::never(),
            }
        }

        /// Sets NOTIFY for the first and the second recipient.
        fn wishing(mut self, first: &str, second: &str) -> Story {
            for (recipient, text) in self.state.recipients.iter_mut().zip([first, second]) {
                recipient.dsn.notify = (!text.is_empty()).then(|| text.parse().unwrap());
            }
            self
        }

        /// The step that sends a notice about these recipients. Their attempt began now.
        fn told(&self, kind: NoticeKind, about: &[usize]) -> Step {
            Step::Notify(Occasion {
                kind,
                cause: self.now,
                who: about.to_vec(),
            })
        }

        fn bounce(&self, about: &[usize]) -> Step {
            self.told(NoticeKind::Bounce, about)
        }

        fn is_told(&mut self, kind: NoticeKind, about: &[usize]) -> Step {
            let recipients = about
                .iter()
                .map(|n| self.state.recipients[*n].address.clone());
            self.happens(What::Notice {
                kind,
                id: None,
                recipients: recipients.collect(),
                warn: self.delays.next(self.state.begin, Some(self.now), self.now),
            })
        }

        fn step(&self) -> Step {
            next_step(&self.state, self.now, self.schedule.longest_delay())
        }

        fn happens(&mut self, what: What) -> Step {
            self.state.apply(&Event { at: self.now, what });
            self.step()
        }

        fn starts(&mut self) -> Step {
            self.state.in_use = true;
            self.began = self.now;
            self.step()
        }

        fn ends(&mut self, outcomes: &[(usize, Outcome)]) -> Step {
            self.ends_by(Some("t"), outcomes)
        }

        /// Without a transport, the attempt is interrupted, and the next holder of the lock records its
        /// outcome.
        fn ends_by(&mut self, transport: Option<&str>, outcomes: &[(usize, Outcome)]) -> Step {
            let results = outcomes.iter().map(|(n, outcome)| {
                let address = self.state.recipients[*n].address.clone();
                recipient_result(
                    &self.state,
                    &address,
                    transport,
                    outcome.clone(),
                    &self.schedule,
                    &self.delays,
                    self.now,
                )
            });
            let results = results.collect();
            // The next holder of the lock counts the interruption, because it finds the mark of the
            // attempt.
            self.state.interrupted += u32::from(transport.is_none());
            self.state.in_use = false;
            self.happens(What::Outcome {
                began: self.began,
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
        assert_eq!(story.ends(&[(0, ok())]), Step::Attempt(vec![1]));
        assert_eq!(story.ends(&[(1, ok())]), Step::Finish);
    }

    #[test]
    fn each_recipient_has_a_separate_outcome() {
        let mut story = Story::new("s@z");
        story.starts();
        let step = story.ends(&[(0, later()), (1, never())]);
        assert_eq!(step, story.bounce(&[1]));
        let told = vec![story.state.recipients[1].address.clone()];
        let notice = What::Notice {
            kind: NoticeKind::Bounce,
            id: None,
            recipients: told,
            warn: None,
        };
        let Step::Rest(QueueUntil::Deferred(next)) = story.happens(notice) else {
            panic!()
        };
        story.now = next;
        assert_eq!(story.step(), Step::Attempt(vec![0]));
        story.starts();
        assert_eq!(story.ends(&[(0, ok())]), Step::Finish);
    }

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
                    assert_eq!(occasion.who, [0, 1]);
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

    #[test]
    fn a_message_rests_until_its_release_and_ages_from_then() {
        let month = SignedDuration::from_hours(30 * 24);
        let mut story = Story::released("s@z", Some(month));
        let release = story.now + month;
        let rests = Step::Rest(QueueUntil::Deferred(release));
        assert_eq!(story.step(), rests, "further ahead than any delay");
        let by = || By::rule("because");
        let freeze = Action::Freeze {
            by: by(),
            until: None,
            then: Then::Thaw,
        };
        assert_eq!(story.acts(freeze), Step::Rest(QueueUntil::Frozen(None)));
        assert_eq!(story.acts(Action::Thaw(by())), rests);
        assert!(awaits_release(&story.state, story.now));
        story.now = release;
        assert!(!awaits_release(&story.state, story.now));
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
        story.starts();
        let step = story.ends(&[(0, later()), (1, later())]);
        let Step::Rest(QueueUntil::Deferred(next)) = step else {
            panic!("{step:?}")
        };
        let delay = next.duration_since(release).as_mins();
        assert!((15..=17).contains(&delay), "{delay}");
        // After the release, a time too far ahead again comes from a wrong clock.
        story.now = release - month;
        assert_eq!(story.step(), Step::Rest(QueueUntil::Deferred(next)));
        story.now = next - story.schedule.longest_delay() - SignedDuration::from_hours(1);
        assert!(story.now < release);
        assert_eq!(story.step(), Step::Rest(QueueUntil::Deferred(next)));
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
                        story.is_told(NoticeKind::Delay, &occasion.who);
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

    /// The age starts at the first event by a clock that was not ahead. A clock that was far too slow for a
    /// moment makes no message old.
    #[test]
    fn a_clock_that_was_slow_does_not_age_the_message() {
        let hours = SignedDuration::from_hours;
        let mut story = Story::new("s@z");
        let (accepted, past) = (story.now, Timestamp::UNIX_EPOCH);
        story.now = past;
        story.starts();
        story.ends(&[(0, later()), (1, later())]);
        assert_eq!(story.state.begins(past + hours(1)), past);
        assert_eq!(story.state.begins(accepted + hours(1)), accepted);
        // Ahead twice, and each time corrected by a part.
        let mut story = Story::new("s@z");
        for back in [24, 48] {
            story.now = accepted - hours(back);
            story.starts();
            story.ends(&[(0, later()), (1, later())]);
        }
        let begins = |back| story.state.begins(accepted - hours(back));
        assert_eq!(begins(0), accepted);
        assert_eq!(begins(1), accepted - hours(24));
        assert_eq!(begins(25), accepted - hours(48));
        assert_eq!(begins(72), accepted - hours(72));
    }

    #[test]
    fn a_retry_releases_the_message_and_starts_its_lifetime() {
        let mut story = Story::released("s@z", Some(SignedDuration::from_hours(48)));
        story.now += SignedDuration::from_hours(1);
        let retry = Action::Retry(By::rule("because"));
        assert_eq!(story.acts(retry), Step::Attempt(vec![0, 1]));
        assert_eq!((story.state.begin, story.state.release), (story.now, None));
        // A time this far ahead can only come from a wrong clock.
        story.starts();
        story.ends(&[(0, later()), (1, later())]);
        story.now -= SignedDuration::from_hours(24);
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
    }

    #[test]
    fn a_message_from_the_null_sender_is_frozen_without_a_notice() {
        let mut story = Story::new("");
        story.starts();
        let step = story.ends(&[(0, never()), (1, later())]);
        assert!(
            matches!(step, Step::Rest(QueueUntil::Deferred(_))),
            "{step:?}"
        );
        story.now = story.state.next_attempt().unwrap();
        story.starts();
        let Step::FreezeFailed(reason) = story.ends(&[(1, ok())]) else {
            panic!()
        };
        assert_eq!(
            reason,
            "delivery failed and there is no sender to tell: 5.0.0 never"
        );
        let step = story.acts(Action::Freeze {
            by: By::rule(reason),
            until: None,
            then: Then::Thaw,
        });
        assert_eq!(step, Step::Rest(QueueUntil::Frozen(None)));
        assert_eq!(
            story.acts(Action::Thaw(By::rule("test"))),
            Step::Attempt(vec![0])
        );
    }

    /// A failed message without a sender to notify is kept for a limited time. A thaw starts that time
    /// again. An operator's freeze keeps the message without limit.
    #[test]
    fn a_failed_message_from_the_null_sender_is_removed_unless_an_operator_acts() {
        let fail = |story: &mut Story| {
            story.starts();
            let step = story.ends(&[(0, never()), (1, ok())]);
            let Step::FreezeFailed(reason) = step else {
                panic!("{step:?}")
            };
            let until = story.now + SignedDuration::from_hours(24 * 14);
            let step = story.acts(Action::Freeze {
                by: By::rule(reason),
                until: Some(until),
                then: Then::Discard,
            });
            assert_eq!(step, Step::Rest(QueueUntil::Frozen(Some(until))));
            until
        };
        let mut story = Story::new("");
        story.now = fail(&mut story);
        assert_eq!(story.step(), Step::Finish);

        let mut story = Story::new("");
        let until = fail(&mut story);
        story.now = until - SignedDuration::from_hours(1);
        story.acts(Action::Thaw(By::rule("looked at")));
        story.starts();
        let Step::FreezeFailed(_) = story.ends(&[(0, never())]) else {
            panic!()
        };

        let mut story = Story::new("");
        let until = fail(&mut story);
        story.acts(Action::Freeze {
            by: By::rule("an operator"),
            until: None,
            then: Then::Thaw,
        });
        story.now = until;
        assert_eq!(story.step(), Step::Rest(QueueUntil::Frozen(None)));
    }

    #[test]
    fn the_end_of_the_lifetime_is_the_reason_of_a_freeze() {
        let mut story = Story::new("");
        story.starts();
        let outcome = later();
        let results = story
            .state
            .recipients
            .iter()
            .map(|recipient| RecipientResult {
                recipient: recipient.address.clone(),
                status: Status::Failed,
                reply: outcome.reply.clone(),
                next: None,
                expired: true,
                handover: Handover::Final,
                warn: None,
            });
        let results = results.collect();
        let transport = None;
        let began = story.now;
        let step = story.happens(What::Outcome {
            began,
            transport,
            results,
        });
        let reason = "its time is up and there is no sender to tell: 4.0.0 later";
        assert_eq!(step, Step::FreezeFailed(reason.into()));
    }

    #[test]
    fn three_interruptions_in_a_row_freeze() {
        let mut story = Story::new("s@z");
        for _ in 0..2 {
            let Step::Interrupted(these) = story.starts() else {
                panic!()
            };
            let all: Vec<_> = these.into_iter().map(|n| (n, interrupted())).collect();
            let Step::Rest(QueueUntil::Deferred(next)) = story.ends_by(None, &all) else {
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
            then: Then::Thaw,
        });
        assert_eq!(
            story.acts(Action::Thaw(By::rule("test"))),
            Step::Attempt(vec![0, 1])
        );
    }

    /// A transport that loses every reply does not freeze the message, because no process died.
    #[test]
    fn lost_replies_do_not_freeze() {
        let mut story = Story::new("s@z");
        for _ in 0..5 {
            story.starts();
            let lost = || Outcome::unknown("no answer");
            let step = story.ends(&[(0, lost()), (1, lost())]);
            let Step::Rest(QueueUntil::Deferred(_)) = step else {
                panic!("{step:?}")
            };
            let next = story
                .state
                .recipients
                .iter()
                .map(|recipient| match recipient.fate {
                    Fate::Pending { next } => next,
                    _ => panic!("{recipient:?}"),
                });
            story.now = next.max().unwrap();
        }
    }

    #[test]
    fn a_recorded_end_resets_the_count() {
        let mut story = Story::new("s@z");
        for _ in 0..5 {
            story.starts();
            let step = story.ends(&[(0, interrupted()), (1, later())]);
            assert!(
                matches!(step, Step::Rest(QueueUntil::Deferred(_))),
                "{step:?}"
            );
            story.now = story
                .state
                .recipients
                .iter()
                .filter_map(|recipient| match recipient.fate {
                    Fate::Pending { next } => Some(next),
                    _ => None,
                })
                .max()
                .unwrap();
        }
    }

    #[test]
    fn actions_of_an_operator() {
        let by = || By {
            by: "op".into(),
            reason: None,
        };
        let mut story = Story::new("s@z");
        let until = story.now + SignedDuration::from_hours(1);
        let step = story.acts(Action::Freeze {
            by: by(),
            until: Some(until),
            then: Then::Thaw,
        });
        assert_eq!(step, Step::Rest(QueueUntil::Frozen(Some(until))));
        story.now = until;
        assert_eq!(story.step(), Step::Thaw);
        story.acts(Action::Thaw(by()));
        let step = story.acts(Action::Bounce(by()));
        assert_eq!(step, story.bounce(&[0, 1]));

        let mut story = Story::new("s@z");
        let step = story.acts(Action::Discard { by: by(), until });
        assert_eq!(step, Step::Rest(QueueUntil::Discarded(until)));
        story.now = until;
        assert_eq!(story.step(), Step::Finish);
        assert_eq!(story.acts(Action::Retry(by())), Step::Attempt(vec![0, 1]));
    }

    #[test]
    fn a_retry_does_not_prevent_a_failure_notice() {
        for sender in ["s@z", ""] {
            let mut story = Story::new(sender);
            story.starts();
            story.ends(&[(0, never()), (1, ok())]);
            let step = match sender {
                "" => Step::Attempt(vec![0]),
                _ => story.bounce(&[0]),
            };
            let retry = Action::Retry(By::rule("why not"));
            assert_eq!(story.acts(retry), step, "{sender:?}");
        }
    }

    #[test]
    fn a_next_attempt_too_far_ahead_is_due() {
        let mut story = Story::new("s@z");
        story.starts();
        story.now = "2030-01-01T00:00:00Z".parse().unwrap();
        story.ends(&[(0, later()), (1, later())]);
        story.now = "2026-11-22T00:00:00Z".parse().unwrap();
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
    }

    #[test]
    fn a_failure_excluded_by_notify_finishes_the_message() {
        for wish in ["never", "success", "delay", "success,delay"] {
            let mut story = Story::new("s@z").wishing(wish, "");
            story.starts();
            assert_eq!(
                story.ends(&[(0, never()), (1, ok())]),
                Step::Finish,
                "{wish}"
            );
        }
        let mut story = Story::new("s@z").wishing("never", "");
        story.acts(Action::Bounce(By::rule("test")));
        assert_eq!(story.step(), story.bounce(&[1]));
        // The null sender has no failure notice that NOTIFY could exclude, so the message is frozen.
        let mut story = Story::new("").wishing("never", "");
        story.starts();
        let step = story.ends(&[(0, never()), (1, ok())]);
        assert!(matches!(step, Step::FreezeFailed(_)), "{step:?}");
    }

    #[test]
    fn a_success_notice_is_sent_if_requested_and_not_left_to_the_next_host() {
        let success = "success,failure";
        for (handover, tells) in [
            (Handover::Final, true),
            (Handover::Relayed, true),
            (Handover::PassedOn, false),
        ] {
            let mut story = Story::new("s@z").wishing(success, "failure");
            story.starts();
            let got = ok().handed(handover);
            let step = story.ends(&[(0, got.clone()), (1, got)]);
            if tells {
                assert_eq!(step, story.told(NoticeKind::Success, &[0]));
                assert_eq!(queue_until(&story.state), None);
                assert_eq!(story.is_told(NoticeKind::Success, &[0]), Step::Finish);
            } else {
                assert_eq!(step, Step::Finish)
            }
        }
        let mut story = Story::new("").wishing(success, success);
        story.starts();
        assert_eq!(story.ends(&[(0, ok()), (1, ok())]), Step::Finish);
    }

    #[test]
    fn failures_and_successes_of_one_attempt_are_two_notices() {
        let mut story = Story::new("s@z").wishing("success,failure", "success,failure");
        story.starts();
        assert_eq!(story.ends(&[(0, ok()), (1, never())]), story.bounce(&[1]));
        // A notice of one kind does not count for the other.
        assert_eq!(story.is_told(NoticeKind::Success, &[1]), story.bounce(&[1]));
        let step = story.is_told(NoticeKind::Bounce, &[0, 1]);
        assert_eq!(step, story.told(NoticeKind::Success, &[0]));
        assert_eq!(story.is_told(NoticeKind::Success, &[0]), Step::Finish);
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

    #[test]
    fn a_delay_notice_follows_a_due_attempt_and_excludes_finished_recipients() {
        let hours = SignedDuration::from_hours;
        let mut story = Story::new("s@z");
        story.delays = DelayAges::new([hours(4)]);
        story.starts();
        story.ends(&[(0, later()), (1, later())]);
        story.now += hours(9);
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
        story.starts();
        let step = story.ends(&[(0, ok()), (1, later())]);
        let warn = story.state.recipients[1].warn.unwrap();
        assert_eq!(warn, story.state.id.accepted() + hours(4));
        let occasion = Occasion {
            kind: NoticeKind::Delay,
            cause: warn,
            who: vec![1],
        };
        assert_eq!(step, Step::Notify(occasion));
        let step = story.is_told(NoticeKind::Delay, &[1]);
        assert!(
            matches!(step, Step::Rest(QueueUntil::Deferred(_))),
            "{step:?}"
        );
        // After a notice, none for the same age follows, even if the clock goes back.
        story.now = story.state.id.accepted() + hours(1);
        story.starts();
        story.ends(&[(1, later())]);
        assert_eq!(story.state.recipients[1].warn, None);

        // The null sender gets no notice, even if its history records one.
        let mut story = Story::new("");
        story.delays = DelayAges::new([hours(4)]);
        story.now += hours(5);
        story.starts();
        let step = story.ends(&[(0, later()), (1, later())]);
        assert!(
            matches!(step, Step::Rest(QueueUntil::Deferred(_))),
            "{step:?}"
        );
        let warn = Some(story.now);
        let recipients = vec![story.state.recipients[0].address.clone()];
        let outcome = recipient_result(
            &story.state,
            &recipients[0],
            None,
            later(),
            &story.schedule,
            &story.delays,
            story.now,
        );
        story.happens(What::Outcome {
            began: story.now,
            transport: None,
            results: vec![RecipientResult { warn, ..outcome }],
        });
        let step = story.happens(What::Notice {
            kind: NoticeKind::Delay,
            id: None,
            recipients,
            warn,
        });
        assert!(
            matches!(step, Step::Rest(QueueUntil::Deferred(_))),
            "{step:?}"
        );
    }
}
