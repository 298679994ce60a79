//! Where log lines go.

use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use indicatif::ProgressBar;
use nix::syslog::{Facility, LogFlags, Severity};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat, LogTo};

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

/// Starts logging as configured.
pub(super) fn start(log: &Log, quiet: Quiet) {
    let to = match log.to {
        LogTo::Auto if Path::new("/run/systemd/journal/socket").exists() => LogTo::Journald,
        LogTo::Auto if Path::new("/dev/log").exists() => LogTo::Syslog,
        LogTo::Auto if quiet == Quiet::No => LogTo::Stderr,
        LogTo::Auto => LogTo::None,
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
        LogTo::Journald => match tracing_journald::layer() {
            Ok(layer) => {
                let layer = layer.with_syslog_identifier("mailspool".into());
                let _ = tracing_subscriber::registry().with(layer).try_init();
            }
            Err(_) => lines(log.format, Target::Stderr),
        },
    }
}

fn lines(format: LogFormat, target: Target) {
    let builder = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .with_writer(target);
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

impl<'a> MakeWriter<'a> for Target {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(*self, Severity::LOG_INFO)
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Line {
        let severity = match *metadata.level() {
            tracing::Level::ERROR => Severity::LOG_ERR,
            tracing::Level::WARN => Severity::LOG_WARNING,
            _ => Severity::LOG_INFO,
        };
        Line(*self, severity)
    }
}

struct Line(Target, Severity);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Target::Stderr => match BAR.get() {
                Some(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
                None => io::stderr().write_all(bytes)?,
            },
            Target::Syslog => {
                let text = String::from_utf8_lossy(bytes);
                let _ = nix::syslog::syslog(self.1, text.trim_end());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
