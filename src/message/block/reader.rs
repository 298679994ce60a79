//! Parses the envelope block.

use jiff::Timestamp;

use super::writer::checksum;
use super::{Block, Mark, TO};
use crate::message::dsn::{Dsn, Notify, OriginalRecipient, RecipientDsn, Ret, is_envid};
use crate::message::envelope::{
    Entrance, Envelope, NoticeKind, Origin, Submission, is_transport_name,
};
use crate::message::key::{Keyed, parse_time};
use crate::message::seal::{BlockError, Seal};
use crate::message::{Address, ReversePath, xtext};

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

fn decoded(word: &str) -> Option<String> {
    String::from_utf8(xtext::decode(word)?).ok()
}
