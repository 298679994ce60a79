//! Tables and short texts for readers.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The cells of a row, and its note.
pub(super) type Line = (Vec<String>, Option<String>);

/// Formats rows under a heading, each on one line, with its note on the line below. Never wraps a cell:
/// users copy cells, and the caller has shortened long ones.
pub(super) fn table(heading: &[&str], rows: Vec<Line>) -> String {
    Columns::under(heading).page(rows)
}

/// The columns of a table that is written page by page, so that memory holds only one page. A column is
/// as wide as its widest cell so far, so a page may be wider than the previous one.
pub(super) struct Columns<'a> {
    /// The heading, until the first page is written.
    heading: Option<&'a [&'a str]>,
    widths: Vec<u16>,
}

impl<'a> Columns<'a> {
    /// The characters between two columns.
    const GAP: u16 = 2;

    pub fn under(heading: &'a [&'a str]) -> Columns<'a> {
        Columns {
            heading: Some(heading),
            widths: Vec::new(),
        }
    }

    /// Formats the next rows, with the heading above the first page.
    pub fn page(&mut self, rows: Vec<Line>) -> String {
        let heading = self.heading.take();
        let mut table = Table::new();
        table
            .load_style(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if let Some(heading) = heading {
            table.set_header(heading.to_vec());
        }
        let (rows, notes): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        table.add_rows(rows);
        let mut widths = table.column_max_content_widths();
        for (width, before) in widths.iter_mut().zip(&self.widths) {
            *width = (*before).max(*width);
        }
        for (column, width) in table.column_iter_mut().zip(&widths) {
            column.set_padding((0, Self::GAP));
            let width = Width::Fixed(width.saturating_add(Self::GAP));
            column.set_constraint(ColumnConstraint::Absolute(width));
        }
        self.widths = widths;
        let mut text = String::new();
        let notes = heading.map(|_| None).into_iter().chain(notes);
        for (line, note) in table.lines().zip(notes) {
            text.push_str(line.trim_end());
            text.push('\n');
            if let Some(note) = note {
                text.push_str(&format!("    {note}\n"));
            }
        }
        text
    }
}

/// Formats a size in octets with one unit, such as `1.5 MB`.
pub(super) fn size(octets: u64) -> String {
    let mut value = octets as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return match unit {
                "B" => format!("{octets} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Formats an age in its largest one or two units.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{}s", seconds.max(0)),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Formats a duration in seconds, rounded up, in the syntax of the configuration.
pub(super) fn span(duration: SignedDuration) -> String {
    let mut left = duration.as_secs() + i64::from(duration.subsec_nanos() > 0);
    if left <= 0 {
        return "0s".to_owned();
    }
    let mut parts = Vec::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if left >= seconds {
            parts.push(format!("{}{unit}", left / seconds));
            left %= seconds;
        }
    }
    parts.join(" ")
}

/// Formats a time in the local zone, to the second.
pub(super) fn time(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %z")
        .to_string()
}

/// Formats a time in the local zone. The day is included only if it is not today, the year only if the
/// day could be mistaken for one of another year.
pub(super) fn soon(time: Timestamp, now: Timestamp) -> String {
    soon_in(&TimeZone::system(), time, now)
}

fn soon_in(zone: &TimeZone, time: Timestamp, now: Timestamp) -> String {
    /// Times further away than this are shown with the year, as in ls(1).
    const HALF_A_YEAR: SignedDuration = SignedDuration::from_hours(182 * 24);
    let is_far = time.duration_since(now).abs() > HALF_A_YEAR;
    let zoned = |time: Timestamp| time.to_zoned_datetime(zone.clone());
    let (then, now) = (zoned(time), zoned(now));
    let form = match then.date() == now.date() {
        true => "%H:%M",
        false if is_far => "%Y-%m-%d",
        false => "%b %d %H:%M",
    };
    then.strftime(form).to_string()
}

/// Formats an address, or `<>` for the null sender.
pub(super) fn address(text: &str) -> String {
    match text {
        "" => "<>".to_owned(),
        text => crate::message::harmless(text),
    }
}

/// `1 message`, `2 messages`.
pub(super) fn messages(count: usize) -> String {
    match count {
        1 => "1 message".to_owned(),
        count => format!("{count} messages"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_and_never_shrink_from_page_to_page() {
        let row = |a: &str, b: &str| (vec![a.to_owned(), b.to_owned()], None);
        let mut columns = Columns::under(&["A", "B"]);
        let note = Some("a note".to_owned());
        let first = columns.page(vec![row("x", "y"), (vec![], note)]);
        assert_eq!(first, "A  B\nx  y\n\n    a note\n");
        let wide = columns.page(vec![row("wider", "ü"), row("x", "y")]);
        assert_eq!(wide, "wider  ü\nx      y\n");
        assert_eq!(columns.page(vec![row("x", "y")]), "x      y\n");
    }

    #[test]
    fn a_time_of_another_year_has_its_year() {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        for (time, text) in [
            ("2026-11-22T18:00:00Z", "18:00"),
            ("2026-11-26T08:30:00Z", "Nov 26 08:30"),
            ("2026-06-01T08:30:00Z", "Jun 01 08:30"),
            ("2027-01-02T08:30:00Z", "Jan 02 08:30"),
            ("2029-11-26T08:30:00Z", "2029-11-26"),
            ("2023-11-22T18:00:00Z", "2023-11-22"),
        ] {
            assert_eq!(soon_in(&TimeZone::UTC, time.parse().unwrap(), now), text);
        }
    }

    #[test]
    fn sizes_and_ages_are_short() {
        for (octets, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (49_961_000, "50.0 MB"),
        ] {
            assert_eq!(size(octets), text);
        }
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (61, "1m"),
            (3660, "1h01m"),
            (100_000, "1d03h"),
        ] {
            assert_eq!(age(seconds), text);
        }
        for (milliseconds, text) in [
            (0, "0s"),
            (1, "1s"),
            (60_000, "1m"),
            (9_450_000, "2h 37m 30s"),
            (345_600_000, "4d"),
        ] {
            assert_eq!(span(SignedDuration::from_millis(milliseconds)), text);
        }
    }
}
