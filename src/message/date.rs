//! Formats dates for header fields.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Formats a date as RFC 5322 requires, in UTC, so that no time zone file is needed.
pub fn rfc5322(time: Timestamp) -> String {
    let zoned = time.to_zoned_datetime(TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&zoned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_date_has_the_format_of_rfc_5322() {
        let time = "2026-11-22T14:05:00.5Z".parse().unwrap();
        assert_eq!(super::rfc5322(time), "Sun, 22 Nov 2026 14:05:00 +0000");
    }
}
