//! A transport that calls a function of the embedding program.

use std::sync::Arc;
use std::time::Duration;

use super::{BoxFuture, Message, Session, Transport};
use crate::message::{Address, EnhancedCode, domain};
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

type Deliver = dyn Fn(&Message, &[Address]) -> Vec<Outcome> + Send + Sync;

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
        let session: Box<dyn Session> = Box::new(self.clone());
        Box::pin(std::future::ready(Ok(session)))
    }
}

impl Session for FromFn {
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>> {
        let (deliver, message) = (Arc::clone(&self.deliver), message.clone());
        let theirs = recipients.to_vec();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || deliver(&message, &theirs)).await;
            let mut outcomes = done.unwrap_or_default();
            outcomes.truncate(recipients.len());
            outcomes.resize_with(recipients.len(), || {
                let code = EnhancedCode::new(4, 3, 0);
                Outcome::deferred(code, "the function returned no outcome for the recipient")
            });
            outcomes
        })
    }

    fn is_reusable(&self) -> bool {
        true
    }
}
