//! A transport that calls a function of the embedding program.

use std::sync::Arc;
use std::time::Duration;

use super::unconnected::{Deliver, blocking};
use super::{BoxFuture, Message, Session, Transport};
use crate::message::{Address, domain};
use crate::queue::Outcome;

/// Makes a transport of a function of the program this library is part of. It is called for each message,
/// with all its recipients in one domain at once, in a thread where it may block. It returns one outcome per
/// recipient, in order. A missing outcome, and a panic, defer.
pub fn from_fn(
    deliver: impl Fn(&Message, &[Address]) -> Vec<Outcome> + Send + Sync + 'static,
) -> FromFn {
    FromFn {
        deliver: Arc::new(deliver),
        concurrency: None,
    }
}

/// Delivers by calling a function, on a thread where it may block.
#[derive(Clone)]
pub struct FromFn {
    deliver: Arc<Deliver>,
    concurrency: Option<usize>,
}

impl FromFn {
    /// Sets how many calls may run at once, over all processes that work on the spool. By default, each
    /// runner makes as many as it has jobs.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_concurrency(mut self, most: usize) -> FromFn {
        self.concurrency = Some(most.max(1));
        self
    }
}

impl Transport for FromFn {
    fn next_hop(&self, recipient: &Address) -> String {
        domain::key(recipient.domain().unwrap_or("")).into_owned()
    }

    fn deadline(&self, _size: u64) -> Option<Duration> {
        None
    }

    fn concurrency(&self) -> Option<usize> {
        self.concurrency
    }

    fn connect<'a>(
        &'a self,
        _destination: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        let missing = "the function returned no outcome for the recipient";
        let session = blocking(|_| true, missing, Arc::clone(&self.deliver));
        Box::pin(std::future::ready(Ok(session)))
    }
}
