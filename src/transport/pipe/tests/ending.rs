//! How a run ends that does not end well, and what is left of it.

use std::sync::{Mutex, mpsc};

use nix::errno::Errno;
use nix::sys::signal::killpg;

use super::*;
use crate::disk::{Call, Verdict};

#[test]
fn at_the_deadline_the_whole_group_is_killed() {
    for (text, polite) in [
        ("echo $$ >$1/pid; echo waiting; sleep 60 & sleep 60", true),
        (
            "echo $$ >$1/pid; echo waiting; sleep 60 & exec >&- 2>&-; sleep 60",
            true,
        ),
        (
            "trap '' TERM; echo $$ >$1/pid; echo waiting; sleep 60 & sleep 60",
            false,
        ),
        ("echo $$ >$1/pid; echo waiting; kill -STOP $$", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let limit = Duration::from_millis(300);
        let start = Instant::now();
        let outcome = run_with(&dir, &script(&dir, text).with_timeout(limit), SHORT);
        let took = start.elapsed();
        let expected = "4.4.2 sh timed out after 300ms and was killed; its output: waiting";
        assert_eq!(outcome.reply.to_string(), expected);
        assert_eq!(outcome.status, Status::Deferred);
        let bound = if polite { 1500 } else { 4000 };
        assert!(took < Duration::from_millis(bound), "{took:?}: {text}");
        assert_dies(group_in(&dir));
    }
}

#[test]
fn what_a_command_leaves_in_the_background_neither_holds_us_nor_is_killed() {
    for (text, at_most) in [
        ("echo $$ >$1/pid; sleep 30 & echo well; exit 0", 3000),
        ("echo $$ >$1/pid; sleep 30 >/dev/null 2>&1 & exit 0", 900),
        // Holds the input, and does not read it.
        (
            "echo $$ >$1/pid; exec 3<&0; sleep 30 >/dev/null 2>&1 & exit 0",
            3000,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let outcome = run_with(&dir, &script(&dir, text), &vec![b'x'; 1_000_000]);
        assert_eq!(outcome.status, Status::Delivered);
        let took = start.elapsed();
        assert!(took < Duration::from_millis(at_most), "{took:?}: {text}");
        let group = group_in(&dir);
        assert_eq!(living(group), 1);
        killpg(group, Signal::SIGKILL).unwrap();
    }
}

/// Lets the first read of a message pass and then waits for leave, or fails.
struct Gate {
    leave: Mutex<mpsc::Receiver<()>>,
    reads: Mutex<usize>,
    error: Option<Errno>,
}

impl Gate {
    fn new(error: Option<Errno>) -> (Arc<Gate>, mpsc::Sender<()>) {
        let (leave, gate) = mpsc::channel();
        let gate = Gate {
            leave: Mutex::new(gate),
            reads: Mutex::new(0),
            error,
        };
        (Arc::new(gate), leave)
    }
}

impl Seam for Gate {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if !matches!(call, Call::Read { .. }) {
            return Verdict::Pass;
        }
        *self.reads.lock().unwrap() += 1;
        if *self.reads.lock().unwrap() == 1 {
            return Verdict::Pass;
        }
        match self.error {
            Some(errno) => Verdict::Fail(errno),
            None => {
                let _ = self.leave.lock().unwrap().recv();
                Verdict::Pass
            }
        }
    }
}

/// Takes the end of its input for the end of the message, as every command does.
const BELIEVER: &str = "trap 'exit 1' TERM; echo $$ >$1/pid; cat >/dev/null; echo >$1/whole";

#[test]
fn dropping_the_future_kills_the_group_before_its_input_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, leave) = Gate::new(None);
    let message = message_with(dir.path(), &vec![b'x'; 1_000_000], Some(gate));
    let pipe = script(&dir, BELIEVER);
    block_on(async {
        let running = outcomes(&pipe, &message, &["b@x"]);
        let limit = Duration::from_millis(500);
        assert!(tokio::time::timeout(limit, running).await.is_err());
        assert_dies(group_in(&dir));
        // Nobody but the runtime waits for it now, and it does.
        let process = format!("/proc/{}", group_in(&dir));
        let until = Instant::now() + Duration::from_secs(5);
        while Path::new(&process).exists() {
            assert!(Instant::now() < until, "not reaped");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(leave);
    });
    assert!(!dir.path().join("whole").exists());
}

#[test]
fn a_message_that_cannot_be_read_or_is_late_never_ends_early() {
    for (error, code) in [
        (Some(Errno::EIO), "4.3.0 cannot read"),
        (None, "4.4.2 sh timed"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (gate, leave) = Gate::new(error);
        let message = message_with(dir.path(), &vec![b'x'; 1_000_000], Some(gate));
        let pipe = script(&dir, BELIEVER).with_timeout(Duration::from_millis(500));
        let outcome = block_on(async {
            let outcome = outcomes(&pipe, &message, &["b@x"]).await.remove(0);
            drop(leave);
            outcome
        });
        let reply = outcome.reply.to_string();
        assert!(reply.starts_with(code), "{reply}");
        assert_eq!(outcome.status, Status::Deferred);
        assert!(!dir.path().join("whole").exists());
    }
}
