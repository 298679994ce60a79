//! `run`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::args::{Global, Run};
use super::exit::{EX_TEMPFAIL, Failure, complain, write_once};
use super::log::{self, Quiet};
use super::site::{IfMissing, Site};
use super::table;
use super::transports::runner;
use crate::runner::{Budget, Progress, Stop, Summary};

/// `mailspool run`.
pub(super) fn run(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    let site = Site::open(global, IfMissing::MakeDefault)?;
    log::start(&site.config.log, Quiet::No);
    raise_descriptor_limit();
    let bar = (io::stderr().is_terminal() && !args.quiet && !args.in_slot).then(progress_bar);
    let mut runner = runner(&site).budget(Budget {
        jobs: args.jobs.map_or(site.config.run.jobs, |jobs| jobs as usize),
        max_messages: args.max_messages,
        max_time: args.max_time,
    });
    if let Some(bar) = &bar {
        log::above(bar);
        let bar = bar.clone();
        runner = runner.observer(move |progress| match progress {
            Progress::Found(count) => bar.inc_length(count),
            Progress::Handled => bar.inc(1),
        });
    }
    let runner = runner.build();
    stop_on_signals(runner.stop_handle())?;
    let result = match (args.watch, args.in_slot) {
        (true, _) => runner.watch(),
        (false, true) => runner
            .pass_in_slot(site.config.run.background)
            .map(Option::unwrap_or_default),
        (false, false) => runner.pass(),
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let summary = result?;
    if !args.quiet {
        write_once(io::stdout(), &format!("{}\n", words(&summary)));
    }
    let mut trouble = Vec::new();
    if summary.corrupt > 0 {
        let count = table::messages(summary.corrupt as usize);
        trouble.push(format!(
            "{count} put into corrupt/ (`mailspool list` says why)"
        ));
    }
    if summary.trouble > 0 {
        let count = table::messages(summary.trouble as usize);
        trouble.push(format!("{count} could not be worked on (the log says why)"));
    }
    if summary.unread > 0 {
        let count = match summary.unread {
            1 => "1 directory or file of the spool".to_owned(),
            count => format!("{count} directories and files of the spool"),
        };
        trouble.push(format!("{count} could not be read (the log says why)"));
    }
    match trouble.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(complain(&Failure::new(EX_TEMPFAIL, trouble.join("; ")))),
    }
}

/// The summary in one line.
fn words(summary: &Summary) -> String {
    let Summary {
        messages,
        delivered,
        deferred,
        failed,
        frozen,
        notices,
        busy,
        ..
    } = summary;
    if *messages == 0 && *busy == 0 {
        return "Nothing is due.".to_owned();
    }
    let plural = if *messages == 1 {
        "message"
    } else {
        "messages"
    };
    let mut text =
        format!("{messages} {plural}: {delivered} delivered, {deferred} deferred, {failed} failed");
    let notice = if *notices == 1 { "notice" } else { "notices" };
    for (count, what) in [
        (notices, notice),
        (frozen, "frozen"),
        (busy, "in other hands"),
    ] {
        if *count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push('.');
    text
}

fn progress_bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} messages, {per_sec}, {eta} left");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// SIGTERM and SIGINT finish what is in hand; a second one ends the process.
fn stop_on_signals(stop: Stop) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(EX_TEMPFAIL, format!("signals: {error}"));
    let runtime = crate::runner::runtime(None)?;
    let (mut terminate, mut interrupt) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _context = runtime.enter();
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        (terminate, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let wait = move || {
        runtime.block_on(async move {
            for seen in 0.. {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                match seen {
                    0 => stop.stop(),
                    _ => std::process::exit(i32::from(EX_TEMPFAIL)),
                }
            }
        });
    };
    std::thread::Builder::new().spawn(wait).map_err(failed)?;
    Ok(())
}

/// cron gives 1024 descriptors; the hard limit is usually far higher.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard);
    }
}
