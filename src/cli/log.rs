//! Where log lines go, and that each of them is one line.
//!
//! Nothing here waits for a log: see [`buffer`].

mod buffer;
mod journal;

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use indicatif::ProgressBar;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Severity};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::exit::write_once;
use crate::config::{Log, LogFormat, LogTo};
use crate::message::printable;
use buffer::{Buffer, Line, Sink};
use journal::{Journal, Socket};

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
    let started = match to {
        LogTo::None | LogTo::Auto => return,
        LogTo::Stderr => lines(log.format, Target::Stderr, quiet),
        LogTo::Syslog => {
            let opened =
                nix::syslog::openlog(Some(c"mailspool"), LogFlags::LOG_PID, Facility::LOG_MAIL);
            match opened {
                Ok(()) => lines(log.format, Target::Syslog, quiet),
                Err(_) => return,
            }
        }
        LogTo::Journald => match Socket::new() {
            Ok(socket) => journald(socket, log.format, quiet),
            Err(_) if stderr == LogTo::Stderr => lines(log.format, Target::Stderr, quiet),
            Err(_) => return,
        },
    };
    if let Err(error) = started
        && quiet != Quiet::Always
    {
        write_once(io::stderr(), &format!("mailspool: no log: {error}\n"));
    }
}

/// What is written to, once logging has started.
static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    buffer: Arc<Buffer>,
    /// Whether losses may be told on standard error, and are not in vain there.
    tells: bool,
}

fn begin(sink: impl Sink, tells: bool) -> io::Result<Arc<Buffer>> {
    let buffer = Buffer::start(sink)?;
    let started = Started {
        buffer: Arc::clone(&buffer),
        tells,
    };
    let _ = STARTED.set(started);
    Ok(buffer)
}

/// Gives lines that are still on their way a moment, before the process ends. What the log does
/// not take by then is lost, and told on standard error where that may be written to.
pub(super) fn finish() {
    let Some(started) = STARTED.get() else { return };
    let lost = started.buffer.finish();
    if lost > 0 && started.tells {
        let lines = if lost == 1 { "line was" } else { "lines were" };
        let text = format!("mailspool: {lost} log {lines} lost: the log does not take them\n");
        write_once(io::stderr(), &text);
    }
}

// A subscriber that is set already is a program's that this is part of; it stays.

fn journald(socket: Socket, format: LogFormat, quiet: Quiet) -> io::Result<()> {
    let buffer = begin(socket, quiet != Quiet::Always)?;
    let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
    let _ = registry.with(Journal::new(buffer, format)).try_init();
    Ok(())
}

fn lines(format: LogFormat, target: Target, quiet: Quiet) -> io::Result<()> {
    let tells = target == Target::Syslog && quiet != Quiet::Always;
    let buffer = begin(target, tells)?;
    let builder = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .with_writer(Lines { buffer, format });
    let _ = match (format, target) {
        (LogFormat::Text, Target::Syslog) => builder.without_time().with_level(false).try_init(),
        (LogFormat::Text, Target::Stderr) => builder.try_init(),
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The progress bar that log lines on standard error make way for, if there is one.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Has log lines on standard error go above a progress bar.
pub(super) fn above(bar: &ProgressBar) {
    let _ = BAR.set(bar.clone());
}

/// Takes whole lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Stderr,
    Syslog,
}

impl Sink for Target {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        match (self, BAR.get()) {
            (Target::Stderr, Some(bar)) => bar.suspend(|| to_stderr(&line.bytes)),
            (Target::Stderr, None) => to_stderr(&line.bytes),
            (Target::Syslog, _) => {
                let text = String::from_utf8_lossy(&line.bytes);
                Ok(nix::syslog::syslog(line.severity, text.trim_end())?)
            }
        }
    }
}

/// Writes to standard error as long as it takes. The handle of the standard library is not locked:
/// whatever else this process has to say there would wait for us.
fn to_stderr(mut bytes: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    while !bytes.is_empty() {
        match nix::unistd::write(&stderr, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                use std::os::fd::AsFd;
                let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                poll(&mut room, PollTimeout::NONE)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes lines of a format.
struct Lines {
    buffer: Arc<Buffer>,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Draft<'a>;

    fn make_writer(&'a self) -> Draft<'a> {
        Draft(self, Severity::LOG_INFO)
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Draft<'a> {
        let severity = match *metadata.level() {
            tracing::Level::ERROR => Severity::LOG_ERR,
            tracing::Level::WARN => Severity::LOG_WARNING,
            _ => Severity::LOG_INFO,
        };
        Draft(self, severity)
    }
}

struct Draft<'a>(&'a Lines, Severity);

impl Write for Draft<'_> {
    /// One event, with its line end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Draft(lines, severity) = self;
        let text = String::from_utf8_lossy(bytes);
        let line = visible(text.trim_end_matches('\n'), lines.format) + "\n";
        lines.buffer.push(Line {
            severity: *severity,
            bytes: line.into_bytes(),
        });
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
