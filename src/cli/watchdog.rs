//! The end of a submission that takes too long, whatever it waits for.
//!
//! Before the commit point the process ends with 75, and its caller keeps the message. From the
//! commit point on it ends with 0: the message is durable, and a caller that heard anything else
//! would hand it in again. What is still to be done then is little (moving the message on, a line in
//! the log, an attempt in the background), and the next run does what is left of it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::exit::{EX_TEMPFAIL, Failure, no_failure_from_now_on, write_once};

/// How long a process may still take after the commit point.
const AFTER: Duration = Duration::from_secs(5);

/// How often the thread looks at the time. It is not woken when the time changes: that would be work
/// for every process, and nearly all of them end before the first look.
const LOOKS: Duration = Duration::from_millis(500);

/// Ends this process when its time is up. Cheap to clone.
#[derive(Clone)]
pub(super) struct Watchdog {
    begun: Instant,
    watch: Arc<Mutex<Watch>>,
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
        let mut watch = lock(&self.watch);
        if !watch.is_committed {
            change(&mut watch);
        }
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process when its time is up.
fn keep_looking(watched: &Mutex<Watch>) {
    let mut has_warned = false;
    loop {
        let watch = lock(watched);
        let left = watch
            .end
            .map(|end| end.saturating_duration_since(Instant::now()));
        match (left, watch.is_committed) {
            // With the lock in hand, so that nothing is committed in between.
            (Some(Duration::ZERO), true) => std::process::exit(0),
            (Some(Duration::ZERO), false) if has_warned => {
                std::process::exit(i32::from(EX_TEMPFAIL))
            }
            (Some(Duration::ZERO), false) => {
                // Without it: words may take their time, and the message may become durable.
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
