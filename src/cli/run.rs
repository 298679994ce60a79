//! `run`.

mod follow;
mod progress;
mod reaper;
mod signals;
mod watch;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::args::{Global, Run};
use super::descriptors;
use super::exit::{EX_TEMPFAIL, Failure};
use super::log::{self, Quiet};
use super::output::{complain, write_once};
use super::site::{IfMissing, Site};
use super::table;
use super::transports::runner;
use crate::runner::{Budget, Error, Summary, take_residence};
use crate::spool::{Slot, Spool};
use progress::Bar;
use signals::{Control, act_on_signals};
use watch::Watching;

/// An event that a resident run waits for.
enum Happening {
    /// Read the configuration again.
    Reload,
    /// End the run.
    Stop,
    /// A runner has ended.
    Ended(Result<Summary, Error>),
}

/// `mailspool run`.
pub(super) fn run(global: &Global, args: &Run) -> Result<u8, Failure> {
    let site = Site::open(global, IfMissing::MakeDefault)?;
    log::start(&site.config.log, Quiet::No);
    descriptors::raise_limit();
    let shows_bar = io::stderr().is_terminal() && !args.quiet && !args.in_slot;
    let bar = shows_bar.then(Bar::start).flatten();
    let control = Arc::new(Control::default());
    let (say, happenings) = channel();
    act_on_signals(Arc::clone(&control), say.clone())?;
    let watching = Watching {
        global,
        args,
        control: &control,
        bar: bar.as_ref(),
        say,
        happenings,
    };
    let summary = match (args.watch, args.in_slot) {
        (true, _) => {
            // No other process would reap background attempts if this is process 1. While the resident slot
            // is taken, `send` starts none.
            let residence = match std::process::id() {
                1 => residence(&site.spool)?,
                _ => None,
            };
            watching.run(site, residence)
        }
        (false, true) => in_slot(site, watching),
        (false, false) => {
            let mut runner = runner(&site).budget(budget(&site, args));
            if let Some(bar) = &bar {
                runner = runner.observer(bar.observer());
            }
            let runner = runner.build();
            control.add(runner.stop_handle());
            runner.pass().map_err(Failure::from)
        }
    };
    drop(bar);
    let summary = summary?;
    if !args.quiet {
        write_once(io::stdout(), &format!("{}\n", summary_line(&summary)));
    }
    let mut trouble = Vec::new();
    if summary.corrupt > 0 {
        let count = table::messages(summary.corrupt as usize);
        trouble.push(format!("{count} moved to corrupt/ (see `mailspool list`)"));
    }
    if summary.trouble > 0 {
        let count = table::messages(summary.trouble as usize);
        trouble.push(format!("{count} could not be processed (see the log)"));
    }
    if summary.unread > 0 {
        let count = match summary.unread {
            1 => "1 directory or file of the spool".to_owned(),
            count => format!("{count} directories and files of the spool"),
        };
        trouble.push(format!("{count} could not be read (see the log)"));
    }
    if trouble.is_empty() {
        Ok(0)
    } else {
        Ok(complain(&Failure::new(EX_TEMPFAIL, trouble.join("; "))))
    }
}

fn budget(site: &Site, args: &Run) -> Budget {
    Budget {
        jobs: args.jobs.map_or(site.config.run.jobs, |jobs| jobs as usize),
        max_messages: args.max_messages,
        max_time: args.max_time,
    }
}

/// Runs a background attempt. It stays as the resident run if nothing would reap it.
fn in_slot(site: Site, watching: Watching<'_>) -> Result<Summary, Failure> {
    let runner = runner(&site).budget(budget(&site, watching.args)).build();
    watching.control.add(runner.stop_handle());
    let passed = runner.pass_in_slot(site.config.run.background);
    let mut summary = passed?.unwrap_or_default();
    if watching.control.is_stopped() || reaper::would_be_reaped() {
        return Ok(summary);
    }
    let Some(residence) = residence(&site.spool)? else {
        return Ok(summary);
    };
    summary.add(&watching.run(site, Some(residence))?);
    Ok(summary)
}

/// Takes the resident slot; none if another process holds it. Retries briefly, because a process that
/// only checks whether the slot is taken locks it for a moment.
fn residence(spool: &Spool) -> Result<Option<Slot>, Failure> {
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        if let Some(residence) = take_residence(spool)? {
            return Ok(Some(residence));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

/// Formats the summary in one line.
fn summary_line(summary: &Summary) -> String {
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
    for (count, what) in [(notices, notice), (frozen, "frozen"), (busy, "in use")] {
        if *count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push('.');
    text
}
