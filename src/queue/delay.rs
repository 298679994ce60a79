//! When a sender is told that his message takes long.

use jiff::{SignedDuration, Timestamp};

/// The ages of a message at which its sender is told that it is not delivered yet, to those
/// recipients who have been tried. Once at each age; none: never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayAges(Vec<SignedDuration>);

impl Default for DelayAges {
    /// Once, at 4 hours.
    fn default() -> DelayAges {
        DelayAges::new([SignedDuration::from_hours(4)])
    }
}

impl DelayAges {
    /// At these ages, in any order. One that is not above zero is none.
    pub fn new(ages: impl IntoIterator<Item = SignedDuration>) -> DelayAges {
        let mut ages: Vec<_> = ages.into_iter().filter(|age| age.is_positive()).collect();
        ages.sort_unstable();
        ages.dedup();
        DelayAges(ages)
    }

    /// Never.
    pub fn never() -> DelayAges {
        DelayAges(Vec::new())
    }

    /// The ages, from the first to the last.
    pub fn ages(&self) -> &[SignedDuration] {
        &self.0
    }

    /// When the sender of a message that was accepted then is told, if he was told last at `told`:
    /// the last of these times that has passed, so that who comes late tells once; else the next.
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
    fn who_comes_late_tells_once() {
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
            // A clock that runs backwards.
            (Some(24), 0, None),
            (None, -9, Some(4)),
        ] {
            let got = ages.next(start, told.map(at), at(now));
            assert_eq!(got, next.map(at), "{told:?} {now}");
        }
        assert_eq!(DelayAges::never().next(start, None, at(99)), None);
    }
}
