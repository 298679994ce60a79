//! Notices read back by mail-parser. `tests/notices` has other readers.

use jiff::{SignedDuration, Timestamp};
use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::*;
use crate::disk::Body;
use crate::message::{EnhancedCode, OriginalRecipient, QueueId, RecipientDsn, Reply};
use crate::notice::{Action, Reported};
use crate::queue::RecipientState;
use crate::queue::state::Fate;

const AT: i64 = 1_795_356_300;

struct Scene {
    kind: NoticeKind,
    sender: Address,
    states: Vec<(RecipientState, Action)>,
    original: Option<OriginalRecipient>,
    ret: Option<Ret>,
    envid: Option<String>,
    message: Vec<u8>,
}

impl Scene {
    fn new(message: impl AsRef<[u8]>) -> Scene {
        Scene {
            kind: NoticeKind::Bounce,
            sender: address("sender@example.org"),
            states: Vec::new(),
            original: None,
            ret: None,
            envid: None,
            message: message.as_ref().to_vec(),
        }
    }

    fn failed(mut self, to: &str, reply: Reply) -> Scene {
        self.states.push((state(to, reply, false), Action::Failed));
        self
    }

    fn expired(mut self, to: &str, reply: Reply) -> Scene {
        self.states.push((state(to, reply, true), Action::Failed));
        self
    }

    fn about(mut self, kind: NoticeKind, action: Action, to: &str, reply: Reply) -> Scene {
        self.kind = kind;
        self.states.push((state(to, reply, false), action));
        self
    }

    fn build(&self) -> String {
        self.build_by(&DsnBuilder::new("mail.test"))
    }

    fn build_by(&self, builder: &DsnBuilder) -> String {
        String::from_utf8_lossy(&self.bytes_by(builder)).into_owned()
    }

    fn bytes_by(&self, builder: &DsnBuilder) -> Vec<u8> {
        let at = Timestamp::from_second(AT).unwrap();
        let recipients = self.states.iter().map(|(state, action)| Reported {
            state,
            original: self.original.as_ref(),
            action: *action,
            until: Some(at + SignedDuration::from_hours(92)),
        });
        let report = Report {
            id: QueueId::new(at + SignedDuration::from_hours(4), [2; 10]),
            origin: QueueId::new(at, [1; 10]),
            kind: self.kind,
            sender: &self.sender,
            recipients: recipients.collect(),
            ret: self.ret,
            envid: self.envid.as_deref(),
            body: Body::of_bytes(self.message.as_slice()),
            at: at + SignedDuration::from_hours(4),
        };
        builder.build(&report).unwrap().unwrap()
    }
}

fn address(text: &str) -> Address {
    Address::stored(text).unwrap()
}

fn state(to: &str, reply: Reply, expired: bool) -> RecipientState {
    let at = Timestamp::from_second(AT).unwrap() + SignedDuration::from_hours(3);
    RecipientState {
        address: address(to),
        dsn: RecipientDsn::default(),
        warn: None,
        warned: None,
        last: Some(reply),
        last_attempt: Some((at, None)),
        attempts: 7,
        fate: Fate::Failed {
            since: at,
            expired,
            notified: false,
        },
    }
}

fn said(code: u16, status: &str, text: &str) -> Reply {
    Reply::of_server(code, status.parse().ok(), text, "mx.test[192.0.2.1]:25")
}

/// Returns the type of the second part, and the fields of each of its blocks, unfolded.
fn status(notice: &[u8]) -> (String, Vec<Vec<(String, String)>>) {
    let parsed = MessageParser::default().parse(notice).unwrap();
    let part = &parsed.parts[2];
    let kind = part.content_type().unwrap();
    let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap());
    let text = &notice[part.offset_body as usize..part.offset_end as usize];
    let text = String::from_utf8(text.to_vec()).unwrap();
    let text = text.replace("\n ", " ");
    let block = |block: &str| {
        let line = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        block.lines().map(line).collect()
    };
    (kind, text.trim_end().split("\n\n").map(block).collect())
}

fn text(notice: &str) -> String {
    let parsed = MessageParser::default().parse(notice.as_bytes()).unwrap();
    parsed.body_text(0).unwrap().replace("\r\n", "\n")
}

#[test]
fn recipients_with_the_same_reply_are_grouped() {
    let none = || said(550, "5.1.1", "no such user");
    let notice = Scene::new("Subject: x\n\n")
        .failed("a@x.test", none())
        .failed("b@x.test", said(552, "5.2.2", "full"))
        .failed("c@x.test", none())
        .expired("d@x.test", none())
        .build();
    let text = text(&notice);
    let words = "\n  a@x.test\n  c@x.test\n\n    There is no such mailbox. ";
    assert!(text.contains(words), "{text}");
    assert_eq!(text.matches("no such user").count(), 2, "{text}");
    let words = "  d@x.test\n\n    The time for delivery is over. It was tried 7 times since \
                 22 November\n    2026, 14:05 UTC, the last time on 22 November 2026, 17:05 UTC.\n";
    assert!(text.contains(words), "{text}");
    let blocks = status(notice.as_bytes()).1;
    assert_eq!(blocks.len(), 5);
    let statuses: Vec<&str> = blocks[1..].iter().map(|block| &*block[2].1).collect();
    assert_eq!(statuses, ["5.1.1", "5.2.2", "5.1.1", "4.4.7"]);
}

#[test]
fn fields_are_those_of_rfc_3464_in_its_order() {
    let mut scene = Scene::new("Subject: x\nMessage-ID: <1@x.test>\n\n").about(
        NoticeKind::Delay,
        Action::Delayed,
        "a@x.test",
        said(451, "4.7.1", "later"),
    );
    scene.envid = Some("QQ+1 = 2".to_owned());
    scene.original = Some(OriginalRecipient {
        kind: "rfc822".to_owned(),
        address: "A+b@x.test".to_owned(),
    });
    let notice = scene.build();
    let (kind, blocks) = status(notice.as_bytes());
    assert_eq!(kind, "message/delivery-status");
    let id = QueueId::new(Timestamp::from_second(AT).unwrap(), [1; 10]).to_string();
    let expected = [
        vec![
            ("Original-Envelope-Id", "QQ+1 = 2"),
            ("Reporting-MTA", "dns; mail.test"),
            ("Arrival-Date", "Sun, 22 Nov 2026 14:05:00 +0000"),
            ("X-Mailspool-Id", &id),
        ],
        vec![
            ("Original-Recipient", "rfc822; A+b@x.test"),
            ("Final-Recipient", "rfc822; a@x.test"),
            ("Action", "delayed"),
            ("Status", "4.7.1"),
            ("Remote-MTA", "dns; mx.test"),
            ("Diagnostic-Code", "smtp; 451 4.7.1 later"),
            ("Last-Attempt-Date", "Sun, 22 Nov 2026 17:05:00 +0000"),
            ("Final-Log-ID", &id),
            ("Will-Retry-Until", "Thu, 26 Nov 2026 10:05:00 +0000"),
        ],
    ];
    let expected = expected.map(|block| {
        let owned = block.into_iter();
        let owned = owned.map(|(name, value)| (name.to_owned(), value.to_owned()));
        owned.collect::<Vec<_>>()
    });
    assert_eq!(blocks, expected);
    for line in [
        "In-Reply-To: <1@x.test>",
        "References: <1@x.test>",
        "Auto-Submitted: auto-replied",
        "Subject: Delayed: x",
    ] {
        assert!(notice.contains(&format!("\n{line}\n")), "{line}: {notice}");
    }
    let words = "is tried again\nautomatically, until 26 November 2026, 10:05 UTC.\n";
    assert!(text(&notice).contains(words), "{notice}");
}

#[test]
fn only_a_failure_returns_a_whole_message() {
    let (body, mut scene) = ("the body", Scene::new("Subject: x\n\nthe body\n"));
    scene = scene.failed("a@x.test", said(550, "5.0.0", "no"));
    assert!(scene.build().contains(body));
    scene.ret = Some(Ret::Full);
    assert!(scene.build().contains(body));
    let mut builder = DsnBuilder::new("mail.test");
    builder.return_whole = 19;
    assert!(scene.message.len() == 21 && !scene.build_by(&builder).contains(body));
    for (kind, action) in [
        (NoticeKind::Delay, Action::Delayed),
        (NoticeKind::Success, Action::Relayed),
    ] {
        (scene.kind, scene.states[0].1) = (kind, action);
        let notice = scene.build();
        assert!(!notice.contains(body) && notice.contains("\nSubject: x\n"));
        assert!(notice.contains("Content-Type: text/rfc822-headers\n"));
    }
    (scene.kind, scene.states[0].1) = (NoticeKind::Bounce, Action::Failed);
    scene.ret = Some(Ret::Headers);
    let notice = scene.build();
    assert!(!notice.contains(body) && notice.contains("Content-Type: text/rfc822-headers\n"));
    assert!(text(&notice).contains("The header of your message is attached."));
}

#[test]
fn a_success_has_no_status_of_failure() {
    let delivered = Reply::local(EnhancedCode::new(2, 0, 0), "");
    let notice = Scene::new("Subject: x\n\n")
        .about(NoticeKind::Success, Action::Delivered, "a@x", delivered)
        .about(
            NoticeKind::Success,
            Action::Relayed,
            "b@x.test",
            said(250, "", "ok"),
        )
        .build();
    let blocks = status(notice.as_bytes()).1;
    let get = |block: usize, name: &str| {
        let found = blocks[block].iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(get(1, "Status"), Some("2.0.0"));
    assert_eq!(get(1, "Action"), Some("delivered"));
    assert_eq!(get(2, "Status"), Some("2.0.0"));
    assert_eq!(get(2, "Diagnostic-Code"), Some("smtp; 250 ok"));
    assert_eq!(get(2, "Final-Log-ID"), None);
    assert_eq!(get(2, "Will-Retry-Until"), None);
    let text = text(&notice);
    assert!(text.contains("  a@x\n\n    The message was delivered.\n\n  b@x.test"));
    assert!(text.contains("passed on to mx.test"), "{text}");
}

#[test]
fn a_delay_notice_may_precede_the_first_attempt() {
    let reply = said(451, "4.7.1", "never said");
    let mut scene =
        Scene::new("Subject: x\n\n").about(NoticeKind::Delay, Action::Delayed, "a@x.test", reply);
    let state = &mut scene.states[0].0;
    (state.last, state.last_attempt, state.attempts) = (None, None, 0);
    let notice = scene.build();
    let words = "\n    The reason:\n      4.0.0 no attempt has been made yet\n";
    assert!(notice.contains(words), "{notice}");
    assert!(notice.contains("\nStatus: 4.0.0\n") && !notice.contains("Last-Attempt-Date"));
}

#[test]
fn addresses_that_are_not_ascii_are_written_as_rfc_6533_says() {
    let no = || said(550, "5.6.7", "no SMTPUTF8 hère");
    let scene = Scene::new("Subject: x\n\n");
    // A domain has an ASCII form, and the reply text has encoded words.
    let notice = scene.failed("a@bücher.test", no()).build();
    let (kind, blocks) = status(notice.as_bytes());
    assert_eq!(kind, "message/delivery-status");
    assert_eq!(blocks[1][0].1, "rfc822; a@xn--bcher-kva.test");
    assert!(notice.is_ascii(), "{notice}");
    let diagnostic = &blocks[1][4].1;
    assert_eq!(
        diagnostic,
        "smtp; 550 5.6.7 =?utf-8?Q?no_SMTPUTF8_h=C3=A8re?="
    );
    // A local part has none. The original recipient's ASCII form is needed only in an ASCII report.
    let mut scene = Scene::new("Subject: größe\n\n").failed("ö@bücher.test", no());
    scene.original = Some(OriginalRecipient {
        kind: "utf-8".to_owned(),
        address: "ä+1@x.test".to_owned(),
    });
    let notice = scene.build();
    let (kind, blocks) = status(notice.as_bytes());
    assert_eq!(kind, "message/global-delivery-status");
    assert_eq!(blocks[1][0].1, "utf-8; ä+1@x.test");
    assert_eq!(blocks[1][1].1, "utf-8; ö@bücher.test");
    assert_eq!(blocks[1][5].1, "smtp; 550 5.6.7 no SMTPUTF8 hère");
    assert!(
        notice.contains("Content-Type: message/global\n"),
        "{notice}"
    );
    assert!(
        notice.contains("\nSubject: =?utf-8?Q?Not_delivered:_gr=C3=B6=C3=9Fe?=\n"),
        "{notice}"
    );
    let header = notice.split_once("\n\n").unwrap().0;
    assert!(
        header.contains("Content-Transfer-Encoding: 8bit"),
        "{header}"
    );
    assert!(header.is_ascii());
    // Beside an ASCII address the ASCII form is used, so that every reader finds the other recipients.
    let mixed = Scene::new("Subject: x\n\n")
        .failed("ö@x.test", no())
        .failed("o@x.test", no());
    let (kind, blocks) = status(mixed.build().as_bytes());
    assert_eq!(kind, "message/delivery-status");
    assert_eq!(blocks[1][0].1, "utf-8; \\x{F6}@x.test");
    assert_eq!(blocks[2][0].1, "rfc822; o@x.test");
    scene.states[0].0.address = address("o@x.test");
    scene.ret = Some(Ret::Headers);
    let notice = scene.build();
    let (kind, blocks) = status(notice.as_bytes());
    assert_eq!(kind, "message/delivery-status");
    assert_eq!(blocks[1][0].1, "utf-8; \\x{E4}\\x{2B}1@x.test");
    assert!(notice.contains("Content-Type: message/global-headers\n"));
}

#[test]
fn a_message_cannot_inject_header_lines_or_fields() {
    let reply = Reply {
        code: Some(550),
        enhanced: None,
        text: "no\r\nAction: delivered\n\nFinal-Recipient: rfc822; x@y\u{1b}[31m\0".to_owned(),
        remote: Some("mx.test\nX: y".to_owned()),
        relay: None,
    };
    let mut scene = Scene::new(
        "Subject: =?utf-8?q?a=0D=0ABcc:_evil@x.test=0D=0A=0D=0Abody?=\n\
         Message-ID: <a@b>\r\n\n{id}{replies}\n",
    );
    scene = scene.failed("\"{id}\"@x.test", reply);
    scene.envid = Some("a\r\nAction: delivered\0".to_owned());
    scene.original = Some(OriginalRecipient {
        kind: "rfc822".to_owned(),
        address: "x@y\n\nFinal-Recipient: rfc822; z@z".to_owned(),
    });
    let mut builder = DsnBuilder::new("mail.test");
    let bounce = builder.templates.bounce.clone();
    builder.templates.bounce = bounce
        .with_subject("{recipients} {sender} {subject}")
        .unwrap();
    let notice = scene.build_by(&builder);
    let parsed = MessageParser::default().parse(notice.as_bytes()).unwrap();
    let names: Vec<&str> = parsed
        .headers()
        .iter()
        .map(|header| header.name())
        .collect();
    assert_eq!(
        names,
        [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "In-Reply-To",
            "References",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding"
        ]
    );
    assert_eq!(
        parsed.subject(),
        Some("\"{id}\"@x.test sender@example.org a Bcc: evil@x.test body")
    );
    let blocks = status(notice.as_bytes()).1;
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    let actions = blocks.iter().flatten().filter(|(name, _)| name == "Action");
    assert_eq!(actions.count(), 1, "{blocks:?}");
    assert!(!notice.contains(['\u{1b}', '\0']));
}

#[test]
fn the_boundary_does_not_occur_in_a_part() {
    let id = QueueId::new(
        Timestamp::from_second(AT).unwrap() + SignedDuration::from_hours(4),
        [2; 10],
    );
    let boundary = format!("--=_{id}");
    let message = format!("Subject: x\n\n--\n{boundary}.0\n\n{boundary}.1--\n{boundary}.2\nend\n");
    let scene = Scene::new(&message).failed("a@x.test", said(550, "5.0.0", &boundary));
    let notice = scene.build();
    check(&scene, notice.as_bytes()).unwrap();
    assert!(notice.contains(&format!("\n{boundary}.3--\n")), "{notice}");
}

#[test]
fn a_long_reply_is_kept_and_folded() {
    let lines: Vec<String> = (0..40).map(|n| format!("line {n} says no")).collect();
    let reply = said(554, "5.7.1", &lines.join("\r\n"));
    let notice = Scene::new("Subject: x\n\n")
        .failed("a@x.test", reply)
        .build();
    let blocks = status(notice.as_bytes()).1;
    let expected = format!("smtp; 554 5.7.1 {}", lines.join(" "));
    assert_eq!(blocks[1][4].1, expected);
    assert!(notice.lines().all(|line| line.len() <= 78), "{notice}");
}

#[test]
fn an_administrators_texts_are_used() {
    let mut builder = DsnBuilder::new("mail.test");
    builder.postmaster = Some(address("help@mail.test"));
    let bounce = Wording::of(NoticeKind::Bounce)
        .with_from("Zustellung, GmbH für {hostname} <post@{hostname}>")
        .and_then(|wording| wording.with_subject("Zurück: {subject} ({id})"))
        .and_then(|wording| {
            wording.with_text("Liebe(r) {sender}: {recipients}; {postmaster} {{{arrival}}}\n")
        });
    builder.templates.bounce = bounce.unwrap();
    let scene = Scene::new("Subject: =?iso-8859-1?q?Gr=FC=DFe?=\n\n")
        .failed("a@x.test", said(550, "5.0.0", "no"))
        .failed("ö@x.test", said(550, "5.0.0", "no"));
    let notice = scene.build_by(&builder);
    let parsed = MessageParser::default().parse(notice.as_bytes()).unwrap();
    let from = parsed.from().unwrap().first().unwrap();
    assert_eq!(from.name(), Some("Zustellung, GmbH für mail.test"));
    assert_eq!(from.address(), Some("post@mail.test"));
    let id = QueueId::new(Timestamp::from_second(AT).unwrap(), [1; 10]);
    assert_eq!(parsed.subject(), Some(&*format!("Zurück: Grüße ({id})")));
    assert_eq!(
        text(&notice).trim_end(),
        "Liebe(r) sender@example.org: a@x.test, ö@x.test; help@mail.test {22 November\n\
         2026, 14:05 UTC}"
    );
    assert!(notice.split_once("\n\n").unwrap().0.is_ascii());
}

#[test]
fn no_line_is_too_long() {
    let long = "x".repeat(2000);
    let address = format!("{}@x.test", "a".repeat(Address::MAX_LEN - 7));
    let said = || Reply {
        remote: Some(long.clone()),
        ..said(550, "5.1.1", &long)
    };
    let mut scene = Scene::new(format!("Subject: {long}\nMessage-ID: <{long}@x>\n\n"))
        .failed(&address, said())
        .failed("b@x.test", said());
    scene.sender = self::address(&address);
    let kinds = ["rfc822".to_owned(), long.clone(), "x".repeat(980)];
    for (kind, envid) in kinds.into_iter().zip([&*long, "a b", &long[..990]]) {
        scene.envid = Some(envid.to_owned());
        scene.original = Some(OriginalRecipient {
            kind,
            address: address.clone(),
        });
        let mut builder = DsnBuilder::new(long.clone());
        let bounce = builder.templates.bounce.clone();
        let words = format!("{long} {{subject}} {{recipients}} {{sender}}");
        builder.templates.bounce = bounce
            .with_from(&format!("{long} <post@x.test>"))
            .and_then(|wording| wording.with_subject(&words))
            .and_then(|wording| wording.with_text(&words))
            .unwrap();
        check(&scene, &scene.bytes_by(&builder)).unwrap();
        builder.templates = Templates::default();
        for line in scene.build_by(&builder).lines() {
            assert!(line.len() <= MAX_LINE, "{line}");
        }
    }
}

#[test]
fn blanks_in_quotes_are_kept() {
    let mut scene = Scene::new("Subject: x\n\n").failed("\"a  b\"@x.test", said(550, "", "no"));
    scene.sender = address("\"c  d\"@x.test");
    scene.envid = Some("e  f".to_owned());
    scene.original = Some(OriginalRecipient {
        kind: "rfc822".to_owned(),
        address: "\"g  h\"@x.test".to_owned(),
    });
    let notice = scene.build();
    for line in [
        "To: <\"c  d\"@x.test>",
        "Original-Envelope-Id: e  f",
        "Original-Recipient: rfc822; \"g  h\"@x.test",
        "Final-Recipient: rfc822; \"a  b\"@x.test",
        "  \"a  b\"@x.test (you wrote to \"g  h\"@x.test)",
    ] {
        assert!(notice.contains(&format!("\n{line}\n")), "{line}: {notice}");
    }
}

#[test]
fn a_hundred_recipients_are_named_and_all_are_in_the_report() {
    const COUNT: usize = 3_000;
    let mut scene = Scene::new("Subject: x\n\n");
    for n in 0..COUNT {
        let reply = match n {
            1_000.. if n % 4 == 0 => said(552, "5.2.2", "mailbox full"),
            _ => said(550, "5.1.1", &"no such user ".repeat(9)),
        };
        scene = scene.failed(&format!("user-{n}@example.net"), reply);
    }
    let notice = scene.build();
    let (text, blocks) = (text(&notice), status(notice.as_bytes()).1);
    // Each reply has at least one named recipient.
    assert_eq!(text.matches("@example.net\n").count(), 100, "{text}");
    let all = "; the attached report has all of them\n\n";
    for words in [
        format!("  user-98@example.net\n  and 2401 more{all}    There is no such mailbox."),
        format!("  user-1000@example.net\n  and 499 more{all}    The mailbox is full."),
    ] {
        assert!(text.contains(&words), "{text}");
    }
    assert_eq!(blocks.len(), 1 + COUNT);
    for (n, block) in blocks[1..].iter().enumerate() {
        let names: Vec<&str> = block.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names[..3], ["Final-Recipient", "Action", "Status"]);
        assert_eq!(names.len() > 3, n < 100, "{names:?}");
        assert_eq!(block[0].1, format!("rfc822; user-{n}@example.net"));
    }
    assert!(notice.len() < 100 * COUNT, "{} octets", notice.len());
    // If each recipient has a different reply, a hundred are named.
    for (n, (state, _)) in scene.states.iter_mut().enumerate() {
        state.last = Some(said(550, "5.1.1", &format!("no user {n}")));
    }
    let text = self::text(&scene.build());
    assert_eq!(text.matches("said:").count(), 100, "{text}");
    let words = "\n  and 2900 more, with other answers; the attached report has all of them\n";
    assert!(text.contains(words), "{text}");
}

#[test]
fn subjects_in_any_character_set_are_shown() {
    for (subject, shown) in [
        ("=?iso-2022-jp?B?GyRCRnxLXDhsJE43b0w+GyhC?=", "日本語の件名"),
        (
            "Re: =?gb18030?B?xOO6w4E57jk=?=\n =?big5?B?pKSk5aVEpq4=?=",
            "Re: 你好㐀中文主旨",
        ),
        ("=?x-none?Q?=93?=", "=?x-none?Q?=93?="),
    ] {
        let scene = Scene::new(format!("Subject: {subject}\n\n"));
        let notice = scene.failed("a@x.test", said(550, "5.1.1", "no")).build();
        assert!(
            text(&notice).contains(&format!("Subject:  {shown}\n")),
            "{notice}"
        );
        let parsed = MessageParser::default().parse(notice.as_bytes()).unwrap();
        let told = parsed.subject().unwrap().strip_prefix("Not delivered: ");
        // A subject that cannot be decoded is copied for the reader's mail program.
        if subject.starts_with("=?x-none") {
            assert!(notice.contains(&format!("\nSubject: Not delivered: {subject}\n")))
        } else {
            assert_eq!(told, Some(shown))
        }
    }
}

#[test]
fn unsupported_characters_are_attributed_to_the_right_address() {
    let no = || {
        Reply::local(
            EnhancedCode::new(5, 6, 7),
            "mx.test does not offer SMTPUTF8",
        )
    };
    let recipient = "Ask the recipient for an address";
    let sender = "Send the message from an address";
    let mut scene = Scene::new("Subject: x\n\n").failed("ö@x.test", no());
    assert!(text(&scene.build()).contains(recipient));
    scene.sender = address("ö@example.org");
    scene.states[0].0.address = address("b@x.test");
    let text = text(&scene.build());
    assert!(text.contains(sender) && !text.contains(recipient), "{text}");
}

#[test]
fn a_notice_can_be_converted_to_seven_bits() {
    let id = QueueId::new(
        Timestamp::from_second(AT).unwrap() + SignedDuration::from_hours(4),
        [2; 10],
    );
    let seven = |scene: &Scene| {
        let notice = scene.bytes_by(&DsnBuilder::new("mail.test"));
        assert!(!notice.is_ascii());
        String::from_utf8(crate::message::seven_bit::in_seven_bits(id, &notice).unwrap()).unwrap()
    };
    let no = || said(550, "5.1.1", "nö");
    // Every octet of the message is returned.
    let message = b"Subject: x\nContent-Transfer-Encoding: 8bit\n\nh\xc3\xa4llo =\n\xff\n.\n";
    let scene = Scene::new(message).failed("a@x.test", no());
    let notice = seven(&scene);
    assert!(notice.is_ascii() && notice.contains("Content-Type: message/global\n"));
    let header = notice.split_once("\n\n").unwrap().0;
    assert!(
        header.contains("\nContent-Transfer-Encoding: 7bit"),
        "{header}"
    );
    let (_, part) = notice
        .split_once("Encoding: quoted-printable\n\nSubject")
        .unwrap();
    let (part, _) = part.split_once("\n--=_").unwrap();
    let back = mail_parser::decoders::quoted_printable::quoted_printable_decode(part.as_bytes());
    assert_eq!([b"Subject", &*back.unwrap()].concat(), message);
    // The same for a header alone, and for the status in UTF-8.
    let mut scene = Scene::new(b"Subject: h\xe4\n\nx\n").failed("ö@x.test", no());
    scene.ret = Some(Ret::Headers);
    let notice = seven(&scene);
    for words in [
        "Content-Type: text/rfc822-headers\n",
        "\nSubject: h=E4\n",
        "Content-Type: message/global-delivery-status\n",
        "\nFinal-Recipient: utf-8; =C3=B6@x.test\n",
    ] {
        assert!(notice.contains(words), "{words}: {notice}");
    }
    // An ASCII notice is not changed.
    let scene = Scene::new("Subject: x\n\n").failed("a@x.test", no());
    assert!(scene.bytes_by(&DsnBuilder::new("mail.test")).is_ascii());
}

/// Checks the properties of every notice.
fn check(scene: &Scene, notice: &[u8]) -> Result<(), TestCaseError> {
    prop_assert!(!notice.contains(&b'\r') && !notice.contains(&0));
    for line in notice.split(|byte| *byte == b'\n') {
        prop_assert!(line.len() <= MAX_LINE, "{} octets", line.len());
    }
    let parsed = MessageParser::default().parse(notice).unwrap();
    let kinds: Vec<&str> = parsed.parts[..4]
        .iter()
        .map(|part| part.content_type().unwrap().ctype())
        .collect();
    prop_assert_eq!(&kinds[..3], ["multipart", "text", "message"]);
    let encoding = |part: usize| parsed.parts[part].content_transfer_encoding();
    // A header is ASCII, except for a sender's non-ASCII address.
    let at = notice.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let to = scene.sender.on_wire();
    prop_assert!(notice[..at].is_ascii() || !to.is_ok_and(|to| to.is_ascii()));
    let is_ascii = notice[at..].is_ascii();
    prop_assert_eq!(encoding(0), Some(if is_ascii { "7bit" } else { "8bit" }));
    let mut whole = Original::read(&Body::of_bytes(scene.message.as_slice()), true).unwrap();
    if scene.kind != NoticeKind::Bounce {
        whole = Original::read(&Body::of_bytes(scene.message.as_slice()), false).unwrap();
    }
    prop_assert_eq!(encoding(3), Some(whole.encoding.as_str()));
    // Split by hand: the parser reads past the end into the returned message.
    let boundary = parsed
        .content_type()
        .unwrap()
        .attribute("boundary")
        .unwrap();
    let parts = split(notice, format!("\n--{boundary}").as_bytes());
    prop_assert_eq!(parts.len(), 5);
    prop_assert_eq!(parts[4], b"--\n");
    prop_assert_eq!(
        split(parts[3], b"\n\n")[1..].join(&b"\n\n"[..]),
        whole.bytes
    );
    let (kind, blocks) = status(notice);
    prop_assert_eq!(blocks.len(), 1 + scene.states.len());
    for ((state, action), block) in scene.states.iter().zip(&blocks[1..]) {
        let get = |name: &str| block.iter().find(|(found, _)| found == name).unwrap();
        let to = &get("Final-Recipient").1;
        let wire = state
            .address
            .on_wire()
            .unwrap_or(state.address.as_str().into());
        let wire = harmless(&wire);
        let utf8 = OriginalRecipient {
            kind: "utf-8".to_owned(),
            address: wire.clone(),
        };
        let wire = match utf8.encoded() {
            Some(encoded) if kind == "message/delivery-status" && !wire.is_ascii() => {
                encoded.split_once(';').unwrap().1.to_owned()
            }
            _ => wire,
        };
        let (_, found) = to.split_once(';').unwrap();
        let (found, wire) = (found.trim(), wire.trim());
        prop_assert!(found == wire || found.len() >= MAX_LINE - 4 && wire.starts_with(found));
        prop_assert_eq!(&get("Action").1, action.as_str());
        let class = &get("Status").1[..1];
        match action {
            Action::Delivered | Action::Relayed => prop_assert_eq!(class, "2"),
            Action::Delayed => prop_assert_eq!(class, "4"),
            Action::Failed => prop_assert!(class == "5" || class == "4"),
        }
    }
    Ok(())
}

fn split<'a>(bytes: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(by.len()).position(|window| window == by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}

fn a_reply() -> impl Strategy<Value = Reply> {
    let code = prop::option::of((2_u8..=5, 0_u16..=8, 0_u16..=30));
    let remote = prop::option::of(".{0,40}");
    (prop::option::of(200_u16..600), code, ".{0,300}", remote).prop_map(
        |(code, enhanced, text, remote)| Reply {
            code,
            enhanced: enhanced.map(|(class, subject, detail)| EnhancedCode {
                class,
                subject,
                detail,
            }),
            text,
            remote,
            relay: None,
        },
    )
}

fn an_address() -> impl Strategy<Value = Address> {
    // Addresses accepted by an earlier version may still be stored.
    let odd = ".{1,80}".prop_filter_map("no address", |text| Address::stored(&text).ok());
    let plain = "[a-z]{1,8}(\\+[a-zö\"]{1,3})?@[a-zü]{1,9}\\.test";
    let plain = plain.prop_map(|text| Address::stored(&text).unwrap());
    let long =
        "[a-z]{900,990}ü?@x\\.test".prop_filter_map("too long", |text| Address::parse(&text).ok());
    prop_oneof![8 => plain, 2 => odd, 1 => long]
}

fn a_message() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let lines = prop::collection::vec(
        prop_oneof![
            4 => "[ -~]{0,90}",
            1 => "Subject: .{0,60}",
            1 => "[A-Z]{1,9}: [ -~ü]{0,60}",
            1 => "--=_[ -~]{0,9}",
            1 => "x{990,1010}",
            1 => ".{0,60}",
        ],
        0..12,
    );
    let lines = (
        lines,
        prop::sample::select(vec!["\n", "\r\n", "\r", "\r\r\n"]),
    );
    let lines = lines.prop_map(|(lines, end)| lines.join(end).into_bytes());
    (prop::bool::ANY, prop_oneof![lines, bytes]).prop_map(|(header, bytes)| {
        let header = if header { "Received: by x\n" } else { "" };
        [header.as_bytes(), &bytes].concat()
    })
}

proptest! {
    #[test]
    fn any_notice_can_be_read_back(
        message in a_message(),
        sender in an_address(),
        recipients in prop::collection::vec((an_address(), a_reply(), 0_usize..4), 1..5),
        kind in 0_usize..3,
        envid in prop::option::of(".{0,100}"),
        original in prop::option::of(("[a-z0-9-]{0,9}|utf-8", ".{0,90}")),
    ) {
        let kind = [NoticeKind::Bounce, NoticeKind::Delay, NoticeKind::Success][kind];
        let mut scene = Scene { sender, kind, envid, ..Scene::new(message) };
        scene.original = original.map(|(kind, address)| OriginalRecipient { kind, address });
        for (to, reply, n) in recipients {
            let action = match kind {
                NoticeKind::Bounce => Action::Failed,
                NoticeKind::Delay => Action::Delayed,
                NoticeKind::Success => [Action::Delivered, Action::Relayed][n % 2],
            };
            scene.states.push((state(to.as_str(), reply, n == 3), action));
        }
        check(&scene, &scene.bytes_by(&DsnBuilder::new("mail.test")))?;
    }
}
