//! The envelope, and the three files that show it: `info/sender/<id>`, `info/recipients/<id>` and
//! `info/transport/<id>`. The envelope is stored in the message file only ([`block`](super::block)).

use std::fmt::Write as _;

use jiff::Timestamp;

use super::address::{Address, ReversePath};
use super::dsn::Dsn;
use super::id::QueueId;
use super::key::Keyed;

/// The entrance of a message, which decides the queue it enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// From an MTA's pipe; enters `incoming/`.
    Incoming,
    /// From an application, or a notice of this program; enters `active/`.
    Active,
}

impl Entrance {
    /// The name of the entrance: the directory of its queue.
    pub fn as_str(self) -> &'static str {
        match self {
            Entrance::Incoming => "incoming",
            Entrance::Active => "active",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Entrance> {
        let all = [Entrance::Incoming, Entrance::Active];
        all.into_iter().find(|entrance| entrance.as_str() == text)
    }
}

/// The kind of a notice to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// Permanent failure for some recipients (RFC 3464 "failed").
    Bounce,
    /// Some recipients have not received the message yet; attempts continue (RFC 3464 "delayed").
    Delay,
    /// Delivered, or relayed to a system that sends no notices (RFC 3464 "delivered" and "relayed").
    Success,
}

/// The message that a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its queue id.
    pub id: QueueId,
    /// The kind of the notice about it.
    pub kind: NoticeKind,
}

/// The submitter's decisions about a message. Routes are not stored; each attempt computes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The entrance of the message.
    pub entrance: Entrance,
    /// The transport, if the submitter named one.
    pub transport: Option<String>,
    /// The message that this one is a notice about, if any.
    pub origin: Option<Origin>,
    /// The DSN parameters. Their recipients are those of [`Envelope::recipients`], in the same order.
    pub dsn: Dsn,
    /// The submission key, if any.
    pub key: Option<Keyed>,
    /// The time before which no attempt is made (RFC 4865).
    pub release: Option<Timestamp>,
}

impl Submission {
    /// Returns a submission by this entrance with no other decisions.
    pub fn by(entrance: Entrance) -> Submission {
        Submission {
            entrance,
            transport: None,
            origin: None,
            dsn: Dsn::default(),
            key: None,
            release: None,
        }
    }
}

/// The sender, the recipients and the submitter's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The address that notices are sent to.
    pub sender: ReversePath,
    /// The recipients: at least one, without repeats.
    pub recipients: Vec<Address>,
    /// The submitter's decisions.
    pub submission: Submission,
}

/// The three files in `info/` that show an envelope to operators and scripts. They are never read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeView {
    /// `info/sender/<id>`: one line, empty for the null sender.
    pub sender: String,
    /// `info/recipients/<id>`: one address a line.
    pub recipients: String,
    /// `info/transport/<id>`: `name: value` lines.
    pub transport: String,
}

impl Envelope {
    /// Returns the content of the three files.
    pub fn view(&self) -> EnvelopeView {
        let mut recipients = String::new();
        for recipient in &self.recipients {
            recipients.push_str(recipient.as_str());
            recipients.push('\n');
        }
        EnvelopeView {
            sender: format!("{}\n", self.sender.as_str()),
            recipients,
            transport: self.submission.lines(),
        }
    }
}

/// Whether a text can be the name of a transport: up to 64 letters, digits, `-`, `_` and `.`.
pub fn is_transport_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

impl Submission {
    /// Formats `info/transport/<id>`.
    fn lines(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "door: {}", self.entrance.as_str());
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
}

impl NoticeKind {
    /// The name in files and logs.
    #[doc(hidden)]
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Bounce => "bounce",
            NoticeKind::Delay => "delay",
            NoticeKind::Success => "success",
        }
    }

    pub(super) fn parse(text: &str) -> Option<NoticeKind> {
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
                entrance: Entrance::Active,
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
    fn an_envelope_is_shown_in_three_files() {
        let view = envelope().view();
        assert_eq!(view.sender, "alice@example.org\n");
        assert_eq!(view.recipients, "b@example.org\nc@example.net\n");
        assert_eq!(
            view.transport,
            "door: active\ntransport: out\n\
             origin: 00000000-0000-7101-8101-010101010101 bounce\n\
             ret: hdrs\nenvid:   a mark; of 1+1=2  \nnotify: 2 never\n\
             orcpt: 2 utf-8;ö; c+d@example.net\n\
             key: 2026-11-23T14:05:00.123Z order+205\nrelease: 2026-11-23T08:00:00Z\n"
        );
        let mut with_null = envelope();
        with_null.sender = ReversePath::Null;
        assert_eq!(with_null.view().sender, "\n");
    }

    #[test]
    fn adjacent_recipients_with_the_same_notify_share_a_line() {
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
        let mut submission = Submission::by(Entrance::Active);
        submission.dsn = dsn;
        let lines = submission.lines();
        assert_eq!(
            lines,
            "door: active\nnotify: 1 success,failure\nnotify: 4-9003 failure\nnotify: 9004 never\n"
        );
    }

    #[test]
    fn invalid_parameters_are_not_written() {
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
        let mut submission = Submission::by(Entrance::Active);
        submission.dsn = dsn;
        assert_eq!(submission.lines(), "door: active\n");
    }
}
