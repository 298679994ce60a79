mod ending;
mod identity;

use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{FcntlArg, FdFlag};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::*;
use crate::disk::{Body, Disk, Seam};
use crate::message::{QueueId, ReversePath};
use crate::queue::Status;

const SHORT: &[u8] = b"Subject: x\n\nbody\n";

fn address(text: &str) -> Address {
    Address::stored(text).unwrap()
}

fn message_with(dir: &Path, bytes: &[u8], seam: Option<Arc<dyn Seam>>) -> Message {
    let id = QueueId::new("2026-11-22T14:05:00Z".parse().unwrap(), [7; 10]);
    fs::write(dir.join("message"), bytes).unwrap();
    let disk = Disk::open(dir, seam).unwrap();
    let file = Arc::new(disk.open_rw(Path::new("message")).unwrap());
    assert!(disk.try_lock(&file).unwrap());
    Message {
        id,
        sender: ReversePath::parse(b"a@example.org").unwrap(),
        dsn: None,
        body: Body::new(disk, file, 0, bytes.len() as u64),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

async fn outcomes(pipe: &Pipe, message: &Message, to: &[&str]) -> Vec<Outcome> {
    let to: Vec<_> = to.iter().map(|to| address(to)).collect();
    match pipe.connect("").await {
        Ok(mut session) => session.deliver(message, &to).await,
        Err(outcome) => vec![outcome; to.len()],
    }
}

/// Runs a shell script for one recipient. The directory is the script's `$1`.
fn script(dir: &TempDir, script: &str) -> Pipe {
    let dir = dir.path().to_str().unwrap().to_owned();
    let script = script.replace('{', "{{").replace('}', "}}");
    Pipe::new(vec![
        "sh".into(),
        "-c".into(),
        script,
        "sh".into(),
        dir,
        "{recipient}".into(),
    ])
    .unwrap()
}

fn run_with(dir: &TempDir, pipe: &Pipe, bytes: &[u8]) -> Outcome {
    let message = message_with(dir.path(), bytes, None);
    block_on(outcomes(pipe, &message, &["b@example.org"])).remove(0)
}

fn run(text: &str) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    run_with(&dir, &script(&dir, text), SHORT)
}

fn said(text: &str) -> String {
    run(&format!("{text}; exit 75")).reply.text
}

/// The number of processes in a group. Dead ones that their parent has not reaped do not count.
fn living(group: Pid) -> usize {
    let is_one = |stat: &str| {
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let (state, _parent, its) = (fields.next()?, fields.next()?, fields.next()?);
        (state != "Z" && its == group.to_string()).then_some(())
    };
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter_map(|stat| is_one(&stat))
        .count()
}

fn group_in(dir: &TempDir) -> Pid {
    let text = fs::read_to_string(dir.path().join("pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap())
}

#[track_caller]
fn assert_dies(group: Pid) {
    let until = Instant::now() + Duration::from_secs(5);
    while living(group) > 0 {
        assert!(Instant::now() < until, "process group {group} lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_message_arrives_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let long: Vec<u8> = (0..5_000_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let crlf = b"Subject: x\r\n\r\nbody".as_slice();
    let exact = vec![b'x'; 128 * 1024];
    for (bytes, end) in [
        (&long[..], "\n"),
        (crlf, "\r\n"),
        (b"", "\n"),
        (&exact, "\n"),
        (&long[..900_000], "\n"),
    ] {
        let outcome = run_with(&dir, &script(&dir, "cat >$1/out"), bytes);
        assert_eq!(outcome, Outcome::delivered("delivered by command"));
        let head = format!("Return-Path: <a@example.org>{end}");
        let out = fs::read(dir.path().join("out")).unwrap();
        assert!(out == [head.as_bytes(), bytes].concat(), "{}", bytes.len());
    }
}

#[test]
fn a_foreign_return_path_does_not_reach_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let head = "Return-Path: <a@example.org>\n";
    let more = format!(
        "X: {}\nSubject: x\n\nReturn-Path: body",
        "y".repeat(128 * 1024)
    );
    let bytes = format!("Return-Path: <evil@x>\nRETURN-PATH :\n <evil@x>\n{more}");
    let outcome = run_with(&dir, &script(&dir, "cat >$1/out"), bytes.as_bytes());
    assert_eq!(outcome.status, Status::Delivered);
    let out = fs::read_to_string(dir.path().join("out")).unwrap();
    assert!(out == format!("{head}{more}"), "{:?}", &out[..80]);
}

#[test]
fn the_child_has_what_it_should_and_nothing_else() {
    assert_eq!(said("pwd"), "/");
    let env = said("cat >/dev/null; env | sort | grep -v '^PWD='");
    let user = PipeUser::effective().unwrap().unwrap();
    let (name, home) = (user.name(), user.home().display());
    assert_eq!(
        env.replace(" _=/usr/bin/env", ""),
        format!(
            "HOME={home} LANG=C.UTF-8 LOGNAME={name} \
             MAILSPOOL_ID=01a20393-12e0-7707-8707-070707070707 PATH={PATH} \
             RECIPIENT=b@example.org SENDER=a@example.org USER={name}"
        )
    );
    // List the shell's own descriptors, not those of `ls`, which has the directory open. A descriptor that
    // the caller of this process left open must be missing.
    let left = fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&left, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    assert_eq!(said("ls /proc/$$/fd"), "0 1 2");
    let dir = tempfile::tempdir().unwrap();
    let limited = script(&dir, "ulimit -n; exit 75").with_descriptors(99);
    assert_eq!(run_with(&dir, &limited, SHORT).reply.text, "99");
    let ignored = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("SigIgn:"));
        u64::from_str_radix(line.unwrap()[7..].trim(), 16).unwrap()
    };
    let pipe_signal = 1_u64 << (Signal::SIGPIPE as u64 - 1);
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(ignored(&ours) & pipe_signal, 0, "the test proves nothing");
    let theirs = said("grep ^SigIgn: /proc/self/status");
    assert_eq!(ignored(&theirs) & pipe_signal, 0);
    assert_eq!(
        said("grep ^SigBlk: /proc/self/status"),
        "SigBlk: 0000000000000000"
    );
    // It has its own process group and session, and no terminal.
    let ids = said("echo $$; cut -d' ' -f5-7 /proc/$$/stat");
    let ids: Vec<_> = ids.split(' ').collect();
    assert_eq!(ids, [ids[0], ids[0], ids[0], "0"]);
}

#[test]
fn a_value_stays_one_argument() {
    let dir = tempfile::tempdir().unwrap();
    let message = message_with(dir.path(), SHORT, None);
    let nasty = [
        "a b@example.org",
        "\"a' 'b\"@example.org",
        ";id>/tmp/x;@example.org",
        "$(id)`id`@example.org",
        "-rf@example.org",
        "{sender}*@example.org",
    ];
    let command = [
        "sh",
        "-c",
        "printf '<%s>' \"$@\"; exit 75",
        "sh",
        "{recipient}",
    ];
    let mut command: Vec<_> = command.map(String::from).to_vec();
    command.push("--by={sender}/{id}".into());
    let pipe = Pipe::new(command).unwrap();
    let found = block_on(outcomes(&pipe, &message, &nasty));
    for (outcome, to) in found.iter().zip(nasty) {
        let expected = format!("<{to}><--by=a@example.org/{}>", message.id);
        assert_eq!(outcome.reply.text, expected);
    }
}

#[test]
fn a_command_that_cannot_be_is_found_at_once() {
    let new = |command: &[&str]| {
        let command = command.iter().map(|text| (*text).to_owned());
        Pipe::new(command.collect()).unwrap_err()
    };
    assert!(matches!(new(&[]), PipeError::Empty));
    assert!(matches!(new(&["", "x"]), PipeError::Empty));
    assert!(matches!(new(&["{sender}"]), PipeError::Program(_)));
    assert!(matches!(
        new(&["x", "{user}"]),
        PipeError::Placeholder { .. }
    ));
}

#[test]
fn exit_status_and_output_decide() {
    for (text, reply, status) in [
        ("true", "2.0.0 delivered by command", Status::Delivered),
        (
            "exit 67",
            "5.1.1 the command exited with status 67",
            Status::Failed,
        ),
        ("echo full >&2; exit 75", "4.0.0 full", Status::Deferred),
        (
            "exit 1",
            "4.3.0 the command exited with status 1",
            Status::Deferred,
        ),
        ("echo 5.2.1 closed; exit 1", "5.2.1 closed", Status::Failed),
        (
            "kill -9 $$",
            "4.3.0 the command was ended by signal 9",
            Status::Deferred,
        ),
        (
            "printf '\\033[31mred\\r\\n\\tb\\377\\0' >&2; exit 77",
            "5.7.0 [31mred b\u{fffd}",
            Status::Failed,
        ),
        (
            "echo 1; echo 2 >&2; echo 3; exit 65",
            "5.6.0 1 2 3",
            Status::Failed,
        ),
    ] {
        let outcome = run(text);
        assert_eq!(
            (outcome.reply.to_string().as_str(), outcome.status),
            (reply, status)
        );
    }
}

#[test]
fn each_recipient_has_a_run_and_an_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let message = message_with(dir.path(), SHORT, None);
    let pipe = script(
        &dir,
        "cat >>$1/out; case $2 in b*) exit 67;; c*) exit 75;; esac",
    );
    let found = block_on(outcomes(&pipe, &message, &["a@x", "b@x", "c@x", "d@x"]));
    let found: Vec<_> = found.iter().map(|outcome| outcome.status).collect();
    use Status::{Deferred, Delivered, Failed};
    assert_eq!(found, [Delivered, Failed, Deferred, Delivered]);
    let out = fs::read(dir.path().join("out")).unwrap();
    assert_eq!(
        out.len(),
        4 * (SHORT.len() + "Return-Path: <a@example.org>\n".len())
    );
    assert_eq!(pipe.next_hop(&address("a@Example.ORG")), "example.org");
}

#[test]
fn a_program_that_is_not_there_defers() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    for (program, why) in [
        ("/nonexistent/program", "No such file or directory"),
        ("no-such-program-anywhere", "No such file or directory"),
        (plain.to_str().unwrap(), "Permission denied"),
        ("/etc", "Permission denied"),
        ("/etc/passwd/x", "Not a directory"),
    ] {
        let outcome = run_with(&dir, &Pipe::new(vec![program.into()]).unwrap(), SHORT);
        let reply = outcome.reply.to_string();
        assert_eq!(outcome.status, Status::Deferred);
        let expected = format!("4.3.5 cannot run {program}: {why}");
        assert!(reply.starts_with(&expected), "{reply}");
    }
}

#[test]
fn a_command_need_not_read_nor_be_brief() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec![b'x'; 5_000_000];
    for (text, status) in [
        ("exit 0", Status::Delivered),
        ("exec <&-; sleep 0.2", Status::Delivered),
        ("sleep 0.2; exit 67", Status::Failed),
        ("head -c 100000 >/dev/null; exit 75", Status::Deferred),
    ] {
        assert_eq!(run_with(&dir, &script(&dir, text), &long).status, status);
    }
    let loud = "head -c 10000000 /dev/zero | tr '\\0' y; cat >/dev/null; exit 75";
    let outcome = run_with(&dir, &script(&dir, loud), &long);
    assert_eq!(outcome.status, Status::Deferred);
    assert_eq!(outcome.reply.text, format!("{}…", "y".repeat(997)));
}
