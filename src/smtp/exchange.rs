//! One transaction, without I/O: takes replies, produces commands, and has a verdict for each recipient at
//! the end.
//!
//! With PIPELINING everything up to DATA is one write, and replies are handled in order as they arrive. A
//! verdict is final: a refused recipient keeps that reply, whatever happens later. A recipient without a
//! verdict at the end of the message gets the answer to the message; in LMTP each such recipient has a
//! separate answer.

use std::collections::{BTreeSet, VecDeque};

use super::capabilities::Capabilities;
use super::content::Framing;
use super::opening::Protocol;
use super::reply::ServerReply;
use super::step::Step;
use super::transaction::{Transaction, is_path, needs_utf8};
use super::verdict::{Scope, Trouble, Verdict};
use crate::message::{EnhancedCode, domain};

/// What comes next in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeNext {
    /// Send what was written, and pass the reply to [`Exchange::on_reply`].
    Reply(Step),
    /// Send what was written and then the message, then call [`Exchange::on_sent`]. No input may remain
    /// after the last reply. A reply that arrives before everything is sent goes to
    /// [`Exchange::on_early_reply`].
    Body(Framing),
    /// Every recipient has a verdict.
    Done,
}

/// The state in which a transaction leaves the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next MAIL may follow.
    Ready,
    /// RSET has to come first. It is sent in one write with the next MAIL if possible.
    Reset,
    /// The connection is unusable and must be closed.
    Close,
}

/// A transaction in progress.
#[derive(Debug)]
pub struct Exchange<'a> {
    transaction: &'a Transaction<'a>,
    caps: &'a Capabilities,
    protocol: Protocol,
    remote: &'a str,
    framing: Framing,
    verdicts: Vec<Option<Verdict>>,
    /// Commands to be sent, and commands sent but not answered yet.
    unsent: VecDeque<Command>,
    sent: VecDeque<Command>,
    /// Recipients that the server accepted, in their order.
    accepted: VecDeque<usize>,
    /// MAIL was refused. The answers to what follows mean nothing.
    is_refused: bool,
    /// The message is being sent.
    in_body: bool,
    /// The server is closing the connection.
    is_closing: bool,
    after: After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// The end of the message.
    End,
    /// The end of a message without recipients: DATA was accepted although no recipient was.
    LoneDot,
}

impl<'a> Exchange<'a> {
    /// Begins a transaction on a connection that the last one left as `before`, and appends the first
    /// commands to `out`. A recipient or message that this server cannot be sent at all gets its verdict at
    /// once.
    pub fn begin(
        transaction: &'a Transaction<'a>,
        caps: &'a Capabilities,
        protocol: Protocol,
        remote: &'a str,
        before: After,
        out: &mut Vec<u8>,
    ) -> (Exchange<'a>, ExchangeNext) {
        let mut exchange = Exchange {
            transaction,
            caps,
            protocol,
            remote,
            framing: transaction.framing(caps),
            verdicts: vec![None; transaction.recipients.len()],
            unsent: VecDeque::new(),
            sent: VecDeque::new(),
            accepted: VecDeque::new(),
            is_refused: false,
            in_body: false,
            is_closing: false,
            after: before,
        };
        exchange.refuse_what_cannot_go();
        exchange.leave_what_is_beyond_limits();
        let left: Vec<usize> = exchange.undecided().collect();
        if left.is_empty() {
            return (exchange, ExchangeNext::Done);
        }
        if before == After::Reset {
            exchange.unsent.push_back(Command::Reset);
        }
        exchange.unsent.push_back(Command::Mail);
        exchange.unsent.extend(left.into_iter().map(Command::Rcpt));
        if exchange.framing != Framing::Counted {
            exchange.unsent.push_back(Command::Data);
        }
        exchange.after = After::Close;
        let next = exchange.go_on(out);
        (exchange, next)
    }

    /// Handles a reply; appends the next commands to `out`.
    pub fn on_reply(&mut self, reply: &ServerReply, out: &mut Vec<u8>) -> ExchangeNext {
        let Some(command) = self.sent.pop_front() else {
            return self.misplaced(reply, Step::Mail);
        };
        match command {
            Command::LoneDot => return self.finished(After::Ready),
            Command::End => return self.on_answer(reply),
            _ if reply.code == 421 => return self.refuse_all(reply, command.step(), After::Close),
            Command::Reset if reply.class() != 2 => {
                return match reply.class() {
                    4 | 5 => self.refuse_all(reply, Step::Reset, After::Close),
                    _ => self.misplaced(reply, Step::Reset),
                };
            }
            Command::Mail if reply.class() != 2 => {
                self.is_refused = true;
                if reply.class() == 3 {
                    return self.misplaced(reply, Step::Mail);
                }
                // No transaction is open, so RSET is not needed; but more replies may be on their way.
                let next = self.refuse_all(reply, Step::Mail, After::Ready);
                if self.sent.is_empty() {
                    return next;
                }
            }
            Command::Reset | Command::Mail => {}
            Command::Rcpt(index) => match reply.class() {
                2 => self.accepted.push_back(index),
                3 => return self.misplaced(reply, Step::Rcpt),
                _ => self.decide(index, reply, Step::Rcpt, Scope::Recipient),
            },
            Command::Data => return self.on_go_ahead(reply, out),
        }
        self.go_on(out)
    }

    /// Notes that the operating system has the whole message with its end: from now on the server may have
    /// it.
    pub fn on_sent(&mut self) -> ExchangeNext {
        self.in_body = false;
        self.sent.push_back(Command::End);
        ExchangeNext::Reply(Step::End)
    }

    /// Handles a reply that arrived before the whole message was sent. The server does not have the
    /// message.
    pub fn on_early_reply(&mut self, reply: &ServerReply) -> ExchangeNext {
        match reply.class() {
            4 | 5 => self.refuse_all(reply, Step::Body, After::Close),
            _ => self.misplaced(reply, Step::Body),
        }
    }

    /// Notes that the connection cannot be used any more.
    pub fn on_trouble(&mut self, trouble: &Trouble) -> ExchangeNext {
        let step = match self.sent.front() {
            _ if self.in_body => Step::Body,
            Some(command) => command.step(),
            None => Step::Mail,
        };
        self.give_up(trouble, step)
    }

    /// Returns the verdicts, in the order of the recipients, and the state of the connection.
    pub fn finish(self) -> (Vec<Verdict>, After) {
        let lost = || Verdict::of_trouble(&Trouble::Lost, Step::Mail);
        let verdicts = self.verdicts.into_iter();
        let verdicts = verdicts.map(|verdict| verdict.unwrap_or_else(lost));
        (verdicts.collect(), self.after)
    }

    fn refuse_what_cannot_go(&mut self) {
        let Transaction {
            sender, recipients, ..
        } = self.transaction;
        let all = |code: (u16, u16), text: String| {
            let code = EnhancedCode::new(5, code.0, code.1);
            Some(Verdict::unsendable(code, &text, Scope::Message, Step::Mail))
        };
        let lacks_utf8 = !self.caps.smtp_utf8;
        let remote = self.remote;
        let limit = self.caps.max_size.unwrap_or(u64::MAX);
        let size = self.transaction.size(self.framing);
        let verdict = if !is_path(sender.as_str()) {
            let text = "the sender's address cannot be written into an SMTP command";
            all((1, 7), text.into())
        } else if let Err(error) = sender.on_wire() {
            all((1, 8), format!("the sender's domain: {error}"))
        } else if lacks_utf8 && needs_utf8(sender.on_wire()) {
            let text = format!(
                "the local part of the sender's address is not ASCII, and {remote} does not offer SMTPUTF8"
            );
            all((6, 7), text)
        } else if size > limit {
            let text = format!("the message has {size} octets, {remote} takes {limit}");
            all((3, 4), text)
        } else {
            None
        };
        for (index, recipient) in recipients.iter().enumerate() {
            let own = |code: (u16, u16), text: &str| {
                let code = EnhancedCode::new(5, code.0, code.1);
                Verdict::unsendable(code, text, Scope::Recipient, Step::Rcpt)
            };
            self.verdicts[index] = if let Some(verdict) = &verdict {
                Some(verdict.clone())
            } else if !is_path(recipient.as_str()) {
                let text = "the address cannot be written into an SMTP command";
                Some(own((1, 3), text))
            } else if let Err(error) = recipient.on_wire() {
                Some(own((1, 2), &error.to_string()))
            } else if lacks_utf8 && needs_utf8(recipient.on_wire()) {
                let text = format!(
                    "the address's local part is not ASCII, and {remote} does not offer SMTPUTF8"
                );
                Some(own((6, 7), &text))
            } else {
                None
            };
        }
    }

    /// Leaves out the recipients beyond the server's limits for one transaction, without sending them.
    fn leave_what_is_beyond_limits(&mut self) {
        let most = self.caps.max_recipients.unwrap_or(u64::MAX);
        let most_domains = self.caps.max_domains.unwrap_or(u64::MAX);
        let mut domains = BTreeSet::new();
        let mut count = 0;
        for index in self.undecided().collect::<Vec<_>>() {
            let recipients = &self.transaction.recipients;
            let domain = recipients[index].domain().unwrap_or_default();
            let domain = domain::key(domain);
            let room = most_domains > domains.len() as u64 || domains.contains(&domain);
            if count == most || !room {
                let what = if count == most {
                    format!("{most} recipients")
                } else {
                    format!("recipients in {most_domains} domains")
                };
                let text = format!("{} takes {what} at once", self.remote);
                self.verdicts[index] = Some(Verdict::beyond_limit(&text));
                continue;
            }
            domains.insert(domain);
            count += 1;
        }
    }

    fn undecided(&self) -> impl Iterator<Item = usize> {
        let open = |(index, verdict): (usize, &Option<Verdict>)| verdict.is_none().then_some(index);
        self.verdicts.iter().enumerate().filter_map(open)
    }

    /// Writes the commands that may be sent now: all, or only the next one.
    fn go_on(&mut self, out: &mut Vec<u8>) -> ExchangeNext {
        if self.sent.is_empty() {
            // No recipient is left for DATA or BDAT.
            let is_before_body = self.unsent.front().is_none_or(|c| *c == Command::Data);
            if is_before_body && (self.accepted.is_empty() || self.is_refused) {
                return self.finished(After::Reset);
            }
            while let Some(command) = self.unsent.pop_front() {
                self.write(command, out);
                self.sent.push_back(command);
                if !self.caps.pipelining {
                    break;
                }
            }
        }
        match self.sent.front() {
            Some(command) => ExchangeNext::Reply(command.step()),
            None => {
                let size = self.transaction.size(Framing::Counted);
                out.extend_from_slice(format!("BDAT {size} LAST\r\n").as_bytes());
                self.begin_body()
            }
        }
    }

    fn write(&self, command: Command, out: &mut Vec<u8>) {
        match command {
            Command::Reset => out.extend_from_slice(b"RSET\r\n"),
            Command::Mail => {
                // Only a UTF-8 address is declared. A UTF-8 header is sent like other octets above 127, as
                // Postfix does with mail submitted without SMTPUTF8. Servers accept such a header
                // undeclared. Declared, the message would be returned by the first server on the path
                // without SMTPUTF8, such as the mail store after a relay that has it.
                let is_utf8 =
                    |index: usize| needs_utf8(self.transaction.recipients[index].on_wire());
                let utf8 = self.caps.smtp_utf8
                    && (needs_utf8(self.transaction.sender.on_wire())
                        || self.undecided().any(is_utf8));
                self.transaction.write_mail(self.caps, utf8, out);
            }
            Command::Rcpt(index) => self.transaction.write_rcpt(index, self.caps, out),
            Command::Data => out.extend_from_slice(b"DATA\r\n"),
            Command::LoneDot => out.extend_from_slice(b".\r\n"),
            Command::End => {}
        }
    }

    fn begin_body(&mut self) -> ExchangeNext {
        self.in_body = true;
        ExchangeNext::Body(self.framing)
    }

    /// Handles the answer to DATA.
    fn on_go_ahead(&mut self, reply: &ServerReply, out: &mut Vec<u8>) -> ExchangeNext {
        match (reply.class(), self.accepted.is_empty(), self.is_refused) {
            (3, false, false) => self.begin_body(),
            // Pipelined, and no recipient was accepted: the requested message has to be ended, and the
            // answer to that counts for no recipient (RFC 2920 3.1). In LMTP there would be no answer.
            (3, true, _) if self.protocol == Protocol::Smtp => {
                self.write(Command::LoneDot, out);
                self.sent.push_back(Command::LoneDot);
                ExchangeNext::Reply(Step::End)
            }
            // MAIL was refused but a recipient accepted: the empty message might be delivered to it, so
            // close the connection.
            (3, ..) => self.finished(After::Close),
            (2, ..) => self.misplaced(reply, Step::Data),
            _ if self.is_refused => self.finished(After::Ready),
            _ => self.refuse_all(reply, Step::Data, After::Reset),
        }
    }

    /// Handles an answer to the message: for all recipients, or in LMTP for the next one.
    fn on_answer(&mut self, reply: &ServerReply) -> ExchangeNext {
        if reply.class() == 3 {
            return self.misplaced(reply, Step::End);
        }
        match self.protocol {
            Protocol::Smtp => {
                for index in std::mem::take(&mut self.accepted) {
                    self.decide(index, reply, Step::End, Scope::Message);
                }
            }
            Protocol::Lmtp => {
                if let Some(index) = self.accepted.pop_front() {
                    self.decide(index, reply, Step::End, Scope::Recipient);
                }
            }
        }
        // The server is closing the connection, but in LMTP it may already have answered for the other
        // recipients.
        self.is_closing |= reply.code == 421;
        if !self.accepted.is_empty() {
            self.sent.push_back(Command::End);
            return ExchangeNext::Reply(Step::End);
        }
        if self.is_closing {
            self.finished(After::Close)
        } else {
            self.finished(After::Ready)
        }
    }

    fn decide(&mut self, index: usize, reply: &ServerReply, step: Step, scope: Scope) {
        let took_others = !self.accepted.is_empty();
        let slot = &mut self.verdicts[index];
        if slot.is_none() {
            *slot = Verdict::in_turn(reply, step, scope, self.remote, took_others);
        }
    }

    fn refuse_all(&mut self, reply: &ServerReply, step: Step, after: After) -> ExchangeNext {
        for index in self.undecided().collect::<Vec<_>>() {
            self.decide(index, reply, step, Scope::Message);
        }
        self.finished(after)
    }

    fn misplaced(&mut self, reply: &ServerReply, step: Step) -> ExchangeNext {
        self.give_up(&Trouble::misplaced(reply), step)
    }

    fn give_up(&mut self, trouble: &Trouble, step: Step) -> ExchangeNext {
        for index in self.undecided().collect::<Vec<_>>() {
            self.verdicts[index] = Some(Verdict::of_trouble(trouble, step));
        }
        self.finished(After::Close)
    }

    fn finished(&mut self, after: After) -> ExchangeNext {
        self.after = after;
        ExchangeNext::Done
    }
}

impl Command {
    fn step(self) -> Step {
        match self {
            Command::Reset => Step::Reset,
            Command::Mail => Step::Mail,
            Command::Rcpt(_) => Step::Rcpt,
            Command::Data => Step::Data,
            Command::End | Command::LoneDot => Step::End,
        }
    }
}

#[cfg(test)]
mod tests;
