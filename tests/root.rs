//! What only root can show: root becomes the spool's owner, pipes run as other users, and
//! Dovecot reads what was delivered. Needs root and, for the last, Debian's dovecot-core.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::unistd::{Uid, User};

const MESSAGE: &str = "From: a@example.org\nSubject: read me\n\nhello\n";

struct Site {
    _dir: tempfile::TempDir,
    spool: PathBuf,
}

impl Site {
    /// A directory that everybody can reach, and a spool's path in it.
    fn new() -> Site {
        assert!(Uid::effective().is_root(), "this test needs root");
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let spool = dir.path().join("spool");
        Site { _dir: dir, spool }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailspool"))
            .env_clear()
            .arg("--spool")
            .arg(&self.spool)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not want its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn ok(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn configure(&self, text: &str) {
        fs::write(self.spool.join("config.toml"), text).unwrap();
    }
}

fn nobody() -> User {
    User::from_name("nobody").unwrap().expect("the user nobody")
}

fn everything_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap().is_dir() {
            true => all.extend(everything_below(&path)),
            false => all.push(path),
        }
    }
    all
}

#[test]
fn whatever_root_does_in_a_spool_its_owner_has_done() {
    let site = Site::new();
    site.ok(&["init", "--user", "nobody"], "");
    site.ok(
        &["send", "--queue-only", "-f", "", "x@example.org"],
        MESSAGE,
    );
    site.ok(
        &["receive", "-f", "a@example.org", "y@example.org"],
        MESSAGE,
    );
    let id = site.ok(&["send", "--queue-only", "z@example.org"], MESSAGE);
    site.ok(&["freeze", id.trim(), "--reason", "to look at"], "");
    site.ok(&["run"], "");
    assert_eq!(
        fs::read_dir(site.spool.join("outbox/new")).unwrap().count(),
        2
    );
    for path in everything_below(&site.spool) {
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(metadata.uid(), nobody().uid.as_raw(), "{}", path.display());
        assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
    }
    let history = site.ok(&["show", id.trim(), "--json"], "");
    assert!(
        history.contains(r#""by":"root","reason":"to look at""#),
        "{history}"
    );
}

#[test]
fn a_link_in_a_spool_does_not_lead_root_astray() {
    let site = Site::new();
    site.ok(&["init", "--user", "nobody"], "");
    let secret = site.spool.parent().unwrap().join("secret");
    fs::write(&secret, "hostname = 'only root may know'\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(site.spool.join("config.toml")).unwrap();
    symlink(&secret, site.spool.join("config.toml")).unwrap();
    let output = site.run(&["run"], "");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{words}");
    assert!(
        words.contains("ermission denied") && !words.contains("only root"),
        "{words}"
    );
}

#[test]
fn others_do_not_use_a_spool_that_is_not_theirs() {
    let site = Site::new();
    site.ok(&["init"], "");
    fs::set_permissions(&site.spool, fs::Permissions::from_mode(0o777)).unwrap();
    let output = site.run(&["list"], "");
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let output = site.run(&["receive", "-f", "", "x@example.org"], MESSAGE);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
}

/// The configuration of a pipe that writes down as whom it runs.
fn pipe_as(user: &str, out: &Path) -> String {
    let script = format!("cat >/dev/null; id -u >>{0}; id -G >>{0}", out.display());
    format!(
        "[transport.who]\ntype = \"pipe\"\nuser = \"{user}\"\n\
         command = [\"/bin/sh\", \"-c\", \"{script}\"]\n\
         [[route]]\ndomain = \"*\"\ntransport = \"who\"\n"
    )
}

/// A file that everybody may write into.
fn open_file(site: &Site) -> PathBuf {
    let out = site.spool.parent().unwrap().join("out");
    fs::write(&out, "").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666)).unwrap();
    out
}

#[test]
fn a_pipe_runs_as_its_user_if_root_alone_wrote_the_configuration() {
    for owner in ["root", "daemon"] {
        let site = Site::new();
        site.ok(&["init", "--user", owner], "");
        let out = open_file(&site);
        site.configure(&pipe_as("nobody", &out));
        let config = site.spool.join("config.toml");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
        chown(&config, Some(0), Some(0)).unwrap();
        site.ok(&["send", "--queue-only", "x@example.org"], MESSAGE);
        site.ok(&["run"], "");
        let (uid, gid) = (nobody().uid, nobody().gid);
        assert_eq!(
            fs::read_to_string(&out).unwrap(),
            format!("{uid}\n{gid}\n"),
            "{owner}"
        );
    }
}

#[test]
fn a_pipe_does_not_run_as_its_user_if_somebody_else_may_have_asked_for_it() {
    let site = Site::new();
    site.ok(&["init", "--user", "daemon"], "");
    let out = open_file(&site);
    site.configure(&pipe_as("root", &out));
    let daemon = User::from_name("daemon").unwrap().expect("the user daemon");
    let config = site.spool.join("config.toml");
    chown(&config, Some(daemon.uid.as_raw()), None).unwrap();
    site.ok(&["send", "--queue-only", "x@example.org"], MESSAGE);
    site.run(&["run"], "");
    assert_eq!(fs::read_to_string(&out).unwrap(), "", "it ran");
    let list = site.ok(&["list", "--json"], "");
    assert!(list.contains("as root: user"), "{list}");
}

#[test]
fn dovecot_reads_what_was_delivered() {
    let site = Site::new();
    site.ok(&["init", "--user", "nobody"], "");
    site.ok(
        &[
            "receive",
            "-f",
            "a@example.org",
            "x@example.org",
            "y@example.org",
        ],
        MESSAGE,
    );
    site.ok(&["run"], "");
    let home = site.spool.parent().unwrap().join("home");
    fs::create_dir(&home).unwrap();
    chown(
        &home,
        Some(nobody().uid.as_raw()),
        Some(nobody().gid.as_raw()),
    )
    .unwrap();
    let config = site.spool.parent().unwrap().join("dovecot.conf");
    let text = format!(
        "protocols =\nssl = no\nlog_path = /dev/stderr\nbase_dir = {}\n\
         default_internal_user = nobody\nmail_location = maildir:{}\n",
        home.display(),
        site.spool.join("outbox").display()
    );
    fs::write(&config, text).unwrap();
    let doveadm = Command::new("setpriv")
        .args([
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "doveadm",
            "-c",
        ])
        .arg(&config)
        .args([
            "fetch",
            "hdr.subject hdr.return-path hdr.delivered-to body",
            "all",
        ])
        .env("HOME", &home)
        .env("USER", "nobody")
        .output()
        .expect("setpriv");
    let words = format!("{doveadm:?}");
    assert!(
        doveadm.status.success(),
        "this test needs dovecot-core: {words}"
    );
    let text = String::from_utf8(doveadm.stdout).unwrap();
    assert_eq!(text.matches("hdr.subject: read me\n").count(), 2, "{text}");
    assert_eq!(
        text.matches("hdr.return-path: <a@example.org>\n").count(),
        2,
        "{text}"
    );
    for recipient in ["x@example.org", "y@example.org"] {
        assert!(
            text.contains(&format!("hdr.delivered-to: {recipient}\n")),
            "{text}"
        );
    }
    assert_eq!(text.matches("hello").count(), 2, "{text}");
}
