use super::*;
use crate::message::{Entrance, Submission};
use crate::queue::story::{Story, later};

#[test]
fn a_repeated_address_is_one_recipient() {
    let address = Address::parse("a@x").unwrap();
    let envelope = Envelope {
        sender: ReversePath::Null,
        recipients: vec![address.clone(), address],
        submission: Submission::by(Entrance::Active),
    };
    let state = State::new(QueueId::new(Timestamp::UNIX_EPOCH, [1; 10]), &envelope);
    assert_eq!(state.recipients.len(), 1);
}

#[test]
fn a_given_up_recipient_has_the_reason_and_the_last_reply_without_the_actor() {
    let by = |reason: Option<&str>| super::super::By {
        by: "root (by sudo: alice)".to_owned(),
        reason: reason.map(str::to_owned),
    };
    let server = Reply::of_server(450, "4.2.0".parse().ok(), "later", "mx.test");
    let own = Reply::local(EnhancedCode::new(4, 4, 1), "cannot connect");
    for (reason, last, told) in [
        (None, None, ""),
        (Some("wrong list"), None, ": wrong list"),
        (
            Some("wrong list"),
            Some(&server),
            ": wrong list; the last answer of mx.test was: 450 4.2.0 later",
        ),
        (
            None,
            Some(&own),
            "; the last answer was: 4.4.1 cannot connect",
        ),
    ] {
        let expected = format!("5.0.0 returned to the sender by the postmaster{told}");
        assert_eq!(given_up(&by(reason), last).to_string(), expected);
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
