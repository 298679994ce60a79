//! `retry`, `flush`, `freeze`, `thaw`, `discard`, `bounce`.

use std::io;

use jiff::{SignedDuration, Timestamp};

use super::args::{Act, Discard, Flush, Freeze, Global, How};
use super::background;
use super::destinations::Waiting;
use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Failure, write_once};
use super::log::{self, Quiet};
use super::show::one;
use super::site::Site;
use super::table;
use crate::message::QueueId;
use crate::operator::{self, Acted};
use crate::queue::{Action, By, Then};
use crate::spool::BucketQueue;

/// `mailspool retry`.
pub(super) fn retry(global: &Global, args: &Act) -> Result<u8, Failure> {
    let site = open(global)?;
    let action = Action::Retry(by(&site, &args.how));
    act(&site, global, &args.ids, &args.how, &action, "made due")
}

/// `mailspool freeze`.
pub(super) fn freeze(global: &Global, args: &Freeze) -> Result<u8, Failure> {
    let site = open(global)?;
    let until = match args.time {
        None => None,
        Some(time) => Some(after(time.try_into().unwrap_or(SignedDuration::MAX))?),
    };
    let by = by(&site, &args.act.how);
    act(
        &site,
        global,
        &args.act.ids,
        &args.act.how,
        &Action::Freeze {
            by,
            until,
            then: Then::Thaw,
        },
        "frozen",
    )
}

/// `mailspool thaw`.
pub(super) fn thaw(global: &Global, args: &Act) -> Result<u8, Failure> {
    let site = open(global)?;
    let action = Action::Thaw(by(&site, &args.how));
    act(&site, global, &args.ids, &args.how, &action, "thawed")
}

/// `mailspool discard`.
pub(super) fn discard(global: &Global, args: &Discard) -> Result<u8, Failure> {
    let Discard { act: args, now } = args;
    let site = open(global)?;
    let by = by(&site, &args.how);
    if *now {
        let until = Timestamp::now();
        let action = Action::Discard { by, until };
        return act(
            &site,
            global,
            &args.ids,
            &args.how,
            &action,
            "discarded for good",
        );
    }
    let until = after(site.config.discard_keep)?;
    let done = format!(
        "discarded; `mailspool retry` restores it until {}",
        table::time(until)
    );
    act(
        &site,
        global,
        &args.ids,
        &args.how,
        &Action::Discard { by, until },
        &done,
    )
}

/// `mailspool bounce`.
pub(super) fn bounce(global: &Global, args: &Act) -> Result<u8, Failure> {
    let site = open(global)?;
    let action = Action::Bounce(by(&site, &args.how));
    act(
        &site,
        global,
        &args.ids,
        &args.how,
        &action,
        "bounced; its sender will be notified",
    )
}

/// `mailspool flush`.
pub(super) fn flush(global: &Global, args: &Flush) -> Result<(), Failure> {
    let site = open(global)?;
    if args.how.dry_run {
        let (mut count, mut unread) = (0, Vec::new());
        for bucket in site.spool.buckets_there(BucketQueue::Deferred, &mut unread) {
            match site.spool.ids_in(BucketQueue::Deferred.queue(bucket)) {
                Ok(ids) => count += ids.len(),
                Err(error) => unread.push(error),
            }
        }
        say(&format!("{} would be made due.\n", table::messages(count)));
        return unread
            .into_iter()
            .next()
            .map_or(Ok(()), |error| Err(error.into()));
    }
    let action = Action::Retry(by(&site, &args.how));
    let flushed = operator::flush(&site.spool, &action, Timestamp::now());
    if let Ok(count) = &flushed {
        say(&format!("{} made due.\n", table::messages(*count)));
    }
    // Also after an error: the other messages are due.
    if !args.how.queue_only {
        background::attempt(&site, global);
    }
    Ok(flushed.map(drop)?)
}

fn open(global: &Global) -> Result<Site, Failure> {
    let site = Site::look(global)?;
    log::start(&site.config.log, Quiet::UnlessAsked);
    Ok(site)
}

fn by(site: &Site, how: &How) -> By {
    by_caller(site, how.reason.as_deref())
}

/// Returns the calling user and the reason, for the history.
pub(super) fn by_caller(site: &Site, reason: Option<&str>) -> By {
    let reason = reason.map(crate::message::printable);
    By {
        by: site.caller.with_sudo(),
        reason: reason.filter(|reason| !reason.is_empty()),
    }
}

pub(super) fn after(time: SignedDuration) -> Result<Timestamp, Failure> {
    let then = Timestamp::now().checked_add(time);
    then.map_err(|_| Failure::new(EX_USAGE, "that time is too far away"))
}

fn act(
    site: &Site,
    global: &Global,
    parts: &[String],
    how: &How,
    action: &Action,
    done: &str,
) -> Result<u8, Failure> {
    // Look up every id before acting on any.
    let found: Result<Vec<QueueId>, Failure> =
        parts.iter().map(|part| one(&site.spool, part)).collect();
    let mut ids = found?;
    ids.sort_unstable();
    ids.dedup();
    if how.dry_run {
        ids.iter()
            .for_each(|id| say(&format!("{id} would be {done}.\n")));
        return Ok(0);
    }
    let waiting = Waiting::look(site);
    let mut status = 0;
    for (id, acted) in operator::act(&site.spool, &ids, action, Timestamp::now())? {
        let (words, code) = match acted {
            Acted::Done => (done.to_owned(), 0),
            Acted::Requested => (
                "in use; it will be done as soon as the message is free".to_owned(),
                0,
            ),
            Acted::OtherWaits => (
                "in use, and another request is pending; try again".to_owned(),
                EX_TEMPFAIL,
            ),
            Acted::Absent => ("gone".to_owned(), EX_UNAVAILABLE),
            Acted::Refused(why) => (format!("not done: {why}"), EX_UNAVAILABLE),
            Acted::Failed(why) => (format!("not done now: {why}"), EX_TEMPFAIL),
        };
        let waits = match (code, action) {
            (0, Action::Retry(_) | Action::Thaw(_)) => waiting.suspended(&site.spool, id),
            _ => Ok(None),
        };
        // The action is done even if this lookup fails; go on with the next message.
        say(&match waits {
            Ok(Some(why)) => format!("{id} {words}, but waits: {why}.\n"),
            Ok(None) => format!("{id} {words}.\n"),
            Err(error) => {
                let why = &error.text;
                format!("{id} {words}; whether its mail is suspended is not known: {why}.\n")
            }
        });
        status = status.max(code);
    }
    if !how.queue_only
        && matches!(
            action,
            Action::Retry(_) | Action::Thaw(_) | Action::Bounce(_)
        )
    {
        background::attempt(site, global);
    }
    Ok(status)
}

fn say(text: &str) {
    write_once(io::stdout(), text);
}
