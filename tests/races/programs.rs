//! The programs of the processes.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::accept::{Acceptor, Error as Refused};
use mailspool::testing::disk::Seam;
use mailspool::testing::message::Entrance;
use mailspool::testing::operator::{act, check, flush, wake};
use mailspool::testing::queue::{Action, FailedAttempt, RetryPolicy};
use mailspool::testing::spool::{Queue, Spool, Suspension, Target};

use super::shared::{Clock, configured, limits, request, submit, text};
use super::stage::{Case, Program, Said, Stage, by};

/// Runs a pass at `minutes`.
pub fn pass(minutes: i64) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let clock = Clock::at(case.stage.at(minutes));
        let runner = case.runner(spool, &clock).threads(1).build();
        runner.pass().map(Said::Passed).map_err(text_of)
    })
}

/// Runs a pass at `minutes` that defers everything to the minute `next`.
pub fn pass_to(minutes: i64, next: i64) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let clock = Clock::at(case.stage.at(minutes));
        let runner = configured(spool, &case.ledger, &clock, case.stage.start)
            .retry(At(case.stage.at(next)))
            .threads(1)
            .build();
        runner.pass().map(Said::Passed).map_err(text_of)
    })
}

/// A retry policy with one fixed time.
pub struct At(pub Timestamp);

impl RetryPolicy for At {
    fn next_attempt(&self, _: &FailedAttempt<'_>) -> Option<Timestamp> {
        Some(self.0)
    }

    fn longest_delay(&self) -> SignedDuration {
        SignedDuration::from_hours(100)
    }
}

/// Applies an operator's action to the first message.
pub fn order(action: Action) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let ids = &case.stage.ids[..1];
        let acted = act(&spool, ids, &action, case.stage.at(2)).map_err(text_of)?;
        let (_, acted) = acted.into_iter().next().unwrap();
        Ok(Said::Acted(acted))
    })
}

pub fn flushing() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let flushed = flush(&spool, &Action::Retry(by()), case.stage.at(2));
        flushed.map(Said::Flushed).map_err(text_of)
    })
}

/// Clears all down states, as an operator does.
pub fn clearing() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        for down in spool.all_down().map_err(text_of)? {
            spool.forget_down(&down.destination).map_err(text_of)?;
        }
        Ok(Said::Made)
    })
}

/// Suspends a domain until a minute, or without an end, and gives a reason.
pub fn suspending(domain: &'static str, until: Option<i64>, reason: &'static str) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let one = suspension(case.stage, domain, until, reason);
        spool.suspend(&one).map(Said::Changed).map_err(text_of)
    })
}

pub fn suspension(stage: &Stage, domain: &str, until: Option<i64>, reason: &str) -> Suspension {
    let mut by = by();
    by.reason = Some(reason.into());
    Suspension {
        target: target(domain),
        since: stage.at(1),
        until: until.map(|minutes| stage.at(minutes)),
        by,
    }
}

/// Returns a target: a domain, or all mail for `*`.
fn target(domain: &str) -> Target {
    match domain {
        "*" => Target::All,
        domain => Target::destination(domain),
    }
}

/// Resumes a domain, and makes its messages due.
pub fn resuming(domain: &'static str) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let changed = spool.resume(&target(domain).file_name()).map_err(text_of)?;
        wake(&spool, &|_, _| true, case.stage.at(2)).map_err(text_of)?;
        Ok(Said::Changed(changed))
    })
}

pub fn accepting(entrance: Entrance, to: &'static [&'static str]) -> Program {
    Box::new(move |case, seam| {
        let acceptor = Acceptor::new(open(case, seam)?, limits());
        case.next_millisecond();
        let request = request(entrance, "s@sender.test", to);
        let accepted = acceptor.accept(request, text("accepted").as_slice());
        accepted.map(Said::Accepted).map_err(text_of)
    })
}

/// Submits a message under the key that all tests use. If the key is in use, it returns [`Said::Busy`]; outside of
/// a schedule the submission waits.
pub fn submitting(to: &'static str) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        case.next_millisecond();
        match submit(&spool, to) {
            Ok(accepted) => Ok(Said::Accepted(accepted.id)),
            Err(Refused::KeyBusy) => Ok(Said::Busy),
            Err(error) => Err(text_of(error)),
        }
    })
}

pub fn listing(times: usize) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let listings = (0..times).map(|_| {
            let mut listing = spool.listing();
            match listing.unread.pop() {
                None => Ok(listing),
                Some(error) => Err(error),
            }
        });
        let listings = listings.collect::<Result<_, _>>();
        listings.map(Said::Listed).map_err(text_of)
    })
}

/// Sweeps `new/`, `staged/` and `keys/`, without the rest of a run.
pub fn sweeping() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        for id in spool.ids_in(Queue::New).map_err(text_of)? {
            spool.sweep_new(id).map_err(text_of)?;
        }
        for id in spool.ids_in(Queue::Staged).map_err(text_of)? {
            spool.sweep_staged(id).map_err(text_of)?;
        }
        match spool.purge_keys(case.stage.at(50)).pop() {
            None => Ok(Said::Made),
            Some(error) => Err(text_of(error)),
        }
    })
}

/// Attempts the first message, without the rest of a run.
pub fn attempting() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let clock = Clock::at(case.stage.at(1));
        let runner = case.runner(spool, &clock).threads(1).build();
        let settled = runner.attempt(case.stage.ids[0]).map_err(text_of)?;
        Ok(Said::MessageOutcome(settled))
    })
}

/// Fills the reserve, as a run does.
pub fn filling() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        spool.fill_reserve().map(|_| Said::Made).map_err(text_of)
    })
}

/// Repairs the view, without the rest of a run.
pub fn showing() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        match spool.repair_views().pop() {
            None => Ok(Said::Made),
            Some(error) => Err(text_of(error)),
        }
    })
}

pub fn checking(repair: bool) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        check(&spool, repair).map(Said::Checked).map_err(text_of)
    })
}

fn open(case: &Case<'_>, seam: Arc<dyn Seam>) -> Result<Spool, String> {
    let spool = Spool::open_through(&case.path, Some(seam)).map_err(text_of)?;
    Ok(if case.stage.folds {
        spool.folding_from(1)
    } else {
        spool
    })
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}
