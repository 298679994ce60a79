//! aiosmtpd, which stores what it receives, octet by octet.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Process, directory};

/// The server; it refuses `absent@...`.
pub struct Store {
    _process: Process,
    port: u16,
    dir: TempDir,
}

impl Store {
    pub fn start() -> Store {
        let dir = directory();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/store.py");
        // Debian's own interpreter, because the package is Debian's.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(dir.path()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, "python3");
        let mut line = String::new();
        let out = process.0.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let port = line.trim().parse();
        Store {
            port: port.expect("these tests need python3-aiosmtpd"),
            _process: process,
            dir,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many messages have arrived.
    pub fn count(&self) -> usize {
        (0..)
            .take_while(|n| self.dir.path().join(format!("{n}.message")).exists())
            .count()
    }

    /// The octets of a message, counted from 0.
    pub fn message(&self, number: usize) -> Vec<u8> {
        fs::read(self.dir.path().join(format!("{number}.message"))).unwrap()
    }

    /// Its sender, recipients and MAIL parameters, one per line.
    pub fn envelope(&self, number: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("{number}.envelope"))).unwrap()
    }
}
