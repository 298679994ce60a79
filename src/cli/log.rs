//! Where log lines go. Each event is exactly one line.
//!
//! Nothing here waits for a log: see [`buffer`].

mod buffer;
mod journald;

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use indicatif::ProgressBar;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Severity};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Identity, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::output::write_once;
use crate::config::{Log, LogFormat, LogTo};
use crate::message::printable;
use buffer::{Buffer, Line, Sink};
use journald::{Journald, Socket};

/// Whether standard error may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Yes.
    No,
    /// Only if the configuration says so.
    UnlessAsked,
    /// Never: an MTA reads it.
    Always,
}

/// The socket that libc's syslog() writes to.
const SYSLOG: &str = "/dev/log";

/// Starts logging as configured. If the configured log does not exist, lines go to standard error, if
/// that may be written to.
pub(super) fn start(log: &Log, quiet: Quiet) {
    let opened = open(log, quiet).or_else(|error| match (error, quiet) {
        (NoLog::Absent(_), _) => open(&to_stderr_instead(log, quiet), quiet),
        (failed, _) => Err(failed),
    });
    let opened = opened.unwrap_or_else(|error| {
        if quiet != Quiet::Always {
            write_once(io::stderr(), &format!("mailspool: no log: {error}\n"));
        }
        Opened::nothing()
    });
    // Only a run lives long enough for `[log]` to change. Any other process without a log is done here.
    if opened.output.is_none() && quiet != Quiet::No {
        return;
    }
    let (layer, handle) = reload::Layer::new(opened.layer);
    // If an embedding program has already set a subscriber, keep that one.
    let subscriber = tracing_subscriber::registry().with(layer);
    let _ = subscriber.with(LevelFilter::INFO).try_init();
    *started() = Some(Started {
        log: log.clone(),
        quiet,
        output: opened.output,
        handle,
    });
}

/// Switches to the log that `log` describes, if it differs. Earlier lines get time to reach the previous
/// log, at most as long as at the end of a process.
///
/// # Errors
/// If the new log does not exist or cannot be opened. Then the previous log stays in use.
pub(super) fn change(log: &Log) -> Result<(), NoLog> {
    let (quiet, handle) = match &*started() {
        Some(now) if now.log != *log => (now.quiet, now.handle.clone()),
        _ => return Ok(()),
    };
    let opened = open(log, quiet)?;
    tracing::info!("[log] has changed: this is the last line in this log");
    handle
        .reload(opened.layer)
        .map_err(|error| NoLog::Failed(io::Error::other(error)))?;
    let before = started().replace(Started {
        log: log.clone(),
        quiet,
        output: opened.output,
        handle,
    });
    let lost = before.and_then(|before| before.output);
    let lost = lost.map_or(0, |output| output.buffer.finish());
    if lost > 0 {
        tracing::warn!(
            lines = lost,
            "log lines were lost: the previous log did not take them"
        );
    }
    Ok(())
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLog {
    /// The log's socket does not exist on this machine.
    #[error("{0} does not exist")]
    Absent(&'static str),
    /// Opening the log failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// Takes events.
type Output = Box<dyn Layer<Registry> + Send + Sync>;

/// A log that can be written to.
struct Opened {
    layer: Output,
    output: Option<Buffered>,
}

impl Opened {
    fn nothing() -> Opened {
        Opened {
            layer: Box::new(Identity::new()),
            output: None,
        }
    }
}

/// The buffer of an open log.
#[derive(Clone)]
struct Buffered {
    buffer: Arc<Buffer>,
    /// Whether to report lost lines on standard error. Not if that is the log itself, or an MTA reads it.
    tells: bool,
}

fn open(log: &Log, quiet: Quiet) -> Result<Opened, NoLog> {
    let is_there = |path: &str| Path::new(path).exists();
    let to = match log.to {
        LogTo::Auto if is_there(journald::SOCKET) => LogTo::Journald,
        LogTo::Auto if is_there(SYSLOG) => LogTo::Syslog,
        LogTo::Auto => to_stderr_instead(log, quiet).to,
        LogTo::Stderr if quiet == Quiet::Always => LogTo::None,
        other => other,
    };
    let format = log.format;
    match to {
        LogTo::None | LogTo::Auto => Ok(Opened::nothing()),
        LogTo::Stderr => Ok(lines(format, Target::Stderr, false)?),
        LogTo::Syslog => {
            if !is_there(SYSLOG) {
                return Err(NoLog::Absent(SYSLOG));
            }
            nix::syslog::openlog(Some(c"mailspool"), LogFlags::LOG_PID, Facility::LOG_MAIL)
                .map_err(io::Error::from)?;
            Ok(lines(format, Target::Syslog, quiet != Quiet::Always)?)
        }
        LogTo::Journald => {
            let socket = Socket::new().map_err(|_| NoLog::Absent(journald::SOCKET))?;
            let buffer = Buffer::start(socket)?;
            let journal = Journald::new(Arc::clone(&buffer), format);
            let tells = quiet != Quiet::Always;
            Ok(Opened {
                layer: Box::new(journal),
                output: Some(Buffered { buffer, tells }),
            })
        }
    }
}

/// Returns the fallback if no log exists: standard error for a run, otherwise no log.
fn to_stderr_instead(log: &Log, quiet: Quiet) -> Log {
    let to = match quiet {
        Quiet::No => LogTo::Stderr,
        Quiet::UnlessAsked | Quiet::Always => LogTo::None,
    };
    Log { to, ..log.clone() }
}

fn lines(format: LogFormat, target: Target, tells: bool) -> io::Result<Opened> {
    let buffer = Buffer::start(target)?;
    let lines = Lines {
        buffer: Arc::clone(&buffer),
        format,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(lines);
    let layer: Output = match (format, target) {
        (LogFormat::Text, Target::Syslog) => Box::new(layer.without_time().with_level(false)),
        (LogFormat::Text, Target::Stderr) => Box::new(layer),
        (LogFormat::Json, _) => Box::new(layer.json().flatten_event(true)),
    };
    Ok(Opened {
        layer,
        output: Some(Buffered { buffer, tells }),
    })
}

/// How this process logs; none before logging starts.
static STARTED: Mutex<Option<Started>> = Mutex::new(None);

struct Started {
    log: Log,
    quiet: Quiet,
    output: Option<Buffered>,
    handle: reload::Handle<Output, Registry>,
}

fn started() -> MutexGuard<'static, Option<Started>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits briefly for buffered lines before the process ends. Lines that the log has not taken by then
/// are lost; their number is printed on standard error if that may be written to.
pub(super) fn finish() {
    let output = started().as_ref().and_then(|now| now.output.clone());
    let Some(Buffered { buffer, tells }) = output else {
        return;
    };
    let lost = buffer.finish();
    if lost > 0 && tells {
        let lines = if lost == 1 { "line was" } else { "lines were" };
        let text = format!("mailspool: {lost} log {lines} lost: the log does not take them\n");
        write_once(io::stderr(), &text);
    }
}

/// The progress bar that is suspended while a log line goes to standard error.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Makes log lines on standard error appear above this progress bar.
pub(super) fn above(bar: &ProgressBar) {
    let _ = BAR.set(bar.clone());
}

/// A log that takes whole lines.
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

/// Writes to standard error, however long that takes. Does not lock the standard library's handle,
/// because other threads that print to it would wait.
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

/// Turns formatted events into lines for the buffer.
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
    /// Queues one event, which ends with a line end.
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

/// Returns the text with every character escaped that would end a line, move the cursor or reorder
/// text, as `\u{...}` or as in JSON. Most fields are already quoted and escaped. This covers the rest,
/// such as the error of a path, and characters that JSON allows within quotes.
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
            // None of these characters needs more than four digits.
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
