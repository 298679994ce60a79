//! A private Postfix, and enough of SMTP to submit a message to it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::site::{PATIENCE, User, must};

/// Stopped on drop. Its log is printed if the test has failed.
pub struct Postfix {
    port: u16,
    dir: PathBuf,
}

impl Postfix {
    /// Starts Postfix in `dir`: mail for `example.test` goes to `dir/mailspool` with this spool, mail
    /// for `sender.test` into the Maildir `dir/home/box`. `more` is added to `main.cf`.
    pub fn start(dir: &Path, spool: &Path, user: &User, more: &str) -> Postfix {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        for name in ["conf", "queue", "data"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        chown(
            dir.join("data"),
            Some(User::named("postfix").unwrap().uid),
            None,
        )
        .unwrap();
        let main = MAIN_CF
            .replace("UID", &user.uid.to_string())
            .replace("GID", &user.gid.to_string());
        let main = (main + more).replace("DIR", dir.to_str().unwrap());
        let master = MASTER_CF
            .replace("PORT", &port.to_string())
            .replace("USER", &user.name);
        let master = master
            .replace("DIR", dir.to_str().unwrap())
            .replace("SPOOL", spool.to_str().unwrap());
        fs::write(dir.join("conf/main.cf"), main).unwrap();
        fs::write(dir.join("conf/master.cf"), master).unwrap();
        let postfix = Postfix {
            port,
            dir: dir.to_path_buf(),
        };
        postfix.control("start");
        postfix
    }

    /// The output goes to a file, because the daemon inherits it and would keep a pipe open.
    fn control(&self, verb: &str) {
        let said = self.dir.join(verb);
        let out = File::create(&said).unwrap();
        let mut command = Command::new("/usr/sbin/postfix");
        command
            .arg("-c")
            .arg(self.dir.join("conf"))
            .arg(verb)
            .current_dir("/");
        command
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out);
        let status = command.status().unwrap();
        if !status.success() && !thread::panicking() {
            panic!(
                "postfix {verb}: {status}\n{}\n{}",
                fs::read_to_string(said).unwrap(),
                self.log()
            );
        }
    }

    /// The port, for other clients.
    #[allow(dead_code)]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connect(&self) -> Smtp {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut smtp = Smtp(BufReader::new(stream));
        smtp.expect("220");
        smtp.command("EHLO client.test", "250");
        smtp
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Whether Postfix has finished this message and any bounce for it.
    ///
    /// This reads the log, not the queue: a listing of the queue may miss a message that is moving between
    /// directories.
    pub fn has_let_go_of(&self, id: &str) -> bool {
        let log = self.log();
        let removed = |id: &str| log.contains(&format!(": {id}: removed\n"));
        let bounce = format!(": {id}: sender non-delivery notification: ");
        removed(id)
            && log
                .split(&bounce)
                .skip(1)
                .all(|rest| removed(rest.lines().next().unwrap()))
    }

    /// Why Postfix still holds this message after a failed attempt.
    pub fn deferred(&self, id: &str) -> Option<String> {
        let mut postqueue = Command::new("/usr/sbin/postqueue");
        let listing = must(postqueue.arg("-c").arg(self.dir.join("conf")).arg("-j"));
        let this = format!("\"queue_name\": \"deferred\", \"queue_id\": \"{id}\"");
        let entry = listing.lines().find(|entry| entry.contains(&this))?;
        Some(entry.split_once("\"delay_reason\": ")?.1.to_string())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("Postfix's log:\n{}", self.log());
        }
        self.control("stop");
    }
}

/// An SMTP connection.
pub struct Smtp(BufReader<TcpStream>);

impl Smtp {
    /// Returns the id under which Postfix has queued the message.
    pub fn send(&mut self, sender: &str, recipients: &[&str], message: &str) -> String {
        self.command(&format!("MAIL FROM:<{sender}> BODY=8BITMIME"), "250");
        for recipient in recipients {
            self.command(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.command("DATA", "354");
        let stuffed = message.lines().map(|line| {
            if line.starts_with('.') {
                format!(".{line}\r\n")
            } else {
                format!("{line}\r\n")
            }
        });
        let reply = self.command(&format!("{}.", stuffed.collect::<String>()), "250");
        reply
            .trim_end()
            .rsplit_once("queued as ")
            .expect(&reply)
            .1
            .to_string()
    }

    fn command(&mut self, line: &str, code: &str) -> String {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .unwrap();
        self.expect(code)
    }

    /// The last line of the reply.
    fn expect(&mut self, code: &str) -> String {
        loop {
            let mut reply = String::new();
            self.0.read_line(&mut reply).unwrap();
            assert!(
                reply.starts_with(code),
                "expected {code}, Postfix says {reply:?}"
            );
            if reply.as_bytes()[3] == b' ' {
                return reply;
            }
        }
    }
}

/// No DNS, no listeners elsewhere, no own limits, and quick retries, but never within the second in which the
/// last attempt ended: if its delivery agent still has the file locked then, the queue manager defers the
/// file for a minute, and scans deferred files only every five minutes.
const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/log
maillog_file_prefixes = DIR
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.relay.test
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
message_size_limit = 0
virtual_mailbox_limit = 0
allow_min_user = yes
transport_maps = inline:{ example.test=mailspool: }
virtual_mailbox_domains = sender.test
virtual_mailbox_base = DIR/home
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:UID
virtual_gid_maps = static:GID
queue_run_delay = 1s
minimal_backoff_time = 2s
maximal_backoff_time = 3s
transport_retry_time = 1s
";

/// `flags=q` quotes the local parts that need it; without `null_sender=` the null sender would
/// arrive as MAILER-DAEMON.
const MASTER_CF: &str = "\
127.0.0.1:PORT inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
mailspool unix - n n - 4 pipe
  flags=q user=USER null_sender=
  argv=DIR/mailspool --spool SPOOL receive -f ${sender}
    --orcpt=rfc822;${original_recipient} -- ${recipient}
";
