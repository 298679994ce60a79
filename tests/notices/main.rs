//! Notices read by widely used parsers: Python's email package, flufl.bounce (Mailman's) and Sisimai. All
//! three parse each notice, and their findings are compared field by field.
//!
//! | reader | what it shows |
//! |---|---|
//! | email | the structure and every field, without a defect |
//! | flufl.bounce | the recipients reported as failed and as delayed, and no others |
//! | Sisimai | recipients, status, reply, host, and which message it is about |
//!
//! `scripts/parsers` installs flufl.bounce in the build directory, Sisimai is Debian's libsisimai-perl.
//! If one is missing, these tests fail with a message that says so.

#[path = "../program/mod.rs"]
mod program;
#[path = "../tools/mod.rs"]
mod tools;
mod words;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::disk::Body;
use mailspool::testing::message::{
    Address, EnhancedCode, NoticeKind, OriginalRecipient, QueueId, RecipientDsn, Reply, Ret,
};
use mailspool::testing::notice::{Action, DsnBuilder, NoticeBuilder, Report, Reported, Wording};
use mailspool::testing::queue::RecipientState;
use mailspool::testing::queue::state::Fate;
use serde_json::{Value, json};

const MESSAGE: &str = "\
Received: by mail.test; Sun, 22 Nov 2026 14:05:00 +0000
From: Sender <sender@example.org>
To: a@users.test
Subject: Lunch on Friday
Message-ID: <lunch@example.org>

At noon?
";

/// 22 November 2026, 14:05 UTC.
fn accepted() -> Timestamp {
    Timestamp::from_second(1_795_356_300).unwrap()
}

/// A notice and its parts.
struct Notice {
    kind: NoticeKind,
    recipients: Vec<(RecipientState, Option<OriginalRecipient>, Action)>,
    message: Vec<u8>,
    ret: Option<Ret>,
    builder: DsnBuilder,
}

/// What the parsers found.
struct Read {
    email: Value,
    sisimai: Vec<Value>,
}

impl Notice {
    fn of(kind: NoticeKind, message: impl AsRef<[u8]>) -> Notice {
        Notice {
            kind,
            recipients: Vec::new(),
            message: message.as_ref().to_vec(),
            ret: None,
            builder: DsnBuilder::new("mail.test"),
        }
    }

    fn told(mut self, action: Action, to: &str, reply: Reply) -> Notice {
        let at = accepted() + SignedDuration::from_hours(3);
        let state = RecipientState {
            fate: match action {
                Action::Failed => Fate::Failed {
                    since: at,
                    expired: false,
                    notified: false,
                },
                // The report says what happened to the recipient.
                _ => Fate::Pending { next: at },
            },
            ..state(to, reply)
        };
        self.recipients.push((state, None, action));
        self
    }

    fn failed(self, to: &str, reply: Reply) -> Notice {
        self.told(Action::Failed, to, reply)
    }

    fn bytes(&self) -> Vec<u8> {
        let at = accepted() + SignedDuration::from_hours(4);
        let sender = Address::parse("sender@example.org").unwrap();
        let recipients = self.recipients.iter();
        let report = Report {
            id: QueueId::new(at, [2; 10]),
            origin: QueueId::new(accepted(), [1; 10]),
            kind: self.kind,
            sender: &sender,
            recipients: recipients
                .map(|(state, original, action)| Reported {
                    state,
                    original: original.as_ref(),
                    action: *action,
                    until: Some(accepted() + SignedDuration::from_hours(96)),
                })
                .collect(),
            ret: self.ret,
            envid: Some("QQ314159"),
            body: Body::of_bytes(self.message.as_slice()),
            at,
        };
        self.builder.build(&report).unwrap().unwrap()
    }

    /// Parses the notice, and checks what is true of every notice.
    fn read(&self) -> Read {
        let read = read(&self.bytes());
        let status = read.status();
        assert_eq!(status.len(), 1 + self.recipients.len(), "{status:?}");
        let id = QueueId::new(accepted(), [1; 10]).to_string();
        for (field, value) in [
            ("Original-Envelope-Id", "QQ314159"),
            ("Reporting-MTA", "dns; mail.test"),
            ("Arrival-Date", "Sun, 22 Nov 2026 14:05:00 +0000"),
            ("X-Mailspool-Id", &id),
        ] {
            assert_eq!(status[0][field], value);
        }
        for ((state, _, action), block) in self.recipients.iter().zip(&status[1..]) {
            let (_, address) = block["Final-Recipient"]
                .as_str()
                .unwrap()
                .split_once("; ")
                .unwrap();
            assert_eq!(address, &*state.address.on_wire().unwrap());
            assert_eq!(block["Action"], action.as_str());
            assert_eq!(
                block["Last-Attempt-Date"],
                "Sun, 22 Nov 2026 17:05:00 +0000"
            );
            assert_eq!(
                block.get("Will-Retry-Until").is_some(),
                *action == Action::Delayed
            );
        }
        read
    }
}

impl Read {
    fn status(&self) -> &[Value] {
        self.email["status"].as_array().unwrap()
    }

    fn text(&self) -> &str {
        self.email["text"].as_str().unwrap()
    }

    /// flufl.bounce's result: delayed, failed.
    fn flufl(&self) -> (Vec<&str>, Vec<&str>) {
        let list = |name: &str| {
            let list = self.email[name].as_array().unwrap().iter();
            list.map(|one| one.as_str().unwrap()).collect()
        };
        (list("temporary"), list("permanent"))
    }

    /// Sisimai's results, with these of its fields.
    fn sisimai<const N: usize>(&self, fields: [&str; N]) -> Vec<[&str; N]> {
        let one = |value: &Value| -> [String; N] {
            fields.map(|field| {
                value[field]
                    .as_str()
                    .map_or(value[field].to_string(), str::to_owned)
            })
        };
        let found: Vec<[String; N]> = self.sisimai.iter().map(one).collect();
        // Leaked, because these are a few words in a test.
        let leak = |name: [String; N]| name.map(|text| &*text.leak());
        found.into_iter().map(leak).collect()
    }
}

fn state(to: &str, reply: Reply) -> RecipientState {
    RecipientState {
        address: Address::parse(to).unwrap(),
        dsn: RecipientDsn::default(),
        warn: None,
        warned: None,
        last: Some(reply),
        last_attempt: Some((accepted() + SignedDuration::from_hours(3), None)),
        attempts: 12,
        fate: Fate::Pending { next: accepted() },
    }
}

fn said(code: u16, status: &str, text: &str) -> Reply {
    Reply::of_server(
        code,
        status.parse().ok(),
        text,
        "mx.users.test[192.0.2.1]:25",
    )
}

/// Parses a notice, and checks what is true of every notice.
fn read(notice: &[u8]) -> Read {
    let parsers = tools::tool("parsers");
    let python = parsers.join("bin/python");
    assert!(
        python.exists(),
        "these tests need flufl.bounce: run `scripts/parsers {}`",
        parsers.display()
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/notices/read.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(notice).unwrap();
    let email: Value = json_of(&child.wait_with_output().unwrap(), notice);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), notice).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/notices/read.pl");
    let perl = Command::new("perl").arg(script).arg(file.path()).output();
    let sisimai = json_of(&perl.unwrap(), notice);
    let shown = String::from_utf8_lossy(notice);
    assert_eq!(email["defects"], json!([]), "{shown}");
    assert_eq!(email["kind"], "multipart/report");
    assert_eq!(email["report_type"], "delivery-status");
    assert_eq!(email["header"]["Auto-Submitted"], "auto-replied");
    assert!(email["longest"].as_u64().unwrap() <= 998);
    let names = [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
    ];
    for name in names {
        assert!(email["header"][name].is_string(), "{name}: {shown}");
    }
    Read {
        email,
        sisimai: sisimai.as_array().unwrap().clone(),
    }
}

fn json_of(output: &Output, notice: &[u8]) -> Value {
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{err} (Sisimai is in Debian's libsisimai-perl)\n{}",
        String::from_utf8_lossy(notice)
    );
    serde_json::from_slice(out)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(out)))
}

#[test]
fn recipients_with_their_replies() {
    let notice = Notice::of(NoticeKind::Bounce, MESSAGE)
        .failed(
            "a@users.test",
            said(550, "5.1.1", "<a@users.test>: no such user"),
        )
        .failed("b@users.test", said(552, "5.2.2", "mailbox full"))
        .failed("c@users.test", said(554, "", "Message rejected as spam"))
        .failed("d@users.test", said(552, "5.2.2", "mailbox full"));
    let mut notice = notice;
    notice.recipients[1].1 = Some(OriginalRecipient {
        kind: "rfc822".to_owned(),
        address: "b+list@example.org".to_owned(),
    });
    let read = notice.read();
    let parts = ["text/plain", "message/delivery-status", "message/rfc822"];
    assert_eq!(read.email["parts"], json!(parts));
    assert_eq!(read.email["encodings"], json!(["7bit", "7bit", "7bit"]));
    assert_eq!(
        read.email["original"],
        json!({"subject": "Lunch on Friday", "body": "At noon?\n"})
    );
    assert_eq!(read.email["header"]["To"], "sender@example.org");
    assert_eq!(
        read.email["header"]["Subject"],
        "Not delivered: Lunch on Friday"
    );
    assert_eq!(read.email["header"]["In-Reply-To"], "<lunch@example.org>");
    assert_eq!(read.email["header"]["References"], "<lunch@example.org>");
    let of = |n: usize, field: &str| read.status()[n][field].as_str().unwrap();
    assert_eq!(of(2, "Original-Recipient"), "rfc822; b+list@example.org");
    assert_eq!(
        of(1, "Diagnostic-Code"),
        "smtp; 550 5.1.1 <a@users.test>: no such user"
    );
    assert_eq!(of(3, "Status"), "5.0.0");
    assert_eq!(of(3, "Remote-MTA"), "dns; mx.users.test");
    let (delayed, failed) = read.flufl();
    // If a recipient has two addresses, Sisimai takes the first: the one that the sender used.
    let expected = [
        "a@users.test",
        "b+list@example.org",
        "c@users.test",
        "d@users.test",
    ];
    assert_eq!((delayed, failed), (vec![], expected.to_vec()));
    assert_eq!(
        read.sisimai(["recipient", "status", "action", "reason", "soft"]),
        [
            ["a@users.test", "5.1.1", "failed", "userunknown", "0"],
            ["b@users.test", "5.2.2", "failed", "mailboxfull", "1"],
            ["c@users.test", "5.0.0", "failed", "spamdetected", "1"],
            ["d@users.test", "5.2.2", "failed", "mailboxfull", "1"],
        ]
    );
    assert_eq!(
        read.sisimai(["remote", "reply", "sender", "original", "subject"])[1],
        [
            "mx.users.test",
            "552 5.2.2 mailbox full",
            "sender@example.org",
            "lunch@example.org",
            "Lunch on Friday"
        ]
    );
    assert_eq!(
        read.text().matches("mailbox full").count(),
        1,
        "{}",
        read.text()
    );
}

#[test]
fn time_that_is_up() {
    let mut notice = Notice::of(NoticeKind::Bounce, MESSAGE).failed(
        "a@users.test",
        Reply::local(
            EnhancedCode::new(4, 4, 1),
            "cannot connect: connection refused",
        ),
    );
    let since = accepted();
    notice.recipients[0].0.fate = Fate::Failed {
        since,
        expired: true,
        notified: false,
    };
    let read = notice.read();
    assert_eq!(read.status()[1]["Status"], "4.4.7");
    assert_eq!(
        read.status()[1]["Diagnostic-Code"],
        "x-mailspool; 4.4.1 cannot connect: connection refused"
    );
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    assert_eq!(
        read.sisimai(["recipient", "action", "soft"]),
        [["a@users.test", "failed", "1"]]
    );
    let words = "It was tried 12 times since 22 November\n    2026, 14:05 UTC, the last time on";
    assert!(read.text().contains(words), "{}", read.text());
}

#[test]
fn a_delay_is_temporary() {
    let notice = Notice::of(NoticeKind::Delay, MESSAGE)
        .told(
            Action::Delayed,
            "a@users.test",
            said(451, "4.7.1", "greylisted"),
        )
        .told(
            Action::Delayed,
            "b@users.test",
            said(452, "4.2.2", "mailbox full"),
        );
    let read = notice.read();
    assert_eq!(read.email["parts"][2], "text/rfc822-headers");
    assert_eq!(read.email["original"]["subject"], "Lunch on Friday");
    let until = &read.status()[1]["Will-Retry-Until"];
    assert_eq!(until, "Thu, 26 Nov 2026 14:05:00 +0000");
    assert_eq!(read.flufl(), (vec!["a@users.test", "b@users.test"], vec![]));
    assert_eq!(
        read.sisimai(["recipient", "status", "action", "soft"]),
        [
            ["a@users.test", "4.7.1", "delayed", "1"],
            ["b@users.test", "4.2.2", "delayed", "1"],
        ]
    );
    assert!(read.text().contains("You need not do anything"));
}

#[test]
fn a_success_is_no_failure() {
    let local = Reply::local(EnhancedCode::new(2, 0, 0), "delivered");
    let notice = Notice::of(NoticeKind::Success, MESSAGE)
        .told(Action::Delivered, "a@users.test", local)
        .told(
            Action::Relayed,
            "b@users.test",
            said(250, "2.6.0", "queued"),
        );
    let read = notice.read();
    assert_eq!(read.email["parts"][2], "text/rfc822-headers");
    assert_eq!(read.status()[1]["Status"], "2.0.0");
    assert_eq!(read.status()[2]["Status"], "2.6.0");
    assert_eq!(read.flufl(), (vec![], vec![]));
    assert_eq!(
        read.sisimai(["recipient", "status", "action", "reason"]),
        [
            ["a@users.test", "2.0.0", "delivered", "delivered"],
            ["b@users.test", "2.6.0", "relayed", "delivered"],
        ]
    );
}

#[test]
fn what_is_not_ascii() {
    let message = "Received: by mail.test\nSubject: Größe\nMessage-ID: <1@x>\n\nschön\n";
    let unicode = said(550, "5.6.7", "kein Zugang für sie");
    // A domain has an ASCII form, which every parser reads.
    let notice = Notice::of(NoticeKind::Bounce, message).failed("a@bücher.test", unicode.clone());
    let read = notice.read();
    let parts = ["text/plain", "message/delivery-status", "message/global"];
    assert_eq!(read.email["parts"], json!(parts));
    assert_eq!(
        read.email["encodings"],
        json!(["quoted-printable", "7bit", "8bit"])
    );
    assert_eq!(read.email["original"]["body"], "schön\n");
    assert_eq!(read.email["header"]["Subject"], "Not delivered: Größe");
    assert_eq!(read.flufl(), (vec![], vec!["a@xn--bcher-kva.test"]));
    assert_eq!(
        read.sisimai(["recipient", "status"]),
        [["a@xn--bcher-kva.test", "5.6.7"]]
    );
    assert!(read.text().contains("  a@bücher.test\n"));
    // A local part has none. flufl.bounce and Sisimai do not support RFC 6533; they must not report another
    // recipient.
    let notice = Notice::of(NoticeKind::Bounce, message).failed("böb@users.test", unicode);
    let read = notice.read();
    let parts = [
        "text/plain",
        "message/global-delivery-status",
        "message/global",
    ];
    assert_eq!(read.email["parts"], json!(parts));
    assert_eq!(read.status()[1]["Final-Recipient"], "utf-8; böb@users.test");
    assert_eq!(
        read.status()[1]["Diagnostic-Code"],
        "smtp; 550 5.6.7 kein Zugang für sie"
    );
    assert_eq!(read.flufl(), (vec![], vec![]));
    // Among other recipients it is written in ASCII, and they are found.
    let mut notice = Notice::of(NoticeKind::Bounce, MESSAGE);
    notice = notice.failed("a@users.test", said(550, "5.1.1", "no"));
    let mut more = Notice::of(NoticeKind::Bounce, MESSAGE);
    more = more.failed("böb@users.test", said(550, "5.1.1", "no"));
    notice.recipients.append(&mut more.recipients);
    let read = crate::read(&notice.bytes());
    assert_eq!(read.email["parts"][1], "message/delivery-status");
    assert_eq!(
        read.status()[2]["Final-Recipient"],
        "utf-8; b\\x{F6}b@users.test"
    );
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    let found = read.sisimai(["recipient", "status"]);
    assert_eq!(found[0], ["a@users.test", "5.1.1"], "{found:?}");
    // Eight-bit text without a charset, header only.
    let mut notice = Notice::of(
        NoticeKind::Bounce,
        b"Received: by x\nSubject: Gr\xf6\xdfe\n\nsch\xf6n\n",
    );
    notice = notice.failed("a@users.test", said(550, "5.1.1", "no"));
    let read = notice.read();
    assert_eq!(read.email["parts"][2], "message/rfc822");
    assert_eq!(read.email["encodings"][2], "8bit");
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    notice.ret = Some(Ret::Headers);
    let read = notice.read();
    assert_eq!(read.email["parts"][2], "text/rfc822-headers");
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
}

#[test]
fn a_notice_in_seven_bits() {
    let body = "At noön = twelve\n";
    let message = MESSAGE.replace("At noon?\n", body);
    let notice = Notice::of(NoticeKind::Bounce, message.as_bytes())
        .failed("a@users.test", said(550, "5.1.1", "no such user"));
    let id = QueueId::new(accepted() + SignedDuration::from_hours(4), [2; 10]);
    let seven = mailspool::testing::message::seven_bit::in_seven_bits(id, &notice.bytes()).unwrap();
    assert!(seven.is_ascii());
    let read = read(&seven);
    assert_eq!(
        read.email["parts"],
        json!(["text/plain", "message/delivery-status", "message/global"])
    );
    let encodings = ["7bit", "7bit", "quoted-printable"];
    assert_eq!(read.email["encodings"], json!(encodings));
    // Python does not parse an encoded message, but its content can be decoded.
    assert_eq!(read.email["original"]["subject"], "Lunch on Friday");
    let found = read.email["original"]["body"].as_str().unwrap();
    assert_eq!(found, "At no=C3=B6n =3D twelve\n");
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    assert_eq!(
        read.sisimai(["recipient", "status", "reply", "original"]),
        [[
            "a@users.test",
            "5.1.1",
            "550 5.1.1 no such user",
            "lunch@example.org"
        ]]
    );
}

#[test]
fn subjects_in_other_character_sets() {
    for (subject, shown) in [
        ("=?iso-2022-jp?B?GyRCRnxLXDhsJE43b0w+GyhC?=", "日本語の件名"),
        (
            "=?gb2312?B?xOO6w8rAvec=?= =?euc-kr?B?waa48Q==?=",
            "你好世界제목",
        ),
    ] {
        let message = MESSAGE.replace("Lunch on Friday", subject);
        let notice = Notice::of(NoticeKind::Bounce, message);
        let read = notice
            .failed("a@users.test", said(550, "5.1.1", "no"))
            .read();
        let expected = format!("Not delivered: {shown}");
        assert_eq!(read.email["header"]["Subject"], *expected);
        assert!(read.text().contains(shown), "{}", read.text());
    }
}

#[test]
fn a_host_without_a_name() {
    for (remote, named) in [
        ("[192.0.2.1]:25", "dns; [192.0.2.1]"),
        ("2001:db8::1", "dns; [IPv6:2001:db8::1]"),
    ] {
        let reply = Reply::of_server(550, "5.1.1".parse().ok(), "no", remote);
        let read = Notice::of(NoticeKind::Bounce, MESSAGE)
            .failed("a@users.test", reply)
            .read();
        assert_eq!(read.status()[1]["Remote-MTA"], named);
        assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
        assert_eq!(
            read.sisimai(["recipient", "status"]),
            [["a@users.test", "5.1.1"]]
        );
    }
}

#[test]
fn a_reply_of_many_lines() {
    let lines: Vec<String> = (0..30).map(|n| format!("5.7.1 line {n} says no")).collect();
    let reply = said(550, "5.7.1", &lines.join("\n"));
    let read = Notice::of(NoticeKind::Bounce, MESSAGE)
        .failed("a@users.test", reply)
        .read();
    let expected = format!("smtp; 550 5.7.1 {}", lines.join(" "));
    assert_eq!(read.status()[1]["Diagnostic-Code"], expected);
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    let found = read.sisimai(["recipient", "status", "reply"]);
    assert_eq!(found[0][..2], ["a@users.test", "5.7.1"]);
    assert!(found[0][2].ends_with("line 29 says no"), "{found:?}");
}

#[test]
fn originals_that_are_too_much() {
    let bounce = |message: &[u8]| {
        let notice = Notice::of(NoticeKind::Bounce, message);
        let read = notice
            .failed("a@users.test", said(550, "5.1.1", "no"))
            .read();
        assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
        assert_eq!(
            read.sisimai(["recipient", "status", "original"]),
            [["a@users.test", "5.1.1", "lunch@example.org"]]
        );
        assert_eq!(read.email["parts"][2], "text/rfc822-headers");
        assert_eq!(read.email["original"]["subject"], "Lunch on Friday");
        read
    };
    let large = [MESSAGE, &"x".repeat(70).repeat(1000)].concat();
    bounce(large.as_bytes());
    let header = MESSAGE.split_once("\n\n").unwrap().0;
    let many: String = (0..20_000).map(|n| format!("\nX-{n}: {n}")).collect();
    let read = bounce(format!("{header}{many}\n\n").as_bytes());
    assert!(read.email["original"]["body"].as_str().unwrap().len() <= 64 << 10);
    // Neither NULs nor long lines, in body or header, keep a bounce from being read.
    bounce(&[MESSAGE.as_bytes(), b"a\0b\n"].concat());
    bounce(&[MESSAGE.as_bytes(), &[b'x'; 2000], b"\n"].concat());
    bounce(format!("{MESSAGE}a\rb\n").as_bytes());
    let notice = Notice::of(
        NoticeKind::Bounce,
        format!("X-Long: {}\n{MESSAGE}\0", "x".repeat(3000)),
    );
    let read = notice
        .failed("a@users.test", said(550, "5.1.1", "no"))
        .read();
    assert_eq!(read.email["encodings"][2], "quoted-printable");
    assert_eq!(read.email["original"]["subject"], "Lunch on Friday");
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    assert_eq!(
        read.sisimai(["recipient", "status"]),
        [["a@users.test", "5.1.1"]]
    );
}

#[test]
fn what_looks_like_another_part() {
    let id = QueueId::new(accepted() + SignedDuration::from_hours(4), [2; 10]);
    let message = format!(
        "{MESSAGE}--=_{id}.0\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n\
         Final-Recipient: rfc822; evil@users.test\nAction: failed\nStatus: 5.1.1\n\n--=_{id}.0--\n\
         --\n--=_{id}.1--\n.\nFrom sender\n"
    );
    let read = Notice::of(NoticeKind::Bounce, &message)
        .failed("a@users.test", said(550, "5.1.1", &format!("--=_{id}.0")))
        .read();
    let body = message.split_once("\n\n").unwrap().1;
    assert_eq!(read.email["original"]["body"], body);
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test"]));
    assert_eq!(read.sisimai(["recipient"]), [["a@users.test"]]);
}

#[test]
fn local_parts_in_quotes() {
    let mut notice = Notice::of(NoticeKind::Bounce, MESSAGE);
    let quoted = [
        "\"a b\"@users.test",
        "\"a@b\"@users.test",
        "o'c+d@users.test",
    ];
    for to in quoted {
        notice = notice.failed(to, said(550, "5.1.1", "no"));
    }
    let read = notice.read();
    let mut all = quoted;
    all.sort_unstable();
    assert_eq!(read.flufl(), (vec![], all.to_vec()));
    // Sisimai does not support blanks in an address.
    assert_eq!(
        read.sisimai(["recipient", "status"]),
        [
            ["\"a@b\"@users.test", "5.1.1"],
            ["o'c+d@users.test", "5.1.1"]
        ]
    );
}

#[test]
fn words_of_an_administrator() {
    let mut notice = Notice::of(NoticeKind::Bounce, MESSAGE)
        .failed("a@users.test", said(550, "5.1.1", "no"))
        .failed("b@users.test", said(552, "5.2.2", "full"));
    let words = Wording::of(NoticeKind::Bounce)
        .with_from("Poststelle, Größe <post@{hostname}>")
        .and_then(|words| words.with_subject("Zurück von {hostname}: {subject}"))
        .and_then(|words| words.with_text("Liebe {sender},\n\n{{{recipients}}}\n\n-- \n{id}\n"));
    notice.builder.templates.bounce = words.unwrap();
    let read = notice.read();
    let header = &read.email["header"];
    assert_eq!(header["From"], "\"Poststelle, Größe\" <post@mail.test>");
    assert_eq!(header["Subject"], "Zurück von mail.test: Lunch on Friday");
    let id = QueueId::new(accepted(), [1; 10]);
    let text = format!("Liebe sender@example.org,\n\n{{a@users.test, b@users.test}}\n\n--\n{id}\n");
    assert_eq!(read.text(), text);
    assert_eq!(read.flufl(), (vec![], vec!["a@users.test", "b@users.test"]));
    assert_eq!(
        read.sisimai(["recipient", "status"]),
        [["a@users.test", "5.1.1"], ["b@users.test", "5.2.2"]]
    );
}
