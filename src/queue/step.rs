//! The next step for a message, as a value. The process that holds the message's lock carries it out.

use jiff::{SignedDuration, Timestamp};

use super::state::Fate;
use super::{Action, Hold, RecipientState, State, Then};
use crate::message::{NoticeKind, ReversePath};

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
    pub recipients: Vec<usize>,
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
        all.filter(|(_, recipient)| wanted(&recipient.fate))
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
    match last.and_then(|recipient| recipient.last.as_ref()) {
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
    let recipients = all.filter(|(_, recipient)| cause(recipient) == Some(first));
    Some(Occasion {
        kind: first.1,
        cause: first.0,
        recipients: recipients.map(|(n, _)| n).collect(),
    })
}

/// Returns the delay notice that is due for pending recipients, if any.
pub fn overdue(state: &State, now: Timestamp) -> Option<Occasion> {
    let time = |recipient: &RecipientState| match recipient.fate {
        Fate::Pending { .. } => recipient.warn.filter(|warn| *warn <= now),
        _ => None,
    };
    let all = || state.recipients.iter().enumerate();
    let recipients = all().filter(|(_, recipient)| time(recipient).is_some());
    Some(Occasion {
        kind: NoticeKind::Delay,
        cause: all().filter_map(|(_, recipient)| time(recipient)).max()?,
        recipients: recipients.map(|(n, _)| n).collect(),
    })
}

#[cfg(test)]
mod tests;
