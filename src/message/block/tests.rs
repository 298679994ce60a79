use super::*;
use crate::message::{
    Address, BlockError, Dsn, Entrance, Keyed, NoticeKind, Notify, Origin, OriginalRecipient,
    RecipientDsn, Ret, ReversePath, SealHasher, Submission, SubmissionKey,
};
use jiff::Timestamp;

fn id() -> QueueId {
    QueueId::new(Timestamp::UNIX_EPOCH, [1; 10])
}

fn envelope() -> Envelope {
    let original = OriginalRecipient {
        kind: "utf-8".into(),
        address: "ö; c+d>@example.net".into(),
    };
    Envelope {
        sender: ReversePath::parse(b"alice@example.org").unwrap(),
        recipients: ["b@example.org", "\"a> NOTIFY=never\"@example.net", "c@x"]
            .map(|text| Address::parse(text).unwrap())
            .to_vec(),
        submission: Submission {
            entrance: Entrance::Incoming,
            transport: Some("out".into()),
            origin: Some(Origin {
                id: QueueId::new(Timestamp::UNIX_EPOCH, [2; 10]),
                kind: NoticeKind::Delay,
            }),
            dsn: Dsn {
                ret: Some(Ret::Headers),
                envid: Some("  a mark; of 1+1=2  ".into()),
                recipients: vec![
                    RecipientDsn::default(),
                    RecipientDsn {
                        notify: Some(Notify::Never),
                        original: Some(original),
                    },
                ],
            },
            key: Some(Keyed {
                key: SubmissionKey::new("order 5\n").unwrap(),
                until: "2026-11-23T14:05:00.123Z".parse().unwrap(),
            }),
            release: Some("2026-11-23T08:00:00Z".parse().unwrap()),
        },
    }
}

fn message() -> (u64, u128) {
    let mut hasher = SealHasher::new();
    hasher.update(b"Subject: x\n\n");
    (hasher.size(), hasher.digest())
}

fn sealed(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = open(id(), envelope);
    let (size, sum) = message();
    close(&mut bytes, size, sum);
    bytes
}

/// Seals a text again, after a test has changed lines below the first.
fn resealed(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    close(&mut bytes, 12, 7);
    bytes
}

#[test]
fn a_block_reads_back_and_is_what_cat_shows() {
    let bytes = sealed(&envelope());
    let block = Block::parse(&bytes).unwrap();
    assert_eq!(block.envelope, envelope());
    assert_eq!((block.id, block.mark), (id(), Mark::default()));
    assert_eq!((block.seal.size, block.seal.message), message());
    assert_eq!(block.finished, [false; 3]);
    let text = String::from_utf8(bytes).unwrap();
    let below: String = text.split_inclusive('\n').skip(1).collect();
    assert_eq!(
        below,
        "Mailspool-State: idle 000\n\
         Mailspool-Id: 00000000-0000-7101-8101-010101010101\n\
         Mailspool-From: <alice@example.org>\n\
         Mailspool-Entrance: incoming\n\
         Mailspool-Recipients: 3\n\
         Mailspool-Release: 2026-11-23T08:00:00Z\n\
         Mailspool-Key: 2026-11-23T14:05:00.123Z order+205+0A\n\
         Mailspool-Origin: 00000000-0000-7202-8202-020202020202 delay\n\
         Mailspool-Transport: out\n\
         Mailspool-Return: hdrs\n\
         Mailspool-Envid: +20+20a+20mark;+20of+201+2B1+3D2+20+20\n\
         Mailspool-To: - <b@example.org>\n\
         Mailspool-To: - <\"a> NOTIFY=never\"@example.net> NOTIFY=never \
         ORCPT=utf-8;+C3+B6;+20c+2Bd+3E@example.net\n\
         Mailspool-To: - <c@x>\n"
    );
    let [seal, ..] = *text.split('\n').collect::<Vec<_>>() else {
        panic!()
    };
    let length = text.len();
    assert!(
        seal.starts_with(&format!("Mailspool-Seal: 2 {length:010} 000000000000012 ")),
        "{seal}"
    );
    assert_eq!(seal.len() + 1, Seal::WIDTH);
    const { assert!(Seal::WIDTH + Mark::WIDTH <= HEAD) };
    let plain = Envelope {
        sender: ReversePath::Null,
        recipients: envelope().recipients,
        submission: Submission::by(Entrance::Active),
    };
    let read = Block::parse(&sealed(&plain)).unwrap();
    assert_eq!(read.envelope, plain);
}

#[test]
fn changes_in_place_keep_the_seal_valid() {
    let mut bytes = sealed(&envelope());
    let block = Block::parse(&bytes).unwrap();
    let mark = Mark {
        done: true,
        interrupted: 12,
    };
    let at = Mark::OFFSET as usize;
    bytes[at..at + Mark::WIDTH].copy_from_slice(mark.line().as_bytes());
    for (n, offset) in block.octets().enumerate() {
        let octet = &mut bytes[offset as usize];
        assert_eq!(*octet, b'-');
        if n != 1 {
            *octet = b'+';
        }
    }
    let read = Block::parse(&bytes).unwrap();
    assert_eq!(read.mark, mark);
    assert_eq!(read.finished, [true, false, true]);
    assert_eq!(read.seal, block.seal);
    assert_eq!(read.envelope, block.envelope);
}

#[test]
fn every_cut_and_every_flipped_bit_is_detected() {
    let bytes = sealed(&envelope());
    let block = Block::parse(&bytes).unwrap();
    let octets: Vec<u64> = block.octets().collect();
    for at in 0..bytes.len() {
        assert!(Block::parse(&bytes[..at]).is_err(), "cut at {at}");
        let mut zeroed = bytes.clone();
        zeroed[at..].fill(0);
        assert!(Block::parse(&zeroed).is_err(), "zeroes from {at}");
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let read = Block::parse(&flipped);
            // The mutable parts are not under the seal; a flipped bit in them may be valid.
            let is_mark = (Seal::WIDTH..Seal::WIDTH + Mark::WIDTH).contains(&at);
            match read {
                Err(_) => {}
                Ok(read) => {
                    assert!(
                        is_mark || octets.contains(&(at as u64)),
                        "bit {bit} of {at}"
                    );
                    assert_eq!(read.envelope, block.envelope);
                }
            }
        }
    }
}

#[test]
fn only_the_written_spelling_is_read() {
    let good = String::from_utf8(sealed(&envelope())).unwrap();
    for (from, to) in [
        ("idle 000", "IDLE 000"),
        ("idle 000", "idle   0"),
        ("idle 000", "idle +00"),
        ("idle 000", "busy 000"),
        ("Mailspool-Id: 0", "Mailspool-Id: A"),
        ("Mailspool-From: <", "Mailspool-From: "),
        ("incoming", "outgoing"),
        ("incoming", "incoming\r"),
        ("Recipients: 3", "Recipients: 2"),
        ("Recipients: 3", "Recipients: 4"),
        ("Recipients: 3", "Recipients: 03"),
        ("Recipients: 3", "Recipients: 18446744073709551615"),
        ("08:00:00Z", "08:00Z"),
        ("order+205", "order 5"),
        ("order+205", "order+2f5"),
        ("delay", "late"),
        ("Transport: out", "Transport: o/ut"),
        ("Return: hdrs", "Return: HDRS"),
        ("Return: hdrs\n", "Return: hdrs\nMailspool-Return: hdrs\n"),
        ("Return: hdrs\n", "Return: hdrs\nMailspool-Priority: 5\n"),
        ("+20+20a", "+C3+B6"),
        ("+20+20a", "+0A"),
        ("+20+20a", "++20a"),
        ("To: - <c@x>", "To: * <c@x>"),
        ("To: - <c@x>", "To: - c@x"),
        ("To: - <c@x>", "To: - <>"),
        ("To: - <c@x>", "To: - <c@x> "),
        ("To: - <c@x>", "To: - <c@x> NOTIFY=NEVER"),
        ("To: - <c@x>", "To: - <c@x> NOTIFY=failure,success"),
        ("To: - <c@x>", "To: - <c@x> NOTIFY=never,failure"),
        ("To: - <c@x>", "To: - <c@x> NOTIFY=never NOTIFY=never"),
        ("To: - <c@x>", "To: - <c@x> ORCPT=rfc822"),
        ("To: - <c@x>", "To: - <c@x> ORCPT=rfc822;+c3"),
        ("To: - <c@x>", "To: - <c@x> ORCPT=rfc822;a NOTIFY=never"),
        ("To: - <c@x>", "To: - <c@x> BY=120;R"),
        ("To: - <c@x>\n", "To: - <c@x>"),
        ("To: - <c@x>\n", "To: - <c@x>\n\n"),
        ("To: - <c@x>\n", "To: - <c@x>\nSubject: x\n"),
    ] {
        let (before, last) = good.rsplit_once(from).unwrap();
        let text = format!("{before}{to}{last}");
        assert!(Block::parse(&resealed(&text)).is_err(), "{from:?}, {to:?}");
        assert!(Block::parse(&resealed(&good)).is_ok());
    }
}

#[test]
fn a_first_line_is_bounded() {
    let good = String::from_utf8(sealed(&envelope())).unwrap();
    let with = |from: &str, to: &str| Seal::parse(good.replace(from, to).as_bytes());
    let length = format!(" {:010} ", good.len());
    assert!(with("", "").is_ok());
    for (from, to, error) in [
        (
            "Seal: 2",
            "Seal: 3",
            BlockError::Version { found: "3".into() },
        ),
        ("Seal: 2", "Seal: x", BlockError::Unsealed),
        ("Mailspool-Seal", "Received", BlockError::Unsealed),
        (&length, " 0000000000 ", BlockError::Length(0)),
        (&length, " 9999999999 ", BlockError::Length(9_999_999_999)),
        (&length, " +000000500 ", BlockError::Unsealed),
        (
            " 000000000000012 ",
            " 00000000000012 ",
            BlockError::Unsealed,
        ),
    ] {
        assert_eq!(with(from, to), Err(error), "{from} {to}");
    }
    assert_eq!(Seal::parse(b""), Err(BlockError::Unsealed));
    assert_eq!(
        Seal::parse(b"Mailspool-Seal: 2 00"),
        Err(BlockError::CutOff)
    );
    let shorter = Block::parse(&good.as_bytes()[..good.len() - 1]);
    assert_eq!(shorter, Err(BlockError::CutOff));
}
