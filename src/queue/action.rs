//! What an operator or a rule can do to a message.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What an operator or a rule can do to a message. Also the content of a request in `requests/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Action {
    /// Attempt delivery at once.
    Retry(By),
    /// Make no attempts until a time, or until a thaw.
    Freeze {
        /// The actor and the reason.
        #[serde(flatten)]
        by: By,
        /// When the freeze ends without a thaw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// What happens then.
        #[serde(default, skip_serializing_if = "Then::is_thaw")]
        then: Then,
    },
    /// End the freeze, and attempt delivery at once.
    Thaw(By),
    /// Remove it from the queue, and delete it at `until`.
    Discard {
        /// The actor and the reason.
        #[serde(flatten)]
        by: By,
        /// When it is deleted. Before that, the discard can be reversed.
        until: Timestamp,
    },
    /// Fail the pending recipients, and notify the sender.
    Bounce(By),
}

/// What happens at the end of a freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Attempts continue.
    #[default]
    Thaw,
    /// The message is deleted: it failed, and has no sender to notify.
    Discard,
}

impl Then {
    fn is_thaw(&self) -> bool {
        *self == Then::Thaw
    }
}

/// The actor of an action, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// A user's name, or `mailspool` for a rule.
    pub by: String,
    /// The reason given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Action {
    /// The actor and the reason.
    pub fn by(&self) -> &By {
        match self {
            Action::Retry(by) | Action::Thaw(by) | Action::Bounce(by) => by,
            Action::Freeze { by, .. } | Action::Discard { by, .. } => by,
        }
    }

    /// The name in files and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Action::Retry(_) => "retry",
            Action::Freeze { .. } => "freeze",
            Action::Thaw(_) => "thaw",
            Action::Discard { .. } => "discard",
            Action::Bounce(_) => "bounce",
        }
    }
}

impl By {
    /// Returns the actor for a rule of this program, with its reason.
    pub fn rule(reason: impl Into<String>) -> By {
        By {
            by: "mailspool".into(),
            reason: Some(reason.into()),
        }
    }
}
