//! Commands of pipe transports: their input, their environment, and the end of the run.
//!
//! What belongs here: what happens to commands when a run is signalled or killed. How the end of a command is
//! interpreted is tested beside the code, in `src/transport/pipe`.

mod program;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::{LETTER, Site, code_of, outcome, pipe, route, until};

/// Too large for a pipe, and for the memory that holds small messages.
const SIZE: usize = 3 << 20;

/// A command that leaves a process in a new session, where no signal to the group reaches it. After the gate
/// opens, that process reads slowly, and takes the end of its input for the end of the message.
const SCRIPT: &str = "exec 3<&0; \
    setsid sh -c \"echo out >>{dir}/log; : <{dir}/gate; cat >{dir}/copy.part; mv {dir}/copy.part {dir}/copy\" <&3 & \
    echo $$ >{dir}/pid; wait; echo whole >>{dir}/log";

fn site() -> Site {
    let site = Site::new(&(pipe("slow", SCRIPT) + &route("domain", "*", "slow")));
    let body = format!("Subject: large\n\n{}\n", "x".repeat(SIZE));
    let send = [
        "send",
        "--queue-only",
        "-f",
        "a@example.org",
        "b@example.test",
    ];
    site.program(send, body.as_bytes()).ok();
    site
}

/// Starts a run, and waits until its command is under way.
fn started(site: &Site) -> (Child, Command, Pid) {
    let mut command = site.command(["run"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = command.spawn().unwrap();
    until("the command is under way", || {
        site.lines("log") == ["out"] && !site.lines("pid").is_empty()
    });
    let leader = site.lines("pid")[0].parse().unwrap();
    (run, command, Pid::from_raw(leader))
}

fn send(run: &Child, signal: Signal) {
    kill(Pid::from_raw(run.id() as i32), signal).unwrap();
}

#[test]
fn whatever_ends_a_run_no_process_reads_a_part_of_a_message() {
    let cases = [
        (&[Signal::SIGTERM, Signal::SIGTERM][..], 75),
        (&[Signal::SIGINT, Signal::SIGINT], 75),
        (&[Signal::SIGHUP, Signal::SIGTERM], 75),
        (&[Signal::SIGKILL], -1),
        // As after a bug in the program.
        (&[Signal::SIGABRT], -1),
    ];
    thread::scope(|scope| {
        for (signals, code) in cases {
            scope.spawn(move || no_part_is_read(signals, code));
        }
    });
}

fn no_part_is_read(signals: &[Signal], code: i32) {
    let site = site();
    let mut gate = site.gate("gate");
    let (mut run, command, leader) = started(&site);
    for (n, signal) in signals.iter().enumerate() {
        // A signal counts separately only after the one before it has been handled.
        if n > 0 {
            until("the signal is seen", || is_at_rest(run.id()));
        }
        send(&run, *signal);
    }
    assert_eq!(code_of(&mut run, &command), code, "{signals:?}");
    // The command has died with the run, before it could report success.
    until("the command is dead", || {
        kill(leader, None) == Err(Errno::ESRCH)
    });
    gate.open();
    until("the escaped process has read", || {
        site.dir().join("copy").exists()
    });
    let copy = fs::read(site.dir().join("copy")).unwrap();
    let is_whole = copy.len() > SIZE && copy.ends_with(b"x\n");
    assert!(is_whole, "{signals:?}: {} octets", copy.len());
    assert_eq!(site.lines("log"), ["out"]);
}

/// Whether a process has no pending signal, and all its threads are waiting.
fn is_at_rest(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let is_pending = |line: &str| line.contains("Pnd:") && !line.ends_with("\t0000000000000000");
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let waits = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('S'))
    };
    !status.lines().any(is_pending) && tasks.filter_map(Result::ok).all(waits)
}

#[test]
fn a_hangup_lets_a_run_finish_what_is_in_hand() {
    let site = site();
    let mut gate = site.gate("gate");
    let (run, command, _) = started(&site);
    site.queue(&["late@example.test"]);
    send(&run, Signal::SIGHUP);
    gate.open();
    assert_eq!(
        outcome(run, &command).ok(),
        "1 message: 1 delivered, 0 deferred, 0 failed.\n"
    );
    assert_eq!(site.lines("log").last().unwrap(), "whole");
}

#[test]
fn a_hangup_that_was_ignored_is_ignored() {
    let site = site();
    let mut gate = site.gate("gate");
    let inner = site.command(["run"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = shell.spawn().unwrap();
    until("the command is under way", || site.lines("log").len() == 1);
    send(&run, Signal::SIGHUP);
    send(&run, Signal::SIGHUP);
    gate.open();
    let words = "1 message: 1 delivered, 0 deferred, 0 failed.\n";
    assert_eq!(outcome(run, &shell).ok(), words);
}

/// A run raises its own limit of descriptors. A command that closes every possible descriptor would then take long.
#[test]
fn commands_get_the_limit_of_descriptors_that_the_run_was_started_with() {
    let script = "cat >/dev/null; ulimit -Sn >>{dir}/log; ulimit -Hn >>{dir}/log";
    let site = Site::new(&(pipe("limits", script) + &route("domain", "*", "limits")));
    let inner = site.command(["run"]);
    site.queue(&["b@example.test"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -Sn 123; ulimit -Hn 456; exec \"$@\"", "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args());
    program::ended(&mut shell, b"").ok();
    assert_eq!(site.lines("log"), ["123", "456"]);
}

/// A failing program may print what looks like a success code.
#[test]
fn what_a_command_prints_loses_no_mail() {
    let script = "cat >/dev/null; echo '2.38.1 importer: database is locked'; exit 75";
    let site = Site::new(&(pipe("import", script) + &route("domain", "*", "import")));
    site.program(["send", "--queue-only", "b@example.test"], LETTER)
        .ok();
    let words = "1 message: 0 delivered, 1 deferred, 0 failed.\n";
    assert_eq!(site.run().ok(), words);
    let row = site.row();
    assert_eq!(
        row["recipients"][0]["reply"],
        "4.0.0 2.38.1 importer: database is locked"
    );
}
