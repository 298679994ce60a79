//! A site: a Postfix, a spool with its user, and optionally a separate disk.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::postfix::{Postfix, Smtp};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_mailspool");
/// How long to wait for Postfix or the program; far longer than either needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Dropped in this order: Postfix stops, the disk is unmounted, the directory is removed.
pub struct Site {
    postfix: Postfix,
    disk: Option<Disk>,
    user: User,
    dir: TempDir,
}

impl Site {
    pub fn new() -> Site {
        Site::build(None)
    }

    /// The spool is on an ext4 of this size, which the test can fill without affecting other files.
    pub fn on_a_disk_of_its_own(size: &str) -> Site {
        Site::build(Some(size))
    }

    fn build(disk_size: Option<&str>) -> Site {
        let me = fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(me, 0, "these tests need root, to start a private Postfix");
        let postfix = Path::new("/usr/sbin/postfix").exists() && User::named("postfix").is_some();
        assert!(postfix, "these tests need Postfix: apt-get install postfix");
        let user = User::for_tests();
        // A short path, because the queue directory holds sockets; and searchable by other users.
        let dir = tempfile::Builder::new()
            .prefix("ms")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        // The user may have no access to the build directory.
        fs::copy(PROGRAM, dir.path().join("mailspool")).unwrap();
        fs::set_permissions(dir.path().join("mailspool"), Permissions::from_mode(0o755)).unwrap();
        let disk = disk_size.map(|size| Disk::mount(dir.path(), size));
        let spool = disk
            .as_ref()
            .map_or(dir.path(), |disk| &disk.0)
            .join("spool");
        for owned in [&spool, &dir.path().join("home")] {
            fs::create_dir(owned).unwrap();
            chown(owned, Some(user.uid), Some(user.gid)).unwrap();
        }
        let postfix = Postfix::start(dir.path(), &spool, &user, "");
        Site {
            postfix,
            disk,
            user,
            dir,
        }
    }

    pub fn disk(&self) -> &Path {
        &self.disk.as_ref().unwrap().0
    }

    pub fn spool(&self) -> PathBuf {
        self.disk
            .as_ref()
            .map_or(self.dir.path(), |disk| &disk.0)
            .join("spool")
    }

    /// The directory into which the default configuration delivers all mail.
    pub fn outbox(&self) -> PathBuf {
        self.spool().join("outbox/new")
    }

    /// The Maildir into which Postfix delivers bounces.
    pub fn bounces(&self) -> PathBuf {
        self.dir.path().join("home/box/new")
    }

    /// The lines of this kind of `info/` file, for all messages in the spool.
    pub fn info(&self, kind: &str) -> Vec<String> {
        let text = read_all(&self.spool().join("info").join(kind)).concat();
        text.lines().map(String::from).collect()
    }

    /// Sets the default routing, with these lines in `[accept]`.
    pub fn configure(&self, accept: &str) {
        let outbox = self.spool().join("outbox");
        let config = format!(
            "[accept]\n{accept}\n[transport.outbox]\ntype = \"maildir\"\npath = {outbox:?}\n\
             [[route]]\ndomain = \"*\"\ntransport = \"outbox\"\n"
        );
        fs::write(self.spool().join("config.toml"), config).unwrap();
    }

    /// The program on this spool, as the user under which Postfix runs it.
    fn mailspool(&self) -> Command {
        let mut command = Command::new(self.dir.path().join("mailspool"));
        command
            .arg("--spool")
            .arg(self.spool())
            .env_remove("MAILSPOOL_CONFIG");
        command
            .uid(self.user.uid)
            .gid(self.user.gid)
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    pub fn init(&self) {
        must(self.mailspool().arg("init"));
    }

    pub fn run(&self) {
        must(self.mailspool().arg("run"));
    }

    /// Runs `receive` without Postfix. Returns its exit code and its output.
    pub fn receive_directly(&self, from: &str, to: &str, message: &str) -> (Option<i32>, String) {
        let mut command = self.mailspool();
        command.args(["receive", "-f", from, "--", to]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program may stop reading a message that it refuses.
        let _ = child.stdin.take().unwrap().write_all(message.as_bytes());
        let out = child.wait_with_output().unwrap();
        (out.status.code(), text(&[out.stdout, out.stderr].concat()))
    }

    pub fn smtp(&self) -> Smtp {
        self.postfix.connect()
    }

    pub fn postfix_log(&self) -> String {
        self.postfix.log()
    }

    /// Waits until each message was accepted by the program or bounced.
    pub fn until_postfix_let_go_of(&self, ids: &[String]) {
        for id in ids {
            until("Postfix to let go of a message", || {
                self.postfix.has_let_go_of(id)
            });
        }
    }

    /// Waits until Postfix keeps the message after an attempt that the program refused temporarily.
    pub fn until_postfix_defers(&self, id: &str) {
        let mut reason = None;
        until("Postfix to defer a message", || {
            reason = self.postfix.deferred(id);
            reason.is_some()
        });
        let reason = reason.unwrap();
        assert!(!reason.contains("died with signal"), "{reason}");
    }

    /// Waits until a refused message is gone from the spool. Postfix keeps retrying, so a message may be
    /// there while it is being refused.
    pub fn until_spool_is_empty(&self) {
        until("a refused message to be gone from the spool", || {
            let left = |dir: &&str| !files(&self.spool().join(dir)).is_empty();
            !["new", "incoming", "active", "info"].iter().any(left)
        });
    }
}

pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub fn named(name: &str) -> Option<User> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let mut entries = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>());
        let entry = entries.find(|entry| entry[0] == name)?;
        let (uid, gid) = (entry[2].parse().unwrap(), entry[3].parse().unwrap());
        Some(User {
            name: name.to_string(),
            uid,
            gid,
        })
    }

    /// Creates the user if it is missing, under a lock: a second concurrent `useradd` would give the user
    /// another id.
    pub fn for_tests() -> User {
        let lock = File::create("/run/mailspooltest.lock").unwrap();
        lock.lock().unwrap();
        if User::named("mailspooltest").is_none() {
            must(Command::new("useradd").args(["--system", "--user-group", "mailspooltest"]));
        }
        User::named("mailspooltest").unwrap()
    }
}

/// An ext4 on a loop device, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(dir: &Path, size: &str) -> Disk {
        let (image, point) = (dir.join("image"), dir.join("disk"));
        fs::create_dir(&point).unwrap();
        must(Command::new("truncate").args(["-s", size]).arg(&image));
        must(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0"])
                .arg(&image),
        ); // nothing kept for root
        must(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&point),
        );
        Disk(point)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Writes to this file until the disk is full.
pub fn fill(path: &Path) {
    let mut filler = File::create(path).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
}

/// The files below a directory that may be missing or changing.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    };
    entries.flat_map(below).collect()
}

/// A directory and all directories below it.
pub fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let below = entries
        .filter(|path| path.is_dir())
        .flat_map(|path| directories(&path));
    below.chain([dir.to_path_buf()]).collect()
}

pub fn read_all(dir: &Path) -> Vec<String> {
    files(dir)
        .iter()
        .map(|path| text(&fs::read(path).unwrap()))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits for an event, or panics after [`PATIENCE`].
pub fn until(event: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {event}"
        );
        sleep(Duration::from_millis(50));
    }
}

/// The output of a command that has to succeed.
pub fn must(command: &mut Command) -> String {
    let out = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {}\n{said}", out.status);
    text(&out.stdout)
}
