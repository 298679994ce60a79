//! Ends a submission that takes too long, regardless of what it waits for.
//!
//! Before the commit point the process exits with 75, and its caller keeps the message. From the commit
//! point on it exits with 0: the message is durable, and with any other status the caller would submit
//! it again. Little remains to be done then (moving the message on, a log line, a background attempt),
//! and the next run does the rest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ending::no_failure_from_now_on;
use super::exit::{EX_TEMPFAIL, Failure};
use super::output::write_once;

/// How long a process may take after the commit point; then it exits with 0.
const AFTER: Duration = Duration::from_secs(5);

/// How often the thread checks the time. A change of the deadline does not wake it: that would cost
/// every process, and nearly all of them end before the first check.
const LOOKS: Duration = Duration::from_millis(500);

/// Ends this process after its deadline. Cheap to clone.
#[derive(Clone)]
pub(super) struct Watchdog {
    begun: Instant,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Clone, Copy)]
struct Watch {
    /// The deadline; none if the process may take as long as it needs.
    end: Option<Instant>,
    is_committed: bool,
}

impl Watchdog {
    /// Starts watching this process. Without a limit it has no deadline until one is set.
    pub fn start(limit: Option<Duration>) -> Result<Watchdog, Failure> {
        let begun = Instant::now();
        let watch = Arc::new(Mutex::new(Watch {
            end: limit.and_then(|limit| begun.checked_add(limit)),
            is_committed: false,
        }));
        let watched = Arc::clone(&watch);
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let spawned = thread
            .stack_size(64 << 10)
            .spawn(move || keep_looking(&watched));
        spawned
            .map_err(|error| Failure::new(EX_TEMPFAIL, format!("starting a thread: {error}")))?;
        Ok(Watchdog { begun, watch })
    }

    /// Sets the time from the start until the commit point.
    pub fn set_limit(&self, limit: Duration) {
        self.change(|watch| watch.end = self.begun.checked_add(limit));
    }

    /// Records that the message is durable: from now on this process exits with 0, within [`AFTER`].
    pub fn commit(&self) {
        no_failure_from_now_on();
        self.change(|watch| {
            *watch = Watch {
                end: Some(Instant::now() + AFTER),
                is_committed: true,
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut Watch)) {
        let mut watch = lock(&self.watch);
        if !watch.is_committed {
            change(&mut watch);
        }
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process after its deadline.
fn keep_looking(watched: &Mutex<Watch>) {
    let mut has_warned = false;
    loop {
        let watch = lock(watched);
        let left = watch
            .end
            .map(|end| end.saturating_duration_since(Instant::now()));
        match (left, watch.is_committed) {
            // Exit while holding the lock, so that no commit happens in between.
            (Some(Duration::ZERO), true) => std::process::exit(0),
            (Some(Duration::ZERO), false) if has_warned => {
                std::process::exit(i32::from(EX_TEMPFAIL))
            }
            (Some(Duration::ZERO), false) => {
                // Write without the lock: writing may be slow, and the message may become durable meanwhile.
                drop(watch);
                let text = "mailspool: taking too long; try again later\n";
                write_once(io::stderr(), text);
                has_warned = true;
            }
            (left, _) => {
                drop(watch);
                std::thread::sleep(left.map_or(LOOKS, |left| left.min(LOOKS)));
            }
        }
    }
}
