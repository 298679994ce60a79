//! A transport that calls a function of the embedding program.

use std::sync::Arc;
use std::time::Duration;

use super::{BoxFuture, Message, Session, Transport};
use crate::message::{Address, EnhancedCode, domain};
use crate::queue::Outcome;

type Deliver = dyn Fn(&Message, &[Address]) -> Vec<Outcome> + Send + Sync;

/// Delivers by calling a function, on a thread where it may block.
#[derive(Clone)]
pub struct Relay {
    deliver: Arc<Deliver>,
    concurrency: Option<usize>,
}

impl Relay {
    /// A transport that calls `deliver` for each message and domain, with all its recipients in that
    /// domain. `deliver` returns one outcome for each recipient, in their order. A missing outcome defers,
    /// and so does a panic.
    pub fn new(
        deliver: impl Fn(&Message, &[Address]) -> Vec<Outcome> + Send + Sync + 'static,
    ) -> Relay {
        Relay {
            deliver: Arc::new(deliver),
            concurrency: None,
        }
    }

    /// Sets how many calls may run at once, over all processes that work on the spool. By default, each
    /// runner makes as many as it has jobs.
    #[must_use]
    pub fn with_concurrency(mut self, most: usize) -> Relay {
        self.concurrency = Some(most.max(1));
        self
    }
}

impl Transport for Relay {
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

impl Session for Relay {
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
                Outcome::deferred(code, "the relay returned no outcome for the recipient")
            });
            outcomes
        })
    }

    fn is_reusable(&self) -> bool {
        true
    }
}
