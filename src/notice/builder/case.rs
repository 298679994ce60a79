//! A recipient's part of a notice.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::message::{Address, EnhancedCode, OriginalRecipient, Reply};
use crate::notice::{Action, Report, Reported};
use crate::queue::RecipientState;
use crate::queue::state::Fate;

/// A recipient of a report, with the data that the parts of a notice use.
pub(super) struct Case<'a> {
    pub address: &'a Address,
    pub original: Option<&'a OriginalRecipient>,
    pub action: Action,
    /// It failed because its time for delivery was over, not because of the reply.
    pub expired: bool,
    pub reply: Cow<'a, Reply>,
    pub status: EnhancedCode,
    pub attempts: u32,
    pub last_attempt: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl<'a> Case<'a> {
    pub fn of(reported: &Reported<'a>) -> Case<'a> {
        let Reported { state, action, .. } = *reported;
        let expired = matches!(state.fate, Fate::Failed { expired: true, .. });
        let reply = match &state.last {
            Some(reply) => Cow::Borrowed(reply),
            None => Cow::Owned(without_reply(action, state)),
        };
        Case {
            address: &state.address,
            original: reported.original,
            action,
            expired: expired && action == Action::Failed,
            status: status(action, expired, &reply),
            reply,
            attempts: state.attempts,
            last_attempt: state.last_attempt.as_ref().map(|(at, _)| *at),
            until: reported.until.filter(|_| action == Action::Delayed),
        }
    }
}

/// Returns the reply for a recipient without a finished attempt: a message may only have waited for the probe
/// of a destination that is down.
fn without_reply(action: Action, state: &RecipientState) -> Reply {
    let (class, words) = match action {
        Action::Failed => return Report::reply(state),
        Action::Delayed => (4, "no attempt has been made yet"),
        Action::Delivered | Action::Relayed => (2, ""),
    };
    Reply::local(EnhancedCode::new(class, 0, 0), words)
}

/// Returns the status, with the class that matches the action. If a temporary failure became final by the
/// message's age, that is RFC 3463's "delivery time expired".
fn status(action: Action, expired: bool, reply: &Reply) -> EnhancedCode {
    let class = match action {
        Action::Failed if expired => return EnhancedCode::new(4, 4, 7),
        Action::Failed => 5,
        Action::Delayed => 4,
        Action::Delivered | Action::Relayed => 2,
    };
    match reply.enhanced {
        Some(code) if code.class == class => code,
        // In a reply such as `550 4.2.2` the subject is right; the action determines the class.
        Some(code) if class != 2 && code.class != 2 => EnhancedCode { class, ..code },
        _ => EnhancedCode::new(class, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_goes_with_what_became_of_the_recipient() {
        for (action, expired, code, expected) in [
            (Action::Failed, false, Some("5.1.1"), "5.1.1"),
            (Action::Failed, false, Some("4.2.2"), "5.2.2"),
            (Action::Failed, false, Some("2.0.0"), "5.0.0"),
            (Action::Failed, false, None, "5.0.0"),
            (Action::Failed, true, Some("4.2.2"), "4.4.7"),
            (Action::Delayed, false, Some("4.7.1"), "4.7.1"),
            (Action::Delayed, false, None, "4.0.0"),
            (Action::Delivered, false, Some("2.1.5"), "2.1.5"),
            (Action::Relayed, false, Some("4.0.0"), "2.0.0"),
            (Action::Relayed, false, None, "2.0.0"),
        ] {
            let reply = Reply {
                code: None,
                enhanced: code.map(|code| code.parse().unwrap()),
                text: String::new(),
                remote: None,
                relay: None,
            };
            let status = status(action, expired, &reply).to_string();
            assert_eq!(status, expected, "{action:?} {code:?}");
        }
    }
}
