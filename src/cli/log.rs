//! Where log lines go, and that each of them is one line.
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

use super::exit::write_once;
use crate::config::{Log, LogFormat, LogTo};
use crate::message::printable;
use buffer::{Buffer, Line, Sink};
use journald::{Journald, Socket};

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

/// Starts logging as configured. If what was chosen is not there, lines go to standard error, if that
/// may be written to.
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
    // Only a run stays long enough for `[log]` to change. Others that log nowhere need nothing of this.
    if opened.output.is_none() && quiet != Quiet::No {
        return;
    }
    let (layer, handle) = reload::Layer::new(opened.layer);
    // A subscriber that is set already is a program's that this is part of; it stays.
    let subscriber = tracing_subscriber::registry().with(layer);
    let _ = subscriber.with(LevelFilter::INFO).try_init();
    *started() = Some(Started {
        log: log.clone(),
        quiet,
        output: opened.output,
        handle,
    });
}

/// Logs as configured from now on, if that is not so already. Lines that were said before are given a
/// moment to reach the log that was, which is not waited for longer than at the end of a process.
///
/// # Errors
/// If what is chosen is not there, or cannot be written to. Then everything stays as it was.
pub(super) fn change(log: &Log) -> Result<(), NoLog> {
    let (quiet, handle) = match &*started() {
        Some(now) if now.log != *log => (now.quiet, now.handle.clone()),
        _ => return Ok(()),
    };
    let opened = open(log, quiet)?;
    tracing::info!("[log] has changed: from now on lines go where it says");
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
            "lines were lost: the log before this one did not take them"
        );
    }
    Ok(())
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLog {
    /// Nothing reads it on this machine.
    #[error("{0} is not there")]
    Absent(&'static str),
    /// The system did not let us have it.
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

/// Where lines wait.
#[derive(Clone)]
struct Buffered {
    buffer: Arc<Buffer>,
    /// Whether losses may be told on standard error, and are not in vain there.
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

/// What is done where nothing else takes lines.
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

/// How this process logs, once it does.
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

/// Gives lines that are still on their way a moment, before the process ends. What the log does
/// not take by then is lost, and told on standard error where that may be written to.
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
