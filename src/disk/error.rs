//! A failed file-system call, with the call and the path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The error of a file-system call: the call, its path and its cause.
#[derive(Debug)]
pub struct Error {
    call: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A file was expected, but the name is that of a pipe, a device or another kind that cannot be a message.
#[derive(Debug, thiserror::Error)]
#[error("not a regular file")]
struct NotAFile;

impl Error {
    pub(super) fn not_a_file(call: &'static str, path: &Path) -> Error {
        Error::new(call, path, io::Error::other(NotAFile))
    }

    pub(crate) fn new(call: &'static str, path: &Path, source: io::Error) -> Error {
        Error {
            call,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn below(mut self, root: &Path) -> Error {
        self.path = root.join(&self.path);
        self
    }

    /// The path the call was about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the error `errno`.
    pub fn is(&self, errno: Errno) -> bool {
        self.source.raw_os_error() == Some(errno as i32)
    }

    /// Whether the name does not exist.
    pub fn is_absent(&self) -> bool {
        self.is(Errno::ENOENT)
    }

    /// Whether permission is denied.
    pub fn is_denied(&self) -> bool {
        self.is(Errno::EACCES) || self.is(Errno::EPERM)
    }

    /// Whether the file system does not support the call.
    pub fn is_unsupported(&self) -> bool {
        let all = [
            Errno::EOPNOTSUPP,
            Errno::ENOSYS,
            Errno::EPERM,
            Errno::EINVAL,
        ];
        all.iter().any(|errno| self.is(*errno))
    }

    /// Whether the name is not the kind of file it should be: a directory, a link, a pipe, a device, or a
    /// file above the size limit. This is a fault of the one entry, not of the disk.
    pub fn is_wrong_kind(&self) -> bool {
        let inner = self.source.get_ref();
        if inner.is_some_and(|inner| inner.is::<NotAFile>()) {
            return true;
        }
        [
            Errno::EISDIR,
            Errno::ENOTDIR,
            Errno::ELOOP,
            Errno::ENXIO,
            Errno::ENODEV,
            Errno::EFBIG,
            Errno::ESPIPE,
        ]
        .iter()
        .any(|errno| self.is(*errno))
    }

    /// Whether the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        self.is(Errno::ENOSPC) || self.is(Errno::EDQUOT)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { call, path, source } = self;
        let text = source.raw_os_error().map(Errno::from_raw);
        match text {
            Some(errno) => write!(f, "{call} {}: {}", path.display(), errno.desc()),
            None => write!(f, "{call} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Error> for io::Error {
    /// Keeps the kind, except `Interrupted`: readers in the standard library would repeat the call forever,
    /// and it has been repeated often enough here.
    fn from(error: Error) -> io::Error {
        let kind = match error.source.kind() {
            io::ErrorKind::Interrupted => io::ErrorKind::Other,
            kind => kind,
        };
        io::Error::new(kind, error)
    }
}
