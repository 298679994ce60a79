//! The opening of a connection up to the first MAIL: greeting, EHLO, STARTTLS, AUTH. Without I/O: takes
//! replies, produces commands.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::capabilities::Capabilities;
use super::reply::ServerReply;
use super::sasl::{Login, Mechanism, Protection, Sasl, SaslError};
use super::step::Step;
use super::verdict::{Scope, Trouble, Verdict};
use crate::message::{EnhancedCode, printable};
use crate::queue::Outcome;

/// Octets of the longest command line that every server accepts (RFC 5321 4.5.3.1.4). A longer AUTH command
/// is split.
const MAX_COMMAND: usize = 512;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP (RFC 5321): one answer to a message.
    #[default]
    Smtp,
    /// LMTP (RFC 2033): an answer for each accepted recipient.
    Lmtp,
}

/// The client's name: a domain or an address literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloName(String);

/// The name cannot be sent in EHLO.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be sent in EHLO: it must be ASCII without blanks")]
pub struct NotAName(String);

impl HelloName {
    /// Checks that the name is not empty, is ASCII, and has no blanks or control characters.
    pub fn parse(name: &str) -> Result<HelloName, NotAName> {
        if !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(HelloName(name.to_owned()))
        } else {
            Err(NotAName(name.to_owned()))
        }
    }
}

impl fmt::Display for HelloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether STARTTLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// It is not used.
    Never,
    /// It is used if it is offered.
    IfOffered,
    /// It is required.
    Always,
}

/// What an opening has to negotiate.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// The protocol.
    pub protocol: Protocol,
    /// The client's name.
    pub hello: &'a HelloName,
    /// Whether TLS is to be negotiated.
    pub start_tls: StartTls,
    /// The credentials, if the client authenticates.
    pub login: Option<&'a Login>,
    /// The server's name, for the outcomes.
    pub remote: &'a str,
}

/// Why an opening did not reach the first MAIL. All of these defer: see [`super::verdict`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The server refused a step.
    #[error("{remote} refused ({step}): {text}", remote = .0.outcome.reply.remote.as_deref().unwrap_or("the server"), step = .0.step, text = .0.outcome.reply)]
    Refused(Verdict),
    /// The connection or the server's side of the protocol failed.
    #[error("{trouble} while {step}")]
    Trouble {
        /// The step.
        step: Step,
        /// The failure.
        trouble: Trouble,
    },
    /// TLS is required but not offered.
    #[error("TLS is required, and the server does not offer it")]
    NoTls,
    /// Input arrived before TLS that would be taken for input inside TLS. It may have been injected.
    #[error("the server said something between STARTTLS and TLS")]
    Injected,
    /// TLS could not be negotiated. With `verified`, the certificate may not be the server's.
    #[error("TLS: {0}")]
    Tls(String),
    /// The same if TLS is not required: a new connection may do without it.
    #[error("TLS: {0}")]
    OptionalTls(String),
    /// Authentication failed on the client's side.
    #[error("{0}")]
    Sasl(#[from] SaslError),
}

impl OpenError {
    /// Whether a new connection should be tried with [`Settings::in_clear`](super::Settings::in_clear).
    pub fn may_go_in_clear(&self) -> bool {
        matches!(self, OpenError::OptionalTls(_))
    }

    /// The verdict for every recipient.
    pub fn verdict(&self) -> Verdict {
        let (code, step) = match self {
            OpenError::Refused(verdict) => return verdict.clone(),
            OpenError::Trouble { step, trouble } => return Verdict::of_trouble(trouble, *step),
            OpenError::NoTls | OpenError::Injected => ((7, 4), Step::StartTls),
            OpenError::Tls(_) | OpenError::OptionalTls(_) => ((7, 5), Step::Handshake),
            OpenError::Sasl(_) => ((7, 0), Step::Auth),
        };
        let code = EnhancedCode::new(4, code.0, code.1);
        Verdict {
            outcome: Outcome::deferred(code, self.to_string()),
            scope: Scope::Host,
            step,
        }
    }
}

/// What comes next in an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpeningNext {
    /// Send what was written, and pass the reply to [`Opening::on_reply`].
    Reply(Step),
    /// Negotiate TLS. No input may remain after the last reply. Then call [`Opening::on_encrypted`].
    Encrypt,
    /// MAIL may follow.
    Ready,
}

/// An opening in progress.
#[derive(Debug)]
pub struct Opening<'a> {
    terms: Terms<'a>,
    has: Protection,
    state: State,
    greeting: String,
    capabilities: Capabilities,
    mechanism: Option<Mechanism>,
}

/// The reply that is expected next.
#[derive(Debug)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth(Sasl, First),
    Over,
}

/// The client's initial response in an authentication, in Base64.
#[derive(Debug)]
enum First {
    /// To be sent when the server asks for it.
    Unsaid(Vec<u8>),
    /// Sent together with AUTH.
    Said(Vec<u8>),
    /// There is none, or it was answered.
    Done,
}

impl<'a> Opening<'a> {
    /// An opening that waits for the greeting, on a connection with this protection.
    pub fn new(terms: Terms<'a>, has: Protection) -> (Opening<'a>, OpeningNext) {
        let opening = Opening {
            terms,
            has,
            state: State::Greeting,
            greeting: String::new(),
            capabilities: Capabilities::default(),
            mechanism: None,
        };
        (opening, OpeningNext::Reply(Step::Greeting))
    }

    /// Handles a reply; appends the next command to `out`.
    pub fn on_reply(
        &mut self,
        reply: &ServerReply,
        out: &mut Vec<u8>,
    ) -> Result<OpeningNext, OpenError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Greeting if reply.class() == 2 => {
                self.greeting = printable(&reply.text());
                Ok(self.hello(out))
            }
            State::Greeting => Err(self.refused(reply, Step::Greeting)),
            State::Ehlo if reply.class() == 2 => {
                self.capabilities = Capabilities::of(reply);
                self.start_tls(out)
            }
            State::Ehlo if reply.class() == 5 && self.terms.protocol == Protocol::Smtp => {
                self.say("HELO", State::Helo, out);
                Ok(OpeningNext::Reply(Step::Hello))
            }
            State::Helo if reply.class() == 2 => {
                self.capabilities = Capabilities::default();
                self.start_tls(out)
            }
            State::Ehlo | State::Helo => Err(self.refused(reply, Step::Hello)),
            State::StartTls if reply.class() == 2 => Ok(OpeningNext::Encrypt),
            State::StartTls if self.terms.start_tls == StartTls::IfOffered && reply.code != 421 => {
                self.auth(out)
            }
            State::StartTls => Err(self.refused(reply, Step::StartTls)),
            State::Auth(sasl, first) => self.on_auth(sasl, first, reply, out),
            State::Over => Err(OpenError::Trouble {
                step: Step::Auth,
                trouble: Trouble::misplaced(reply),
            }),
        }
    }

    /// Notes that TLS is established. Everything that the server said before is discarded: an attacker
    /// could have sent it.
    pub fn on_encrypted(&mut self, has: Protection, out: &mut Vec<u8>) -> OpeningNext {
        self.has = has;
        self.capabilities = Capabilities::default();
        self.hello(out)
    }

    /// The server's capabilities, its greeting, and the authentication mechanism that was used.
    pub fn finish(self) -> (Capabilities, String, Option<Mechanism>) {
        (self.capabilities, self.greeting, self.mechanism)
    }

    fn hello(&mut self, out: &mut Vec<u8>) -> OpeningNext {
        let verb = match self.terms.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        self.say(verb, State::Ehlo, out);
        OpeningNext::Reply(Step::Hello)
    }

    fn say(&mut self, verb: &str, state: State, out: &mut Vec<u8>) {
        self.state = state;
        out.extend_from_slice(format!("{verb} {}\r\n", self.terms.hello.0).as_bytes());
    }

    fn start_tls(&mut self, out: &mut Vec<u8>) -> Result<OpeningNext, OpenError> {
        let wanted = self.has == Protection::Clear && self.terms.start_tls != StartTls::Never;
        match (wanted, self.capabilities.start_tls) {
            (true, true) => {
                self.state = State::StartTls;
                out.extend_from_slice(b"STARTTLS\r\n");
                Ok(OpeningNext::Reply(Step::StartTls))
            }
            (true, false) if self.terms.start_tls == StartTls::Always => Err(OpenError::NoTls),
            _ => self.auth(out),
        }
    }

    fn auth(&mut self, out: &mut Vec<u8>) -> Result<OpeningNext, OpenError> {
        let Some(login) = self.terms.login else {
            return Ok(OpeningNext::Ready);
        };
        let (mechanism, sasl, first) = login.begin(&self.capabilities.auth, self.has)?;
        self.mechanism = Some(mechanism);
        out.extend_from_slice(b"AUTH ");
        out.extend_from_slice(mechanism.name().as_bytes());
        let first = match first.map(|first| BASE64.encode(first).into_bytes()) {
            Some(first) if first.len() + out.len() + 3 <= MAX_COMMAND => {
                out.push(b' ');
                out.extend_from_slice(&first);
                First::Said(first)
            }
            // A long response (a token) waits until the server asks for it (RFC 4954 4).
            Some(first) => First::Unsaid(first),
            None => First::Done,
        };
        out.extend_from_slice(b"\r\n");
        self.state = State::Auth(sasl, first);
        Ok(OpeningNext::Reply(Step::Auth))
    }

    fn on_auth(
        &mut self,
        mut sasl: Sasl,
        first: First,
        reply: &ServerReply,
        out: &mut Vec<u8>,
    ) -> Result<OpeningNext, OpenError> {
        match (reply.code, first) {
            (334, First::Unsaid(first)) => out.extend_from_slice(&first),
            // Some servers ignore the response sent with AUTH, and ask for it. For PLAIN any challenge
            // means that; for the other mechanisms, an empty one.
            (334, First::Said(first))
                if reply.text().trim().is_empty() || self.mechanism == Some(Mechanism::Plain) =>
            {
                out.extend_from_slice(&first);
            }
            (334, _) => {
                let challenge = BASE64
                    .decode(reply.text().trim())
                    // Some servers ask for the password of LOGIN in plain text, without Base64.
                    .or_else(|error| match sasl {
                        Sasl::Login { .. } => Ok(Vec::new()),
                        _ => Err(error),
                    })
                    .map_err(|_| {
                        SaslError::Garbled(self.mechanism.map_or("AUTH", Mechanism::name))
                    })?;
                let answer = sasl.answer(&challenge)?;
                out.extend_from_slice(BASE64.encode(answer).as_bytes());
            }
            (200..=299, _) => {
                sasl.succeed()?;
                return Ok(OpeningNext::Ready);
            }
            _ => return Err(self.refused(reply, Step::Auth)),
        }
        out.extend_from_slice(b"\r\n");
        self.state = State::Auth(sasl, First::Done);
        Ok(OpeningNext::Reply(Step::Auth))
    }

    fn refused(&self, reply: &ServerReply, step: Step) -> OpenError {
        match Verdict::of_reply(reply, step, Scope::Host, self.terms.remote) {
            Some(verdict) => OpenError::Refused(verdict),
            None => OpenError::Trouble {
                step,
                trouble: Trouble::misplaced(reply),
            },
        }
    }
}

#[cfg(test)]
mod tests;
