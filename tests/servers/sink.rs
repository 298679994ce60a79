//! smtp-sink, Postfix's test server: it refuses, replies 421 and disconnects at any chosen step.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{ACCOUNT, Process, directory};

/// The server, on a socket in the file system.
pub struct Sink {
    _process: Process,
    dir: TempDir,
}

impl Sink {
    /// Starts it with these options of smtp-sink(1).
    pub fn start(options: &[&str]) -> Sink {
        let dir = directory();
        let mut command = Command::new("/usr/sbin/smtp-sink");
        command.args(["-u", ACCOUNT]).args(options);
        command.arg(format!("unix:{}/sink", dir.path().display()));
        command.arg("10");
        let process = Process::start(&mut command, "postfix");
        Sink {
            _process: process,
            dir,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("sink")
    }
}
