//! Buckets: directories named after the UTC minute at which their messages become due.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A UTC minute, or never. The text form is `2026-11-22T1405Z` or `never`, and sorts in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Due at this minute, in minutes since the epoch.
    At(i64),
    /// Not due until an operator acts.
    Never,
}

/// The text is not a bucket's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a bucket's name")]
pub struct NotABucket;

impl Bucket {
    /// Returns the bucket for messages due at `time`: the minute that begins at or after `time`, so that no
    /// message is due early. Times before the epoch use the first bucket. Times after the last minute with
    /// a name use the last bucket.
    pub fn for_time(time: Timestamp) -> Bucket {
        let last = Timestamp::MAX.as_second().div_euclid(60);
        let seconds = time.as_second() + i64::from(time.subsec_nanosecond() > 0);
        let minute = seconds.div_euclid(60) + i64::from(seconds.rem_euclid(60) > 0);
        Bucket::At(minute.clamp(0, last))
    }

    /// Like [`for_time`](Bucket::for_time), rounded up to full hours.
    pub fn for_hour(time: Timestamp) -> Bucket {
        match Bucket::for_time(time) {
            Bucket::At(minute) => {
                let hour = Bucket::At(minute.div_euclid(60) * 60 + i64::from(minute % 60 > 0) * 60);
                if hour.due().is_some() {
                    hour
                } else {
                    Bucket::At(minute)
                }
            }
            Bucket::Never => Bucket::Never,
        }
    }

    /// When the bucket is due; `None` for [`Never`](Bucket::Never).
    pub fn due(&self) -> Option<Timestamp> {
        match self {
            Bucket::At(minute) => Timestamp::from_second(minute.saturating_mul(60)).ok(),
            Bucket::Never => None,
        }
    }

    /// Whether to process the bucket at `now`: it is due, or it is later than the longest delay allows,
    /// which means that a clock was wrong.
    pub fn is_open(&self, now: Timestamp, longest_delay: jiff::SignedDuration) -> bool {
        self.due().is_some_and(|due| {
            due <= now
                || due.duration_since(now) > longest_delay + jiff::SignedDuration::from_mins(1)
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(due) = self.due() else {
            return f.write_str("never");
        };
        let utc = due.to_zoned_datetime(TimeZone::UTC);
        let (date, hour, minute) = (utc.date(), utc.hour(), utc.minute());
        write!(f, "{date}T{hour:02}{minute:02}Z")
    }
}

impl FromStr for Bucket {
    type Err = NotABucket;

    /// Accepts only the spelling that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Bucket, NotABucket> {
        if text == "never" {
            return Ok(Bucket::Never);
        }
        if text.len() != "2026-11-22T1405Z".len() || !text.is_ascii() {
            return Err(NotABucket);
        }
        let spelled = format!("{}:{}:00", &text[..13], &text[13..15]);
        let time: DateTime = spelled.parse().map_err(|_| NotABucket)?;
        let zoned = time
            .to_zoned_datetime(TimeZone::UTC)
            .map_err(|_| NotABucket)?;
        let minute = zoned.timestamp().as_second().div_euclid(60);
        let bucket = Bucket::At(minute);
        if minute >= 0 && bucket.to_string() == text {
            Ok(bucket)
        } else {
            Err(NotABucket)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_rounds_up_to_its_minute() {
        for (time, name) in [
            ("2026-11-22T14:05:00Z", "2026-11-22T1405Z"),
            ("2026-11-22T14:04:00.001Z", "2026-11-22T1405Z"),
            ("2026-11-22T14:04:59Z", "2026-11-22T1405Z"),
            ("2026-12-31T23:59:01Z", "2027-01-01T0000Z"),
        ] {
            let bucket = Bucket::for_time(at(time));
            assert_eq!(bucket.to_string(), name);
            assert_eq!(name.parse(), Ok(bucket));
            assert!(bucket.due().unwrap() >= at(time));
        }
    }

    #[test]
    fn a_time_rounds_up_to_its_hour() {
        for (time, name) in [
            ("2026-11-22T14:00:00Z", "2026-11-22T1400Z"),
            ("2026-11-22T14:00:00.001Z", "2026-11-22T1500Z"),
            ("2026-12-31T23:01:00Z", "2027-01-01T0000Z"),
        ] {
            assert_eq!(Bucket::for_hour(at(time)).to_string(), name);
        }
    }

    #[test]
    fn every_time_has_a_bucket_with_a_name() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            for bucket in [Bucket::for_time(time), Bucket::for_hour(time)] {
                assert!(bucket.due().is_some(), "{time}");
                assert_eq!(bucket.to_string().parse(), Ok(bucket), "{time}");
            }
        }
    }

    #[test]
    fn other_names_are_not_buckets() {
        for bad in [
            "",
            "Never",
            "2026-11-22",
            "2026-11-22T1460Z",
            "2026-02-30T0000Z",
            "2026-11-22T14:05Z",
            "2026-11-22t1405Z",
            "2026-11-22T1405z",
            "2026-11-22T14-5Z",
            ".nfs000000000000",
            "2026-11-22 1405Z",
            "1969-12-31T2359Z",
        ] {
            assert_eq!(bad.parse::<Bucket>(), Err(NotABucket), "{bad}");
        }
    }

    #[test]
    fn a_bucket_is_open_when_due_or_too_far_ahead() {
        let now = at("2026-11-22T14:05:00Z");
        let longest = SignedDuration::from_hours(7);
        let open = |text: &str| text.parse::<Bucket>().unwrap().is_open(now, longest);
        assert!(open("2026-11-22T1405Z"));
        assert!(!open("2026-11-22T1406Z"));
        assert!(!open("2026-11-22T2105Z"));
        assert!(open("2027-11-22T1405Z"));
        assert!(!open("never"));
    }
}
