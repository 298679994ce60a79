//! What comes next for a message: a value that whoever holds its lock carries out.

use jiff::{SignedDuration, Timestamp};

use super::state::Fate;
use super::{
    Action, DelayAges, FailedAttempt, Handover, Hold, Outcome, RecipientResult, RecipientState,
    RetryPolicy, State, Status, Then,
};
use crate::message::{Address, EnhancedCode, NoticeKind, ReversePath};

/// The next step. Recipients are given by their place in [`State::recipients`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try these.
    Attempt(Vec<usize>),
    /// Record that these were begun and never ended.
    Interrupted(Vec<usize>),
    /// Tell the sender.
    Notify(Occasion),
    /// Record that the message is frozen by rule, with this reason, until a person lets it go.
    Freeze(String),
    /// Record that it is frozen by rule because it failed, for this reason, and there is nobody to
    /// tell. If nobody looks at it in a long time, it is discarded.
    FreezeFailed(String),
    /// Record that a freeze has run out.
    Thaw,
    /// Let it rest there.
    Rest(QueueUntil),
    /// Nothing is left to do: forget it.
    Finish,
}

/// What there is to tell a sender, in one notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// What.
    pub kind: NoticeKind,
    /// When the cause came about: the beginning of an attempt, an operator's action, or the age
    /// at which a delay is told. The notice's id is made of it.
    pub cause: Timestamp,
    /// About whom.
    pub who: Vec<usize>,
}

/// Where a message rests, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueUntil {
    /// In `deferred/`, until its next attempt, or until its sender is told that it takes long.
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
    // What is far ahead is a clock's mistake, unless the submitter wanted it so.
    let from = state.release.map_or(now, |release| release.max(now));
    let due = |next: Timestamp| next <= now || next.duration_since(from) > longest_delay;
    // What was accepted, or released by hand, is due at once, even if the clock was ahead then.
    let at_once = |next: Timestamp| next == state.begin && state.release.is_none();
    let is_ready =
        |fate: &Fate| matches!(fate, Fate::Pending { next } if due(*next) || at_once(*next));
    let ready = these(&is_ready);
    // An attempt is only made for recipients who are due: where none is, nothing was interrupted.
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
    // Behind an attempt that is due: it may be delivered.
    if let Some(occasion) = overdue(state, now) {
        return Step::Notify(occasion);
    }
    if let Some(next) = state.next_due() {
        return Step::Rest(QueueUntil::Deferred(next));
    }
    if state.recipients.iter().any(RecipientState::is_untold) {
        return Step::FreezeFailed(nobody_to_tell(state));
    }
    Step::Finish
}

/// Whether a message waits for its release and for nothing else.
pub fn awaits_release(state: &State, now: Timestamp) -> bool {
    state.hold == Hold::None && state.release.is_some_and(|release| release > now)
}

/// Why an action makes no sense for a message, which may stand in `frozen/` without a freeze in its
/// history. Asked of every action, whenever it is carried out.
pub fn refusal(state: &State, stands_frozen: bool, action: &Action) -> Option<&'static str> {
    let is_frozen = stands_frozen || matches!(state.hold, Hold::Frozen { .. });
    let is_discarded = matches!(state.hold, Hold::Discarded { .. });
    match action {
        Action::Thaw(_) if !is_frozen => Some("it is not frozen"),
        Action::Freeze { .. } | Action::Bounce(_) | Action::Discard { .. } if is_discarded => {
            Some("it is discarded already; `mailspool retry` takes it back")
        }
        Action::Bounce(_) if state.sender.mailbox().is_none() => {
            Some("it has the null sender: there is nobody to tell; `mailspool discard` it")
        }
        Action::Bounce(_) if !state.recipients.iter().any(|recipient| recipient.is_left()) => {
            Some("nobody is left to bounce it for")
        }
        _ => None,
    }
}

/// Why a message is frozen of which recipients failed: what happened last.
fn nobody_to_tell(state: &State) -> String {
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

/// Where a message rests by its history alone, whatever the time is; none while there is
/// something to be done before it can rest.
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

/// What failed, or was delivered, and is to be told. One cause, one notice: those who failed, or
/// have it, by the same attempt as the first of them, or by the same action. All of an attempt's
/// outcomes are recorded before anybody is told, so who is meant cannot change while a notice is
/// under way.
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
    let who = all.filter(|(_, one)| cause(one) == Some(first));
    Some(Occasion {
        kind: first.1,
        cause: first.0,
        who: who.map(|(n, _)| n).collect(),
    })
}

/// The recipients that wait, and of whom the sender is to be told by now that it takes long.
pub fn overdue(state: &State, now: Timestamp) -> Option<Occasion> {
    let time = |recipient: &RecipientState| match recipient.fate {
        Fate::Pending { .. } => recipient.warn.filter(|warn| *warn <= now),
        _ => None,
    };
    let all = || state.recipients.iter().enumerate();
    let who = all().filter(|(_, one)| time(one).is_some());
    Some(Occasion {
        kind: NoticeKind::Delay,
        cause: all().filter_map(|(_, one)| time(one)).max()?,
        who: who.map(|(n, _)| n).collect(),
    })
}

/// When the sender is told that a recipient takes long who has an outcome now; none if he does not
/// want to be.
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

/// What an outcome means for a recipient's future: when it is tried again, or that its time
/// is up; and when its sender is told that it takes long. `transport` is by whose schedule it goes,
/// if its domain has none of its own.
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

/// What a retry policy is told of an outcome that has just come about and is not recorded yet.
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

/// The outcome of an attempt that nobody saw the end of.
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

        /// Accepted at the beginning, and to be released so much later.
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

        /// What is asked of the first recipient and of the second.
        fn wishing(mut self, first: &str, second: &str) -> Story {
            for (recipient, text) in self.state.recipients.iter_mut().zip([first, second]) {
                recipient.dsn.notify = (!text.is_empty()).then(|| text.parse().unwrap());
            }
            self
        }

        /// The step that tells of these, whose attempt began now.
        fn told(&self, kind: NoticeKind, who: &[usize]) -> Step {
            Step::Notify(Occasion {
                kind,
                cause: self.now,
                who: who.to_vec(),
            })
        }

        fn bounce(&self, who: &[usize]) -> Step {
            self.told(NoticeKind::Bounce, who)
        }

        fn is_told(&mut self, kind: NoticeKind, who: &[usize]) -> Step {
            let recipients = who
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

        /// By no transport: whoever finds it later says what became of it.
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
            // As the next holder does who finds the mark of the attempt.
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
    fn recipients_go_their_own_ways() {
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
    fn the_end_of_the_lifetime_is_a_failure_that_is_told() {
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
        panic!("it never ends");
    }

    #[test]
    fn what_is_for_later_rests_until_then_and_begins_then() {
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
        // Behind the release what is too far ahead is a clock's mistake again.
        story.now = release - month;
        assert_eq!(story.step(), Step::Rest(QueueUntil::Deferred(next)));
        story.now = next - story.schedule.longest_delay() - SignedDuration::from_hours(1);
        assert!(story.now < release);
        assert_eq!(story.step(), Step::Rest(QueueUntil::Deferred(next)));
    }

    /// So far ahead was the clock when a message was accepted, or released by hand; then it is
    /// right. The message expires as if it had been accepted at the correction, and is tried at
    /// once.
    #[test]
    fn a_clock_that_was_ahead_gives_no_longer_life() {
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

    /// The time that is believed is that of the first thing that happened by a clock which was not
    /// ahead; a clock that stood in the past for a moment makes no message old.
    #[test]
    fn a_clock_that_was_behind_makes_no_message_old() {
        let hours = SignedDuration::from_hours;
        let mut story = Story::new("s@z");
        let (accepted, past) = (story.now, Timestamp::UNIX_EPOCH);
        story.now = past;
        story.starts();
        story.ends(&[(0, later()), (1, later())]);
        assert_eq!(story.state.begins(past + hours(1)), past);
        assert_eq!(story.state.begins(accepted + hours(1)), accepted);
        // Ahead twice, and each time corrected by some.
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
    fn a_retry_releases_and_its_lifetime_begins_then() {
        let mut story = Story::released("s@z", Some(SignedDuration::from_hours(48)));
        story.now += SignedDuration::from_hours(1);
        let retry = Action::Retry(By::rule("because"));
        assert_eq!(story.acts(retry), Step::Attempt(vec![0, 1]));
        assert_eq!((story.state.begin, story.state.release), (story.now, None));
        // So far ahead only a clock's mistake explains it.
        story.starts();
        story.ends(&[(0, later()), (1, later())]);
        story.now -= SignedDuration::from_hours(24);
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
    }

    #[test]
    fn a_null_sender_is_never_told_but_frozen() {
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

    /// What failed and can be told to nobody is kept for a time. Whoever lets it go has it begin
    /// anew, and an operator who freezes it has said that it stays.
    #[test]
    fn what_failed_for_a_null_sender_ends_unless_somebody_looks() {
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
    fn a_time_that_is_up_is_the_reason_of_a_freeze() {
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

    /// A transport that loses every answer is no poison: nobody died of it.
    #[test]
    fn answers_that_are_lost_freeze_nothing() {
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
    fn an_end_that_was_seen_resets_the_count() {
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
    fn a_failure_that_can_be_told_is_told_whoever_retries() {
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
    fn a_next_attempt_absurdly_far_ahead_is_due() {
        let mut story = Story::new("s@z");
        story.starts();
        story.now = "2030-01-01T00:00:00Z".parse().unwrap();
        story.ends(&[(0, later()), (1, later())]);
        story.now = "2026-11-22T00:00:00Z".parse().unwrap();
        assert_eq!(story.step(), Step::Attempt(vec![0, 1]));
    }

    #[test]
    fn a_failure_that_nobody_wants_to_hear_of_is_no_reason_to_stay() {
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
        // Nobody gets what is returned to the null sender, whatever he wanted.
        let mut story = Story::new("").wishing("never", "");
        story.starts();
        let step = story.ends(&[(0, never()), (1, ok())]);
        assert!(matches!(step, Step::FreezeFailed(_)), "{step:?}");
    }

    #[test]
    fn a_success_is_told_to_who_asks_unless_the_next_host_tells() {
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
        // A notice of one kind says nothing of the other.
        assert_eq!(story.is_told(NoticeKind::Success, &[1]), story.bounce(&[1]));
        let step = story.is_told(NoticeKind::Bounce, &[0, 1]);
        assert_eq!(step, story.told(NoticeKind::Success, &[0]));
        assert_eq!(story.is_told(NoticeKind::Success, &[0]), Step::Finish);
    }

    #[test]
    fn a_delay_is_told_once_at_each_age_to_who_may_hear_of_it() {
        let hours = SignedDuration::from_hours;
        for (first, second, who) in [
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
                        assert_eq!(step, story.told(NoticeKind::Delay, who));
                        told.push(story.now.duration_since(start));
                        story.is_told(NoticeKind::Delay, who);
                    }
                }
            }
            let ages: &[_] = if who.is_empty() {
                &[]
            } else {
                story.delays.ages()
            };
            assert_eq!(told, ages, "{first} {second}");
        }
    }

    #[test]
    fn a_delay_is_told_behind_an_attempt_that_is_due_and_never_of_what_is_done() {
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
        // Once told, it stays told, whatever the clock does.
        story.now = story.state.id.accepted() + hours(1);
        story.starts();
        story.ends(&[(1, later())]);
        assert_eq!(story.state.recipients[1].warn, None);

        // The null sender is told nothing, not even where a history says so.
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
