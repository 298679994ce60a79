//! Parsing of times on the command line.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, ZonedDateTime};

use super::exit::{EX_USAGE, Failure};
use super::table;

/// Returns the time that is this far in the future.
pub(super) fn from_now(time: SignedDuration) -> Result<Timestamp, Failure> {
    let then = Timestamp::now().checked_add(time);
    then.map_err(|_| Failure::new(EX_USAGE, "that time is too far away"))
}

/// Parses a time that is not past: RFC 3339 with an offset or `Z`, the same with a zone in brackets, a
/// local date and time, `today` or `tomorrow` with a local time, a local time alone, which means its
/// next occurrence, or `+` and a duration from now.
pub(super) fn moment_ahead(text: &str) -> Result<Timestamp, String> {
    ahead(text, Timestamp::now(), TimeZone::system())
}

fn ahead(text: &str, now: Timestamp, here: TimeZone) -> Result<Timestamp, String> {
    let time = read(text.trim(), now, here.clone())?;
    if time < now {
        let past = table::span(now.duration_since(time));
        let time = time
            .to_zoned_datetime(here)
            .strftime("%Y-%m-%d %H:%M:%S %z");
        return Err(format!("{time} is past, by {past}"));
    }
    Ok(time)
}

fn read(text: &str, now: Timestamp, here: TimeZone) -> Result<Timestamp, String> {
    if let Some(ahead) = text.strip_prefix('+') {
        let ahead = humantime::parse_duration(ahead.trim());
        let ahead = ahead.map_err(|error| format!("not a duration: {error}"))?;
        let ahead = SignedDuration::try_from(ahead).map_err(|error| error.to_string())?;
        return now
            .checked_add(ahead)
            .map_err(|_| "too far ahead".to_owned());
    }
    // Parse with a zone in brackets first: the other parser would ignore the zone.
    if let Ok(zoned) = text.parse::<ZonedDateTime>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong =
        || "write 18:00, tomorrow 8:00, 2030-06-03 08:00, 2030-06-03T08:00Z or +2h".to_owned();
    // Reject a date alone: it would mean midnight, which was not written.
    if !text.contains(':') {
        return Err(wrong());
    }
    let local = |local: DateTime| {
        let zoned = local.to_zoned_datetime(here.clone());
        let zoned = zoned.map_err(|error| error.to_string())?;
        Ok(zoned.timestamp())
    };
    let today = now.to_zoned_datetime(here.clone()).date();
    let next = |day: Date| day.checked_add(1.day()).map_err(|error| error.to_string());
    if let Some(time) = time_of_day(text) {
        let time_today = local(today.to_datetime(time))?;
        return if time_today < now {
            local(next(today)?.to_datetime(time))
        } else {
            Ok(time_today)
        };
    }
    let (day, time) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let time = time_of_day(time.trim());
    match (day.to_ascii_lowercase().as_str(), time) {
        ("today", Some(time)) => local(today.to_datetime(time)),
        ("tomorrow", Some(time)) => local(next(today)?.to_datetime(time)),
        _ => local(text.parse().map_err(|_| wrong())?),
    }
}

/// Parses `18:00`, `8:00` or `18:00:30`.
fn time_of_day(text: &str) -> Option<Time> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |part: &&str| {
        let is_number = (1..=2).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit());
        is_number.then(|| part.parse::<i8>().ok()).flatten()
    };
    let numbers: Option<Vec<i8>> = parts.iter().map(number).collect();
    match numbers?[..] {
        [hour, minute] => Time::new(hour, minute, 0, 0).ok(),
        [hour, minute, second] => Time::new(hour, minute, second, 0).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_write_a_time() {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let here = TimeZone::fixed(jiff::tz::offset(1));
        let at = |text: &str| read(text, now, here.clone()).map(|time| time.to_string());
        for (text, time) in [
            ("2026-11-23T08:00Z", "2026-11-23T08:00:00Z"),
            ("2026-11-23T08:00:30Z", "2026-11-23T08:00:30Z"),
            ("2026-11-23T08:00+02:00", "2026-11-23T06:00:00Z"),
            (
                "2026-11-23T08:00-05:00[America/New_York]",
                "2026-11-23T13:00:00Z",
            ),
            ("2026-11-23 08:00", "2026-11-23T07:00:00Z"),
            ("2026-11-23T08:00", "2026-11-23T07:00:00Z"),
            ("+2h", "2026-11-22T16:00:00Z"),
            ("+1d 30m", "2026-11-23T14:30:00Z"),
            // At the next such time; it is 15:00 here.
            ("18:00", "2026-11-22T17:00:00Z"),
            ("15:00", "2026-11-22T14:00:00Z"),
            ("14:59", "2026-11-23T13:59:00Z"),
            ("8:00", "2026-11-23T07:00:00Z"),
            ("today 18:00:30", "2026-11-22T17:00:30Z"),
            ("tomorrow 8:00", "2026-11-23T07:00:00Z"),
            ("Tomorrow  23:59", "2026-11-23T22:59:00Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(time), "{text}");
        }
        for bad in [
            "",
            "2026-11-23",
            "tomorrow",
            "tomorrow 24:00",
            "today",
            "yesterday 8:00",
            "18:0:0:0",
            "18:",
            "+",
            "+2",
            "2h",
            "2026-13-01 08:00",
        ] {
            assert!(at(bad).is_err(), "{bad}: {:?}", at(bad));
        }
    }

    #[test]
    fn a_past_time_is_refused_and_the_error_says_by_how_much() {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let here = TimeZone::fixed(jiff::tz::offset(1));
        for (text, words) in [
            (
                "2026-11-22 14:30",
                "2026-11-22 14:30:00 +0100 is past, by 30m",
            ),
            (
                "2025-11-22T14:00Z",
                "2025-11-22 15:00:00 +0100 is past, by 365d",
            ),
            ("today 8:00", "2026-11-22 08:00:00 +0100 is past, by 7h"),
        ] {
            assert_eq!(ahead(text, now, here.clone()), Err(words.to_owned()));
        }
        for text in ["+0s", "2026-11-22T14:00Z", "15:00", "14:00", "today 15:00"] {
            assert!(ahead(text, now, here.clone()).is_ok(), "{text}");
        }
    }
}
