//! Forged views and in-use bits, as a power cut, a restore or an edit by hand may leave them. No code decides
//! by the view, and no sync covers the in-use bits, so forging them must not change any fate.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mailspool::testing::message::QueueId;

use super::explore::Case;

/// Each forgery is applied to one case in this many.
const OF: usize = 12;

/// Applies the forgery of this case, if there is one, and returns its name. After a power cut the boot id is
/// also changed, because the kernel has a new one.
pub fn forge(case: &Case, base: &Path) -> Option<&'static str> {
    let spool = base.join("spool");
    if !case.killed {
        let boot = spool.join("state/boot");
        if boot.exists() {
            fs::write(boot, "another boot\n").unwrap();
        }
    }
    let view = || ["sender", "recipients", "transport"].map(|dir| spool.join("info").join(dir));
    let change = |change: &dyn Fn(&Path)| {
        let files = view().into_iter().flat_map(|dir| files(&dir));
        files.for_each(|path| change(&path));
    };
    match case.number % OF {
        1 => {
            change(&|path| fs::remove_file(path).unwrap());
            Some("no view")
        }
        3 => {
            change(&|path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            });
            Some("a torn view")
        }
        5 => {
            change(&|path| fs::write(path, "").unwrap());
            Some("an empty view")
        }
        7 => {
            change(&|path| fs::write(path, "x@stale.test\n").unwrap());
            Some("a stale view")
        }
        9 => {
            mark(&spool, 0o700);
            Some("forged marks")
        }
        11 => {
            mark(&spool, 0o600);
            Some("lost marks")
        }
        _ => None,
    }
}

/// Sets the mode of all message files.
fn mark(spool: &Path, mode: u32) {
    let mut dirs = ["new", "staged", "incoming", "active", "corrupt", "done"]
        .map(|dir| spool.join(dir))
        .to_vec();
    for kept in ["deferred", "frozen", "discarded"] {
        dirs.extend(entries(&spool.join(kept)));
    }
    for path in dirs.iter().flat_map(|dir| files(dir)) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Returns the files in a directory that are named by queue ids.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = entries(dir);
    files.retain(|path| {
        let name = path.file_name().unwrap().to_str();
        name.is_some_and(|name| name.parse::<QueueId>().is_ok())
    });
    files
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
