use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use crate::disk::{Body, Call, Verdict};
use crate::message::ReversePath;

fn id(number: u8) -> QueueId {
    QueueId::new("2026-11-22T14:05:00Z".parse().unwrap(), [number; 10])
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn message_on(disk: Disk, number: u8, sender: &[u8], bytes: &[u8]) -> Message {
    let file = disk.create(Path::new(&id(number).to_string())).unwrap();
    disk.write_all(&file, bytes).unwrap();
    Message {
        id: id(number),
        sender: ReversePath::parse(sender).unwrap(),
        dsn: None,
        body: Body::new(disk, Arc::new(file), 0, bytes.len() as u64),
    }
}

fn message(dir: &Path, number: u8, sender: &[u8], bytes: &[u8]) -> Message {
    message_on(Disk::open(dir, None).unwrap(), number, sender, bytes)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Delivers one message through a session of its own.
fn deliver(maildir: &Maildir, message: &Message, recipients: &[Address]) -> Vec<Outcome> {
    block_on(async {
        match maildir.connect("").await {
            Ok(mut session) => session.deliver(message, recipients).await,
            Err(outcome) => vec![outcome; recipients.len()],
        }
    })
}

fn names(dir: &Path) -> BTreeSet<String> {
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect(),
        Err(_) => BTreeSet::new(),
    }
}

fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let read = |name: &String| fs::read(dir.join(name)).unwrap();
    names(dir).iter().map(read).collect()
}

fn statuses(outcomes: &[Outcome]) -> Vec<Status> {
    outcomes.iter().map(|outcome| outcome.status).collect()
}

fn spool_and_box() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("box");
    (dir, path)
}

#[test]
fn a_copy_is_the_message_below_two_fields_of_ours() {
    let long = [b"Subject: x\r\n\r\n".as_slice(), &vec![b'y'; 3 * BLOCK]].concat();
    let exact = vec![b'z'; BLOCK];
    let cases: [(&[u8], &[u8], &str); 6] = [
        (b"Subject: x\n\nbody\n", b"a@example.org", "\n"),
        (b"Subject: x\r\n\r\nbody\r\n", b"a@example.org", "\r\n"),
        (b"Subject: x\n\nno end, \x00\xff", b"", "\n"),
        (b"", b"<>", "\n"),
        (&long, b"a@example.org", "\r\n"),
        (&exact, b"a@example.org", "\n"),
    ];
    for (number, (bytes, sender, end)) in cases.into_iter().enumerate() {
        let (dir, path) = spool_and_box();
        let message = message(dir.path(), number as u8, sender, bytes);
        let maildir = Maildir::new(path.clone(), "mx.example.net".into());
        let outcomes = deliver(&maildir, &message, &[address("B@Example.org")]);
        assert_eq!(statuses(&outcomes), [Status::Delivered]);
        assert_eq!(outcomes[0].reply.to_string(), "2.0.0 delivered to maildir");
        let sender = message.sender.as_str();
        let head = format!("Return-Path: <{sender}>{end}Delivered-To: B@Example.org{end}");
        let expected = [head.as_bytes(), bytes].concat();
        assert!(contents(&path.join("new")) == [expected], "{number}");
        assert_eq!(names(&path.join("tmp")).len(), 0);
        let name = names(&path.join("new")).pop_first().unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(path.join("new").join(&name)), 0o600);
        assert_eq!(mode(path.join("cur")), 0o700);
        assert!(name.starts_with(&format!("1795356300.Q{}R", message.id)));
        assert!(name.ends_with(".mx.example.net"), "{name}");
    }
}

#[test]
fn a_foreign_return_path_goes_wherever_it_stands() {
    let long = format!("X-Long: {}\n", "y\n ".repeat(BLOCK));
    let message_of = |fields: [&str; 3]| {
        let [above, between, below] = fields;
        format!("{above}Received: x\n{between}{long}{below}Subject: x\n\nReturn-Path: body\n")
    };
    let (dir, path) = spool_and_box();
    let folded = "RETURN-path :\r\n <evil@x>\n\t(c)\n";
    let fields = ["Return-Path: <evil@x>\n", folded, "return-path:\n"];
    let bytes = message_of(fields);
    let message = message(dir.path(), 1, b"a@b", bytes.as_bytes());
    let maildir = Maildir::new(path.clone(), "mx.example.net".into());
    let both = ["b@x", "c@x"].map(address);
    assert_eq!(
        statuses(&deliver(&maildir, &message, &both)),
        [Status::Delivered; 2]
    );
    let expected = both.map(|to| {
        let head = format!("Return-Path: <a@b>\nDelivered-To: {to}\n");
        (head + &message_of([""; 3])).into_bytes()
    });
    let found = contents(&path.join("new"));
    assert!(found.len() == 2 && expected.iter().all(|finding| found.contains(finding)));
}

#[test]
fn an_address_without_room_in_a_line_is_not_cut() {
    let (dir, path) = spool_and_box();
    let long = |length: usize| format!("{}@x", "a".repeat(length - 2));
    let maildir = Maildir::new(path.clone(), "mx.example.net".into());
    let message = message(dir.path(), 1, long(1000).as_bytes(), b"Subject: x\n\n");
    let to = [long(997), long(998)].map(|text| address(&text));
    assert_eq!(
        statuses(&deliver(&maildir, &message, &to)),
        [Status::Delivered; 2]
    );
    let expected = [
        format!("Delivered-To:\n {}\nSubject: x\n\n", to[0]),
        "Subject: x\n\n".to_owned(),
    ];
    let found = contents(&path.join("new"));
    assert!(
        expected
            .iter()
            .all(|copy| found.contains(&copy.clone().into_bytes()))
    );
}

#[test]
fn every_recipient_has_a_copy_and_an_attempt_repeated_adds_none() {
    let (dir, path) = spool_and_box();
    let first = message(dir.path(), 1, b"a@b", b"Subject: x\n\n");
    let second = message(dir.path(), 2, b"a@b", b"Subject: x\n\n");
    let count = 2 * room::MOST + 1;
    let recipients: Vec<_> = (0..count)
        .map(|n| address(&format!("r{n}@example.org")))
        .collect();
    let maildir = Maildir::new(path.clone(), "h".into());
    for _ in 0..2 {
        let outcomes = deliver(&maildir, &first, &recipients);
        assert_eq!(statuses(&outcomes), vec![Status::Delivered; count]);
        assert_eq!(names(&path.join("new")).len(), count);
    }
    let _ = deliver(&maildir, &second, &recipients[..1]);
    assert_eq!(names(&path.join("new")).len(), count + 1);
    let all = contents(&path.join("new")).concat();
    for recipient in recipients {
        let field = format!("Delivered-To: {recipient}\n");
        assert!(all.windows(field.len()).any(|at| at == field.as_bytes()));
    }
}

#[test]
fn python_reads_it() {
    let (dir, path) = spool_and_box();
    let bytes = b"From: Anna <a@example.org>\r\nSubject: hello\r\n\r\nbody\r\n";
    let message = message(dir.path(), 1, b"a@example.org", bytes);
    let maildir = Maildir::new(path.clone(), "h/o:st".into());
    let recipients = [address("b@example.org"), address("\u{f6}@example.org")];
    let _ = deliver(&maildir, &message, &recipients);
    let script = "import mailbox, sys\n\
        box = mailbox.Maildir(sys.argv[1], create=False)\n\
        for key, m in sorted(box.iteritems()):\n\
        \x20   print(m['Return-Path'], m['Subject'], m.get_payload().strip(), m.get_subdir(), len(m.get_all('Delivered-To')))\n\
        box.clean()\n\
        k = sorted(box.keys())[0]; m = box[k]; m.set_subdir('cur'); m.add_flag('S'); box[k] = m\n\
        print(len(box))\n";
    let python = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .output();
    let python = python.expect("python3 is needed for this test");
    assert_eq!(
        String::from_utf8_lossy(&python.stdout),
        "<a@example.org> hello body new 1\n<a@example.org> hello body new 1\n2\n",
        "{}",
        String::from_utf8_lossy(&python.stderr)
    );
    assert_eq!(names(&path.join("cur")).len(), 1);
}

#[test]
fn what_is_not_a_maildir_defers_and_says_why() {
    let (dir, _) = spool_and_box();
    let message = message(dir.path(), 1, b"", b"x\n");
    let at = |path: &str| {
        let maildir = Maildir::new(dir.path().join(path), "h".into());
        let outcome = deliver(&maildir, &message, &[address("a@b")]).remove(0);
        assert_eq!(outcome.status, Status::Deferred);
        outcome.reply.to_string()
    };
    let missing = at("missing/box");
    assert!(missing.starts_with("4.3.5 ") && missing.contains("missing is missing"));
    assert!(!dir.path().join("missing").exists());
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(at("file").contains("Not a directory"));
    fs::create_dir_all(dir.path().join("linked/tmp")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("linked/new")).unwrap();
    assert!(at("linked").contains("linked/new is not a directory"));
}

#[test]
fn a_maildir_that_is_removed_is_made_again_for_the_next_message() {
    let (dir, path) = spool_and_box();
    let message = message(dir.path(), 1, b"", b"x\n");
    let maildir = Maildir::new(path.clone(), "h".into());
    let to = [address("a@b")];
    block_on(async {
        let mut session = maildir.connect("").await.ok().unwrap();
        let _ = session.deliver(&message, &to).await;
        assert!(session.is_reusable());
        fs::remove_dir_all(&path).unwrap();
        let outcomes = session.deliver(&message, &to).await;
        assert_eq!(statuses(&outcomes), [Status::Deferred]);
        assert!(!session.is_reusable());
    });
    assert_eq!(
        statuses(&deliver(&maildir, &message, &to)),
        [Status::Delivered]
    );
}

/// What [`Faults`] does to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The call fails.
    Once(Errno),
    /// The call is made, but reports a failure.
    Lie(Errno),
    /// The call fails, and so do all later ones.
    Ever(Errno),
}

/// Fails the nth call, records all calls, and cuts writes to 50 octets.
struct Faults {
    at: usize,
    fault: Fault,
    calls: Mutex<Vec<String>>,
}

impl Faults {
    fn new(at: usize, fault: Fault) -> Arc<Faults> {
        let calls = Mutex::default();
        Arc::new(Faults { at, fault, calls })
    }
}

impl Seam for Faults {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut calls = self.calls.lock().unwrap();
        let here = calls.len();
        let text = match call {
            Call::Rename { .. } => "rename".to_owned(),
            Call::SyncDir { path } if *path == Path::new("new") => "fsync new".to_owned(),
            call => call.name().to_owned(),
        };
        calls.push(text);
        match self.fault {
            Fault::Once(errno) if here == self.at => Verdict::Fail(errno),
            Fault::Lie(errno) if here == self.at => Verdict::PassAndFail(errno),
            Fault::Ever(errno) if here >= self.at => Verdict::Fail(errno),
            _ => Verdict::Pass,
        }
    }

    fn length(&self, _call: &Call<'_>) -> Option<usize> {
        Some(50)
    }
}

const BYTES: &[u8] = b"Subject: a message\n\nthat takes more than one write of fifty octets\n";

/// Delivers with a fault at the nth call. Returns false if there are fewer calls.
fn try_fault(at: usize, fault: Fault) -> bool {
    let (dir, path) = spool_and_box();
    let message = message(dir.path(), 1, b"a@b", BYTES);
    let to = [address("one@example.org"), address("two@example.org")];
    let faults = Faults::new(at, fault);
    let maildir = Maildir::new(path.clone(), "h".into());
    let faulty = maildir.clone().with_seam(Some(faults.clone()));
    let outcomes = deliver(&faulty, &message, &to);
    assert_eq!(outcomes.len(), 2);
    let case = format!("call {at}, {fault:?}: {:?}", faults.calls.lock().unwrap());
    let whole = |to: &Address| {
        let head = format!("Return-Path: <a@b>\nDelivered-To: {to}\n");
        [head.as_bytes(), BYTES].concat()
    };
    let new = contents(&path.join("new"));
    for (outcome, to) in outcomes.iter().zip(&to) {
        match outcome.status {
            Status::Delivered => assert!(new.contains(&whole(to)), "{case}"),
            status => assert_eq!(status, Status::Deferred, "{case}"),
        }
    }
    for copy in &new {
        let is_whole = to.iter().any(|to| *copy == whole(to));
        assert!(is_whole, "torn in new/: {case}");
    }
    if !matches!(fault, Fault::Ever(_)) {
        assert_eq!(names(&path.join("tmp")), BTreeSet::new(), "{case}");
    }
    // The next attempt repairs whatever happened, and nothing is there twice.
    let outcomes = deliver(&maildir, &message, &to);
    assert_eq!(statuses(&outcomes), [Status::Delivered; 2], "{case}");
    assert_eq!(names(&path.join("new")).len(), 2, "{case}");
    faults.calls.lock().unwrap().len() > at
}

#[test]
fn a_call_that_fails_never_loses_doubles_or_tears() {
    for errno in [Errno::ENOSPC, Errno::EIO, Errno::EINTR, Errno::EMFILE] {
        for fault in [Fault::Once(errno), Fault::Lie(errno), Fault::Ever(errno)] {
            // A kernel does not make a call that it reports as interrupted.
            if fault == Fault::Lie(Errno::EINTR) {
                continue;
            }
            let mut at = 0;
            while try_fault(at, fault) {
                at += 1;
            }
            assert!(at >= 17, "{at} calls");
        }
    }
}

#[test]
fn a_copy_is_durable_before_it_is_named_and_named_durably_before_success() {
    let (dir, path) = spool_and_box();
    let message = message(dir.path(), 1, b"a@b", b"x\n");
    let maildir = Maildir::new(path, "h".into());
    let to = [address("one@example.org"), address("two@example.org")];
    let _ = deliver(&maildir, &message, &to);
    let seam = Faults::new(usize::MAX, Fault::Once(Errno::EIO));
    let _ = deliver(&maildir.with_seam(Some(seam.clone())), &message, &to);
    let calls = seam.calls.lock().unwrap().join(" ");
    let opened = "open stat stat stat";
    let written = "create create write write write write";
    let expected = format!("{opened} {written} fsync fsync rename rename open fsync new");
    assert_eq!(calls, expected);
}

#[test]
fn the_errors_have_their_codes() {
    for (errno, code) in [
        (Errno::ENOSPC, "4.3.1"),
        (Errno::EDQUOT, "4.2.2"),
        (Errno::EACCES, "4.3.0"),
        (Errno::EIO, "4.3.0"),
    ] {
        let (dir, path) = spool_and_box();
        let message = message(dir.path(), 1, b"", b"x\n");
        let maildir = Maildir::new(path, "h".into());
        let _ = deliver(&maildir, &message, &[address("a@b")]);
        let faulty = maildir.with_seam(Some(Faults::new(4, Fault::Once(errno))));
        let outcome = deliver(&faulty, &message, &[address("a@b")]).remove(0);
        let reply = outcome.reply.to_string();
        assert!(reply.starts_with(&format!("{code} create ")), "{reply}");
        assert!(reply.ends_with(errno.desc()), "{reply}");
    }
}

#[test]
fn a_message_that_cannot_be_read_is_not_delivered_in_part() {
    for at in 1..3 {
        let (dir, path) = spool_and_box();
        let bytes = vec![b'x'; BLOCK + 10];
        message(dir.path(), 1, b"", &bytes);
        let seam = Faults::new(at, Fault::Once(Errno::EIO));
        let disk = Disk::open(dir.path(), Some(seam)).unwrap();
        let body = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
        fs::write(body.path(), &bytes).unwrap();
        let name = Path::new(body.path().file_name().unwrap());
        let plain = Disk::open(dir.path(), None).unwrap();
        let file = Arc::new(plain.open_read(name).unwrap());
        let message = Message {
            id: id(2),
            sender: ReversePath::Null,
            dsn: None,
            body: Body::new(disk, file, 0, bytes.len() as u64),
        };
        let to = [address("a@b"), address("c@d")];
        let outcomes = deliver(&Maildir::new(path.clone(), "h".into()), &message, &to);
        assert_eq!(statuses(&outcomes), [Status::Deferred; 2]);
        let reply = outcomes[0].reply.to_string();
        assert!(reply.starts_with("4.3.0 cannot read the message: read "));
        assert_eq!(names(&path.join("new")), BTreeSet::new());
        assert_eq!(names(&path.join("tmp")), BTreeSet::new());
    }
}
