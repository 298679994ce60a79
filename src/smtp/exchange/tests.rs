//! Every course of a transaction: the commands sent, the verdicts, and the state of the connection
//! afterwards.

use super::super::content::Shape;
use super::super::reply::ReplyParser;
use super::*;
use crate::message::{Address, ReversePath};
use crate::queue::Status::{self, *};

const PIPELINING: Capabilities = caps(true, false);
const NOTHING: Capabilities = caps(false, false);
const CHUNKING: Capabilities = caps(true, true);

const fn caps(pipelining: bool, chunking: bool) -> Capabilities {
    Capabilities {
        pipelining,
        chunking,
        binary_mime: false,
        max_recipients: None,
        max_domains: None,
        max_mails: None,
        size: false,
        max_size: None,
        eight_bit_mime: false,
        smtp_utf8: false,
        dsn: false,
        start_tls: false,
        auth: Vec::new(),
        lines: Vec::new(),
    }
}

/// A scripted transaction: the server's lines. `!` is a lost connection, `*` the body, and `*` followed by
/// a reply is a reply before the end of the body.
struct Play {
    name: &'static str,
    protocol: Protocol,
    caps: Capabilities,
    recipients: usize,
    script: &'static [&'static str],
    /// What the client sends, without the addresses.
    said: &'static str,
    verdicts: &'static [(Status, &'static str, Scope, Step)],
    after: After,
}

fn reply(text: &str) -> ServerReply {
    let text = format!("{text}\r\n");
    let (_, reply) = ReplyParser::default().push(text.as_bytes()).unwrap();
    reply.unwrap()
}

fn play(play: &Play) {
    let name = play.name;
    let sender = ReversePath::parse(b"s@a.example").unwrap();
    let recipients: Vec<Address> = (0..play.recipients)
        .map(|n| Address::parse(&format!("{n}@b.example")).unwrap())
        .collect();
    let transaction = Transaction {
        sender: &sender,
        recipients: &recipients,
        shape: Shape {
            size: 10,
            has_nul: true,
            ..Shape::default()
        },
        dsn: None,
    };
    let mut out = Vec::new();
    let (mut exchange, mut next) = Exchange::begin(
        &transaction,
        &play.caps,
        play.protocol,
        "mx",
        After::Ready,
        &mut out,
    );
    for line in play.script {
        next = match (next, *line) {
            (ExchangeNext::Done, _) => panic!("{name}: over before {line}"),
            (_, "!") => exchange.on_trouble(&Trouble::Lost),
            (ExchangeNext::Body(_), "*") => {
                out.push(b'*');
                exchange.on_sent()
            }
            (ExchangeNext::Body(_), early) => {
                out.push(b'*');
                exchange.on_early_reply(&reply(early.strip_prefix('*').expect(name)))
            }
            (ExchangeNext::Reply(_), line) => exchange.on_reply(&reply(line), &mut out),
        };
    }
    assert_eq!(next, ExchangeNext::Done, "{name}");
    let said = String::from_utf8(out).unwrap();
    let said: String = said
        .split_inclusive("\r\n")
        .map(|line| match line.split_once(':') {
            Some(("MAIL FROM", _)) => "M",
            Some(("RCPT TO", _)) => "R",
            _ => line.trim_end(),
        })
        .collect();
    assert_eq!(said, play.said, "{name}");
    let (verdicts, after) = exchange.finish();
    let got: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            let Verdict {
                outcome,
                scope,
                step,
            } = verdict;
            let text = outcome.reply.to_string();
            (outcome.status, text, *scope, *step)
        })
        .collect();
    let expected: Vec<_> = play
        .verdicts
        .iter()
        .map(|(status, text, scope, step)| (*status, text.to_string(), *scope, *step))
        .collect();
    assert_eq!(got, expected, "{name}");
    assert_eq!(after, play.after, "{name}");
}

const LOST_AT_END: &str =
    "4.4.2 the connection was lost while waiting for the answer to the end of the message";

#[test]
fn the_verdict_of_every_recipient() {
    use Protocol::*;
    let plays = [
        Play {
            name: "all is well",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["250 a", "250 b", "251 c", "354 go", "*", "250 2.0.0 queued"],
            said: "MRRDATA*",
            verdicts: &[
                (Delivered, "250 2.0.0 queued", Scope::Message, Step::End),
                (Delivered, "250 2.0.0 queued", Scope::Message, Step::End),
            ],
            after: After::Ready,
        },
        Play {
            name: "refused ones keep their replies",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 4,
            script: &[
                "250 a",
                "550 5.1.1 unknown",
                "450 4.7.1 grey",
                "250 c",
                "452 4.5.3 many",
                "354 go",
                "*",
                "250 k",
            ],
            said: "MRRRRDATA*",
            verdicts: &[
                (Failed, "550 5.1.1 unknown", Scope::Recipient, Step::Rcpt),
                (Deferred, "450 4.7.1 grey", Scope::Recipient, Step::Rcpt),
                (Delivered, "250 k", Scope::Message, Step::End),
                (Deferred, "452 4.5.3 many", Scope::Limit, Step::Rcpt),
            ],
            after: After::Ready,
        },
        Play {
            name: "one by one, and DATA without a recipient is not sent",
            protocol: Smtp,
            caps: NOTHING,
            recipients: 2,
            script: &["250 a", "550 b", "551 c"],
            said: "MRR",
            verdicts: &[
                (Failed, "550 b", Scope::Recipient, Step::Rcpt),
                (Failed, "551 c", Scope::Recipient, Step::Rcpt),
            ],
            after: After::Reset,
        },
        Play {
            name: "only DATA was accepted: a lone dot, and its 250 counts for no recipient",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "550 b", "354 go", "250 queued"],
            said: "MRDATA.",
            verdicts: &[(Failed, "550 b", Scope::Recipient, Step::Rcpt)],
            after: After::Ready,
        },
        Play {
            name: "the same, and the connection is lost",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "450 b", "354 go", "!"],
            said: "MRDATA.",
            verdicts: &[(Deferred, "450 b", Scope::Recipient, Step::Rcpt)],
            after: After::Close,
        },
        Play {
            name: "the same in LMTP, where no answer would come",
            protocol: Lmtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "550 b", "354 go"],
            said: "MRDATA",
            verdicts: &[(Failed, "550 b", Scope::Recipient, Step::Rcpt)],
            after: After::Close,
        },
        Play {
            name: "MAIL refused, the rest follows it",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["550 5.7.509 no", "503 a", "503 b", "503 c"],
            said: "MRRDATA",
            verdicts: &[
                (Failed, "550 5.7.509 no", Scope::Message, Step::Mail),
                (Failed, "550 5.7.509 no", Scope::Message, Step::Mail),
            ],
            after: After::Ready,
        },
        Play {
            name: "MAIL refused for now, and then the connection lost",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["451 later", "!"],
            said: "MRDATA",
            verdicts: &[(Deferred, "451 later", Scope::Message, Step::Mail)],
            after: After::Close,
        },
        Play {
            name: "MAIL refused, one by one",
            protocol: Smtp,
            caps: NOTHING,
            recipients: 1,
            script: &["550 no"],
            said: "M",
            verdicts: &[(Failed, "550 no", Scope::Message, Step::Mail)],
            after: After::Ready,
        },
        Play {
            name: "MAIL refused and a recipient accepted: no empty message",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["550 no", "250 yes", "354 go"],
            said: "MRDATA",
            verdicts: &[(Failed, "550 no", Scope::Message, Step::Mail)],
            after: After::Close,
        },
        Play {
            name: "the same with BDAT, which is not sent",
            protocol: Smtp,
            caps: CHUNKING,
            recipients: 1,
            script: &["550 no", "250 yes"],
            said: "MR",
            verdicts: &[(Failed, "550 no", Scope::Message, Step::Mail)],
            after: After::Reset,
        },
        Play {
            name: "DATA refused",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["250 a", "250 b", "550 c", "451 4.3.0 not now"],
            said: "MRRDATA",
            verdicts: &[
                (Deferred, "451 4.3.0 not now", Scope::Message, Step::Data),
                (Failed, "550 c", Scope::Recipient, Step::Rcpt),
            ],
            after: After::Reset,
        },
        Play {
            name: "DATA answered with success, which it cannot be",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "250 c"],
            said: "MRDATA",
            verdicts: &[(
                Deferred,
                "4.5.0 the server gave an answer that does not belong here: \"250 c\" while waiting \
                 for the answer to DATA",
                Scope::Host,
                Step::Data,
            )],
            after: After::Close,
        },
        Play {
            name: "421 in the middle",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 3,
            script: &["250 a", "550 b", "421 4.3.2 going"],
            said: "MRRRDATA",
            verdicts: &[
                (Failed, "550 b", Scope::Recipient, Step::Rcpt),
                (Deferred, "421 4.3.2 going", Scope::Host, Step::Rcpt),
                (Deferred, "421 4.3.2 going", Scope::Host, Step::Rcpt),
            ],
            after: After::Close,
        },
        Play {
            name: "lost in the middle",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["250 a", "550 b", "!"],
            said: "MRRDATA",
            verdicts: &[
                (Failed, "550 b", Scope::Recipient, Step::Rcpt),
                (
                    Deferred,
                    "4.4.2 the connection was lost while waiting for the answer to RCPT TO",
                    Scope::Host,
                    Step::Rcpt,
                ),
            ],
            after: After::Close,
        },
        Play {
            name: "lost in the body",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "354 go", "!"],
            said: "MRDATA",
            verdicts: &[(
                Deferred,
                "4.4.2 the connection was lost while sending the message",
                Scope::Host,
                Step::Body,
            )],
            after: After::Close,
        },
        Play {
            name: "lost after the body: unknown",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["250 a", "250 b", "550 c", "354 go", "*", "!"],
            said: "MRRDATA*",
            verdicts: &[
                (Unknown, LOST_AT_END, Scope::Host, Step::End),
                (Failed, "550 c", Scope::Recipient, Step::Rcpt),
            ],
            after: After::Close,
        },
        Play {
            name: "refused before the body's end",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "354 go", "*552 5.3.4 too much"],
            said: "MRDATA*",
            verdicts: &[(Failed, "552 5.3.4 too much", Scope::Message, Step::Body)],
            after: After::Close,
        },
        Play {
            name: "success before the body's end is none",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "354 go", "*250 fine"],
            said: "MRDATA*",
            verdicts: &[(
                Deferred,
                "4.5.0 the server gave an answer that does not belong here: \"250 fine\" while \
                 sending the message",
                Scope::Host,
                Step::Body,
            )],
            after: After::Close,
        },
        Play {
            name: "the message refused",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "354 go", "*", "552 too much mail data"],
            said: "MRDATA*",
            verdicts: &[(Failed, "552 too much mail data", Scope::Message, Step::End)],
            after: After::Ready,
        },
        Play {
            name: "the message answered with 421",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "354 go", "*", "421 bye"],
            said: "MRDATA*",
            verdicts: &[(Deferred, "421 bye", Scope::Host, Step::End)],
            after: After::Close,
        },
        Play {
            name: "the message answered with nonsense",
            protocol: Smtp,
            caps: PIPELINING,
            recipients: 1,
            script: &["250 a", "250 b", "354 go", "*", "354 more"],
            said: "MRDATA*",
            verdicts: &[(
                Unknown,
                "4.4.2 the server gave an answer that does not belong here: \"354 more\" while \
                 waiting for the answer to the end of the message",
                Scope::Host,
                Step::End,
            )],
            after: After::Close,
        },
        Play {
            name: "LMTP answers for each",
            protocol: Lmtp,
            caps: PIPELINING,
            recipients: 4,
            script: &[
                "250 a",
                "250 b",
                "550 c",
                "250 d",
                "250 e",
                "354 go",
                "*",
                "250 f",
                "452 4.2.2 g",
                "550 h",
            ],
            said: "MRRRRDATA*",
            verdicts: &[
                (Delivered, "250 f", Scope::Recipient, Step::End),
                (Failed, "550 c", Scope::Recipient, Step::Rcpt),
                (Deferred, "452 4.2.2 g", Scope::Recipient, Step::End),
                (Failed, "550 h", Scope::Recipient, Step::End),
            ],
            after: After::Ready,
        },
        Play {
            name: "LMTP lost among the answers",
            protocol: Lmtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["250 a", "250 b", "250 c", "354 go", "*", "250 f", "!"],
            said: "MRRDATA*",
            verdicts: &[
                (Delivered, "250 f", Scope::Recipient, Step::End),
                (Unknown, LOST_AT_END, Scope::Host, Step::End),
            ],
            after: After::Close,
        },
        Play {
            name: "LMTP that says goodbye, and yet answers for the others",
            protocol: Lmtp,
            caps: PIPELINING,
            recipients: 3,
            script: &[
                "250 a", "250 b", "250 c", "250 d", "354 go", "*", "421 f", "250 g", "!",
            ],
            said: "MRRRDATA*",
            verdicts: &[
                (Deferred, "421 f", Scope::Host, Step::End),
                (Delivered, "250 g", Scope::Recipient, Step::End),
                (Unknown, LOST_AT_END, Scope::Host, Step::End),
            ],
            after: After::Close,
        },
        Play {
            name: "LMTP with 421 for the first of two is closed after the second",
            protocol: Lmtp,
            caps: PIPELINING,
            recipients: 2,
            script: &["250 a", "250 b", "250 c", "354 go", "*", "421 f", "250 g"],
            said: "MRRDATA*",
            verdicts: &[
                (Deferred, "421 f", Scope::Host, Step::End),
                (Delivered, "250 g", Scope::Recipient, Step::End),
            ],
            after: After::Close,
        },
        Play {
            name: "BDAT, once the recipients are known",
            protocol: Smtp,
            caps: CHUNKING,
            recipients: 2,
            script: &["250 a", "250 b", "550 c", "*", "250 d"],
            said: "MRRBDAT 10 LAST*",
            verdicts: &[
                (Delivered, "250 d", Scope::Message, Step::End),
                (Failed, "550 c", Scope::Recipient, Step::Rcpt),
            ],
            after: After::Ready,
        },
        Play {
            name: "BDAT without a recipient is not sent",
            protocol: Smtp,
            caps: CHUNKING,
            recipients: 1,
            script: &["250 a", "550 c"],
            said: "MR",
            verdicts: &[(Failed, "550 c", Scope::Recipient, Step::Rcpt)],
            after: After::Reset,
        },
    ];
    plays.iter().for_each(play);
}

#[test]
fn only_recipients_after_others_are_too_many_and_a_required_login_fails_no_recipient() {
    use Protocol::*;
    let too_many = |name: &'static str, protocol: Protocol, caps: Capabilities| Play {
        name,
        protocol,
        caps,
        recipients: 4,
        script: &[
            "250 a",
            "552 first",
            "250 b",
            "552 second",
            "550 5.5.3 many",
            "354 go",
            "*",
            "250 k",
        ],
        said: "MRRRRDATA*",
        verdicts: &[
            (Failed, "552 first", Scope::Recipient, Step::Rcpt),
            (Delivered, "250 k", Scope::Message, Step::End),
            (Deferred, "552 second", Scope::Limit, Step::Rcpt),
            (Deferred, "550 5.5.3 many", Scope::Limit, Step::Rcpt),
        ],
        after: After::Ready,
    };
    play(&too_many("at once", Smtp, PIPELINING));
    play(&too_many("one by one", Smtp, NOTHING));
    let lmtp = Play {
        verdicts: &[
            (Failed, "552 first", Scope::Recipient, Step::Rcpt),
            (Delivered, "250 k", Scope::Recipient, Step::End),
            (Deferred, "552 second", Scope::Limit, Step::Rcpt),
            (Deferred, "550 5.5.3 many", Scope::Limit, Step::Rcpt),
        ],
        ..too_many("LMTP", Lmtp, PIPELINING)
    };
    play(&lmtp);
    let login = |name, script, said, verdicts, after| Play {
        name,
        protocol: Smtp,
        caps: NOTHING,
        recipients: 1,
        script,
        said,
        verdicts,
        after,
    };
    play(&login(
        "530 to MAIL",
        &["530 5.7.0 login"],
        "M",
        &[(Deferred, "530 5.7.0 login", Scope::Host, Step::Mail)],
        After::Ready,
    ));
    play(&login(
        "530 to RCPT",
        &["250 a", "530 5.7.0 login"],
        "MR",
        &[(Deferred, "530 5.7.0 login", Scope::Recipient, Step::Rcpt)],
        After::Reset,
    ));
    play(&login(
        "530 to DATA",
        &["250 a", "250 b", "530 5.7.0 tls"],
        "MRDATA",
        &[(Deferred, "530 5.7.0 tls", Scope::Host, Step::Data)],
        After::Reset,
    ));
}

fn begin(
    sender: &str,
    recipients: &[&str],
    shape: Shape,
    caps: &Capabilities,
    before: After,
) -> (String, Vec<Verdict>, After, ExchangeNext) {
    let sender = ReversePath::stored(sender).unwrap();
    let recipients: Vec<_> = recipients
        .iter()
        .map(|text| Address::stored(text).unwrap())
        .collect();
    let transaction = Transaction {
        sender: &sender,
        recipients: &recipients,
        shape,
        dsn: None,
    };
    let mut out = Vec::new();
    let (exchange, next) =
        Exchange::begin(&transaction, caps, Protocol::Smtp, "mx", before, &mut out);
    let (verdicts, after) = exchange.finish();
    (String::from_utf8(out).unwrap(), verdicts, after, next)
}

#[test]
fn what_cannot_go_is_not_tried() {
    let big = Shape {
        size_in_data: 101,
        ..Shape::default()
    };
    let small = Capabilities {
        size: true,
        max_size: Some(100),
        ..PIPELINING
    };
    for (sender, recipients, shape, caps, text) in [
        (
            "s@a",
            &["r@b"][..],
            big,
            &small,
            "5.3.4 the message has 101 octets, mx takes 100",
        ),
        (
            "ö@a",
            &["r@b"],
            Shape::default(),
            &PIPELINING,
            "5.6.7 the local part of the sender's address is not ASCII, and mx does not offer SMTPUTF8",
        ),
        (
            "s@a",
            &["ö@b"],
            Shape::default(),
            &PIPELINING,
            "5.6.7 the address's local part is not ASCII, and mx does not offer SMTPUTF8",
        ),
        (
            "s@a",
            &["r@ü..b"],
            Shape::default(),
            &PIPELINING,
            "5.1.2 ü..b is not a valid internationalised domain name (RFC 5891)",
        ),
        (
            "s@ü..a",
            &["r@b"],
            Shape::default(),
            &PIPELINING,
            "5.1.8 the sender's domain: ü..a is not a valid internationalised domain name \
             (RFC 5891)",
        ),
        (
            "s@a> SIZE=1",
            &["r@b"],
            Shape::default(),
            &PIPELINING,
            "5.1.7 the sender's address cannot be written into an SMTP command",
        ),
        (
            "s@a",
            &["r@b> NOTIFY=NEVER"],
            Shape::default(),
            &PIPELINING,
            "5.1.3 the address cannot be written into an SMTP command",
        ),
    ] {
        let (said, verdicts, after, next) = begin(sender, recipients, shape, caps, After::Reset);
        assert_eq!((said.as_str(), next), ("", ExchangeNext::Done), "{text}");
        assert_eq!(verdicts[0].outcome.status, Failed);
        assert_eq!(verdicts[0].outcome.reply.to_string(), text);
        assert_eq!(after, After::Reset, "{text}: nothing was said");
    }
}

#[test]
fn an_unwritable_address_does_not_hold_up_the_others() {
    let (said, verdicts, ..) = begin(
        "s@a",
        &["ö@b", "r@b"],
        Shape::default(),
        &PIPELINING,
        After::Ready,
    );
    assert_eq!(said, "MAIL FROM:<s@a>\r\nRCPT TO:<r@b>\r\nDATA\r\n");
    assert_eq!(verdicts[0].outcome.status, Failed);
}

#[test]
fn smtputf8_is_declared_only_where_it_is_needed() {
    let caps = Capabilities {
        smtp_utf8: true,
        eight_bit_mime: true,
        ..PIPELINING
    };
    let eight_bit = Shape {
        has_eight_bit: true,
        ..Shape::default()
    };
    for (recipient, shape, mail) in [
        ("r@b", Shape::default(), "MAIL FROM:<s@a>"),
        ("r@b", eight_bit, "MAIL FROM:<s@a> BODY=8BITMIME"),
        ("ö@b", Shape::default(), "MAIL FROM:<s@a> SMTPUTF8"),
    ] {
        let (said, ..) = begin("s@a", &[recipient], shape, &caps, After::Ready);
        assert_eq!(said.lines().next(), Some(mail));
    }
    // A UTF-8 header alone does not need SMTPUTF8, whether offered or not: it is sent like other octets
    // above 127.
    let header = Shape::of("Subject: gr\u{fc}n\n\nx\n".as_bytes()).unwrap();
    let (said, ..) = begin("s@a", &["r@b"], header, &caps, After::Ready);
    let mail = said.lines().next();
    assert_eq!(mail, Some("MAIL FROM:<s@a> BODY=8BITMIME"));
    let (said, verdicts, ..) = begin("s@a", &["r@b"], header, &PIPELINING, After::Ready);
    assert_eq!(said, "MAIL FROM:<s@a>\r\nRCPT TO:<r@b>\r\nDATA\r\n");
    assert_eq!(verdicts[0].outcome.status, Deferred, "only for now");
    // An 8-bit message is sent unchanged to a server without 8BITMIME.
    let (said, ..) = begin("s@a", &["r@b"], eight_bit, &NOTHING, After::Ready);
    assert_eq!(said, "MAIL FROM:<s@a>\r\n");
}

#[test]
fn a_server_is_told_of_no_more_recipients_than_it_takes() {
    let recipients = ["a@x", "b@X", "c@y", "d@x", "e@z"];
    let caps = |recipients, domains| Capabilities {
        max_recipients: recipients,
        max_domains: domains,
        ..PIPELINING
    };
    for (caps, told) in [
        (caps(None, None), "abcde"),
        (caps(Some(2), None), "ab"),
        (caps(Some(5), None), "abcde"),
        (caps(None, Some(1)), "abd"),
        (caps(None, Some(2)), "abcd"),
        (caps(Some(3), Some(1)), "abd"),
        (caps(Some(2), Some(1)), "ab"),
    ] {
        let (said, verdicts, ..) = begin("", &recipients, Shape::default(), &caps, After::Ready);
        let rcpt = |line: &str| {
            line.strip_prefix("RCPT TO:<")
                .map(|rest| rest[..1].to_owned())
        };
        let got: String = said.lines().filter_map(rcpt).collect();
        assert_eq!(got, told);
        for (recipient, verdict) in recipients.iter().zip(verdicts) {
            let is_told = told.contains(&recipient[..1]);
            assert_eq!(verdict.scope == Scope::Limit, !is_told, "{recipient}");
            assert_eq!(verdict.outcome.status, Deferred);
        }
    }
}

#[test]
fn a_reset_goes_along_where_it_may() {
    let (said, ..) = begin("", &["r@b"], Shape::default(), &PIPELINING, After::Reset);
    assert_eq!(said, "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<r@b>\r\nDATA\r\n");
    let (said, ..) = begin("", &["r@b"], Shape::default(), &NOTHING, After::Reset);
    assert_eq!(said, "RSET\r\n");
}

/// Whatever the server says, in whatever order, the transaction ends and every recipient has a verdict. No
/// recipient is delivered or unknown unless the message was sent, and none fails without a 5xx.
#[test]
fn no_conversation_goes_astray() {
    use proptest::prelude::*;
    let line = prop::sample::select(vec![
        "250 ok", "250 ok", "250 ok", "354 go", "354 go", "550 no", "450 hm", "421 bye", "552 x",
        "*", "*", "*", "!",
    ]);
    let script = prop::collection::vec(line, 0..30);
    proptest!(|(script in script, recipients in 1usize..5, pipelining: bool, chunking: bool,
                    lmtp: bool, reset: bool)| {
            let caps = caps(pipelining, chunking);
            let protocol = if lmtp {
    Protocol::Lmtp
    } else {
    Protocol::Smtp
    };
            let before = if reset {
    After::Reset
    } else {
    After::Ready
    };
            let sender = ReversePath::Null;
            let addresses: Vec<_> = (0..recipients)
                .map(|n| Address::parse(&format!("{n}@b")).unwrap())
                .collect();
            let shape = Shape { has_nul: true, ..Shape::default() };
            let transaction =
                Transaction { sender: &sender, recipients: &addresses, shape, dsn: None };
            let mut out = Vec::new();
            let (mut exchange, mut next) =
                Exchange::begin(&transaction, &caps, protocol, "mx", before, &mut out);
            let (mut was_sent, mut refusals) = (false, 0);
            for line in script.into_iter().chain(std::iter::repeat("!")) {
                next = match next {
                    ExchangeNext::Done => break,
                    _ if line == "!" => exchange.on_trouble(&Trouble::Lost),
                    ExchangeNext::Body(_) if line == "*" => {
                        was_sent = true;
                        exchange.on_sent()
                    }
                    ExchangeNext::Body(_) => {
                        refusals += usize::from(line.starts_with('5'));
                        exchange.on_early_reply(&reply(line))
                    }
                    ExchangeNext::Reply(_) if line == "*" => continue,
                    ExchangeNext::Reply(_) => {
                        refusals += usize::from(line.starts_with('5'));
                        exchange.on_reply(&reply(line), &mut out)
                    }
                };
            }
            let (verdicts, _) = exchange.finish();
            prop_assert_eq!(verdicts.len(), recipients);
            for verdict in verdicts {
                let status = verdict.outcome.status;
                prop_assert!(was_sent || !matches!(status, Delivered | Unknown), "{:?}", verdict);
                prop_assert!(refusals > 0 || status != Failed, "{:?}", verdict);
            }
        });
}
