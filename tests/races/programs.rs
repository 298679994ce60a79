//! What processes do.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailspool::accept::{Acceptor, Error as Refused};
use mailspool::disk::Seam;
use mailspool::message::Entrance;
use mailspool::operator::{act, check, flush, wake};
use mailspool::queue::{Action, FailedAttempt, RetryPolicy};
use mailspool::spool::{Queue, Spool, Suspension, Target};

use super::shared::{Clock, configured, limits, request, submit, text};
use super::stage::{Case, Program, Said, Stage, by};

/// A runner's pass, by its own clock.
pub fn pass(minutes: i64) -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        let clock = Clock::at(case.stage.at(minutes));
        let runner = case.runner(spool, &clock).threads(1).build();
        runner.pass().map(Said::Passed).map_err(text_of)
    })
}

/// A pass with a schedule by which everything is due at the same minute.
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

/// Everything is tried again at this time.
pub struct At(pub Timestamp);

impl RetryPolicy for At {
    fn next_attempt(&self, _: &FailedAttempt<'_>) -> Option<Timestamp> {
        Some(self.0)
    }

    fn longest_delay(&self) -> SignedDuration {
        SignedDuration::from_hours(100)
    }
}

/// An operator's action on the first message.
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

/// An operator wants every host tried that is down.
pub fn clearing() -> Program {
    Box::new(move |case, seam| {
        let spool = open(case, seam)?;
        for down in spool.all_down().map_err(text_of)? {
            spool.forget_down(&down.destination).map_err(text_of)?;
        }
        Ok(Said::Made)
    })
}

/// An operator suspends a domain, for good or until a minute, and gives a reason.
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

/// A domain, or with a star all mail.
fn target(domain: &str) -> Target {
    match domain {
        "*" => Target::All,
        domain => Target::destination(domain),
    }
}

/// An operator lets everything go that is suspended, and has it tried.
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

/// Under the one key there is. A process that finds it taken is told so here; on its own it waits.
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

/// A run's look through `new/`, `staged/` and `keys/`, and nothing else of it.
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

/// An attempt of the first message, without what a run does before.
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

/// A run's look through the view, and nothing else of it.
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
    Spool::open_through(&case.path, Some(seam)).map_err(text_of)
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}
