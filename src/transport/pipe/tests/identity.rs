//! Which user a command runs as. These tests need root.

use std::os::unix::fs::PermissionsExt as _;

use nix::unistd::{Gid, Uid, setresgid, setresuid};

use super::*;

const IDS: &str = "cat >/dev/null; grep -E '^(Uid|Gid|Groups|CapPrm|CapEff):' /proc/self/status; \
    echo $USER $LOGNAME $HOME; exit 75";

/// The output of [`IDS`] in a process with only this user's ids.
fn ids_of(user: &PipeUser, groups: &str) -> String {
    let entry = nix::unistd::User::from_name(user.name()).unwrap().unwrap();
    let (uid, gid, name) = (entry.uid, entry.gid, &entry.name);
    format!(
        "Uid: {uid} {uid} {uid} {uid} Gid: {gid} {gid} {gid} {gid} {groups} \
         CapPrm: 0000000000000000 CapEff: 0000000000000000 {name} {name} {}",
        entry.dir.display()
    )
}

fn must_be_root() {
    assert!(Uid::effective().is_root(), "this test must run as root");
}

fn open_to_all(dir: &TempDir) {
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn root_runs_a_command_as_another_user() {
    must_be_root();
    let dir = tempfile::tempdir().unwrap();
    let other = PipeUser::lookup("nobody").unwrap();
    let pipe = script(&dir, IDS).with_user(other.clone());
    let said = run_with(&dir, &pipe, SHORT).reply.text;
    assert_eq!(said, ids_of(&other, "Groups: 65534"));
    open_to_all(&dir);
    let endless = "echo $$ >$1/pid; sleep 60 & sleep 60";
    let pipe = script(&dir, endless).with_user(other);
    let outcome = run_with(&dir, &pipe.with_timeout(Duration::from_secs(2)), SHORT);
    assert_eq!(outcome.status, Status::Deferred);
    assert_dies(group_in(&dir));
}

/// Ids belong to a process, so this test runs itself again in a separate process.
fn in_another_process(name: &str) -> bool {
    const MARK: &str = "MAILSPOOL_TEST_PROCESS";
    must_be_root();
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = [run.stdout, run.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Changes the effective user to the unprivileged user 65534, and the real and saved user to another one,
/// as `seteuid` does.
fn drop_privileges(besides: u32) {
    let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
    nix::unistd::setgroups(&[gid]).unwrap();
    setresgid(Gid::from_raw(besides), gid, Gid::from_raw(besides)).unwrap();
    setresuid(Uid::from_raw(besides), uid, Uid::from_raw(besides)).unwrap();
}

#[test]
fn with_root_in_reserve_a_command_gets_its_user_and_never_root() {
    if !in_another_process("with_root_in_reserve_a_command_gets_its_user_and_never_root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    open_to_all(&dir);
    let message = message_with(dir.path(), SHORT, None);
    let run = |pipe: &Pipe| block_on(outcomes(pipe, &message, &["b@x"])).remove(0);
    drop_privileges(0);
    let other = PipeUser::lookup("nobody").unwrap();
    let daemon = PipeUser::lookup("daemon").unwrap();
    let pipe = script(&dir, IDS);
    let expected = ids_of(&other, "Groups: 65534");
    assert_eq!(run(&pipe).reply.text, expected);
    assert_eq!(run(&pipe.clone().with_user(other)).reply.text, expected);
    let expected = ids_of(&daemon, "Groups: 1");
    assert_eq!(run(&pipe.with_user(daemon.clone())).reply.text, expected);
    // Killing takes root, because the process belongs to another user.
    let endless = "echo $$ >$1/pid; sleep 60 & sleep 60";
    let pipe = script(&dir, endless).with_user(daemon.clone());
    let limit = Duration::from_secs(2);
    let outcome = run(&pipe.clone().with_timeout(limit));
    assert!(outcome.reply.text.starts_with("sh timed out"));
    let group = group_in(&dir);
    assert_dies(group);
    block_on(async {
        let running = outcomes(&pipe, &message, &["b@x"]);
        assert!(tokio::time::timeout(limit, running).await.is_err());
    });
    assert_ne!(group_in(&dir), group);
    assert_dies(group_in(&dir));
    assert_eq!(Uid::effective().as_raw(), 65534);
}

#[test]
fn without_root_another_user_is_out_of_reach() {
    if !in_another_process("without_root_another_user_is_out_of_reach") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    open_to_all(&dir);
    let message = message_with(dir.path(), SHORT, None);
    drop_privileges(65534);
    let daemon = PipeUser::lookup("daemon").unwrap();
    let pipe = script(&dir, "exit 0").with_user(daemon);
    let outcome = block_on(outcomes(&pipe, &message, &["b@x"])).remove(0);
    assert_eq!(
        outcome.reply.to_string(),
        "4.3.5 cannot run sh as daemon: user 65534 cannot become another"
    );
    assert_eq!(outcome.status, Status::Deferred);
    let other = PipeUser::lookup("nobody").unwrap();
    let pipe = script(&dir, "exit 0").with_user(other);
    let outcome = block_on(outcomes(&pipe, &message, &["b@x"])).remove(0);
    assert_eq!(outcome.status, Status::Delivered);
}
