//! When to try again: phases, jitter, the lifetime.
//!
//! A schedule is a list of ages. A message whose attempt fails at some age is tried again at
//! the next age in the list, so attempts by hand, late runners and restarts do not stretch or
//! shorten it, and nothing but the message's id is needed to know it.

use jiff::{SignedDuration, Timestamp};

use crate::message::QueueId;

/// A stretch of a message's life with its own rhythm.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The age at which the phase ends; the last phase's end is the lifetime.
    pub until: SignedDuration,
    /// The first delay of the phase.
    pub every: SignedDuration,
    /// Each further delay is this many times the one before (at least 1).
    pub factor: f64,
}

/// A list of phases, each ending later than the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    phases: Vec<Phase>,
    /// What the phases come to.
    ages: Vec<SignedDuration>,
}

/// Why phases make no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There are none.
    #[error("a retry schedule needs at least one phase")]
    Empty,
    /// A phase does not end after the one before it.
    #[error("each retry phase must end later than the one before")]
    Order,
    /// A delay under a minute, which buckets cannot express, or over the phase's end.
    #[error("a retry delay must be at least a minute")]
    Delay,
    /// More attempts than anybody would want.
    #[error(
        "the retry phases come to more than {} attempts",
        Schedule::MAX_ATTEMPTS
    )]
    TooMany,
    /// A factor under 1 or over 100.
    #[error("a retry factor must be between 1 and 100")]
    Factor,
}

/// Decides when a message is tried again. [`Schedule`] is the one the program uses; an
/// embedder may give another.
pub trait RetryPolicy: Send + Sync {
    /// The time of the next attempt for a message that was accepted at `accepted` (see
    /// [`QueueId::accepted`]) and has just, at `now`, failed temporarily for the
    /// `attempts`-th time; none to give up.
    fn next_attempt(&self, id: QueueId, attempts: u32, now: Timestamp) -> Option<Timestamp>;

    /// No delay this policy gives is longer. What is further ahead is due at once: only a
    /// clock that was wrong explains it.
    fn longest_delay(&self) -> SignedDuration;

    /// When a message is tried for the last time, if there is such a time: nothing is put off
    /// beyond it.
    fn last_attempt(&self, _id: QueueId) -> Option<Timestamp> {
        None
    }
}

impl Default for Schedule {
    /// Every 15 minutes for 2 hours; then from 15 minutes, each 1.5 times the one before,
    /// until 16 hours; then every 6 hours until 4 days.
    fn default() -> Schedule {
        let phase = |until, every, factor| Phase {
            until: SignedDuration::from_hours(until),
            every: SignedDuration::from_mins(every),
            factor,
        };
        let phases = vec![phase(2, 15, 1.0), phase(16, 15, 1.5), phase(96, 360, 1.0)];
        let ages = ages(&phases);
        Schedule { phases, ages }
    }
}

impl Schedule {
    /// Nothing is given up before this many attempts, however old it is: a spool that stood
    /// still for a week must not bounce what it tries for the first time.
    pub const MIN_ATTEMPTS: u32 = 3;

    /// No schedule has more attempts.
    const MAX_ATTEMPTS: usize = 10_000;

    /// Jitter adds at most this part of a delay.
    const JITTER: f64 = 0.1;

    /// A schedule of these phases.
    pub fn new(phases: Vec<Phase>) -> Result<Schedule, ScheduleError> {
        if phases.is_empty() {
            return Err(ScheduleError::Empty);
        }
        let mut end = SignedDuration::ZERO;
        for phase in &phases {
            if phase.until <= end {
                return Err(ScheduleError::Order);
            }
            end = phase.until;
            if phase.every < SignedDuration::from_mins(1) {
                return Err(ScheduleError::Delay);
            }
            if !(1.0..=100.0).contains(&phase.factor) {
                return Err(ScheduleError::Factor);
            }
        }
        let ages = ages(&phases);
        match ages.len() > Schedule::MAX_ATTEMPTS {
            true => Err(ScheduleError::TooMany),
            false => Ok(Schedule { phases, ages }),
        }
    }

    /// The phases.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The age at which a message is tried for the last time.
    pub fn lifetime(&self) -> SignedDuration {
        self.phases
            .last()
            .map_or(SignedDuration::ZERO, |phase| phase.until)
    }

    /// The ages at which a message is tried again, the lifetime last. A delay that would
    /// reach over the end of its phase is cut there.
    pub fn ages(&self) -> &[SignedDuration] {
        &self.ages
    }

    /// The next age after a failure at `age`, and the delay that leads to it. An age that is
    /// almost reached is passed over: a late attempt is not followed by one at once.
    fn after(&self, age: SignedDuration) -> Option<(SignedDuration, SignedDuration)> {
        let mut before = SignedDuration::ZERO;
        for next in self.ages.iter().copied() {
            let delay = next - before;
            before = next;
            let last = next == self.lifetime();
            if next > age && (last || next - age >= delay / 2) {
                return Some((next, delay));
            }
        }
        None
    }
}

fn ages(phases: &[Phase]) -> Vec<SignedDuration> {
    let mut ages = Vec::new();
    let mut age = SignedDuration::ZERO;
    for phase in phases {
        let mut delay = phase.every;
        while age < phase.until && ages.len() <= Schedule::MAX_ATTEMPTS {
            age = age.saturating_add(delay).min(phase.until);
            delay = times(delay, phase.factor);
            ages.push(age);
        }
    }
    ages
}

fn times(delay: SignedDuration, factor: f64) -> SignedDuration {
    let seconds = delay.as_secs_f64() * factor;
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
}

impl RetryPolicy for Schedule {
    fn next_attempt(&self, id: QueueId, attempts: u32, now: Timestamp) -> Option<Timestamp> {
        // A clock that ran backwards makes a message younger than new: it counts as new.
        let age = now.duration_since(id.accepted()).max(SignedDuration::ZERO);
        let Some((next, delay)) = self.after(age) else {
            let retry = attempts < Schedule::MIN_ATTEMPTS;
            return retry.then(|| now.saturating_add(self.phases[0].every).ok())?;
        };
        let spread = match next == self.lifetime() {
            true => SignedDuration::ZERO,
            false => {
                let most = delay.as_secs_f64() * Schedule::JITTER;
                SignedDuration::from_secs_f64(most * id.fraction(next.as_secs() as u64))
            }
        };
        let from = now.saturating_sub(age).ok()?;
        let time = from.saturating_add(next + spread).ok()?;
        Timestamp::from_second(time.as_second() + i64::from(time.subsec_nanosecond() > 0)).ok()
    }

    fn longest_delay(&self) -> SignedDuration {
        let mut before = SignedDuration::ZERO;
        let longest = self
            .ages
            .iter()
            .copied()
            .map(|age| age - std::mem::replace(&mut before, age))
            .max();
        // Half as much again: an attempt early in a delay waits for the next one, and jitter.
        // And the delay of one that is past its lifetime and was hardly tried.
        let longest = longest.unwrap_or_default().max(self.phases[0].every);
        longest + longest / 2 + longest / 10
    }

    fn last_attempt(&self, id: QueueId) -> Option<Timestamp> {
        id.accepted().saturating_add(self.lifetime()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_delay_is_longer_than_the_longest() {
        let mins = SignedDuration::from_mins;
        let phase = Phase {
            until: mins(1),
            every: mins(2),
            factor: 1.0,
        };
        let schedule = Schedule::new(vec![phase]).unwrap();
        let now = Timestamp::UNIX_EPOCH + mins(60);
        let id = QueueId::new(now, [1; 10]);
        let now = now + mins(5);
        let next = schedule.next_attempt(id, 1, now).unwrap();
        assert!(next.duration_since(now) <= schedule.longest_delay());
    }

    fn minutes(schedule: &Schedule) -> Vec<f64> {
        schedule
            .ages()
            .iter()
            .map(|age| age.as_secs_f64() / 60.0)
            .collect()
    }

    #[test]
    fn the_default_is_the_documented_one() {
        let ages = minutes(&Schedule::default());
        assert_eq!(
            ages[..8],
            [15.0, 30.0, 45.0, 60.0, 75.0, 90.0, 105.0, 120.0]
        );
        assert_eq!(ages[8..11], [135.0, 157.5, 191.25]);
        let late: Vec<f64> = ages
            .iter()
            .filter(|age| **age >= 960.0)
            .map(|age| age / 60.0)
            .collect();
        assert_eq!(late[..3], [16.0, 22.0, 28.0]);
        assert_eq!(late[late.len() - 2..], [94.0, 96.0]);
    }

    #[test]
    fn each_failure_leads_to_the_next_age_and_the_last_to_none() {
        let schedule = Schedule::default();
        let accepted: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let id = QueueId::new(accepted, [9; 10]);
        let (mut now, mut attempts) = (accepted, 0);
        let mut ages = Vec::new();
        loop {
            attempts += 1;
            let Some(next) = schedule.next_attempt(id, attempts, now) else {
                break;
            };
            assert!(next > now);
            assert!(next.duration_since(now) <= schedule.longest_delay());
            now = next;
            ages.push(now.duration_since(accepted));
        }
        assert_eq!(ages.len(), schedule.ages().len());
        for (real, ideal) in ages.iter().zip(schedule.ages().iter().copied()) {
            assert!(
                *real >= ideal && real.as_secs_f64() <= ideal.as_secs_f64() * 1.1,
                "{real} {ideal}"
            );
        }
        assert_eq!(*ages.last().unwrap(), schedule.lifetime());
    }

    #[test]
    fn what_was_never_tried_is_not_given_up_for_its_age() {
        let schedule = Schedule::default();
        let id = QueueId::new("2026-11-01T00:00:00Z".parse().unwrap(), [9; 10]);
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        let quarter = SignedDuration::from_mins(15);
        assert_eq!(schedule.next_attempt(id, 1, now), Some(now + quarter));
        assert_eq!(schedule.next_attempt(id, 2, now), Some(now + quarter));
        assert_eq!(schedule.next_attempt(id, 3, now), None);
    }

    #[test]
    fn a_clock_that_ran_backwards_does_no_harm() {
        let schedule = Schedule::default();
        let id = QueueId::new("2030-01-01T00:00:00Z".parse().unwrap(), [9; 10]);
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        let next = schedule.next_attempt(id, 1, now).unwrap();
        assert!(next.duration_since(now) <= SignedDuration::from_mins(17));
    }

    #[test]
    fn nonsense_is_refused() {
        let phase = |until, every, factor| Phase {
            until: SignedDuration::from_mins(until),
            every: SignedDuration::from_mins(every),
            factor,
        };
        assert_eq!(Schedule::new(vec![]), Err(ScheduleError::Empty));
        assert_eq!(
            Schedule::new(vec![phase(9, 1, 1.0), phase(9, 1, 1.0)]),
            Err(ScheduleError::Order)
        );
        assert_eq!(
            Schedule::new(vec![phase(9, 0, 1.0)]),
            Err(ScheduleError::Delay)
        );
        assert_eq!(
            Schedule::new(vec![phase(9, 1, 0.5)]),
            Err(ScheduleError::Factor)
        );
        assert!(Schedule::new(vec![phase(9, 1, 1.0)]).is_ok());
    }
}
