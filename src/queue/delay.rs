//! When a delay notice is sent.

use jiff::{SignedDuration, Timestamp};

/// The ages of a message at which the sender is notified of the delay, for recipients with at least one
/// attempt. One notice per age; no ages means no notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayAges(Vec<SignedDuration>);

impl Default for DelayAges {
    /// One notice, at 4 hours.
    fn default() -> DelayAges {
        DelayAges::new([SignedDuration::from_hours(4)])
    }
}

impl DelayAges {
    /// Takes the ages in any order. Ages that are not positive are ignored.
    pub fn new(ages: impl IntoIterator<Item = SignedDuration>) -> DelayAges {
        let mut ages: Vec<_> = ages.into_iter().filter(|age| age.is_positive()).collect();
        ages.sort_unstable();
        ages.dedup();
        DelayAges(ages)
    }

    /// No notices.
    #[cfg(feature = "testing")]
    pub fn never() -> DelayAges {
        DelayAges(Vec::new())
    }

    /// The ages in ascending order.
    pub fn ages(&self) -> &[SignedDuration] {
        &self.0
    }

    /// Returns when the next notice is due for a message accepted at `accepted`, with the last notice at
    /// `told`. If thresholds have passed since, that is the last of them: a late notice covers every
    /// threshold passed so far. Otherwise it is the next threshold.
    pub fn next(
        &self,
        accepted: Timestamp,
        told: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let times = self
            .0
            .iter()
            .filter_map(|age| accepted.checked_add(*age).ok());
        let left = times.filter(|time| told.is_none_or(|told| *time > told));
        let (passed, ahead): (Vec<Timestamp>, Vec<Timestamp>) = left.partition(|time| *time <= now);
        passed.last().or(ahead.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_notice_covers_all_passed_ages() {
        let hours = SignedDuration::from_hours;
        let start: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let at = |age: i64| start + hours(age);
        let ages = DelayAges::new([hours(24), hours(4), hours(0), hours(4), hours(-1)]);
        assert_eq!(ages.ages(), [hours(4), hours(24)]);
        for (told, now, next) in [
            (None, 0, Some(4)),
            (None, 4, Some(4)),
            (None, 23, Some(4)),
            (None, 30, Some(24)),
            (Some(4), 4, Some(24)),
            (Some(5), 30, Some(24)),
            (Some(24), 30, None),
            // A clock that went back.
            (Some(24), 0, None),
            (None, -9, Some(4)),
        ] {
            let got = ages.next(start, told.map(at), at(now));
            assert_eq!(got, next.map(at), "{told:?} {now}");
        }
        assert_eq!(DelayAges::never().next(start, None, at(99)), None);
    }
}
