//! Where log lines go, and that each of them is one line.

mod journal;

use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use indicatif::ProgressBar;
use nix::syslog::{Facility, LogFlags, Severity};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat, LogTo};
use crate::message::printable;
use journal::Journal;

/// Whether standard error may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// It may.
    No,
    /// Only if the configuration says so.
    UnlessAsked,
    /// Never: an MTA reads it.
    Always,
}

/// Where libc's syslog() writes to.
const SYSLOG: &str = "/dev/log";

/// Starts logging as configured. Where nobody listens to what was chosen, lines go to standard
/// error, if that may be written to.
pub(super) fn start(log: &Log, quiet: Quiet) {
    let stderr = match quiet {
        Quiet::No => LogTo::Stderr,
        Quiet::UnlessAsked | Quiet::Always => LogTo::None,
    };
    let to = match log.to {
        LogTo::Auto if Path::new(journal::SOCKET).exists() => LogTo::Journald,
        LogTo::Auto if Path::new(SYSLOG).exists() => LogTo::Syslog,
        LogTo::Auto => stderr,
        LogTo::Syslog if !Path::new(SYSLOG).exists() => stderr,
        LogTo::Stderr if quiet == Quiet::Always => LogTo::None,
        other => other,
    };
    match to {
        LogTo::None | LogTo::Auto => {}
        LogTo::Stderr => lines(log.format, Target::Stderr),
        LogTo::Syslog => {
            let opened =
                nix::syslog::openlog(Some(c"mailspool"), LogFlags::LOG_PID, Facility::LOG_MAIL);
            if opened.is_ok() {
                lines(log.format, Target::Syslog);
            }
        }
        LogTo::Journald => match Journal::new(log.format) {
            Ok(journal) => {
                let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
                let _ = registry.with(journal).try_init();
            }
            Err(_) if stderr == LogTo::Stderr => lines(log.format, Target::Stderr),
            Err(_) => {}
        },
    }
}

fn lines(format: LogFormat, target: Target) {
    let builder = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .with_writer(Lines(target, format));
    // A subscriber that is set already is a program's that this is part of; it stays.
    let _ = match (format, target) {
        (LogFormat::Text, Target::Syslog) => builder.without_time().with_level(false).try_init(),
        (LogFormat::Text, Target::Stderr) => builder.try_init(),
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
    };
}

/// The progress bar that log lines on standard error make way for, if there is one.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Has log lines on standard error go above a progress bar.
pub(super) fn above(bar: &ProgressBar) {
    let _ = BAR.set(bar.clone());
}

/// Writes whole lines.
#[derive(Clone, Copy)]
enum Target {
    Stderr,
    Syslog,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0, Severity::LOG_INFO, self.1)
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Line {
        let severity = match *metadata.level() {
            tracing::Level::ERROR => Severity::LOG_ERR,
            tracing::Level::WARN => Severity::LOG_WARNING,
            _ => Severity::LOG_INFO,
        };
        Line(self.0, severity, self.1)
    }
}

/// Lines of a format.
struct Lines(Target, LogFormat);

struct Line(Target, Severity, LogFormat);

impl Write for Line {
    /// One event, with its line end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = visible(text.trim_end_matches('\n'), self.2);
        match self.0 {
            Target::Stderr => {
                let line = line + "\n";
                match BAR.get() {
                    Some(bar) => bar.suspend(|| io::stderr().write_all(line.as_bytes()))?,
                    None => io::stderr().write_all(line.as_bytes())?,
                }
            }
            Target::Syslog => {
                let _ = nix::syslog::syslog(self.1, line.as_str());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text with everything that would end a line, move the cursor or reorder text escaped, as
/// `\u{...}` or as JSON has it. Much is quoted and escaped already; this is for what is not, such
/// as the error of a path, and what JSON allows within its quotes.
fn visible(text: &str, format: LogFormat) -> String {
    let is_harmless = |c: char| c == ' ' || printable(c.encode_utf8(&mut [0; 4])).contains(c);
    if text.chars().all(is_harmless) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match (is_harmless(c), format) {
            (true, _) => out.push(c),
            (false, LogFormat::Text) => out.extend(c.escape_unicode()),
            // None of them is beyond four digits.
            (false, LogFormat::Json) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_line_or_reorders_it() {
        let plain = "a  b=\"ü\" c";
        assert_eq!(visible(plain, LogFormat::Text), plain);
        assert_eq!(
            visible("a\nb\r\u{1b}[31m\u{85}\u{2028}\u{202e}\0", LogFormat::Text),
            "a\\u{a}b\\u{d}\\u{1b}[31m\\u{85}\\u{2028}\\u{202e}\\u{0}"
        );
        assert_eq!(
            visible("\"\u{85}\u{2028}\"", LogFormat::Json),
            "\"\\u0085\\u2028\""
        );
    }

    #[test]
    fn what_is_escaped_in_json_fits_into_four_digits() {
        let harmful = |c: &char| *c != ' ' && !printable(&c.to_string()).contains(*c);
        let most = ('\0'..=char::MAX).filter(harmful).max().unwrap();
        assert!(u32::from(most) <= 0xffff, "{most:?}");
    }
}
