//! Directories, messages and requests that the spool's owner may not read, for example files owned by root
//! after a restore: each is reported, and delays nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::program::{BOX, Site, names, until};

const OWNER: u32 = 65534;

/// A spool of the unprivileged user 65534, to which the program switches.
fn site() -> Site {
    let site = Site::with_box();
    fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    give_all(site.dir(), OWNER);
    site
}

fn give_all(dir: &Path, user: u32) {
    let mut chown = Command::new("chown");
    let chown = chown.arg("-Rh").arg(user.to_string()).arg(dir);
    assert!(chown.status().unwrap().success());
}

/// Gives the path to root.
fn close(path: &Path) {
    chown(path, Some(0), Some(0)).unwrap();
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn open(path: &Path) {
    chown(path, Some(OWNER), None).unwrap();
}

/// Messages in `active/`, oldest first.
fn queued(site: &Site, count: usize) -> Vec<String> {
    // Queued through the library, in this process, which runs as root.
    give_all(&site.spool(), 0);
    site.queue_many(count, |n| format!("r{n}@example.test"));
    give_all(&site.spool(), OWNER);
    let spool = site.spool();
    let ids = |dir: &str| names(&spool.join(dir)).into_iter();
    let mut ids: Vec<String> = ids("active").chain(ids("incoming")).collect();
    ids.sort();
    ids
}

fn message(site: &Site, id: &str) -> PathBuf {
    let dirs = ["active", "incoming"].map(|dir| site.spool().join(dir).join(id));
    dirs.into_iter().find(|path| path.exists()).unwrap()
}

#[test]
fn a_directory_that_cannot_be_listed_holds_nothing_else_up() {
    for dir in [
        "deferred/2026-11-20T0000Z",
        "frozen/2026-11-20T0000Z",
        "deferred",
        "discarded",
        "requests",
        "keys",
        "keys/new",
        "done",
        "new",
        "incoming",
    ] {
        let site = site();
        for n in 0..3 {
            site.queue(&[&format!("r{n}@example.test")]);
        }
        let closed = site.spool().join(dir);
        fs::create_dir_all(&closed).unwrap();
        close(&closed);
        for _ in 0..2 {
            let run = site.run();
            assert_eq!((run.code, site.boxed().len()), (75, 3), "{dir}: {run}");
            let said = "could not be read (see the log)";
            let trouble = run.err.contains(said) || run.err.contains("could not be processed");
            assert!(trouble, "{dir}: {run}");
        }
        open(&closed);
        site.run();
        assert_eq!(site.boxed().len(), 3, "{dir}");
        site.is_clean_and_empty();
    }
}

/// Readable messages are shown, and unreadable ones are reported.
#[test]
fn looking_goes_on_where_a_directory_cannot_be_listed() {
    for dir in ["deferred/2026-11-20T0000Z", "deferred", "frozen"] {
        let site = site();
        let id = site.queue(&["r@example.test"]);
        let closed = site.spool().join(dir);
        fs::create_dir_all(&closed).unwrap();
        close(&closed);
        let path = closed.display().to_string();
        for (command, shown) in [("list", id.as_str()), ("count", "1\n")] {
            let looked = site.program([command], b"");
            assert!(looked.text().contains(shown), "{dir}: {looked}");
            assert!(looked.err.contains(&path), "{dir}: {looked}");
            assert_eq!(looked.code, 75, "{dir}: {looked}");
        }
        let check = site.program(["check"], b"");
        assert_eq!(check.code, 65, "{dir}: {check}");
        let text = check.text();
        assert!(
            text.contains("1 message and some that cannot be counted"),
            "{check}"
        );
        assert!(text.contains(&path), "{check}");
        // A message elsewhere accepts actions.
        let frozen = site.program(["freeze", "--", &id], b"");
        if dir != "frozen" {
            assert_eq!(frozen.code, 0, "{dir}: {frozen}");
        }
    }
}

/// A message that may be in an unreadable directory is not taken for gone: its key is not free, and a request
/// for it stays pending.
#[test]
fn a_message_in_a_closed_directory_is_not_gone() {
    let site = site();
    let keyed = |to: &str| {
        let arguments = [
            "send",
            "--queue-only",
            "--key",
            "k",
            "--at",
            "+2h",
            "--",
            to,
        ];
        site.program(arguments, b"Subject: s\n\nx\n")
    };
    let id = keyed("r@example.test").ok().trim().to_owned();
    let spool = site.spool();
    let bucket = names(&spool.join("deferred")).pop().unwrap();
    let bucket = spool.join("deferred").join(bucket);
    let request = spool.join("requests").join(&id);

    // The message is locked, so an action becomes a request.
    let file = fs::File::open(bucket.join(&id)).unwrap();
    file.lock().unwrap();
    let asked = site.program(["freeze", "--", &id], b"");
    assert!(request.exists(), "{asked}");
    drop(file);
    // The state after a kill before the key was moved into its bucket.
    let keys = spool.join("keys");
    let hour = names(&keys)
        .into_iter()
        .find(|name| name.parse::<mailspool::testing::queue::Bucket>().is_ok())
        .unwrap();
    let hash = names(&keys.join(&hour)).pop().unwrap();
    fs::rename(keys.join(&hour).join(&hash), keys.join("new").join(&hash)).unwrap();

    close(&bucket);
    for _ in 0..2 {
        site.run();
        assert!(request.exists(), "the request was dropped");
        assert!(keys.join("new").join(&hash).exists(), "the key is free");
    }
    let again = keyed("r@example.test");
    assert!(
        again.code == 75 || again.text().trim() == id,
        "accepted twice: {again}"
    );
    open(&bucket);
    site.run().ok();
    assert_eq!(site.row()["queue"], "frozen");
    assert_eq!(keyed("r@example.test").ok().trim(), id);
}

/// While the suspensions cannot be read, nothing is sent, and the run reports that.
#[test]
fn what_is_suspended_must_be_known() {
    let site = site();
    site.queue(&["r@example.test"]);
    let closed = site.spool().join("suspended");
    fs::create_dir_all(&closed).unwrap();
    close(&closed);
    let run = site.run();
    assert_eq!((run.code, site.boxed().len()), (75, 0), "{run}");
    open(&closed);
    site.run().ok();
    assert_eq!(site.boxed().len(), 1);
}

/// The oldest messages of a lane cannot be opened, ten or a thousand: the ones after them are delivered.
#[test]
fn messages_that_cannot_be_opened_are_passed_over() {
    for (bad, of) in [(10, "message"), (10, "history"), (300, "message")] {
        let site = site();
        let ids = queued(&site, bad + 10);
        for id in &ids[..bad] {
            match of {
                "message" => close(&message(&site, id)),
                dir => {
                    let path = site.spool().join(dir).join(id);
                    fs::write(&path, "").unwrap();
                    close(&path);
                }
            }
        }
        let run = site.run();
        assert_eq!(
            (run.code, site.boxed().len()),
            (75, 10),
            "{bad} {of}: {run}"
        );
        let said = format!("{bad} messages could not be processed");
        assert!(run.err.contains(&said), "{run}");
        give_all(&site.spool(), OWNER);
        site.run().ok();
        assert_eq!(site.boxed().len(), bad + 10);
        site.is_clean_and_empty();
    }
}

/// The view decides nothing: a part of it that cannot be opened is removed with its message.
#[test]
fn a_view_that_cannot_be_opened_holds_nothing_up() {
    let dirs = ["sender", "recipients", "transport"].map(|dir| format!("info/{dir}"));
    for closes_dir in [false, true] {
        let site = site();
        for (id, dir) in queued(&site, 12).iter().zip(dirs.iter().cycle()) {
            if closes_dir {
                close(&site.spool().join(dir))
            } else {
                close(&site.spool().join(dir).join(id))
            }
        }
        let run = site.run();
        assert_eq!(site.boxed().len(), 12, "{run}");
        // In a closed directory a view cannot be removed: the message stays in `done/`, and the run reports it.
        assert_eq!(run.code, if closes_dir { 75 } else { 0 }, "{run}");
        give_all(&site.spool(), OWNER);
        site.run().ok();
        assert_eq!(site.boxed().len(), 12);
        site.is_clean_and_empty();
    }
}

#[test]
fn requests_and_new_files_that_cannot_be_opened_are_passed_over() {
    let site = site();
    site.configure(&format!("[log]\nto = \"stderr\"\n{BOX}"));
    let ids = queued(&site, 22);
    for id in &ids[..11] {
        let request = site.spool().join("requests").join(id);
        fs::write(&request, r#"{"event":"freeze","by":"x"}"#).unwrap();
        close(&request);
    }
    for n in 0..11 {
        let new = site
            .spool()
            .join(format!("new/01a21b01-8fcb-71d7-a16d-9cdb43b99{n:03}"));
        fs::write(&new, "x").unwrap();
        close(&new);
    }
    let run = site.run();
    assert_eq!((run.code, site.boxed().len()), (75, 22), "{run}");
    assert!(run.err.contains("could not be read"), "{run}");
    // Each is reported once, although a run looks for requests again after the message's attempt.
    for what in ["a request could not be served", "left where it is"] {
        assert_eq!(run.err.matches(what).count(), 11, "{run}");
    }
}

/// A message that cannot be opened does not affect the others named with it.
#[test]
fn an_action_on_several_goes_on_after_one_that_cannot_be_opened() {
    let site = site();
    let ids = queued(&site, 3);
    close(&message(&site, &ids[0]));
    let history = site.spool().join("history").join(&ids[1]);
    fs::write(&history, "").unwrap();
    close(&history);
    let [a, b, c] = [0, 1, 2].map(|n| ids[n].as_str());
    let acted = site.program(["freeze", a, b, c], b"");
    assert_eq!(acted.code, 75, "{acted}");
    let text = acted.text();
    assert_eq!(text.matches("not done now: ").count(), 2, "{acted}");
    assert!(text.contains(&format!("{c} frozen")), "{acted}");
}

/// `flush` and `resume` report what they could not read, and the rest is tried at once.
#[test]
fn what_an_operator_lets_go_is_tried_although_a_bucket_is_closed() {
    let dir = "deferred/2036-11-20T0000Z";
    for (hold, release) in [
        (None, ["flush"].as_slice()),
        (
            Some("example.test"),
            &["resume", "example.test", "other.test"],
        ),
    ] {
        let site = site();
        if let Some(name) = hold {
            site.program(["suspend", name], b"").ok();
        } else {
            site.configure("");
        }
        site.queue(&["r@example.test"]);
        site.run().ok();
        site.configure(BOX);
        let closed = site.spool().join(dir);
        fs::create_dir(&closed).unwrap();
        close(&closed);
        let released = site.program(release, b"");
        assert_eq!(released.code, 75, "{released}");
        assert!(released.err.contains(dir), "{released}");
        until("it is delivered", || site.boxed().len() == 1);
    }
}

struct Watching(Child);

impl Watching {
    fn new(site: &Site, log: &Path) -> Watching {
        let mut command = site.command(["run", "--watch"]);
        let log = fs::File::create(log).unwrap();
        let command = command.stdout(Stdio::null()).stderr(log);
        Watching(command.spawn().unwrap())
    }

    fn stays(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "it ended");
    }

    fn end(mut self) -> Option<i32> {
        self.stays();
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_that_stays_passes_over_what_cannot_be_opened_and_comes_back_to_it() {
    let site = site();
    let ids = queued(&site, 1);
    let closed = message(&site, &ids[0]);
    close(&closed);
    let mut watching = Watching::new(&site, &site.dir().join("log"));
    // Each is a separate scan.
    for n in 1..=12 {
        site.queue(&["r@example.test"]);
        until("it is delivered", || site.boxed().len() == n);
        watching.stays();
    }
    open(&closed);
    until("the other is delivered too", || site.boxed().len() == 13);
    assert_eq!(watching.end(), Some(0));
}

#[test]
fn a_run_that_stays_waits_until_something_can_succeed() {
    let site = site();
    queued(&site, 12);
    let closed = site.spool().join("history");
    close(&closed);
    let run = site.run();
    assert_eq!((run.code, site.boxed().len()), (75, 0), "{run}");
    assert!(run.err.contains("nothing can be worked on"), "{run}");
    site.configure(&format!("[log]\nto = \"stderr\"\n{BOX}"));
    let log = site.dir().join("log");
    let mut watching = Watching::new(&site, &log);
    until("it has looked and waits", || {
        let log = fs::read_to_string(&log);
        log.is_ok_and(|log| log.contains("looking again in 1 s"))
    });
    watching.stays();
    open(&closed);
    until("all are delivered", || site.boxed().len() == 12);
    assert_eq!(watching.end(), Some(0));
}
