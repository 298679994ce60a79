//! Dovecot: LMTP over a unix socket, and passwords for Postfix's AUTH.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{ACCOUNT, Process, directory};
use crate::site::{PATIENCE, User, read_all, until};

/// A private Dovecot with the users `alice`, `bob` and `full`, all with the password `geheim`.
pub struct Dovecot {
    process: Process,
    dir: TempDir,
}

impl Dovecot {
    pub fn start() -> Dovecot {
        let lmtp = Path::new("/usr/lib/dovecot/lmtp").exists();
        assert!(
            lmtp,
            "these tests need Dovecot: apt-get install dovecot-lmtpd"
        );
        let dir = directory();
        let user = User::named(ACCOUNT).unwrap();
        let path = dir.path().to_str().unwrap();
        fs::create_dir(dir.path().join("mail")).unwrap();
        std::os::unix::fs::chown(dir.path().join("mail"), Some(user.uid), Some(user.gid)).unwrap();
        let users = ["alice", "bob", "full"].map(|name| format!("{name}:{{PLAIN}}geheim\n"));
        fs::write(dir.path().join("users"), users.concat()).unwrap();
        let config = CONFIG
            .replace("DIR", path)
            .replace("UID", &user.uid.to_string())
            .replace("GID", &user.gid.to_string());
        fs::write(dir.path().join("dovecot.conf"), config).unwrap();
        // A file in the place of this user's maildir, so its mail cannot be stored.
        fs::write(dir.path().join("mail/full"), "").unwrap();
        let mut command = Command::new("/usr/sbin/dovecot");
        command
            .arg("-F")
            .arg("-c")
            .arg(dir.path().join("dovecot.conf"));
        command
            .stdin(Stdio::null())
            .stderr(File::create(dir.path().join("said")).unwrap());
        let process = Process::start(&mut command, "dovecot-core");
        let dovecot = Dovecot { process, dir };
        until("Dovecot to listen", || dovecot.socket("auth").exists());
        dovecot
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The mail of a user.
    pub fn mail(&self, user: &str) -> Vec<String> {
        read_all(&self.dir.path().join("mail").join(user).join("new"))
    }
}

impl Drop for Dovecot {
    /// Sends SIGTERM and waits: after a SIGKILL the children would stay.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["said", "log"] {
                let text = fs::read_to_string(self.dir.path().join(log));
                eprintln!("Dovecot's {log}:\n{}", text.unwrap_or_default());
            }
        }
        let pid = nix::unistd::Pid::from_raw(self.process.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let begun = std::time::Instant::now();
        while begun.elapsed() < PATIENCE && matches!(self.process.0.try_wait(), Ok(None)) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

const CONFIG: &str = "\
protocols = lmtp
ssl = no
base_dir = DIR/run
log_path = DIR/log
mail_location = maildir:DIR/mail/%n
first_valid_uid = 1
auth_mechanisms = plain login scram-sha-256
auth_username_format = %n
disable_plaintext_auth = no
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = DIR/users
}
userdb {
  driver = static
  args = uid=UID gid=GID home=DIR/mail/%n
}
service lmtp {
  unix_listener DIR/lmtp {
    mode = 0666
  }
}
service auth {
  unix_listener DIR/auth {
    mode = 0666
  }
}
";
