//! Runs that end abnormally, and what they leave.

use std::sync::{Mutex, mpsc};

use nix::errno::Errno;
use nix::sys::signal::killpg;

use super::*;
use crate::disk::{Call, Verdict};

/// The limit for waits. Nothing here takes as long, unless it waits for the command's own end. A shorter
/// time would prove nothing on a busy machine.
const WAITED: Duration = Duration::from_secs(30);

#[test]
fn at_the_deadline_the_whole_group_is_killed() {
    for (text, is_asked) in [
        ("echo $$ >$1/pid; echo waiting; sleep 60 & sleep 60", false),
        (
            "echo $$ >$1/pid; echo waiting; sleep 60 & exec >&- 2>&-; sleep 60",
            false,
        ),
        // It gets SIGTERM before it is killed.
        (
            "trap 'echo >$1/asked; exit 1' TERM; echo $$ >$1/pid; echo waiting; sleep 60 & wait",
            true,
        ),
        (
            "trap '' TERM; echo $$ >$1/pid; echo waiting; sleep 60 & sleep 60",
            false,
        ),
        ("echo $$ >$1/pid; echo waiting; kill -STOP $$", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // By then it has written its output.
        let limit = Duration::from_secs(2);
        let start = Instant::now();
        let outcome = run_with(&dir, &script(&dir, text).with_timeout(limit), SHORT);
        let took = start.elapsed();
        let expected = "4.4.2 sh timed out after 2 s and was killed; its output: waiting";
        assert_eq!(outcome.reply.to_string(), expected);
        assert_eq!(outcome.status, Status::Deferred);
        assert_eq!(dir.path().join("asked").exists(), is_asked, "{text}");
        assert!(took < WAITED, "{took:?}: {text}");
        assert_dies(group_in(&dir));
    }
}

#[test]
fn what_a_command_leaves_in_the_background_neither_holds_us_nor_is_killed() {
    for text in [
        "echo $$ >$1/pid; sleep 60 & echo well; exit 0",
        "echo $$ >$1/pid; sleep 60 >/dev/null 2>&1 & exit 0",
        // Holds the input open without reading it.
        "echo $$ >$1/pid; exec 3<&0; sleep 60 >/dev/null 2>&1 & exit 0",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let outcome = run_with(&dir, &script(&dir, text), &vec![b'x'; 1_000_000]);
        assert_eq!(outcome.status, Status::Delivered);
        let took = start.elapsed();
        assert!(took < WAITED, "{took:?}: {text}");
        let group = group_in(&dir);
        assert_eq!(living(group), 1);
        killpg(group, Signal::SIGKILL).unwrap();
    }
}

/// Lets the first read of a message pass, then waits for permission, or fails.
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

/// Takes the end of its input for the end of the message, like every command.
const BELIEVER: &str = "trap 'exit 1' TERM; echo $$ >$1/pid; cat >$1/whole; sleep 60";

#[test]
fn dropping_the_future_kills_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let message = message_with(dir.path(), &vec![b'x'; 1_000_000], None);
    let pipe = script(&dir, BELIEVER);
    block_on(async {
        let whole = dir.path().join("whole");
        let begun = async {
            while !whole.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = outcomes(&pipe, &message, &["b@x"]) => panic!("it has ended"),
            () = begun => {}
        }
        assert_dies(group_in(&dir));
        // Only the runtime waits for it now, and it does.
        let process = format!("/proc/{}", group_in(&dir));
        let until = Instant::now() + Duration::from_secs(5);
        while Path::new(&process).exists() {
            assert!(Instant::now() < until, "not reaped");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_message_that_cannot_be_read_to_its_end_starts_no_command() {
    for (error, reply) in [
        (Some(Errno::EIO), "4.3.0 cannot read the message: "),
        (None, "4.3.0 cannot read the message within 2 s"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (gate, leave) = Gate::new(error);
        let message = message_with(dir.path(), &vec![b'x'; 1_000_000], Some(gate));
        let pipe = script(&dir, BELIEVER).with_timeout(Duration::from_secs(2));
        let outcome = block_on(async {
            let outcome = outcomes(&pipe, &message, &["b@x"]).await.remove(0);
            drop(leave);
            outcome
        });
        let said = outcome.reply.to_string();
        assert!(said.starts_with(reply), "{said}");
        assert_eq!(outcome.status, Status::Deferred);
        assert!(!dir.path().join("pid").exists(), "it was started");
    }
    // The same for a file that is shorter than it was.
    let dir = tempfile::tempdir().unwrap();
    let mut message = message_with(dir.path(), SHORT, None);
    let disk = Disk::open(dir.path(), None).unwrap();
    let file = Arc::new(disk.open_read(Path::new("message")).unwrap());
    message.body = Body::new(disk, file, 0, SHORT.len() as u64 + 1);
    let outcome = block_on(outcomes(&script(&dir, BELIEVER), &message, &["b@x"])).remove(0);
    let said = outcome.reply.to_string();
    assert!(
        said.starts_with("4.3.0 cannot read the message: "),
        "{said}"
    );
    assert!(!dir.path().join("pid").exists(), "it was started");
}

/// The command depends on the thread, not on the process, which goes on.
#[test]
fn a_command_dies_with_the_thread_that_runs_it() {
    let dir = tempfile::tempdir().unwrap();
    let message = message_with(dir.path(), SHORT, None);
    let pipe = script(
        &dir,
        "echo $$ >$1/pid.part; mv $1/pid.part $1/pid; exec sleep 60",
    );
    let started = dir.path().join("pid");
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let running = outcomes(&pipe, &message, &["b@x"]);
            let begun = async {
                while !started.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let mut running = Box::pin(running);
            tokio::select! {
                _ = &mut running => panic!("it has ended"),
                () = begun => {}
            }
            // Drop nothing, as in a process that is killed.
            std::mem::forget(running);
        });
        std::mem::forget(runtime);
    });
    thread.join().unwrap();
    assert_dies(group_in(&dir));
}
