//! Signals to a run.
//!
//! SIGTERM and SIGINT let it finish what is in hand; a second one ends it at once, with the commands
//! that it runs. SIGHUP has a run that stays read its configuration again; for any other run it is a
//! SIGTERM, unless it was ignored from the start (`nohup`).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal as signals};

use super::Happening;
use crate::cli::exit::{EX_TEMPFAIL, Failure, leave};
use crate::runner::Stop;

/// What signals act on.
#[derive(Default)]
pub(super) struct Control {
    stops: Mutex<Vec<Stop>>,
    is_stopped: AtomicBool,
    stays: AtomicBool,
}

impl Control {
    /// Has signals stop a runner, at once if one has come already.
    pub fn add(&self, stop: Stop) {
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped() {
            stop.stop();
        }
        stops.push(stop);
    }

    /// From now on SIGHUP is no end.
    pub fn stay(&self) {
        self.stays.store(true, Ordering::SeqCst);
    }

    /// Whether a signal has come that ends the run.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    fn stop(&self, happenings: &Sender<Happening>) {
        if self.is_stopped.swap(true, Ordering::SeqCst) {
            leave(EX_TEMPFAIL);
        }
        let _ = happenings.send(Happening::Stop);
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.iter().for_each(Stop::stop);
    }
}

/// Acts on signals from now on, on a thread of its own: the others may be busy, or stuck.
pub(super) fn act_on_signals(
    control: Arc<Control>,
    happenings: Sender<Happening>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(EX_TEMPFAIL, format!("signals: {error}"));
    let runtime = crate::runner::runtime()?;
    let is_ignored = hangup_is_ignored();
    let (mut terminate, mut interrupt, mut hangup) = {
        let _context = runtime.enter();
        let of = |kind| signals(kind).map_err(failed);
        let hangup = of(SignalKind::hangup())?;
        (
            of(SignalKind::terminate())?,
            of(SignalKind::interrupt())?,
            hangup,
        )
    };
    let wait = move || {
        runtime.block_on(async move {
            loop {
                tokio::select! {
                    () = next(&mut terminate) => control.stop(&happenings),
                    () = next(&mut interrupt) => control.stop(&happenings),
                    () = next(&mut hangup) => match control.stays.load(Ordering::SeqCst) {
                        true => drop(happenings.send(Happening::Reload)),
                        false if is_ignored => {}
                        false => control.stop(&happenings),
                    },
                }
            }
        });
    };
    std::thread::Builder::new().spawn(wait).map_err(failed)?;
    Ok(())
}

async fn next(signals: &mut Signals) {
    if signals.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Whether our caller has us ignore SIGHUP. It is ignored from here until a handler is installed.
#[allow(unsafe_code)]
fn hangup_is_ignored() -> bool {
    // SAFETY: no handler is installed.
    let before = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) };
    matches!(before, Ok(SigHandler::SigIgn))
}
