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
    is_initial() || adopter().is_none_or(|adopter| !is_deaf(&adopter) && zombies_go(&adopter))
}

/// Whether this is the namespace of the machine itself, whose process 1 is a real init. It is not
/// judged: on a busy machine it may take its time to reap.
fn is_initial() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == INITIAL)
}

/// Our parent, once that is not `send` any more.
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

/// Whether a process never hears of the end of a child: it neither handles SIGCHLD, nor ignores it
/// (then the kernel reaps), nor blocks it (as an init does that waits for signals by other calls).
fn is_deaf(adopter: &Process) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", adopter.id));
    status.is_ok_and(|status| signals(&status) & SIGCHLD == 0)
}

/// The signals that the first thread of a process handles, ignores or blocks.
fn signals(status: &str) -> u64 {
    let mask = |line: &str| {
        let (name, mask) = line.split_once(':')?;
        let counts = ["SigCgt", "SigIgn", "SigBlk"].contains(&name);
        counts.then(|| u64::from_str_radix(mask.trim(), 16).ok())?
    };
    let masks = status.lines().filter_map(mask);
    masks.fold(0, |all, mask| all | mask)
}

/// Whether zombies of this program go away that earlier attempts have left to this process.
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
    let ours = all.filter(|one| one.parent == adopter.id && one.name == own.name);
    ours.filter(|one| one.is_zombie).map(|one| one.id).collect()
}

struct Process {
    id: u32,
    name: String,
    parent: u32,
    is_zombie: bool,
}

impl Process {
    /// What /proc says of a process; none if there is none.
    fn read(name: &str) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // The name may have blanks and parentheses in it.
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
