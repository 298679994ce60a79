//! The files that transports and notices need: certificates, keys, secrets and texts.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Maker;
use crate::cli::trust;
use crate::users::User;

/// The most octets of a secret, certificate, key or text; a longer file is an error.
const MAX_FILE: u64 = 1 << 20;

impl Maker<'_> {
    /// Reads the first line of a file that only its owner may read.
    pub(super) fn secret(&self, key: &str, path: &Path) -> Result<String, String> {
        let bytes = self.read(key, path, Readers::Owner)?;
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8");
        let line = text.map(|text| text.lines().next().unwrap_or_default().to_owned());
        match line {
            Ok(line) if !line.is_empty() => Ok(line),
            Ok(_) => Err(format!("{key} {}: its first line is empty", path.display())),
            Err(what) => Err(format!("{key} {}: {what}", path.display())),
        }
    }

    /// Reads the file that a key names. A relative path is below the spool. Only a regular file is
    /// accepted, because a FIFO would block the run.
    pub(super) fn read(&self, key: &str, path: &Path, readers: Readers) -> Result<Vec<u8>, String> {
        let path = self.site.spool.path().join(path);
        let wrong = |what: &dyn std::fmt::Display| format!("{key} {}: {what}", path.display());
        trusted_by_root(&path)?;
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(&path).map_err(|error| match error.kind() {
            // Name the user, because root has become the spool's owner.
            ErrorKind::PermissionDenied => wrong(&format_args!("{error}, for {}", user())),
            _ => wrong(&error),
        })?;
        let metadata = file.metadata().map_err(|error| wrong(&error))?;
        if !metadata.is_file() {
            return Err(wrong(&"not a regular file"));
        }
        let (mask, advice) = match readers {
            Readers::Any => (0, ""),
            Readers::NotOthers => (0o007, "chmod o="),
            Readers::Owner => (0o077, "chmod go="),
        };
        if metadata.mode() & mask != 0 {
            let what = format!("others can read it: run `{advice} {}`", path.display());
            return Err(wrong(&what));
        }
        let mut bytes = Vec::new();
        let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
        match read.map_err(|error| wrong(&error))? as u64 {
            0..=MAX_FILE => Ok(bytes),
            _ => Err(wrong(&format_args!("longer than {MAX_FILE} octets"))),
        }
    }
}

/// For root, fails if others can change where a path leads. They could make root read what only root
/// can read, or write where only root can write.
pub(super) fn trusted_by_root(path: &Path) -> Result<(), String> {
    if nix::unistd::geteuid().is_root() {
        only_root_changes(path)
    } else {
        Ok(())
    }
}

/// Fails if others than root can change where a path leads.
pub(super) fn only_root_changes(path: &Path) -> Result<(), String> {
    match trust::doubt(path) {
        Ok(Some(doubt)) => Err(format!(
            "{}: {doubt}; root uses only what root alone can change",
            path.display()
        )),
        // Opening the path later reports why it cannot be opened.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Returns the user that files are read as.
fn user() -> String {
    let id = nix::unistd::geteuid();
    match User::numbered(id) {
        Ok(Some(user)) => format!("the user {}", user.name),
        _ => format!("the user {id}"),
    }
}

/// The users that may be able to read a file.
#[derive(Clone, Copy)]
pub(super) enum Readers {
    Any,
    /// The owner and the group: Debian keeps keys for a group.
    NotOthers,
    Owner,
}
