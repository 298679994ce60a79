//! `send` and `receive`: the two doors.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jiff::Timestamp;

use super::args::{Global, Receive, Send, Wishes};
use super::background;
use super::exit::{EX_DATAERR, EX_TEMPFAIL, EX_USAGE, Failure, write_once};
use super::log::{self, Quiet};
use super::site::{IfMissing, Site};
use super::table;
use crate::accept::{Acceptor, Request};
use crate::config::Attempt;
use crate::message::header::{HeaderScan, without_field};
use crate::message::recipients::named_recipients;
use crate::message::{
    Address, AddressError, Door, Dsn, OriginalRecipient, RecipientDsn, ReversePath, SubmissionKey,
};

/// `mailspool receive`.
pub(super) fn receive(global: &Global, args: &Receive) -> Result<(), Failure> {
    let site = Site::open(global, IfMissing::Fail)?;
    log::start(&site.config.log, Quiet::Always);
    watchdog(site.config.accept.timeout);
    let Some(from) = args.from.clone().or_else(|| std::env::var_os("SENDER")) else {
        return Err(Failure::new(
            EX_USAGE,
            "no sender: neither -f nor SENDER is given",
        ));
    };
    let sender = ReversePath::parse(from.as_bytes()).map_err(|error| unusable(&from, error))?;
    let recipients = addresses(&args.recipients)?;
    let key = key(args.key.as_ref())?.map(|key| key.for_recipients(&recipients));
    let request = Request {
        door: Door::Incoming,
        sender,
        transport: None,
        dsn: dsn(&args.wishes, recipients.len())?,
        recipients,
        submitter: site.caller.name.clone(),
        key,
        release: None,
    };
    let acceptor = Acceptor::new(site.spool.clone(), site.limits());
    let accepted = acceptor.submit(request, io::stdin().lock())?;
    // It is ours: nothing that happens now may look like a failure.
    if site.config.accept.attempt == Attempt::Now && !accepted.repeated {
        background::attempt(&site, global);
    }
    // No unwinding, no destructors: the watchdog must not get another word in.
    std::process::exit(0);
}

/// `mailspool send`.
pub(super) fn send(global: &Global, args: &Send) -> Result<(), Failure> {
    let site = Site::open(global, IfMissing::MakeDefault)?;
    log::start(&site.config.log, Quiet::UnlessAsked);
    let sender = match &args.from {
        Some(from) => ReversePath::parse(from.as_bytes()).map_err(|error| unusable(from, error))?,
        None => ReversePath::Mailbox(
            Address::parse(&site.caller.name).map_err(|error| Failure::new(EX_USAGE, error))?,
        ),
    };
    if let Some(name) = &args.transport
        && !site.config.transports.contains_key(name)
    {
        let text = format!("the configuration has no transport {name:?}");
        return Err(Failure::new(EX_USAGE, text));
    }
    let mut recipients = addresses(&args.recipients)?;
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
            "Type the message; end with Ctrl-D on a line of its own.\n",
        );
    }
    let mut input: Box<dyn Read> = Box::new(stdin.lock());
    if args.from_header {
        let (named, header) = header_recipients(&mut input)?;
        recipients.extend(named);
        if recipients.is_empty() {
            return Err(Failure::new(EX_DATAERR, "no recipients in To, Cc or Bcc"));
        }
        input = Box::new(io::Cursor::new(header).chain(input));
    }
    let request = Request {
        door: Door::Active,
        sender,
        transport: args.transport.clone(),
        dsn: dsn(&args.wishes, recipients.len())?,
        recipients,
        submitter: site.caller.name.clone(),
        key: key(args.key.as_ref())?,
        release: args.at,
    };
    let accepted = Acceptor::new(site.spool.clone(), site.limits()).submit(request, input)?;
    write_once(io::stdout(), &format!("{}\n", accepted.id));
    if let Some(release) = args.at.filter(|_| !accepted.repeated) {
        // Programs read the id; this is for people.
        let left = table::span(release.duration_since(Timestamp::now()));
        let text = format!("mailspool: goes in {left}, {}\n", table::time(release));
        write_once(io::stderr(), &text);
    }
    // What is released later is not due.
    let is_due = args.at.is_none_or(|release| release <= Timestamp::now());
    if !args.queue_only && !accepted.repeated && is_due {
        background::attempt(&site, global);
    }
    Ok(())
}

fn addresses(given: &[OsString]) -> Result<Vec<Address>, Failure> {
    let parse = |text: &OsString| {
        Address::from_bytes(text.as_bytes()).map_err(|error| unusable(text, error))
    };
    given.iter().map(parse).collect()
}

/// What is asked for so many recipients.
fn dsn(wishes: &Wishes, recipients: usize) -> Result<Dsn, Failure> {
    let Wishes {
        notify,
        ret,
        envid,
        orcpt,
    } = wishes;
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

/// An original recipient as an MTA can write it without looking: nothing behind the semicolon is
/// none, and an address that is not ASCII has the type of those (RFC 6533).
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

fn unusable(given: &OsString, error: AddressError) -> Failure {
    Failure::new(EX_USAGE, format!("{given:?}: {error}"))
}

/// Ends `receive` with 75 when it takes too long, whatever it waits for: an MTA that loses its
/// patience returns the message to its sender.
fn watchdog(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        write_once(
            io::stderr(),
            "mailspool: taking too long; try again later\n",
        );
        std::process::exit(i32::from(EX_TEMPFAIL));
    });
}

/// Reads the header, takes the recipients out of it, and removes Bcc. What was read beyond the
/// header comes back too.
fn header_recipients(input: &mut dyn Read) -> Result<(Vec<Address>, Vec<u8>), Failure> {
    /// No list of recipients is longer than that.
    const MAX_HEADER: usize = 4 << 20;
    let mut bytes = Vec::new();
    let (mut scan, mut done) = (HeaderScan::default(), 0);
    loop {
        let have = bytes.len();
        bytes.resize(have + (64 << 10), 0);
        let got = match input.read(&mut bytes[have..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                bytes.truncate(have);
                continue;
            }
            Err(error) => {
                return Err(Failure::new(
                    EX_TEMPFAIL,
                    format!("reading the message: {error}"),
                ));
            }
            Ok(got) => got,
        };
        bytes.truncate(have + got);
        let found = scan.push(&bytes[done..], got == 0);
        done += found.header;
        if found.end.is_some() {
            break;
        }
        if bytes.len() > MAX_HEADER {
            return Err(Failure::new(
                EX_DATAERR,
                "the header is too long to take recipients from",
            ));
        }
    }
    let recipients =
        named_recipients(&bytes[..done]).map_err(|error| Failure::new(EX_DATAERR, error))?;
    let mut rest = without_field(&bytes[..done], "Bcc");
    rest.extend_from_slice(&bytes[done..]);
    Ok((recipients, rest))
}
