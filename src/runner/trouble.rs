//! Trouble: a failure to work on something is reported once, remembered for the run, and passed over.
//!
//! No number of messages, directories or requests that cannot be worked on ends a run; only a failure of
//! the spool itself does. After ten failures in a row, and then each time after twice as many, the run
//! tests the operations that every message needs ([`Spool::probe`]). If that test fails, nothing can
//! succeed, and the run ends; a watching run waits and continues.
//!
//! A corrupt message is moved to `corrupt/` once this run has read an intact message, or while `corrupt/`
//! holds fewer than ten. If the envelopes of all messages are missing, all look corrupt; then no more than
//! ten are moved, however many runs there are, and the others stay where they are.

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

/// The number of failures in a row after which the spool is tested. The next tests follow at twice that
/// number, and so on.
const FIRST_PROBE: u32 = 10;

/// While no intact message has been read, corrupt messages are moved to `corrupt/` until it holds this
/// many. Further ones stay where they are.
pub(super) const CORRUPT_LIMIT: usize = 10;

/// When a watching run looks again at what it could not work on. The pause doubles each time, up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The longest pause of a watching run while nothing at all succeeds.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// What a run could not work on.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Hashes of the reported texts.
    said: HashSet<u64>,
    messages: HashMap<QueueId, Passed>,
    /// Directories and requests.
    others: HashSet<PathBuf>,
    in_a_row: u32,
    next_probe: u32,
    /// An intact message was read.
    whole: bool,
    /// How many messages `corrupt/` held when this run first checked, plus those that it has moved there
    /// since.
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

/// The number of things that a run could not work on.
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

    /// Resets at the beginning of a run: the earlier failures may have been repaired.
    pub fn begin(&self) {
        *self.state() = State::default();
    }

    /// The messages that are not to be looked at yet.
    pub fn passed_over(&self, now: Instant) -> Vec<QueueId> {
        let state = self.state();
        let passed = state.messages.iter();
        let passed = passed.filter(|(_, message)| message.until > now);
        passed.map(|(id, _)| *id).collect()
    }

    /// When the first of them is to be looked at again.
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

    /// Takes the messages that look corrupt, if they may be moved by now.
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

    /// Notes that a message was worked on successfully.
    pub fn succeeded(&self, id: QueueId) {
        let mut state = self.state();
        state.messages.remove(&id);
        (state.in_a_row, state.next_probe, state.rests) = (0, 0, 0);
    }

    /// Notes that an intact message was read. From now on a corrupt message is at fault itself.
    pub fn read_whole(&self) {
        self.state().whole = true;
    }

    /// How long to wait after nothing succeeded. The pause doubles each time.
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
    /// Whether a text is reported for the first time.
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

    /// Counts a failure. Returns whether it is time to test the spool.
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
    /// Reports that a message could not be worked on. The message is where it was.
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

    /// Reports that a directory, or something else in the spool that is not a message, could not be read.
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

    /// Reports that an optional operation failed. Nothing depends on it, so it does not count as trouble.
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

    /// Whether a corrupt message may be moved to `corrupt/`. If not, it is remembered.
    pub(super) fn may_quarantine(&self, candidate: Candidate) -> bool {
        let known = self.troubles.state().in_corrupt;
        // If `corrupt/` cannot be listed, it is taken to be full.
        let in_corrupt = known.unwrap_or_else(|| {
            let there = self.spool.ids_in(Queue::Corrupt);
            there.map_or(CORRUPT_LIMIT, |ids| ids.len())
        });
        let mut state = self.troubles.state();
        let in_corrupt = state.in_corrupt.unwrap_or(in_corrupt);
        let may = state.whole || in_corrupt < CORRUPT_LIMIT;
        state.in_corrupt = Some(in_corrupt + usize::from(may));
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
