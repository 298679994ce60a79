//! The progress bar.
//!
//! A terminal may be stopped or slow, and a runner must not wait for it while it delivers. So a separate
//! thread draws, and the runner only counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::log;
use crate::runner::Progress;

/// The interval between drawings.
const TICK: Duration = Duration::from_millis(200);

/// How long dropping the bar waits for the last drawing; after that the bar may stay on the screen.
const PATIENCE: Duration = Duration::from_secs(1);

/// A progress bar that is drawn until this value is dropped.
pub(super) struct Bar {
    counts: Arc<Counts>,
    /// Dropping it makes the thread clear the bar.
    stop: Option<Sender<()>>,
    cleared: Receiver<()>,
}

#[derive(Default)]
struct Counts {
    found: AtomicU64,
    handled: AtomicU64,
}

impl Bar {
    /// Starts drawing a bar; none if no thread can be started.
    pub fn start() -> Option<Bar> {
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = channel();
        let (clear, cleared) = channel();
        let counted = Arc::clone(&counts);
        let draw = move || {
            draw(&counted, &stopped);
            let _ = clear.send(());
        };
        thread::Builder::new().spawn(draw).ok()?;
        Some(Bar {
            counts,
            stop: Some(stop),
            cleared,
        })
    }

    /// Returns the observer that counts for this bar.
    pub fn observer(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let counts = Arc::clone(&self.counts);
        move |progress| {
            match progress {
                Progress::Found(count) => counts.found.fetch_add(count, Ordering::Relaxed),
                Progress::Handled => counts.handled.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.cleared.recv_timeout(PATIENCE);
    }
}

fn draw(counts: &Counts, stopped: &Receiver<()>) {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} messages, {per_sec}, {eta} left");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    log::above(&bar);
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        bar.set_length(counts.found.load(Ordering::Relaxed));
        bar.set_position(counts.handled.load(Ordering::Relaxed));
        bar.tick();
    }
    bar.finish_and_clear();
}
