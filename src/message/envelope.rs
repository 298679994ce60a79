//! The envelope and its three files: `info/sender/<id>`, `info/recipients/<id>` and
//! `info/transport/<id>`. They are written once, at acceptance, and never change.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::address::{Address, AddressError, ReversePath};
use super::dsn::{Dsn, DsnLines};
use super::id::QueueId;
use super::key::{Keyed, parse_time};
use super::seal::{self, Seal};

/// Through which door a message came in, and so which directory it enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// From an MTA's pipe, into `incoming/`.
    Incoming,
    /// From an application, or a notice of our own, into `active/`.
    Active,
}

/// What a notice tells the sender of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// Delivery to some recipients failed for good (RFC 3464 "failed").
    Bounce,
    /// Some have not got it yet, and are still tried (RFC 3464 "delayed").
    Delay,
    /// Some have it, or whoever has it now tells nobody (RFC 3464 "delivered" and "relayed").
    Success,
}

/// The message that a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its queue id.
    pub id: QueueId,
    /// What is told about it.
    pub kind: NoticeKind,
}

/// What `info/transport/<id>` says above its seal: how the message is to be treated, as far
/// as the submitter decided that. Routes are not here; they are computed at every attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The door it came in by.
    pub door: Door,
    /// The transport, when the submitter named one.
    pub transport: Option<String>,
    /// What it is a notice about, if it is one.
    pub origin: Option<Origin>,
    /// Of what its sender wants to hear, for [`Envelope::recipients`] in their order.
    pub dsn: Dsn,
    /// Under which key it was accepted, if it has one.
    pub key: Option<Keyed>,
    /// Not to be attempted before this time (RFC 4865).
    pub release: Option<Timestamp>,
}

impl Submission {
    /// A submission by `door` that leaves everything else to the configuration.
    pub fn by(door: Door) -> Submission {
        Submission {
            door,
            transport: None,
            origin: None,
            dsn: Dsn::default(),
            key: None,
            release: None,
        }
    }
}

/// Who sent a message and to whom it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where notices go.
    pub sender: ReversePath,
    /// The recipients, at least one, none twice.
    pub recipients: Vec<Address>,
    /// The submitter's decisions.
    pub submission: Submission,
}

/// The bytes of the three `info/` files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeFiles {
    /// `info/sender/<id>`: one line, empty for the null sender.
    pub sender: Vec<u8>,
    /// `info/recipients/<id>`: one address a line.
    pub recipients: Vec<u8>,
    /// `info/transport/<id>`: `name: value` lines, the seal last.
    pub transport: Vec<u8>,
}

/// Why `info/` files cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// `info/sender/<id>` is not exactly one line.
    #[error("info/sender is not one whole line")]
    Sender,
    /// `info/recipients/<id>` is empty or its last line is cut off.
    #[error("info/recipients is empty or cut off")]
    Recipients,
    /// A line is not an address.
    #[error("info/{file}: {source}")]
    Address {
        /// The file below `info/`.
        file: &'static str,
        /// What is wrong with the line.
        source: AddressError,
    },
    /// A line of `info/transport/<id>` is not what this version writes.
    #[error("info/transport: line {0} is not understood")]
    Transport(usize),
    /// The file does not end in a seal.
    #[error("info/transport has no seal")]
    Unsealed,
    /// The sum over the envelope is another one.
    #[error("the envelope does not match its seal")]
    Broken,
}

impl Envelope {
    /// The three files of this envelope, sealed together with a message file of the given
    /// size and checksum.
    pub fn files(&self, size: u64, message: u128) -> EnvelopeFiles {
        let sender = format!("{}\n", self.sender.as_str()).into_bytes();
        let mut recipients = Vec::new();
        for recipient in &self.recipients {
            recipients.extend_from_slice(recipient.as_str().as_bytes());
            recipients.push(b'\n');
        }
        let mut transport = self.submission.lines();
        let seal = Seal {
            size,
            message,
            envelope: seal::of_envelope(&sender, &recipients, transport.as_bytes()),
        };
        let _ = writeln!(transport, "seal: {seal}");
        EnvelopeFiles {
            sender,
            recipients,
            transport: transport.into_bytes(),
        }
    }
}

impl EnvelopeFiles {
    /// Reads the files back. The seal that comes with the envelope has been checked against
    /// these files; checking it against the message file is left to who holds that.
    pub fn parse(&self) -> Result<(Envelope, Seal), EnvelopeError> {
        let (above, seal) = parse_seal(&self.transport)?;
        if seal::of_envelope(&self.sender, &self.recipients, above.as_bytes()) != seal.envelope {
            return Err(EnvelopeError::Broken);
        }
        let sender = parse_sender(&self.sender)?;
        let recipients = parse_recipients(&self.recipients)?;
        let submission = Submission::parse(above, recipients.len())?;
        let envelope = Envelope {
            sender,
            recipients,
            submission,
        };
        Ok((envelope, seal))
    }
}

/// Whether a text can name a transport: letters, digits, `-`, `_` and `.`.
pub fn is_transport_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Reads `info/sender/<id>`. An empty file is not the null sender: that is an empty line.
pub fn parse_sender(bytes: &[u8]) -> Result<ReversePath, EnvelopeError> {
    let line = bytes.strip_suffix(b"\n").ok_or(EnvelopeError::Sender)?;
    if line.contains(&b'\n') {
        return Err(EnvelopeError::Sender);
    }
    let stored = text(line).and_then(ReversePath::stored);
    stored.map_err(|source| EnvelopeError::Address {
        file: "sender",
        source,
    })
}

/// Reads `info/recipients/<id>`.
pub fn parse_recipients(bytes: &[u8]) -> Result<Vec<Address>, EnvelopeError> {
    let lines = bytes.strip_suffix(b"\n").ok_or(EnvelopeError::Recipients)?;
    lines
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let stored = text(line).and_then(Address::stored);
            stored.map_err(|source| EnvelopeError::Address {
                file: "recipients",
                source,
            })
        })
        .collect()
}

fn text(line: &[u8]) -> Result<&str, AddressError> {
    std::str::from_utf8(line).map_err(|_| AddressError::NotUtf8)
}

/// Reads the last line of `info/transport/<id>`: the lines above it, and the seal.
pub fn parse_seal(transport: &[u8]) -> Result<(&str, Seal), EnvelopeError> {
    let text = transport
        .strip_suffix(b"\n")
        .ok_or(EnvelopeError::Unsealed)?;
    let text = std::str::from_utf8(text).map_err(|_| EnvelopeError::Unsealed)?;
    let (above, last) = match text.rfind('\n') {
        Some(at) => (&text[..=at], &text[at + 1..]),
        None => ("", text),
    };
    let seal = last
        .strip_prefix("seal: ")
        .and_then(Seal::parse)
        .ok_or(EnvelopeError::Unsealed)?;
    Ok((above, seal))
}

/// Reads of `info/transport/<id>` under which key the message was accepted. The lines about anything
/// else are not looked at.
pub fn parse_key(transport: &[u8]) -> Result<Option<Keyed>, EnvelopeError> {
    parse_line(transport, "key: ", Keyed::from_line)
}

/// Reads of `info/transport/<id>` when the message is to be released, as [`parse_key`] does.
pub fn parse_release(transport: &[u8]) -> Result<Option<Timestamp>, EnvelopeError> {
    parse_line(transport, "release: ", parse_time)
}

fn parse_line<T>(
    transport: &[u8],
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, EnvelopeError> {
    let (above, _) = parse_seal(transport)?;
    let lines = above.split_terminator('\n').enumerate();
    let mut found = lines.filter_map(|(n, line)| Some((n, line.strip_prefix(name)?)));
    let parsed = found
        .next()
        .map(|(n, value)| parse(value).ok_or(EnvelopeError::Transport(n + 1)));
    parsed.transpose()
}

impl Submission {
    /// The lines of `info/transport/<id>`, but for the seal.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        let door = match self.door {
            Door::Incoming => "incoming",
            Door::Active => "active",
        };
        let _ = writeln!(text, "door: {door}");
        if let Some(name) = &self.transport {
            let _ = writeln!(text, "transport: {name}");
        }
        if let Some(Origin { id, kind }) = &self.origin {
            let _ = writeln!(text, "origin: {id} {}", kind.as_str());
        }
        self.dsn.write_lines(&mut text);
        if let Some(keyed) = &self.key {
            let _ = writeln!(text, "key: {}", keyed.to_line());
        }
        if let Some(release) = &self.release {
            let _ = writeln!(text, "release: {release}");
        }
        text
    }

    /// A name this version does not write is an error, not something to skip: it would be a
    /// wish of the submitter's that nobody honours.
    fn parse(lines: &str, recipients: usize) -> Result<Submission, EnvelopeError> {
        let (mut door, mut transport, mut origin) = (None, None, None);
        let mut dsn = DsnLines::of(recipients);
        let (mut keyed, mut release) = (None, None);
        // Split at LF alone: `lines` would take a CR for part of the line's end.
        for (number, line) in lines.split_terminator('\n').enumerate() {
            let wrong = EnvelopeError::Transport(number + 1);
            match line.split_once(": ") {
                Some(("door", "incoming")) if door.is_none() => door = Some(Door::Incoming),
                Some(("door", "active")) if door.is_none() => door = Some(Door::Active),
                Some(("transport", name)) if transport.is_none() && is_transport_name(name) => {
                    transport = Some(name.to_owned());
                }
                Some(("origin", value)) if origin.is_none() => {
                    let (id, kind) = value.split_once(' ').ok_or(wrong.clone())?;
                    origin = Some(Origin {
                        id: id.parse().map_err(|_| wrong.clone())?,
                        kind: NoticeKind::parse(kind).ok_or(wrong)?,
                    });
                }
                Some(("key", value)) if keyed.is_none() => {
                    keyed = Some(Keyed::from_line(value).ok_or(wrong)?);
                }
                Some(("release", value)) if release.is_none() => {
                    release = Some(parse_time(value).ok_or(wrong)?);
                }
                Some((name, value)) => dsn.add(name, value).ok_or(wrong)?,
                None => return Err(wrong),
            }
        }
        Ok(Submission {
            door: door.ok_or(EnvelopeError::Transport(1))?,
            transport,
            origin,
            dsn: dsn.dsn,
            key: keyed,
            release,
        })
    }
}

impl NoticeKind {
    /// The word for it in files and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Bounce => "bounce",
            NoticeKind::Delay => "delay",
            NoticeKind::Success => "success",
        }
    }

    fn parse(text: &str) -> Option<NoticeKind> {
        let all = [NoticeKind::Bounce, NoticeKind::Delay, NoticeKind::Success];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Notify, OriginalRecipient, RecipientDsn, Ret, SubmissionKey};

    fn envelope() -> Envelope {
        Envelope {
            sender: ReversePath::parse(b"alice@example.org").unwrap(),
            recipients: ["b@example.org", "c@example.net"]
                .map(|text| Address::parse(text).unwrap())
                .to_vec(),
            submission: Submission {
                door: Door::Active,
                transport: Some("out".into()),
                origin: Some(Origin {
                    id: QueueId::new(jiff::Timestamp::UNIX_EPOCH, [1; 10]),
                    kind: NoticeKind::Bounce,
                }),
                dsn: Dsn {
                    ret: Some(Ret::Headers),
                    envid: Some("  a mark; of 1+1=2  ".into()),
                    recipients: vec![
                        RecipientDsn::default(),
                        RecipientDsn {
                            notify: Some(Notify::Never),
                            original: Some(OriginalRecipient {
                                kind: "utf-8".into(),
                                address: "ö; c+d@example.net".into(),
                            }),
                        },
                    ],
                },
                key: Some(Keyed {
                    key: SubmissionKey::new("order 5").unwrap(),
                    until: "2026-11-23T14:05:00.123Z".parse().unwrap(),
                }),
                release: Some("2026-11-23T08:00:00Z".parse().unwrap()),
            },
        }
    }

    #[test]
    fn an_envelope_reads_back() {
        let files = envelope().files(42, 7);
        let (read, seal) = files.parse().unwrap();
        assert_eq!(read, envelope());
        assert_eq!((seal.size, seal.message), (42, 7));
        assert_eq!(files.recipients, b"b@example.org\nc@example.net\n");
        let transport = String::from_utf8(files.transport).unwrap();
        let (lines, _) = transport.split_once("seal: ").unwrap();
        assert_eq!(
            lines,
            "door: active\ntransport: out\n\
             origin: 00000000-0000-7101-8101-010101010101 bounce\n\
             ret: hdrs\nenvid:   a mark; of 1+1=2  \nnotify: 2 never\n\
             orcpt: 2 utf-8;ö; c+d@example.net\n\
             key: 2026-11-23T14:05:00.123Z order+205\nrelease: 2026-11-23T08:00:00Z\n"
        );
    }

    #[test]
    fn a_wish_for_many_is_one_line() {
        let when = |success| {
            Some(Notify::When {
                success,
                failure: true,
                delay: false,
            })
        };
        let of = |notify| RecipientDsn {
            notify,
            original: None,
        };
        let mut dsn = Dsn::default();
        for (count, notify) in [(1, when(true)), (2, None), (9_000, when(false))] {
            dsn.recipients.extend(vec![of(notify); count]);
        }
        dsn.recipients.push(of(Some(Notify::Never)));
        let mut submission = Submission::by(Door::Active);
        submission.dsn = dsn;
        let lines = submission.lines();
        assert_eq!(
            lines,
            "door: active\nnotify: 1 success,failure\nnotify: 4-9003 failure\nnotify: 9004 never\n"
        );
        assert_eq!(Submission::parse(&lines, 9_004), Ok(submission));
        assert!(Submission::parse(&lines, 9_003).is_err());
    }

    #[test]
    fn a_wish_has_one_spelling() {
        for line in [
            "ret: FULL",
            "ret: full\nret: full",
            "envid: ",
            "envid: ö",
            "envid: a\nenvid: a",
            "notify: 0 never",
            "notify: 01 never",
            "notify: +1 never",
            "notify: 1-1 never",
            "notify: 2-1 never",
            "notify: 1-4 never",
            "notify: 1-18446744073709551615 never",
            "notify: 1 ",
            "notify: 1 NEVER",
            "notify: 1 never,failure",
            "notify: 1 failure,success",
            "notify: 1 failure,failure",
            "notify: 1  never",
            "notify: never",
            "notify: 1 never\nnotify: 1 never",
            "notify: 1 never\nnotify: 2 never",
            "notify: 2 never\nnotify: 1 failure",
            "notify: 1-2 never\nnotify: 2 failure",
            "orcpt: 1-2 rfc822;a",
            "orcpt: 4 rfc822;a",
            "orcpt: 1 rfc822;",
            "orcpt: 1 ;a",
            "orcpt: 1 a b;c",
            "orcpt: 1 rfc822;ö",
            "orcpt: 2 rfc822;a\norcpt: 2 rfc822;a",
        ] {
            let lines = format!("door: active\n{line}\n");
            assert!(Submission::parse(&lines, 3).is_err(), "{line:?}");
        }
        let good = "door: active\nnotify: 1-2 never\nnotify: 3 delay\norcpt: 2 x-1;a\n";
        assert_eq!(Submission::parse(good, 3).unwrap().lines(), good);
    }

    #[test]
    fn what_cannot_be_said_is_not_written() {
        let dsn = Dsn {
            ret: None,
            envid: Some("a\nseal: x".into()),
            recipients: vec![RecipientDsn {
                notify: Some(Notify::When {
                    success: false,
                    failure: false,
                    delay: false,
                }),
                original: Some(OriginalRecipient {
                    kind: "rfc822".into(),
                    address: "a\nb".into(),
                }),
            }],
        };
        let mut submission = Submission::by(Door::Active);
        submission.dsn = dsn;
        assert_eq!(submission.lines(), "door: active\n");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let files = envelope().files(42, 7);
        type Part = fn(&mut EnvelopeFiles) -> &mut Vec<u8>;
        let parts: [Part; 3] = [
            |files| &mut files.sender,
            |files| &mut files.recipients,
            |files| &mut files.transport,
        ];
        for part in parts {
            let len = part(&mut files.clone()).len();
            for at in 0..len {
                let mut cut = files.clone();
                part(&mut cut).truncate(at);
                assert!(cut.parse().is_err(), "cut at {at}: {cut:?}");
                for bit in 0..8 {
                    let mut flipped = files.clone();
                    part(&mut flipped)[at] ^= 1 << bit;
                    assert!(
                        flipped.parse().map(|(_, seal)| (seal.size, seal.message)) != Ok((42, 7)),
                        "bit {bit} of byte {at}: {flipped:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_null_sender_is_an_empty_line() {
        let mut with_null = envelope();
        with_null.sender = ReversePath::Null;
        let files = with_null.files(0, 0);
        assert_eq!(files.sender, b"\n");
        assert_eq!(files.parse().unwrap().0.sender, ReversePath::Null);
        assert_eq!(parse_sender(b""), Err(EnvelopeError::Sender));
    }

    #[test]
    fn a_line_from_another_version_is_not_skipped() {
        assert_eq!(
            Submission::parse("door: active\npriority: 5\n", 1),
            Err(EnvelopeError::Transport(2))
        );
    }

    #[test]
    fn a_line_with_something_behind_it_is_another_line() {
        for lines in ["door: active\r\n", "door: active\ntransport: out\r\n"] {
            assert!(Submission::parse(lines, 1).is_err(), "{lines:?}");
        }
    }
}
