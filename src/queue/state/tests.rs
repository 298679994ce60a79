use super::*;
use crate::message::{Entrance, Submission};

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
