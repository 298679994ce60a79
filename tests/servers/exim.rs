//! Exim as a receiver: it refuses some mail, greylists some, and stores the rest.
//!
//! Debian's package conflicts with Postfix's, so `scripts/exim` unpacks it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use super::tools::tool;
use super::{ACCOUNT, Process, directory};
use crate::site::{User, files, until};

/// An Exim that refuses `absent@...` permanently, `grey@...` temporarily until [`Exim::know_grey`], and
/// accepts all other mail. It stores all mail in one Maildir, and knows `alice` with the password `geheim`.
/// It has a certificate, and refuses messages of more than 100 KB.
pub struct Exim {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Exim {
    /// Starts it with a certificate for this name; `more` goes into its main section.
    pub fn start(name: &str, more: &str) -> Exim {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests need root: Exim runs with a private passwd file"
        );
        let unpacked = tool("exim");
        assert!(
            unpacked.join("exim4").exists(),
            "these tests need Exim: run `scripts/exim {}`",
            unpacked.display()
        );
        let dir = directory();
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .unwrap()
            .port();
        let user = User::named(ACCOUNT).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).unwrap();
        let config = MAIN.replace("NAME", name) + more + "\n" + REST;
        let (uid, gid) = (user.uid, user.gid);
        for (name, text) in [
            (
                "exim.conf",
                config.replace("DIR", dir.path().to_str().unwrap()),
            ),
            ("certificate", cert.pem()),
            ("key", signing_key.serialize_pem()),
            ("grey", String::new()),
            // Exim's package has its user compiled in.
            (
                "passwd",
                format!("Debian-exim:x:{uid}:{gid}::/:/bin/false\n"),
            ),
            ("group", format!("Debian-exim:x:{gid}:\n")),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        for name in ["spool", "mail", "log", "exim"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        chown(dir.path().join("key"), Some(uid), Some(gid)).unwrap();
        let said = File::create(dir.path().join("said")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", START, "sh"]);
        command.arg(dir.path()).arg(unpacked);
        command.args([uid.to_string(), gid.to_string(), port.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        let process = Process::start(&mut command, "util-linux");
        let mut exim = Exim { process, port, dir };
        until("Exim to listen", || {
            let ended = exim.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "Exim ended: {}", exim.said());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        exim
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate, as a trust anchor.
    pub fn roots(&self) -> PathBuf {
        self.dir.path().join("certificate")
    }

    /// Accepts `grey@...` from now on.
    pub fn know_grey(&self) {
        fs::remove_file(self.dir.path().join("grey")).unwrap();
    }

    /// Returns this many stored messages, as they are in the Maildir, each below its `Return-path` and
    /// `Envelope-to`; one copy per recipient.
    pub fn mails(&self, count: usize) -> Vec<Vec<u8>> {
        let new = self.dir.path().join("mail/new");
        until("Exim to deliver", || files(&new).len() >= count);
        let mut all: Vec<Vec<u8>> = files(&new).iter().map(|p| fs::read(p).unwrap()).collect();
        all.sort();
        assert_eq!(all.len(), count);
        all
    }

    /// The lines of its log about accepted messages.
    pub fn taken(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("log/mainlog")).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains(" <= "));
        lines.map(str::to_owned).collect()
    }

    fn said(&self) -> String {
        let names = ["said", "log/mainlog", "log/paniclog"];
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        names.map(read).concat()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Exim's log:\n{}", self.said());
        }
    }
}

/// Runs in a new mount namespace, with DIR UNPACKED UID GID PORT. Exim's user may have no access to the build
/// directory.
const START: &str = r#"
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount --bind "$2" "$1/exim"
export LD_LIBRARY_PATH="$1/exim/lib"
exec setpriv --reuid="$3" --regid="$4" --clear-groups \
    "$1/exim/exim4" -C "$1/exim.conf" -bdf -oX "127.0.0.1.$5"
"#;

const MAIN: &str = "\
primary_hostname = NAME
qualify_domain = exim.test
exim_path = DIR/exim/exim4
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
log_selector = +pipelining +8bitmime +received_recipients
pid_file_path = DIR/pid
keep_environment = LD_LIBRARY_PATH
deliver_drop_privilege = true
received_header_text =
host_lookup =
message_size_limit = 100K
tls_advertise_hosts = *
tls_certificate = DIR/certificate
tls_privatekey = DIR/key
acl_smtp_rcpt = recipient
acl_smtp_data = accept
";

const REST: &str = r#"
begin acl
recipient:
  deny    local_parts = absent
          message     = 5.1.1 no such user here
  defer   local_parts = grey
          condition   = ${if exists{DIR/grey}}
          message     = 4.7.1 come back later
  accept

begin routers
all:
  driver = accept
  transport = box

begin transports
box:
  driver = appendfile
  directory = DIR/mail
  maildir_format
  user = Debian-exim
  envelope_to_add
  return_path_add

begin retry
* * F,1h,1h

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{alice}}{eq{$auth3}{geheim}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{alice}}{eq{$auth2}{geheim}}}}
  server_set_id = $auth1
"#;
