//! Attempts in the background: at once, detached, and not too many.

use std::io;
use std::process::{Command, Stdio};

use super::args::Global;
use super::exit::write_once;
use super::site::Site;
use crate::runner::{has_resident, slot_is_free};
use crate::transport::detach;

/// Starts a run in the background, if a slot is free. If none is, the runs that hold them look
/// again after letting go, and find what was queued before this call. So does a run that stays (see
/// `run/reaper.rs`).
///
/// The message is in the queue already, so no trouble here is worth more than a log line.
pub(super) fn attempt(site: &Site, global: &Global) {
    if let Some(mistake) = &site.mistake {
        let text = "mailspool: nothing is tried by this command, for the configuration cannot be \
                    used; a run that stays goes on by its last good one\n";
        write_once(io::stderr(), text);
        return tracing::warn!(mistake, "no attempt in the background");
    }
    match slot_is_free(&site.spool, site.config.run.background) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return tracing::warn!(%error, "no attempt in the background"),
    }
    match has_resident(&site.spool) {
        Ok(false) => {}
        Ok(true) => return,
        Err(error) => return tracing::warn!(%error, "no attempt in the background"),
    }
    let Ok(program) = std::env::current_exe() else {
        return tracing::warn!("no attempt in the background: where is this program?");
    };
    let mut command = Command::new(program);
    command.arg("--spool").arg(site.spool.path());
    if let Some(config) = &global.config {
        command
            .arg("--config")
            .arg(std::path::absolute(config).unwrap_or(config.clone()));
    }
    command
        .args(["run", "--in-slot", "--quiet"])
        .current_dir("/");
    // None of our descriptors: a reader of our output waits for all that hold it, and so does a
    // process that waits for a lock which our caller has.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    detach(&mut command);
    if let Err(error) = command.spawn() {
        tracing::warn!(%error, "no attempt in the background");
    }
}
