//! `send` and `receive`: the two entrances.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jiff::Timestamp;

use super::args::{DsnParams, Global, Receive, Send};
use super::background;
use super::exit::{EX_DATAERR, EX_USAGE, Failure};
use super::log::{self, Quiet};
use super::output::write_once;
use super::site::{IfMissing, Site};
use super::table;
use super::watchdog::Watchdog;
use crate::accept::{Acceptor, Peeked, Request};
use crate::config::Attempt;
use crate::message::recipients::{check_beyond, named_recipients};
use crate::message::text::shortened;
use crate::message::{
    Address, AddressError, Dsn, EnhancedCode, Entrance, OriginalRecipient, RecipientDsn,
    ReversePath, SubmissionKey, list,
};

/// The enhanced status code for an invalid recipient address (RFC 3463, 3.2).
const BAD_RECIPIENT: EnhancedCode = EnhancedCode::new(5, 1, 3);

/// The enhanced status code for an invalid sender address.
const BAD_SENDER: EnhancedCode = EnhancedCode::new(5, 1, 7);

/// `mailspool receive`.
pub(super) fn receive(global: &Global, args: &Receive) -> Result<(), Failure> {
    // Reading the configuration, which contains the real limit, may also take long.
    let watchdog = Watchdog::start(Some(Duration::from_secs(600)))?;
    let site = Site::open(global, IfMissing::Fail)?;
    watchdog.set_limit(site.config.accept.timeout);
    log::start(&site.config.log, Quiet::Always);
    let Some(from) = args.from.clone().or_else(|| std::env::var_os("SENDER")) else {
        return Err(Failure::new(
            EX_USAGE,
            "no sender: neither -f nor SENDER is given",
        ));
    };
    let refused = |failure: Failure| {
        drain(&failure, site.config.accept.limits.max_size);
        failure
    };
    let sender = ReversePath::parse(from.as_bytes());
    let sender = sender.map_err(|error| refused(impossible(&from, BAD_SENDER, error)))?;
    let recipients = one_each(&args.recipients).map_err(refused)?;
    let key = key(args.key.as_ref())?.map(|key| key.for_recipients(&recipients));
    let request = Request {
        entrance: Entrance::Incoming,
        sender,
        transport: None,
        dsn: dsn(&args.dsn_params, recipients.len())?,
        recipients,
        submitter: site.caller.name.clone(),
        key,
        release: None,
    };
    let accepted = acceptor(&site, &watchdog).submit(request, io::stdin().lock());
    let accepted = accepted.map_err(|error| refused(error.into()))?;
    // The message is durable, now or from an earlier submission. Nothing may look like a failure from here.
    watchdog.commit();
    if site.config.accept.attempt == Attempt::Now && !accepted.repeated {
        background::attempt(&site, global);
    }
    Ok(())
}

/// Returns an acceptor that tells the watchdog as soon as the message is durable.
fn acceptor(site: &Site, watchdog: &Watchdog) -> Acceptor {
    let watchdog = watchdog.clone();
    let limits = site.config.accept.limits.clone();
    Acceptor::new(site.spool.clone(), limits).when_durable(move || watchdog.commit())
}

/// `mailspool send`.
pub(super) fn send(global: &Global, args: &Send) -> Result<(), Failure> {
    let watchdog = Watchdog::start(None)?;
    let site = Site::open(global, IfMissing::MakeDefault)?;
    log::start(&site.config.log, Quiet::UnlessAsked);
    let sender = match &args.from {
        Some(from) => sender(from)?,
        None => site.caller_as_sender()?,
    };
    if let Some(name) = &args.transport
        && !site.config.transports.contains_key(name)
    {
        let text = format!("the configuration has no transport {name:?}");
        return Err(Failure::new(EX_USAGE, text));
    }
    let mut recipients = listed(&args.recipients)?;
    if recipients.is_empty() && !args.from_header {
        return Err(Failure::new(
            EX_USAGE,
            "no recipients (-t takes them from the header)",
        ));
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        write_once(
            io::stderr(),
            "Type the message; end it with Ctrl-D on an empty line.\n",
        );
    }
    let mut input: Box<dyn Read> = Box::new(stdin.lock());
    if args.from_header {
        let peeked = Peeked::read(input, MAX_HEADER)?;
        let named = named_recipients(&peeked.header, &site.config.hostname);
        let named = named.and_then(|named| check_beyond(&peeked.beyond).map(|()| named));
        recipients.extend(named.map_err(|error| Failure::new(EX_DATAERR, error))?);
        if recipients.is_empty() {
            return Err(Failure::new(
                EX_DATAERR,
                "no recipients in the header's To, Cc or Bcc, or in the Resent- fields that replace them",
            ));
        }
        input = Box::new(peeked);
    }
    let request = Request {
        entrance: Entrance::Active,
        sender,
        transport: args.transport.clone(),
        dsn: dsn(&args.dsn_params, recipients.len())?,
        recipients,
        submitter: site.caller.name.clone(),
        key: key(args.key.as_ref())?,
        release: args.at,
    };
    let accepted = acceptor(&site, &watchdog).submit(request, input)?;
    watchdog.commit();
    write_once(io::stdout(), &format!("{}\n", accepted.id));
    if let Some(release) = args.at.filter(|_| !accepted.repeated) {
        // Standard output has only the id, for programs.
        let left = table::span(release.duration_since(Timestamp::now()));
        let text = format!(
            "mailspool: to be sent in {left}, {}\n",
            table::time(release)
        );
        write_once(io::stderr(), &text);
    }
    // A message with a later release is not due.
    let is_due = args.at.is_none_or(|release| release <= Timestamp::now());
    if !args.queue_only && !accepted.repeated && is_due {
        background::attempt(&site, global);
    }
    Ok(())
}

/// The most octets of a header that recipients are taken from; a longer header is an error.
const MAX_HEADER: usize = 4 << 20;

/// Parses the recipients of `send`. Each argument is an address list, as in a header.
fn listed(given: &[OsString]) -> Result<Vec<Address>, Failure> {
    let mut all = Vec::with_capacity(given.len());
    for text in given {
        let list = list::parse_line(text.as_bytes());
        all.extend(list.map_err(|error| Failure::new(EX_USAGE, error))?);
    }
    Ok(all)
}

/// Parses the sender of `send`: one address, as in a header, or the null sender.
fn sender(given: &OsString) -> Result<ReversePath, Failure> {
    if matches!(given.as_bytes(), b"" | b"<>") {
        return Ok(ReversePath::Null);
    }
    let list = list::parse_line(given.as_bytes());
    match <[Address; 1]>::try_from(list.map_err(|error| Failure::new(EX_USAGE, error))?) {
        Ok([address]) => Ok(ReversePath::Mailbox(address)),
        Err(several) => {
            let text = format!("{given:?}: {} senders; only one is allowed", several.len());
            Err(Failure::new(EX_USAGE, text))
        }
    }
}

/// Parses the recipients of `receive`. Each argument is one envelope address, not a list: an MTA that
/// does not quote passes `"a@x,b"@y` as `a@x,b@y`.
fn one_each(given: &[OsString]) -> Result<Vec<Address>, Failure> {
    let parse = |text: &OsString| {
        Address::from_bytes(text.as_bytes()).map_err(|error| impossible(text, BAD_RECIPIENT, error))
    };
    given.iter().map(parse).collect()
}

/// Returns the failure for an invalid address. It is permanent, because no retry makes the address
/// valid, and the MTA's sender gets a bounce now and not after days. An empty address is a mistake in
/// the MTA's configuration, and defers.
fn impossible(given: &OsString, code: EnhancedCode, error: AddressError) -> Failure {
    let given = shortened(format!("{given:?}"), 200);
    match error {
        AddressError::Empty => Failure::new(EX_USAGE, format!("{given}: {error}")),
        error => Failure {
            permanent: true,
            ..Failure::new(EX_DATAERR, format!("{code} {given}: {error}"))
        },
    }
}

/// Reads the rest of a message after a permanent failure. An MTA that gets a broken pipe may ignore the
/// exit status, which tells it what to do.
fn drain(failure: &Failure, most: u64) {
    if failure.permanent {
        let _ = io::copy(&mut io::stdin().lock().take(most), &mut io::sink());
    }
}

/// Returns the DSN parameters for this number of recipients.
fn dsn(dsn_params: &DsnParams, recipients: usize) -> Result<Dsn, Failure> {
    let DsnParams {
        notify,
        ret,
        envid,
        orcpt,
    } = dsn_params;
    if !orcpt.is_empty() && orcpt.len() != recipients {
        let text = format!(
            "--orcpt is given {} times for {recipients} recipients",
            orcpt.len()
        );
        return Err(Failure::new(EX_USAGE, text));
    }
    let mut dsn = Dsn {
        ret: *ret,
        envid: envid.clone().filter(|envid| !envid.is_empty()),
        recipients: Vec::new(),
    };
    if notify.is_some() || !orcpt.is_empty() {
        let of = |n: usize| {
            let original = orcpt.get(n).map(|text| original(text)).transpose()?;
            Ok(RecipientDsn {
                notify: *notify,
                original: original.flatten(),
            })
        };
        dsn.recipients = (0..recipients).map(of).collect::<Result<_, Failure>>()?;
    }
    Ok(dsn)
}

/// Parses an original recipient in the form that an MTA can write without checking it. Nothing after the
/// semicolon means unset. An address that is not ASCII gets the type `utf-8` (RFC 6533).
fn original(text: &str) -> Result<Option<OriginalRecipient>, Failure> {
    let text = match text.split_once(';') {
        Some((_, "")) => return Ok(None),
        Some((kind, address)) if kind.eq_ignore_ascii_case("rfc822") && !address.is_ascii() => {
            format!("utf-8;{address}")
        }
        _ => text.to_owned(),
    };
    let parsed = text.parse().map(Some);
    parsed.map_err(|error| Failure::new(EX_USAGE, format!("--orcpt {text:?}: {error}")))
}

fn key(given: Option<&OsString>) -> Result<Option<SubmissionKey>, Failure> {
    let key = given.map(|given| SubmissionKey::new(given.as_bytes()));
    key.transpose()
        .map_err(|error| Failure::new(EX_USAGE, error))
}
