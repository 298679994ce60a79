//! When to attempt again: a rhythm, jitter, a cap and a lifetime.
//!
//! A schedule is a list of ages. If an attempt fails at some age, the next one is made at the next age in
//! the list. So attempts by an operator, late runners and restarts do not stretch or shorten the schedule.
//! It depends on nothing but the message's id.

use jiff::{SignedDuration, Timestamp};

use super::retry::{FailedAttempt, RetryPolicy};

/// A part of a message's lifetime with a separate rhythm.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The age at which the phase ends; the last phase's end is the lifetime.
    pub until: SignedDuration,
    /// The first delay of the phase.
    pub every: SignedDuration,
    /// The ratio of each further delay to the one before (at least 1).
    pub factor: f64,
}

/// The sequence of delays.
#[derive(Clone, Debug, PartialEq)]
pub enum Rhythm {
    /// Phases, each ending later than the one before. A delay that would exceed the end of its phase is cut
    /// there.
    Phases(Vec<Phase>),
    /// A list of delays. The last one is repeated.
    Delays(Vec<SignedDuration>),
}

/// The ages at which a message is attempted again. As a [`RetryPolicy`] it applies to all mail;
/// [`Schedules`](super::Schedules) distinguishes domains, transports and senders.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    rhythm: Rhythm,
    jitter: f64,
    cap: Option<SignedDuration>,
    lifetime: SignedDuration,
    /// The resulting ages.
    ages: Vec<SignedDuration>,
}

/// Why a schedule is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No phases or no delays.
    #[error("a retry schedule needs at least one phase or delay")]
    Empty,
    /// A phase does not end after the one before it.
    #[error("each retry phase must end later than the one before")]
    Order,
    /// A delay of less than a minute, which buckets cannot express.
    #[error("a retry delay must be at least a minute")]
    Delay,
    /// More attempts than [`Schedule::MAX_ATTEMPTS`].
    #[error(
        "the retry schedule comes to more than {} attempts",
        Schedule::MAX_ATTEMPTS
    )]
    TooMany,
    /// A factor of less than 1 or more than 100.
    #[error("a retry factor must be between 1 and 100")]
    Factor,
    /// A cap of less than a minute.
    #[error("a cap must be at least a minute")]
    Cap,
    /// Jitter outside 0 to 1.
    #[error("jitter is a part of a delay, from 0 to 1")]
    Jitter,
    /// A lifetime of less than a minute or more than a hundred years.
    #[error("a lifetime must be between a minute and a hundred years")]
    Lifetime,
}

impl Default for Schedule {
    /// Every 15 minutes for 2 hours; then from 15 minutes, each delay 1.5 times the one before, until 16
    /// hours; then every 6 hours until 4 days.
    fn default() -> Schedule {
        let phase = |until, every, factor| Phase {
            until: SignedDuration::from_hours(until),
            every: SignedDuration::from_mins(every),
            factor,
        };
        let phases = vec![phase(2, 15, 1.0), phase(16, 15, 1.5), phase(96, 360, 1.0)];
        let schedule = Schedule {
            rhythm: Rhythm::Phases(phases),
            jitter: Schedule::JITTER,
            cap: None,
            lifetime: SignedDuration::from_hours(96),
            ages: Vec::new(),
        };
        schedule.counted()
    }
}

impl Schedule {
    /// The number of attempts before which no message is given up, regardless of its age. Otherwise a spool
    /// that was idle for a week would bounce a message at its first attempt.
    pub const MIN_ATTEMPTS: u32 = 3;

    /// The most attempts of a schedule; a longer one is refused.
    pub const MAX_ATTEMPTS: usize = 10_000;

    /// The default jitter: up to this part of a delay is added to it.
    pub const JITTER: f64 = 0.1;

    /// The shortest delay; a shorter one is refused, because buckets are minutes.
    pub const SHORTEST: SignedDuration = SignedDuration::from_mins(1);

    /// The longest lifetime, a hundred years of 365 days; a longer one is refused.
    pub const LONGEST_LIFETIME: SignedDuration = SignedDuration::from_hours(100 * 365 * 24);

    /// Returns a schedule of these phases. The lifetime is the end of the last one.
    #[cfg(feature = "testing")]
    pub fn new(phases: Vec<Phase>) -> Result<Schedule, ScheduleError> {
        let rhythm = Rhythm::Phases(phases);
        Schedule::from_parts(rhythm, None, None, Schedule::JITTER)
    }

    /// Returns a schedule of these delays. The last one is repeated until the end of the lifetime.
    /// `[5 min, 15 min, 1 h]` gives the ages 5 min, 20 min, 1 h 20 min, 2 h 20 min and so on.
    pub fn of_delays(
        delays: Vec<SignedDuration>,
        lifetime: SignedDuration,
    ) -> Result<Schedule, ScheduleError> {
        let rhythm = Rhythm::Delays(delays);
        Schedule::from_parts(rhythm, Some(lifetime), None, Schedule::JITTER)
    }

    /// Returns a schedule of all its parts.
    ///
    /// Without a lifetime, the lifetime is the end of the last phase. With one, phases that begin later are
    /// dropped, and the last one ends with the lifetime. No delay exceeds the cap, including jitter.
    /// Jitter, from 0 to 1, is the largest part of a delay that is added to it. The added part depends on
    /// the message only.
    pub fn from_parts(
        rhythm: Rhythm,
        lifetime: Option<SignedDuration>,
        cap: Option<SignedDuration>,
        jitter: f64,
    ) -> Result<Schedule, ScheduleError> {
        let end = match &rhythm {
            Rhythm::Phases(phases) => phases.last().map(|last| last.until),
            Rhythm::Delays(_) => None,
        };
        let schedule = Schedule {
            lifetime: lifetime.or(end).unwrap_or_default(),
            rhythm,
            jitter,
            cap,
            ages: Vec::new(),
        };
        schedule.checked()
    }

    /// Replaces the jitter.
    #[cfg(feature = "testing")]
    pub fn with_jitter(self, jitter: f64) -> Result<Schedule, ScheduleError> {
        Schedule { jitter, ..self }.checked()
    }

    /// Replaces the cap.
    #[cfg(feature = "testing")]
    pub fn with_cap(self, cap: SignedDuration) -> Result<Schedule, ScheduleError> {
        let cap = Some(cap);
        Schedule { cap, ..self }.checked()
    }

    /// Replaces the lifetime.
    #[cfg(feature = "testing")]
    pub fn with_lifetime(self, lifetime: SignedDuration) -> Result<Schedule, ScheduleError> {
        Schedule { lifetime, ..self }.checked()
    }

    /// Ends the schedule at this age, if it does not end earlier. At age zero there is no second attempt.
    pub fn ended_at(&self, age: SignedDuration) -> Schedule {
        let lifetime = self.lifetime.min(age).max(SignedDuration::ZERO);
        let mut ages = self.ages.clone();
        if lifetime < self.lifetime {
            ages.retain(|age| *age < lifetime);
            ages.extend((lifetime > SignedDuration::ZERO).then_some(lifetime));
        }
        Schedule {
            lifetime,
            ages,
            ..self.clone()
        }
    }

    /// Computes the ages, up to one more than allowed. The loop ends, because each delay is at least a
    /// minute.
    fn counted(mut self) -> Schedule {
        let cap = self.cap.unwrap_or(SignedDuration::MAX);
        let mut ages = Ages {
            ages: Vec::new(),
            end: self.lifetime,
        };
        match &self.rhythm {
            Rhythm::Phases(phases) => {
                for (n, phase) in phases.iter().enumerate() {
                    let mut delay = phase.every;
                    let until = if n + 1 == phases.len() {
                        self.lifetime
                    } else {
                        phase.until
                    };
                    while ages.add(delay.min(cap), until) {
                        delay = times(delay, phase.factor);
                    }
                }
            }
            Rhythm::Delays(delays) => {
                let last = delays.last().copied().into_iter().cycle();
                for delay in delays.iter().copied().chain(last) {
                    if !ages.add(delay.min(cap), self.lifetime) {
                        break;
                    }
                }
            }
        }
        self.ages = ages.ages;
        self
    }

    fn checked(self) -> Result<Schedule, ScheduleError> {
        let long_enough = |delay: &SignedDuration| *delay >= Schedule::SHORTEST;
        let is_empty = match &self.rhythm {
            Rhythm::Phases(phases) => phases.is_empty(),
            Rhythm::Delays(delays) => delays.is_empty(),
        };
        if is_empty {
            return Err(ScheduleError::Empty);
        }
        if !(Schedule::SHORTEST..=Schedule::LONGEST_LIFETIME).contains(&self.lifetime) {
            return Err(ScheduleError::Lifetime);
        }
        match &self.rhythm {
            Rhythm::Phases(phases) => {
                let mut end = SignedDuration::ZERO;
                for phase in phases {
                    if phase.until <= end {
                        return Err(ScheduleError::Order);
                    }
                    end = phase.until;
                    if !long_enough(&phase.every) {
                        return Err(ScheduleError::Delay);
                    }
                    if !(1.0..=100.0).contains(&phase.factor) {
                        return Err(ScheduleError::Factor);
                    }
                }
            }
            Rhythm::Delays(delays) if !delays.iter().all(long_enough) => {
                return Err(ScheduleError::Delay);
            }
            Rhythm::Delays(_) => {}
        }
        if !self.cap.iter().all(long_enough) {
            return Err(ScheduleError::Cap);
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ScheduleError::Jitter);
        }
        let counted = self.counted();
        if counted.ages.len() > Schedule::MAX_ATTEMPTS {
            Err(ScheduleError::TooMany)
        } else {
            Ok(counted)
        }
    }

    /// The sequence of delays.
    pub fn rhythm(&self) -> &Rhythm {
        &self.rhythm
    }

    /// The largest part of a delay that is added to it.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// The longest allowed delay, if set.
    pub fn cap(&self) -> Option<SignedDuration> {
        self.cap
    }

    /// The age of the last attempt.
    pub fn lifetime(&self) -> SignedDuration {
        self.lifetime
    }

    /// The ages of the attempts after the first, ending with the lifetime.
    pub fn ages(&self) -> &[SignedDuration] {
        &self.ages
    }

    /// The ages, each with the latest age that jitter can give it.
    pub fn attempts(&self) -> impl Iterator<Item = (SignedDuration, SignedDuration)> {
        let mut before = SignedDuration::ZERO;
        self.ages.iter().copied().map(move |age| {
            let delay = age - std::mem::replace(&mut before, age);
            let most = self.capped(delay.saturating_add(times(delay, self.jitter)));
            if age == self.lifetime {
                (age, age)
            } else {
                (age, (age - delay + most).min(self.lifetime))
            }
        })
    }

    /// The number of attempts that must fail before a message is given up: three, or all attempts of the
    /// schedule if it has fewer.
    pub fn min_attempts(&self) -> u32 {
        let all = u32::try_from(self.ages.len()).unwrap_or(u32::MAX);
        all.saturating_add(1).min(Schedule::MIN_ATTEMPTS)
    }

    /// Returns the time of the next attempt: after `delay` if given, otherwise at the next age. Returns
    /// `None` to give up.
    pub(super) fn next(
        &self,
        failed: &FailedAttempt<'_>,
        delay: Option<SignedDuration>,
    ) -> Option<Timestamp> {
        let age = failed.age();
        let wait = if age >= self.lifetime {
            let first = self.ages.first().copied()?;
            (failed.attempts < self.min_attempts()).then_some(first)?
        } else {
            let left = self.lifetime - age;
            let (wait, spread) = match delay {
                Some(delay) => (delay, delay),
                None => self.after(age).map(|(next, delay)| (next - age, delay))?,
            };
            // An attempt at the end of the lifetime is neither later nor earlier.
            let salt = age.saturating_add(wait).as_secs().unsigned_abs();
            let spread = times(spread, self.jitter * failed.id.fraction(salt));
            self.capped(wait.saturating_add(spread)).min(left)
        };
        let time = failed.now.saturating_add(wait).ok()?;
        Timestamp::from_second(time.as_second() + i64::from(time.subsec_nanosecond() > 0)).ok()
    }

    /// Returns the next age after a failure at `age`, and the delay before it. Skips an age that is almost
    /// reached, so that a late attempt is not followed by another at once.
    fn after(&self, age: SignedDuration) -> Option<(SignedDuration, SignedDuration)> {
        let mut before = SignedDuration::ZERO;
        for next in self.ages.iter().copied() {
            let delay = next - before;
            before = next;
            let last = next == self.lifetime;
            if next > age && (last || next - age >= delay / 2) {
                return Some((next, delay));
            }
        }
        None
    }

    fn capped(&self, delay: SignedDuration) -> SignedDuration {
        self.cap.map_or(delay, |cap| delay.min(cap))
    }

    /// Returns an upper limit for the delays of this schedule, and for `delay` with jitter.
    pub(super) fn furthest(&self, delay: Option<SignedDuration>) -> SignedDuration {
        let mut before = SignedDuration::ZERO;
        let all = self.ages.iter().copied();
        let delays = all.map(|age| age - std::mem::replace(&mut before, age));
        let longest = delays.max().unwrap_or_default();
        // Up to half a delay is added: an attempt early in a delay waits for the next age. Jitter is added,
        // too.
        let ours = longest + longest / 2 + times(longest, self.jitter);
        let other = delay.map(|delay| delay.saturating_add(times(delay, self.jitter)));
        // Times are rounded up to a second, so a minute is added, which does no harm.
        let most = ours.max(other.unwrap_or_default());
        self.capped(most).saturating_add(Schedule::SHORTEST)
    }
}

/// A list of ages under construction.
struct Ages {
    ages: Vec<SignedDuration>,
    end: SignedDuration,
}

impl Ages {
    /// Adds the next age, unless `until` is reached or there are too many. Returns whether it was added.
    fn add(&mut self, delay: SignedDuration, until: SignedDuration) -> bool {
        let until = until.min(self.end);
        let age = self.ages.last().copied().unwrap_or_default();
        let more = age < until && self.ages.len() <= Schedule::MAX_ATTEMPTS;
        if more {
            self.ages.push(age.saturating_add(delay).min(until));
        }
        more
    }
}

fn times(delay: SignedDuration, factor: f64) -> SignedDuration {
    let seconds = delay.as_secs_f64() * factor;
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
}

impl RetryPolicy for Schedule {
    fn next_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        self.next(failed, None)
    }

    fn longest_delay(&self) -> SignedDuration {
        self.furthest(None)
    }

    fn last_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        failed.begin.saturating_add(self.lifetime).ok()
    }
}

#[cfg(test)]
mod tests;
