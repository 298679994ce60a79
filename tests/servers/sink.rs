//! smtp-sink, Postfix's test server: it refuses, says goodbye and hangs up wherever it is told to.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Process, directory};

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
        command.args(["-u", "nobody"]).args(options);
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
