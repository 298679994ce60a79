//! `run --watch` reloads its configuration when it has changed, and on a signal.

mod program;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::{Site, code_of, names, until};
use serde_json::Value;

/// A long-running run, and its log.
struct Watch {
    child: Child,
    said: PathBuf,
}

/// The log line when another configuration is in effect.
const IN_FORCE: &str = "the configuration has been read again and is in force";
const LAST_GOOD: &str = "the last good one stays in force";

impl Watch {
    fn start(site: &Site) -> Watch {
        let said = site.dir().join("said");
        let mut command = site.command(["run", "--watch"]);
        let err = File::create(&said).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(err);
        let child = command.spawn().unwrap();
        Watch { child, said }
    }

    fn count(&self, words: &str) -> usize {
        let said = fs::read_to_string(&self.said).unwrap();
        said.lines().filter(|line| line.contains(words)).count()
    }

    fn until(&self, words: &str, count: usize) {
        until(words, || self.count(words) >= count);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn end(mut self, site: &Site) -> String {
        self.signal(Signal::SIGTERM);
        let code = code_of(&mut self.child, &site.command(["run", "--watch"]));
        let said = fs::read_to_string(&self.said).unwrap();
        assert_eq!(code, 0, "{said}");
        said
    }
}

/// A configuration that delivers all mail into this Maildir.
fn into(site: &Site, name: &str) -> String {
    let dir = site.dir().display();
    format!(
        "hostname = \"mail.test\"\n[transport.box]\ntype = \"maildir\"\npath = \"{dir}/{name}\"\n\
         [[route]]\ndomain = \"*\"\ntransport = \"box\"\n[log]\nto = \"stderr\"\n"
    )
}

fn config(site: &Site) -> PathBuf {
    site.spool().join("config.toml")
}

/// Queues a message and waits until it is in a Maildir.
fn arrives_in(site: &Site, name: &str) {
    let new = site.dir().join(name).join("new");
    let before = names(&new).len();
    site.queue(&["b@example.test"]);
    until("it is delivered", || names(&new).len() == before + 1);
}

#[test]
fn a_changed_configuration_is_in_force() {
    let site = Site::with_box();
    fs::write(config(&site), into(&site, "first")).unwrap();
    let watch = Watch::start(&site);
    arrives_in(&site, "first");
    fs::write(config(&site), into(&site, "second")).unwrap();
    watch.until(IN_FORCE, 1);
    arrives_in(&site, "second");
    // By renaming another file into its place, as editors do.
    let beside = site.spool().join("config.toml.new");
    fs::write(&beside, into(&site, "third")).unwrap();
    fs::rename(beside, config(&site)).unwrap();
    watch.until(IN_FORCE, 2);
    arrives_in(&site, "third");
    // By a signal, which reloads every file that the configuration names.
    watch.signal(Signal::SIGHUP);
    watch.until(IN_FORCE, 3);
    arrives_in(&site, "third");
    watch.end(&site);
    site.is_clean_and_empty();
}

/// The same with another log.
fn logging(site: &Site, log: &str) -> String {
    let config = into(site, "first");
    let (rest, _) = config.split_once("[log]").unwrap();
    format!("{rest}[log]\n{log}\n")
}

#[test]
fn a_changed_log_is_in_force() {
    let site = Site::with_box();
    fs::write(config(&site), logging(&site, "to = 'stderr'")).unwrap();
    let watch = Watch::start(&site);
    arrives_in(&site, "first");
    let said = || fs::read_to_string(&watch.said).unwrap();
    let last = || said().lines().last().unwrap_or_default().to_owned();
    watch.until("attempt", 1);
    // Another format.
    let json = "to = 'stderr'\nformat = 'json'";
    fs::write(config(&site), logging(&site, json)).unwrap();
    watch.until(IN_FORCE, 1);
    let line: Value = serde_json::from_str(&last()).unwrap();
    assert_eq!(line["message"], IN_FORCE);
    // No log: the line that announces the change is the last one.
    fs::write(config(&site), logging(&site, "to = 'none'")).unwrap();
    watch.until("this is the last line in this log", 2);
    let before = said();
    arrives_in(&site, "first");
    watch.signal(Signal::SIGHUP);
    arrives_in(&site, "first");
    assert_eq!(said(), before);
    // And back again. An error is logged there, and changes nothing.
    fs::write(config(&site), logging(&site, "to = 'stderr'")).unwrap();
    watch.until(IN_FORCE, 2);
    assert_eq!(said().lines().count(), before.lines().count() + 1);
    fs::write(config(&site), logging(&site, "to = 'printer'")).unwrap();
    watch.until(LAST_GOOD, 1);
    watch.end(&site);
}

#[test]
fn what_a_link_leads_to_is_followed() {
    let site = Site::with_box();
    let etc = site.dir().join("etc");
    fs::create_dir_all(etc.join("real")).unwrap();
    let real = etc.join("real/mailspool.toml");
    fs::write(&real, into(&site, "first")).unwrap();
    fs::remove_file(config(&site)).unwrap();
    symlink("real/mailspool.toml", etc.join("link.toml")).unwrap();
    symlink(etc.join("link.toml"), config(&site)).unwrap();
    let watch = Watch::start(&site);
    arrives_in(&site, "first");
    fs::write(&real, into(&site, "second")).unwrap();
    watch.until(IN_FORCE, 1);
    arrives_in(&site, "second");
    // The link in the middle changes its target.
    fs::write(etc.join("other.toml"), into(&site, "third")).unwrap();
    symlink("other.toml", etc.join("new")).unwrap();
    fs::rename(etc.join("new"), etc.join("link.toml")).unwrap();
    watch.until(IN_FORCE, 2);
    arrives_in(&site, "third");
    // The new target is followed from now on.
    fs::write(etc.join("other.toml"), into(&site, "fourth")).unwrap();
    watch.until(IN_FORCE, 3);
    arrives_in(&site, "fourth");
    watch.end(&site);
}

#[test]
fn a_configuration_with_a_mistake_leaves_the_last_good_one_in_force() {
    let site = Site::with_box();
    fs::write(config(&site), into(&site, "first")).unwrap();
    let watch = Watch::start(&site);
    arrives_in(&site, "first");
    fs::write(config(&site), "[transport.box\n").unwrap();
    watch.until(LAST_GOOD, 1);
    // `send` would refuse a message with that configuration, but a queued one is delivered.
    let other = Site::with_box();
    let id = other.queue(&["b@example.test"]);
    let from = other.spool().join("active").join(&id);
    fs::copy(from, site.spool().join("active").join(&id)).unwrap();
    until("it is delivered", || {
        names(&site.dir().join("first/new")).len() == 2
    });
    fs::write(config(&site), into(&site, "second")).unwrap();
    watch.until(IN_FORCE, 1);
    arrives_in(&site, "second");
    let said = watch.end(&site);
    let complaint = said.lines().find(|line| line.contains(LAST_GOOD)).unwrap();
    assert!(complaint.contains("config.toml"), "{complaint}");
}

/// Without the configuration it is unknown which mail a suspension held back. A run that continues with the
/// last good one examines all deferred mail, and delivers what is no longer suspended.
#[test]
fn what_is_resumed_under_a_mistake_is_delivered_by_the_run_that_stays() {
    let site = Site::with_box();
    fs::write(config(&site), into(&site, "first")).unwrap();
    let say = |arguments: &[&str]| site.program(arguments, b"").ok();
    say(&["suspend", "--transport", "box"]);
    say(&["suspend", "held.test"]);
    let freed = site.queue(&["b@example.test"]);
    let held = site.queue(&["b@held.test"]);
    let deferred = || ["deferred"; 2].map(Value::from);
    let queues = || [&freed, &held].map(|id| site.shown(id)["queue"].clone());
    let watch = Watch::start(&site);
    until("they are put off", || queues() == deferred());
    fs::write(config(&site), "[transport.box\n").unwrap();
    watch.until(LAST_GOOD, 1);
    let resumed = site.program(["resume", "--transport", "box"], b"");
    let said = resumed.ok();
    assert!(
        said.ends_with(
            "2 messages made due: all suspended mail, because its routes are unknown.\n"
        ),
        "{said}"
    );
    assert!(
        resumed
            .err
            .contains("`run --watch` goes on with its last good one"),
        "{resumed}"
    );
    let new = site.dir().join("first/new");
    until("one is delivered", || names(&new).len() == 1);
    until("the other is put off again", || {
        site.shown(&held)["queue"] == "deferred"
    });
    watch.end(&site);
    assert_eq!(site.shown(&held)["attempts"], 0);
}
