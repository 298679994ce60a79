//! The end of a submission that takes too long, whatever it waits for.
//!
//! Before the commit point the process ends with 75, and its caller keeps the message. From the
//! commit point on it ends with 0: the message is durable, and a caller that heard anything else
//! would hand it in again. What is still to be done then is little (moving the message on, a line in
//! the log, an attempt in the background), and the next run does what is left of it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::exit::{EX_TEMPFAIL, Failure, no_failure_from_now_on, write_once};

/// How long a process may still take after the commit point.
const AFTER: Duration = Duration::from_secs(5);

/// Ends this process when its time is up. Cheap to clone.
#[derive(Clone)]
pub(super) struct Watchdog {
    begun: Instant,
    shared: Arc<Shared>,
}

struct Shared {
    watch: Mutex<Watch>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct Watch {
    /// None: as long as it likes.
    end: Option<Instant>,
    is_committed: bool,
}

impl Watchdog {
    /// Watches over this process from now on, for ever if no limit is set.
    pub fn start(limit: Option<Duration>) -> Result<Watchdog, Failure> {
        let begun = Instant::now();
        let shared = Arc::new(Shared {
            watch: Mutex::new(Watch {
                end: limit.and_then(|limit| begun.checked_add(limit)),
                is_committed: false,
            }),
            changed: Condvar::new(),
        });
        let watching = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let spawned = thread.stack_size(64 << 10).spawn(move || watching.watch());
        spawned
            .map_err(|error| Failure::new(EX_TEMPFAIL, format!("starting a thread: {error}")))?;
        Ok(Watchdog { begun, shared })
    }

    /// Sets the time from the start until the commit point.
    pub fn set_limit(&self, limit: Duration) {
        self.change(|watch| watch.end = self.begun.checked_add(limit));
    }

    /// The message is durable: from now on this process ends with 0, and soon.
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
        let mut watch = self.shared.lock();
        if !watch.is_committed {
            change(&mut watch);
        }
        drop(watch);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut has_warned = false;
        let mut watch = self.lock();
        loop {
            let left = watch
                .end
                .map(|end| end.saturating_duration_since(Instant::now()));
            match (left, watch.is_committed) {
                (None, _) => {
                    let waited = self.changed.wait(watch);
                    watch = waited.unwrap_or_else(PoisonError::into_inner);
                }
                (Some(left), _) if !left.is_zero() => {
                    let waited = self.changed.wait_timeout(watch, left);
                    watch = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                // With the lock in hand, so that nothing is committed in between.
                (Some(_), true) => std::process::exit(0),
                (Some(_), false) if has_warned => std::process::exit(i32::from(EX_TEMPFAIL)),
                (Some(_), false) => {
                    // Without it: words may take their time, and the message may become durable.
                    drop(watch);
                    let text = "mailspool: taking too long; try again later\n";
                    write_once(io::stderr(), text);
                    has_warned = true;
                    watch = self.lock();
                }
            }
        }
    }
}
