//! `retry`, `flush`, `freeze`, `thaw`, `discard`, `bounce`.

use jiff::{SignedDuration, Timestamp};

use super::args::{Act, Discard, Flush, Freeze, Global, How};
use super::background;
use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE, Failure};
use super::lookup;
use super::output::say;
use super::site::Site;
use super::table;
use super::time::from_now;
use super::waiting::Waiting;
use crate::message::QueueId;
use crate::operator::{self, Acted};
use crate::queue::{Action, Then};
use crate::spool::BucketQueue;

/// `mailspool retry`.
pub(super) fn retry(global: &Global, args: &Act) -> Result<u8, Failure> {
    let site = Site::for_changes(global)?;
    let action = Action::Retry(site.by(args.how.reason.as_deref()));
    act(&site, global, &args.ids, &args.how, &action, "made due")
}

/// `mailspool freeze`.
pub(super) fn freeze(global: &Global, args: &Freeze) -> Result<u8, Failure> {
    let site = Site::for_changes(global)?;
    let until = match args.time {
        None => None,
        Some(time) => Some(from_now(time.try_into().unwrap_or(SignedDuration::MAX))?),
    };
    let by = site.by(args.act.how.reason.as_deref());
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
    let site = Site::for_changes(global)?;
    let action = Action::Thaw(site.by(args.how.reason.as_deref()));
    act(&site, global, &args.ids, &args.how, &action, "thawed")
}

/// `mailspool discard`.
pub(super) fn discard(global: &Global, args: &Discard) -> Result<u8, Failure> {
    let Discard { act: args, now } = args;
    let site = Site::for_changes(global)?;
    let by = site.by(args.how.reason.as_deref());
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
    let until = from_now(site.config.discard_keep)?;
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
    let site = Site::for_changes(global)?;
    let action = Action::Bounce(site.by(args.how.reason.as_deref()));
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
    let site = Site::for_changes(global)?;
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
    let action = Action::Retry(site.by(args.how.reason.as_deref()));
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

fn act(
    site: &Site,
    global: &Global,
    parts: &[String],
    how: &How,
    action: &Action,
    done: &str,
) -> Result<u8, Failure> {
    // Look up every id before acting on any.
    let found: Result<Vec<QueueId>, Failure> = parts
        .iter()
        .map(|part| lookup::message(&site.spool, part))
        .collect();
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
