//! Tests that need root: root becomes the spool's owner and trusts no name that other users can change, pipes run
//! as other users, and Dovecot reads the delivered mail. The Dovecot test also needs Debian's dovecot-core.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mailspool::testing::disk::{Call, Disk, Seam, Verdict};
use nix::unistd::{Uid, User};

const MESSAGE: &str = "From: a@example.org\nSubject: read me\n\nhello\n";

struct Site {
    _dir: tempfile::TempDir,
    spool: PathBuf,
}

impl Site {
    /// Returns a directory that all users can enter, and a path for a spool in it.
    fn new() -> Site {
        assert!(Uid::effective().is_root(), "this test needs root");
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let spool = dir.path().join("spool");
        Site { _dir: dir, spool }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        self.run_on(&self.spool, arguments, input)
    }

    fn run_on(&self, spool: &Path, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailspool"))
            .env_clear()
            .arg("--spool")
            .arg(spool)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The program may close its input without reading it.
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

fn backup() -> User {
    User::from_name("backup").unwrap().expect("the user backup")
}

fn everything_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            all.extend(everything_below(&path))
        } else {
            all.push(path)
        }
    }
    all
}

#[test]
fn whatever_root_does_in_a_spool_its_owner_has_done() {
    let site = Site::new();
    site.ok(&["init", "--user", "backup"], "");
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
        assert_eq!(metadata.uid(), backup().uid.as_raw(), "{}", path.display());
        assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
    }
    let history = site.ok(&["show", id.trim(), "--json"], "");
    assert!(
        history.contains(r#""by":"root","reason":"to look at""#),
        "{history}"
    );
}

/// Some callers ignore SIGCHLD, and their children inherit that.
#[test]
fn a_caller_that_ignores_its_children_is_served() {
    let site = Site::new();
    site.ok(&["init", "--user", "backup"], "");
    site.configure(
        "[log]\nto = \"none\"\n[transport.box]\ntype = \"pipe\"\ncommand = [\"/bin/sh\", \"-c\", \
         \"cat >/dev/null\"]\n[[route]]\ndomain = \"*\"\ntransport = \"box\"\n",
    );
    let ignoring = |arguments: &str| {
        let script = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); \
                      os.execv(sys.argv[1], sys.argv[1:])";
        let mut child = Command::new("python3")
            .args(["-c", script, env!("CARGO_BIN_EXE_mailspool"), "--spool"])
            .arg(&site.spool)
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(MESSAGE.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
    };
    ignoring("receive -f a@example.org y@example.org");
    ignoring("send --queue-only -f a@example.org z@example.org");
    ignoring("run");
    assert!(site.ok(&["list"], "").contains("no message"));
}

#[test]
fn a_link_in_a_spool_does_not_lead_root_astray() {
    let site = Site::new();
    site.ok(&["init", "--user", "backup"], "");
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

/// Returns the configuration of a pipe that runs as `user` and writes its uid and groups to `out`.
fn pipe_as(user: &str, out: &Path) -> String {
    let script = format!("cat >/dev/null; id -u >>{0}; id -G >>{0}", out.display());
    format!(
        "[transport.ids]\ntype = \"pipe\"\nuser = \"{user}\"\n\
         command = [\"/bin/sh\", \"-c\", \"{script}\"]\n\
         [[route]]\ndomain = \"*\"\ntransport = \"ids\"\n"
    )
}

/// Makes a file that all users can write.
fn open_file(site: &Site) -> PathBuf {
    let out = site.spool.parent().unwrap().join("out");
    fs::write(&out, "").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666)).unwrap();
    out
}

fn daemon() -> User {
    User::from_name("daemon").unwrap().expect("the user daemon")
}

fn give(path: &Path, to: &User) {
    std::os::unix::fs::lchown(path, Some(to.uid.as_raw()), Some(to.gid.as_raw())).unwrap();
}

/// Makes a directory beside the spool that belongs to `user`.
fn dir_of(site: &Site, user: &User) -> PathBuf {
    let dir = site.spool.with_file_name(format!("of-{}", user.name));
    fs::create_dir(&dir).unwrap();
    give(&dir, user);
    dir
}

/// Makes a file that all users can read and only root can write.
fn of_root(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_pipe_runs_as_its_user_if_root_alone_can_change_the_configuration() {
    for owner in ["root", "daemon"] {
        let site = Site::new();
        site.ok(&["init", "--user", owner], "");
        let out = open_file(&site);
        let config = match owner {
            // For root's own spool the configuration may be in the spool.
            "root" => site.spool.join("config.toml"),
            _ => site.spool.with_file_name("config.toml"),
        };
        of_root(&config, &pipe_as("backup", &out));
        let config = config.to_str().unwrap();
        site.ok(
            &["--config", config, "send", "--queue-only", "x@example.org"],
            MESSAGE,
        );
        site.ok(&["--config", config, "run"], "");
        let (uid, gid) = (backup().uid, backup().gid);
        assert_eq!(
            fs::read_to_string(&out).unwrap(),
            format!("{uid}\n{gid}\n"),
            "{owner}"
        );
    }
}

/// Each path leads to a configuration that only root can write and that runs a pipe as root. The spool's owner
/// could have made each path.
#[test]
fn a_pipe_does_not_run_as_its_user_by_a_name_that_others_can_change() {
    type Way = fn(&Site, &Path) -> PathBuf;
    let ways: [(&str, Way); 6] = [
        ("a file of root's in the spool", |site, roots| {
            let path = site.spool.join("config.toml");
            fs::remove_file(&path).unwrap();
            fs::copy(roots, &path).unwrap();
            path
        }),
        ("a link in the spool", |site, roots| {
            let path = site.spool.join("config.toml");
            fs::remove_file(&path).unwrap();
            symlink(roots, &path).unwrap();
            path
        }),
        ("a directory of the owner's", |site, roots| {
            let path = dir_of(site, &daemon()).join("config.toml");
            fs::copy(roots, &path).unwrap();
            path
        }),
        ("a link of the owner's", |site, roots| {
            let path = site.spool.with_file_name("link");
            symlink(roots, &path).unwrap();
            give(&path, &daemon());
            path
        }),
        ("a directory that a group can write to", |site, roots| {
            let dir = site.spool.with_file_name("group");
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o775)).unwrap();
            let path = dir.join("config.toml");
            fs::copy(roots, &path).unwrap();
            path
        }),
        ("procfs", |_, roots| {
            PathBuf::from(format!(
                "/proc/{}/root{}",
                std::process::id(),
                roots.display()
            ))
        }),
    ];
    for (what, way) in ways {
        let site = Site::new();
        site.ok(&["init", "--user", "daemon"], "");
        let out = open_file(&site);
        let roots = site.spool.with_file_name("roots.toml");
        of_root(&roots, &pipe_as("root", &out));
        let config = way(&site, &roots);
        site.ok(&["send", "--queue-only", "x@example.org"], MESSAGE);
        let config = config.to_str().unwrap();
        // With `--config`, and also without it, for the paths inside the spool.
        for named in [&["--config", config][..], &[]] {
            let output = site.run(&[named, &["run"]].concat(), "");
            assert_eq!(
                fs::read_to_string(&out).unwrap(),
                "",
                "{what}: it ran: {output:?}"
            );
        }
        let check = site.run(&["--config", config, "config", "check"], "");
        let words = String::from_utf8_lossy(&check.stderr);
        let is_why = words.contains("only if root alone can change the configuration: ");
        assert!(
            is_why || words.contains("ermission denied"),
            "{what}: {words}"
        );
    }
}

/// The background attempt that root's `send` starts runs as root, too.
#[test]
fn a_background_attempt_switches_users_as_its_caller_does() {
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    let site = Site::new();
    site.ok(&["init", "--user", "daemon"], "");
    let out = open_file(&site);
    let config = site.spool.join("config.toml");
    of_root(&config, &pipe_as("root", &out));
    site.ok(&["send", "x@example.org"], MESSAGE);
    let tried = || site.ok(&["list", "--json"], "").contains("\"scheduled\"");
    until("it was tried", &tried);
    assert_eq!(fs::read_to_string(&out).unwrap(), "", "it ran");

    let roots = site.spool.with_file_name("config.toml");
    of_root(&roots, &pipe_as("backup", &out));
    let roots = roots.to_str().unwrap();
    site.ok(&["--config", roots, "send", "y@example.org"], MESSAGE);
    let (uid, gid) = (backup().uid, backup().gid);
    let written = format!("{uid}\n{gid}\n");
    until("it ran", &|| fs::read_to_string(&out).unwrap() == written);
}

/// Runs in a separate mount namespace with replaced system directories.
#[test]
fn the_systems_spool_has_its_configuration_in_etc() {
    let site = Site::new();
    let base = site.spool.parent().unwrap();
    let out = open_file(&site);
    fs::create_dir(&site.spool).unwrap();
    of_root(&base.join("config.toml"), &pipe_as("backup", &out));
    let script = format!(
        "set -e; mount -t tmpfs -o mode=755 none /var/spool; mount -t tmpfs none {0}/spool\n\
         cd {0}/spool; mkdir upper work\n\
         mount -t overlay overlay -o lowerdir=/etc,upperdir=upper,workdir=work /etc\n\
         mkdir -p /etc/mailspool; cp {0}/config.toml /etc/mailspool/; unset MAILSPOOL_CONFIG\n\
         {1} --spool /var/spool/mailspool init --user daemon; cd /var/spool\n\
         test ! -e mailspool/config.toml; {1} config | grep '^# configuration: /etc/'\n\
         setpriv --reuid=daemon --regid=daemon --clear-groups {1} config | grep '^# configuration: /etc/'\n\
         echo | {1} send --queue-only x@example.org; {1} run --quiet",
        base.display(),
        env!("CARGO_BIN_EXE_mailspool"),
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let (uid, gid) = (backup().uid, backup().gid);
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{uid}\n{gid}\n"));
}

#[test]
fn a_spool_is_made_as_the_owner_of_its_parent_directory() {
    let site = Site::new();
    let theirs = dir_of(&site, &backup());
    let named = |path: &Path, more: &[&str]| site.run_on(path, &[&["init"], more].concat(), "");
    let below = theirs.join("a/b");
    let refused = named(&below, &[]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    let other = named(&below, &["--user", "daemon"]);
    assert_eq!(other.status.code(), Some(75), "{other:?}");
    assert!(!below.parent().unwrap().exists());
    let own = named(&below, &["--user", "backup"]);
    assert!(own.status.success(), "{own:?}");
    for path in [&below, below.parent().unwrap()] {
        assert_eq!(fs::metadata(path).unwrap().uid(), backup().uid.as_raw());
    }

    // Root's directory is given to another user only by a path that only root can change.
    let roots = site.spool.with_file_name("roots");
    fs::create_dir(&roots).unwrap();
    symlink(&roots, theirs.join("link")).unwrap();
    give(&theirs.join("link"), &backup());
    let led = named(&theirs.join("link"), &["--user", "backup"]);
    assert!(!led.status.success(), "{led:?}");
    assert_eq!(fs::metadata(&roots).unwrap().uid(), 0);
    let own = named(&roots, &["--user", "backup"]);
    assert!(own.status.success(), "{own:?}");
    assert_eq!(fs::metadata(&roots).unwrap().uid(), backup().uid.as_raw());

    // Root makes the directories above it so that the spool's owner can enter them.
    let deep = roots.with_file_name("deep").join("er");
    let own = named(&deep.join("spool"), &["--user", "backup"]);
    assert!(own.status.success(), "{own:?}");
    for path in [&deep, deep.parent().unwrap()] {
        let made = fs::metadata(path).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o777), (0, 0o755));
    }

    let everybodys = site.spool.with_file_name("everybodys");
    fs::create_dir(&everybodys).unwrap();
    fs::set_permissions(&everybodys, fs::Permissions::from_mode(0o1777)).unwrap();
    let spool = everybodys.join("spool");
    let own = named(&spool, &["--user", "backup"]);
    assert!(own.status.success(), "{own:?}");
    assert_eq!(fs::metadata(&spool).unwrap().uid(), backup().uid.as_raw());
}

/// Replaces a new directory with a link before it is opened.
#[derive(Debug)]
struct Exchange {
    made: PathBuf,
    link: PathBuf,
}

impl Seam for Exchange {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if let Call::Open { path, .. } = call
            && *path == Path::new("spool")
            && !self.made.is_symlink()
        {
            fs::remove_dir(&self.made).unwrap();
            symlink(&self.link, &self.made).unwrap();
        }
        Verdict::Pass
    }
}

#[test]
fn what_is_put_in_the_place_of_a_new_spool_is_not_given_away() {
    let site = Site::new();
    let link = site.spool.with_file_name("roots");
    fs::create_dir(&link).unwrap();
    let seam = Exchange {
        made: site.spool.clone(),
        link: link.clone(),
    };
    let owner = Some((backup().uid, backup().gid));
    let made = Disk::create_root(&site.spool, owner, Some(std::sync::Arc::new(seam)));
    assert!(made.is_err() && site.spool.is_symlink());
    assert_eq!(fs::metadata(&link).unwrap().uid(), 0);
}

#[test]
fn root_works_in_its_own_spool_only_where_no_one_else_could_put_another() {
    let site = Site::new();
    let theirs = dir_of(&site, &backup());
    site.ok(&["init"], "");
    let spool = theirs.join("spool");
    fs::rename(&site.spool, &spool).unwrap();
    let named = |arguments: &[&str]| site.run_on(&spool, arguments, MESSAGE);
    for (arguments, status) in [
        (&["list"][..], 77),
        (&["run"], 77),
        (&["receive", "-f", "", "x@example.org"], 75),
    ] {
        let output = named(arguments);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("of-backup belongs to backup"), "{words}");
    }
}

#[test]
fn root_does_not_work_by_a_configuration_that_others_can_change() {
    let site = Site::new();
    site.ok(&["init"], "");
    let out = open_file(&site);
    let theirs = dir_of(&site, &backup()).join("config.toml");
    fs::write(&theirs, pipe_as("backup", &out)).unwrap();
    let config = site.spool.join("config.toml");
    fs::remove_file(&config).unwrap();
    symlink(&theirs, &config).unwrap();
    let output = site.run(&["run"], "");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{words}");
    assert!(words.contains("of-backup belongs to backup"), "{words}");
    let output = site.run(&["count"], "");
    assert!(
        output.status.success() && output.stdout == b"0\n",
        "{output:?}"
    );
}

/// Files that only root can read or write, by names that another user can change.
#[test]
fn root_uses_no_file_that_others_could_exchange() {
    let site = Site::new();
    site.ok(&["init"], "");
    let theirs = dir_of(&site, &backup());
    let secret = site.spool.with_file_name("secret");
    fs::write(&secret, "only root knows this\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let link = theirs.join("link");
    symlink(&secret, &link).unwrap();
    give(&link, &backup());
    let link = link.display();
    let (script, maildir) = (theirs.join("script"), theirs.join("maildir"));
    of_root(&script, "#!/bin/sh\ntouch {dir}/ran\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // These paths lead nowhere until their owner replaces a part of them.
    let around = theirs.join("around");
    symlink("around", &around).unwrap();
    give(&around, &backup());
    let (around, file) = (around.display(), script.display());
    for (keys, is_notice) in [
        (
            format!(
                "type = \"smtp\"\nhost = \"127.0.0.1:9\"\nusername = \"u\"\npassword_file = \"{link}\""
            ),
            false,
        ),
        (
            format!(
                "type = \"smtp\"\nhost = \"127.0.0.1:9\"\ntls = \"verified\"\ntls_ca = \"{link}\""
            ),
            false,
        ),
        (
            format!("type = \"pipe\"\ncommand = [\"{}\"]", script.display()),
            false,
        ),
        (
            format!("type = \"maildir\"\npath = \"{}\"", maildir.display()),
            false,
        ),
        (
            format!(
                "type = \"smtp\"\nhost = \"127.0.0.1:9\"\nusername = \"u\"\npassword_file = \"{around}\""
            ),
            false,
        ),
        (
            format!("type = \"pipe\"\ncommand = [\"{file}/below\"]"),
            false,
        ),
        (
            format!("type = \"maildir\"\npath = \"{around}/box\""),
            false,
        ),
        (
            format!("type = \"maildir\"\npath = \"box\"\n[notice.bounce]\ntext_file = \"{link}\""),
            true,
        ),
    ] {
        site.configure(&format!(
            "[transport.x]\n{keys}\n[[route]]\ndomain = \"*\"\ntransport = \"x\"\n"
        ));
        let check = site.run(&["config", "check"], "");
        let words = String::from_utf8_lossy(&check.stderr);
        assert_eq!(check.status.code(), Some(78), "{keys}: {words}");
        assert!(
            words.contains("root uses only what root alone can change"),
            "{words}"
        );
        let shown = site.run(&["config", "notices"], "");
        assert!(!String::from_utf8_lossy(&shown.stdout).contains("only root knows"));
        if is_notice {
            continue;
        }
        site.ok(&["send", "--queue-only", "x@example.org"], MESSAGE);
        site.run(&["run"], "");
        let list = site.ok(&["list", "--json"], "");
        assert!(
            list.contains("root uses only what root alone can change"),
            "{list}"
        );
    }
    assert!(!maildir.exists());
}

#[test]
fn dovecot_reads_what_was_delivered() {
    let site = Site::new();
    site.ok(&["init", "--user", "backup"], "");
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
        Some(backup().uid.as_raw()),
        Some(backup().gid.as_raw()),
    )
    .unwrap();
    let config = site.spool.parent().unwrap().join("dovecot.conf");
    let text = format!(
        "protocols =\nssl = no\nlog_path = /dev/stderr\nbase_dir = {}\n\
         default_internal_user = backup\nmail_location = maildir:{}\n",
        home.display(),
        site.spool.join("outbox").display()
    );
    fs::write(&config, text).unwrap();
    let doveadm = Command::new("setpriv")
        .args([
            "--reuid=backup",
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
        .env("USER", "backup")
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
