//! The envelope block: the first lines of a message file, before the message itself.
//!
//! The block has the form of header fields with LF line ends. So the file is a valid message, and `cat`
//! shows the envelope and the message together:
//!
//! ```text
//! Mailspool-Seal: 2 0000000432 000000000000561 4f6d…9b1e 02c1…77aa
//! Mailspool-State: idle 000
//! Mailspool-Id: 01a2021c-bff6-75ef-9344-1a834d1db9b8
//! Mailspool-From: <alice@example.org>
//! Mailspool-Entrance: active
//! Mailspool-Recipients: 2
//! Mailspool-To: - <bob@example.net>
//! Mailspool-To: - <carol@example.com> NOTIFY=never
//! ```
//!
//! The first line is the [seal](super::seal). It and the second line have a fixed width, so that they can
//! be overwritten in place. The facts about the whole message come before the recipients, so that the first
//! 4 KiB of the file are enough to list the message.
//!
//! Only the second line and the octet after each `Mailspool-To: ` ever change, each in place. The octet is
//! `-` for a recipient with work left and `+` for a finished one. The checksum of the block skips the
//! second line and reads each of the octets as `-`.
//!
//! Each envelope has exactly one spelling. A block in another spelling is refused, because it may hold a
//! parameter that this version cannot honour.

use std::fmt::Write as _;

use jiff::Timestamp;
use xxhash_rust::xxh3::Xxh3;

use super::address::{Address, ReversePath};
use super::dsn::{Dsn, Notify, OriginalRecipient, RecipientDsn, Ret, is_envid};
use super::envelope::{Entrance, Envelope, NoticeKind, Origin, Submission, is_transport_name};
use super::id::QueueId;
use super::key::{Keyed, parse_time};
use super::seal::{BlockError, Seal};
use super::xtext;

/// The seal and the state line lie within this many octets.
pub const HEAD: usize = 512;

const STATE: &str = "Mailspool-State: ";
const TO: &str = "Mailspool-To: ";

/// The content of the state line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Every recipient is finished; the message is about to be removed.
    pub done: bool,
    /// Consecutive interrupted attempts, at most 999.
    pub interrupted: u16,
}

/// An envelope block as read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The message's id.
    pub id: QueueId,
    /// The lengths and checksums.
    pub seal: Seal,
    /// The state line.
    pub mark: Mark,
    /// The sender, the recipients and the parameters of the submission.
    pub envelope: Envelope,
    /// For each recipient, whether it is finished.
    pub finished: Vec<bool>,
}

impl Mark {
    /// The length of the state line in octets.
    pub const WIDTH: usize = STATE.len() + "idle 000\n".len();
    /// The offset of the state line in the file.
    pub const OFFSET: u64 = Seal::WIDTH as u64;

    /// Formats the state line.
    pub fn line(self) -> String {
        let word = if self.done { "done" } else { "idle" };
        format!("{STATE}{word} {:03}\n", self.interrupted.min(999))
    }

    fn parse(line: &str) -> Option<Mark> {
        let (word, count) = line.strip_prefix(STATE)?.split_once(' ')?;
        let mark = Mark {
            done: word == "done",
            interrupted: count.parse().ok()?,
        };
        (mark.line().strip_suffix('\n') == Some(line)).then_some(mark)
    }
}

/// Formats the block of a new message, with an invalid seal. [`close`] writes the seal when the message is
/// complete.
pub fn open(id: QueueId, envelope: &Envelope) -> Vec<u8> {
    write(Seal::default(), Mark::default(), id, envelope)
}

/// Formats a block in which no recipient is finished.
fn write(seal: Seal, mark: Mark, id: QueueId, envelope: &Envelope) -> Vec<u8> {
    // Estimated octets per recipient. Most addresses are shorter.
    const EACH: usize = 64;
    let recipients = &envelope.recipients;
    let mut text = String::with_capacity(HEAD + recipients.len() * EACH);
    text.push_str(&seal.line());
    text.push_str(&mark.line());
    write_facts(&mut text, id, envelope);
    for (n, recipient) in recipients.iter().enumerate() {
        write_recipient(
            &mut text,
            recipient,
            envelope.submission.dsn.recipients.get(n),
        );
    }
    text.into_bytes()
}

/// Seals a block for a message of `size` octets with the checksum `message`. Only the first line changes.
pub fn close(block: &mut [u8], size: u64, message: u128) {
    let mut seal = Seal {
        block: block.len() as u64,
        size,
        message,
        envelope: 0,
    };
    block[..Seal::WIDTH].copy_from_slice(seal.line().as_bytes());
    seal.envelope = checksum(block);
    block[..Seal::WIDTH].copy_from_slice(seal.line().as_bytes());
}

/// The checksum over the lengths and the checksum of the message, and over the lines after the seal, with
/// everything mutable read as it is at acceptance.
fn checksum(block: &[u8]) -> u128 {
    let (seal, below) = block.split_at(Seal::WIDTH);
    let mut hash = Xxh3::new();
    hash.update(&seal[..Seal::COVERED]);
    hash.update(b"\n");
    for line in below.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(STATE.as_bytes()) {
            continue;
        }
        match line.strip_prefix(TO.as_bytes()) {
            Some([_, rest @ ..]) => {
                hash.update(TO.as_bytes());
                hash.update(b"-");
                hash.update(rest);
            }
            _ => hash.update(line),
        }
    }
    hash.digest128()
}

fn write_facts(text: &mut String, id: QueueId, envelope: &Envelope) {
    let Submission {
        entrance,
        transport,
        origin,
        dsn,
        key,
        release,
    } = &envelope.submission;
    let mut fact = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "Mailspool-{name}: {value}");
    };
    fact("Id", &id);
    fact("From", &format_args!("<{}>", envelope.sender.as_str()));
    fact("Entrance", &entrance.as_str());
    fact("Recipients", &envelope.recipients.len());
    if let Some(release) = release {
        fact("Release", release);
    }
    if let Some(key) = key {
        fact("Key", &key.to_line());
    }
    if let Some(Origin { id, kind }) = origin {
        fact("Origin", &format_args!("{id} {}", kind.as_str()));
    }
    if let Some(name) = transport {
        fact("Transport", name);
    }
    if let Some(ret) = dsn.ret {
        fact("Return", &ret.as_str());
    }
    if let Some(envid) = dsn.envid.as_deref().filter(|text| is_envid(text)) {
        fact("Envid", &encoded(envid));
    }
}

fn write_recipient(text: &mut String, recipient: &Address, dsn: Option<&RecipientDsn>) {
    let _ = write!(text, "{TO}- <{}>", recipient.as_str());
    let RecipientDsn { notify, original } = dsn.cloned().unwrap_or_default();
    if let Some(notify) = notify.filter(|notify| !notify.is_nothing()) {
        let _ = write!(text, " NOTIFY={notify}");
    }
    if let Some(original) = original.filter(|original| original.encoded().is_some()) {
        let _ = write!(text, " ORCPT={}", encoded(&original.to_string()));
    }
    text.push('\n');
}

/// Encodes a submitter's free text as one word without `>`, which ends an address.
fn encoded(text: &str) -> String {
    xtext::encode(text.as_bytes(), b">")
}

fn decoded(word: &str) -> Option<String> {
    String::from_utf8(xtext::decode(word)?).ok()
}

impl Block {
    /// Parses a block. `bytes` must be the first octets of the file, as many as the seal says
    /// ([`Seal::parse`]).
    ///
    /// # Errors
    /// The first deviation from what this version writes.
    pub fn parse(bytes: &[u8]) -> Result<Block, BlockError> {
        let seal = Seal::parse(bytes)?;
        if bytes.len() as u64 != seal.block {
            return Err(BlockError::CutOff);
        }
        if checksum(bytes) != seal.envelope {
            return Err(BlockError::Broken);
        }
        let text = std::str::from_utf8(&bytes[Seal::WIDTH..]).map_err(|_| BlockError::Broken)?;
        let mut lines = Lines::of(text);
        let block = lines.block(seal).ok_or(BlockError::Line(lines.number))?;
        // The parser accepts more than one spelling; this version writes only one.
        if block.spelling() == bytes {
            Ok(block)
        } else {
            Err(BlockError::Broken)
        }
    }

    /// Formats the block as it is in the file.
    fn spelling(&self) -> Vec<u8> {
        let mut bytes = write(self.seal, self.mark, self.id, &self.envelope);
        for (offset, finished) in self.octets().zip(&self.finished) {
            if *finished {
                bytes[offset as usize] = b'+';
            }
        }
        bytes
    }

    /// The offset of each recipient's octet in the file.
    pub fn octets(&self) -> impl Iterator<Item = u64> {
        let mut facts = String::new();
        write_facts(&mut facts, self.id, &self.envelope);
        let mut line_begin = (Seal::WIDTH + Mark::WIDTH + facts.len()) as u64;
        let dsn = &self.envelope.submission.dsn.recipients;
        let mut line = String::new();
        let recipients = self.envelope.recipients.iter().enumerate();
        recipients.map(move |(n, recipient)| {
            let octet = line_begin + TO.len() as u64;
            line.clear();
            write_recipient(&mut line, recipient, dsn.get(n));
            line_begin += line.len() as u64;
            octet
        })
    }
}

/// The lines of a block after the seal.
struct Lines<'a> {
    rest: std::iter::Peekable<std::str::SplitTerminator<'a, char>>,
    /// The number in the file of the line read last.
    number: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        Lines {
            // Split at LF only: `lines` would treat a CR as part of the line end.
            rest: text.split_terminator('\n').peekable(),
            number: 1,
        }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.number += 1;
        self.rest.next()
    }

    /// Returns the value of the next line, if the line has this name.
    fn fact(&mut self, name: &str) -> Option<&'a str> {
        let value = |line: &&'a str| {
            let line = line.strip_prefix("Mailspool-")?.strip_prefix(name)?;
            line.strip_prefix(": ")
        };
        let value = self.rest.peek().and_then(value)?;
        self.next();
        Some(value)
    }

    /// Like [`fact`](Lines::fact), for a required line. If it is missing, `number` becomes that of the line
    /// found instead.
    fn needed(&mut self, name: &str) -> Option<&'a str> {
        let value = self.fact(name);
        self.number += usize::from(value.is_none());
        value
    }

    /// Reads an optional line. Returns `None` if its value is invalid.
    fn optional<T>(
        &mut self,
        name: &str,
        read: impl Fn(&'a str) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.fact(name) {
            None => Some(None),
            Some(value) => read(value).map(Some),
        }
    }

    fn block(&mut self, seal: Seal) -> Option<Block> {
        let mark = Mark::parse(self.next()?)?;
        let id = self.needed("Id")?.parse().ok()?;
        let sender = self.needed("From")?;
        let sender = sender.strip_prefix('<')?.strip_suffix('>')?;
        let sender = ReversePath::stored(sender).ok()?;
        let entrance = Entrance::parse(self.needed("Entrance")?)?;
        let count: usize = self.needed("Recipients")?.parse().ok()?;
        let release: Option<Timestamp> = self.optional("Release", parse_time)?;
        let key = self.optional("Key", Keyed::from_line)?;
        let origin = self.optional("Origin", |value| {
            let (id, kind) = value.split_once(' ')?;
            Some(Origin {
                id: id.parse().ok()?,
                kind: NoticeKind::parse(kind)?,
            })
        })?;
        let transport = self.optional("Transport", |name| {
            is_transport_name(name).then(|| name.to_owned())
        })?;
        let ret = self.optional("Return", |value| value.parse::<Ret>().ok())?;
        let envid = self.optional("Envid", |word| decoded(word).filter(|text| is_envid(text)))?;
        // The capacity is limited by the size of the block, whatever the number says.
        let most = seal.block as usize / (TO.len() + "- <x>\n".len());
        let mut dsn = Dsn {
            ret,
            envid,
            recipients: Vec::new(),
        };
        let mut recipients = Vec::with_capacity(count.min(most));
        let mut finished = Vec::with_capacity(count.min(most));
        while let Some(line) = self.next() {
            let (octet, address, wish) = recipient(line)?;
            if wish != RecipientDsn::default() {
                dsn.recipients
                    .resize_with(recipients.len(), Default::default);
                dsn.recipients.push(wish);
            }
            recipients.push(address);
            finished.push(octet);
        }
        let is_whole = recipients.len() == count && count > 0;
        is_whole.then_some(Block {
            id,
            seal,
            mark,
            envelope: Envelope {
                sender,
                recipients,
                submission: Submission {
                    entrance,
                    transport,
                    origin,
                    dsn,
                    key,
                    release,
                },
            },
            finished,
        })
    }
}

/// Parses a recipient line: whether the recipient is finished, the address, and the DSN parameters.
fn recipient(line: &str) -> Option<(bool, Address, RecipientDsn)> {
    let rest = line.strip_prefix(TO)?;
    let (finished, rest) = match rest.strip_prefix('-') {
        Some(rest) => (false, rest),
        None => (true, rest.strip_prefix('+')?),
    };
    let rest = rest.strip_prefix(" <")?;
    // A quoted local part may contain `>`; a parameter never does.
    let (address, parameters) = rest.rsplit_once('>')?;
    let mut wish = RecipientDsn::default();
    for parameter in parameters.split(' ').skip(1) {
        match parameter.split_once('=')? {
            ("NOTIFY", words) => wish.notify = Some(words.parse::<Notify>().ok()?),
            ("ORCPT", word) => {
                wish.original = Some(decoded(word)?.parse::<OriginalRecipient>().ok()?);
            }
            _ => return None,
        }
    }
    Some((finished, Address::stored(address).ok()?, wish))
}

#[cfg(test)]
mod tests;
