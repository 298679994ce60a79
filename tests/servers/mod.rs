//! Third-party servers, each private to its test: in a temporary directory, and stopped with it.
//!
//! They need root (Postfix and Dovecot start as root) and Debian's postfix, dovecot-lmtpd and
//! python3-aiosmtpd; `scripts/exim` unpacks Exim. If something is missing, they fail with a message that says
//! so. A crate with this module also includes `site` and `postfix` of `tests/postfix`.

// Each test crate uses only a part of this module.
#![allow(dead_code)]

pub mod dovecot;
pub mod exim;
pub mod relay;
pub mod sink;
pub mod store;
#[path = "../tools/mod.rs"]
mod tools;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

use tempfile::TempDir;

/// An unprivileged account of every Linux system.
pub const ACCOUNT: &str = "nobody";

/// A process that is killed on drop.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command, package: &str) -> Process {
        let child = command.spawn();
        Process(child.unwrap_or_else(|error| panic!("needs {package}: {command:?}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory that other users may search, with a path short enough for sockets.
pub fn directory() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("ms")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}
