//! The session of a transport that keeps no connections.

use std::sync::Arc;

use super::{BoxFuture, Message, Session};
use crate::message::{Address, EnhancedCode};
use crate::queue::Outcome;

pub(super) type Deliver = dyn Fn(&Message, &[Address]) -> Vec<Outcome> + Send + Sync;

type Delivery = dyn Fn(Message, Vec<Address>) -> BoxFuture<'static, Vec<Outcome>> + Send;

/// A session that delivers by calling a function.
struct Unconnected {
    deliver: Box<Delivery>,
    keeps: fn(&[Outcome]) -> bool,
    is_reusable: bool,
}

/// A session that calls `deliver` for each message. `keeps` says whether it may take another message after
/// these outcomes.
pub(super) fn session(keeps: fn(&[Outcome]) -> bool, deliver: Box<Delivery>) -> Box<dyn Session> {
    Box::new(Unconnected {
        deliver,
        keeps,
        is_reusable: true,
    })
}

/// The same with a function that may block. A missing outcome, and a panic, defer with this text. A call under
/// way continues if its future is dropped; it holds the message until it ends.
pub(super) fn blocking(
    keeps: fn(&[Outcome]) -> bool,
    missing: &'static str,
    deliver: Arc<Deliver>,
) -> Box<dyn Session> {
    let deliver = move |message: Message, recipients: Vec<Address>| -> BoxFuture<'static, _> {
        let (deliver, count) = (Arc::clone(&deliver), recipients.len());
        Box::pin(async move {
            let call = tokio::task::spawn_blocking(move || deliver(&message, &recipients));
            let mut outcomes = call.await.unwrap_or_default();
            outcomes.resize_with(count, || deferred(missing));
            outcomes
        })
    };
    session(keeps, Box::new(deliver))
}

/// The session that `open` returns, called where it may block. A panic defers with this text.
pub(super) async fn open(
    panicked: &str,
    open: impl FnOnce() -> Result<Box<dyn Session>, Outcome> + Send + 'static,
) -> Result<Box<dyn Session>, Outcome> {
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or_else(|_| Err(deferred(panicked)))
}

impl Session for Unconnected {
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let outcomes = (self.deliver)(message.clone(), recipients.to_vec()).await;
            self.is_reusable = (self.keeps)(&outcomes);
            outcomes
        })
    }

    fn is_reusable(&self) -> bool {
        self.is_reusable
    }
}

fn deferred(text: &str) -> Outcome {
    Outcome::deferred(EnhancedCode::new(4, 3, 0), text)
}
