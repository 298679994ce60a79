//! Background attempts: immediate, detached, and limited in number.

use std::io;
use std::process::{Command, Stdio};

use super::args::Global;
use super::output::write_once;
use super::site::Site;
use crate::runner::{has_resident, slot_is_free};
use crate::transport::detach;

/// Starts a run in the background if a slot is free. Otherwise the runs that hold the slots look at
/// the queue again after they release them, so they find what was queued before this call. So does a
/// resident run (see `run/reaper.rs`).
///
/// The message is already in the queue, so a failure here is only logged.
pub(super) fn attempt(site: &Site, global: &Global) {
    if let Some(mistake) = &site.mistake {
        let text = "mailspool: this command attempts nothing, because the configuration cannot be \
                    used; `run --watch` goes on with its last good one\n";
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
        return tracing::warn!("no attempt in the background: the program's path is unknown");
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
    // Pass on none of our streams: a reader of our output waits until every holder has closed it, and so
    // does a process that waits for a lock of our caller's.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    detach(&mut command);
    if let Err(error) = command.spawn() {
        tracing::warn!(%error, "no attempt in the background");
    }
}
