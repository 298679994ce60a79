//! A resident run, which reads its configuration again after a change.
//!
//! A changed configuration starts a new runner. The previous runner takes no further message and
//! finishes its transactions concurrently, as runners of two processes do. So a slow command does not
//! delay new mail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Instant;

use super::follow::follow;
use super::progress::Bar;
use super::signals::Control;
use super::{Happening, budget};
use crate::cli::args::{Global, Run};
use crate::cli::ending::leave;
use crate::cli::exit::{EX_SOFTWARE, EX_TEMPFAIL, Failure};
use crate::cli::log;
use crate::cli::site::Site;
use crate::cli::transports::runner;
use crate::runner::{Budget, Stop, Summary};
use crate::spool::Slot;
use crate::spool::layout::CONFIG_FILE;

/// The inputs of a resident run.
pub(super) struct Watching<'a> {
    pub global: &'a Global,
    pub args: &'a Run,
    pub control: &'a Control,
    pub bar: Option<&'a Bar>,
    pub say: Sender<Happening>,
    pub happenings: Receiver<Happening>,
}

/// The runners of a resident run.
struct Runners {
    /// Runners that have not ended.
    running: usize,
    /// Stops the newest runner.
    last: Option<Stop>,
    summary: Summary,
    failure: Option<Failure>,
}

impl Watching<'_> {
    /// Runs until a signal, the budget or a failure ends it. Releases the resident slot as soon as it
    /// takes no more mail.
    pub fn run(self, site: Site, mut residence: Option<Slot>) -> Result<Summary, Failure> {
        let end = self.args.max_time.map(|time| Instant::now() + time);
        let path = match &site.config_file {
            Some(path) => path.clone(),
            None => site.spool.path().join(CONFIG_FILE),
        };
        let say = self.say.clone();
        follow(path, site.config_was.as_ref(), move || {
            drop(say.send(Happening::Reload))
        });
        self.control.stay();
        let mut runners = Runners {
            running: 0,
            last: None,
            summary: Summary::default(),
            failure: None,
        };
        let mut site = site;
        self.begin(&site, &mut runners, end);
        // Whether the next runner waits for the end of the previous one, to know the rest of the budget.
        let mut next_waits = false;
        while runners.running > 0 {
            let Ok(happening) = self.happenings.recv() else {
                break;
            };
            match happening {
                Happening::Stop => residence = None,
                Happening::Reload if self.is_over(&runners) => {}
                Happening::Reload => match site.reread(self.global) {
                    Ok(changed) => {
                        if let Err(error) = log::change(&changed.config.log) {
                            tracing::error!(%error, "[log] cannot be used; the previous log stays in use");
                        }
                        tracing::info!("the configuration has been read again and is in force");
                        site = changed;
                        if let Some(last) = runners.last.take() {
                            last.stop();
                        }
                        match self.args.max_messages {
                            None => self.begin(&site, &mut runners, end),
                            Some(_) => next_waits = true,
                        }
                    }
                    Err(Failure { text, .. }) => {
                        let words = "the configuration has changed and cannot be used; \
                                     the last good one stays in force";
                        tracing::error!(error = text, "{words}");
                    }
                },
                Happening::Ended(result) => {
                    runners.running -= 1;
                    match result {
                        Ok(summary) => runners.summary.add(&summary),
                        Err(error) => {
                            runners.failure.get_or_insert(error.into());
                            // The other runners finish their transactions.
                            if let Some(last) = runners.last.take() {
                                last.stop();
                            }
                        }
                    }
                    if std::mem::take(&mut next_waits) && !self.is_over(&runners) {
                        self.begin(&site, &mut runners, end);
                    }
                }
            }
        }
        drop(residence);
        match runners.failure {
            Some(failure) => Err(failure),
            None => Ok(runners.summary),
        }
    }

    fn is_over(&self, runners: &Runners) -> bool {
        let used_up = |most: u64| runners.summary.messages >= most;
        self.control.is_stopped()
            || runners.failure.is_some()
            || self.args.max_messages.is_some_and(used_up)
    }

    /// Starts a runner on a new thread.
    fn begin(&self, site: &Site, runners: &mut Runners, end: Option<Instant>) {
        let whole = budget(site, self.args);
        let used = runners.summary.messages;
        let budget = Budget {
            max_messages: whole.max_messages.map(|most| most.saturating_sub(used)),
            max_time: end.map(|end| end.saturating_duration_since(Instant::now())),
            ..whole
        };
        let mut runner = runner(site).budget(budget);
        if let Some(bar) = self.bar {
            runner = runner.observer(bar.observer());
        }
        let runner = runner.build();
        self.control.add(runner.stop_handle());
        runners.last = Some(runner.stop_handle());
        let say = self.say.clone();
        let work = move || {
            // The panic hook has already reported a panic. End the run as on the main thread.
            let result = catch_unwind(AssertUnwindSafe(|| runner.watch()));
            match result {
                Ok(result) => drop(say.send(Happening::Ended(result))),
                Err(_) => leave(EX_SOFTWARE),
            }
        };
        let thread = thread::Builder::new().name("runner".to_owned()).spawn(work);
        match thread {
            Ok(_) => runners.running += 1,
            // The other runners finish their transactions.
            Err(error) => {
                let text = format!("starting a thread: {error}");
                let failure = Failure::new(EX_TEMPFAIL, text);
                runners.failure.get_or_insert(failure);
            }
        }
    }
}
