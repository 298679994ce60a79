//! A connection: runs the protocol of [`opening`](super::opening) and [`exchange`](super::exchange) over an
//! asynchronous stream.

mod body;
#[cfg(test)]
mod tests;

use std::io::Read;

use tokio::io::{AsyncRead, AsyncWrite};

use self::body::Body;
use super::capabilities::Capabilities;
use super::exchange::{After, Exchange, ExchangeNext};
use super::opening::{HelloName, OpenError, Opening, OpeningNext, Protocol, Terms};
use super::reply::Form;
use super::sasl::{Login, Mechanism, Protection};
use super::step::{Deadlines, Step};
use super::tls::{Tls, TlsPolicy};
use super::transaction::Transaction;
use super::verdict::{Scope, Trouble, Verdict};
use super::wire::{Stream, Wire, Wrote, deadline};

/// The settings of a connection. Can be used for any number of connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The client's name.
    pub hello: HelloName,
    /// The TLS settings.
    pub tls: Tls,
    /// The credentials, if the client authenticates.
    pub login: Option<Login>,
    /// The time limits of the steps.
    pub deadlines: Deadlines,
}

impl Settings {
    /// SMTP under this name, without TLS and authentication, with the deadlines of RFC 5321.
    pub fn new(hello: HelloName) -> Settings {
        Settings {
            protocol: Protocol::Smtp,
            hello,
            tls: Tls::none(),
            login: None,
            deadlines: Deadlines::default(),
        }
    }

    /// The same settings without TLS: for a new connection after [`OpenError::may_go_in_clear`].
    pub fn in_clear(&self) -> Settings {
        Settings {
            tls: Tls::none(),
            ..self.clone()
        }
    }
}

/// What is known of a session, for logs and probes.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The server's greeting.
    pub greeting: String,
    /// The server's capabilities; those inside TLS if TLS is used.
    pub capabilities: Capabilities,
    /// TLS, if it is used.
    pub tls: Option<TlsInfo>,
    /// The authentication mechanism, if the client authenticated.
    pub mechanism: Option<Mechanism>,
}

/// What is known of a session's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// For example `TLSv1_3`.
    pub version: String,
    /// For example `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// Whether the certificate was verified against the server's name.
    pub is_verified: bool,
    /// The server's certificate, in DER.
    pub certificate: Vec<u8>,
}

/// A connection over which messages can be sent, one after another.
///
/// If a future of this type is dropped before its end, the connection is not reusable.
pub struct Client<S> {
    wire: Wire<S>,
    remote: String,
    protocol: Protocol,
    deadlines: Deadlines,
    info: SessionInfo,
    after: After,
    /// The transactions in which a command was sent.
    begun: u64,
    block: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Opens a session on a new connection to the server `host`: greeting, TLS, authentication. `host` is
    /// the name that TLS verifies, unless [`Tls`] has another, and the name in outcomes.
    pub async fn open(stream: S, host: &str, settings: &Settings) -> Result<Client<S>, OpenError> {
        let mut wire = Wire::new(stream);
        let opened = open(&mut wire, host, settings).await;
        if matches!(opened, Err(OpenError::Refused(_))) {
            // The server answers, so send QUIT, without waiting for the reply.
            let until = deadline(settings.deadlines.quit);
            wire.out.clear();
            wire.out.extend_from_slice(b"QUIT\r\n");
            let _ = wire.write(settings.deadlines.quit, until).await;
        }
        let info = opened?;
        Ok(Client {
            wire,
            remote: host.to_owned(),
            protocol: settings.protocol,
            deadlines: settings.deadlines,
            info,
            after: After::Ready,
            begun: 0,
            block: Vec::new(),
        })
    }

    /// What is known of the session.
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// Whether another message may be sent: the connection works, and the server's limit of messages
    /// (MAILMAX of RFC 9422) is not reached.
    pub fn is_reusable(&self) -> bool {
        let most = self.info.capabilities.max_mails;
        self.after != After::Close && most.is_none_or(|most| self.begun < most)
    }

    /// Whether the server has not closed the connection, as far as is known. Call it before reusing an idle
    /// connection: most servers close those after some minutes.
    pub async fn is_alive(&mut self) -> bool {
        if self.is_reusable() && !matches!(self.wire.unasked().await, Ok(None)) {
            self.after = After::Close;
        }
        self.is_reusable()
    }

    /// Sends one message. Returns one verdict for each recipient, in their order. `message` is read once
    /// from the beginning, in place, by blocking reads, so it must be in memory or recently read. The
    /// transaction's shape must be of this message.
    pub async fn deliver(
        &mut self,
        transaction: &Transaction<'_>,
        mut message: impl Read,
    ) -> Vec<Verdict> {
        let before = std::mem::replace(&mut self.after, After::Close);
        if let Some(verdict) = self.before_mail(before).await {
            return vec![verdict; transaction.recipients.len()];
        }
        let until = deadline(self.deadlines.sending(transaction.shape.size));
        let (mut exchange, mut next) = Exchange::begin(
            transaction,
            &self.info.capabilities,
            self.protocol,
            &self.remote,
            before,
            &mut self.wire.out,
        );
        self.begun += u64::from(next != ExchangeNext::Done);
        loop {
            next = match next {
                ExchangeNext::Reply(_) if self.wire.is_ahead() => {
                    let text = "a reply before the command";
                    exchange.on_trouble(&Trouble::Misplaced(text.into()))
                }
                ExchangeNext::Reply(step) => {
                    let within = self.deadlines.of(step);
                    // The wait for the final answer has a separate time limit, independent of the rest of
                    // the transaction.
                    let until = match step {
                        Step::End => deadline(within),
                        _ => until,
                    };
                    match self.wire.reply(Form::of(step), within, until).await {
                        Ok(reply) => exchange.on_reply(&reply, &mut self.wire.out),
                        Err(trouble) => exchange.on_trouble(&trouble),
                    }
                }
                ExchangeNext::Body(framing) => {
                    let body = Body {
                        framing,
                        shape: transaction.shape,
                        message: &mut message,
                        block: &mut self.block,
                    };
                    match body.send(&mut self.wire, &self.deadlines, until).await {
                        Ok(Wrote::All) => exchange.on_sent(),
                        Ok(Wrote::Reply(reply)) => exchange.on_early_reply(&reply),
                        Err(trouble) => exchange.on_trouble(&trouble),
                    }
                }
                ExchangeNext::Done => break,
            };
        }
        let (verdicts, after) = exchange.finish();
        // An unexpected reply would be taken for a reply in the next transaction.
        self.after = if self.wire.has_input() {
            After::Close
        } else {
            after
        };
        verdicts
    }

    /// Sends QUIT and closes the connection. Waits no longer than the deadline for QUIT.
    pub async fn quit(mut self) {
        let within = self.deadlines.quit;
        let until = deadline(within);
        let goodbye = async {
            if self.after != After::Close {
                self.wire.out.clear();
                self.wire.out.extend_from_slice(b"QUIT\r\n");
                let _ = self.wire.reply(Form::of(Step::Quit), within, until).await;
            }
            let _ = self.wire.shutdown().await;
        };
        let _ = tokio::time::timeout_at(until, goodbye).await;
    }

    /// Why no transaction can begin, or `None` if one can.
    async fn before_mail(&mut self, before: After) -> Option<Verdict> {
        if before == After::Close {
            return Some(Verdict::of_trouble(&Trouble::Lost, Step::Mail));
        }
        let trouble = match self.wire.unasked().await {
            Ok(None) => return None,
            // No command for a message has been sent, so this reply is about the host.
            Ok(Some(reply)) => {
                match Verdict::of_reply(&reply, Step::Reset, Scope::Host, &self.remote) {
                    Some(verdict) => return Some(verdict),
                    None => Trouble::misplaced(&reply),
                }
            }
            Err(trouble) => trouble,
        };
        Some(Verdict::of_trouble(&trouble, Step::Mail))
    }
}

async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    host: &str,
    settings: &Settings,
) -> Result<SessionInfo, OpenError> {
    let Settings { deadlines, tls, .. } = settings;
    let until = deadline(deadlines.opening);
    let terms = Terms {
        protocol: settings.protocol,
        hello: &settings.hello,
        start_tls: tls.start_tls(),
        login: settings.login.as_ref(),
        remote: host,
    };
    let mut has = Protection::Clear;
    if tls.is_implicit() {
        wire.encrypt(tls, host, deadlines.handshake, until).await?;
        has = tls.protection();
    }
    let (mut opening, mut next) = Opening::new(terms, has);
    // TLS is established, but nothing was received over it: a server that rejects this side of the
    // handshake reports that only now.
    let mut is_on_trial = false;
    loop {
        next = match next {
            OpeningNext::Reply(step) => {
                let failed = |trouble| {
                    if is_on_trial && tls.may_be_left_out() {
                        OpenError::OptionalTls(format!("{trouble} while {step}"))
                    } else {
                        OpenError::Trouble { step, trouble }
                    }
                };
                let reply = wire.reply(Form::of(step), deadlines.of(step), until).await;
                let reply = reply.map_err(failed)?;
                is_on_trial = false;
                let next = opening.on_reply(&reply, &mut wire.out)?;
                if wire.has_input() && next != OpeningNext::Encrypt {
                    let trouble = Trouble::Misplaced("a reply before the command".into());
                    return Err(OpenError::Trouble { step, trouble });
                }
                next
            }
            OpeningNext::Encrypt => {
                let encrypted = wire.encrypt(tls, host, deadlines.handshake, until).await;
                encrypted.map_err(|error| match error {
                    OpenError::Injected => error,
                    _ if tls.may_be_left_out() => OpenError::OptionalTls(error.to_string()),
                    _ => error,
                })?;
                is_on_trial = true;
                opening.on_encrypted(tls.protection(), &mut wire.out)
            }
            OpeningNext::Ready => break,
        };
    }
    let (capabilities, greeting, mechanism) = opening.finish();
    Ok(SessionInfo {
        greeting,
        capabilities,
        tls: tls_info(wire.stream(), tls),
        mechanism,
    })
}

fn tls_info<S>(stream: &Stream<S>, tls: &Tls) -> Option<TlsInfo> {
    let Stream::Tls(stream) = stream else {
        return None;
    };
    let (_, connection) = stream.get_ref();
    let version = connection.protocol_version();
    let cipher = connection.negotiated_cipher_suite();
    let chain = connection.peer_certificates().unwrap_or_default();
    Some(TlsInfo {
        version: version.map_or_else(String::new, |version| format!("{version:?}")),
        cipher: cipher.map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        is_verified: tls.policy() == TlsPolicy::Verified,
        certificate: chain.first().map_or_else(Vec::new, |first| first.to_vec()),
    })
}
