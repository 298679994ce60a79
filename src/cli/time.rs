//! Times as people write them on the command line.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A moment: RFC 3339 with an offset or `Z`, the same with a zone in brackets, a local date and
/// time, or `+` and a duration from now.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    read(text, Timestamp::now(), TimeZone::system())
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
    // With a zone in brackets before without: that would be passed over.
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = || "write 2026-11-23T08:00Z, 2026-11-23 08:00 or +2h".to_owned();
    // A date alone would be a midnight that nobody wrote.
    if !text.contains(':') {
        return Err(wrong());
    }
    let local: DateTime = text.parse().map_err(|_| wrong())?;
    let zoned = local.to_zoned(here).map_err(|error| error.to_string())?;
    Ok(zoned.timestamp())
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
        ] {
            assert_eq!(at(text).as_deref(), Ok(time), "{text}");
        }
        for bad in [
            "",
            "2026-11-23",
            "08:00",
            "tomorrow",
            "+",
            "+2",
            "2h",
            "2026-13-01 08:00",
        ] {
            assert!(at(bad).is_err(), "{bad}: {:?}", at(bad));
        }
    }
}
