//! Whether this process would be reaped if it ended.
//!
//! The attempt that `send` starts in the background outlives `send`, so process 1 or another subreaper
//! adopts it. If the adopter never waits for its children, as in containers with an application as
//! process 1, each attempt would leave a zombie for ever, which a process cannot prevent for itself.
//! So an attempt that would not be reaped does not end: it stays, one per spool, and delivers what
//! comes in (see `in_slot` in `run.rs`).

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for the end of the `send` that started us; after that `send` counts as the parent.
const STARTER: Duration = Duration::from_secs(10);
/// The interval between two looks at the parent.
const GLANCE: Duration = Duration::from_millis(20);

/// A zombie that still exists after this time counts as never reaped.
const REAPED: Duration = Duration::from_secs(1);

/// The initial pid namespace. Its process 1 is a real init.
const INITIAL: &str = "pid:[4026531836]";

/// The bit of SIGCHLD in the signal masks of /proc.
const SIGCHLD: u64 = 1 << (nix::libc::SIGCHLD - 1);

/// Whether this process would be reaped if it ended now. Waits until its starter has ended. True if
/// /proc does not show the answer.
///
/// Everything is read from one /proc, which may belong to another pid namespace than ours.
pub(super) fn would_be_reaped() -> bool {
    is_initial() || adopter().is_none_or(|adopter| !is_deaf(&adopter) && zombies_go(&adopter))
}

/// Whether this is the machine's own pid namespace. Its process 1 is a real init, and is not tested
/// further: on a busy machine it may reap slowly.
fn is_initial() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == INITIAL)
}

/// Returns our parent after `send` has ended.
fn adopter() -> Option<Process> {
    let end = Instant::now() + STARTER;
    loop {
        let own = Process::read("self")?;
        let parent = Process::read(&own.parent.to_string())?;
        if parent.name != own.name || Instant::now() >= end {
            return Some(parent);
        }
        thread::sleep(GLANCE);
    }
}

/// Whether a process never notices the end of a child: it neither handles SIGCHLD, nor ignores it (then
/// the kernel reaps), nor blocks it (an init may block it and wait for it with other calls).
fn is_deaf(adopter: &Process) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", adopter.id));
    status.is_ok_and(|status| signals(&status) & SIGCHLD == 0)
}

/// Returns the signals that the first thread of a process handles, ignores or blocks.
fn signals(status: &str) -> u64 {
    let mask = |line: &str| {
        let (name, mask) = line.split_once(':')?;
        let counts = ["SigCgt", "SigIgn", "SigBlk"].contains(&name);
        counts.then(|| u64::from_str_radix(mask.trim(), 16).ok())?
    };
    let masks = status.lines().filter_map(mask);
    masks.fold(0, |all, mask| all | mask)
}

/// Whether the adopter reaps the zombies that earlier attempts of this program have left.
fn zombies_go(adopter: &Process) -> bool {
    let left = zombies(adopter);
    if left.is_empty() {
        return true;
    }
    thread::sleep(REAPED);
    let after = zombies(adopter);
    !left.iter().any(|zombie| after.contains(zombie))
}

fn zombies(adopter: &Process) -> Vec<u32> {
    let (Some(own), Ok(all)) = (Process::read("self"), fs::read_dir("/proc")) else {
        return Vec::new();
    };
    let all = all.filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?));
    let ours = all.filter(|process| process.parent == adopter.id && process.name == own.name);
    ours.filter(|process| process.is_zombie)
        .map(|process| process.id)
        .collect()
}

struct Process {
    id: u32,
    name: String,
    parent: u32,
    is_zombie: bool,
}

impl Process {
    /// Reads a process from /proc; none if it does not exist.
    fn read(name: &str) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // The name may contain blanks and parentheses.
        let (before, after) = stat.rsplit_once(") ")?;
        let (id, name) = before.split_once(" (")?;
        let mut fields = after.split(' ');
        Some(Process {
            id: id.parse().ok()?,
            name: name.to_owned(),
            is_zombie: fields.next()? == "Z",
            parent: fields.next()?.parse().ok()?,
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
        assert!(Process::read("no process").is_none());
    }
}
