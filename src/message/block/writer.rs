//! Formats the envelope block, and seals it.

use std::fmt::Write as _;

use xxhash_rust::xxh3::Xxh3;

use super::{Block, HEAD, Mark, STATE, TO};
use crate::message::dsn::{RecipientDsn, is_envid};
use crate::message::seal::Seal;
use crate::message::{Address, Envelope, Origin, QueueId, Submission, xtext};

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
pub(super) fn checksum(block: &[u8]) -> u128 {
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

impl Block {
    /// Formats the block as it is in the file.
    pub(super) fn spelling(&self) -> Vec<u8> {
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
