//! Notices about any message, with any text: a parser of the notice finds exactly the fields we wrote.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mail_parser::{MessageParser, MimeHeaders};
use mailspool::testing::disk::Body;
use mailspool::testing::message::{Address, NoticeKind, OriginalRecipient, QueueId, Reply, Ret};
use mailspool::testing::notice::{Action, DsnBuilder, NoticeBuilder, Report, Reported, Wording};
use mailspool::testing::queue::State;

// An input has an address, a reply, a text, and a message.
fuzz_target!(|input: &[u8]| {
    let [to, said, words, message] = help::parts(input);
    // Addresses that an earlier version accepted may still be stored.
    let Ok(Ok(to)) = std::str::from_utf8(to).map(Address::stored) else {
        return;
    };
    let (said, words) = (
        String::from_utf8_lossy(said),
        String::from_utf8_lossy(words),
    );
    let (kind, action) = match said.len() % 3 {
        0 => (NoticeKind::Bounce, Action::Failed),
        1 => (NoticeKind::Delay, Action::Delayed),
        _ => (NoticeKind::Success, Action::Relayed),
    };
    let mut builder = DsnBuilder::new("mail.test");
    let wording = Wording::of(kind);
    let wording = wording.clone().with_text(&words).unwrap_or(wording);
    let (first, rest) = words.split_once('\n').unwrap_or((&words, ""));
    let wording = wording.clone().with_subject(first).unwrap_or(wording);
    let wording = wording.clone().with_from(rest).unwrap_or(wording);
    match kind {
        NoticeKind::Bounce => builder.templates.bounce = wording,
        NoticeKind::Delay => builder.templates.delay = wording,
        NoticeKind::Success => builder.templates.success = wording,
    }
    let sender = Address::parse("me@x.test").expect("an address");
    let mut state = State::new(help::id(), &help::envelope("me@x.test", &["a@x.test"]));
    let one = &mut state.recipients[0];
    one.address = to.clone();
    one.last = Some(Reply {
        code: Some(550),
        enhanced: said.get(..5).and_then(|code| code.parse().ok()),
        text: said.clone().into_owned(),
        remote: Some(first.to_owned()),
        relay: None,
    });
    let original = OriginalRecipient {
        kind: first.to_owned(),
        address: said.clone().into_owned(),
    };
    let report = Report {
        id: QueueId::new(help::now(), [9; 10]),
        origin: help::id(),
        kind,
        sender: &sender,
        recipients: vec![Reported {
            state: &state.recipients[0],
            original: Some(&original),
            action,
            until: None,
        }],
        ret: (words.len() % 2 == 0).then_some(Ret::Headers),
        envid: Some(&said),
        body: Body::of_bytes(message),
        at: help::now(),
    };
    let notice = builder
        .build(&report)
        .expect("nothing is read")
        .expect("a notice");
    judge(&notice, action);
});

fn judge(notice: &[u8], action: Action) {
    let shown = String::from_utf8_lossy(notice);
    assert!(!notice.contains(&b'\r') && !notice.contains(&0), "{shown}");
    let longest = notice.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert!(longest <= Some(998), "{longest:?}");
    let parsed = MessageParser::default().parse(notice).expect("a message");
    let names: Vec<&str> = parsed.headers().iter().map(|field| field.name()).collect();
    let (fixed, rest) = names.split_at(5);
    assert_eq!(
        fixed,
        ["From", "To", "Subject", "Date", "Message-ID"],
        "{shown}"
    );
    let rest = rest
        .strip_prefix(&["In-Reply-To", "References"][..])
        .unwrap_or(rest);
    let expected = [
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ];
    assert_eq!(rest, expected, "{shown}");
    let (header, body) = shown.split_once("\n\n").expect("a body");
    assert!(header.is_ascii(), "{shown}");
    let kind = parsed.content_type().expect("a type");
    let boundary = kind.attribute("boundary").expect("a boundary");
    let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 5, "{shown}");
    let (_, status) = parts[2].split_once("\n\n").expect("fields");
    let lines = |begin: &str| {
        status
            .lines()
            .filter(|line| line.starts_with(begin))
            .count()
    };
    assert_eq!(lines("Final-Recipient: "), 1, "{shown}");
    assert_eq!(lines("Action: "), 1, "{shown}");
    assert_eq!(lines(&format!("Action: {}", action.as_str())), 1, "{shown}");
    assert_eq!(status.trim_end().matches("\n\n").count(), 1, "{shown}");
}
