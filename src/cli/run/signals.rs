//! Signals to a run.
//!
//! After SIGTERM or SIGINT a run finishes its transactions. A second signal ends it at once, along with
//! its commands. SIGHUP makes a resident run read its configuration again. For any other run it acts
//! like SIGTERM, unless it was ignored from the start (`nohup`).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal as signals};

use super::Happening;
use crate::cli::ending::leave;
use crate::cli::exit::{EX_TEMPFAIL, Failure};
use crate::runner::Stop;

/// What signals act on.
#[derive(Default)]
pub(super) struct Control {
    stops: Mutex<Vec<Stop>>,
    is_stopped: AtomicBool,
    stays: AtomicBool,
}

impl Control {
    /// Makes signals stop this runner. Stops it now if a signal has already arrived.
    pub fn add(&self, stop: Stop) {
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped() {
            stop.stop();
        }
        stops.push(stop);
    }

    /// Makes SIGHUP reload the configuration from now on instead of ending the run.
    pub fn stay(&self) {
        self.stays.store(true, Ordering::SeqCst);
    }

    /// Whether a signal that ends the run has arrived.
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

/// Starts a thread that acts on signals. It is a separate thread because the others may be busy or
/// stuck.
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

/// Whether our caller made us ignore SIGHUP. Ignores it until a handler is installed.
#[allow(unsafe_code)]
fn hangup_is_ignored() -> bool {
    // SAFETY: no handler is installed.
    let before = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) };
    matches!(before, Ok(SigHandler::SigIgn))
}
