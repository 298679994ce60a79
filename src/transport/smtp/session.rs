//! Messages over one connection, and over a new one where the old one turns out to be dead.

use super::Smtp;
use super::connection::Connection;
use super::content::Content;
use crate::message::{Address, EnhancedCode};
use crate::queue::{Handover, Outcome, Status};
use crate::smtp::{Protocol, Scope, Step, Transaction, Verdict};
use crate::transport::{BoxFuture, Message, Session};

/// A connection, and how to get another.
pub(super) struct SmtpSession {
    transport: Smtp,
    destination: String,
    /// None after one that broke, until it is needed again.
    connection: Option<Connection>,
    /// Messages that went over it.
    used: usize,
}

impl SmtpSession {
    pub fn new(transport: Smtp, destination: String, connection: Connection) -> SmtpSession {
        SmtpSession {
            transport,
            destination,
            connection: Some(connection),
            used: 0,
        }
    }

    async fn send(&mut self, message: &Message, recipients: &[Address]) -> Vec<Outcome> {
        let content = match Content::of(message).await {
            Ok(content) => content,
            Err(text) => {
                let text = format!("the message cannot be read: {text}");
                let outcome = Outcome::deferred(EnhancedCode::new(4, 3, 0), text);
                return vec![outcome; recipients.len()];
            }
        };
        let mut outcomes: Vec<Option<Outcome>> = vec![None; recipients.len()];
        loop {
            let left: Vec<usize> = (0..recipients.len())
                .filter(|n| outcomes[*n].is_none())
                .collect();
            let these: Vec<Address> = left.iter().map(|n| recipients[*n].clone()).collect();
            let dsn = message.dsn.as_ref().map(|wishes| wishes.about(&these));
            let transaction = Transaction {
                sender: &message.sender,
                recipients: &these,
                shape: content.form(true).0,
                dsn: dsn.as_ref(),
            };
            let verdicts = match self.transact(&transaction, &content).await {
                Ok(verdicts) => {
                    let handover = self.handover();
                    let handed = |one: Verdict| Verdict {
                        outcome: one.outcome.handed(handover),
                        ..one
                    };
                    verdicts.into_iter().map(handed).collect()
                }
                Err(outcome) => vec![of_trouble(outcome); these.len()],
            };
            // A server that took some and no more takes the others in a transaction of their own.
            let progress = verdicts.iter().any(|one| one.scope != Scope::Limit);
            for (n, verdict) in left.into_iter().zip(verdicts) {
                if verdict.scope != Scope::Limit || !progress {
                    outcomes[n] = Some(verdict.outcome);
                }
            }
            if outcomes.iter().all(Option::is_some) {
                return outcomes.into_iter().flatten().collect();
            }
        }
    }

    /// Who has what this connection took. A mail store that does not offer DSN is the end of the
    /// way; one that does tells itself.
    fn handover(&self) -> Handover {
        let info = self.connection.as_ref().map(|one| one.client.info());
        match (
            info.is_some_and(|info| info.capabilities.dsn),
            self.transport.inner.settings.protocol,
        ) {
            (true, _) => Handover::PassedOn,
            (false, Protocol::Lmtp) => Handover::Final,
            (false, Protocol::Smtp) => Handover::Relayed,
        }
    }

    /// One transaction. A connection that was idle may have been closed by the server, who does
    /// so whenever he likes: what he had not heard of is sent over a new one.
    async fn transact(
        &mut self,
        transaction: &Transaction<'_>,
        content: &Content,
    ) -> Result<Vec<Verdict>, Outcome> {
        if let Some(connection) = &mut self.connection
            && (self.used == 0 || connection.client.is_alive().await)
        {
            let verdicts = send_over(connection, transaction, content).await;
            let unheard = |one: &Verdict| {
                one.scope == Scope::Host
                    && one.outcome.status == Status::Deferred
                    && matches!(one.step, Step::Reset | Step::Mail)
            };
            if self.used == 0 || !verdicts.iter().all(unheard) {
                self.used += 1;
                return Ok(verdicts);
            }
        }
        // A new one, which has no past that could be to blame.
        self.connection = None;
        self.used = 0;
        let connection = self.transport.inner.open(&self.destination).await?;
        let connection = self.connection.insert(connection);
        self.used = 1;
        Ok(send_over(connection, transaction, content).await)
    }
}

/// One transaction with the message in the form that this server takes.
async fn send_over(
    connection: &mut Connection,
    transaction: &Transaction<'_>,
    content: &Content,
) -> Vec<Verdict> {
    let eight_bit_mime = connection.client.info().capabilities.eight_bit_mime;
    let (shape, reader) = content.form(eight_bit_mime);
    let transaction = Transaction {
        shape,
        ..transaction.clone()
    };
    connection.client.deliver(&transaction, reader).await
}

fn of_trouble(outcome: Outcome) -> Verdict {
    Verdict {
        outcome,
        scope: Scope::Host,
        step: Step::Greeting,
    }
}

impl Session for SmtpSession {
    fn deliver<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &'a [Address],
    ) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(self.send(message, recipients))
    }

    fn is_reusable(&self) -> bool {
        let most = self.transport.inner.max_per_connection;
        let alive = |connection: &Connection| connection.client.is_reusable();
        self.used < most && self.connection.as_ref().is_some_and(alive)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(connection) = self.connection {
                connection.client.quit().await;
            }
        })
    }
}
