//! Sends messages to one host, over one connection, and over a new one if that one takes no more.

use super::Smtp;
use super::connection::Connection;
use super::content::Content;
use super::peer::Peer;
use crate::message::{Address, EnhancedCode};
use crate::queue::{Handover, Outcome, Status};
use crate::smtp::{Protocol, Scope, Step, Transaction, Verdict};
use crate::transport::{BoxFuture, HostHealth, Message, Session};

/// A connection, and how to get another.
pub(super) struct SmtpSession {
    transport: Smtp,
    peer: Peer,
    /// `None` after it broke, until it is needed again.
    connection: Option<Connection>,
    /// The messages sent over it.
    used: usize,
    /// The server has accepted MAIL for one of them.
    took_mail: bool,
    /// What the last message showed about the host.
    health: HostHealth,
}

impl SmtpSession {
    pub fn new(transport: Smtp, peer: Peer, connection: Connection) -> SmtpSession {
        SmtpSession {
            transport,
            peer,
            connection: Some(connection),
            used: 0,
            took_mail: false,
            health: HostHealth::Answers,
        }
    }

    async fn send(&mut self, message: &Message, recipients: &[Address]) -> Vec<Outcome> {
        let content = match Content::of(message).await {
            Ok(content) => content,
            Err(text) => {
                self.health = HostHealth::NotAsked;
                let text = format!("the message cannot be read: {text}");
                let outcome = Outcome::deferred(EnhancedCode::new(4, 3, 0), text);
                return vec![outcome; recipients.len()];
            }
        };
        self.health = HostHealth::Answers;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; recipients.len()];
        loop {
            let left: Vec<usize> = (0..recipients.len())
                .filter(|n| outcomes[*n].is_none())
                .collect();
            let these: Vec<Address> = left.iter().map(|n| recipients[*n].clone()).collect();
            let dsn = message.dsn.as_ref().map(|params| params.about(&these));
            let transaction = Transaction {
                sender: &message.sender,
                recipients: &these,
                shape: content.form(true).0,
                dsn: dsn.as_ref(),
            };
            let verdicts = match self.transact(&transaction, &content).await {
                Ok(verdicts) => {
                    let handover = self.handover();
                    let handed = |verdict: Verdict| Verdict {
                        outcome: verdict.outcome.handed(handover),
                        ..verdict
                    };
                    verdicts.into_iter().map(handed).collect()
                }
                Err(outcome) => vec![of_trouble(outcome); these.len()],
            };
            self.health = health_shown_by(&verdicts);
            // If a server limits the recipients of a transaction, the others go in a further transaction.
            // If the host fails, they do not: it would fail again each time.
            let fails = |verdict: &&Verdict| verdict.scope == Scope::Host;
            let deferred = |verdict: &&Verdict| verdict.outcome.status == Status::Deferred;
            let failure = verdicts.iter().filter(fails).find(deferred);
            let failure = failure.map(|verdict| verdict.outcome.clone());
            let progress = verdicts.iter().any(|verdict| verdict.scope != Scope::Limit)
                && !verdicts.iter().any(|verdict| verdict.scope == Scope::Host);
            for (n, verdict) in left.into_iter().zip(verdicts) {
                let outcome = match (verdict.scope, &failure) {
                    (Scope::Limit, _) if progress => continue,
                    (Scope::Limit, Some(failure)) => failure.clone(),
                    _ => verdict.outcome,
                };
                outcomes[n] = Some(outcome.by(&self.peer.remote));
            }
            if outcomes.iter().all(Option::is_some) {
                return outcomes.into_iter().flatten().collect();
            }
        }
    }

    /// What delivery over this connection means for success notices. A server with DSN sends them itself;
    /// delivery by LMTP without DSN is final; delivery by SMTP without DSN is a relay.
    fn handover(&self) -> Handover {
        let info = self
            .connection
            .as_ref()
            .map(|connection| connection.client.info());
        match (
            info.is_some_and(|info| info.capabilities.dsn),
            self.transport.inner.settings.protocol,
        ) {
            (true, _) => Handover::PassedOn,
            (false, Protocol::Lmtp) => Handover::Final,
            (false, Protocol::Smtp) => Handover::Relayed,
        }
    }

    /// Runs one transaction. If an idle connection was closed by the server, or has reached the number of
    /// messages that the server accepts, the transaction is repeated over a new connection.
    async fn transact(
        &mut self,
        transaction: &Transaction<'_>,
        content: &Content,
    ) -> Result<Vec<Verdict>, Outcome> {
        if let Some(connection) = &mut self.connection
            && (self.used == 0 || connection.client.is_alive().await)
        {
            let verdicts = send_over(connection, transaction, content).await;
            let is_unheard = |verdict: &Verdict| is_unheard(verdict, self.took_mail);
            if self.used == 0 || !verdicts.iter().all(is_unheard) {
                self.used += 1;
                self.took_mail |= verdicts.iter().any(is_after_mail);
                return Ok(verdicts);
            }
        }
        // A new connection has no history that could cause the deferral.
        if let Some(old) = self.connection.take() {
            old.client.quit().await;
        }
        self.used = 0;
        let connection = self.transport.inner.open(&self.peer).await?;
        let connection = self.connection.insert(connection);
        self.used = 1;
        let verdicts = send_over(connection, transaction, content).await;
        self.took_mail = verdicts.iter().any(is_after_mail);
        Ok(verdicts)
    }

    /// The most messages over this connection: the lower of the configured limit and the server's (MAILMAX
    /// of RFC 9422).
    fn most(&self) -> usize {
        let most = self.transport.inner.max_per_connection;
        let info = self
            .connection
            .as_ref()
            .map(|connection| connection.client.info());
        let limit = info.and_then(|info| info.capabilities.max_mails);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        limit.map_or(most, |limit| most.min(limit))
    }
}

/// Whether the server knows nothing of the message but MAIL, and defers it for a reason that may lie in the
/// connection: it is closed, it does not end the previous transaction, or it has carried too many messages.
///
/// Only a connection that took a message can have carried too many. Otherwise a host that defers each MAIL
/// would get a new connection for each.
fn is_unheard(verdict: &Verdict, took_mail: bool) -> bool {
    let is_the_connections = match (verdict.step, verdict.outcome.reply.code) {
        (Step::Reset, _) | (Step::Mail, None | Some(421)) => true,
        (Step::Mail, Some(451 | 452)) => took_mail,
        _ => false,
    };
    verdict.outcome.status == Status::Deferred && is_the_connections
}

fn is_after_mail(verdict: &Verdict) -> bool {
    matches!(
        verdict.step,
        Step::Rcpt | Step::Data | Step::Body | Step::End
    )
}

/// What a transaction shows about the host. A failure after MAIL was accepted may be due to this message: a
/// server that breaks down over its content may accept others. Recipients beyond a limit show nothing.
fn health_shown_by(verdicts: &[Verdict]) -> HostHealth {
    let told = || {
        verdicts
            .iter()
            .filter(|verdict| verdict.scope != Scope::Limit)
    };
    let breaks_off = |verdict: &Verdict| verdict.scope == Scope::Host;
    let fails = |verdict: &Verdict| {
        breaks_off(verdict) && verdict.outcome.status == Status::Deferred && !is_after_mail(verdict)
    };
    let of_ours = |verdict: &Verdict| {
        let is_ours = verdict.scope == Scope::Message && verdict.outcome.reply.remote.is_none();
        is_ours && verdict.outcome.status == Status::Deferred
    };
    let takes = |verdict: &Verdict| verdict.outcome.status == Status::Delivered;
    if told().next().is_some() && told().all(fails) {
        HostHealth::Fails
    } else if told().any(of_ours) {
        HostHealth::NotAsked
    } else if told().any(breaks_off) && !told().any(takes) {
        HostHealth::Stumbles
    } else {
        HostHealth::Answers
    }
}

/// Runs one transaction, with the form of the message that this server accepts.
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

    fn host_health(&self) -> HostHealth {
        self.health
    }

    fn is_reusable(&self) -> bool {
        let alive = |connection: &Connection| connection.client.is_reusable();
        self.used < self.most() && self.connection.as_ref().is_some_and(alive)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(connection) = self.connection {
                connection.client.quit().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Trouble;

    #[test]
    fn a_host_fails_only_by_what_came_before_the_recipients() {
        use HostHealth::*;
        for (step, expected) in [
            (Step::Greeting, Fails),
            (Step::Reset, Fails),
            (Step::Mail, Fails),
            (Step::Rcpt, Stumbles),
            (Step::Data, Stumbles),
            (Step::Body, Stumbles),
            // The outcome of the message is unknown then.
            (Step::End, Stumbles),
        ] {
            let verdict = Verdict::of_trouble(&Trouble::Lost, step);
            assert_eq!(health_shown_by(&[verdict]), expected, "{step:?}");
        }
        let unread = Verdict::of_trouble(&Trouble::Message("EIO".into()), Step::Body);
        assert_eq!(health_shown_by(&[unread]), NotAsked);
        // Recipients that were not sent show nothing, and an accepted one shows that the host works.
        let lost = |step| Verdict::of_trouble(&Trouble::Lost, step);
        let beyond = Verdict::beyond_limit("one at once");
        assert_eq!(health_shown_by(&[lost(Step::Mail), beyond.clone()]), Fails);
        assert_eq!(
            health_shown_by(&[lost(Step::Rcpt), beyond.clone()]),
            Stumbles
        );
        assert_eq!(health_shown_by(&[beyond]), Answers);
        let taken = Verdict {
            outcome: Outcome::delivered("taken"),
            scope: Scope::Recipient,
            step: Step::End,
        };
        assert_eq!(health_shown_by(&[taken, lost(Step::End)]), Answers);
    }
}
