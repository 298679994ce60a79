//! The public API, as an embedding program uses it.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailspool::jiff::{SignedDuration, Timestamp};
use mailspool::{
    Acceptor, EnhancedCode, Error, ErrorKind, Outcome, Runner, Spool, Submission, Transport,
    transports,
};

const TEXT: &[u8] = b"Subject: hello\n\nHello!\n";

fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open_or_create(dir.path().join("spool")).unwrap();
    (dir, spool.hostname("app.example.org").unwrap())
}

fn to(recipient: &str) -> Submission {
    Submission::new("me@example.org", [recipient]).unwrap()
}

fn delivering() -> impl Transport {
    transports::from_fn(|_, to| vec![Outcome::delivered("taken"); to.len()])
}

fn deferring() -> impl Transport {
    let full = || Outcome::deferred(EnhancedCode::new(4, 2, 2), "full");
    transports::from_fn(move |_, to| vec![full(); to.len()])
}

/// The kind of an error, and whether a submitter returns the message to its sender.
fn kind<T>(result: Result<T, Error>) -> (ErrorKind, bool) {
    let error = result.err().expect("an error");
    assert!(!error.to_string().is_empty());
    (error.kind(), error.is_permanent())
}

#[test]
fn the_example_runs() {
    let dir = tempfile::tempdir().unwrap();
    // As the example says; with the features with which the tests are built, so that it is built already.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "run",
        "--quiet",
        "--all-features",
        "--example",
        "embed",
        "--",
    ]);
    let output = cargo.arg(dir.path().join("spool")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("delivered: 1, deferred: 1"), "{text}");
    assert!(
        text.contains("full@example.net") && text.contains("the mailbox is full"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_submitted_is_refused() {
    let (_dir, spool) = spool();
    let refused = (ErrorKind::Refused, true);
    assert_eq!(
        kind(Submission::new("me@example.org", [] as [&str; 0])),
        refused
    );
    assert_eq!(
        kind(Submission::new("no address@", ["you@example.net"])),
        refused
    );
    assert_eq!(kind(Submission::new("", ["@"])), refused);
    assert_eq!(kind(to("you@example.net").key("")), refused);
    assert_eq!(kind(to("you@example.net").notify("always")), refused);
    let strict = Acceptor::new(&spool).max_size(10);
    assert_eq!(kind(strict.submit(to("you@example.net"), TEXT)), refused);
    assert_eq!(kind(spool.submit(to("you@example.net"), &b""[..])), refused);
    let late = Timestamp::now() + SignedDuration::from_hours(24 * 365);
    assert_eq!(
        kind(spool.submit(to("you@example.net").hold_until(late), TEXT)),
        refused
    );
    let huge = Acceptor::new(&spool).min_free(u64::MAX, 0);
    assert_eq!(
        kind(huge.submit(to("you@example.net"), TEXT)),
        (ErrorKind::NoRoom, false)
    );
    assert_eq!(spool.messages().count(), 0);
}

#[test]
fn a_spool_that_is_none_cannot_be_opened_and_a_name_that_is_none_not_set() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "a b", "x\r\nBcc: y@z.test", "x@y.test"] {
        let spool = Spool::open_or_create(dir.path().join("spool")).unwrap();
        assert_eq!(
            kind(spool.hostname(name)),
            (ErrorKind::Misconfigured, true),
            "{name:?}"
        );
    }
    assert_eq!(
        kind(Spool::open(dir.path())),
        (ErrorKind::UnusableSpool, false)
    );
}

#[test]
fn a_key_is_accepted_once() {
    let (_dir, spool) = spool();
    let durable = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&durable);
    let acceptor = Acceptor::new(&spool).when_durable(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let keyed = || {
        to("you@example.net")
            .key("order 4711")
            .unwrap()
            .submitter("shop")
    };
    let first = acceptor.submit(keyed(), TEXT).unwrap();
    let again = acceptor.submit(keyed(), TEXT).unwrap();
    assert_eq!(
        (first.id, first.repeated, again.repeated),
        (again.id, false, true)
    );
    assert_eq!(
        (durable.load(Ordering::SeqCst), spool.messages().count()),
        (1, 1)
    );
}

#[test]
fn one_call_stores_and_attempts() {
    let (_dir, spool) = spool();
    let runner = Runner::builder(&spool)
        .transport("app", delivering())
        .build()
        .unwrap();
    let (id, row) = runner.submit(to("you@example.net"), TEXT).unwrap();
    assert!(row.unwrap().is_none() && spool.message(id).unwrap().is_none());
    let runner = Runner::builder(&spool)
        .transport("app", deferring())
        .build()
        .unwrap();
    let (id, row) = runner.submit(to("you@example.net"), TEXT).unwrap();
    let row = row.unwrap().unwrap();
    assert_eq!(
        (row.id.as_str(), row.status()),
        (id.to_string().as_str(), "Scheduled")
    );
    assert!(
        row.to_string().ends_with("-> you@example.net: 4.2.2 full"),
        "{row}"
    );
}

#[test]
fn routes_choose_and_their_mistakes_are_found() {
    let (_dir, spool) = spool();
    let two = || {
        let builder = Runner::builder(&spool).transport("near", delivering());
        builder.transport("far", deferring())
    };
    let wrong = (ErrorKind::Misconfigured, true);
    assert_eq!(kind(two().build()), wrong);
    assert_eq!(kind(two().route("*", "nowhere").unwrap().build()), wrong);
    assert_eq!(kind(two().route("a b", "near")), wrong);
    assert_eq!(
        kind(two().retry_after([], SignedDuration::from_hours(1))),
        wrong
    );
    assert_eq!(
        kind(transports::pipe(
            [] as [&str; 0],
            std::time::Duration::from_secs(1)
        )),
        wrong
    );
    let routed = two().route("post@far.test", "near").unwrap();
    let routed = routed
        .route("far.test", "far")
        .unwrap()
        .route(".far.test", "far")
        .unwrap();
    let runner = routed.route("*", "near").unwrap().build().unwrap();
    for recipient in [
        "post@far.test",
        "x@far.test",
        "x@sub.far.test",
        "x@else.test",
    ] {
        spool.submit(to(recipient), TEXT).unwrap();
    }
    let summary = runner.run_once().unwrap();
    assert_eq!((summary.delivered, summary.deferred), (2, 2));
}

#[test]
fn actions_and_locks() {
    let (_dir, spool) = spool();
    let id = spool.submit(to("you@example.net"), TEXT).unwrap();
    let status = || spool.message(id).unwrap().unwrap().status();
    assert!(spool.freeze(id, "ops", "a loop", None).unwrap());
    assert_eq!(status(), "Frozen");
    assert!(spool.thaw(id, "ops").unwrap());
    assert_eq!(kind(spool.thaw(id, "ops")), (ErrorKind::Refused, true));
    let entry = spool.lock(id).unwrap();
    assert_eq!(entry.sender().as_str(), "me@example.org");
    assert!(entry.body().size() > TEXT.len() as u64);
    assert_eq!(kind(spool.lock(id)), (ErrorKind::Busy, false));
    // Another process has it in hand: the action waits.
    assert!(!spool.freeze(id, "ops", "later", None).unwrap());
    drop(entry);
    let runner = Runner::builder(&spool)
        .transport("app", delivering())
        .build()
        .unwrap();
    assert_eq!(runner.run_once().unwrap().delivered, 0);
    assert_eq!(status(), "Frozen");
    assert!(
        spool
            .discard(id, "ops", "not wanted", Timestamp::now())
            .unwrap()
    );
    assert_eq!(kind(spool.lock(id)), (ErrorKind::NoSuchMessage, true));
    assert_eq!(
        kind(spool.retry(id, "ops")),
        (ErrorKind::NoSuchMessage, true)
    );
}

#[test]
fn a_blocking_call_inside_a_runtime_is_an_error() {
    let (_dir, spool) = spool();
    let id = spool.submit(to("you@example.net"), TEXT).unwrap();
    let runner = Runner::builder(&spool)
        .transport("app", delivering())
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let inside = (ErrorKind::InsideRuntime, true);
        assert_eq!(kind(runner.run_once()), inside);
        assert_eq!(kind(runner.watch()), inside);
        assert_eq!(kind(runner.attempt(id)), inside);
        assert_eq!(kind(runner.submit(to("you@example.net"), TEXT)), inside);
        assert_eq!(runner.run_once_async().await.unwrap().delivered, 1);
    });
}

/// The runner stops although nothing awaits it any more.
#[test]
fn a_watch_that_is_dropped_stops() {
    let (_dir, spool) = spool();
    let (delivered, arrived) = std::sync::mpsc::channel();
    let relay = transports::from_fn(move |_, to| {
        delivered.send(()).unwrap();
        vec![Outcome::delivered("taken"); to.len()]
    });
    let runner = Runner::builder(&spool)
        .transport("app", relay)
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let watching = runtime.spawn({
        let runner = runner.clone();
        async move { runner.watch_async().await }
    });
    spool.submit(to("you@example.net"), TEXT).unwrap();
    arrived.recv().unwrap();
    watching.abort();
    assert!(runtime.block_on(watching).unwrap_err().is_cancelled());
    drop(runner);
    // The transport goes with the runner, after the last transaction.
    assert!(arrived.recv().is_err());
}
