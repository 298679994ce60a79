//! Acceptance: from a byte stream to a durable message.
//!
//! The message is streamed; memory use does not grow with its size. A `Received:` field is added at the top.
//! Mail from an application also gets missing `Date:`, `Message-ID:` and `From:` fields, and loses `Bcc:` and
//! `Resent-Bcc:`. Mail from an MTA keeps its header unchanged. No byte of the body changes. Until
//! [`Acceptor::accept`] returns an id, nothing is accepted and no file remains. After that, the spool is
//! responsible for the message.

mod error;
mod input;
mod peek;
mod trace;

use std::io::Read;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

pub use self::error::Error;
use self::input::Input;
pub use self::peek::Peeked;
use crate::disk::{self, Space};
use crate::message::address::without_repeats_of;
use crate::message::block;
use crate::message::dsn::{DsnError, is_envid};
use crate::message::envelope::is_transport_name;
use crate::message::header::{HeaderEnd, HeaderScan, Part, line_ending};
use crate::message::recipients::BLIND_FIELDS;
use crate::message::seal::MAX_BLOCK;
use crate::message::{
    Address, Dsn, Entrance, Envelope, Keyed, QueueId, RecipientDsn, ReversePath, Submission,
    SubmissionKey,
};
use crate::spool::{Draft, Holder, Spool};

/// The limits and names that the configuration sets for acceptance.
#[derive(Clone, Debug)]
pub struct Limits {
    /// This host's name: used in `Received:` and `Message-ID:`, and appended to bare addresses.
    pub hostname: String,
    /// Most octets of a message.
    pub max_size: u64,
    /// Octets that must stay free on the file system.
    pub min_free: u64,
    /// Files that must stay free on the file system.
    pub min_free_inodes: u64,
    /// Most `Received:` fields of an incoming message.
    pub hop_limit: usize,
    /// How long a submission's key is remembered, from acceptance.
    pub key_lifetime: SignedDuration,
    /// How far in the future a release may be.
    pub max_hold: SignedDuration,
}

impl Limits {
    /// The default limits: 50 MB per message, 100 MB and 1,000 files free, 50 hops, keys remembered for a
    /// day, release within 30 days.
    pub fn new(hostname: impl Into<String>) -> Limits {
        Limits {
            hostname: hostname.into(),
            max_size: 50_000_000,
            min_free: 100_000_000,
            min_free_inodes: 1_000,
            hop_limit: 50,
            key_lifetime: SignedDuration::from_hours(24),
            max_hold: SignedDuration::from_hours(30 * 24),
        }
    }
}

/// What a submitter provides besides the message's bytes.
#[derive(Clone, Debug)]
pub struct Request {
    /// The entrance.
    pub entrance: Entrance,
    /// The sender.
    pub sender: ReversePath,
    /// The recipients.
    pub recipients: Vec<Address>,
    /// The transport, if the routes do not decide.
    pub transport: Option<String>,
    /// The DSN parameters of the recipients, in their order (RFC 3461). If a recipient is named twice, the
    /// first applies. By default nothing is requested.
    pub dsn: Dsn,
    /// The submitter's user name or number, for `Received:`.
    pub submitter: String,
    /// The submission key: of several submissions with one key within its lifetime, only the first is
    /// accepted.
    pub key: Option<SubmissionKey>,
    /// No attempt before this time (RFC 4865, HOLDUNTIL). Times in the past are ignored.
    pub release: Option<Timestamp>,
}

/// A durable submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The message's id.
    pub id: QueueId,
    /// It was accepted before, under the same key, and may have been delivered since. Nothing was queued now.
    pub repeated: bool,
}

/// Accepts messages into a spool.
#[derive(Clone, Debug)]
pub struct Acceptor {
    spool: Spool,
    limits: Limits,
    when_durable: Option<Hook>,
}

/// A function called at the commit point.
#[derive(Clone)]
struct Hook(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// Octets of a message between checks of the free space.
const SPACE_STEP: u64 = 8 << 20;

impl Acceptor {
    /// Returns an acceptor that accepts into `spool` within `limits`.
    pub fn new(spool: Spool, limits: Limits) -> Acceptor {
        Acceptor {
            spool,
            limits,
            when_durable: None,
        }
    }

    /// Adds a `hook`, called as soon as a message is durable (commit point *durable*), before anything else
    /// that may take time. After it, a caller with a time limit must not report failure.
    #[must_use]
    pub fn when_durable(self, hook: impl Fn() + Send + Sync + 'static) -> Acceptor {
        Acceptor {
            when_durable: Some(Hook(Arc::new(hook))),
            ..self
        }
    }

    /// Accepts a message. When this returns an id, the message and its envelope are durable, including
    /// directory entries, and the message is in `incoming/` or `active/`.
    #[cfg(feature = "testing")]
    pub fn accept(&self, request: Request, input: impl Read) -> Result<QueueId, Error> {
        self.submit(request, input).map(|accepted| accepted.id)
    }

    /// Like [`accept`](Acceptor::accept), and returns whether the message was already accepted under the
    /// request's key. If so, the input is read and discarded, whatever it is.
    pub fn submit(&self, request: Request, input: impl Read) -> Result<Accepted, Error> {
        let hostname = &self.limits.hostname;
        let (recipients, dsn) = with_dsn_params(request.recipients, request.dsn, hostname)?;
        let mut envelope = Envelope {
            sender: qualified_sender(request.sender, hostname)?,
            recipients,
            submission: Submission {
                transport: request.transport,
                dsn,
                ..Submission::by(request.entrance)
            },
        };
        if envelope.recipients.is_empty() {
            return Err(Error::NoRecipients);
        }
        if let Some(name) = &envelope.submission.transport
            && !is_transport_name(name)
        {
            return Err(Error::BadTransport(name.clone()));
        }
        let now = Timestamp::now();
        envelope.submission.release = self.release(request.release, now)?;
        let mut input = Input::new(input);
        if let Some(key) = &request.key
            && let Some(id) = self.spool.key_holder(key, now)?
        {
            self.drain(&mut input);
            return Ok(repeated(id));
        }
        self.check_space()?;
        input.fill()?;
        if input.bytes().is_empty() {
            return Err(Error::Empty);
        }
        // The key's lifetime begins at the acceptance time in the id.
        let first = new_id(now);
        if let Some(key) = request.key {
            let until = first.accepted().saturating_add(self.limits.key_lifetime);
            let until = until.unwrap_or(Timestamp::MAX);
            envelope.submission.key = Some(Keyed { key, until });
        }
        check_length(&envelope, first)?;
        let mut first = Some(first);
        let ids = || first.take().unwrap_or_else(|| new_id(now));
        let mut draft = self.spool.draft(ids, &envelope)?;
        let arrival = trace::Arrival {
            id: draft.id(),
            now,
            hostname,
            submitter: &request.submitter,
            envelope: &envelope,
        };
        self.stream(&mut draft, &mut input, &arrival)?;
        let id = match &envelope.submission.key {
            None => draft.accept(|| self.is_durable())?,
            Some(keyed) => match self.accept_keyed(draft, &keyed.key)? {
                UnderKey::Accepted(id) => id,
                UnderKey::Known(id) => return Ok(repeated(id)),
            },
        };
        // From here on nothing may report failure: the message is durable, and a caller that submits it again
        // would cause a second delivery.
        trace::log_acceptance(id, &envelope, input.total);
        Ok(Accepted {
            id,
            repeated: false,
        })
    }

    /// Returns the release if it is in the future, rounded up to a full second, so that no message is
    /// released early.
    fn release(
        &self,
        wanted: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let limit = self.limits.max_hold;
        let full = |time: Timestamp| {
            let part = i64::from(time.subsec_nanosecond() > 0);
            Timestamp::from_second(time.as_second() + part).unwrap_or(time)
        };
        match wanted.filter(|release| *release > now).map(full) {
            Some(release) if release.duration_since(now) > limit => {
                Err(Error::HoldTooLong { release, limit })
            }
            release => Ok(release),
        }
    }

    /// Accepts a message under a key, unless another message has it by now. The key is locked only here: a
    /// submitter that sends its message slowly delays no other, and may find that another was faster.
    fn accept_keyed(&self, draft: Draft, key: &SubmissionKey) -> Result<UnderKey, Error> {
        let lock = self.spool.lock_key(key)?.ok_or(Error::KeyBusy)?;
        match lock.holder(key, draft.id().accepted())? {
            Holder::Message(id) => Ok(UnderKey::Known(id)),
            Holder::Busy => Err(Error::KeyBusy),
            Holder::None => {
                let id = draft.accept_keyed(lock, || self.is_durable())?;
                Ok(UnderKey::Accepted(id))
            }
        }
    }

    fn is_durable(&self) {
        if let Some(Hook(hook)) = &self.when_durable {
            hook();
        }
    }

    /// Reads the rest of an unwanted input: the writing process may take a broken pipe for a failure.
    fn drain(&self, input: &mut Input<impl Read>) {
        let most = input.total.saturating_add(self.limits.max_size);
        while !input.eof && input.total < most {
            input.consume(input.bytes().len());
            if input.fill().is_err() {
                break;
            }
        }
    }

    fn stream(
        &self,
        draft: &mut Draft,
        input: &mut Input<impl Read>,
        arrival: &trace::Arrival<'_>,
    ) -> Result<(), Error> {
        self.skip_block(input)?;
        let is_ours = arrival.envelope.submission.entrance == Entrance::Active;
        let mut scan = HeaderScan::of_input(if is_ours { &BLIND_FIELDS } else { &[] });
        let separators = loop {
            match scan.separators(input.bytes(), input.eof) {
                Some(length) => break length,
                None => self.fill(input)?,
            }
        };
        input.consume(separators);
        // A program that wrote an mbox may have put a separator line before the block.
        if separators > 0 {
            self.skip_block(input)?;
        }
        self.fill_first_line(input)?;
        let eol = line_ending(input.bytes());
        draft.write(arrival.received(eol).as_bytes())?;
        let mut line_is_open = false;
        let end = loop {
            let length = match scan.next(input.bytes(), input.eof) {
                Part::Fields(length) => {
                    let header = &input.bytes()[..length];
                    draft.write(header)?;
                    line_is_open = !header.ends_with(b"\n");
                    length
                }
                Part::Separators(length) | Part::TakenOut(length) => length,
                Part::Undecided => {
                    self.fill(input)?;
                    continue;
                }
                Part::End(end) => break end,
            };
            input.consume(length);
            if scan.hops > self.limits.hop_limit {
                let limit = self.limits.hop_limit;
                return Err(self.refused(input, Error::TooManyHops { limit }));
            }
        };
        if is_ours {
            if line_is_open {
                draft.write(eol.as_bytes())?;
            }
            draft.write(arrival.missing_fields(&scan, eol).as_bytes())?;
        }
        if end == HeaderEnd::Body {
            draft.write(eol.as_bytes())?;
        }
        loop {
            draft.write(input.bytes())?;
            input.consume(input.bytes().len());
            if input.eof {
                return Ok(());
            }
            self.fill(input)?;
        }
    }

    /// Skips the envelope block of a message file that is submitted as a message: it is not part of the
    /// message, and it names blind recipients.
    ///
    /// # Errors
    /// If nothing follows the block, which may be torn.
    fn skip_block(&self, input: &mut Input<impl Read>) -> Result<(), Error> {
        const FIRST: &[u8] = b"Mailspool-Seal: ";
        const LINES: &[u8] = b"Mailspool-";
        let mut prefix = FIRST;
        loop {
            while !input.eof
                && input.bytes().len() < prefix.len()
                && prefix.starts_with(input.bytes())
            {
                self.fill(input)?;
            }
            if !input.bytes().starts_with(prefix) {
                let is_empty = prefix == LINES && input.eof && input.bytes().is_empty();
                return if is_empty { Err(Error::Empty) } else { Ok(()) };
            }
            prefix = LINES;
            loop {
                let bytes = input.bytes();
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let (length, is_whole) = end.map_or((bytes.len(), false), |at| (at + 1, true));
                input.consume(length);
                if is_whole || input.eof {
                    break;
                }
                self.fill(input)?;
            }
        }
    }

    /// Reads until the first line is complete: it determines the line ending.
    fn fill_first_line(&self, input: &mut Input<impl Read>) -> Result<(), Error> {
        /// Most octets to wait for.
        const MOST: usize = 64 << 10;
        while !input.eof && input.held.len() < MOST && !input.bytes().contains(&b'\n') {
            self.fill(input)?;
        }
        Ok(())
    }

    fn fill(&self, input: &mut Input<impl Read>) -> Result<(), Error> {
        let before = input.total / SPACE_STEP;
        input.fill()?;
        let limit = self.limits.max_size;
        if input.total > limit {
            return Err(self.refused(input, Error::TooLarge { limit }));
        }
        if input.total / SPACE_STEP > before {
            self.check_space()
        } else {
            Ok(())
        }
    }

    /// Reads the rest of the input before refusing a message: an MTA that gets a broken pipe may ignore the
    /// exit status, which tells it whether to retry.
    fn refused(&self, input: &mut Input<impl Read>, error: Error) -> Error {
        self.drain(input);
        error
    }

    fn check_space(&self) -> Result<(), Error> {
        let Space { bytes, inodes } = self.spool.disk().space()?;
        if bytes < self.limits.min_free {
            return Err(Error::NoRoom {
                what: format!("{bytes} octets"),
                reserve: self.limits.min_free,
            });
        }
        match inodes {
            Some(inodes) if inodes < self.limits.min_free_inodes => Err(Error::NoRoom {
                what: format!("{inodes} inodes"),
                reserve: self.limits.min_free_inodes,
            }),
            _ => Ok(()),
        }
    }
}

/// Qualifies bare recipients with the host name and removes repeats. Returns them with the DSN parameters of
/// those that remain.
fn with_dsn_params(
    recipients: Vec<Address>,
    dsn: Dsn,
    hostname: &str,
) -> Result<(Vec<Address>, Dsn), Error> {
    let wrong = |name, source| Error::Dsn { name, source };
    if dsn.envid.as_deref().is_some_and(|envid| !is_envid(envid)) {
        return Err(wrong("ENVID", DsnError::Envid));
    }
    let unsayable = |params: &RecipientDsn| {
        params
            .original
            .as_ref()
            .is_some_and(|params| params.encoded().is_none())
    };
    if dsn.recipients.iter().any(unsayable) {
        return Err(wrong("ORCPT", DsnError::Original));
    }
    if dsn.recipients.len() > recipients.len() {
        return Err(Error::TooManyWishes);
    }
    let mut dsn_params = dsn.recipients.into_iter();
    let both = recipients.into_iter().map(|recipient| {
        let params = dsn_params.next().unwrap_or_default().normal();
        let whole = recipient.clone().qualified(hostname);
        let wrong = |source| Error::Recipient {
            address: recipient,
            source,
        };
        whole.map(|recipient| (recipient, params)).map_err(wrong)
    });
    let both = both.collect::<Result<Vec<_>, Error>>()?;
    let both = without_repeats_of(both, |(address, _)| address);
    let (recipients, mut dsn_params): (Vec<Address>, Vec<RecipientDsn>) = both.into_iter().unzip();
    let nothing = RecipientDsn::default();
    dsn_params.truncate(
        dsn_params
            .iter()
            .rposition(|params| *params != nothing)
            .map_or(0, |last| last + 1),
    );
    let dsn = Dsn {
        recipients: dsn_params,
        ..dsn
    };
    Ok((recipients, dsn))
}

fn qualified_sender(sender: ReversePath, hostname: &str) -> Result<ReversePath, Error> {
    match sender {
        ReversePath::Null => Ok(ReversePath::Null),
        ReversePath::Mailbox(address) => match address.clone().qualified(hostname) {
            Ok(whole) => Ok(ReversePath::Mailbox(whole)),
            Err(source) => Err(Error::Sender { address, source }),
        },
    }
}

/// Result of accepting a message under a key.
enum UnderKey {
    Accepted(QueueId),
    /// Another message has the key.
    Known(QueueId),
}

/// Refuses an envelope too long to be read again.
fn check_length(envelope: &Envelope, id: QueueId) -> Result<(), Error> {
    if block::open(id, envelope).len() as u64 <= MAX_BLOCK {
        return Ok(());
    }
    let plain = Envelope {
        submission: Submission::by(envelope.submission.entrance),
        ..envelope.clone()
    };
    if block::open(id, &plain).len() as u64 > MAX_BLOCK {
        Err(Error::TooManyRecipients)
    } else {
        Err(Error::WishesTooLong)
    }
}

/// Returns a time limit in words.
fn hours(limit: &SignedDuration) -> String {
    match limit.as_hours() {
        hours if hours >= 48 => format!("{} days", hours / 24),
        _ => format!("{} minutes", limit.as_mins()),
    }
}

fn repeated(id: QueueId) -> Accepted {
    tracing::info!(%id, "submitted again under its key");
    Accepted { id, repeated: true }
}

/// Returns a new id with the acceptance time `now`.
pub fn new_id(now: Timestamp) -> QueueId {
    let mut random = [0; 10];
    random.copy_from_slice(&disk::random()[..10]);
    QueueId::new(now, random)
}

#[cfg(test)]
mod tests;
