//! `suspend` and `resume`: destinations and transports that get no mail.

mod concerned;

use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::args::{Global, Names, Resume, Suspend};
use super::background;
use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Failure};
use super::output::{complain, say};
use super::site::Site;
use super::table;
use super::time::from_now;
use super::waiting::{describe, in_force};
use super::way::Way;
use crate::disk;
use crate::message::{Address, Envelope, printable};
use crate::operator;
use crate::spool::{Changed, Suspension, Target};

/// `mailspool suspend`.
pub(super) fn suspend(global: &Global, args: &Suspend) -> Result<u8, Failure> {
    let site = Site::for_changes(global)?;
    let targets = targets(&site, &args.names, true)?;
    let until = match args.time {
        None => None,
        Some(time) => Some(seconds(from_now(
            time.try_into().unwrap_or(SignedDuration::MAX),
        )?)),
    };
    let by = site.by(args.reason.as_deref());
    for target in targets {
        let suspension = Suspension {
            target,
            since: seconds(Timestamp::now()),
            until,
            by: by.clone(),
        };
        if insist(|| site.spool.suspend(&suspension))? == Changed::Busy {
            return Err(busy(&suspension.target));
        }
        let (target, by) = (&suspension.target, &suspension.by);
        tracing::info!(suspended = %target, by = by.by, reason = by.reason, until = until.map(|until| until.to_string()), "suspended");
        say(&format!("{}\n", done(&site, &suspension)));
        say(&format!(
            "{}\n",
            concerned::count(&site, &suspension.target)
        ));
    }
    Ok(0)
}

/// `mailspool resume`.
pub(super) fn resume(global: &Global, args: &Resume) -> Result<u8, Failure> {
    let site = Site::for_changes(global)?;
    let targets = targets(&site, &args.names, false)?;
    let by = site.by(None).by;
    let mut status = 0;
    let mut resumed = Vec::new();
    for target in targets {
        let name = printable(&target.to_string());
        let mut failed = |failure: Failure| {
            complain(&failure);
            status = EX_TEMPFAIL;
        };
        match insist(|| site.spool.resume(&target.file_name())) {
            // Go on, so that the mail of the targets resumed so far is made due.
            Err(error) => failed(error.into()),
            Ok(Changed::Busy) => failed(busy(&target)),
            Ok(Changed::Absent) => {
                say(&format!("{name} is not suspended.\n"));
                status = status.max(EX_UNAVAILABLE);
            }
            Ok(Changed::Done) => {
                tracing::info!(suspended = %target, by, "resumed");
                say(&format!("{name} is no longer suspended.\n"));
                resumed.push(target);
            }
        }
    }
    say(&still(&site, &resumed));
    if resumed.is_empty() {
        return Ok(status);
    }
    let is_meant = |envelope: &Envelope, to: &Address| {
        // Without a configuration the routes are unknown. Mail that is made due needlessly is deferred again.
        if site.mistake.is_some() {
            return true;
        }
        let wanted = envelope.submission.transport.as_deref();
        let way = Way::of(&site, wanted, &envelope.sender, to);
        resumed.iter().any(|target| way.has(target, to))
    };
    match operator::wake(&site.spool, &is_meant, Timestamp::now()) {
        Ok(count) => {
            let all = match site.mistake {
                Some(_) => ": all suspended mail, because its routes are unknown",
                None => "",
            };
            say(&format!("{} made due{all}.\n", table::messages(count)));
        }
        Err(error) => {
            let text = format!(
                "{error}; the waiting mail is attempted within an hour, or after `mailspool flush`"
            );
            complain(&Failure::new(EX_TEMPFAIL, text));
            status = EX_TEMPFAIL;
        }
    }
    // Also after an error: the other messages are due.
    if !args.queue_only {
        background::attempt(&site, global);
    }
    Ok(status)
}

/// Formats the remaining suspensions that may still hold the resumed mail: that of all mail, and every
/// other one if all mail was resumed.
fn still(site: &Site, resumed: &[Target]) -> String {
    // This is only a hint; `destinations` lists what is suspended.
    let all = in_force(&site.spool, Timestamp::now()).unwrap_or_default();
    let others = all
        .into_iter()
        .filter(|suspension| suspension.target == Target::All || resumed.contains(&Target::All));
    let lines = others.map(|standing| format!("{}.\n", describe(&standing)));
    if resumed.is_empty() {
        String::new()
    } else {
        lines.collect()
    }
}

/// Parses the names. `must_be` rejects a transport that does not exist and a name that can match
/// nothing; `resume` still accepts them.
fn targets(site: &Site, names: &Names, must_be: bool) -> Result<Vec<Target>, Failure> {
    if names.all {
        return Ok(vec![Target::All]);
    }
    let target = |name: &String| {
        if names.transport {
            // Without a usable configuration the transports are unknown. Suspending must still work.
            let is_known = site.mistake.is_none();
            if must_be && is_known && !site.config.transports.contains_key(name) {
                let text = format!("the configuration has no transport {name:?}");
                return Err(Failure::new(EX_USAGE, text));
            }
            return Ok(Target::Transport(name.clone()));
        }
        let wrong = |what: &str| Failure::new(EX_USAGE, format!("{:?}: {what}", printable(name)));
        match name.rsplit_once('@') {
            _ if name.trim().is_empty() => Err(wrong("not a destination")),
            Some((_, domain)) if !name.contains('/') => Err(wrong(&format!(
                "an address is not a destination; its domain is {}",
                printable(domain)
            ))),
            _ => {
                let target = Target::destination(name.trim());
                match concerned::never(site, &target) {
                    Some(why) if must_be => Err(wrong(&why)),
                    _ => Ok(target),
                }
            }
        }
    };
    names.names.iter().map(target).collect()
}

/// Formats the confirmation. Adds a hint if the destination has the name of a transport.
fn done(site: &Site, suspension: &Suspension) -> String {
    let target = &suspension.target;
    let name = printable(&target.to_string());
    let until = match (suspension.until, target) {
        (Some(until), _) => table::time(until),
        (None, Target::Transport(name)) => format!("`mailspool resume --transport {name}`"),
        (None, Target::Destination(_)) => format!("`mailspool resume {name}`"),
        (None, Target::All) => "`mailspool resume --all`".to_owned(),
    };
    let mut text = format!("{name} is suspended until {until}.");
    if let Target::Destination(name) = target
        && site.config.transports.contains_key(name)
    {
        text += &format!(" This is a destination; use --transport for the transport {name}.");
    }
    text
}

/// Truncates a time to seconds, for readability.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Retries a change for up to a second while another process locks the suspension: the lock is held only
/// for moments.
fn insist(mut change: impl FnMut() -> disk::Result<Changed>) -> disk::Result<Changed> {
    const TRIES: usize = 50;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 0..TRIES {
        match change()? {
            Changed::Busy => thread::sleep(PAUSE),
            other => return Ok(other),
        }
    }
    Ok(Changed::Busy)
}

fn busy(target: &Target) -> Failure {
    let name = printable(&target.to_string());
    let text = format!("{name}: another process is suspending or resuming it; try again");
    Failure::new(EX_TEMPFAIL, text)
}
