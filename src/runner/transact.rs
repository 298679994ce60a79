//! One transaction: over a session that is open, or over a new one.

use std::sync::Arc;

use tokio::time::Instant;

use super::Core;
use super::attempt::Ended;
use super::hops::{Help, Permit};
use super::plan::{Group, Seat};
use super::sessions::Open;
use crate::message::{Address, EnhancedCode};
use crate::queue::{Outcome, Status};
use crate::spool::{Down, Hop};
use crate::transport::{Message, Session, Transport};

impl Core {
    /// The next transaction of a group, within the transport's deadline.
    pub(super) async fn transact(self: &Arc<Self>, message: &Message, group: Group) -> Ended {
        let Group {
            transport,
            hop,
            mut chunks,
            seat,
        } = group;
        let recipients = chunks.pop_front().unwrap_or_default();
        let limit = transport.deadline(message.body.size());
        let end = limit.map(|limit| Instant::now() + limit);
        let opened = match seat {
            Seat::Taken(open) => Ok(open),
            Seat::Free => connect(&*transport, &hop, end).await.map(|session| Open {
                session,
                permit: None,
            }),
            Seat::Permit(permit) => self.open(&*transport, &hop, permit, end).await,
        };
        let (outcomes, rest) = match opened {
            // For all of them: whoever is asked next gives the same answer.
            Err(outcome) => {
                let all = chunks.drain(..).flatten();
                let all: Vec<Address> = recipients.into_iter().chain(all).collect();
                let outcomes = vec![outcome; all.len()];
                (pair(all, outcomes), None)
            }
            Ok(mut open) => {
                let delivery = open.session.deliver(message, &recipients);
                let outcomes = match within(end, delivery).await {
                    Some(outcomes) => outcomes,
                    None => {
                        let text =
                            format!("timed out after {} s", limit.unwrap_or_default().as_secs());
                        vec![Outcome::unknown(text); recipients.len()]
                    }
                };
                let seat = self.hand_back(&hop, open, !chunks.is_empty()).await;
                let rest = seat.map(|seat| Group {
                    transport: Arc::clone(&transport),
                    hop: hop.clone(),
                    chunks,
                    seat,
                });
                (pair(recipients, outcomes), rest)
            }
        };
        Ended {
            transport,
            name: hop.transport,
            outcomes,
            rest,
        }
    }

    /// Opens a session, and remembers what that says of the destination.
    async fn open(
        self: &Arc<Self>,
        transport: &dyn Transport,
        hop: &Hop,
        mut permit: Permit,
        end: Option<Instant>,
    ) -> Result<Open, Outcome> {
        let (opened, standing) = match connect(transport, hop, end).await {
            Ok(session) => (Ok(session), true),
            Err(outcome) => (Err(outcome), false),
        };
        let down = match &opened {
            Err(outcome) if outcome.status != Status::Failed => {
                permit.is_down().then(|| outcome.reply.to_string())
            }
            _ => None,
        };
        let answered = match &opened {
            Ok(_) => true,
            Err(outcome) => outcome.status == Status::Failed,
        };
        let was_down = answered && permit.answered(standing);
        if !was_down && down.is_none() && standing && !permit.is_probe() {
            return opened.map(|session| open_of(session, permit));
        }
        let core = Arc::clone(self);
        let hop = hop.clone();
        let told = tokio::task::spawn_blocking(move || {
            // First what is remembered, then whoever else may look.
            if was_down {
                core.forget_down(&hop);
            }
            if let Some(reply) = down {
                core.remember_down(&hop, &mut permit, &reply);
            }
            if let Some(probe) = permit.end_probe() {
                probe.retire();
            }
            match standing {
                true => Some(permit),
                false => {
                    permit.retire();
                    None
                }
            }
        });
        let permit = told.await.ok().flatten();
        opened.map(|session| Open { session, permit })
    }

    fn forget_down(&self, hop: &Hop) {
        match self.spool.forget_down(hop) {
            Ok(_) => tracing::info!(destination = hop.to_string(), "answers again"),
            Err(error) => self.hops.go_without(Help::Forget, hop, &error),
        }
    }

    fn remember_down(&self, hop: &Hop, permit: &mut Permit, reply: &str) {
        let now = self.now();
        let before = self.spool.down(hop);
        let mut is_written = true;
        let down = match before {
            // Somebody else found it out at the same time.
            Some(down) if down.is_left_alone(now) && !permit.is_probe() => down,
            before => {
                let down = Down::again(before, hop, reply, now);
                if let Err(error) = self.spool.remember_down(&down) {
                    self.hops.go_without(Help::Remember, hop, &error);
                    is_written = false;
                }
                down
            }
        };
        let (probe, tries) = (down.probe, down.tries);
        tracing::warn!(destination = hop.to_string(), %probe, tries, reply, "down");
        permit.failed(down, is_written);
    }

    /// What becomes of a session after a transaction; how the next one of the same group gets
    /// to its own, if there is `more`.
    async fn hand_back(&self, hop: &Hop, open: Open, more: bool) -> Option<Seat> {
        let closing = match (open.session.is_reusable(), more) {
            (true, true) => return Some(Seat::Taken(open)),
            (true, false) => self.sessions.keep(hop.clone(), open, self.budget.jobs),
            (false, false) => Some(open),
            (false, true) => {
                open.session.close().await;
                let mut permit = open.permit;
                if let Some(permit) = &mut permit {
                    permit.fell();
                }
                return Some(permit.map_or(Seat::Free, Seat::Permit));
            }
        };
        if let Some(open) = closing {
            open.close().await;
        }
        None
    }
}

fn open_of(session: Box<dyn Session>, permit: Permit) -> Open {
    Open {
        session,
        permit: Some(permit),
    }
}

/// Opens a session before the end. Nobody has been told of the message yet: whatever happens,
/// the outcome is known.
async fn connect(
    transport: &dyn Transport,
    hop: &Hop,
    end: Option<Instant>,
) -> Result<Box<dyn Session>, Outcome> {
    let connection = transport.connect(&hop.destination);
    within(end, connection).await.unwrap_or_else(|| {
        let code = EnhancedCode::new(4, 4, 1);
        let text = format!("no connection to {} in time", hop.destination);
        Err(Outcome::deferred(code, text))
    })
}

async fn within<T>(end: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => tokio::time::timeout_at(end, work).await.ok(),
        None => Some(work.await),
    }
}

fn pair(recipients: Vec<Address>, outcomes: Vec<Outcome>) -> Vec<(Address, Outcome)> {
    let missing = || {
        let code = EnhancedCode::new(4, 3, 0);
        Outcome::deferred(code, "the transport did not say what became of it")
    };
    let mut outcomes = outcomes.into_iter();
    let with = |recipient| (recipient, outcomes.next().unwrap_or_else(missing));
    recipients.into_iter().map(with).collect()
}
