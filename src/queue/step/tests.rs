use super::*;
use crate::message::NoticeKind;
use crate::queue::story::{Story, later, never, ok};
use crate::queue::{
    By, DelayAges, Handover, Outcome, RecipientResult, RetryPolicy, Status, What, recipient_result,
};

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
        let all: Vec<_> = these
            .into_iter()
            .map(|n| (n, Outcome::interrupted()))
            .collect();
        let Step::Rest(QueueUntil::Deferred(next)) = story.ends_by(None, &all) else {
            panic!()
        };
        assert!(next > story.now);
        story.now = next;
    }
    story.starts();
    let step = story.ends_by(
        None,
        &[(0, Outcome::interrupted()), (1, Outcome::interrupted())],
    );
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
        let step = story.ends(&[(0, Outcome::interrupted()), (1, later())]);
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
        recipients: vec![1],
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
