//! DSN parameters (RFC 3461), from `send` and `receive` to the notices that the sender gets.
//!
//! `tests/deliver` tests the parameters in transactions with other hosts, `tests/schedules` the times of delay
//! notices.

mod program;

use std::io::Read;
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use mailspool::testing::accept::{Acceptor, Error, Limits, Request};
use mailspool::testing::message::{
    Address, Dsn, EnhancedCode, Entrance, NoticeKind, Notify, OriginalRecipient, RecipientDsn,
    ReversePath,
};
use mailspool::testing::notice::{Action, NoticeBuilder, Report};
use mailspool::testing::queue::{Handover, Outcome, Routes};
use mailspool::testing::runner::Runner;
use mailspool::testing::spool::{Queue, Spool};
use mailspool::testing::transport::from_fn;
use program::{BOX, LETTER, Site, pipe, route};

/// Returns a configuration that delivers to all domains except `no.test`, which fails, and `later.test`, which
/// defers.
fn config() -> String {
    pipe("no", "cat >/dev/null; echo 5.1.1 no such user; exit 67")
        + &pipe("later", "cat >/dev/null; exit 75")
        + &route("domain", "no.test", "no")
        + &route("domain", "later.test", "later")
        + BOX
        + "\n[log]\nto = \"stderr\"\n"
}

fn send(site: &Site, wishes: &[&str], to: &[&str]) -> String {
    let send = ["send", "--queue-only", "-f", "sender@example.org"];
    let arguments: Vec<&str> = [&send[..], wishes, &["--"], to].concat();
    site.program(arguments, LETTER).ok().trim().to_owned()
}

/// Returns the notices in the box: for each the reported actions and their recipients.
fn told(site: &Site) -> Vec<Vec<(String, String)>> {
    let mut told = Vec::new();
    for mail in site.boxed() {
        let field = |name: &str| -> Vec<String> {
            let lines = mail.lines().filter_map(|line| line.strip_prefix(name));
            lines.map(|value| value.trim().to_owned()).collect()
        };
        let actions = field("Action:");
        if !actions.is_empty() {
            assert!(mail.starts_with("Return-Path: <>\n"), "{mail}");
            let recipients = field("Final-Recipient: rfc822;");
            assert_eq!(recipients.len(), actions.len(), "{mail}");
            told.push(actions.into_iter().zip(recipients).collect());
        }
    }
    told.sort();
    told
}

fn one(action: &str, recipient: &str) -> (String, String) {
    (action.to_owned(), recipient.to_owned())
}

#[test]
fn only_senders_that_ask_for_them_get_success_notices() {
    for (wishes, expected) in [
        (&[][..], None),
        (&["-N", "never"], None),
        (&["-N", "failure,delay"], None),
        (&["-V", "mark", "-R", "full"], None),
        (&["--notify", "Success"], Some("delivered")),
    ] {
        let site = Site::new(&config());
        send(&site, wishes, &["b@example.test"]);
        site.run().ok();
        let expected: Vec<_> = expected
            .map(|action| vec![one(action, "b@example.test")])
            .into_iter()
            .collect();
        assert_eq!(told(&site), expected, "{wishes:?}");
        site.is_clean_and_empty();
    }
}

#[test]
fn a_failure_without_a_wanted_notice_finishes_the_message() {
    let site = Site::new(&config());
    for wish in ["never", "success", "success,delay"] {
        send(&site, &["-N", wish], &["b@no.test"]);
        let said = site.run();
        assert_eq!(said.ok(), "1 message: 0 delivered, 0 deferred, 1 failed.\n");
        assert!(said.err.contains("notice=\"not wanted\""), "{}", said.err);
        site.is_clean_and_empty();
    }
    send(&site, &["-N", "failure"], &["b@no.test"]);
    let said = site.run();
    assert!(!said.err.contains("not wanted"), "{}", said.err);
    assert_eq!(told(&site), [[one("failed", "b@no.test")]]);
    // The null sender can get no notice, so the message is frozen for an operator.
    let send = [
        "send",
        "--queue-only",
        "-f",
        "<>",
        "-N",
        "never",
        "--",
        "b@no.test",
    ];
    site.program(send, LETTER).ok();
    site.run().ok();
    assert_eq!(site.row()["queue"], "frozen");
}

#[test]
fn failures_and_deliveries_are_two_notices_and_a_deferred_recipient_keeps_the_message() {
    let site = Site::new(&config());
    let to = ["b@example.test", "c@no.test", "d@later.test"];
    let wishes = ["-N", "success,failure", "-V", "order 17", "-R", "hdrs"];
    let original = [
        "--orcpt=rfc822;b@list",
        "--orcpt=rfc822;",
        "--orcpt=rfc822;ö@list",
    ];
    let id = send(&site, &[&wishes[..], &original].concat(), &to);
    let said = site.run().ok();
    assert!(said.contains("2 notices"), "{said}");
    let expected = [
        [one("delivered", "b@example.test")],
        [one("failed", "c@no.test")],
    ];
    assert_eq!(told(&site), expected);
    let shown = site.program(["show", &id], b"").ok();
    for line in [
        "Envid       order 17\n",
        "Return      hdrs\n",
        "  notify success,failure\n",
        "  originally rfc822;b@list\n",
        "  originally utf-8;ö@list\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    // Another attempt repeats no notice.
    site.program(["retry", "--queue-only", &id], b"").ok();
    site.run().ok();
    assert_eq!(told(&site), expected);
    // The deferred recipient is reported when an operator bounces it.
    site.program(["bounce", "--queue-only", &id], b"").ok();
    site.run().ok();
    let given_up = vec![one("failed", "d@later.test")];
    assert!(told(&site).contains(&given_up), "{:?}", told(&site));
    site.is_clean_and_empty();
}

#[test]
fn show_says_that_no_notice_was_sent() {
    let site = Site::new(&config());
    let id = send(&site, &["-N", "never"], &["b@no.test", "d@later.test"]);
    site.run().ok();
    let shown = site.program(["show", &id], b"").ok();
    let line = "  notify never; no notice of the failure is sent\n";
    assert_eq!(shown.matches(line).count(), 1, "{shown}");
    assert_eq!(site.row()["status"], "scheduled");
    // A bounce by an operator sends no notice either.
    site.program(["bounce", "--queue-only", &id], b"").ok();
    site.run().ok();
    assert_eq!(told(&site), [[]; 0]);
    site.is_clean_and_empty();
}

#[test]
fn an_invalid_dsn_parameter_is_a_usage_error_and_leaves_the_mail_with_the_mta() {
    let site = Site::new(&config());
    for (wish, words) in [
        (&["-N", "never,failure"][..], "not `never`"),
        (&["-N", ""], "not `never`"),
        (&["-R", "head"], "neither `full` nor `hdrs`"),
        (&["-V", "ö"], "ENVID: not 1 to 100 octets"),
        (&["--orcpt", "b@x"], "--orcpt \"b@x\": not a type"),
        (
            &["--orcpt=rfc822;a", "--orcpt=rfc822;b"],
            "given 2 times for 1 recipients",
        ),
    ] {
        for (verb, code) in [("send", 64), ("receive", 75)] {
            let arguments = [&[verb, "-f", "a@x"][..], wish, &["--", "b@x"]].concat();
            let said = site.program(arguments, LETTER);
            assert_eq!(said.code, code, "{verb} {wish:?}");
            assert!(said.err.contains(words), "{}", said.err);
        }
    }
    assert!(site.is_empty());
    // Empty values, as an MTA passes them for missing parameters, mean unset.
    let nothing = [
        "receive",
        "-f",
        "a@x",
        "-V",
        "",
        "--orcpt=rfc822;",
        "--",
        "b@x",
    ];
    site.program(nothing, LETTER).ok();
    let transport = program::files(&site.spool().join("info/transport"));
    let lines = std::fs::read_to_string(&transport[0]).unwrap();
    assert!(lines == "door: incoming\n", "{lines}");
}

#[test]
fn ten_thousand_recipients_have_their_dsn_parameters_in_one_line() {
    let site = Site::new(&config());
    let to: Vec<String> = (0..10_000)
        .map(|n| format!("r{n}@d{}.test", n % 7))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    send(&site, &["-N", "success"], &to);
    let transport = program::files(&site.spool().join("info/transport"));
    let lines = std::fs::read_to_string(&transport[0]).unwrap();
    assert!(lines.contains("\nnotify: 1-10000 success\n"), "{lines}");
    assert!(lines.len() < 300, "{lines}");
}

/// Each recipient has an original address of the maximum length.
#[test]
fn ten_thousand_recipients_with_different_dsn_parameters_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::create(&dir.path().join("spool")).unwrap();
    let limits = Limits {
        min_free: 0,
        ..Limits::new("host.test")
    };
    let all: Vec<Address> = (0..10_000)
        .map(|n| Address::parse(&format!("r{n}@x.test")).unwrap())
        .collect();
    let original = |to: &Address| OriginalRecipient {
        kind: "rfc822".into(),
        address: format!("{to:-<493}", to = to.as_str()),
    };
    let request = Request {
        entrance: Entrance::Active,
        sender: ReversePath::parse(b"sender@example.org").unwrap(),
        transport: None,
        key: None,
        release: None,
        dsn: Dsn {
            ret: None,
            envid: None,
            recipients: all
                .iter()
                .map(|to| RecipientDsn {
                    notify: Some(Notify::When {
                        success: true,
                        failure: to.as_str().len() % 2 == 0,
                        delay: false,
                    }),
                    original: Some(original(to)),
                })
                .collect(),
        },
        recipients: all,
        submitter: "tester".into(),
    };
    let acceptor = Acceptor::new(spool.clone(), limits);
    let id = acceptor.accept(request.clone(), LETTER).unwrap();
    let transport = spool.path().join(format!("info/transport/{id}"));
    assert!(std::fs::metadata(transport).unwrap().len() > 5_000_000);

    let notices = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&notices);
    let relay = from_fn(move |message, recipients| {
        if message.sender == ReversePath::Null {
            let mut text = String::new();
            message.body.reader().read_to_string(&mut text).unwrap();
            seen.lock().unwrap().push(text);
        } else {
            let dsn = message.dsn.as_ref().unwrap().about(recipients);
            for (to, wish) in recipients.iter().zip(dsn.recipients) {
                assert_eq!(wish.original, Some(original(to)));
            }
        }
        let taken = || Outcome::delivered("taken").handed(Handover::Relayed);
        recipients.iter().map(|_| taken()).collect()
    });
    let runner = Runner::builder(spool.clone(), "host.test")
        .transport("relay", relay)
        .routes(Routes::all_by("relay"))
        .build();
    assert_eq!(runner.pass().unwrap().delivered, 10_001);
    let notices = notices.lock().unwrap();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].matches("\nAction: relayed\n").count(), 10_000);
    assert_eq!(spool.messages().unwrap(), []);

    // More than a block may contain are refused, and nothing is left.
    let mut more = request;
    for n in 10_000..70_000 {
        let to = Address::parse(&format!("r{n}@x.test")).unwrap();
        more.dsn.recipients.push(RecipientDsn {
            notify: None,
            original: Some(original(&to)),
        });
        more.recipients.push(to);
    }
    let refused = acceptor.accept(more, LETTER);
    assert!(matches!(refused, Err(Error::WishesTooLong)), "{refused:?}");
    assert_eq!(spool.messages().unwrap(), []);
}

/// A notice's kind, and its action for each recipient.
type Kind = (NoticeKind, Vec<Action>);

/// A custom notice builder. It records each notice that it is asked for, and writes all or none of them.
struct Asked {
    kinds: Arc<Mutex<Vec<Kind>>>,
    writes: bool,
}

impl NoticeBuilder for Asked {
    fn build(&self, report: &Report<'_>) -> std::io::Result<Option<Vec<u8>>> {
        let actions = report
            .recipients
            .iter()
            .map(|recipient| recipient.action)
            .collect();
        self.kinds.lock().unwrap().push((report.kind, actions));
        assert_eq!(report.envid, Some("mark"));
        let delayed = report.kind == NoticeKind::Delay;
        assert!(
            report
                .recipients
                .iter()
                .all(|recipient| recipient.until.is_some() == delayed)
        );
        Ok(self.writes.then(|| b"Subject: told\n\n".to_vec()))
    }
}

#[test]
fn a_custom_builder_may_write_no_notice_of_any_kind() {
    for writes in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let limits = Limits {
            min_free: 0,
            ..Limits::new("host.test")
        };
        let to = ["b@x.test", "c@no.test", "d@later.test"].map(|to| Address::parse(to).unwrap());
        let wish = RecipientDsn {
            notify: Some("success,failure,delay".parse().unwrap()),
            original: None,
        };
        let request = Request {
            entrance: Entrance::Active,
            sender: ReversePath::parse(b"sender@example.org").unwrap(),
            recipients: to.to_vec(),
            transport: None,
            dsn: Dsn {
                ret: None,
                envid: Some("mark".into()),
                recipients: vec![wish; 3],
            },
            key: None,
            release: None,
            submitter: "tester".into(),
        };
        let id = Acceptor::new(spool.clone(), limits)
            .accept(request, LETTER)
            .unwrap();
        let told = Arc::new(Mutex::new(0));
        let kinds: Arc<Mutex<Vec<Kind>>> = Arc::default();
        let pass = |hours: i64| {
            let count = Arc::clone(&told);
            let relay = from_fn(move |message, recipients| {
                *count.lock().unwrap() += usize::from(message.sender == ReversePath::Null);
                let code = |class| EnhancedCode::new(class, 0, 0);
                let outcome = |to: &Address| match to.domain() {
                    Some("no.test") => Outcome::failed(code(5), "no"),
                    Some("later.test") => Outcome::deferred(code(4), "later"),
                    _ => Outcome::delivered("taken"),
                };
                recipients.iter().map(outcome).collect()
            });
            let now = id.accepted() + SignedDuration::from_hours(hours);
            let builder = Asked {
                kinds: Arc::clone(&kinds),
                writes,
            };
            let runner = Runner::builder(spool.clone(), "host.test")
                .transport("relay", relay)
                .routes(Routes::all_by("relay"))
                .notices(builder)
                .clock(move || now)
                .build();
            runner.pass().unwrap();
            runner.pass().unwrap();
        };
        for hours in [0, 1, 5, 6, 30] {
            pass(hours);
        }
        let expected = [
            (NoticeKind::Bounce, vec![Action::Failed]),
            (NoticeKind::Success, vec![Action::Delivered]),
            (NoticeKind::Delay, vec![Action::Delayed]),
        ];
        assert_eq!(*kinds.lock().unwrap(), expected);
        assert_eq!(*told.lock().unwrap(), if writes { 3 } else { 0 });
        let messages = spool.messages().unwrap();
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(matches!(messages[0].1, Queue::Deferred(_)), "{messages:?}");
    }
}
