//! Trouble: what cannot be worked on is said once, remembered for the run, and passed over.
//!
//! No number of messages, directories or requests that cannot be worked on ends a run: only the spool
//! itself does. After ten troubles in a row, and then after twice as many each time, the run asks the
//! spool for what every message needs ([`Spool::probe`]). If that fails, nothing can succeed, and
//! the run ends; a watching one waits and goes on.
//!
//! A message that is corrupt is put into `corrupt/` once this run has read a whole one, or as long
//! as fewer than ten stand there. If the envelopes of all messages are away, all look corrupt, and
//! then no more than ten are moved, by however many runs; the others stay where they are.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::Candidate;
use super::{Core, Error, MessageOutcome};
use crate::disk;
use crate::message::QueueId;
use crate::spool::Queue;

/// After so many troubles in a row the spool is asked; beyond it, after twice as many each time.
const FIRST_PROBE: u32 = 10;

/// So many corrupt messages are moved without a whole one having been read.
pub(super) const CORRUPT_LIMIT: usize = 10;

/// A watching run looks again at what it could not work on after this time, then after twice as long
/// each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// So long at most a watching run waits when nothing at all succeeds.
#[cfg(feature = "cli")]
const LONGEST_REST: Duration = Duration::from_secs(300);

/// What a run could not work on.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Hashes of what has been said.
    said: HashSet<u64>,
    messages: HashMap<QueueId, Passed>,
    /// Directories and requests.
    others: HashSet<PathBuf>,
    in_a_row: u32,
    next_probe: u32,
    /// A message was read whole.
    whole: bool,
    /// What stood in `corrupt/` when this run first wanted to know, and what it has moved there since.
    in_corrupt: Option<usize>,
    /// Messages that look corrupt, left where they are.
    suspects: Vec<Candidate>,
    rests: u32,
}

/// When a message that could not be worked on is looked at again.
#[derive(Clone, Copy, Debug)]
struct Passed {
    pause: Duration,
    until: Instant,
}

/// What a run could not work on, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub messages: u64,
    pub others: u64,
    /// Messages that look corrupt and were not moved.
    pub suspects: usize,
}

impl Troubles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins: what the one before could not work on may have been mended.
    pub fn begin(&self) {
        *self.state() = State::default();
    }

    /// The messages that are not to be looked at yet.
    pub fn passed_over(&self, now: Instant) -> Vec<QueueId> {
        let state = self.state();
        let passed = state.messages.iter();
        let passed = passed.filter(|(_, one)| one.until > now);
        passed.map(|(id, _)| *id).collect()
    }

    /// When the first of them is looked at again.
    #[cfg(feature = "cli")]
    pub fn next_look(&self) -> Option<Instant> {
        let state = self.state();
        state.messages.values().map(|value| value.until).min()
    }

    pub fn count(&self) -> Count {
        let state = self.state();
        Count {
            messages: state.messages.len() as u64,
            others: state.others.len() as u64,
            suspects: state.suspects.len(),
        }
    }

    /// The messages that look corrupt, once they may be moved.
    pub fn take_suspects(&self) -> Vec<Candidate> {
        let mut state = self.state();
        if !state.whole {
            return Vec::new();
        }
        let suspects = std::mem::take(&mut state.suspects);
        for candidate in &suspects {
            state.messages.remove(&candidate.id);
        }
        suspects
    }

    /// A message was worked on to its end.
    pub fn succeeded(&self, id: QueueId) {
        let mut state = self.state();
        state.messages.remove(&id);
        (state.in_a_row, state.next_probe, state.rests) = (0, 0, 0);
    }

    /// A message was read whole: those that are corrupt are so by themselves.
    pub fn read_whole(&self) {
        self.state().whole = true;
    }

    /// How long to wait now that nothing succeeds: longer each time.
    #[cfg(feature = "cli")]
    pub fn rest(&self) -> Duration {
        let mut state = self.state();
        let rest = FIRST_PAUSE.saturating_mul(1 << state.rests.min(16));
        state.rests += 1;
        (state.in_a_row, state.next_probe) = (0, 0);
        state.suspects.clear();
        rest.min(LONGEST_REST)
    }
}

impl State {
    /// Whether a text is said for the first time.
    fn is_news(&mut self, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.said.insert(hasher.finish())
    }

    fn pass_over(&mut self, id: QueueId) {
        let now = Instant::now();
        let pause = match self.messages.get(&id) {
            Some(before) => (before.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let until = now + pause;
        self.messages.insert(id, Passed { pause, until });
    }

    /// Whether it is time to ask the spool.
    fn is_probe_due(&mut self) -> bool {
        self.in_a_row += 1;
        let due = self.next_probe.max(FIRST_PROBE);
        if self.in_a_row < due {
            return false;
        }
        self.next_probe = due.saturating_mul(2);
        true
    }
}

impl Core {
    /// A message could not be worked on; it is where it was.
    pub(super) fn trouble(&self, id: QueueId, text: &str) -> MessageOutcome {
        let mut state = self.troubles.state();
        state.pass_over(id);
        let (news, probe) = (state.is_news(text), state.is_probe_due());
        drop(state);
        if news {
            tracing::error!(%id, error = text, "not worked on")
        } else {
            tracing::debug!(%id, error = text, "not worked on")
        }
        self.probe_if(probe, text);
        MessageOutcome::Trouble(text.to_owned())
    }

    /// A directory could not be read, or something else of the spool that is no message.
    pub(super) fn unread(&self, error: &disk::Error, what: &str) {
        let text = error.to_string();
        let mut state = self.troubles.state();
        state.others.insert(error.path().to_owned());
        let news = state.is_news(&text);
        drop(state);
        if news {
            tracing::error!(error = text, "{what}")
        } else {
            tracing::debug!(error = text, "{what}")
        }
    }

    /// A help could not be had. Nothing depends on it, so it is said, and is no trouble.
    pub(super) fn without(&self, error: &disk::Error, what: &str) {
        let text = error.to_string();
        if self.troubles.state().is_news(&text) {
            tracing::warn!(error = text, "{what}");
        }
    }

    fn probe_if(&self, due: bool, text: &str) {
        if due && let Err(error) = self.spool.probe() {
            tracing::error!(%error, "nothing can be worked on");
            self.fail(Error::TooMuchTrouble(text.to_owned()));
        }
    }

    /// Whether a message that is corrupt may be moved to `corrupt/`; if not, it is remembered.
    pub(super) fn may_quarantine(&self, candidate: Candidate) -> bool {
        let known = self.troubles.state().in_corrupt;
        // What cannot be listed has no room.
        let standing = known.unwrap_or_else(|| {
            let there = self.spool.ids_in(Queue::Corrupt);
            there.map_or(CORRUPT_LIMIT, |ids| ids.len())
        });
        let mut state = self.troubles.state();
        let standing = state.in_corrupt.unwrap_or(standing);
        let may = state.whole || standing < CORRUPT_LIMIT;
        state.in_corrupt = Some(standing + usize::from(may));
        if !may {
            state.pass_over(candidate.id);
            state.suspects.push(candidate);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spool_is_asked_less_and_less_often() {
        let mut state = State::default();
        let due = (1..=100).filter(|_| state.is_probe_due());
        assert_eq!(due.collect::<Vec<_>>(), [10, 20, 40, 80]);
    }

    #[test]
    fn what_is_passed_over_is_looked_at_again_later_and_later() {
        let id = QueueId::new(jiff::Timestamp::UNIX_EPOCH, [1; 10]);
        let mut state = State::default();
        for seconds in [1, 2, 4, 8] {
            state.pass_over(id);
            assert_eq!(state.messages[&id].pause, Duration::from_secs(seconds));
        }
        for _ in 0..20 {
            state.pass_over(id);
        }
        assert_eq!(state.messages[&id].pause, LONGEST_PAUSE);
        let troubles = Troubles(Mutex::new(state));
        assert_eq!(troubles.passed_over(Instant::now()), [id]);
        troubles.succeeded(id);
        assert_eq!(troubles.passed_over(Instant::now()), []);
    }
}
