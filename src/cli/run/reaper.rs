//! Whether a process that ends here is reaped.
//!
//! The attempt that `send` starts in the background outlives `send`, so its parent is then process 1,
//! or whatever else adopts orphans. Where that never waits for them, as in containers whose process 1
//! is an application, each attempt would leave a zombie for ever, and no process can prevent that for
//! itself. So an attempt that would not be reaped does not end: it stays, one for a spool, and
//! delivers what comes in (see `in_slot` in `run.rs`).

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long `send` may take to end after it has started us.
const STARTER: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(20);

/// A zombie that is still there after this time is not being reaped.
const REAPED: Duration = Duration::from_secs(1);

/// The initial namespace of processes: its process 1 is a real init.
const INITIAL: &str = "pid:[4026531836]";

/// SIGCHLD as a bit in /proc's masks of signals.
const SIGCHLD: u64 = 1 << (nix::libc::SIGCHLD - 1);

/// Whether this process would be reaped if it ended now. Waits until its starter has ended. Where
/// nothing can be known, it would be.
///
/// Everything is read in one /proc, which may be that of another namespace of processes than ours.
pub(super) fn would_be_reaped() -> bool {
    if is_initial() {
        return true;
    }
    let Some(own) = Process::read("self") else {
        return true;
    };
    let end = Instant::now() + STARTER;
    let parent = loop {
        let parent = Process::read("self").map(|own| own.parent);
        let Some(parent) = parent.and_then(|parent| Process::read(&parent.to_string())) else {
            return true;
        };
        if parent.name != own.name || Instant::now() >= end {
            break parent;
        }
        thread::sleep(GLANCE);
    };
    !is_deaf(&parent) && zombies_go(&own, &parent)
}

/// Whether this is the namespace of the machine itself, whose process 1 is a real init. It is not
/// judged: on a busy machine it may take its time to reap.
fn is_initial() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == INITIAL)
}

/// Whether a process 1 never hears of the end of a child: it neither handles SIGCHLD, nor ignores it
/// (then the kernel reaps), nor blocks it (as an init does that waits for signals by other calls).
fn is_deaf(parent: &Process) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", parent.id)) else {
        return false;
    };
    let heard = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        Some(signals(&status) & SIGCHLD != 0)
    };
    !threads
        .filter_map(Result::ok)
        .any(|thread| heard(thread).unwrap_or(true))
}

/// The signals that are handled, ignored or blocked.
fn signals(status: &str) -> u64 {
    let mask = |line: &str| {
        let (name, mask) = line.split_once(':')?;
        let counts = ["SigCgt", "SigIgn", "SigBlk"].contains(&name);
        counts.then(|| u64::from_str_radix(mask.trim(), 16).ok())?
    };
    status
        .lines()
        .filter_map(mask)
        .fold(0, |all, mask| all | mask)
}

/// Whether zombies of this program, left to this parent by earlier attempts, go away.
fn zombies_go(own: &Process, parent: &Process) -> bool {
    let left = zombies(own, parent);
    if left.is_empty() {
        return true;
    }
    thread::sleep(REAPED);
    let after = zombies(own, parent);
    !left.iter().any(|zombie| after.contains(zombie))
}

/// By number and time of start.
fn zombies(own: &Process, parent: &Process) -> Vec<(u32, String)> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all = all.filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?));
    all.filter(|one| one.is_zombie && one.parent == parent.id && one.name == own.name)
        .map(|one| (one.id, one.started))
        .collect()
}

struct Process {
    id: u32,
    name: String,
    parent: u32,
    is_zombie: bool,
    started: String,
}

impl Process {
    /// What /proc says of a process; none if there is none.
    fn read(name: &str) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // The name may have blanks and parentheses in it.
        let (before, after) = stat.rsplit_once(") ")?;
        let (id, name) = before.split_once(" (")?;
        let fields: Vec<&str> = after.split(' ').collect();
        Some(Process {
            id: id.parse().ok()?,
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            is_zombie: fields.first() == Some(&"Z"),
            started: (*fields.get(19)?).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_signals_are_read() {
        let status = "Name:\tx\nSigPnd:\t0000000000010000\nSigBlk:\t0000000000000001\n\
                      SigIgn:\t0000000000001000\nSigCgt:\t0000000000010000\n";
        assert_eq!(signals(status), 0x11001);
        assert_eq!(signals("SigQ:\t0/1\n"), 0);
        assert_eq!(SIGCHLD, 0x10000);
    }

    #[test]
    fn a_process_is_read() {
        let own = Process::read("self").unwrap();
        assert_eq!(own.id, std::process::id());
        assert!(!own.is_zombie);
        assert_eq!(Process::read("no process"), None::<Process>);
    }

    impl PartialEq for Process {
        fn eq(&self, other: &Process) -> bool {
            (self.id, &self.started) == (other.id, &other.started)
        }
    }

    impl std::fmt::Debug for Process {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.name)
        }
    }
}
