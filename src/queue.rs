//! The decisions of a queue, as pure functions: when to attempt again, by which transport, what an exit
//! status means, and what the next step for a message is. `now` is always an argument.

pub mod action;
pub mod bucket;
pub mod delay;
pub mod fold;
pub mod history;
pub mod outcome;
pub mod reply_rule;
pub mod result;
pub mod retry;
pub mod route;
pub mod schedule;
pub mod state;
pub mod step;
#[cfg(test)]
mod story;

pub use action::{Action, By, Then};
pub use bucket::Bucket;
pub use delay::DelayAges;
pub use fold::Fold;
#[cfg(feature = "testing")]
pub use history::HistoryError;
pub use history::{Event, History, RecipientResult, What};
pub use outcome::{Handover, Outcome, Status};
pub use reply_rule::{Glob, ReplyRule, StatusPattern};
pub use result::recipient_result;
pub use retry::{FailedAttempt, RetryPolicy, RetryScope, Schedules};
pub use route::{Pattern, Routes, Rule};
#[cfg(feature = "testing")]
pub use schedule::ScheduleError;
pub use schedule::{Phase, Rhythm, Schedule};
pub use state::{Hold, RecipientState, State};
pub use step::{Occasion, QueueUntil, Step, next_step};
