//! A report about an invented message, to show what notices look like.

use std::io;

use jiff::{SignedDuration, Timestamp};

use crate::disk::Body;
use crate::message::{
    Address, EnhancedCode, NoticeKind, OriginalRecipient, QueueId, RecipientDsn, Reply, Ret,
};
use crate::notice::{Action, Report, Reported};
use crate::queue::state::Fate;
use crate::queue::{Handover, RecipientState};

/// 22 November 2026, 14:05 UTC.
const ACCEPTED: i64 = 1_795_356_300;

const MESSAGE: &str = "\
Received: from client.example.net by mail.example.net; Sun, 22 Nov 2026 14:05:00 +0000
From: Example Sender <sender@example.net>
To: first@example.com,
 second@example.com,
 third@example.org
Subject: An example of a message
Date: Sun, 22 Nov 2026 14:04:58 +0000
Message-ID: <example@example.net>

There never was such a message.
";

/// An invented recipient.
struct Invented {
    address: &'static str,
    original: Option<&'static str>,
    code: u16,
    status: EnhancedCode,
    text: &'static str,
    remote: &'static str,
    action: Action,
    expired: bool,
}

/// Passes such a report to `build`.
pub(super) fn report<T>(
    kind: NoticeKind,
    build: impl FnOnce(&Report<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let accepted = Timestamp::from_second(ACCEPTED).map_err(io::Error::other)?;
    let hours = |hours| accepted + SignedDuration::from_hours(hours);
    let (at, until) = match kind {
        NoticeKind::Bounce => (hours(96), None),
        NoticeKind::Delay => (hours(4), Some(hours(96))),
        NoticeKind::Success => (hours(0), None),
    };
    let address = |text: &str| Address::parse(text).map_err(io::Error::other);
    let mut states = Vec::new();
    let mut originals = Vec::new();
    for recipient in invented(kind) {
        let fate = match recipient.action {
            Action::Failed => Fate::Failed {
                since: at,
                expired: recipient.expired,
                notified: false,
            },
            Action::Delayed => Fate::Pending { next: at },
            Action::Delivered | Action::Relayed => Fate::Delivered {
                since: at,
                handover: match recipient.action {
                    Action::Relayed => Handover::Relayed,
                    _ => Handover::Final,
                },
                notified: false,
            },
        };
        states.push(RecipientState {
            address: address(recipient.address)?,
            dsn: RecipientDsn::default(),
            last: Some(Reply::of_server(
                recipient.code,
                Some(recipient.status),
                recipient.text,
                recipient.remote,
            )),
            last_attempt: Some((at, Some("internet".to_owned()))),
            attempts: if recipient.code / 100 == 4 { 19 } else { 1 },
            warn: None,
            warned: None,
            fate,
        });
        originals.push(recipient.original.map(|address| OriginalRecipient {
            kind: "rfc822".to_owned(),
            address: address.to_owned(),
        }));
    }
    let recipients = states.iter().zip(&originals).zip(invented(kind));
    let sender = address("sender@example.net")?;
    build(&Report {
        id: QueueId::new(at, [2; 10]),
        origin: QueueId::new(accepted, [1; 10]),
        kind,
        sender: &sender,
        recipients: recipients
            .map(|((state, original), invented)| Reported {
                state,
                original: original.as_ref(),
                action: invented.action,
                until,
            })
            .collect(),
        ret: Some(Ret::Full),
        envid: Some("EXAMPLE-1"),
        body: Body::of_bytes(MESSAGE.as_bytes()),
        at,
    })
}

fn invented(kind: NoticeKind) -> Vec<Invented> {
    let unknown = Invented {
        address: "first@example.com",
        original: None,
        code: 550,
        status: EnhancedCode::new(5, 1, 1),
        text: "No such user",
        remote: "mx1.example.com",
        action: Action::Failed,
        expired: false,
    };
    let second = "second@example.com";
    let full = Invented {
        address: "third@mail.example.org",
        original: Some("third@example.org"),
        code: 452,
        status: EnhancedCode::new(4, 2, 2),
        text: "Mailbox is over its quota",
        remote: "mx.example.org",
        action: Action::Failed,
        expired: true,
    };
    let busy = |address| Invented {
        address,
        code: 451,
        status: EnhancedCode::new(4, 7, 1),
        text: "Greylisted, please try again later",
        action: Action::Delayed,
        ..unknown
    };
    match kind {
        NoticeKind::Bounce => vec![
            Invented { ..unknown },
            Invented {
                address: second,
                ..unknown
            },
            full,
        ],
        NoticeKind::Delay => vec![
            busy("first@example.com"),
            busy(second),
            Invented {
                action: Action::Delayed,
                expired: false,
                ..full
            },
        ],
        NoticeKind::Success => {
            let taken = |address, action| Invented {
                address,
                code: 250,
                status: EnhancedCode::new(2, 0, 0),
                text: "Ok: queued as 4R2xkT",
                action,
                ..unknown
            };
            vec![
                taken("first@example.com", Action::Relayed),
                taken(second, Action::Delivered),
            ]
        }
    }
}
