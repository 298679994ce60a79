//! What a server's reply, or the lack of one, means for a recipient.
//!
//! | what happened | outcome | scope |
//! |---|---|---|
//! | any failure, or 4xx or 5xx, before the first MAIL | deferred | host |
//! | 2xx for the message (LMTP: for this recipient) | delivered | |
//! | 4xx | deferred | see below |
//! | 5xx for MAIL, DATA, the message | failed | message |
//! | 5xx for RCPT | failed | recipient |
//! | 452 for RCPT, alone or with x.5.3; any 4xx with x.5.3 | deferred | limit |
//! | 552 for RCPT, alone or with x.5.3; any 5xx with x.5.3; after the server accepted others | deferred | limit |
//! | 452 for MAIL, alone; any 4xx with x.3.1 or x.3.2 | deferred | host |
//! | 523, 525, 530, 534, 535, 538 | deferred | host; for RCPT recipient |
//! | 421 | deferred | host |
//! | connection lost, deadline, no valid reply, before the message's last octet is sent | deferred | host |
//! | the same after it | unknown | host |
//! | larger than the server's SIZE; the sender needs SMTPUTF8 and the server lacks it | failed | message |
//! | the same for a recipient | failed | recipient |
//! | more recipients, or domains, than the server's LIMITS | deferred | limit |
//! | the address cannot be written into a command | failed | recipient |
//!
//! A greeting of 5xx, or a refused HELO, STARTTLS or AUTH, defers, as in Postfix. It concerns the host or this
//! client, and the sender can do nothing about it. Another MX may accept the mail, and after a repair the mail is
//! still there. The same is true of codes that ask for authentication or TLS (RFC 4954 6, RFC 5248), in answer to
//! any command: the configuration lacks it. The enhanced code never decides that, because `550 5.7.8` is also used
//! about a sender.
//!
//! A 552 for RCPT originally meant "too many recipients" (RFC 5321 4.5.3.1.10); today it means "the mailbox is
//! full". It can have the first meaning only if the server accepted recipients in the same transaction. In that
//! case the others are sent in another transaction, and the reply to its first recipient shows which was meant.
//!
//! A 452 for MAIL concerns the server's disk, or this session, in which the server accepts no more messages.
//! Neither is the message's fault.

use std::time::Duration;

use super::reply::{ReplyError, ServerReply};
use super::step::Step;
use crate::message::EnhancedCode;
#[cfg(feature = "testing")]
use crate::message::Reply;
use crate::message::reply::in_seconds;
use crate::queue::{Handover, Outcome, Status};

/// What an outcome concerns, and so what else may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The host or the connection: another host may do better, while other mail for this host may fare no
    /// better.
    Host,
    /// This message: other messages to the same host may be sent.
    Message,
    /// This recipient.
    Recipient,
    /// The server accepts no more recipients in this transaction. If it accepted any, the remaining ones
    /// may be sent at once in another transaction.
    Limit,
}

/// The result for a recipient, and the step that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Delivered, deferred, failed or unknown, with the deciding reply.
    pub outcome: Outcome,
    /// What the outcome concerns. For a delivered recipient, what the answer was about.
    pub scope: Scope,
    /// The step that decided.
    pub step: Step,
}

/// Why a session cannot continue, apart from the server's replies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The end of the stream.
    #[error("the connection was lost")]
    Lost,
    /// An error of the stream, TLS included.
    #[error("the connection broke ({0})")]
    Broke(String),
    /// A deadline passed.
    #[error("timed out after {}", in_seconds(*.0))]
    TimedOut(Duration),
    /// The input is not a reply.
    #[error("the server does not speak SMTP: {0}")]
    Garbled(#[from] ReplyError),
    /// A reply that is not valid here, or an unexpected one.
    #[error("the server gave an answer that does not belong here: {0:?}")]
    Misplaced(String),
    /// The message cannot be read, or its length has changed.
    #[error("the message cannot be read: {0}")]
    Message(String),
}

impl Trouble {
    /// The failure for a reply that is not valid here.
    pub fn misplaced(reply: &ServerReply) -> Trouble {
        Trouble::Misplaced(reply.to_reply("").to_string())
    }

    fn enhanced(&self) -> EnhancedCode {
        match self {
            Trouble::Lost | Trouble::Broke(_) | Trouble::TimedOut(_) => EnhancedCode::new(4, 4, 2),
            Trouble::Garbled(_) | Trouble::Misplaced(_) => EnhancedCode::new(4, 5, 0),
            Trouble::Message(_) => EnhancedCode::new(4, 3, 0),
        }
    }
}

impl Verdict {
    /// The verdict for a failure. The outcome is unknown if the server may have the whole message.
    pub fn of_trouble(trouble: &Trouble, step: Step) -> Verdict {
        let text = format!("{trouble} while {step}");
        let outcome = match step {
            Step::End => Outcome::unknown(text),
            _ => Outcome::deferred(trouble.enhanced(), text),
        };
        let scope = match trouble {
            Trouble::Message(_) => Scope::Message,
            _ => Scope::Host,
        };
        Verdict {
            outcome,
            scope,
            step,
        }
    }

    /// The verdict for a reply in this step. `None` if the reply is not valid there: 3xx, or 2xx except as
    /// an answer to the message.
    pub fn of_reply(
        reply: &ServerReply,
        step: Step,
        scope: Scope,
        remote: &str,
    ) -> Option<Verdict> {
        Verdict::in_turn(reply, step, scope, remote, false)
    }

    /// The same, if the server may have accepted recipients earlier in this transaction.
    pub fn in_turn(
        reply: &ServerReply,
        step: Step,
        scope: Scope,
        remote: &str,
        took_others: bool,
    ) -> Option<Verdict> {
        let (status, scope) = meaning(reply, step, scope, took_others)?;
        let reply = reply.to_reply(remote);
        Some(Verdict {
            outcome: Outcome {
                status,
                handover: Handover::Final,
                reply,
            },
            scope,
            step,
        })
    }

    /// The verdict for a recipient left out of this transaction because of the server's LIMITS.
    pub fn beyond_limit(text: &str) -> Verdict {
        Verdict {
            outcome: Outcome::deferred(EnhancedCode::new(4, 5, 3), text),
            scope: Scope::Limit,
            step: Step::Rcpt,
        }
    }

    /// The verdict for a recipient that this client refuses to send, before any command.
    pub fn unsendable(enhanced: EnhancedCode, text: &str, scope: Scope, step: Step) -> Verdict {
        Verdict {
            outcome: Outcome::failed(enhanced, text),
            scope,
            step,
        }
    }
}

/// The outcome for a domain with `.` as its only MX: it accepts no mail (RFC 7505).
#[cfg(feature = "testing")]
pub fn null_mx(domain: &str) -> Outcome {
    let reply = Reply::local(
        EnhancedCode::new(5, 1, 10),
        format!("{domain} accepts no mail (null MX)"),
    );
    Outcome {
        status: Status::Failed,
        handover: Handover::Final,
        reply: Reply {
            code: Some(556),
            ..reply
        },
    }
}

fn before_mail(step: Step) -> bool {
    use Step::*;
    matches!(
        step,
        Greeting | Hello | StartTls | Handshake | Auth | Reset | Quit
    )
}

/// The table above, for replies.
fn meaning(
    reply: &ServerReply,
    step: Step,
    scope: Scope,
    took_others: bool,
) -> Option<(Status, Scope)> {
    let about = reply.enhanced.map(|code| (code.subject, code.detail));
    let is_too_many = step == Step::Rcpt
        && match (reply.code, about) {
            (452, None) => true,
            (552, None) => took_others,
            (_, Some((5, 3))) => reply.class() == 4 || took_others,
            _ => false,
        };
    let is_full =
        step == Step::Mail && matches!((reply.code, about), (452, None) | (_, Some((3, 1 | 2))));
    let needs_login = matches!(reply.code, 523 | 525 | 530 | 534 | 535 | 538);
    Some(match reply.class() {
        4 | 5 if reply.code == 421 || before_mail(step) => (Status::Deferred, Scope::Host),
        4 | 5 if is_too_many => (Status::Deferred, Scope::Limit),
        5 if needs_login && step == Step::Rcpt => (Status::Deferred, scope),
        5 if needs_login => (Status::Deferred, Scope::Host),
        4 if is_full => (Status::Deferred, Scope::Host),
        2 if step == Step::End => (Status::Delivered, scope),
        4 => (Status::Deferred, scope),
        5 => (Status::Failed, scope),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> ServerReply {
        let text = format!("{text}\r\n");
        let (_, reply) = super::super::reply::ReplyParser::default()
            .push(text.as_bytes())
            .unwrap();
        reply.unwrap()
    }

    #[test]
    fn the_table() {
        use Scope::*;
        use Status::*;
        for (text, step, expected) in [
            ("554 no", Step::Greeting, Some((Deferred, Host))),
            ("521 never", Step::Greeting, Some((Deferred, Host))),
            ("550 unknown", Step::Hello, Some((Deferred, Host))),
            ("535 5.7.8 no", Step::Auth, Some((Deferred, Host))),
            ("502 no", Step::Reset, Some((Deferred, Host))),
            ("250 ok", Step::Mail, None),
            ("354 go", Step::Mail, None),
            ("451 later", Step::Mail, Some((Deferred, Message))),
            ("550 no", Step::Mail, Some((Failed, Message))),
            ("552 5.3.4 big", Step::Mail, Some((Failed, Message))),
            ("421 bye", Step::Rcpt, Some((Deferred, Host))),
            ("450 grey", Step::Rcpt, Some((Deferred, Message))),
            ("550 5.1.1 unknown", Step::Rcpt, Some((Failed, Message))),
            ("552 full", Step::Rcpt, Some((Failed, Message))),
            ("552 5.5.3 too many", Step::Rcpt, Some((Failed, Message))),
            ("550 5.5.3 too many", Step::Rcpt, Some((Failed, Message))),
            ("452 4.5.3 too many", Step::Rcpt, Some((Deferred, Limit))),
            ("552 5.2.2 full", Step::Rcpt, Some((Failed, Message))),
            ("452 too many", Step::Rcpt, Some((Deferred, Limit))),
            ("452 4.2.2 full", Step::Rcpt, Some((Deferred, Message))),
            ("450 4.5.3 too many", Step::Rcpt, Some((Deferred, Limit))),
            ("452 4.3.1 no space", Step::Rcpt, Some((Deferred, Message))),
            ("452 no space", Step::Mail, Some((Deferred, Host))),
            ("452 4.3.1 no space", Step::Mail, Some((Deferred, Host))),
            ("451 4.3.2 not now", Step::Mail, Some((Deferred, Host))),
            ("452 4.2.2 full", Step::Mail, Some((Deferred, Message))),
            ("451 4.3.0 odd", Step::Mail, Some((Deferred, Message))),
            ("552 5.3.1 full", Step::Mail, Some((Failed, Message))),
            ("530 5.7.0 login", Step::Mail, Some((Deferred, Host))),
            ("530 5.7.1 login", Step::Rcpt, Some((Deferred, Message))),
            ("530 tls first", Step::Data, Some((Deferred, Host))),
            ("535 5.7.8 login", Step::Mail, Some((Deferred, Host))),
            ("538 5.7.11 tls", Step::End, Some((Deferred, Host))),
            ("550 5.7.8 no", Step::Mail, Some((Failed, Message))),
            ("552 too much", Step::End, Some((Failed, Message))),
            ("250 ok", Step::End, Some((Delivered, Message))),
            ("299 odd", Step::End, Some((Delivered, Message))),
            ("421 bye", Step::End, Some((Deferred, Host))),
            ("354 what", Step::End, None),
        ] {
            let verdict = Verdict::of_reply(&reply(text), step, Message, "mx");
            let got = verdict.map(|verdict| (verdict.outcome.status, verdict.scope));
            assert_eq!(got, expected, "{text} {step:?}");
        }
    }

    #[test]
    fn too_many_are_only_those_after_others() {
        use Scope::*;
        use Status::*;
        for (text, step, expected) in [
            ("552 too many", Step::Rcpt, (Deferred, Limit)),
            ("552 5.5.3 too many", Step::Rcpt, (Deferred, Limit)),
            ("550 5.5.3 too many", Step::Rcpt, (Deferred, Limit)),
            ("552 5.2.2 full", Step::Rcpt, (Failed, Recipient)),
            ("550 5.1.1 unknown", Step::Rcpt, (Failed, Recipient)),
            ("552 5.5.3 too many", Step::End, (Failed, Recipient)),
        ] {
            let verdict = Verdict::in_turn(&reply(text), step, Recipient, "mx", true).unwrap();
            assert_eq!((verdict.outcome.status, verdict.scope), expected, "{text}");
        }
    }

    /// Whatever the enhanced code is, the code decides, and the outcome has a single class.
    #[test]
    fn a_code_that_contradicts_the_reply_decides_nothing() {
        use Status::*;
        for code in ["2.0.0", "4.7.3", "5.7.3"] {
            for (begin, step, status, class) in [
                ("451", Step::Rcpt, Deferred, 4),
                ("550", Step::Rcpt, Failed, 5),
                ("250", Step::End, Delivered, 2),
            ] {
                let text = format!("{begin} {code} text");
                let verdict = Verdict::of_reply(&reply(&text), step, Scope::Message, "mx");
                let outcome = verdict.unwrap().outcome;
                assert_eq!(outcome.status, status, "{text}");
                let enhanced = outcome.reply.enhanced.unwrap();
                assert_eq!(enhanced.class, class, "{text}");
                assert!(code.ends_with(&format!("{}.{}", enhanced.subject, enhanced.detail)));
            }
        }
    }

    #[test]
    fn only_silence_after_the_message_is_unknown() {
        for (step, status) in [
            (Step::Data, Status::Deferred),
            (Step::Body, Status::Deferred),
            (Step::End, Status::Unknown),
        ] {
            let verdict = Verdict::of_trouble(&Trouble::Lost, step);
            assert_eq!(verdict.outcome.status, status);
        }
        let verdict = Verdict::of_trouble(&Trouble::TimedOut(Duration::from_secs(300)), Step::Rcpt);
        assert_eq!(
            verdict.outcome.reply.to_string(),
            "4.4.2 timed out after 300 s while waiting for the answer to RCPT TO"
        );
    }

    #[test]
    fn a_null_mx_fails_in_the_words_of_its_rfc() {
        assert_eq!(
            null_mx("example.org").reply.to_string(),
            "556 5.1.10 example.org accepts no mail (null MX)"
        );
    }
}
